//! Reading a file that may be changed meanwhile.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;

use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use super::footer::{self, is_parquet};
use super::path::RelativePath;
use super::walk::{self, FileStat};
use crate::ctx::Ctx;
use crate::domain::hex::hex;

/// Why a file is not in the backup as it is now.
pub(super) enum NotCopied {
    /// It was changed every time while it was read.
    Changed,
    /// Its writer has not ended it.
    Unfinished(String),
    /// It is gone.
    Gone,
    /// The run has copied as many as a backup has room for.
    TooMany,
    /// The system refuses.
    Unreadable(std::io::Error),
}

/// Rows of a Parquet file, none of another; the inner error says why it is not whole.
pub(super) fn rows(
    file: &File,
    path: &RelativePath,
    stat: &FileStat,
) -> Result<Result<Option<u64>, String>, NotCopied> {
    if !is_parquet(path) {
        return Ok(Ok(None));
    }
    let read = footer::of_file(stat.bytes, &|bytes, at| file.read_exact_at(bytes, at));
    match read {
        Ok(found) => Ok(found.map(|footer| footer.map(|footer| footer.rows))),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Err(NotCopied::Changed),
        Err(error) => Err(NotCopied::Unreadable(error)),
    }
}

/// Reads a file from its beginning into `out`, and returns its SHA-256 if it stayed as `stat` says, and in its
/// place, until its end was read. The outer error is that of `out`.
pub(super) fn read(
    file: &File,
    (path, stat): (&RelativePath, &FileStat),
    root: &OwnedFd,
    out: &mut dyn Write,
    buffer: &mut [u8],
    ctx: &Ctx,
) -> anyhow::Result<Result<String, NotCopied>> {
    let mut hasher = Sha256::new();
    let mut at = 0;
    loop {
        ctx.cancel.check()?;
        let count = match file.read_at(buffer, at) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Ok(Err(NotCopied::Unreadable(error))),
        };
        let bytes = buffer.get(..count).unwrap_or_default();
        hasher.update(bytes);
        out.write_all(bytes)?;
        ctx.monitor.advance(count as u64);
        at += count as u64;
        if at > stat.bytes {
            return Ok(Err(NotCopied::Changed));
        }
    }
    let is_same = |found: Result<FileStat, Errno>| found.is_ok_and(|found| found == *stat);
    let in_place = walk::open_file(root, path).and_then(|file| FileStat::of_file(&file));
    if at != stat.bytes || !is_same(FileStat::of_file(file)) || !is_same(in_place) {
        return Ok(Err(NotCopied::Changed));
    }
    Ok(Ok(hex(&hasher.finalize())))
}
