//! What a server says, in a file.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use super::programs::tail;
use crate::error::{Fault, Kind};

/// What is read of the end of the log, bytes.
const READ_BYTES_MAX: u64 = 1 << 20;

/// Words of a server that cannot go on with what it was given. Without them it may be the machine.
const BROKEN: [&str; 10] = [
    "PANIC",
    "checksum",
    "corrupt",
    "could not locate",
    "invalid page",
    "invalid primary checkpoint",
    "is not a child of",
    "recovery ended before",
    "references to invalid pages",
    "WAL ends before",
];

/// The log of a server.
#[derive(Debug)]
pub(crate) struct ServerLog(PathBuf);

impl ServerLog {
    /// Makes the file, or empties it.
    ///
    /// # Errors
    /// [`Kind::Failed`] if that cannot be done.
    pub(crate) fn create(path: PathBuf) -> Result<ServerLog, Fault> {
        let mut options = File::options();
        match options.write(true).create(true).truncate(true).mode(0o600).open(&path) {
            Ok(_file) => Ok(ServerLog(path)),
            Err(error) => {
                let message = format!("cannot create {}: {error}", path.display());
                Err(Fault::new(Kind::Failed, message).hint("make the folder writable"))
            }
        }
    }

    /// Where the server writes to.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn output(&self) -> io::Result<File> {
        File::options().append(true).open(&self.0)
    }

    /// The end of it; nothing if it cannot be read.
    pub(crate) fn text(&self) -> String {
        let read = || {
            let mut file = File::open(&self.0)?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(READ_BYTES_MAX)))?;
            let mut bytes = Vec::new();
            file.take(READ_BYTES_MAX).read_to_end(&mut bytes)?;
            io::Result::Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        read().unwrap_or_default()
    }

    /// Whether it says these words.
    pub(crate) fn has(&self, words: &str) -> bool {
        self.text().contains(words)
    }

    /// A server that failed for a `reason`, with what it says of it. Only if it cannot go on with what it was given
    /// is the backup to blame.
    pub(crate) fn failure(&self, reason: &str) -> Fault {
        let log = self.text();
        let said = match fatal(&log) {
            Some(fatal) => format!("it says: {fatal}"),
            None => format!("its log ends with: {}", tail(&log)),
        };
        let message = format!("{reason}; {said}");
        if BROKEN.iter().any(|words| said.contains(words)) {
            return Fault::new(Kind::Integrity, message);
        }
        Fault::new(Kind::Source, message).hint(
            "make sure the machine has memory, disk space, and the locales and extensions of the original, and run it again; this says nothing about the backup",
        )
    }
}

/// The first line that says why a server gave up, with its detail.
fn fatal(log: &str) -> Option<String> {
    // Whoever connects too early gets such a line too.
    let is_fatal = |line: &&str| {
        (line.starts_with("FATAL:") || line.starts_with("PANIC:"))
            && !line.contains("the database system is ")
    };
    let mut lines = log.lines().skip_while(|line| !is_fatal(line));
    let first = lines.next()?.trim().to_owned();
    let details = lines.take_while(|line| line.starts_with("DETAIL:") || line.starts_with("HINT:"));
    let all = details.fold(first, |all, line| all + " | " + line.trim());
    Some(tail(&all))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_that_ended_a_server_is_quoted() {
        let log = "LOG:  starting\nFATAL:  the database system is starting up\nFATAL:  recovery ended before configured recovery target was reached\nDETAIL:  more\nLOG:  startup process (PID 5) exited with exit code 1\n";
        let expected =
            "FATAL:  recovery ended before configured recovery target was reached | DETAIL:  more";
        assert_eq!(fatal(log).as_deref(), Some(expected));
        assert_eq!(fatal("LOG:  FATAL: no\n"), None);
    }
}
