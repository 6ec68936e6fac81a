//! Prepares, which are the operations of the log, and replies to clients: messages with one header.

use std::fmt;

use super::bytes::{checksum_at, field, tail, u32_at, u64_at, u128_at};
use super::checksum::checksum;
use super::zones::{HEADER_BYTES, MESSAGE_BYTES, NUMBER_MAX, SLOTS};
use crate::blockfile::map::Checksum;

/// The header of a prepare: one operation of the log.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct PrepareHeader {
    raw: [u8; HEADER_BYTES],
}

impl PrepareHeader {
    /// Takes the first 256 bytes.
    pub(crate) fn read(bytes: &[u8]) -> Option<PrepareHeader> {
        Some(PrepareHeader { raw: *bytes.first_chunk()? })
    }

    /// The header at an offset in a superblock.
    pub(super) fn at(superblock: &[u8], at: usize) -> PrepareHeader {
        PrepareHeader { raw: field(superblock, at) }
    }

    /// The header that stands in a slot without an operation (`Header.Prepare.reserve`).
    pub(crate) fn reserved(cluster: u128, slot: u64) -> PrepareHeader {
        let mut raw = [0; HEADER_BYTES];
        let mut put = |at: usize, bytes: &[u8]| {
            if let Some(place) = raw.get_mut(at..at + bytes.len()) {
                place.copy_from_slice(bytes);
            }
        };
        put(32, &checksum(&[]).0.to_le_bytes());
        put(80, &cluster.to_le_bytes());
        put(96, &256_u32.to_le_bytes());
        put(114, &[Self::COMMAND_PREPARE]);
        put(224, &slot.to_le_bytes());
        let sum = checksum(tail(&raw, 16));
        if let Some(place) = raw.first_chunk_mut() {
            *place = sum.0.to_le_bytes();
        }
        PrepareHeader { raw }
    }

    const COMMAND_PREPARE: u8 = 6;
    const OPERATION_RESERVED: u8 = 0;

    pub(crate) fn bytes(&self) -> &[u8; HEADER_BYTES] {
        &self.raw
    }

    /// Whether this is a whole header of this cluster that belongs into `slot`.
    pub(crate) fn fits(&self, cluster: u128, slot: u64) -> bool {
        let place = if self.is_reserved() { self.op() } else { self.op() % SLOTS };
        self.checksum() == checksum(tail(&self.raw, 16))
            && u128_at(&self.raw, 80) == cluster
            && self.raw.get(114) == Some(&Self::COMMAND_PREPARE)
            && place == slot
            && (HEADER_BYTES..=MESSAGE_BYTES).contains(&self.size())
            && self.is_counted()
    }

    /// Whether its numbers are ones that a cluster can come to.
    pub(crate) fn is_counted(&self) -> bool {
        [self.op(), self.commit(), self.timestamp()].iter().all(|number| *number < NUMBER_MAX)
    }

    pub(crate) fn checksum(&self) -> Checksum {
        checksum_at(&self.raw, 0)
    }

    pub(crate) fn checksum_body(&self) -> Checksum {
        checksum_at(&self.raw, 32)
    }

    /// Size of the message, header included, bytes.
    pub(crate) fn size(&self) -> usize {
        u32_at(&self.raw, 96) as usize
    }

    pub(crate) fn view(&self) -> u32 {
        u32_at(&self.raw, 104)
    }

    pub(crate) fn parent(&self) -> Checksum {
        checksum_at(&self.raw, 128)
    }

    pub(crate) fn op(&self) -> u64 {
        u64_at(&self.raw, 224)
    }

    /// The highest op that was committed when this one was prepared.
    pub(crate) fn commit(&self) -> u64 {
        u64_at(&self.raw, 232)
    }

    /// Nanoseconds since the Unix epoch, by the cluster's clock.
    pub(crate) fn timestamp(&self) -> u64 {
        u64_at(&self.raw, 240)
    }

    /// What it does; the numbers are TigerBeetle's (`vsr.Operation`, `tb.Operation`).
    pub(crate) fn operation(&self) -> u8 {
        self.raw.get(252).copied().unwrap_or_default()
    }

    pub(crate) fn is_reserved(&self) -> bool {
        self.raw.get(252) == Some(&Self::OPERATION_RESERVED)
    }

    /// Whether `message` (header included) has the body that this header names.
    pub(crate) fn has_body(&self, message: &[u8]) -> bool {
        let body = message.get(HEADER_BYTES..self.size());
        body.is_some_and(|body| checksum(body) == self.checksum_body())
    }
}

impl fmt::Debug for PrepareHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrepareHeader(op {}, {})", self.op(), self.checksum())
    }
}

/// Whether `slot` holds a whole client reply, and how long it is. `bytes` may be longer than the
/// reply. The layout of the first fields is that of every header.
pub(crate) fn reply_bytes(bytes: &[u8]) -> Option<(Checksum, usize)> {
    let header = PrepareHeader::read(bytes)?;
    let size = header.size();
    let whole = (HEADER_BYTES..=MESSAGE_BYTES).contains(&size)
        && header.checksum() == checksum(tail(&header.raw, 16))
        && header.has_body(bytes);
    whole.then_some((header.checksum(), size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_headers_fit_their_slot_only() {
        let header = PrepareHeader::reserved(7, 3);
        assert!(header.is_reserved() && header.fits(7, 3));
        assert!(!header.fits(7, 4) && !header.fits(8, 3));
    }
}
