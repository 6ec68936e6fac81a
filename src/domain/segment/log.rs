//! Segments in order, and the windows that they can restore.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::record::{Mode, Position, Segment};
use crate::domain::id::BackupId;

/// Operations at the end of a snapshot that a cluster may take back: TigerBeetle has 8 in flight.
const UNSURE_OPS_MAX: u64 = 16;

/// A segment in its place: what its manifest says, and that manifest's digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its id.
    pub id: BackupId,
    /// The segment before it.
    pub parent: Option<BackupId>,
    /// SHA-256 of its manifest, hex.
    pub sha256: String,
    /// What it says of itself.
    pub segment: Segment,
}

/// A log: segments in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Log {
    /// In order of shipping.
    pub links: Vec<Link>,
    /// Where the order is broken: the index of the link that does not follow the one before it, and
    /// why. What a segment says itself of a gap is among them, as [`Break::Gap`].
    pub breaks: BTreeMap<usize, Break>,
    /// Segments that none of the others leads to.
    pub strays: Vec<BackupId>,
}

/// Why a segment does not follow the one before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Break {
    /// It was known when it was shipped.
    Gap(String),
    /// It is damage: a segment is missing, was changed, or stands in the wrong place.
    Damage(String),
}

impl Log {
    /// The logs that segments of one mode make up: the one with the newest segment last, and before it
    /// one for each segment that nobody continued. With several stores a run goes on from what all of
    /// them have, and what only some of them have is such a branch: it restores all the same.
    #[must_use]
    pub fn all(links: &[Link]) -> Vec<Log> {
        let mut logs = vec![Log::of(links.to_vec())];
        let mut strays = logs.first().map(|log| log.strays.clone()).unwrap_or_default();
        while let Some(newest) = strays.pop() {
            let until = links.iter().filter(|link| link.id <= newest);
            let branch = Log::of(until.cloned().collect());
            strays.retain(|stray| !branch.links.iter().any(|link| link.id == *stray));
            logs.push(branch);
        }
        for log in &mut logs {
            let first = log.links.first().filter(|first| first.parent.is_none());
            if first.is_some_and(|first| links.iter().any(|link| link.id < first.id)) {
                log.breaks.insert(0, Break::Gap("it starts a new log".into()));
            }
        }
        logs.reverse();
        logs
    }

    /// Puts segments of one mode in order. The order is that of the parents, from the newest back.
    #[must_use]
    pub fn of(links: Vec<Link>) -> Log {
        let mut left: BTreeMap<BackupId, Link> =
            links.into_iter().map(|link| (link.id, link)).collect();
        let mut log = Log::default();
        let mut reversed: Vec<(Link, Option<String>)> = Vec::new();
        let mut next = left.pop_last().map(|(_, link)| link);
        while let Some(link) = next {
            let parent = link.parent.filter(|parent| *parent < link.id);
            next = parent.and_then(|parent| left.remove(&parent));
            let mut problem = None;
            if next.is_none() {
                // What is older than a missing parent is still a part of the log; what is newer
                // than it is a branch that nobody continued.
                while let Some((id, older)) = left.pop_last() {
                    if parent.is_some_and(|parent| id < parent) {
                        problem = parent.map(|parent| format!("the segment {parent} is missing"));
                        next = Some(older);
                        break;
                    }
                    log.strays.push(id);
                }
            }
            reversed.push((link, problem));
        }
        let strays: BTreeSet<BackupId> =
            log.strays.iter().copied().chain(left.into_keys()).collect();
        log.strays = strays.into_iter().collect();
        for (link, missing) in reversed.into_iter().rev() {
            let index = log.links.len();
            let damage = match (missing, log.links.last()) {
                (Some(missing), _) => Some(missing),
                (None, Some(before)) => link.segment.contradicts(&before.segment, &before.sha256),
                (None, None) => None,
            };
            let Segment { gap, unreplayable, .. } = &link.segment;
            let gap = gap.clone().filter(|_gap| index > 0);
            let gap = unreplayable.clone().or(gap).map(Break::Gap);
            if let Some(broken) = damage.map(Break::Damage).or(gap) {
                log.breaks.insert(index, broken);
            }
            log.links.push(link);
        }
        log
    }

    /// The unbroken parts, oldest first.
    #[must_use]
    pub fn runs(&self) -> Vec<&[Link]> {
        let mut runs = Vec::new();
        let ends = self.breaks.keys().copied().chain([self.links.len()]);
        let mut begin = 0;
        for end in ends {
            runs.extend(self.links.get(begin..end).filter(|run| !run.is_empty()));
            begin = end;
        }
        runs
    }

    /// Whether something in it is damaged.
    #[must_use]
    pub fn is_damaged(&self) -> bool {
        self.breaks.values().any(|broken| matches!(broken, Break::Damage(_)))
    }
}

/// A snapshot that a log can be rolled forward from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Base {
    /// Its id.
    pub id: BackupId,
    /// The cluster's id, decimal.
    pub cluster: String,
    /// The last operation that it holds.
    pub op: u64,
    /// When that was, nanoseconds since 1970.
    pub timestamp: u64,
}

impl Base {
    /// Where the snapshot `id` ends, as its `capture` record says; `None` if it does not say.
    #[must_use]
    pub fn read(id: BackupId, capture: &Value) -> Option<Base> {
        let number = |name: &str| capture.pointer(&format!("/position/{name}"))?.as_u64();
        let cluster = capture.get("cluster")?.as_str()?.to_owned();
        let (op, timestamp) = (number("head_op")?, number("head_timestamp")?);
        Some(Base { id, cluster, op, timestamp })
    }

    /// Whether the run leads on from this snapshot. After a cluster was restored to an earlier state
    /// numbers of operations come twice, so the time must fit, too.
    #[must_use]
    pub fn is_of(&self, run: &[Link]) -> bool {
        let Some(first) = run.first().filter(|first| first.segment.cluster == self.cluster) else {
            return false;
        };
        let begin = &first.segment.position;
        if begin.ops.as_ref().is_some_and(|ops| self.op.checked_add(1) == Some(ops.first_op)) {
            return self.timestamp < begin.first_timestamp;
        }
        run.iter().any(|link| {
            let Position { first_timestamp, last_timestamp, ops, .. } = &link.segment.position;
            ops.as_ref().is_some_and(|ops| (ops.first_op..=ops.last_op).contains(&self.op))
                && (*first_timestamp..=*last_timestamp).contains(&self.timestamp)
        })
    }
}

/// From when to when a log restores.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// The log.
    pub mode: Mode,
    /// The first moment, nanoseconds since 1970.
    pub from: u64,
    /// The last moment.
    pub until: u64,
    /// The operations that can be chosen, in wal mode.
    pub ops: Option<(u64, u64)>,
}

impl Window {
    /// Whether every moment in `other` is in this one.
    #[must_use]
    pub fn covers(&self, other: &Window) -> bool {
        let ops = match (self.ops, other.ops) {
            (Some(own), Some(other)) => own.0 <= other.0 && other.1 <= own.1,
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        self.mode == other.mode && ops && self.from <= other.from && other.until <= self.until
    }

    /// Whether `target` lies within.
    #[must_use]
    pub fn admits(&self, target: Target) -> bool {
        match target {
            Target::Time(at) => (self.from..=self.until).contains(&at),
            Target::Op(op) => self.ops.is_some_and(|(first, last)| (first..=last).contains(&op)),
        }
    }
}

/// What a restore is to reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// The last operation no later than this, nanoseconds since 1970.
    Time(u64),
    /// This operation.
    Op(u64),
}

impl Target {
    /// Whether an operation with this number and time is beyond it.
    #[must_use]
    pub fn is_before(self, op: u64, timestamp: u64) -> bool {
        match self {
            Target::Time(at) => timestamp > at,
            Target::Op(last) => op > last,
        }
    }
}

/// The window of an unbroken run of segments. In wal mode it begins with the oldest of `bases` that
/// the run continues; without one there is none. In query mode the run must be that from the
/// cluster's beginning.
#[must_use]
pub fn window(run: &[Link], bases: &[Base]) -> Option<Window> {
    let (first, last) = (run.first()?, run.last()?);
    let (begin, end) = (&first.segment.position, &last.segment.position);
    match (first.segment.mode, &begin.ops, &end.ops) {
        (Mode::Wal, Some(_), Some(ends)) => {
            let base = bases.iter().filter(|base| base.is_of(run)).min_by_key(|base| base.op)?;
            Some(Window {
                mode: Mode::Wal,
                from: base.timestamp,
                until: end.last_timestamp,
                ops: Some((base.op, ends.last_op)),
            })
        }
        (Mode::Query, _, _) => first.segment.is_from_the_beginning().then_some(Window {
            mode: Mode::Query,
            from: begin.first_timestamp,
            until: end.last_timestamp,
            ops: None,
        }),
        (Mode::Wal, _, _) => None,
    }
}

/// The last operation that a snapshot that ends with `op` holds for sure: only segments that end later are
/// needed with it.
pub(super) fn sure_until(op: u64) -> u64 {
    op.saturating_sub(UNSURE_OPS_MAX)
}

/// The segments of a run that lead from a snapshot that ends with op `base` to `target`, and the
/// snapshot's last operations themselves: the cluster may have taken those back.
#[must_use]
pub fn needed(run: &[Link], base: Option<u64>, target: Target) -> Vec<&Link> {
    let from = base.map_or(0, sure_until);
    let wanted = run.iter().filter(|link| {
        let Position { first_timestamp, ops, .. } = &link.segment.position;
        let begins = ops.as_ref().map_or(0, |ops| ops.first_op);
        let ends = ops.as_ref().map_or(u64::MAX, |ops| ops.last_op);
        ends > from && !target.is_before(begins, *first_timestamp)
    });
    wanted.collect()
}
