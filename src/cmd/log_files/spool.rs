//! What hooks leave for the next hook: files that were fetched ahead, and the names of those that were archived
//! ahead. Only ever a short cut; without it the store is asked.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::error::{Fault, Kind};
use crate::fs::staged_file::{StagedFile, folder_of};
use crate::wire::AppContext;

/// A note on a file that was archived before the server handed it over.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct PushedNote {
    stamp: Stamp,
    stores: Vec<String>,
}

/// What is another for a file of other content, or one that was written to meanwhile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    /// When it was last written to or renamed, seconds and nanoseconds, as the file system keeps it.
    changed: (i64, i64),
}

/// The coarsest clock of a file system that servers are on, seconds, and as much again: a file that was written to just
/// now may be written to once more without another time.
const SETTLED_AFTER: i64 = 2;

impl Stamp {
    /// That of the file at a path; `None` if it cannot be told.
    pub(super) fn of(path: &Path) -> Option<Stamp> {
        let found = fs::metadata(path).ok()?;
        let changed = (found.ctime(), found.ctime_nsec());
        Some(Stamp { device: found.dev(), inode: found.ino(), bytes: found.len(), changed })
    }

    /// Whether whatever is written to the file from now on leaves another stamp.
    pub(super) fn is_settled(&self, now: OffsetDateTime) -> bool {
        now.unix_timestamp().saturating_sub(self.changed.0) >= SETTLED_AFTER
    }
}

/// The folder of one log in the state directory.
#[derive(Debug)]
pub(super) struct Spool {
    folder: PathBuf,
}

impl Spool {
    /// That of the log with this stream.
    pub(super) fn of(app: &AppContext, source: &str, stream: &str) -> Spool {
        let folder = app.settings.state_dir.join("log-files").join(source).join(stream);
        Spool { folder }
    }

    /// The folder for files that were fetched ahead; made if need be.
    pub(super) fn fetched(&self) -> io::Result<PathBuf> {
        let folder = self.folder.join("fetched");
        make_folder(&folder)?;
        Ok(folder)
    }

    fn note(&self, file: &str) -> PathBuf {
        self.folder.join("pushed").join(file)
    }

    /// Whether this host has archived a file of this name ahead.
    pub(super) fn has_note(&self, file: &str) -> bool {
        self.note(file).exists()
    }

    /// Whether this host has archived the file at `path`, as it is now, in all of these stores.
    pub(super) fn was_pushed(&self, file: &str, path: &Path, stores: &[String]) -> bool {
        let note = fs::read(self.note(file)).ok();
        let note = note.and_then(|bytes| serde_json::from_slice::<PushedNote>(&bytes).ok());
        note.is_some_and(|note| Some(note.stamp) == Stamp::of(path) && note.stores == stores)
    }

    /// Notes that a file is archived. If that fails, the store is asked when the server hands it over.
    pub(super) fn note_pushed(&self, file: &str, stamp: Stamp, stores: &[String]) {
        let note = PushedNote { stamp, stores: stores.to_vec() };
        let Ok(text) = serde_json::to_vec(&note) else { return };
        let path = self.note(file);
        let folder = path.parent().map(make_folder).transpose();
        if matches!(folder, Ok(Some(()))) {
            let _missed = write(&path, |out| Ok(out.write_all(&text)?));
        }
    }

    /// Forgets a file that the server knows to be archived.
    pub(super) fn forget_pushed(&self, file: &str) {
        let _never_noted = fs::remove_file(self.note(file));
    }
}

fn make_folder(folder: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// Writes a file that appears at `target` once it is whole and durable, in place of what stands there.
///
/// # Errors
/// What `content` fails with; [`Kind::Failed`] for what the system refuses. Then what stands there stays.
pub(super) fn write(
    target: &Path,
    content: impl FnOnce(&mut File) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let failed = |error: &dyn std::fmt::Display| {
        Fault::new(Kind::Failed, format!("cannot write {}: {error}", target.display()))
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = rustix::fs::open(folder_of(target), flags, Mode::empty());
    let staged = folder.and_then(StagedFile::named).map_err(|error| failed(&error))?;
    content(&mut staged.file().try_clone()?)?;
    staged.file().sync_all().map_err(|error| failed(&error))?;
    let name = target.file_name().ok_or_else(|| failed(&"it has no name"))?;
    staged.replace(name).map_err(|error| failed(&error))?;
    Ok(())
}
