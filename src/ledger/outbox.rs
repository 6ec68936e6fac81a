//! Events pending for the ledger: one file each, in the state directory.
//!
//! A file is there or not, never in part. Any later run delivers it and then removes it; a run that
//! dies in between delivers it twice, and the ledger knows it by its id. Losing the outbox loses
//! nothing that cannot be made again: an event follows from its manifest.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::{Ledger, LedgerError};
use crate::domain::event::{Event, Numbers};
use crate::fs::staged_file::StagedFile;

/// Largest file that is read, bytes. One needs about 300.
const FILE_BYTES_MAX: u64 = 4096;

const SCHEMA: &str = "bkp.event/1";
const EXTENSION: &str = "event";

/// The outbox of a state directory.
#[derive(Debug, Clone)]
pub struct Outbox {
    folder: PathBuf,
}

/// An event as it waits.
#[derive(Debug, Serialize, Deserialize)]
struct QueuedEvent {
    schema: String,
    #[serde(flatten)]
    numbers: Numbers,
}

impl Outbox {
    /// The outbox in `state_dir`. Makes nothing.
    #[must_use]
    pub fn of(state_dir: &Path) -> Outbox {
        Outbox { folder: state_dir.join("outbox") }
    }

    /// Keeps an event until a flush. One that waits already is success.
    ///
    /// # Errors
    /// [`LedgerError::Outbox`] if it cannot be written durably.
    pub fn put(&self, event: &Event) -> Result<(), LedgerError> {
        let numbers = Numbers::from(event);
        let name = format!("{:032x}.{EXTENSION}", numbers.id);
        let queued = QueuedEvent { schema: SCHEMA.to_owned(), numbers };
        let write = || -> io::Result<()> {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let staged = StagedFile::begin(rustix::fs::open(&self.folder, flags, Mode::empty())?)?;
            let mut text = serde_json::to_vec(&queued)?;
            text.push(b'\n');
            let mut file = staged.file();
            file.write_all(&text)?;
            file.sync_all()?;
            match staged.publish(&name) {
                Ok(()) | Err(Errno::EXIST) => Ok(()),
                Err(error) => Err(error.into()),
            }
        };
        write().map_err(|error| failed(&self.folder.join(&name), error))
    }

    /// The files of the events that wait, oldest first.
    ///
    /// # Errors
    /// [`LedgerError::Outbox`] if the folder cannot be read.
    pub fn waiting(&self) -> Result<Vec<PathBuf>, LedgerError> {
        let items = match std::fs::read_dir(&self.folder) {
            Ok(items) => items,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(&self.folder, error)),
        };
        let paths = items.map(|item| item.map(|item| item.path()));
        let mut paths: Vec<PathBuf> =
            paths.collect::<Result<_, _>>().map_err(|error| failed(&self.folder, error))?;
        paths.retain(|path| path.extension() == Some(EXTENSION.as_ref()));
        paths.sort();
        Ok(paths)
    }

    /// Forgets the events that are not `wanted`.
    ///
    /// # Errors
    /// [`LedgerError::Outbox`] if one cannot be read or removed.
    pub fn retain(&self, wanted: impl Fn(&Event) -> bool) -> Result<(), LedgerError> {
        for path in self.waiting()? {
            if read(&path)?.is_some_and(|event| !wanted(&event)) {
                remove(&path)?;
            }
        }
        Ok(())
    }

    /// Delivers what waits and removes it; returns how many events that were. Asks the ledger nothing
    /// if nothing waits. `warn` is told of what cannot be delivered for a reason of its own; it stays
    /// where it is.
    ///
    /// # Errors
    /// [`LedgerError::Away`]; the rest goes on waiting.
    pub fn flush(
        &self,
        ledger: &dyn Ledger,
        warn: &mut dyn FnMut(&LedgerError),
    ) -> Result<usize, LedgerError> {
        let mut delivered = 0;
        for path in self.waiting()? {
            let done = read(&path).and_then(|event| {
                event.map_or(Ok(()), |event| ledger.record(&event))?;
                remove(&path)
            });
            match done {
                Ok(()) => delivered += 1,
                Err(error @ LedgerError::Away { .. }) => return Err(error),
                Err(error) => warn(&error),
            }
        }
        Ok(delivered)
    }
}

/// The event in a file; `None` if another run has delivered and removed it meanwhile.
fn read(path: &Path) -> Result<Option<Event>, LedgerError> {
    let mut text = String::new();
    let opened =
        File::open(path).and_then(|file| file.take(FILE_BYTES_MAX).read_to_string(&mut text));
    match opened {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(path, error)),
    }
    let queued: Option<QueuedEvent> = serde_json::from_str(&text).ok();
    let queued = queued.filter(|queued| queued.schema == SCHEMA);
    match queued.and_then(|queued| Event::unpack(&queued.numbers)) {
        Some(event) => Ok(Some(event)),
        None => Err(failed(path, io::Error::other("not an event of this version of bkp"))),
    }
}

fn remove(path: &Path) -> Result<(), LedgerError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(path, error)),
        _ => Ok(()),
    }
}

fn failed(path: &Path, source: io::Error) -> LedgerError {
    LedgerError::Outbox { path: path.display().to_string(), source }
}
