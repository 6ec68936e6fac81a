//! Grid blocks, and how they refer to each other.

use super::bytes::{checksum_at, tail, u32_at, u64_at};
use super::checksum::checksum;
use super::zones::{BLOCK_BYTES, HEADER_BYTES};
use crate::blockfile::map::Checksum;

/// A reference to a grid block: where it is and what it must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reference {
    pub(crate) address: u64,
    pub(crate) checksum: Checksum,
}

impl Reference {
    /// `None` where the address is 0: TigerBeetle's way to say that there is none.
    pub(super) fn new(address: u64, checksum: Checksum) -> Option<Reference> {
        (address != 0).then_some(Reference { address, checksum })
    }
}

/// What kind of data a grid block holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BlockKind {
    FreeSet,
    ClientSessions,
    Manifest,
    Index,
    Value,
}

/// A grid block that was checked against a reference: what is read from it can be believed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Block<'a> {
    bytes: &'a [u8],
}

impl<'a> Block<'a> {
    /// The address and checksum that `bytes` claim to have.
    pub(crate) fn claim(bytes: &[u8]) -> Option<Reference> {
        let header: &[u8; HEADER_BYTES] = bytes.first_chunk()?;
        Reference::new(u64_at(header, 224), checksum_at(header, 0))
    }

    /// Checks `bytes` against `reference`: header, body, address and size.
    pub(crate) fn check(bytes: &'a [u8], reference: Reference) -> Option<Block<'a>> {
        let header: &[u8; HEADER_BYTES] = bytes.first_chunk()?;
        let size = u32_at(header, 96) as usize;
        let bytes = bytes.get(..size).filter(|_| size <= BLOCK_BYTES)?;
        let whole = Block::claim(bytes)? == reference
            && checksum(tail(header, 16)) == reference.checksum
            && checksum(bytes.get(HEADER_BYTES..)?) == checksum_at(header, 32);
        whole.then_some(Block { bytes })
    }

    /// Takes a block that [`Block::check`] accepted before, without hashing it again.
    pub(crate) fn trusted(bytes: &'a [u8]) -> Block<'a> {
        let size = bytes.first_chunk::<HEADER_BYTES>().map_or(0, |header| u32_at(header, 96));
        Block { bytes: bytes.get(..size as usize).unwrap_or_default() }
    }

    /// The block without the unused rest of its 512 KiB, which no checksum covers.
    pub(crate) fn bytes(self) -> &'a [u8] {
        self.bytes
    }

    pub(crate) fn body(self) -> &'a [u8] {
        tail(self.bytes, HEADER_BYTES)
    }

    pub(crate) fn kind(self) -> Option<BlockKind> {
        match self.bytes.get(240)? {
            1 => Some(BlockKind::FreeSet),
            2 => Some(BlockKind::ClientSessions),
            3 => Some(BlockKind::Manifest),
            4 => Some(BlockKind::Index),
            5 => Some(BlockKind::Value),
            _ => None,
        }
    }

    /// The block before this one in a trailer or in the manifest log.
    pub(crate) fn previous(self) -> Option<Reference> {
        Reference::new(u64_at(self.bytes, 160), checksum_at(self.bytes, 128))
    }

    /// The entries of a manifest block, newest first.
    pub(crate) fn tables(self) -> impl Iterator<Item = TableEvent> + 'a {
        const ENTRY_BYTES: usize = 128;
        let count = u32_at(self.bytes, 168) as usize;
        let (entries, _rest) = self.body().as_chunks::<ENTRY_BYTES>();
        let used = entries.get(..count).unwrap_or(entries);
        used.iter().rev().map(|entry| TableEvent {
            index: Reference { address: u64_at(entry, 96), checksum: checksum_at(entry, 64) },
            change: match entry.get(126).map(|label| label >> 6) {
                Some(1) => TableChange::Insert,
                Some(2) => TableChange::Update,
                _ => TableChange::Remove,
            },
        })
    }

    /// The value blocks that an index block names.
    pub(crate) fn values(self) -> impl Iterator<Item = Reference> + 'a {
        let count = u32_at(self.bytes, 128) as usize;
        let capacity = u32_at(self.bytes, 132) as usize;
        let key_bytes = u32_at(self.bytes, 136) as usize;
        // Checksums of 32 bytes, then the smallest and the largest keys, then addresses; each array
        // has room for `capacity` entries.
        let room = capacity.saturating_mul(32 + 2 * key_bytes);
        let checksums = self.body().as_chunks::<32>().0;
        let addresses = tail(self.body(), room).as_chunks::<8>().0;
        let pairs = checksums.iter().zip(addresses).take(count);
        pairs.map(|(checksum, address)| Reference {
            address: u64::from_le_bytes(*address),
            checksum: checksum_at(checksum, 0),
        })
    }

    /// How many value blocks an index block names.
    pub(crate) fn value_count(self) -> usize {
        u32_at(self.bytes, 128) as usize
    }
}

/// What an entry of the manifest log says about a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TableChange {
    Insert,
    Update,
    Remove,
}

/// An entry of the manifest log.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TableEvent {
    pub(crate) index: Reference,
    pub(crate) change: TableChange,
}
