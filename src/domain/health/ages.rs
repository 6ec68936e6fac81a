//! The ages at which something is late.

use std::time::Duration as StdDuration;

use time::Duration;

use super::finding::Level;

/// From which age of the last good run on a job is late.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ages {
    /// It is worth a look.
    pub warning: Duration,
    /// The promise is broken.
    pub critical: Duration,
}

pub(super) const DAY: Duration = Duration::DAY;

impl Ages {
    /// The ages for a job that runs every `interval`: as configured, else a warning after four
    /// intervals, at most a day but at least one and a half intervals; critical after twice that.
    #[must_use]
    pub fn of(
        interval: Duration,
        warning: Option<StdDuration>,
        critical: Option<StdDuration>,
    ) -> Ages {
        let given = |length: StdDuration| Duration::try_from(length).unwrap_or(Duration::MAX);
        let usual = (interval.saturating_mul(4)).min(DAY).max(interval.saturating_mul(3) / 2);
        let warning = warning.map_or(usual, given);
        let critical = critical.map_or(warning.saturating_mul(2), given);
        Ages { warning: warning.min(critical), critical }
    }

    /// The level of a finding at this age; `None` if it is not late.
    pub(super) fn level(&self, age: Duration) -> Option<Level> {
        match age {
            age if age > self.critical => Some(Level::Critical),
            age if age > self.warning => Some(Level::Warning),
            _ => None,
        }
    }
}

/// A length of time as people say it.
pub(super) fn spelled(length: Duration) -> String {
    format!("{} h {} min", length.whole_hours(), length.whole_minutes() % 60)
}
