//! Where a segment of mode `wal` begins: behind the one before it, or after a gap.

use std::path::Path;

use super::ring_view::{MissingOp, RingView};
use crate::source::SourceError;
use crate::source::tigerbeetle::data_file::zones::SLOTS;
use crate::source::tigerbeetle::logs::capture_record::{Ops, SegmentRecord};
use crate::source::tigerbeetle::logs::segment::spelled;
use crate::source::tigerbeetle::logs::shipping::Shipping;

/// Operations between the oldest one in the ring and the one that a new log begins with: the cluster
/// goes on writing meanwhile.
const MARGIN_OPS: u64 = 64;

/// Where shipping begins.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LogBegin {
    pub(super) op: u64,
    pub(super) gap: Option<String>,
}

/// Where to begin after `after`; `None` if there is nothing.
///
/// # Errors
/// [`SourceError::Engine`] if that cannot be told before the replica has repaired its log.
pub(super) fn begin(
    data_file: &Path,
    view: &mut RingView,
    after: Option<&SegmentRecord>,
) -> anyhow::Result<Option<LogBegin>> {
    Shipping::check_continues(after, view.cluster())?;
    let Some((newest, header)) = view.chain.last_key_value() else { return Ok(None) };
    let (newest, newest_timestamp) = (*newest, header.timestamp());
    let Some(shipped) = after.and_then(|after| after.position.ops.as_ref()) else {
        let op = if view.is_several() { oldest_lasting(data_file, view)? } else { oldest(view) };
        return Ok(Some(LogBegin { op, gap: None }));
    };
    let (last, wanted) = (shipped.last_op, shipped.last_op + 1);
    if newest < last {
        // Another replica was ahead when it was shipped from. But what is later than all that was
        // shipped, and has a smaller number, is of another history.
        let shipped = after.map_or(0, |after| after.position.last_timestamp);
        if view.is_several() && newest_timestamp <= shipped {
            return Ok(None);
        }
        if view.reaches(last)? {
            return Err(repairing(data_file, last).into());
        }
        let op = oldest_lasting(data_file, view)?;
        return Ok(Some(LogBegin {
            op,
            gap: Some(format!(
                "the log of the file ends with op {newest}, but op {last} was shipped: the file is an older state of the cluster"
            )),
        }));
    }
    let before = match (view.chain.get(&last), view.chain.get(&wanted)) {
        (Some(header), _) => Some(header.checksum()),
        (None, Some(header)) => Some(header.parent()),
        (None, None) => None,
    };
    match before {
        None => begin_after_hole(data_file, view, shipped).map(Some),
        Some(checksum) if spelled(checksum) != shipped.last_checksum => {
            let op = oldest_lasting(data_file, view)?;
            Ok(Some(LogBegin {
                op,
                gap: Some(format!(
                    "op {last} of the file is not the one that was shipped: the cluster has a different history"
                )),
            }))
        }
        Some(_) if newest == last => Ok(None),
        Some(_) => Ok(Some(LogBegin { op: wanted, gap: None })),
    }
}

/// Where to begin if what is newest does not lead back to what was shipped: with what follows that,
/// if it is there; after a gap, if that is proven.
fn begin_after_hole(
    data_file: &Path,
    view: &mut RingView,
    shipped: &Ops,
) -> anyhow::Result<LogBegin> {
    let wanted = shipped.last_op + 1;
    let follows =
        view.after(shipped.last_op, |next| spelled(next.parent()) == shipped.last_checksum)?;
    if !follows.is_empty() {
        view.chain = follows;
        return Ok(LogBegin { op: wanted, gap: None });
    }
    if view.missing_op(wanted)? == MissingOp::Open {
        return Err(repairing(data_file, wanted).into());
    }
    let op = oldest_lasting(data_file, view)?;
    let count = op.saturating_sub(wanted);
    Ok(LogBegin {
        op,
        gap: Some(format!(
            "{count} operations from op {wanted} on were overwritten before they were shipped"
        )),
    })
}

/// The operation that a log begins with that continues none: the oldest one that the ring holds for a
/// while. What is older must be lost, or the replica may still repair it.
fn oldest_lasting(data_file: &Path, view: &mut RingView) -> anyhow::Result<u64> {
    let first = view.chain.keys().next().copied().unwrap_or(0);
    let oldest = oldest(view);
    match first.checked_sub(1).filter(|_before| oldest == first) {
        Some(before) if view.missing_op(before)? == MissingOp::Open => {
            Err(repairing(data_file, before).into())
        }
        Some(_) | None => Ok(oldest),
    }
}

/// The replica lacks something that it may still get from its cluster.
fn repairing(data_file: &Path, op: u64) -> SourceError {
    SourceError::Engine {
        what: data_file.display().to_string(),
        reason: format!("op {op} of the log is not in place yet: the replica is repairing its log"),
        hint: "run `bkp logs` again in a moment; if this persists, check the replica, or ship from the data file of another one".into(),
    }
}

/// The operation that a new log begins with: the cluster goes on writing meanwhile.
fn oldest(view: &RingView) -> u64 {
    let ends = view.chain.first_key_value().zip(view.chain.last_key_value());
    let (first, newest) = ends.map_or((0, 0), |((first, _), (newest, _))| (*first, *newest));
    first.max((newest + MARGIN_OPS + 1).saturating_sub(SLOTS))
}
