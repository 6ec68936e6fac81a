//! One look at the ring of a live data file: which operations are there, unbroken and committed.

use std::collections::BTreeMap;

use crate::blockfile::device::{Buffer, Device};
use crate::ctx::Ctx;
use crate::source::SourceError;
use crate::source::tigerbeetle::Replica;
use crate::source::tigerbeetle::format::{MESSAGE_BYTES, PrepareHeader, SLOTS, Superblock};
use crate::source::tigerbeetle::quorum::look;
use crate::source::tigerbeetle::wal::{Ring, read_prepare};

/// What there was at one look.
pub(super) struct Look {
    pub(super) device: Device,
    pub(super) buffer: Buffer,
    pub(super) superblock: Superblock,
    /// Headers that continue each other up to the newest operation that may be shipped.
    pub(super) chain: BTreeMap<u64, PrepareHeader>,
    /// Headers beyond: prepared, and not known to be committed.
    pub(super) beyond: Vec<PrepareHeader>,
}

impl Look {
    /// Looks at the replica's file.
    pub(super) fn at(replica: &Replica, ctx: &Ctx) -> anyhow::Result<Look> {
        let path = &replica.data_file;
        let superblock = look(path, ctx)?;
        replica.check_cluster(&superblock)?;
        let device = Device::open(path)?;
        let mut buffer = Buffer::new(MESSAGE_BYTES);
        let ring = Ring::read(&device, &mut buffer, &superblock)?;
        let headers: BTreeMap<u64, PrepareHeader> =
            ring.0.into_iter().map(|header| (header.op(), header)).collect();
        let newest = if superblock.replica_count() > 1 {
            committed(&headers)
        } else {
            // The header of an operation is written after the operation, before it is acknowledged.
            headers.last_key_value().map(|(_, header)| *header)
        };
        let chain = newest.map(|newest| ancestors(&headers, newest)).unwrap_or_default();
        let newest = newest.map_or(0, |newest| newest.op());
        let beyond = headers.into_values().filter(|header| header.op() > newest).collect();
        Ok(Look { device, buffer, superblock, chain, beyond })
    }

    pub(super) fn cluster(&self) -> u128 {
        self.superblock.cluster()
    }

    pub(super) fn is_several(&self) -> bool {
        self.superblock.replica_count() > 1
    }

    /// The operation whose header is `header`, left in the buffer; `None` if it is not there, whole.
    pub(super) fn read(&mut self, header: &PrepareHeader) -> Result<Option<&[u8]>, SourceError> {
        let slot = header.op() % SLOTS;
        let found = read_prepare(&self.device, &mut self.buffer, self.superblock.cluster(), slot)?;
        Ok(found.filter(|found| found == header).map(|found| self.buffer.slice(found.size())))
    }
}

/// `newest` and the operations before it, as far as each is the one that the next one names.
fn ancestors(
    headers: &BTreeMap<u64, PrepareHeader>,
    newest: PrepareHeader,
) -> BTreeMap<u64, PrepareHeader> {
    let mut chain = BTreeMap::from([(newest.op(), newest)]);
    let mut head = newest;
    while let Some(before) = head.op().checked_sub(1).and_then(|op| headers.get(&op))
        && before.checksum() == head.parent()
    {
        chain.insert(before.op(), *before);
        head = *before;
    }
    chain
}

/// The newest operation that is proven to be committed: each operation says up to where the log
/// before it was. A replica may hold others of the same number from a view that was left.
fn committed(headers: &BTreeMap<u64, PrepareHeader>) -> Option<PrepareHeader> {
    let mut by_commit: Vec<&PrepareHeader> = headers.values().collect();
    by_commit.sort_by_key(|header| std::cmp::Reverse(header.commit()));
    by_commit.into_iter().find_map(|witness| {
        let mut head = *witness;
        while head.op() > witness.commit() {
            let before = headers.get(&(head.op() - 1))?;
            head = Some(*before).filter(|before| before.checksum() == head.parent())?;
        }
        Some(head)
    })
}
