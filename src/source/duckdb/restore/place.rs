//! Moves a finished file to its target.
//!
//! DuckDB applies whatever log it finds beside a file, and before storage version v1.3.0 it cannot
//! tell that the log belongs to another one. So a file is built in a folder of its own, and what
//! stands beside its place under the names of a log is moved aside before the file gets there.

use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::error::{Classify as _, Fault, Kind};
use crate::fs::scratch_dir;
use crate::source::duckdb::data_file::database::{beside, is_held};

/// The files that DuckDB reads beside a database.
const COMPANIONS: &[&str] = &[".wal", ".wal.checkpoint", ".wal.recovery"];

/// How often a file that others replace, too, is tried to be replaced.
const REPLACE_TRIES: u32 = 100;

/// A folder of ours in which a database is built.
#[derive(Debug)]
pub(crate) struct RestoreDir(scratch_dir::ScratchDir);

impl RestoreDir {
    /// Makes one in the folder that `target` is to be in.
    ///
    /// # Errors
    /// [`Kind::Failed`] if that folder does not exist or cannot be written to.
    pub(crate) fn beside(target: &Path) -> Result<RestoreDir, Fault> {
        scratch_dir::ScratchDir::beside(target).map(RestoreDir)
    }

    /// A path in the folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path(name)
    }

    /// Gives the file `from`, and its log if there is one, their place at `target`, durably. With
    /// `replace`, what stands there is kept under another name. Returns the name of what was kept.
    ///
    /// # Errors
    /// [`Kind::Refused`] if the target is taken, or in use; [`Kind::Failed`] for anything else that
    /// the system refuses. Then everything is where it was.
    pub(crate) fn publish(
        &self,
        from: &Path,
        target: &Path,
        replace: bool,
    ) -> Result<Option<PathBuf>, Fault> {
        check_unused(target)?;
        self.0.publish(from, target, COMPANIONS, replace)
    }

    /// The same where others may do so at the same moment: the last one stays. Whoever reads the older
    /// file goes on reading it.
    ///
    /// # Errors
    /// [`Kind::Refused`] if a process has the older one open for writing; else as
    /// [`RestoreDir::publish`].
    pub(crate) fn replace(&self, from: &Path, target: &Path) -> Result<Option<PathBuf>, Fault> {
        let mut tries = 0;
        loop {
            check(target, true)?;
            tries += 1;
            match self.0.publish(from, target, COMPANIONS, true) {
                Err(taken) if taken.kind() == Kind::Refused && tries < REPLACE_TRIES => {}
                done => return done,
            }
        }
    }
}

/// Removes a database with the files that belong to it.
///
/// # Errors
/// What the system says.
pub(crate) fn remove(path: &Path) -> std::io::Result<()> {
    std::fs::remove_file(path)?;
    for companion in COMPANIONS.iter().map(|ending| beside(path, ending)) {
        if companion.symlink_metadata().is_ok() {
            std::fs::remove_file(&companion)?;
        }
    }
    Ok(())
}

/// Refuses a target that a process has open in DuckDB.
///
/// # Errors
/// [`Kind::Refused`].
pub(crate) fn check_unused(target: &Path) -> Result<(), Fault> {
    check(target, false)
}

fn check(target: &Path, for_writing: bool) -> Result<(), Fault> {
    // A lock of this process would be lost with the descriptor; it never has one on a target.
    let Ok(file) = File::open(target) else {
        return Ok(());
    };
    let regular = file.metadata().is_ok_and(|found| found.is_file() && found.size() > 0);
    if regular && is_held(&file, for_writing).unwrap_or(false) {
        let message = format!("a process has {} open", target.display());
        return Err(Fault::new(Kind::Refused, message)
            .hint("close the database first, or choose another --to"));
    }
    Ok(())
}
