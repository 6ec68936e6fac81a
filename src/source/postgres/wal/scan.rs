//! What a segment says of itself.

use std::io::Read;

use super::event::{Checkpoint, Event, TransactionEnd};
use super::flaw::WalError;
use super::name::{SegmentName, SegmentSize, Timeline};
use super::records::{Ending, Record, Records};

/// Names of positions that are kept of one segment.
pub const RESTORE_POINTS_MAX: usize = 1000;
/// Changes of the timeline that are kept of one segment.
pub const TIMELINE_CHANGES_MAX: usize = 100;

/// The end of a transaction, and where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransactionAt {
    /// The number of the transaction; 0 if it had none.
    pub xid: u32,
    /// When it ended, nanoseconds since 1970.
    pub time: u64,
    /// The position of the record that says so.
    pub lsn: u64,
    /// The position after it: a recovery that is to have the transaction has to get here.
    pub end: u64,
}

/// The ends of one or more transactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transactions {
    /// How many.
    pub count: u64,
    /// The first one by position.
    pub first: TransactionAt,
    /// The last one by position.
    pub last: TransactionAt,
    /// The earliest time, nanoseconds since 1970. Positions do not follow times exactly.
    pub earliest: u64,
    /// The latest time, nanoseconds since 1970.
    pub latest: u64,
    /// The lowest and the highest number, if any had one. Numbers begin anew after 2^32: the highest one may be the
    /// smaller number.
    pub xids: Option<(u32, u32)>,
}

impl Transactions {
    fn new(one: TransactionAt) -> Transactions {
        let xids = (one.xid != 0).then_some((one.xid, one.xid));
        let (earliest, latest) = (one.time, one.time);
        Transactions { count: 1, first: one, last: one, earliest, latest, xids }
    }

    fn add(&mut self, one: TransactionAt) {
        self.count += 1;
        self.last = one;
        self.earliest = self.earliest.min(one.time);
        self.latest = self.latest.max(one.time);
        if one.xid == 0 {
            return;
        }
        let (lowest, highest) = self.xids.get_or_insert((one.xid, one.xid));
        if is_before(one.xid, *lowest) {
            *lowest = one.xid;
        }
        if is_before(*highest, one.xid) {
            *highest = one.xid;
        }
    }

    /// Whether the transaction `xid` may be among these: those before the lowest and after the highest number are
    /// not.
    #[must_use]
    pub fn may_have(&self, xid: u32) -> bool {
        self.xids.is_some_and(|(low, high)| !is_before(xid, low) && !is_before(high, xid))
    }
}

/// Whether a number is the one of an earlier transaction: they begin anew.
fn is_before(xid: u32, other: u32) -> bool {
    xid.wrapping_sub(other).cast_signed() < 0
}

/// A position that somebody gave a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestorePoint {
    /// The name; signs that are no UTF-8 are replaced.
    pub name: String,
    /// When, nanoseconds since 1970.
    pub time: u64,
    /// The position of the record.
    pub lsn: u64,
    /// The position after it, where a recovery to this name ends.
    pub end: u64,
}

/// A new timeline that begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimelineChange {
    /// The new one.
    pub timeline: Timeline,
    /// The one that was left.
    pub previous: Timeline,
    /// The position of the record that says so.
    pub lsn: u64,
}

/// What a segment says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The system identifier of the cluster.
    pub system: u64,
    /// The major version of the server: 15 to 18.
    pub major: u8,
    /// The size of the cluster's segments.
    pub segment_size: SegmentSize,
    /// The newest timeline that has a part in it: the one of its name, unless that has nothing in it yet.
    pub timeline: Timeline,
    /// The position of its first byte.
    pub start: u64,
    /// The position after its last whole record; `start` if none ends in it.
    pub end: u64,
    /// Bytes of a record that began in the segment before. What that record says is not among these facts.
    pub began_before: u32,
    /// How the segment ends. What a record says that goes on in the next one is not among these facts.
    pub ending: Ending,
    /// Transactions that were committed.
    pub commits: Option<Transactions>,
    /// Transactions that were rolled back: a recovery to a time ends at one of these, too.
    pub aborts: Option<Transactions>,
    /// The first [`RESTORE_POINTS_MAX`] positions with a name.
    pub restore_points: Vec<RestorePoint>,
    /// Whether there are more of them.
    pub has_more_restore_points: bool,
    /// The last checkpoint, and the position of its record.
    pub checkpoint: Option<(u64, Checkpoint)>,
    /// The first [`TIMELINE_CHANGES_MAX`] promotions.
    pub timeline_changes: Vec<TimelineChange>,
}

/// Reads the segment `name` from `input`, which has to end with it.
///
/// # Errors
/// [`WalError`] if it is no segment of that name, is damaged or cannot be read. One that is not full is
/// no error: see [`Ending::Unfinished`].
pub fn scan(name: SegmentName, input: impl Read) -> Result<Facts, WalError> {
    let names = [name];
    let mut records = Records::open(&names, input)?;
    let origin = records.origin();
    let mut facts = Facts {
        system: origin.system,
        major: origin.major,
        segment_size: origin.segment_size,
        timeline: name.timeline,
        start: records.start(),
        end: records.end(),
        began_before: records.began_before(),
        ending: Ending::Switch,
        commits: None,
        aborts: None,
        restore_points: Vec::new(),
        has_more_restore_points: false,
        checkpoint: None,
        timeline_changes: Vec::new(),
    };
    while let Some(record) = records.next()? {
        facts.add(record);
    }
    facts.end = records.end();
    // The page with the switch point is still the older one's.
    let changes = facts.timeline_changes.iter().map(|change| change.timeline);
    facts.timeline = changes.chain(records.timeline()).max().unwrap_or(name.timeline);
    facts.ending = records.ending().unwrap_or(facts.ending);
    Ok(facts)
}

impl Facts {
    fn add(&mut self, record: Record) {
        let Record { lsn, end, event } = record;
        match event {
            Event::Commit(of) => count(&mut self.commits, transaction_at(of, lsn, end)),
            Event::Abort(of) => count(&mut self.aborts, transaction_at(of, lsn, end)),
            Event::RestorePoint { name, time } => {
                if self.restore_points.len() < RESTORE_POINTS_MAX {
                    self.restore_points.push(RestorePoint { name, time, lsn, end });
                } else {
                    self.has_more_restore_points = true;
                }
            }
            Event::Checkpoint(checkpoint) => {
                self.change(checkpoint.timeline, checkpoint.previous, lsn);
                self.checkpoint = Some((lsn, checkpoint));
            }
            Event::EndOfRecovery { timeline, previous, .. } => self.change(timeline, previous, lsn),
            Event::Switch | Event::Other => {}
        }
    }

    fn change(&mut self, timeline: Timeline, previous: Timeline, lsn: u64) {
        let has_room = self.timeline_changes.len() < TIMELINE_CHANGES_MAX;
        if has_room && timeline != previous {
            self.timeline_changes.push(TimelineChange { timeline, previous, lsn });
        }
    }
}

fn count(transactions: &mut Option<Transactions>, one: TransactionAt) {
    match transactions {
        Some(transactions) => transactions.add(one),
        None => *transactions = Some(Transactions::new(one)),
    }
}

fn transaction_at(of: TransactionEnd, lsn: u64, end: u64) -> TransactionAt {
    TransactionAt { xid: of.xid, time: of.time, lsn, end }
}

/// Looks for the end of the transaction `xid`, and whether it was committed. `input` has the contents of the
/// files `names`, one after the other: a record that goes on in the next one is found if that is among them.
///
/// # Errors
/// As [`scan`].
pub fn find_xid(
    names: &[SegmentName],
    input: impl Read,
    xid: u32,
) -> Result<Option<(TransactionAt, bool)>, WalError> {
    let mut records = Records::open(names, input)?;
    while let Some(Record { lsn, end, event }) = records.next()? {
        let (of, is_committed) = match event {
            Event::Commit(of) => (of, true),
            Event::Abort(of) => (of, false),
            Event::RestorePoint { .. }
            | Event::Checkpoint(_)
            | Event::EndOfRecovery { .. }
            | Event::Switch
            | Event::Other => continue,
        };
        if of.xid == xid {
            return Ok(Some((transaction_at(of, lsn, end), is_committed)));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests;
