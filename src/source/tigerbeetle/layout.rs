//! What a snapshot consists of: the names of its tar members, and `layout.json`, its last member,
//! which lists them with their checksums and says how they make up a data file.

use serde::{Deserialize, Serialize};

use super::data_file::block::Reference;
use super::data_file::zones::{
    GRID_AT, REPLIES_AT, REPLY_SLOTS, SLOTS, SUPERBLOCK_COPIES, SUPERBLOCK_STRIDE, WAL_HEADERS_AT,
    WAL_PREPARES_AT, block_offset,
};
use crate::blockfile::layout_file::number;
pub(crate) use crate::blockfile::layout_file::{LAYOUT_MEMBER, LayoutFile};
use crate::blockfile::listing;
pub(crate) use crate::blockfile::listing::{Counter, Hex};
use crate::blockfile::map::BlockMap;
use crate::domain::limits::TIGERBEETLE_FILE_BYTES_MAX;
use crate::source::Held;

/// The schema this version writes and reads.
pub(crate) const SCHEMA: &str = "bkp.tigerbeetle.layout/1";

/// Name of the member with the ring of prepare headers as the restored file has it. It follows from
/// the log; it travels so that a file can be assembled without knowing TigerBeetle's checksum.
pub(crate) const HEADERS_MEMBER: &str = "wal_headers";
/// Name of the member with the superblock header.
pub(crate) const SUPERBLOCK_MEMBER: &str = "superblock";

/// Name of the member with an op of the log.
pub(crate) fn prepare_member(op: u64) -> String {
    format!("wal/{op}")
}

/// Name of the member with a client's reply.
pub(crate) fn reply_member(slot: u64) -> String {
    format!("replies/{slot}")
}

/// Name of the member with a grid block.
pub(crate) fn block_member(address: u64) -> String {
    format!("grid/{address}")
}

/// A tar member by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Member {
    Superblock,
    Headers,
    Prepare(u64),
    Reply(u64),
    Block(u64),
    Layout,
}

impl Member {
    /// Reads a member's name; `None` for every other name.
    pub(crate) fn parse(name: &str) -> Option<Member> {
        match name.split_once('/') {
            None if name == SUPERBLOCK_MEMBER => Some(Member::Superblock),
            None if name == HEADERS_MEMBER => Some(Member::Headers),
            None if name == LAYOUT_MEMBER => Some(Member::Layout),
            Some(("wal", op)) => Some(Member::Prepare(number(op)?)),
            Some(("replies", slot)) => {
                Some(Member::Reply(number(slot).filter(|slot| *slot < REPLY_SLOTS)?))
            }
            Some(("grid", address)) => {
                Some(Member::Block(number(address).filter(|address| *address > 0)?))
            }
            _ => None,
        }
    }
}

/// What a data file consists of.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Layout {
    /// [`SCHEMA`].
    pub(crate) schema: String,
    /// The cluster's id, decimal.
    pub(crate) cluster: String,
    /// Length of the data file, bytes.
    pub(crate) file_bytes: u64,
    /// Where the zones begin in the data file, bytes; for those who assemble it by hand.
    pub(crate) zones: Zones,
    /// Checksum of the superblock header.
    pub(crate) superblock: Hex,
    /// Ops in the log with the checksum of their header.
    pub(crate) wal: Vec<(u64, Hex)>,
    /// Slots with a client's reply, with the checksum of its header.
    pub(crate) replies: Vec<(u64, Hex)>,
    /// Addresses of grid blocks with the checksum of their header.
    #[serde(with = "listing")]
    pub(crate) grid: BlockMap,
}

/// Where the zones of a data file begin, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Zones {
    pub(crate) superblock_copies: [u64; SUPERBLOCK_COPIES as usize],
    pub(crate) wal_headers: u64,
    pub(crate) wal_prepares: u64,
    pub(crate) client_replies: u64,
    pub(crate) grid: u64,
}

impl Zones {
    /// The zones of every file that [`super::data_file`] knows.
    pub(crate) const KNOWN: Zones = Zones {
        superblock_copies: [0, SUPERBLOCK_STRIDE, 2 * SUPERBLOCK_STRIDE, 3 * SUPERBLOCK_STRIDE],
        wal_headers: WAL_HEADERS_AT,
        wal_prepares: WAL_PREPARES_AT,
        client_replies: REPLIES_AT,
        grid: GRID_AT,
    };
}

impl LayoutFile for Layout {
    fn check(&self) -> Result<(), &'static str> {
        let last = self.grid.iter().last().map_or(0, |(address, _)| address);
        let grid_end = if last == 0 { GRID_AT } else { block_offset(last + 1) };
        if self.schema != SCHEMA {
            Err("its schema is unknown to this bkp")
        } else if self.zones != Zones::KNOWN {
            Err("its zones do not match a data file layout known to this bkp")
        } else if self.file_bytes < grid_end || self.file_bytes > TIGERBEETLE_FILE_BYTES_MAX {
            Err("its file length does not match its blocks")
        } else if self.grid.get(0).is_some() {
            Err("it has a block at address 0")
        } else if self.replies.iter().any(|(slot, _)| *slot >= REPLY_SLOTS) {
            Err("it has a reply outside of the slots")
        } else if !self.wal.is_sorted_by(|(a, _), (b, _)| a + 1 == *b) {
            Err("its log has gaps")
        } else if self.wal.len() as u64 > SLOTS {
            Err("its log is longer than the ring")
        } else {
            Ok(())
        }
    }
}

impl Layout {
    /// Everything that a chain which ends with this snapshot holds.
    pub(crate) fn into_held(self) -> Held {
        let prepares = self.wal.iter().map(|(op, Hex(sum))| (prepare_member(*op), *sum));
        let replies = self.replies.iter().map(|(slot, Hex(sum))| (reply_member(*slot), *sum));
        let entries = prepares.chain(replies).collect();
        Held { blocks: self.grid, entries }
    }

    /// The cluster's id.
    pub(crate) fn cluster(&self) -> u128 {
        self.cluster.parse().unwrap_or_default()
    }

    /// Whether the file needs this block.
    pub(crate) fn wants(&self, block: Reference) -> bool {
        self.grid.holds(block.address, block.checksum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blockfile::map::Checksum;

    fn layout() -> Layout {
        let mut grid = BlockMap::default();
        grid.set(1, Checksum(0xabc));
        grid.set(7, Checksum(u128::MAX));
        Layout {
            schema: SCHEMA.into(),
            cluster: u128::MAX.to_string(),
            file_bytes: block_offset(8),
            zones: Zones::KNOWN,
            superblock: Hex(Checksum(1)),
            wal: vec![(959, Hex(Checksum(2))), (960, Hex(Checksum(3)))],
            replies: vec![(0, Hex(Checksum(4)))],
            grid,
        }
    }

    #[test]
    fn a_layout_reads_back() {
        let mut bytes = Vec::new();
        layout().write(&mut bytes).expect("writes");
        let read = Layout::read(&mut bytes.as_slice()).expect("reads");
        assert_eq!(read.grid.iter().collect::<Vec<_>>(), layout().grid.iter().collect::<Vec<_>>());
        assert_eq!((read.cluster(), read.wal), (u128::MAX, layout().wal));
    }

    #[test]
    fn layouts_of_impossible_files_are_refused() {
        let spoil: [fn(&mut Layout); 5] = [
            |layout| layout.file_bytes -= 1,
            |layout| layout.wal[1].0 += 1,
            |layout| layout.replies[0].0 = 64,
            |layout| layout.zones.grid += 1,
            |layout| layout.schema = "bkp.tigerbeetle.layout/2".into(),
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
        assert_eq!(Member::parse("grid/12"), Some(Member::Block(12)));
        assert_eq!(Member::parse("wal/0"), Some(Member::Prepare(0)));
        for name in ["grid/0", "grid/012", "grid/+1", "replies/64", "wal/", "x", "../grid/1", ""] {
            assert_eq!(Member::parse(name), None, "{name}");
        }
    }
}
