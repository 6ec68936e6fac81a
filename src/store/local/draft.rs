//! An object on its way into a local store.
//!
//! It is written to a file that has no name (`O_TMPFILE`) and gets its name by `linkat` once it is
//! whole, durable and confirmed: if the process is killed before that, the file system frees the
//! space by itself. `linkat` refuses a name that is taken, so nothing is ever overwritten; renaming
//! would overwrite and is not used.
//!
//! Where the file system has no unnamed files, or `/proc` (the way to link one) is missing, the
//! file is hidden under a temporary name that no key can have, linked the same way, and removed.

use std::fs::File;
use std::hash::{BuildHasher as _, RandomState};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::num::NonZeroU64;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::process;

use rustix::fs::{Advice, AtFlags, CWD, Mode, OFlags};
use rustix::io::{Errno, retry_on_intr};
use sha2::{Digest as _, Sha256};

use super::super::{Declared, StoreError, Upload};
use super::{failed, sync_folder};

/// Files are for their owner alone, whatever the umask.
const FILE_MODE: Mode = Mode::RUSR.union(Mode::WUSR);

/// Bytes after which write-back is started and the page cache behind is let go.
const STRIDE_BYTES: u64 = 8 << 20;

/// Bytes read at once when an object is confirmed.
const CONFIRM_BYTES: usize = 1 << 20;

/// A file that is not an object yet.
#[derive(Debug)]
pub(super) struct Draft {
    folder: OwnedFd,
    file: File,
    /// The temporary name, where there has to be one.
    name: Option<String>,
}

impl Draft {
    /// Begins a file in `folder`.
    pub(super) fn begin(folder: OwnedFd) -> Result<Draft, Errno> {
        // Whatever keeps an unnamed file from being made, the named one settles it: it works, or it
        // says what is really wrong.
        match unnamed(&folder) {
            Ok(file) => Ok(Draft {
                folder,
                file,
                name: None,
            }),
            Err(_without) => Draft::named(folder),
        }
    }

    /// Begins a file that has a temporary name in `folder`.
    fn named(folder: OwnedFd) -> Result<Draft, Errno> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        // The hasher's keys come from the system's random numbers; EXCL settles the rest.
        let random = RandomState::new().hash_one(());
        let name = format!(".bkp-tmp-{}-{random:016x}", process::id());
        let file = retry_on_intr(|| rustix::fs::openat(&folder, &name, flags, FILE_MODE))?;
        let draft = Draft {
            folder,
            file: File::from(file),
            name: Some(name),
        };
        retry_on_intr(|| rustix::fs::fchmod(&draft.file, FILE_MODE))?;
        Ok(draft)
    }

    /// Gives the file its name. EXIST if the name is taken.
    fn publish(mut self, name: &str) -> Result<(), Errno> {
        match &self.name {
            Some(temporary) => {
                rustix::fs::linkat(
                    &self.folder,
                    temporary,
                    &self.folder,
                    name,
                    AtFlags::empty(),
                )?;
            }
            None => {
                let path = proc_path(&self.file);
                rustix::fs::linkat(CWD, path, &self.folder, name, AtFlags::SYMLINK_FOLLOW)?;
            }
        }
        self.forget_name();
        let durable = sync_folder(&self.folder);
        if durable.is_err() {
            // The name is ours. It may not survive a power failure, and the caller is told that
            // there is no object: so there shall be none.
            rustix::fs::unlinkat(&self.folder, name, AtFlags::empty()).ok();
        }
        durable
    }

    fn forget_name(&mut self) {
        if let Some(name) = self.name.take() {
            // Nothing can be done about a failure, and a hidden name is in nobody's way.
            rustix::fs::unlinkat(&self.folder, name, AtFlags::empty()).ok();
        }
    }

    /// Starts write-back of the newest stride before `end` and lets go of the one before it, which
    /// is clean by then: on Linux `DONTNEED` does the one to dirty pages and the other to clean
    /// ones. A 100 GB backup must not push a database out of the page cache, nor leave all its
    /// writing to the final fsync. Only advice: a failure means nothing.
    fn let_go(&self, end: u64) {
        let length = NonZeroU64::new(2 * STRIDE_BYTES);
        let start = end.saturating_sub(2 * STRIDE_BYTES);
        rustix::fs::fadvise(&self.file, start, length, Advice::DontNeed).ok();
    }

    /// Reads the file back: its size in bytes and its SHA-256.
    ///
    /// The cache is let go first, so that the bytes come from the device where it has any say.
    fn measure(&mut self) -> io::Result<Declared> {
        rustix::fs::fadvise(&self.file, 0, None, Advice::DontNeed).ok();
        rustix::fs::fadvise(&self.file, 0, None, Advice::Sequential).ok();
        self.file.seek(SeekFrom::Start(0))?;
        let mut buffer = vec![0; CONFIRM_BYTES];
        let mut hasher = Sha256::new();
        let mut bytes = 0_u64;
        loop {
            let chunk = match self.file.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => buffer.get(..count).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            hasher.update(chunk);
            let before = bytes;
            bytes += chunk.len() as u64;
            if before / STRIDE_BYTES != bytes / STRIDE_BYTES {
                self.let_go(bytes);
            }
        }
        Ok(Declared {
            bytes,
            sha256: hasher.finalize().into(),
        })
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        self.forget_name();
    }
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

/// A [`Draft`] that knows which object it is to become.
#[derive(Debug)]
pub(super) struct LocalUpload {
    draft: Draft,
    store: String,
    key: String,
    name: String,
    written: u64,
}

impl LocalUpload {
    /// An upload of `key`, whose last component is `name`.
    pub(super) fn new(draft: Draft, store: &str, key: &str, name: &str) -> LocalUpload {
        let (store, key, name) = (store.to_owned(), key.to_owned(), name.to_owned());
        LocalUpload {
            draft,
            store,
            key,
            name,
            written: 0,
        }
    }

    fn fail(&self, operation: &'static str, error: impl Into<io::Error>) -> StoreError {
        failed(&self.store, operation, &self.key, error)
    }

    fn mismatch(&self, found: String, expected: String) -> StoreError {
        let (store, key) = (self.store.clone(), self.key.clone());
        StoreError::Mismatch {
            store,
            key,
            found,
            expected,
        }
    }

    fn confirm(&mut self, declared: Declared) -> Result<(), StoreError> {
        let sized =
            rustix::fs::fstat(&self.draft.file).map_err(|errno| self.fail("write", errno))?;
        let size = u64::try_from(sized.st_size).unwrap_or(0);
        let in_bytes = |bytes: u64| format!("{bytes} bytes");
        if size != declared.bytes {
            return Err(self.mismatch(in_bytes(size), in_bytes(declared.bytes)));
        }
        let found = self
            .draft
            .measure()
            .map_err(|error| self.fail("read back", error))?;
        if found.bytes != declared.bytes {
            return Err(self.mismatch(in_bytes(found.bytes), in_bytes(declared.bytes)));
        }
        if found.sha256 != declared.sha256 {
            let in_hex = |sha256: [u8; 32]| {
                let digits: String = sha256.iter().map(|byte| format!("{byte:02x}")).collect();
                format!("SHA-256 {digits}")
            };
            return Err(self.mismatch(in_hex(found.sha256), in_hex(declared.sha256)));
        }
        Ok(())
    }
}

impl Upload for LocalUpload {
    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.draft
            .file
            .write_all(bytes)
            .map_err(|error| self.fail("write", error))?;
        let before = self.written;
        self.written += bytes.len() as u64;
        if before / STRIDE_BYTES != self.written / STRIDE_BYTES {
            self.draft.let_go(self.written);
        }
        Ok(())
    }

    fn commit(mut self: Box<Self>, declared: Declared) -> Result<(), StoreError> {
        // A failed fsync is final: the kernel may have dropped the pages, and a second call would
        // say that all is well.
        retry_on_intr(|| rustix::fs::fsync(&self.draft.file))
            .map_err(|errno| self.fail("write", errno))?;
        self.confirm(declared)?;
        let LocalUpload {
            draft,
            store,
            key,
            name,
            ..
        } = *self;
        draft.publish(&name).map_err(|errno| match errno {
            Errno::EXIST => StoreError::Exists { store, key },
            errno => failed(&store, "write", &key, errno),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::local::open_folder;

    /// Names in `folder`, hidden ones too.
    fn names(folder: &tempfile::TempDir) -> Vec<String> {
        let items = std::fs::read_dir(folder.path()).expect("readable");
        let mut names: Vec<_> = items
            .map(|item| {
                item.expect("entry")
                    .file_name()
                    .into_string()
                    .expect("text")
            })
            .collect();
        names.sort();
        names
    }

    fn opened(folder: &tempfile::TempDir) -> OwnedFd {
        open_folder(CWD, folder.path(), OFlags::empty()).expect("opens")
    }

    #[test]
    fn a_named_draft_is_removed_when_dropped() {
        let folder = tempfile::tempdir().expect("folder");
        let draft = Draft::named(opened(&folder)).expect("draft");
        assert!(names(&folder)[0].starts_with(".bkp-tmp-"));
        drop(draft);
        assert!(names(&folder).is_empty());
    }

    #[test]
    fn a_named_draft_is_published_once_and_leaves_only_its_name() {
        let folder = tempfile::tempdir().expect("folder");
        let mut draft = Draft::named(opened(&folder)).expect("draft");
        draft.file.write_all(b"first").expect("written");
        draft.publish("object").expect("published");
        let second = Draft::named(opened(&folder)).expect("draft");
        assert_eq!(second.publish("object"), Err(Errno::EXIST));
        assert_eq!(names(&folder), ["object"]);
        assert_eq!(
            std::fs::read(folder.path().join("object")).expect("read"),
            b"first"
        );
    }

    #[test]
    fn what_is_measured_is_what_was_written() {
        let folder = tempfile::tempdir().expect("folder");
        let mut draft = Draft::begin(opened(&folder)).expect("draft");
        // Longer than two strides, and no multiple of the buffer.
        let bytes = vec![0x5a; 20_000_003];
        draft.file.write_all(&bytes).expect("written");
        let sha256 = Sha256::digest(&bytes).into();
        assert_eq!(
            draft.measure().expect("read"),
            Declared {
                bytes: 20_000_003,
                sha256
            }
        );
    }
}
