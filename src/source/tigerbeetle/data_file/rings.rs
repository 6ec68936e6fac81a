//! The two rings of the log: that of the operations, and that of their headers.

use std::collections::BTreeMap;

use super::prepare::PrepareHeader;
use super::superblock::Superblock;
use super::zones::{
    HEADER_BYTES, MESSAGE_BYTES, SECTOR_BYTES, SLOTS, WAL_HEADERS_AT, WAL_PREPARES_AT,
};
use crate::source::SourceError;
use crate::source::device::{Buffer, Device};

/// The whole prepare in `slot`, left in the buffer; `None` if there is none or it is not whole.
pub(crate) fn read_prepare(
    device: &Device,
    buffer: &mut Buffer,
    cluster: u128,
    slot: u64,
) -> Result<Option<PrepareHeader>, SourceError> {
    let offset = WAL_PREPARES_AT + slot * MESSAGE_BYTES as u64;
    let first = device.read(buffer, offset, SECTOR_BYTES)?;
    let Some(header) = PrepareHeader::read(first).filter(|header| header.fits(cluster, slot))
    else {
        return Ok(None);
    };
    let sectors = header.size().next_multiple_of(SECTOR_BYTES);
    if sectors > SECTOR_BYTES {
        device.read(buffer, offset, sectors)?;
    }
    let message = buffer.slice(sectors);
    let padding = message.get(header.size()..).unwrap_or_default();
    let whole = message.get(..HEADER_BYTES) == Some(header.bytes().as_slice())
        && header.has_body(message)
        && padding.iter().all(|byte| *byte == 0);
    Ok(whole.then_some(header))
}

/// The valid headers of the ring of redundant headers.
pub(crate) struct HeaderRing(pub(crate) Vec<PrepareHeader>);

impl HeaderRing {
    /// Reads the ring of the cluster that `superblock` names.
    pub(crate) fn read(
        device: &Device,
        buffer: &mut Buffer,
        superblock: &Superblock,
    ) -> Result<HeaderRing, SourceError> {
        let ring_bytes = HEADER_BYTES * usize::try_from(SLOTS).unwrap_or_default();
        let bytes = device.read(buffer, WAL_HEADERS_AT, ring_bytes)?;
        let headers = bytes.chunks(HEADER_BYTES).filter_map(PrepareHeader::read);
        let valid = (0..SLOTS).zip(headers).filter(|(slot, header)| {
            header.fits(superblock.cluster(), *slot) && !header.is_reserved()
        });
        Ok(HeaderRing(valid.map(|(_, header)| header).collect()))
    }

    /// The highest op that this replica knows to be committed: each op says how far the log was
    /// committed when it was prepared, also one of a view that was left since.
    pub(crate) fn committed(&self, superblock: &Superblock) -> u64 {
        let known = self.0.iter().map(PrepareHeader::commit).max().unwrap_or(0);
        known.max(superblock.commit_max())
    }

    /// The timestamp up to which this replica has everything that is committed, as far as headers
    /// tell.
    pub(crate) fn reached(&self, superblock: &Superblock) -> u64 {
        let several = superblock.replica_count() > 1;
        let committed = self.committed(superblock);
        let usable = self.0.iter().filter(|header| !several || header.op() <= committed);
        let newest = usable.map(PrepareHeader::timestamp).max().unwrap_or(0);
        newest.max(superblock.checkpoint().timestamp())
    }
}

/// The ring of prepare headers of a file with this log: a reserved header in every slot that the log
/// leaves empty, so that no torn or stale op exists in it.
pub(crate) fn restored_header_ring(
    cluster: u128,
    ops: &BTreeMap<u64, PrepareHeader>,
) -> Vec<PrepareHeader> {
    let mut ring: Vec<PrepareHeader> =
        (0..SLOTS).map(|slot| PrepareHeader::reserved(cluster, slot)).collect();
    for (op, header) in ops {
        let slot = usize::try_from(op % SLOTS).ok().and_then(|slot| ring.get_mut(slot));
        if let Some(slot) = slot {
            *slot = *header;
        }
    }
    ring
}
