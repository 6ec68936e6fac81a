//! An upload to a local store: a [`StagedFile`] that is confirmed before it gets its name.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::num::NonZeroU64;

use rustix::fs::Advice;
use rustix::io::{Errno, retry_on_intr};
use sha2::{Digest as _, Sha256};

use super::super::{Declared, StoreError, Upload};
use super::root::failed;
use crate::domain::hex::hex;
use crate::fs::staged_file::StagedFile;

/// Bytes after which write-back is started and the page cache behind is let go.
const STRIDE_BYTES: u64 = 8 << 20;

/// Bytes read at once when an object is confirmed.
const CONFIRM_BYTES: usize = 1 << 20;

/// A [`StagedFile`] that knows which object it is to become.
#[derive(Debug)]
pub(super) struct LocalUpload {
    staged: StagedFile,
    store: String,
    key: String,
    name: String,
    written: u64,
}

impl LocalUpload {
    /// An upload of `key`, whose last component is `name`.
    pub(super) fn new(staged: StagedFile, store: &str, key: &str, name: &str) -> LocalUpload {
        let (store, key, name) = (store.to_owned(), key.to_owned(), name.to_owned());
        LocalUpload { staged, store, key, name, written: 0 }
    }

    fn fail(&self, operation: &'static str, error: impl Into<io::Error>) -> StoreError {
        failed(&self.store, operation, &self.key, error)
    }

    fn mismatch(&self, found: String, expected: String) -> StoreError {
        let (store, key) = (self.store.clone(), self.key.clone());
        StoreError::Mismatch { store, key, found, expected }
    }

    fn confirm(&mut self, declared: Declared) -> Result<(), StoreError> {
        let sized =
            rustix::fs::fstat(self.staged.file()).map_err(|errno| self.fail("write", errno))?;
        let size = u64::try_from(sized.st_size).unwrap_or(0);
        let in_bytes = |bytes: u64| format!("{bytes} bytes");
        if size != declared.bytes {
            return Err(self.mismatch(in_bytes(size), in_bytes(declared.bytes)));
        }
        let found = measure(self.staged.file()).map_err(|error| self.fail("read back", error))?;
        if found.bytes != declared.bytes {
            return Err(self.mismatch(in_bytes(found.bytes), in_bytes(declared.bytes)));
        }
        if found.sha256 != declared.sha256 {
            return Err(self.mismatch(in_hex(&found.sha256), in_hex(&declared.sha256)));
        }
        Ok(())
    }
}

impl Upload for LocalUpload {
    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.staged.file().write_all(bytes).map_err(|error| self.fail("write", error))?;
        let before = self.written;
        self.written += bytes.len() as u64;
        if before / STRIDE_BYTES != self.written / STRIDE_BYTES {
            drop_page_cache(self.staged.file(), self.written);
        }
        Ok(())
    }

    fn commit(mut self: Box<Self>, declared: Declared) -> Result<(), StoreError> {
        // A failed fsync is final: the kernel may have dropped the pages, and a second call would
        // say that all is well.
        retry_on_intr(|| rustix::fs::fsync(self.staged.file()))
            .map_err(|errno| self.fail("write", errno))?;
        self.confirm(declared)?;
        let LocalUpload { staged, store, key, name, .. } = *self;
        staged.publish(&name).map_err(|errno| match errno {
            Errno::EXIST => StoreError::Exists { store, key },
            Errno::OPNOTSUPP => StoreError::Denied {
                store,
                operation: "write",
                key,
                problem: "this file system has no hard links and cannot rename without overwriting, so two writers could overwrite each other's objects".to_owned(),
                hint: "use a file system that can (ext4, XFS, btrfs, NFS, vfat); for a mounted bucket, name the bucket itself: url = \"s3://BUCKET/PREFIX\"".to_owned(),
            },
            errno => failed(&store, "write", &key, errno),
        })
    }
}

/// Starts write-back of the newest stride before `end` and lets go of the one before it, which
/// is clean by then: on Linux `DONTNEED` does the one to dirty pages and the other to clean
/// ones. A 100 GB backup must not push a database out of the page cache, nor leave all its
/// writing to the final fsync. Only advice: a failure means nothing.
fn drop_page_cache(file: &File, end: u64) {
    let length = NonZeroU64::new(2 * STRIDE_BYTES);
    let start = end.saturating_sub(2 * STRIDE_BYTES);
    rustix::fs::fadvise(file, start, length, Advice::DontNeed).ok();
}

/// Reads the file back: its size in bytes and its SHA-256.
///
/// The cache is let go first, so that the bytes come from the device where it has any say.
fn measure(mut file: &File) -> io::Result<Declared> {
    rustix::fs::fadvise(file, 0, None, Advice::DontNeed).ok();
    rustix::fs::fadvise(file, 0, None, Advice::Sequential).ok();
    file.seek(SeekFrom::Start(0))?;
    let mut buffer = vec![0; CONFIRM_BYTES];
    let mut hasher = Sha256::new();
    let mut bytes = 0_u64;
    loop {
        let chunk = match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => buffer.get(..count).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        hasher.update(chunk);
        let before = bytes;
        bytes += chunk.len() as u64;
        if before / STRIDE_BYTES != bytes / STRIDE_BYTES {
            drop_page_cache(file, bytes);
        }
    }
    Ok(Declared { bytes, sha256: hasher.finalize().into() })
}

fn in_hex(sha256: &[u8; 32]) -> String {
    format!("SHA-256 {}", hex(sha256))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_measured_is_what_was_written() {
        let folder = tempfile::tempdir().expect("folder");
        let staged = StagedFile::beside(&folder.path().join("object")).expect("draft");
        // Longer than two strides, and no multiple of the buffer.
        let bytes = vec![0x5a; 20_000_003];
        staged.file().write_all(&bytes).expect("written");
        let sha256 = Sha256::digest(&bytes).into();
        let expected = Declared { bytes: 20_000_003, sha256 };
        assert_eq!(measure(staged.file()).expect("read"), expected);
    }
}
