//! The windows that segments can restore, and what a restore needs.

use serde::{Deserialize, Serialize};

use super::description::Segment;
use super::log::Link;
use crate::domain::id::BackupId;

/// A snapshot that a log can be rolled forward from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Base {
    /// Its id.
    pub id: BackupId,
    /// What it is of, by the name that segments of its log have for it.
    pub stream: String,
    /// The last position that it holds.
    pub position: u64,
    /// When that was, nanoseconds since 1970.
    pub timestamp: u64,
    /// So many positions at its end may be taken back by what it is of, and come again otherwise.
    pub slack: u64,
    /// The branch of its history, where a log tells branches in its ranges; else times tell them.
    #[serde(default)]
    pub branch: Option<String>,
}

impl Base {
    /// Whether the run leads on from this snapshot. After a source was restored to an earlier state
    /// positions come twice, so the time must fit, too.
    #[must_use]
    pub fn is_of(&self, run: &[Link]) -> bool {
        let Some(first) = run.first().filter(|first| first.segment.stream == self.stream) else {
            return false;
        };
        let begin = &first.segment;
        let next = self.position.checked_add(1);
        if let Some(range) = begin.range.as_ref().filter(|range| next == Some(range.first)) {
            let is_earlier = self.timestamp < begin.first_timestamp;
            return self.branch.as_ref().map_or(is_earlier, |branch| *branch == range.before);
        }
        run.iter().any(|link| {
            let Segment { range, first_timestamp, last_timestamp, .. } = &link.segment;
            let Some(range) = range else { return false };
            let is_then = (*first_timestamp..=*last_timestamp).contains(&self.timestamp);
            let on_branch = |branch: &String| [&range.before, &range.after].contains(&branch);
            (range.first..=range.last).contains(&self.position)
                && self.branch.as_ref().map_or(is_then, on_branch)
        })
    }

    /// The last position that it holds for sure: only segments that end later are needed with it.
    #[must_use]
    pub fn sure_until(&self) -> u64 {
        self.position.saturating_sub(self.slack)
    }
}

/// From when to when a log restores.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// What the log consists of.
    pub mode: String,
    /// The first moment, nanoseconds since 1970.
    pub from: u64,
    /// The last moment.
    pub until: u64,
    /// The positions that can be chosen, where a restore begins with a snapshot.
    pub positions: Option<(u64, u64)>,
}

impl Window {
    /// Whether every moment in `other` is in this one.
    #[must_use]
    pub fn covers(&self, other: &Window) -> bool {
        let positions = match (self.positions, other.positions) {
            (Some(own), Some(other)) => own.0 <= other.0 && other.1 <= own.1,
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        self.mode == other.mode && positions && self.from <= other.from && other.until <= self.until
    }

    /// Whether `target` lies within.
    #[must_use]
    pub fn admits(&self, target: Target) -> bool {
        match target {
            Target::Time(at) => (self.from..=self.until).contains(&at),
            Target::Position(at) => {
                self.positions.is_some_and(|(first, last)| (first..=last).contains(&at))
            }
        }
    }
}

/// What a restore is to reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// The last position no later than this, nanoseconds since 1970.
    Time(u64),
    /// This position.
    Position(u64),
}

impl Target {
    /// Whether a position that has this time is beyond it.
    #[must_use]
    pub fn is_before(self, position: u64, timestamp: u64) -> bool {
        match self {
            Target::Time(at) => timestamp > at,
            Target::Position(last) => position > last,
        }
    }
}

/// The window of an unbroken run of segments. Where a restore needs a snapshot it begins with the oldest of
/// `bases` that the run continues; without one there is none. Else the run must be that from the beginning.
#[must_use]
pub fn window(run: &[Link], bases: &[Base]) -> Option<Window> {
    let (first, last) = (&run.first()?.segment, &run.last()?.segment);
    let (mode, until) = (first.mode.clone(), last.last_timestamp);
    if !first.needs_base {
        let from = first.first_timestamp;
        let whole = first.is_from_the_beginning();
        return whole.then_some(Window { mode, from, until, positions: None });
    }
    let (_, ends) = first.range.as_ref().zip(last.range.as_ref())?;
    let base = bases.iter().filter(|base| base.is_of(run)).min_by_key(|base| base.position)?;
    let positions = Some((base.position, ends.last));
    // A snapshot shows that the log leads to its time, also where nothing happened since the last record.
    let shown = bases.iter().filter(|base| base.is_of(run) && base.position <= ends.last);
    let until = shown.map(|base| base.timestamp).fold(until, u64::max);
    Some(Window { mode, from: base.timestamp, until, positions })
}

/// The segments of a run that lead from `base` to `target`, and the snapshot's last positions themselves: what
/// it is of may have taken those back.
#[must_use]
pub fn needed<'r>(run: &'r [Link], base: Option<&Base>, target: Target) -> Vec<&'r Link> {
    let from = base.map_or(0, Base::sure_until);
    let wanted = run.iter().filter(|link| {
        let range = link.segment.range.as_ref();
        let begins = range.map_or(0, |range| range.first);
        let ends = range.map_or(u64::MAX, |range| range.last);
        ends > from && !target.is_before(begins, link.segment.first_timestamp)
    });
    wanted.collect()
}
