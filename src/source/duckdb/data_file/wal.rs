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

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt as _;

use crate::source::duckdb::data_file::format::{BlockChecksum, number};

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
    pub(crate) const FREEING: [u8; 4] = [2, 4, 20, 24];
    /// Groups of rows that were written into the file before they were committed.
    pub(crate) const ROWS: u8 = 29;
    pub(crate) const VERSION: u8 = 98;
    pub(crate) const CHECKPOINT: u8 = 99;
    pub(crate) const COMMIT: u8 = 100;
}

/// How a log names the checkpoint of the database that it goes on from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Owner {
    /// The database's id.
    pub(crate) database_id: [u8; 16],
    /// The iteration of its header.
    pub(crate) iteration: u64,
}

/// What a log holds up to some length.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Scan {
    /// Length of the prefix that ends with the last commit, bytes.
    pub(crate) committed: u64,
    /// There is a checkpoint's marker.
    pub(crate) checkpoint: bool,
    /// Where that marker ends, bytes; 0 if there is none.
    pub(crate) marked: u64,
    /// There is a whole entry that frees blocks, behind the point that was asked for.
    pub(crate) freeing: bool,
    /// Where an entry is whole in length and does not have its checksum.
    pub(crate) broken: Option<u64>,
    /// Its entries cannot be told apart: encrypted, or of a version that is not known.
    pub(crate) opaque: bool,
    /// What it goes on from, where its version says so.
    pub(crate) owner: Option<Owner>,
    /// Blocks of the file that its commits refer to. Those of long texts are not among them.
    pub(crate) blocks: BTreeSet<u64>,
}

/// Reads the entries of a log up to `end` (bytes), and looks for freeing ones from `tail` on.
pub(crate) fn scan(file: &File, end: u64, tail: u64) -> io::Result<Scan> {
    let mut scan = Scan::default();
    if end == 0 {
        return Ok(scan);
    }
    let mut input = BufReader::with_capacity(READ_BYTES, FileRange { file, next: 0, end });
    let Some(begin) = header(&mut input)? else {
        // A header that is being written, or something that is not known.
        let opaque = end > HEADER_BYTES_MAX as u64;
        return Ok(Scan { opaque, committed: if opaque { end } else { 0 }, ..scan });
    };
    scan.owner = begin.owner;
    if begin.encrypted {
        return Ok(Scan { opaque: true, committed: end, ..scan });
    }
    // A header alone belongs to the prefix: the file is one that a commit has yet to be added to.
    scan.committed = begin.bytes;
    let mut at = begin.bytes;
    let mut blocks = BTreeSet::new();
    while end - at >= ENTRY_HEAD_BYTES as u64 {
        let mut head = [0; ENTRY_HEAD_BYTES];
        input.read_exact(&mut head)?;
        let (length, checksum) = (number(&head, 0), number(&head, 8));
        let next =
            at.checked_add(ENTRY_HEAD_BYTES as u64).and_then(|body| body.checked_add(length));
        let Some(next) = next.filter(|next| *next <= end && length > 0) else {
            break;
        };
        let (sum, kind) = body(&mut input, length, &mut blocks)?;
        if sum != checksum {
            scan.broken = Some(at);
            break;
        }
        if kind == kind::CHECKPOINT {
            (scan.checkpoint, scan.marked) = (true, next);
        }
        scan.freeing |= at >= tail && kind::FREEING.contains(&kind);
        at = next;
        if kind == kind::COMMIT {
            scan.committed = next;
            scan.blocks.append(&mut blocks);
        }
    }
    Ok(scan)
}

/// What a header says.
struct LogHeader {
    /// Where the entries begin.
    bytes: u64,
    encrypted: bool,
    owner: Option<Owner>,
}

/// Reads the header; `None` if it is not one of those above.
fn header(input: &mut impl Read) -> io::Result<Option<LogHeader>> {
    let mut reader = Fields { input, bytes: 0 };
    let found = reader.header();
    let bytes = reader.bytes;
    match found {
        Ok(found) => Ok(found.map(|(encrypted, owner)| LogHeader { bytes, encrypted, owner })),
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
    /// Whether the log is encrypted, and what it goes on from, if the header is a known one.
    fn header(&mut self) -> io::Result<Option<(bool, Option<Owner>)>> {
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
        let (mut database_id, mut iteration) = ([0; 16], None);
        loop {
            match self.field()? {
                102 => {
                    let count = self.value()?;
                    for place in 0..count.min(HEADER_BYTES_MAX as u64) {
                        let value = self.value()?;
                        let place = usize::try_from(place).unwrap_or(usize::MAX);
                        if let Some(byte) = database_id.get_mut(place) {
                            *byte = u8::try_from(value).unwrap_or_default();
                        }
                    }
                }
                103 => iteration = Some(self.value()?),
                0xffff => {
                    let owner = iteration.map(|iteration| Owner { database_id, iteration });
                    return Ok(Some((encrypted, owner)));
                }
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

/// Reads the body of an entry: its checksum and its kind. The blocks that it refers to join `blocks`.
fn body(input: &mut impl Read, length: u64, blocks: &mut BTreeSet<u64>) -> io::Result<(u64, u8)> {
    let mut sum = BlockChecksum::new();
    let mut kind = 0;
    let mut seen = Vec::new();
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
        if kind == kind::ROWS {
            seen.extend_from_slice(piece);
            pointers(&seen, blocks);
            // A pointer may go on in the next piece.
            seen.drain(..seen.len().saturating_sub(POINTER_BYTES_MAX));
        }
    }
    Ok((sum.value(), kind))
}

/// Bytes of the longest pointer: two field numbers, and a number of 63 bits.
const POINTER_BYTES_MAX: usize = 4 + 9;

/// Finds the blocks that a stretch of an entry refers to. A pointer is field 102 of a column's segment,
/// which begins with field 100, the block; -1 stands for none. Whatever else looks like one costs
/// nothing but that a block is looked at more strictly.
fn pointers(bytes: &[u8], blocks: &mut BTreeSet<u64>) {
    for (at, window) in bytes.windows(4).enumerate() {
        if window != [102, 0, 100, 0] {
            continue;
        }
        let rest = bytes.get(at + 4..).unwrap_or_default();
        let Some(last) = rest.iter().take(9).position(|byte| byte & 0x80 == 0) else { continue };
        let digits = rest.get(..=last).unwrap_or_default();
        let is_negative = digits.last().is_some_and(|byte| byte & 0x40 != 0);
        if !is_negative {
            let block = digits.iter().rev().fold(0, |sum, byte| sum << 7 | u64::from(byte & 0x7f));
            blocks.insert(block);
        }
    }
}

/// Reads a file from `next` to `end` without moving its position.
struct FileRange<'a> {
    file: &'a File,
    next: u64,
    end: u64,
}

impl Read for FileRange<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end.saturating_sub(self.next)).unwrap_or(usize::MAX);
        let bytes = buffer.len().min(left);
        let count = self.file.read_at(buffer.get_mut(..bytes).unwrap_or_default(), self.next)?;
        self.next += count as u64;
        Ok(count)
    }
}
