//! Reading a file that another process writes: aligned, positioned, past the page cache if possible.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use crate::source::SourceError;

/// What direct I/O asks of addresses and lengths, bytes.
const ALIGNMENT: usize = 4096;

/// A buffer whose content begins at a multiple of [`ALIGNMENT`].
#[derive(Debug)]
pub struct Buffer {
    raw: Vec<u8>,
    start: usize,
    capacity: usize,
}

impl Buffer {
    /// A buffer for up to `capacity` bytes.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        let raw = vec![0; capacity + ALIGNMENT];
        let start = raw.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
        Buffer { raw, start, capacity }
    }

    /// The first `bytes` bytes.
    #[must_use]
    pub fn slice(&self, bytes: usize) -> &[u8] {
        self.raw.get(self.start..self.start + bytes.min(self.capacity)).unwrap_or_default()
    }

    fn slice_mut(&mut self, bytes: usize) -> &mut [u8] {
        let end = self.start + bytes.min(self.capacity);
        self.raw.get_mut(self.start..end).unwrap_or_default()
    }
}

/// A file that is only read, at positions.
#[derive(Debug)]
pub struct Device {
    file: File,
    path: PathBuf,
}

impl Device {
    /// Opens `path`, for direct I/O where the file system has it. Direct reads see what a server
    /// wrote directly, and leave the page cache to others.
    ///
    /// # Errors
    /// [`SourceError::Unreadable`].
    pub fn open(path: &Path) -> Result<Self, SourceError> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let direct = rustix::fs::open(path, flags | OFlags::DIRECT, Mode::empty());
        let opened = direct.or_else(|_no_direct_io| rustix::fs::open(path, flags, Mode::empty()));
        let file = opened.map_err(|error| unreadable(path, error.into()))?.into();
        Ok(Device { file, path: path.to_owned() })
    }

    /// Takes a file that is open already; `path` is its name in messages.
    #[must_use]
    pub fn from_file(file: File, path: &Path) -> Self {
        Device { file, path: path.to_owned() }
    }

    /// The path, for messages.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The open file, for locks.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Size of the file, bytes.
    ///
    /// # Errors
    /// [`SourceError::Unreadable`].
    pub fn size(&self) -> Result<u64, SourceError> {
        let found = self.file.metadata().map_err(|error| unreadable(&self.path, error))?;
        Ok(found.len())
    }

    /// Reads `bytes` bytes at `offset`, or fewer at the end of the file. Both must be multiples of
    /// 4096 for direct I/O.
    ///
    /// # Errors
    /// [`SourceError::Unreadable`].
    pub fn read<'a>(
        &self,
        buffer: &'a mut Buffer,
        offset: u64,
        bytes: usize,
    ) -> Result<&'a [u8], SourceError> {
        let mut filled = 0;
        let target = buffer.slice_mut(bytes);
        while let Some(rest) = target.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.file.read_at(rest, offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(unreadable(&self.path, error)),
            }
        }
        Ok(buffer.slice(filled))
    }
}

fn unreadable(path: &Path, source: std::io::Error) -> SourceError {
    SourceError::Unreadable { what: path.display().to_string(), source }
}
