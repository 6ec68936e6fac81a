//! The superblock: what describes a checkpoint, and the replica's place in its cluster.

use std::fmt;

use super::block::Reference;
use super::bytes::{checksum_at, tail, u16_at, u32_at, u64_at, u128_at};
use super::checksum::checksum;
use super::prepare::PrepareHeader;
use super::zones::{HEADER_BYTES, SUPERBLOCK_BYTES};
use crate::blockfile::map::Checksum;

/// Most headers in the superblock's list of view headers.
pub(crate) const VIEW_HEADERS_MAX: usize = 11;

/// Headers of the end of a log with which a view begins (`view_change_headers_suffix_max`): what may be
/// in flight, and one more.
pub(crate) const VIEW_SUFFIX_OPS: usize = 9;

/// The superblock version of every release build.
pub(crate) const SUPERBLOCK_VERSION: u16 = 2;

/// A release number as TigerBeetle packs it into 32 bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Release(pub(crate) u32);

impl Release {
    /// The oldest release whose layout is known: 0.16.78.
    pub(crate) const OLDEST: Release = Release(0x00_10_4e);

    /// Whether files of this release have the layout of this module: 0.16 from `.78`, and 0.17.
    pub(crate) fn is_known(self) -> bool {
        let (major, minor) = (self.0 >> 16, self.0 >> 8 & 0xff);
        major == 0 && (minor == 16 || minor == 17) && self >= Release::OLDEST
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0 >> 16, self.0 >> 8 & 0xff, self.0 & 0xff)
    }
}

/// A chain of blocks that holds one piece of data, from its last block backwards.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Trailer {
    pub(crate) last: Option<Reference>,
    pub(crate) bytes: u64,
    pub(crate) checksum: Checksum,
}

/// A superblock header: 8 KiB that describe a checkpoint and the replica's place in its cluster.
#[derive(Clone)]
pub(crate) struct Superblock {
    raw: Box<[u8; SUPERBLOCK_BYTES]>,
}

impl Superblock {
    /// Takes a superblock whose checksum is right; `None` otherwise.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Superblock> {
        let raw: Box<[u8; SUPERBLOCK_BYTES]> = Box::new(bytes.try_into().ok()?);
        let superblock = Superblock { raw };
        (superblock.checksum() == superblock.computed()).then_some(superblock)
    }

    fn computed(&self) -> Checksum {
        // The checksum covers neither itself, nor its padding, nor the copy number.
        checksum(tail(self.raw.as_slice(), 34))
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.raw.as_slice()
    }

    pub(crate) fn checksum(&self) -> Checksum {
        checksum_at(self.bytes(), 0)
    }

    pub(crate) fn copy(&self) -> u16 {
        u16_at(self.bytes(), 32)
    }

    pub(crate) fn version(&self) -> u16 {
        u16_at(self.bytes(), 34)
    }

    pub(crate) fn sequence(&self) -> u64 {
        u64_at(self.bytes(), 40)
    }

    pub(crate) fn cluster(&self) -> u128 {
        u128_at(self.bytes(), 48)
    }

    /// The header of the last prepare in the checkpoint.
    pub(crate) fn checkpoint(&self) -> PrepareHeader {
        PrepareHeader::at(self.bytes(), 96)
    }

    pub(crate) fn free_set_acquired(&self) -> Trailer {
        self.trailer([624, 352, 680, 544])
    }

    pub(crate) fn free_set_released(&self) -> Trailer {
        self.trailer([632, 384, 688, 560])
    }

    pub(crate) fn client_sessions(&self) -> Trailer {
        self.trailer([640, 416, 696, 576])
    }

    fn trailer(&self, [address, block, bytes, whole]: [usize; 4]) -> Trailer {
        let raw = self.bytes();
        Trailer {
            last: Reference::new(u64_at(raw, address), checksum_at(raw, block)),
            bytes: u64_at(raw, bytes),
            checksum: checksum_at(raw, whole),
        }
    }

    pub(crate) fn manifest_oldest(&self) -> Option<Reference> {
        Reference::new(u64_at(self.bytes(), 648), checksum_at(self.bytes(), 448))
    }

    pub(crate) fn manifest_newest(&self) -> Option<Reference> {
        Reference::new(u64_at(self.bytes(), 656), checksum_at(self.bytes(), 480))
    }

    pub(crate) fn manifest_blocks(&self) -> u32 {
        u32_at(self.bytes(), 704)
    }

    /// Logical size of the file at the checkpoint, bytes.
    pub(crate) fn storage_bytes(&self) -> u64 {
        u64_at(self.bytes(), 672)
    }

    pub(crate) fn release(&self) -> Release {
        Release(u32_at(self.bytes(), 708))
    }

    pub(crate) fn replica_id(&self) -> u128 {
        u128_at(self.bytes(), 1120)
    }

    pub(crate) fn member(&self, index: u8) -> u128 {
        u128_at(self.bytes(), 1136 + 16 * usize::from(index.min(11)))
    }

    /// The index of this replica in its cluster.
    pub(crate) fn replica(&self) -> Option<u8> {
        (0..self.replica_count()).find(|index| self.member(*index) == self.replica_id())
    }

    pub(crate) fn commit_max(&self) -> u64 {
        u64_at(self.bytes(), 1328)
    }

    pub(crate) fn sync_op_max(&self) -> u64 {
        u64_at(self.bytes(), 1344)
    }

    pub(crate) fn log_view(&self) -> u32 {
        u32_at(self.bytes(), 1356)
    }

    pub(crate) fn view(&self) -> u32 {
        u32_at(self.bytes(), 1360)
    }

    pub(crate) fn replica_count(&self) -> u8 {
        self.bytes().get(1364).copied().unwrap_or_default()
    }

    /// Headers at the head of the log when the current view began, highest op first.
    pub(crate) fn view_headers(&self) -> impl Iterator<Item = PrepareHeader> + '_ {
        let count = u32_at(self.bytes(), 2152) as usize;
        (0..count.min(VIEW_HEADERS_MAX))
            .map(|index| PrepareHeader::at(self.bytes(), 4096 + HEADER_BYTES * index))
    }

    /// This superblock with the given copy number.
    pub(crate) fn with_copy(mut self, copy: u16) -> Superblock {
        self.put(32, &copy.to_le_bytes());
        self
    }

    /// This superblock for another replica of the same cluster, or for one that stands alone.
    pub(crate) fn with_replica(mut self, replica: u8, replica_count: u8) -> Superblock {
        let id = self.member(replica);
        self.put(1120, &id.to_le_bytes());
        self.put(1364, &[replica_count]);
        let sum = self.computed();
        self.put(0, &sum.0.to_le_bytes());
        self
    }

    /// This superblock with a log that ends with these headers, highest op first, and has no uncertain
    /// part: the view that its end was written in, and the headers that TigerBeetle makes a view
    /// begin with, [`VIEW_SUFFIX_OPS`] of them if the log has so many.
    pub(crate) fn with_head(mut self, ends: &[PrepareHeader]) -> Superblock {
        let Some(head) = ends.first() else { return self };
        let commit_max = self.checkpoint().op().max(self.commit_max().min(head.op()));
        self.put(1328, &commit_max.to_le_bytes());
        self.put(1356, &head.view().to_le_bytes());
        self.put(1360, &head.view().to_le_bytes());
        let ends = ends.get(..VIEW_SUFFIX_OPS).unwrap_or(ends);
        self.put(2152, &u32::try_from(ends.len()).unwrap_or_default().to_le_bytes());
        self.put(4096, &[0; HEADER_BYTES * VIEW_HEADERS_MAX]);
        for (index, header) in ends.iter().enumerate() {
            self.put(4096 + HEADER_BYTES * index, header.bytes());
        }
        let sum = self.computed();
        self.put(0, &sum.0.to_le_bytes());
        self
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        if let Some(place) = self.raw.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    }
}

impl fmt::Debug for Superblock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Superblock")
            .field("sequence", &self.sequence())
            .field("checkpoint_op", &self.checkpoint().op())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_accepted_by_layout() {
        let known = |minor: u32, patch: u32| Release(minor << 8 | patch).is_known();
        assert!(known(16, 78) && known(16, 90) && known(17, 8));
        assert!(!known(16, 77) && !known(15, 90) && !known(18, 0) && !Release(1 << 16).is_known());
        assert_eq!(Release::OLDEST.to_string(), "0.16.78");
    }
}
