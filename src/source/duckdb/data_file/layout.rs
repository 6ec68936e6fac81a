//! What a snapshot consists of: the names of its tar members, and `layout.json`, its last member,
//! which lists them with their digests and says how they make up a file and its log.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::blockfile::layout_file::number;
pub(crate) use crate::blockfile::layout_file::{LAYOUT_MEMBER, LayoutFile};
use crate::blockfile::listing::{self, Hex};
use crate::blockfile::map::BlockMap;
use crate::domain::limits::DUCKDB_FILE_BYTES_MAX;
use crate::source::Held;
use crate::source::duckdb::data_file::format::{BLOCKS_AT, Headers, UNIT_BYTES};

/// The schema this version writes and reads.
pub(crate) const SCHEMA: &str = "bkp.duckdb.layout/1";

/// The schema of a file that a checkpoint left which was broken off: its log is two.
pub(crate) const SCHEMA_BROKEN_OFF: &str = "bkp.duckdb.layout/2";

/// Name of the member with the three headers.
pub(crate) const HEADERS_MEMBER: &str = "headers";

/// Bytes of a piece of the log.
pub(crate) const PIECE_BYTES: usize = 1 << 20;

/// Name of the member with a unit of the file.
pub(crate) fn unit_member(unit: u64) -> String {
    format!("units/{unit}")
}

/// Name of the member with a piece of the log.
pub(crate) fn piece_member(piece: u64) -> String {
    format!("wal/{piece}")
}

/// A tar member by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Member {
    Headers,
    Unit(u64),
    Piece(u64),
    Layout,
}

impl Member {
    /// Reads a member's name; `None` for every other name.
    pub(crate) fn parse(name: &str) -> Option<Member> {
        match name.split_once('/') {
            None if name == HEADERS_MEMBER => Some(Member::Headers),
            None if name == LAYOUT_MEMBER => Some(Member::Layout),
            Some(("units", unit)) => Some(Member::Unit(number(unit)?)),
            Some(("wal", piece)) => Some(Member::Piece(number(piece)?)),
            _ => None,
        }
    }
}

/// What a file and its log consist of.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Layout {
    /// [`SCHEMA`].
    pub(crate) schema: String,
    /// Length of the file, bytes.
    pub(crate) file_bytes: u64,
    /// Where the units begin in the file, bytes; for those who assemble it by hand.
    pub(crate) units_at: u64,
    /// Bytes of a unit; the last one may be shorter.
    pub(crate) unit_bytes: u64,
    /// Digest of the headers.
    pub(crate) headers: Hex,
    /// Length of the log, bytes. 0: there is none.
    pub(crate) wal_bytes: u64,
    /// So many of these, at the end, are those of the file `.wal.checkpoint`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) next_bytes: Option<u64>,
    /// Bytes of a piece of the log; the last one may be shorter.
    pub(crate) piece_bytes: u64,
    /// Pieces of the log with their digests.
    #[serde(with = "listing")]
    pub(crate) wal: BlockMap,
    /// Units of the file with their digests.
    #[serde(with = "listing")]
    pub(crate) units: BlockMap,
}

impl LayoutFile for Layout {
    fn check(&self) -> Result<(), &'static str> {
        let whole = |map: &BlockMap, bytes: u64, unit: u64| {
            let count = bytes.div_ceil(unit);
            map.len() as u64 == count
                && map.iter().last().is_none_or(|(address, _)| address + 1 == count)
        };
        let expected = if self.next_bytes.is_some() { SCHEMA_BROKEN_OFF } else { SCHEMA };
        if self.schema != expected {
            Err("its schema is unknown to this bkp")
        } else if (self.units_at, self.unit_bytes) != (BLOCKS_AT, UNIT_BYTES as u64)
            || self.piece_bytes != PIECE_BYTES as u64
        {
            Err("its units do not match a file layout known to this bkp")
        } else if !(BLOCKS_AT..=DUCKDB_FILE_BYTES_MAX).contains(&self.file_bytes)
            || self.wal_bytes > DUCKDB_FILE_BYTES_MAX
            || self.next_bytes.is_some_and(|bytes| bytes > self.wal_bytes)
        {
            Err("its file or log has an impossible length")
        } else if !whole(&self.units, self.file_bytes - BLOCKS_AT, self.unit_bytes) {
            Err("its units do not cover its file")
        } else if !whole(&self.wal, self.wal_bytes, self.piece_bytes) {
            Err("its pieces do not cover its log")
        } else {
            Ok(())
        }
    }
}

impl Layout {
    /// Whether another map says the same.
    pub(crate) fn is_same(&self, other: &Layout) -> bool {
        (self.file_bytes, self.wal_bytes, self.next_bytes, self.headers)
            == (other.file_bytes, other.wal_bytes, other.next_bytes, other.headers)
            && self.units.iter().eq(other.units.iter())
            && self.wal.iter().eq(other.wal.iter())
    }

    /// Splits what was put together as one log, `file`, into the two that it is of a checkpoint that was
    /// broken off; the second one gets the path `next`.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn split(
        file: &File,
        wal_bytes: u64,
        next_bytes: Option<u64>,
        next: &Path,
    ) -> io::Result<()> {
        let Some(next_bytes) = next_bytes.filter(|bytes| *bytes > 0) else { return Ok(()) };
        let own_bytes = wal_bytes.saturating_sub(next_bytes);
        let mut options = File::options();
        let mut next = options.write(true).create_new(true).mode(0o600).open(next)?;
        let mut rest = file;
        rest.seek(SeekFrom::Start(own_bytes))?;
        io::copy(&mut rest.take(next_bytes), &mut next)?;
        file.set_len(own_bytes)?;
        next.sync_all()
    }

    /// Whether these are the headers of the file.
    pub(crate) fn has_headers(&self, headers: &Headers) -> bool {
        Hex(crate::source::duckdb::data_file::format::digest(headers.raw())) == self.headers
    }

    /// Everything that a chain which ends with this snapshot holds.
    pub(crate) fn into_held(self) -> Held {
        let pieces = self.wal.iter().map(|(piece, digest)| (piece_member(piece), digest));
        let entries = pieces.collect();
        Held { blocks: self.units, entries }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blockfile::map::Checksum;

    fn layout() -> Layout {
        let mut units = BlockMap::default();
        units.set(0, Checksum(0xabc));
        units.set(1, Checksum(u128::MAX));
        let mut wal = BlockMap::default();
        wal.set(0, Checksum(7));
        Layout {
            schema: SCHEMA.into(),
            file_bytes: BLOCKS_AT + 2 * UNIT_BYTES as u64,
            units_at: BLOCKS_AT,
            unit_bytes: UNIT_BYTES as u64,
            headers: Hex(Checksum(1)),
            wal_bytes: 100,
            next_bytes: None,
            piece_bytes: PIECE_BYTES as u64,
            wal,
            units,
        }
    }

    #[test]
    fn a_layout_reads_back() {
        let mut bytes = Vec::new();
        layout().write(&mut bytes).expect("writes");
        assert!(Layout::read(&mut bytes.as_slice()).expect("reads").is_same(&layout()));
    }

    #[test]
    fn layouts_of_impossible_files_are_refused() {
        let spoil: [fn(&mut Layout); 6] = [
            |layout| layout.file_bytes += 1,
            |layout| layout.units_at += 1,
            |layout| layout.wal_bytes = 0,
            |layout| layout.wal_bytes = u64::MAX,
            |layout| {
                layout.units.set(1, Checksum(0));
                layout.units.set(2, Checksum(5));
            },
            |layout| layout.schema = "bkp.duckdb.layout/2".into(),
        ];
        for spoil in spoil {
            let mut layout = layout();
            spoil(&mut layout);
            let mut bytes = Vec::new();
            layout.write(&mut bytes).expect("writes");
            assert!(Layout::read(&mut bytes.as_slice()).is_err());
        }
    }

    #[test]
    fn member_names_have_one_spelling() {
        assert_eq!(Member::parse("units/0"), Some(Member::Unit(0)));
        assert_eq!(Member::parse("wal/12"), Some(Member::Piece(12)));
        for name in ["units/012", "units/+1", "wal/", "x", "../units/1", "", "layout.json/0"] {
            assert_eq!(Member::parse(name), None, "{name}");
        }
    }
}
