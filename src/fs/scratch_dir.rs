//! A private scratch folder, for anything that needs file names: the database of a library, a scratch
//! copy, the state of a drill.
//!
//! It has a name that is nobody's and a kernel lock that ends with its process, so two runs never meet
//! in one. What a killed run left is known by its lock, which nobody holds: whoever makes a folder in
//! the same place removes it first.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::error::{Fault, Kind};
use crate::fs::rename_transaction::{RenameTransaction, taken};
use crate::fs::staged_file::{HIDDEN, folder_of, hidden, sync_folder};

/// In a folder that stands for another one, which is somewhere else: the path of the place to look
/// for that.
const ELSEWHERE: &str = "elsewhere";

/// A folder of ours. It is removed with everything in it when this is dropped.
#[derive(Debug)]
pub struct ScratchDir {
    folder: PathBuf,
    /// The folder around it.
    around: OwnedFd,
    /// Says that this run lives.
    _lock: File,
    /// The one that stands for it: it is removed after this one.
    noted: Option<Box<ScratchDir>>,
}

impl ScratchDir {
    /// Makes one in the folder that `target` is to be in.
    ///
    /// # Errors
    /// [`Kind::Failed`] if that folder does not exist or cannot be written to.
    pub fn beside(target: &Path) -> Result<ScratchDir, Fault> {
        ScratchDir::make(folder_of(target))
    }

    /// Makes one in `place`, which is made too if it is not there.
    ///
    /// # Errors
    /// [`Kind::Failed`] if that cannot be written to.
    pub fn within(place: &Path) -> Result<ScratchDir, Fault> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(place);
        made.map_err(|error| failed(place, &error))?;
        ScratchDir::make(place)
    }

    fn make(place: &Path) -> Result<ScratchDir, Fault> {
        sweep(place);
        let around = open_folder(place).map_err(|error| failed(place, &error))?;
        loop {
            let folder = hidden().map_err(|error| failed(place, &error))?;
            let folder = place.join(folder);
            let made = DirBuilder::new().mode(0o700).create(&folder);
            made.map_err(|error| failed(place, &error))?;
            // Whoever sweeps between these two steps takes it for left behind.
            if let Some(lock) = lock(&folder) {
                return Ok(ScratchDir { folder, around, _lock: lock, noted: None });
            }
        }
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A path in the folder.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Lets this folder stand for one that is made in `place`: whoever finds this one left behind
    /// looks there, too.
    ///
    /// # Errors
    /// What the system says.
    pub fn stand_for(&self, place: &Path) -> io::Result<()> {
        let place = std::path::absolute(place)?;
        std::os::unix::fs::symlink(place, self.path(ELSEWHERE))
    }

    /// The same folder, for which another one stands until it is removed: see [`ScratchDir::stand_for`].
    #[must_use]
    pub fn noted_by(mut self, other: Option<ScratchDir>) -> ScratchDir {
        self.noted = other.map(Box::new);
        self
    }

    /// Gives the file `from`, and those with one of the `companions` (endings) added to its name, their
    /// places at `target`, durably. With `replace`, what stands there is kept under another name;
    /// what stands in the place of a companion is, in any case. Returns the name of what was kept.
    ///
    /// # Errors
    /// [`Kind::Refused`] if the target is taken; [`Kind::Failed`] for anything else that the system
    /// refuses. Then everything is where it was.
    pub fn publish(
        &self,
        from: &Path,
        target: &Path,
        companions: &[&str],
        replace: bool,
    ) -> Result<Option<PathBuf>, Fault> {
        if !replace && target.symlink_metadata().is_ok() {
            return Err(taken(target));
        }
        let mut renames = RenameTransaction::default();
        let aside = renames.move_aside(target, companions)?;
        match self.place(from, target, companions, &mut renames) {
            Ok(()) => Ok(aside),
            Err(Errno::EXIST) => Err(renames.undo(taken(target))),
            Err(error) => {
                let message = format!("cannot create {}: {error}", target.display());
                Err(renames.undo(Fault::new(Kind::Failed, message)))
            }
        }
    }

    /// The same for a folder. An empty one at `target` gives way.
    ///
    /// # Errors
    /// As [`ScratchDir::publish`]; [`Kind::Refused`] if the empty folder cannot be removed, as one that a disk is
    /// mounted at.
    pub fn publish_folder(
        &self,
        from: &Path,
        target: &Path,
        replace: bool,
    ) -> Result<Option<PathBuf>, Fault> {
        let is_empty = std::fs::read_dir(target).is_ok_and(|mut items| items.next().is_none());
        if !is_empty {
            return self.publish(from, target, &[], replace);
        }
        std::fs::remove_dir(target).map_err(|error| {
            let message = format!("cannot replace the empty folder {}: {error}", target.display());
            Fault::new(Kind::Refused, message).hint("choose a folder inside it as --to")
        })?;
        let published = self.publish(from, target, &[], false);
        if published.is_err() {
            // As it was; the error says what happened.
            let _there = std::fs::create_dir(target);
        }
        published
    }

    /// Companions first: a file without its log would lack commits, a log without its file is moved
    /// aside by the next run.
    fn place(
        &self,
        from: &Path,
        target: &Path,
        companions: &[&str],
        renames: &mut RenameTransaction,
    ) -> Result<(), Errno> {
        let ended = |path: &Path, ending: &str| {
            let mut name = path.as_os_str().to_owned();
            name.push(ending);
            PathBuf::from(name)
        };
        for ending in companions {
            let companion = ended(from, ending);
            if companion.symlink_metadata().is_ok() {
                renames.rename(&companion, &ended(target, ending))?;
            }
        }
        renames.rename(from, target)?;
        sync_folder(&self.around)
    }
}

impl Drop for ScratchDir {
    fn drop(&mut self) {
        // Nothing can be done about a failure, and the next run here tries again.
        let _left = std::fs::remove_dir_all(&self.folder);
        drop(self.noted.take());
    }
}

fn failed(place: &Path, error: &dyn std::fmt::Display) -> Fault {
    let message = format!("cannot create a folder in {}: {error}", place.display());
    Fault::new(Kind::Failed, message).hint("create the folder, or make it writable for this user")
}

fn open_folder(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
}

/// Takes a folder's lock; `None` if another process has it, or had it and removed the folder.
fn lock(folder: &Path) -> Option<File> {
    let lock = File::from(open_folder(folder).ok()?);
    let locked = rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive);
    // Where there are no locks nobody can take the folder for left behind.
    if locked == Err(Errno::WOULDBLOCK) {
        return None;
    }
    let (ours, there) = (lock.metadata().ok()?, folder.symlink_metadata().ok()?);
    ((ours.dev(), ours.ino()) == (there.dev(), there.ino())).then_some(lock)
}

/// A folder that a killed run left. As long as this lives it is nobody else's.
#[derive(Debug)]
pub struct LeftBehind {
    /// The folder.
    pub folder: PathBuf,
    _lock: File,
}

/// The folders that killed runs left in `place`, and in the places that those name.
#[must_use]
pub fn left_behind_in(place: &Path) -> Vec<LeftBehind> {
    let mut found = left(place);
    let elsewhere: Vec<PathBuf> = found
        .iter()
        .filter_map(|left| std::fs::read_link(left.folder.join(ELSEWHERE)).ok())
        .collect();
    found.extend(elsewhere.iter().flat_map(|place| left(place)));
    found
}

fn left(place: &Path) -> Vec<LeftBehind> {
    let Ok(items) = std::fs::read_dir(place) else { return Vec::new() };
    let hidden = items.filter_map(Result::ok).filter(|item| {
        item.file_name().to_string_lossy().starts_with(HIDDEN)
            && item.file_type().is_ok_and(|kind| kind.is_dir())
    });
    let path = hidden.map(|item| item.path());
    path.filter_map(|folder| {
        lock_if_abandoned(&folder).map(|lock| LeftBehind { folder, _lock: lock })
    })
    .collect()
}

/// The lock of a folder of this user that nobody has; only where the kernel says so.
fn lock_if_abandoned(folder: &Path) -> Option<File> {
    let probe = File::from(open_folder(folder).ok()?);
    let own = probe.metadata().ok()?.uid() == rustix::process::geteuid().as_raw();
    if !own {
        return None;
    }
    rustix::fs::flock(&probe, FlockOperation::NonBlockingLockExclusive).ok()?;
    Some(probe)
}

/// Removes what killed runs left in `place`, and in the places that those name, as far as it can be.
pub fn sweep(place: &Path) {
    // Those elsewhere first: afterwards nothing would name them.
    for left in left_behind_in(place).iter().rev() {
        let _left_behind = std::fs::remove_dir_all(&left.folder);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Classify as _;
    use std::io::Write as _;

    const LOG: &[&str] = &[".wal"];

    #[test]
    fn two_runs_have_two_folders_and_leave_none() {
        let place = tempfile::tempdir().expect("folder");
        let target = place.path().join("x");
        let (one, two) = (ScratchDir::beside(&target), ScratchDir::beside(&target));
        let (one, two) = (one.expect("made"), two.expect("made"));
        assert!(one.folder() != two.folder() && one.folder().exists() && two.folder().exists());
        drop((one, two));
        assert_eq!(std::fs::read_dir(place.path()).expect("readable").count(), 0);
    }

    #[test]
    fn what_a_killed_run_left_is_removed_here_and_elsewhere() {
        let (here, there) =
            (tempfile::tempdir().expect("here"), tempfile::tempdir().expect("there"));
        let living = ScratchDir::within(there.path()).expect("made");
        let dead = |place: &Path| {
            let folder = place.join(hidden().expect("random"));
            std::fs::create_dir(&folder).expect("made");
            File::create_new(folder.join("secret")).expect("created");
            folder
        };
        let (note, hall) = (dead(here.path()), dead(there.path()));
        std::os::unix::fs::symlink(there.path(), note.join(ELSEWHERE)).expect("linked");
        std::fs::create_dir(here.path().join("other")).expect("made");
        assert_eq!(left_behind_in(here.path()).len(), 2);
        let run = ScratchDir::within(here.path()).expect("made");
        assert!(!note.exists() && !hall.exists());
        assert!(living.folder().exists() && run.folder().exists());
        assert!(here.path().join("other").exists());
        assert!(left_behind_in(here.path()).is_empty());
    }

    /// A file and its log are moved together or not at all.
    #[test]
    fn a_failure_puts_file_and_log_back_together() {
        let place = tempfile::tempdir().expect("folder");
        let target = place.path().join("x");
        let write = |path: &Path, text: &str| {
            let mut file = File::create_new(path).expect("created");
            file.write_all(text.as_bytes()).expect("written");
        };
        write(&target, "old");
        write(&place.path().join("x.wal"), "old log");
        let scratch = ScratchDir::beside(&target).expect("made");
        // There is a log to place and no file: the second of two renames fails.
        write(&scratch.path("built.wal"), "new log");
        let refused = scratch.publish(&scratch.path("built"), &target, LOG, true);
        assert_eq!(refused.expect_err("fails").kind(), Kind::Failed);
        let read = |name: &str| std::fs::read_to_string(place.path().join(name)).expect("readable");
        assert_eq!((read("x"), read("x.wal")), ("old".into(), "old log".into()));
        assert!(scratch.path("built.wal").exists());
        // The same with everything in place.
        write(&scratch.path("built"), "new");
        let refused = scratch.publish(&scratch.path("built"), &target, LOG, false);
        assert_eq!(refused.expect_err("taken").kind(), Kind::Refused);
        let aside = scratch.publish(&scratch.path("built"), &target, LOG, true);
        assert_eq!(aside.expect("placed"), Some(place.path().join("x.before-restore-1")));
        assert_eq!((read("x"), read("x.wal")), ("new".into(), "new log".into()));
        assert_eq!(read("x.before-restore-1.wal"), "old log");
    }
}
