//! One view of the ring of a live data file: the operations it holds, unbroken and committed.
//!
//! A replica that comes back to its cluster repairs its log from the newest operation backwards, and
//! one that was away for long gets a checkpoint and never the operations before it. So that an
//! operation is not there says nothing by itself: [`RingView::missing_op`] tells what was lost from what is
//! still to come.

use std::collections::BTreeMap;

use crate::ctx::Ctx;
use crate::source::SourceError;
use crate::source::device::{Buffer, Device};
use crate::source::tigerbeetle::data_file::checkpoints::{CHECKPOINT_OPS, DURABLE_OPS};
use crate::source::tigerbeetle::data_file::prepare::PrepareHeader;
use crate::source::tigerbeetle::data_file::quorum::read_live_superblock;
use crate::source::tigerbeetle::data_file::rings::{HeaderRing, read_prepare};
use crate::source::tigerbeetle::data_file::superblock::Superblock;
use crate::source::tigerbeetle::data_file::zones::{MESSAGE_BYTES, SLOTS};
use crate::source::tigerbeetle::replica::Replica;

/// What there was at one look.
pub(super) struct RingView {
    pub(super) device: Device,
    pub(super) buffer: Buffer,
    pub(super) superblock: Superblock,
    /// Headers that continue each other up to the newest operation that may be shipped.
    pub(super) chain: BTreeMap<u64, PrepareHeader>,
    /// Headers beyond: prepared, and not known to be committed.
    pub(super) beyond: Vec<PrepareHeader>,
    /// What the slots hold, by op; `None` for an operation that was looked for and is not there.
    known: BTreeMap<u64, Option<PrepareHeader>>,
}

/// What became of an operation that is not in [`RingView::chain`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MissingOp {
    /// This replica will not have it any more.
    Lost,
    /// It may still come: the replica repairs its log.
    Open,
}

impl RingView {
    /// Looks at the replica's file.
    pub(super) fn open(replica: &Replica, ctx: &Ctx) -> anyhow::Result<RingView> {
        let path = &replica.data_file;
        let superblock = read_live_superblock(path, ctx)?;
        replica.check_cluster(&superblock)?;
        let device = Device::open(path)?;
        let mut buffer = Buffer::new(MESSAGE_BYTES);
        let ring = HeaderRing::read(&device, &mut buffer, &superblock)?;
        let known = ring.0.into_iter().map(|header| (header.op(), Some(header))).collect();
        let (chain, beyond) = (BTreeMap::new(), Vec::new());
        let mut view = RingView { device, buffer, superblock, chain, beyond, known };
        let headers: Vec<PrepareHeader> = view.known.values().flatten().copied().collect();
        let newest = if view.is_several() {
            view.committed(&headers)?
        } else {
            // The header of an operation is written after the operation, before it is acknowledged.
            headers.last().copied()
        };
        if let Some(newest) = newest {
            view.chain = view.ancestors(newest)?;
        }
        let newest = newest.map_or(0, |newest| newest.op());
        view.beyond = headers.into_iter().filter(|header| header.op() > newest).collect();
        Ok(view)
    }

    pub(super) fn cluster(&self) -> u128 {
        self.superblock.cluster()
    }

    pub(super) fn is_several(&self) -> bool {
        self.superblock.replica_count() > 1
    }

    /// The operation whose header is `header`, left in the buffer; `None` if it is not there, whole.
    pub(super) fn read(&mut self, header: &PrepareHeader) -> Result<Option<&[u8]>, SourceError> {
        let found = self.in_slot(header.op())?;
        Ok(found.filter(|found| found == header).map(|found| self.buffer.slice(found.size())))
    }

    /// The whole operation in the slot of `op`, of whatever number.
    fn in_slot(&mut self, op: u64) -> Result<Option<PrepareHeader>, SourceError> {
        let found =
            read_prepare(&self.device, &mut self.buffer, self.superblock.cluster(), op % SLOTS)?;
        Ok(found.filter(|found| !found.is_reserved()))
    }

    /// The header of an operation that is there. The ring of headers may lag behind the operations.
    fn header(&mut self, op: u64) -> Result<Option<PrepareHeader>, SourceError> {
        if let Some(known) = self.known.get(&op) {
            return Ok(*known);
        }
        let found = self.in_slot(op)?.filter(|found| found.op() == op);
        self.known.insert(op, found);
        Ok(found)
    }

    /// The header before this one, if it is there, and not later.
    fn before(&mut self, header: &PrepareHeader) -> Result<Option<PrepareHeader>, SourceError> {
        let Some(op) = header.op().checked_sub(1) else { return Ok(None) };
        let precedes = |before: &PrepareHeader| {
            before.checksum() == header.parent() && before.timestamp() <= header.timestamp()
        };
        Ok(self.header(op)?.filter(precedes))
    }

    /// `newest` and the operations before it, as far as each is the one that the next one names.
    fn ancestors(
        &mut self,
        newest: PrepareHeader,
    ) -> Result<BTreeMap<u64, PrepareHeader>, SourceError> {
        let mut chain = BTreeMap::from([(newest.op(), newest)]);
        let mut head = newest;
        while let Some(before) = self.before(&head)? {
            chain.insert(before.op(), before);
            head = before;
        }
        Ok(chain)
    }

    /// The newest operation that is proven to be committed: each operation says up to where the log
    /// before it was. A replica may hold others of the same number from a view that was left.
    fn committed(
        &mut self,
        headers: &[PrepareHeader],
    ) -> Result<Option<PrepareHeader>, SourceError> {
        let mut witnesses = headers.to_vec();
        witnesses.sort_by_key(|header| std::cmp::Reverse(header.commit()));
        for witness in witnesses {
            let mut head = Some(witness);
            while let Some(one) = head.filter(|one| one.op() > witness.commit()) {
                head = self.before(&one)?;
            }
            if head.is_some() {
                return Ok(head);
            }
        }
        Ok(None)
    }

    /// The operations that follow op `last` with this checksum and are proven to be committed, where
    /// [`RingView::chain`] does not reach back to it. Those of one history name each other.
    pub(super) fn after(
        &mut self,
        last: u64,
        is_last: impl Fn(&PrepareHeader) -> bool,
    ) -> Result<BTreeMap<u64, PrepareHeader>, SourceError> {
        let mut chain: BTreeMap<u64, PrepareHeader> = BTreeMap::new();
        let mut committed = if self.is_several() { last } else { u64::MAX };
        let mut op = last + 1;
        while let Some(next) = self.header(op)? {
            let follows = match chain.last_key_value() {
                None => is_last(&next),
                Some((_, before)) => {
                    next.parent() == before.checksum() && next.timestamp() >= before.timestamp()
                }
            };
            if !follows {
                break;
            }
            if self.is_several() {
                committed = committed.max(next.commit());
            }
            chain.insert(op, next);
            op += 1;
        }
        chain.retain(|op, _| *op <= committed);
        Ok(chain)
    }

    /// What became of `op`, which is not among what continues the log.
    ///
    /// Lost is what a newer operation stands in place of, and what lies before everything that a replica
    /// repairs: once a checkpoint is durable, nothing before it (`Replica.op_repair_min`).
    pub(super) fn missing_op(&mut self, op: u64) -> Result<MissingOp, SourceError> {
        let slot = op % SLOTS;
        let in_ring =
            self.known.values().flatten().any(|one| one.op() % SLOTS == slot && one.op() > op);
        let found = self.in_slot(op)?;
        let overwritten = match found {
            Some(found) => found.op() > op,
            None => in_ring,
        };
        let checkpoint = self.superblock.checkpoint().op();
        let newest = self.chain.keys().next_back().copied().unwrap_or(0);
        let repaired_from = if newest > checkpoint + DURABLE_OPS {
            checkpoint + 1
        } else {
            (checkpoint + 1).saturating_sub(CHECKPOINT_OPS)
        };
        Ok(if overwritten || op < repaired_from { MissingOp::Lost } else { MissingOp::Open })
    }

    /// Whether the slot of `op` holds it, or a later one.
    pub(super) fn reaches(&mut self, op: u64) -> Result<bool, SourceError> {
        Ok(self.in_slot(op)?.is_some_and(|found| found.op() >= op))
    }
}
