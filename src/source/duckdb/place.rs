//! Where a restored file is built, and how it gets its place.
//!
//! DuckDB applies whatever log it finds beside a file, and before storage version v1.3.0 it cannot
//! tell that the log belongs to another one. So a file is built in a folder of its own, and what
//! stands beside its place under the names of a log is moved aside before the file gets there.

use std::fs::{DirBuilder, File};
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags};

use super::mode::{beside, is_held};
use crate::draft::{move_aside, rename_new, sync_folder};
use crate::error::{Fault, Kind};

/// The files that DuckDB reads beside a database.
const COMPANIONS: [&str; 3] = [".wal", ".wal.checkpoint", ".wal.recovery"];

/// A folder beside a target in which the file for it is built. It is removed with everything in it
/// when this is dropped; what a killed run left is removed by the next one.
#[derive(Debug)]
pub(super) struct Workshop {
    folder: PathBuf,
    /// The folder that holds the target.
    around: OwnedFd,
    /// Keeps other runs out.
    _lock: File,
}

impl Workshop {
    /// Makes the folder.
    ///
    /// # Errors
    /// [`Kind::Busy`] if another restore to the same place is under way; [`Kind::Failed`].
    pub(super) fn beside(target: &Path) -> Result<Workshop, Fault> {
        let parent = target.parent().filter(|folder| !folder.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new("."));
        let mut name = std::ffi::OsString::from(".");
        name.push(target.file_name().unwrap_or_default());
        name.push(".bkp-restore");
        let folder = parent.join(name);
        let failed = |error: &dyn std::fmt::Display| {
            let message = format!("cannot create a folder in {}: {error}", parent.display());
            Fault::new(Kind::Failed, message)
                .hint("create the folder, or let this user write to it")
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let around =
            rustix::fs::open(parent, flags, Mode::empty()).map_err(|error| failed(&error))?;
        match DirBuilder::new().mode(0o700).create(&folder) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(failed(&error)),
            Ok(()) | Err(_) => {}
        }
        let flags = flags | OFlags::NOFOLLOW;
        let lock = rustix::fs::open(&folder, flags, Mode::empty()).map_err(|e| failed(&e))?;
        let busy = || {
            let message = format!("another restore to {} is under way", target.display());
            Fault::new(Kind::Busy, message)
        };
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_held| busy())?;
        let lock = File::from(lock);
        let workshop = Workshop { folder, around, _lock: lock };
        workshop.empty().map_err(|error| failed(&error))?;
        Ok(workshop)
    }

    /// A path in the folder.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Removes what an earlier run left.
    fn empty(&self) -> std::io::Result<()> {
        for item in std::fs::read_dir(&self.folder)? {
            let path = item?.path();
            if path.is_dir() { std::fs::remove_dir_all(path)? } else { std::fs::remove_file(path)? }
        }
        Ok(())
    }

    /// Gives the file `from`, and its log if there is one, their place at `target`, durably. With
    /// `replace`, what stands there is kept under another name. Returns the name of what was kept.
    ///
    /// # Errors
    /// [`Kind::Refused`] if the target is taken, or in use; [`Kind::Failed`] for anything else that
    /// the system refuses.
    pub(super) fn publish(
        &self,
        from: &Path,
        target: &Path,
        replace: bool,
    ) -> Result<Option<PathBuf>, Fault> {
        check_unused(target)?;
        if !replace && target.symlink_metadata().is_ok() {
            return Err(taken(target));
        }
        let aside = if replace { move_aside(target)? } else { None };
        let kept = keep_companions(target, aside.as_deref())?;
        let placed = self.place(from, target);
        if placed.is_err()
            && let Some(aside) = &aside
        {
            // It stays under its other name if it cannot be put back; the error says that nothing
            // is at the target.
            let _left_aside = rename_new(aside, target);
        }
        placed.map(|()| aside.or(kept))
    }

    /// Puts the file `from` in the place of `target`, in one step: whoever has the older one open
    /// keeps reading that. A log of the older one is removed before.
    ///
    /// # Errors
    /// [`Kind::Refused`] if a process has the older one open for writing; [`Kind::Failed`].
    pub(super) fn replace(&self, from: &Path, target: &Path) -> Result<(), Fault> {
        if File::open(target).is_ok_and(|file| is_held(&file, true).unwrap_or(false)) {
            let message = format!("a process has {} open for writing", target.display());
            return Err(Fault::new(Kind::Refused, message).hint("close it there first"));
        }
        let failed = |error: std::io::Error| {
            let message = format!("cannot replace {}: {error}", target.display());
            Fault::new(Kind::Failed, message)
        };
        File::open(from).and_then(|file| file.sync_all()).map_err(failed)?;
        for suffix in COMPANIONS {
            match std::fs::remove_file(beside(target, suffix)) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(error)),
                Ok(()) | Err(_) => {}
            }
        }
        std::fs::rename(from, target).map_err(failed)?;
        sync_folder(&self.around).map_err(|error| failed(error.into()))
    }

    fn place(&self, from: &Path, target: &Path) -> Result<(), Fault> {
        let failed = |error| match error {
            rustix::io::Errno::EXIST => taken(target),
            error => {
                let message = format!("cannot create {}: {error}", target.display());
                Fault::new(Kind::Failed, message)
            }
        };
        // The log first: a file without its log would lack commits, a log without its file is
        // moved aside by the next run.
        let log = beside(from, ".wal");
        if log.symlink_metadata().is_ok() {
            rename_new(&log, &beside(target, ".wal")).map_err(failed)?;
        }
        rename_new(from, target).map_err(failed)?;
        sync_folder(&self.around).map_err(failed)
    }
}

impl Drop for Workshop {
    fn drop(&mut self) {
        // What cannot be removed is hidden, and the next run to this place tries again.
        let _left = std::fs::remove_dir_all(&self.folder);
    }
}

fn taken(target: &Path) -> Fault {
    let message = format!("{} exists already", target.display());
    Fault::new(Kind::Refused, message).hint("choose another place")
}

/// Moves what DuckDB would take for the log of a file at `target` out of its sight; beside a file
/// that was moved `aside` it stays that file's log.
fn keep_companions(target: &Path, aside: Option<&Path>) -> Result<Option<PathBuf>, Fault> {
    let mut kept = None;
    for suffix in COMPANIONS {
        let companion = beside(target, suffix);
        let there = companion.symlink_metadata().is_ok();
        kept = match aside {
            _ if !there => kept,
            None => move_aside(&companion)?.or(kept),
            Some(aside) => {
                let name = beside(aside, suffix);
                rename_new(&companion, &name).map_err(|error| {
                    let message = format!("cannot move {} aside: {error}", companion.display());
                    Fault::new(Kind::Failed, message)
                })?;
                Some(name)
            }
        };
    }
    Ok(kept)
}

/// Refuses a target that a process has open in DuckDB.
///
/// # Errors
/// [`Kind::Refused`].
pub(super) fn check_unused(target: &Path) -> Result<(), Fault> {
    // A lock of this process would be lost with the descriptor; it never has one on a target.
    let Ok(file) = File::open(target) else {
        return Ok(());
    };
    let regular = file.metadata().is_ok_and(|found| found.is_file() && found.size() > 0);
    if regular && is_held(&file, false).unwrap_or(false) {
        let message = format!("a process has {} open", target.display());
        return Err(Fault::new(Kind::Refused, message)
            .hint("close the database first, or choose another --to"));
    }
    Ok(())
}
