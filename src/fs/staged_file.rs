//! A file that appears only once it is complete.
//!
//! It is written to a file that has no name (`O_TMPFILE`) and gets its name by `linkat` once it is
//! whole and durable: if the process is killed before that, the file system frees the space by
//! itself. `linkat` refuses a name that is taken, so nothing is ever overwritten; renaming would
//! overwrite and is not used.
//!
//! Where the file system has no unnamed files, or `/proc` (the way to link one) is missing, the
//! file is hidden under a temporary name, linked the same way, and removed. Where it has no hard links
//! either (vfat), that name is changed, which the system refuses if the new one is taken.
//!
//! What a library or another program writes needs names from the beginning: it is built in a
//! [scratch folder](super::scratch_dir), and gets its place by [renames](super::rename_transaction), which also
//! keep what stood there.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::process;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags};
use rustix::io::{Errno, retry_on_intr};

use crate::error::{Fault, Kind};
use crate::fs::rename_transaction::{RenameTransaction, taken};

/// Files are for their owner alone, whatever the umask.
const FILE_MODE: Mode = Mode::RUSR.union(Mode::WUSR);

/// A file that has no name yet. Dropping it leaves nothing.
#[derive(Debug)]
pub struct StagedFile {
    folder: OwnedFd,
    file: File,
    /// The temporary name, where there has to be one.
    name: Option<String>,
}

impl StagedFile {
    /// Begins a file in `folder`, readable and writable by its owner alone.
    ///
    /// # Errors
    /// What keeps a file from being made there.
    pub fn begin(folder: OwnedFd) -> Result<StagedFile, Errno> {
        // Whatever keeps an unnamed file from being made, the named one settles it: it works, or it
        // says what is really wrong.
        match unnamed(&folder) {
            Ok(file) => Ok(StagedFile { folder, file, name: None }),
            Err(_without) => StagedFile::named(folder),
        }
    }

    /// Begins a file in the folder that `target` is to be in.
    ///
    /// # Errors
    /// [`Kind::Failed`] if that folder does not exist or cannot be written to.
    pub fn beside(target: &Path) -> Result<StagedFile, Fault> {
        let folder = folder_of(target);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = rustix::fs::open(folder, flags, Mode::empty()).and_then(StagedFile::begin);
        opened.map_err(|error| {
            let message = format!("cannot create a file in {}: {error}", folder.display());
            Fault::new(Kind::Failed, message)
                .hint("create the folder, or make it writable for this user")
        })
    }

    /// Begins a file that has a temporary name in `folder`.
    pub(crate) fn named(folder: OwnedFd) -> Result<StagedFile, Errno> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let name = hidden()?;
        let file = retry_on_intr(|| rustix::fs::openat(&folder, &name, flags, FILE_MODE))?;
        let staged = StagedFile { folder, file: File::from(file), name: Some(name) };
        retry_on_intr(|| rustix::fs::fchmod(&staged.file, FILE_MODE))?;
        Ok(staged)
    }

    /// The file, to be written.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Gives the file, which the caller has synced, its name in the folder, durably.
    ///
    /// # Errors
    /// `EXIST` if the name is taken; `OPNOTSUPP` if the file system cannot give a file a name without
    /// taking it from another one. Then, as after any other error, there is no such file of ours.
    pub fn publish(mut self, name: &str) -> Result<(), Errno> {
        if self.name.is_some() {
            self.name_for_good(name)?;
        } else {
            let path = proc_path(&self.file);
            rustix::fs::linkat(CWD, path, &self.folder, name, AtFlags::SYMLINK_FOLLOW)?;
        }
        self.forget_name();
        let durable = sync_folder(&self.folder);
        if durable.is_err() {
            // The name is ours. It may not survive a power failure, and the caller is told that
            // there is no file: so there shall be none.
            let _kept = rustix::fs::unlinkat(&self.folder, name, AtFlags::empty());
        }
        durable
    }

    /// Gives a file that has a temporary name another one in its folder, in place of whatever has that
    /// name: for what is made anew all the time.
    ///
    /// # Errors
    /// What the system says; then there is no such file of ours.
    pub(crate) fn replace(mut self, name: &OsStr) -> Result<(), Errno> {
        let temporary = self.name.as_ref().ok_or(Errno::NOENT)?;
        rustix::fs::renameat(&self.folder, temporary, &self.folder, name)?;
        self.name = None;
        Ok(())
    }

    /// Gives the file its name at `target`. With `replace`, what stands there is kept under another
    /// name, which is returned.
    ///
    /// # Errors
    /// [`Kind::Refused`] if `target` is taken and shall not be replaced; [`Kind::Failed`] for
    /// anything else that the system refuses.
    pub fn publish_at(self, target: &Path, replace: bool) -> Result<Option<PathBuf>, Fault> {
        let failed = |what: &str, error: &dyn std::fmt::Display| {
            Fault::new(Kind::Failed, format!("cannot {what} {}: {error}", target.display()))
        };
        let name = target.file_name().and_then(|name| name.to_str());
        let name = name.ok_or_else(|| failed("create", &"the file name is not UTF-8"))?.to_owned();
        let mut renames = RenameTransaction::default();
        let aside = if replace { renames.move_aside(target, &[])? } else { None };
        let fault = match self.publish(&name) {
            Ok(()) => return Ok(aside),
            Err(Errno::EXIST) => taken(target),
            Err(error) => failed("create", &error),
        };
        Err(renames.undo(fault))
    }

    /// Gives a file that has a temporary name one more, or another one.
    fn name_for_good(&mut self, name: &str) -> Result<(), Errno> {
        let Some(temporary) = &self.name else { return Ok(()) };
        let (folder, flags) = (&self.folder, RenameFlags::NOREPLACE);
        match rustix::fs::linkat(folder, temporary, folder, name, AtFlags::empty()) {
            // What file systems say that have no links.
            Err(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {}
            done => return done,
        }
        match rustix::fs::renameat_with(folder, temporary, folder, name, flags) {
            Ok(()) => {
                self.name = None;
                Ok(())
            }
            Err(Errno::INVAL | Errno::NOSYS) => Err(Errno::OPNOTSUPP),
            other => other,
        }
    }

    fn forget_name(&mut self) {
        if let Some(name) = self.name.take() {
            // Nothing can be done about a failure, and a hidden name is in nobody's way.
            let _left = rustix::fs::unlinkat(&self.folder, name, AtFlags::empty());
        }
    }
}

impl Drop for StagedFile {
    fn drop(&mut self) {
        self.forget_name();
    }
}

/// Makes the entries of a folder durable. Some file systems have no such operation for folders and
/// say INVAL; there an entry is as durable as it gets.
pub(crate) fn sync_folder(folder: &OwnedFd) -> Result<(), Errno> {
    match retry_on_intr(|| rustix::fs::fsync(folder)) {
        Err(Errno::INVAL) => Ok(()),
        done => done,
    }
}

/// What hidden names begin with.
pub(super) const HIDDEN: &str = ".bkp-tmp-";

/// A name that is nobody's: it is random, and whoever makes something of it makes sure that it is new.
pub(super) fn hidden() -> Result<String, Errno> {
    let system = |error: getrandom::Error| {
        error.raw_os_error().map_or(Errno::NOSYS, Errno::from_raw_os_error)
    };
    let random = getrandom::u64().map_err(system)?;
    Ok(format!("{HIDDEN}{}-{random:016x}", process::id()))
}

/// The folder of a path; the current one for a bare name.
#[must_use]
pub fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A file without a name in `folder` that can be linked later.
fn unnamed(folder: &OwnedFd) -> Result<File, Errno> {
    let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
    let file = retry_on_intr(|| rustix::fs::openat(folder, ".", flags, FILE_MODE))?;
    retry_on_intr(|| rustix::fs::fchmod(&file, FILE_MODE))?;
    let file = File::from(file);
    let shown = rustix::fs::statat(CWD, proc_path(&file), AtFlags::empty())?;
    let own = rustix::fs::fstat(&file)?;
    if (shown.st_dev, shown.st_ino) == (own.st_dev, own.st_ino) {
        Ok(file)
    } else {
        Err(Errno::NOENT)
    }
}

fn proc_path(file: &File) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::io::Write as _;

    /// What a folder holds, in order.
    pub(crate) fn names(folder: &Path) -> Vec<String> {
        let items = std::fs::read_dir(folder).expect("readable");
        let mut names: Vec<_> = items
            .map(|item| item.expect("entry").file_name().into_string().expect("text"))
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_staged_file_is_not_there_until_it_is_published() {
        let folder = tempfile::tempdir().expect("folder");
        let target = folder.path().join("file");
        let staged = StagedFile::beside(&target).expect("draft");
        staged.file().write_all(b"new").expect("written");
        assert!(!target.exists());
        assert_eq!(staged.publish_at(&target, false).expect("published"), None);
        assert_eq!(std::fs::read(&target).expect("readable"), b"new");
        assert_eq!(names(folder.path()), ["file"]);
    }

    #[test]
    fn a_named_staged_file_is_hidden_and_removed_when_dropped() {
        let folder = tempfile::tempdir().expect("folder");
        let open = || {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY;
            rustix::fs::open(folder.path(), flags, Mode::empty()).expect("opens")
        };
        let staged = StagedFile::named(open()).expect("draft");
        assert!(names(folder.path())[0].starts_with(".bkp-tmp-"));
        drop(staged);
        assert!(names(folder.path()).is_empty());
        let staged = StagedFile::named(open()).expect("draft");
        staged.publish("object").expect("published");
        assert_eq!(StagedFile::named(open()).expect("draft").publish("object"), Err(Errno::EXIST));
        assert_eq!(names(folder.path()), ["object"]);
    }

    #[test]
    fn what_is_replaced_is_kept() {
        let folder = tempfile::tempdir().expect("folder");
        let target = folder.path().join("file");
        for generation in ["one", "two", "three"] {
            let staged = StagedFile::beside(&target).expect("draft");
            staged.file().write_all(generation.as_bytes()).expect("written");
            staged.publish_at(&target, true).expect("published");
        }
        assert_eq!(
            names(folder.path()),
            ["file", "file.before-restore-1", "file.before-restore-2"]
        );
        let refused = StagedFile::beside(&target).expect("draft").publish_at(&target, false);
        assert_eq!(crate::error::Classify::kind(&refused.expect_err("refused")), Kind::Refused);
        assert_eq!(std::fs::read(&target).expect("readable"), b"three");
    }
}
