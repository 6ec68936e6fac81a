//! The run of prepares that a restored file needs: hash-chained from the checkpoint to the head.
//!
//! Slots of the ring are overwritten in place, so the run is read first, forwards from the
//! checkpoint. Every prepare names the checksum of the one before it; a prepare that is whole and
//! continues the chain is the one the cluster wrote, whatever happens to its slot afterwards.

use std::collections::BTreeMap;

use crate::archive::EntrySink;
use crate::blockfile::map::Checksum;
use crate::source::Held;
use crate::source::device::{Buffer, Device};
use crate::source::tigerbeetle::attempt_error::{AttemptError, behind, moved, torn};
use crate::source::tigerbeetle::data_file::checkpoints::{
    CHECKPOINT_OPS, DURABLE_OPS, prepare_max,
};
use crate::source::tigerbeetle::data_file::prepare::PrepareHeader;
use crate::source::tigerbeetle::data_file::rings::{HeaderRing, read_prepare};
use crate::source::tigerbeetle::data_file::superblock::Superblock;
use crate::source::tigerbeetle::data_file::zones::SLOTS;
use crate::source::tigerbeetle::layout::prepare_member;

/// The prepares that make up the log of a capture: one unbroken chain by op. Empty if the
/// checkpoint is the newest op.
#[derive(Debug, Clone, Default)]
pub(super) struct CapturedLog {
    pub(super) ops: BTreeMap<u64, PrepareHeader>,
}

/// Reads prepares and pushes those that were not pushed before.
pub(super) struct WalReader<'a> {
    pub(super) device: &'a Device,
    pub(super) out: &'a mut dyn EntrySink,
    /// What the chain of this backup holds already.
    pub(super) parent: Option<&'a Held>,
    /// What earlier attempts pushed.
    pub(super) sent: &'a mut BTreeMap<u64, Checksum>,
    pub(super) buffer: &'a mut Buffer,
}

impl WalReader<'_> {
    /// Captures the log that belongs to `superblock`.
    pub(super) fn capture(&mut self, superblock: &Superblock) -> Result<CapturedLog, AttemptError> {
        // Known before the run is read: whatever was committed by now must be in it.
        let committed =
            HeaderRing::read(self.device, self.buffer, superblock)?.committed(superblock);
        let mut run = self.forwards(superblock, committed)?;
        self.backwards(superblock, &mut run)?;
        check_promises(superblock, &run, committed)?;
        Ok(run)
    }

    /// Checkpoint + 1 to the head. A data file that never had a checkpoint begins with op 0.
    fn forwards(
        &mut self,
        superblock: &Superblock,
        committed: u64,
    ) -> Result<CapturedLog, AttemptError> {
        let checkpoint = superblock.checkpoint();
        let mut ops = BTreeMap::new();
        let mut head = checkpoint;
        if checkpoint.op() == 0 {
            let root = self.prepare(superblock.cluster(), 0)?;
            head = root.filter(|root| root.op() == 0).ok_or_else(|| moved("no root prepare"))?;
            self.push(&head)?;
            ops.insert(0, head);
        }
        let op_max = prepare_max(checkpoint.op());
        let mut commit = committed;
        for op in checkpoint.op() + 1..=op_max {
            // A slot that is empty, older or not whole is the end of the log, unless the ring of
            // headers says more: then it was being written when it was read, or it is damaged.
            let slot = op % SLOTS;
            let usable = |found: &PrepareHeader| !found.is_reserved() && found.op() >= op;
            let mut next = self.prepare(superblock.cluster(), slot)?.filter(usable);
            if next.is_none() {
                let last = if superblock.replica_count() > 1 { commit } else { op_max };
                let Some(gap) = self.gap(superblock, op, last)? else { break };
                next = self.prepare(superblock.cluster(), slot)?.filter(usable);
                if next.is_none() {
                    return Err(gap);
                }
            }
            let Some(next) = next else { break };
            if next.op() > op {
                return Err(moved(format!("op {op} of the log was overwritten by {}", next.op())));
            }
            if next.parent() != head.checksum() {
                // What follows was taken back, unless it is known to be committed.
                if op <= commit && superblock.replica_count() > 1 {
                    return Err(behind(format!(
                        "op {op} of the log does not follow the one before"
                    )));
                }
                break;
            }
            if next.view() > superblock.log_view() {
                return Err(moved(format!("the view changed at op {op}")));
            }
            self.push(&next)?;
            ops.insert(op, next);
            commit = commit.max(next.commit());
            head = next;
        }
        if superblock.replica_count() > 1 {
            drop_uncommitted(&mut ops, superblock, commit);
        }
        Ok(CapturedLog { ops })
    }

    /// What it means that `op` is not whole: `None` if it is the end of the log.
    ///
    /// The header of an op is written to the ring of headers after the op itself. An op that has its
    /// header there was whole once and may have been acknowledged. One that has not, and no other
    /// after it, never was; TigerBeetle forgets it, too, when it opens the file. A replica of several
    /// may have ops before it has those before them, and repairs them from its cluster.
    fn gap(
        &mut self,
        superblock: &Superblock,
        op: u64,
        last: u64,
    ) -> Result<Option<AttemptError>, AttemptError> {
        let ring = HeaderRing::read(self.device, self.buffer, superblock)?;
        let several = superblock.replica_count() > 1;
        let last = if several { last.max(ring.committed(superblock)) } else { last };
        let mut written =
            ring.0.iter().map(PrepareHeader::op).filter(|at| (op..=last).contains(at));
        Ok(written.next().map(|later| {
            let why = format!(
                "op {op} of the log is incomplete although the header of op {later} was written"
            );
            if several { behind(why) } else { torn(why) }
        }))
    }

    /// The ops before the checkpoint that are still in the ring, verified backwards by parent.
    /// Needed only while the checkpoint is not durable; then without a gap.
    fn backwards(
        &mut self,
        superblock: &Superblock,
        run: &mut CapturedLog,
    ) -> Result<(), AttemptError> {
        let checkpoint = superblock.checkpoint();
        if checkpoint.op() == 0 || run.head(superblock).op() > checkpoint.op() + DURABLE_OPS {
            return Ok(());
        }
        let op_min = (checkpoint.op() + 1).saturating_sub(CHECKPOINT_OPS);
        let mut expected = checkpoint.checksum();
        for op in (op_min..=checkpoint.op()).rev() {
            let found = self.prepare(superblock.cluster(), op % SLOTS)?;
            let found = found.filter(|found| found.checksum() == expected && found.op() == op);
            let found = found.ok_or_else(|| {
                moved(format!("the checkpoint is not durable yet and op {op} has left the log"))
            })?;
            self.push(&found)?;
            run.ops.insert(op, found);
            expected = found.parent();
        }
        Ok(())
    }

    /// The whole prepare in `slot`, left in the buffer.
    fn prepare(&mut self, cluster: u128, slot: u64) -> Result<Option<PrepareHeader>, AttemptError> {
        Ok(read_prepare(self.device, self.buffer, cluster, slot)?)
    }

    /// Pushes the prepare in the buffer, unless an earlier attempt or the parent did.
    fn push(&mut self, header: &PrepareHeader) -> Result<(), AttemptError> {
        let (op, checksum) = (header.op(), header.checksum());
        let name = prepare_member(op);
        let held = self.parent.is_some_and(|parent| parent.has_entry(&name, checksum));
        if !held && self.sent.get(&op) != Some(&checksum) {
            self.out.entry(&name, self.buffer.slice(header.size()))?;
            self.sent.insert(op, checksum);
        }
        Ok(())
    }
}

impl CapturedLog {
    /// The newest op of the log.
    pub(super) fn head(&self, superblock: &Superblock) -> PrepareHeader {
        self.ops.values().next_back().copied().unwrap_or_else(|| superblock.checkpoint())
    }
}

/// Drops the ops that a cluster of several replicas may still take back: those beyond what is known
/// to be committed and beyond the head that the current view began with.
fn drop_uncommitted(ops: &mut BTreeMap<u64, PrepareHeader>, superblock: &Superblock, commit: u64) {
    let view_head = superblock.view_headers().map(|header| header.op()).max().unwrap_or(0);
    let _taken_back = ops.split_off(&(commit.max(view_head) + 1));
}

/// Promises that a log must keep: everything known to be committed, and the headers that the current
/// view began with. A log that lacks one of them is not whole yet.
fn check_promises(
    superblock: &Superblock,
    run: &CapturedLog,
    committed: u64,
) -> Result<(), AttemptError> {
    let lacks =
        |why: String| Err(if superblock.replica_count() > 1 { behind(why) } else { moved(why) });
    let checkpoint_op = superblock.checkpoint().op();
    let head_op = run.head(superblock).op();
    if head_op < committed {
        return lacks(format!("the log ends at op {head_op}, before op {committed}"));
    }
    for header in superblock.view_headers().filter(|header| !header.is_reserved()) {
        let known = run.ops.get(&header.op()) == Some(&header);
        if header.op() > checkpoint_op && !known {
            return lacks(format!(
                "op {} of the current view is missing from the log",
                header.op()
            ));
        }
    }
    Ok(())
}
