//! The write-ahead log beside a DuckDB file, version 2, as `write_ahead_log.cpp` writes it.
//!
//! ```text
//! header: field 100 (kind 98), field 101 (version), since v1.3.0 also field 102 (database id, a
//!         list) and field 103 (iteration of the header that it belongs to), then 0xFFFF;
//!         field numbers are u16, values LEB128
//! entries: length u64, checksum u64, body; a body begins with field 100 and its kind
//! ```
//!
//! A commit ends with an entry of its own, so every prefix that ends with one is a state that the
//! database had. A checkpoint appends a marker before it writes its header, and empties or replaces
//! the file after that.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt as _;

use super::format::{Sum, number};

/// Bytes of an entry before its body.
const ENTRY_HEAD_BYTES: usize = 16;
/// Bytes read at once; a multiple of 8, as the checksum wants it.
const READ_BYTES: usize = 64 << 10;
/// Longer headers are none: the longest has 16 bytes of id in up to 32, and a number.
const HEADER_BYTES_MAX: usize = 128;

/// Kinds of entries that matter here.
mod kind {
    /// Their commit frees blocks that no header refers to yet, so they can be written again at
    /// once: `DROP TABLE`, `DROP SCHEMA`, `ALTER`, `DROP INDEX`.
    pub(super) const FREEING: [u8; 4] = [2, 4, 20, 24];
    pub(super) const VERSION: u8 = 98;
    pub(super) const CHECKPOINT: u8 = 99;
    pub(super) const COMMIT: u8 = 100;
}

/// What a log holds up to some length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Scan {
    /// Length of the prefix that ends with the last commit, bytes.
    pub(super) committed: u64,
    /// There is a checkpoint's marker.
    pub(super) checkpoint: bool,
    /// There is a whole entry that frees blocks, behind the point that was asked for.
    pub(super) freeing: bool,
    /// Where an entry is whole in length and does not have its checksum.
    pub(super) broken: Option<u64>,
    /// Its entries cannot be told apart: encrypted, or of a version that is not known.
    pub(super) opaque: bool,
}

/// Reads the entries of a log up to `end` (bytes), and looks for freeing ones from `tail` on.
pub(super) fn scan(file: &File, end: u64, tail: u64) -> io::Result<Scan> {
    let mut scan = Scan::default();
    if end == 0 {
        return Ok(scan);
    }
    let mut input = BufReader::with_capacity(READ_BYTES, Stretch { file, next: 0, end });
    let Some(mut at) = header(&mut input)? else {
        // A header that is being written, or something that is not known.
        let opaque = end > HEADER_BYTES_MAX as u64;
        return Ok(Scan { opaque, committed: if opaque { end } else { 0 }, ..scan });
    };
    if at.encrypted {
        return Ok(Scan { opaque: true, committed: end, ..scan });
    }
    // A header alone belongs to the prefix: the file is one that a commit has yet to be added to.
    scan.committed = at.bytes;
    while end - at.bytes >= ENTRY_HEAD_BYTES as u64 {
        let mut head = [0; ENTRY_HEAD_BYTES];
        input.read_exact(&mut head)?;
        let (length, checksum) = (number(&head, 0), number(&head, 8));
        let next =
            at.bytes.checked_add(ENTRY_HEAD_BYTES as u64).and_then(|body| body.checked_add(length));
        let Some(next) = next.filter(|next| *next <= end && length > 0) else {
            break;
        };
        let (sum, kind) = body(&mut input, length)?;
        if sum != checksum {
            scan.broken = Some(at.bytes);
            break;
        }
        scan.checkpoint |= kind == kind::CHECKPOINT;
        scan.freeing |= at.bytes >= tail && kind::FREEING.contains(&kind);
        at.bytes = next;
        if kind == kind::COMMIT {
            scan.committed = next;
        }
    }
    Ok(scan)
}

/// Where the entries begin.
struct Begin {
    bytes: u64,
    encrypted: bool,
}

/// Reads the header; `None` if it is not one of those above.
fn header(input: &mut impl Read) -> io::Result<Option<Begin>> {
    let mut reader = Fields { input, bytes: 0 };
    let found = reader.header();
    let bytes = reader.bytes;
    match found {
        Ok(found) => Ok(found.map(|encrypted| Begin { bytes, encrypted })),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads fields and counts their bytes.
struct Fields<'a, R> {
    input: &'a mut R,
    bytes: u64,
}

impl<R: Read> Fields<'_, R> {
    /// Whether the log is encrypted, if the header is a known one.
    fn header(&mut self) -> io::Result<Option<bool>> {
        if self.field()? != 100 || self.value()? != u64::from(kind::VERSION) {
            return Ok(None);
        }
        if self.field()? != 101 {
            return Ok(None);
        }
        let encrypted = match self.value()? {
            2 => false,
            3 => true,
            _ => return Ok(None),
        };
        loop {
            match self.field()? {
                102 => {
                    let count = self.value()?;
                    for _ in 0..count.min(HEADER_BYTES_MAX as u64) {
                        self.value()?;
                    }
                }
                103 => {
                    self.value()?;
                }
                0xffff => return Ok(Some(encrypted)),
                _ => return Ok(None),
            }
        }
    }

    fn byte(&mut self) -> io::Result<u8> {
        let mut byte = [0];
        self.input.read_exact(&mut byte)?;
        self.bytes += 1;
        Ok(u8::from_le_bytes(byte))
    }

    fn field(&mut self) -> io::Result<u16> {
        Ok(u16::from_le_bytes([self.byte()?, self.byte()?]))
    }

    fn value(&mut self) -> io::Result<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        Ok(value)
    }
}

/// Reads the body of an entry: its checksum and its kind.
fn body(input: &mut impl Read, length: u64) -> io::Result<(u64, u8)> {
    let mut sum = Sum::new();
    let mut kind = 0;
    let mut buffer = vec![0; READ_BYTES];
    let mut left = length;
    while left > 0 {
        let bytes = usize::try_from(left).unwrap_or(READ_BYTES).min(READ_BYTES);
        let piece = buffer.get_mut(..bytes).unwrap_or_default();
        input.read_exact(piece)?;
        if left == length {
            kind = piece.get(2).copied().unwrap_or_default();
        }
        sum.add(piece);
        left -= bytes as u64;
    }
    Ok((sum.value(), kind))
}

/// Reads a file from `next` to `end` without moving its position.
struct Stretch<'a> {
    file: &'a File,
    next: u64,
    end: u64,
}

impl Read for Stretch<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end.saturating_sub(self.next)).unwrap_or(usize::MAX);
        let bytes = buffer.len().min(left);
        let count = self.file.read_at(buffer.get_mut(..bytes).unwrap_or_default(), self.next)?;
        self.next += count as u64;
        Ok(count)
    }
}
