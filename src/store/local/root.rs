//! The root of a local store, and the way from it to a folder or an object.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{CWD, FileType, Mode, OFlags, Stat};
use rustix::io::{Errno, retry_on_intr};

use crate::domain::tier::StorageClass;
use crate::fs::staged_file::sync_folder;
use crate::store::{ObjectInfo, StoreError, Version, is_key};

/// Folders are for their owner alone, whatever the umask.
const FOLDER_MODE: Mode = Mode::RWXU;

/// A store in a folder. The file system must have hard links, or rename without overwriting. A name is either an object or a
/// folder: where `a` is an object, `a/b` cannot be created (no key of bkp's grammar asks for that).
#[derive(Debug)]
pub struct Local {
    pub(super) url: String,
    pub(super) root: OwnedFd,
    /// The folder that was last found or made durable up to the root; see [`Local::folder_made`].
    settled: Mutex<String>,
}

impl Local {
    /// Opens the store at `url` and creates nothing.
    ///
    /// # Errors
    /// [`StoreError::Absent`] if there is no such folder; [`StoreError::Unavailable`] if the URL is
    /// not `file:///…` or the folder cannot be opened.
    pub fn open(url: &str) -> Result<Local, StoreError> {
        let path = path_of(url).map_err(|reason| StoreError::Unavailable {
            store: url.to_owned(),
            operation: "open",
            key: url.to_owned(),
            transient: false,
            source: reason.into(),
        })?;
        let shown = path.to_string_lossy();
        let url = format!("file://{shown}");
        match open_folder(CWD, path.as_path(), OFlags::empty()) {
            Ok(root) => Ok(Local { url, root, settled: Mutex::default() }),
            Err(Errno::NOENT) => Err(StoreError::Absent {
                store: url,
                hint: format!(
                    "mount the file system, or create the folder once: mkdir -p -m 700 {shown}"
                ),
            }),
            Err(errno) => Err(failed(&url, "open", &shown, errno)),
        }
    }

    /// The folder and the file name of a key.
    pub(super) fn split<'k>(&self, key: &'k str) -> Result<(&'k str, &'k str), StoreError> {
        self.check(key)?;
        Ok(key.rsplit_once('/').unwrap_or(("", key)))
    }

    pub(super) fn check(&self, key: &str) -> Result<(), StoreError> {
        if is_key(key) {
            return Ok(());
        }
        Err(StoreError::InvalidKey { store: self.url.clone(), key: key.to_owned() })
    }

    pub(super) fn missing(&self, key: &str) -> StoreError {
        StoreError::Missing { store: self.url.clone(), key: key.to_owned() }
    }

    /// The folder at `path` below the root, `""` for the root.
    pub(super) fn folder(&self, path: &str) -> Result<OwnedFd, Errno> {
        let root = retry_on_intr(|| rustix::io::fcntl_dupfd_cloexec(&self.root, 0))?;
        let mut parts = path.split('/').filter(|part| !part.is_empty());
        parts.try_fold(root, |parent, part| open_folder(&parent, part, OFlags::NOFOLLOW))
    }

    /// The folder at `path` below the root, made where it is missing, and durable.
    ///
    /// A folder that is found may have been made a moment ago by a run that has not synced it yet,
    /// so finding one is no reason to skip the sync. Objects come in runs per folder: remembering
    /// the last one spares all but the first of them the cost.
    pub(super) fn folder_made(&self, path: &str) -> Result<OwnedFd, Errno> {
        let known = |settled: &Mutex<String>| {
            *settled.lock().unwrap_or_else(PoisonError::into_inner) == path
        };
        if known(&self.settled)
            && let Ok(folder) = self.folder(path)
        {
            return Ok(folder);
        }
        let root = retry_on_intr(|| rustix::io::fcntl_dupfd_cloexec(&self.root, 0))?;
        let mut parts = path.split('/').filter(|part| !part.is_empty());
        let folder = parts.try_fold(root, |parent, part| make_folder(&parent, part))?;
        path.clone_into(&mut self.settled.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(folder)
    }

    /// Opens an object: a regular file, reached without following a link.
    pub(super) fn object(&self, key: &str) -> Result<(File, u64), StoreError> {
        let (path, name) = self.split(key)?;
        // Opening a named pipe would wait for a writer; NONBLOCK means nothing to a regular file.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        let open = || {
            let folder = self.folder(path)?;
            let file = retry_on_intr(|| {
                rustix::fs::openat(&folder, name, flags | OFlags::CLOEXEC, Mode::empty())
            })?;
            let stat = rustix::fs::fstat(&file)?;
            Ok((file, stat))
        };
        match open() {
            Ok((file, stat)) => {
                let bytes = object_bytes(&stat).ok_or_else(|| self.missing(key))?;
                Ok((File::from(file), bytes))
            }
            Err(errno) if is_absent(errno) => Err(self.missing(key)),
            Err(errno) => Err(failed(&self.url, "read", key, errno)),
        }
    }
}

/// The path in a `file` URL. Percent signs, queries and fragments are refused rather than read
/// differently from how other programs read them.
pub(super) fn path_of(url: &str) -> Result<PathBuf, &'static str> {
    let path =
        url.strip_prefix("file://").ok_or("the URL of a local store must begin with `file://`")?;
    if !path.starts_with('/') {
        return Err("the path must be absolute: three slashes, as in `file:///var/backups`");
    }
    if path.contains(['%', '?', '#', '\0']) {
        return Err("`%`, `?` and `#` cannot be part of the path");
    }
    // Collecting components drops trailing and doubled slashes, so that one place has one name.
    Ok(Path::new(path).components().collect())
}

/// Size of an object, bytes; `None` for what is not a regular file.
pub(super) fn object_bytes(stat: &Stat) -> Option<u64> {
    let regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    u64::try_from(stat.st_size).ok().filter(|_bytes| regular)
}

/// Which version of a file this is: whatever is done to its content, or put in its place, changes one of
/// these, and the time of change is the kernel's own.
pub(super) fn version(stat: &Stat) -> Version {
    let facts = [
        stat.st_ino.to_le_bytes(),
        stat.st_size.to_le_bytes(),
        stat.st_mtime.to_le_bytes(),
        stat.st_mtime_nsec.to_le_bytes(),
        stat.st_ctime.to_le_bytes(),
        stat.st_ctime_nsec.to_le_bytes(),
    ];
    Version::of(&facts.each_ref().map(<[u8; 8]>::as_slice))
}

/// An object. A file has no SHA-256 to show without being read.
pub(super) fn info(key: String, bytes: u64, version: Version) -> ObjectInfo {
    ObjectInfo { key, bytes, version: Some(version), sha256: None, class: StorageClass::Standard }
}

/// Whether `errno` means that a key leads nowhere: nothing there, or a file or a link where a
/// folder or an object should be.
pub(super) fn is_absent(errno: Errno) -> bool {
    matches!(errno, Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NXIO)
}

fn open_folder<P: rustix::path::Arg + Copy>(
    parent: impl std::os::fd::AsFd,
    name: P,
    extra: OFlags,
) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | extra;
    retry_on_intr(|| rustix::fs::openat(&parent, name, flags, Mode::empty()))
}

/// Opens the folder `name`, makes it first if it is missing, and makes its entry durable.
fn make_folder<P: rustix::path::Arg + Copy>(parent: &OwnedFd, name: P) -> Result<OwnedFd, Errno> {
    let made = match retry_on_intr(|| rustix::fs::mkdirat(parent, name, FOLDER_MODE)) {
        Ok(()) => true,
        Err(Errno::EXIST) => false,
        Err(errno) => return Err(errno),
    };
    let folder = open_folder(parent, name, OFlags::NOFOLLOW)?;
    if made {
        retry_on_intr(|| rustix::fs::fchmod(&folder, FOLDER_MODE))?;
    }
    sync_folder(parent)?;
    Ok(folder)
}

/// What the system said, as an error of the store.
pub(super) fn failed(
    store: &str,
    operation: &'static str,
    key: &str,
    error: impl Into<io::Error>,
) -> StoreError {
    let (store, key, error) = (store.to_owned(), key.to_owned(), error.into());
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    // A file that may not grow (FBIG) is a quota by another name.
    if matches!(errno, Some(Errno::NOSPC | Errno::DQUOT | Errno::FBIG)) {
        return StoreError::Full { store, key };
    }
    let transient = matches!(
        errno,
        Some(Errno::AGAIN | Errno::TIMEDOUT | Errno::STALE | Errno::MFILE | Errno::NFILE)
    );
    StoreError::Unavailable { store, operation, key, transient, source: Box::new(error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_absolute_file_urls_are_accepted() {
        assert_eq!(path_of("file:///srv//a/"), Ok(PathBuf::from("/srv/a")));
        for url in ["/srv/a", "file:srv", "file://host/srv", "file:///a%20b", "file:///a?b", ""] {
            assert!(path_of(url).is_err(), "{url}");
        }
    }

    #[test]
    fn what_the_system_said_decides_whether_trying_again_can_help() {
        let of = |errno: Errno| failed("file:///s", "write", "k", errno);
        for errno in [Errno::NOSPC, Errno::DQUOT, Errno::FBIG] {
            assert!(matches!(of(errno), StoreError::Full { .. }), "{errno}");
        }
        for errno in [Errno::AGAIN, Errno::TIMEDOUT, Errno::STALE] {
            assert!(of(errno).is_transient(), "{errno}");
        }
        for errno in [Errno::IO, Errno::ACCESS, Errno::ROFS] {
            assert!(!of(errno).is_transient(), "{errno}");
        }
    }
}
