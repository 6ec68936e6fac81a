//! A server of ours: started on loopback on a file of ours, and killed when it is no longer needed.

use std::fs::File;
use std::io::Write as _;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::watchdog::Watchdog;
use crate::error::{Fault, Kind};

/// What a failed start shows of the server's log, characters.
const LOG_TAIL_CHARS: usize = 600;
/// The server's cache: its default of 1 GiB may be more than a machine for drills has.
const CACHE: &str = "--cache-grid=256MiB";

/// Times that a server is started because another program took its port.
pub(super) const PORT_TRIES: u32 = 5;

/// What the watchdog does: the process that it was told last is killed, and what it was given is
/// removed. A killed run leaves neither a server nor the books in the clear.
pub(super) const CLEAN_UP: &str = "[ -z \"$told\" ] || kill -KILL \"$told\"; rm -rf -- \"$@\"";

/// Tells the watchdog its number before it becomes the server: were we to tell, a kill in between
/// would leave a server that nobody knows of.
const TELL_AND_BECOME: &str = "echo \"$$\"; exec \"$0\" \"$@\" >&2";

/// A server of ours; killed when dropped, or, by the watchdog, when we are.
pub(super) struct Server {
    pub(super) child: Child,
    pub(super) address: String,
    log: PathBuf,
    /// The watchdog's.
    ear: File,
}

impl Server {
    /// Starts one on a port that is free. It listens a while later.
    pub(super) fn start(
        program: &Path,
        data_file: &Path,
        watchdog: &Watchdog,
    ) -> anyhow::Result<Server> {
        // The listener is closed before the server binds the port; nothing else is told of it.
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let address = format!("127.0.0.1:{port}");
        let log = log_of(data_file);
        let output = File::create(&log)?;
        // A shell would say in its own way that there is no such program.
        Command::new(program)
            .arg("version")
            .stdin(Stdio::null())
            .output()
            .map_err(|error| missing(program, &error))?;
        let ear = File::from(watchdog.ear()?);
        let child = Command::new("/bin/sh")
            .args(["-c", TELL_AND_BECOME])
            .arg(program)
            .args(["start", CACHE])
            .arg(format!("--addresses={address}"))
            .arg(data_file)
            .stdin(Stdio::null())
            .stdout(ear.try_clone()?)
            .stderr(output)
            .spawn()?;
        Ok(Server { child, address, log, ear })
    }

    /// What it has said so far; nothing if that cannot be read.
    pub(super) fn log(&self) -> String {
        let log = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    /// Whether it ended because another program took the port between our look and its own.
    pub(super) fn lost_its_port(&self) -> bool {
        self.log().contains("AddressInUse")
    }

    /// A server that does not do its `work`, with the end of its log. Only if it says itself that the
    /// file is broken is the backup to blame: else it may be the machine.
    pub(super) fn failed(&self, work: &str, reason: &str) -> anyhow::Error {
        let log = self.log();
        let tail: String = log.chars().rev().take(LOG_TAIL_CHARS).collect();
        let tail: String = tail.chars().rev().collect();
        let message =
            format!("{work}: {reason}; its log ends with: {}", tail.trim().replace('\n', " | "));
        let broken = ["panic", "WALCorrupt", "SuperBlock", "unreachable", "corrupt"];
        if broken.iter().any(|word| log.contains(word)) {
            return Fault::new(Kind::Integrity, message).into();
        }
        Fault::new(Kind::Source, message)
            .hint(format!(
                "give the {work} memory, room and a whole `tigerbeetle` binary, and run it again; it says nothing of the backup yet"
            ))
            .into()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A data file is in order at any moment. Both calls fail only if the server is gone already.
        let _gone = self.child.kill();
        let _status = self.child.wait();
        // Its number may be another process's from now on.
        let _forgotten = self.ear.write_all(b"\n");
        let _removed = std::fs::remove_file(&self.log);
    }
}

/// The file that a server on `data_file` writes its log to.
pub(super) fn log_of(data_file: &Path) -> PathBuf {
    data_file.with_extension("log")
}

/// A program that cannot be started.
pub(super) fn missing(program: &Path, error: &std::io::Error) -> Fault {
    let message = format!("cannot start {}: {error}", program.display());
    Fault::new(Kind::Config, message).hint("install the TigerBeetle release of the backup and set `tigerbeetle` under [tools] in the configuration, or do what needs no server: verify with --level decode, restore a snapshot as it is")
}
