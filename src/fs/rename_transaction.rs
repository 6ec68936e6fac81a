//! Groups of renames: all of them take effect, or none.
//!
//! Nothing is ever overwritten: what stands at a place gets another name beside it, together with the
//! files that belong to it, and if what follows fails it all gets its old names back.

use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags};
use rustix::io::Errno;

use crate::error::{Classify as _, Fault, Kind};

/// Renames that were made, in their order.
#[derive(Debug, Default)]
pub struct RenameTransaction(Vec<(PathBuf, PathBuf)>);

impl RenameTransaction {
    /// Renames to a name that must be free.
    ///
    /// # Errors
    /// `EXIST` if it is taken; what else the system says. Earlier renames stay as they are.
    pub fn rename(&mut self, from: &Path, to: &Path) -> Result<(), Errno> {
        rename_new(from, to)?;
        self.0.push((from.to_owned(), to.to_owned()));
        Ok(())
    }

    /// Renames what stands at `target`, and at its name with one of the `companions` (endings) added, to
    /// names beside it that have one number in common, so that they still belong together. Returns the
    /// new name of the first that was there.
    ///
    /// # Errors
    /// [`Kind::Failed`] if the system refuses; then everything has its old name.
    pub fn move_aside(
        &mut self,
        target: &Path,
        companions: &[&str],
    ) -> Result<Option<PathBuf>, Fault> {
        let endings: Vec<&str> = std::iter::once("").chain(companions.iter().copied()).collect();
        for number in 1_u32.. {
            let aside = with(target, &format!(".before-restore-{number}"));
            // A companion of what was moved earlier must not become one of what is moved now.
            if endings.iter().any(|ending| is_there(&with(&aside, ending))) {
                continue;
            }
            let before = self.0.len();
            match self.move_all(target, &aside, &endings) {
                Ok(()) => return Ok(self.0.get(before).map(|(_, to)| to.clone())),
                // Somebody took a name of this number meanwhile.
                Err((_, Errno::EXIST)) => {
                    self.back_to(before).map_err(|left| stranded(&left))?;
                }
                Err((from, error)) => {
                    let message = format!("cannot move {} aside: {error}", from.display());
                    let fault = Fault::new(Kind::Failed, message)
                        .hint("make the folder writable for this user, or choose another path");
                    return Err(self.undo_to(before, fault));
                }
            }
        }
        Ok(None)
    }

    fn move_all(
        &mut self,
        target: &Path,
        aside: &Path,
        endings: &[&str],
    ) -> Result<(), (PathBuf, Errno)> {
        for ending in endings {
            let from = with(target, ending);
            match self.rename(&from, &with(aside, ending)) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) => return Err((from, error)),
            }
        }
        Ok(())
    }

    /// Gives everything its old name, the last first. Returns the failure, which also says what could
    /// not be given back.
    #[must_use]
    pub fn undo(mut self, fault: Fault) -> Fault {
        self.undo_to(0, fault)
    }

    fn undo_to(&mut self, length: usize, fault: Fault) -> Fault {
        match self.back_to(length) {
            Ok(()) => fault,
            Err(left) => Fault::new(fault.kind(), format!("{fault}; {left}")).hint(BY_HAND),
        }
    }

    /// Undoes the renames from `length` on; what could not be undone, in words.
    fn back_to(&mut self, length: usize) -> Result<(), String> {
        let mut left = Vec::new();
        for (from, to) in self.0.drain(length..).rev() {
            if let Err(error) = rename_new(&to, &from) {
                left.push(format!(
                    "{} was renamed to {} and could not be renamed back: {error}",
                    from.display(),
                    to.display()
                ));
            }
        }
        if left.is_empty() { Ok(()) } else { Err(left.join("; ")) }
    }
}

/// What to do where a rename could not be undone.
const BY_HAND: &str = "rename it by hand";

fn stranded(left: &str) -> Fault {
    Fault::new(Kind::Failed, left).hint(BY_HAND)
}

/// A path with more at its end.
fn with(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

fn is_there(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// The refusal to put something where something stands.
pub(crate) fn taken(target: &Path) -> Fault {
    let message = format!("{} already exists", target.display());
    Fault::new(Kind::Refused, message).hint("choose another path")
}

/// Renames to a name that must be free.
fn rename_new(from: &Path, to: &Path) -> Result<(), Errno> {
    let renamed = rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE);
    match renamed {
        // The file system knows no such renaming. Then looking first is the best there is.
        Err(Errno::INVAL | Errno::NOSYS) if is_there(to) => Err(Errno::EXIST),
        Err(Errno::INVAL | Errno::NOSYS) => rustix::fs::rename(from, to),
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::staged_file::tests::names;

    const COMPANIONS: [&str; 2] = [".wal", ".wal.recovery"];

    fn write(folder: &Path, names: &[&str]) {
        for name in names {
            std::fs::File::create_new(folder.join(name)).expect("created");
        }
    }

    /// A number of which any name is taken is of something else.
    #[test]
    fn what_is_moved_aside_has_a_number_of_its_own() {
        for stale in
            ["x.before-restore-1", "x.before-restore-1.wal", "x.before-restore-1.wal.recovery"]
        {
            for there in [&["x", "x.wal"][..], &["x"], &["x.wal"]] {
                let folder = tempfile::tempdir().expect("folder");
                let target = folder.path().join("x");
                write(folder.path(), &[&[stale], there].concat());
                let mut renames = RenameTransaction::default();
                let aside = renames.move_aside(&target, &COMPANIONS).expect("moved");
                let mut expected: Vec<String> = there
                    .iter()
                    .map(|name| name.replacen('x', "x.before-restore-2", 1))
                    .chain([stale.to_owned()])
                    .collect();
                assert_eq!(aside, Some(folder.path().join(&expected[0])));
                expected.sort();
                assert_eq!(names(folder.path()), expected);
                let fault = renames.undo(Fault::new(Kind::Failed, "why"));
                assert_eq!(fault, Fault::new(Kind::Failed, "why"));
                let mut before: Vec<&str> = there.iter().copied().chain([stale]).collect();
                before.sort_unstable();
                assert_eq!(names(folder.path()), before);
            }
        }
    }

    #[test]
    fn what_cannot_be_put_back_is_named() {
        let folder = tempfile::tempdir().expect("folder");
        let target = folder.path().join("x");
        write(folder.path(), &["x", "x.wal"]);
        let mut renames = RenameTransaction::default();
        renames.move_aside(&target, &COMPANIONS).expect("moved");
        write(folder.path(), &["x"]);
        let text = renames.undo(Fault::new(Kind::Refused, "why")).to_string();
        assert!(
            text.starts_with("why; ")
                && text.contains("x.before-restore-1 and could not be renamed back"),
            "{text}"
        );
        assert_eq!(names(folder.path()), ["x", "x.before-restore-1", "x.wal"]);
    }

    #[test]
    fn nothing_there_is_nothing_moved() {
        let folder = tempfile::tempdir().expect("folder");
        let moved = RenameTransaction::default().move_aside(&folder.path().join("x"), &COMPANIONS);
        assert_eq!(moved.expect("moved"), None);
    }
}
