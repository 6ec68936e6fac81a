//! Targets of a restore: a sparse file, or nothing if the bytes are only checked.

use std::fs::File;
use std::io;
use std::num::NonZero;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use rustix::fs::{Advice, fadvise};

use crate::error::{Fault, Kind};

/// Bytes after which write-back to the disk is started.
const WRITE_BACK_BYTES: u64 = 32 << 20;

/// Takes the bytes of a file, in any order.
pub trait Target {
    /// Puts `bytes` at `offset`.
    ///
    /// # Errors
    /// What the file system says, with the path.
    fn put(&mut self, offset: u64, bytes: &[u8]) -> anyhow::Result<()>;
}

/// A target that keeps nothing: decoding only checks.
#[derive(Debug)]
pub struct NullTarget;

impl Target for NullTarget {
    fn put(&mut self, _offset: u64, _bytes: &[u8]) -> anyhow::Result<()> {
        Ok(())
    }
}

/// A file that is written at positions and stays sparse where nothing is written.
#[derive(Debug)]
pub struct SparseFile<'a> {
    file: &'a File,
    /// Where it is, for messages.
    place: &'a Path,
    /// Bytes written so far.
    pub bytes_written: u64,
    /// What was written since write-back was last started.
    fresh: Option<Range<u64>>,
    fresh_bytes: u64,
}

impl<'a> SparseFile<'a> {
    /// A target that writes to `file`; `place` is its path, for messages.
    #[must_use]
    pub fn new(file: &'a File, place: &'a Path) -> Self {
        SparseFile { file, place, bytes_written: 0, fresh: None, fresh_bytes: 0 }
    }
}

impl Target for SparseFile<'_> {
    fn put(&mut self, offset: u64, bytes: &[u8]) -> anyhow::Result<()> {
        let written = self.file.write_all_at(bytes, offset);
        written.map_err(|error| unwritten(&error, self.place))?;
        let size = bytes.len() as u64;
        self.bytes_written += size;
        self.fresh_bytes += size;
        let fresh = self.fresh.take().unwrap_or(offset..offset);
        let fresh = fresh.start.min(offset)..fresh.end.max(offset + size);
        if self.fresh_bytes < WRITE_BACK_BYTES {
            self.fresh = Some(fresh);
            return Ok(());
        }
        // On dirty pages this advice starts write-back, so that the final sync has little left to
        // do. A failure changes nothing but that.
        let span = NonZero::new(fresh.end - fresh.start);
        let _advice = fadvise(self.file, fresh.start, span, Advice::DontNeed);
        self.fresh_bytes = 0;
        Ok(())
    }
}

/// A target that cannot be written to; a full disk says so and what to do.
pub(crate) fn unwritten(error: &io::Error, place: &Path) -> anyhow::Error {
    let message = format!("cannot write {}: {error}", place.display());
    if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
        let hint = "free space there, or choose another path (--to, or --scratch for a drill); nothing was left behind";
        return Fault::new(Kind::Refused, message).hint(hint).into();
    }
    Fault::new(Kind::Failed, message).into()
}
