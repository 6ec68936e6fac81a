//! The rules, and the words for them in reports, metrics and notifications.

use std::fmt;

use serde::{Serialize, Serializer};

/// A rule that something can break.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// No successful run for too long.
    Late,
    /// Runs fail.
    Failing,
    /// Something is damaged, or no backup.
    Damage,
    /// Runs make backups of a part.
    Partial,
    /// Retention removes nothing, since no run fully succeeds.
    Frozen,
    /// A job waits for one that failed.
    Waits,
    /// A run took much longer than those before it.
    Slow,
    /// Records or backups without a proof.
    Unproven,
    /// Marks beside backups without a proof.
    UnprovenMarks,
    /// One of several stores is behind.
    StaleCopy,
    /// A source has no backups.
    Missing,
    /// Full backups where increments are wanted.
    UnexpectedFull,
    /// No job makes backups of a source.
    Unscheduled,
    /// No job verifies a source.
    Unverified,
    /// No key at hand opens the backups.
    Unopened,
    /// Backups are dated in the future.
    Future,
    /// The newest backup has an odd size.
    Size,
    /// A source has doubled within weeks.
    Growth,
    /// A log has a gap.
    Gap,
    /// The archive of a log is behind its server.
    Lag,
    /// A store uses most of its quota.
    Quota,
    /// A file system is nearly full.
    Space,
    /// Events wait for the ledger.
    Outbox,
    /// A key cannot be used.
    Key,
    /// A store does not answer.
    Unreachable,
}

impl Rule {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Rule::Late => "late",
            Rule::Failing => "failing",
            Rule::Damage => "damage",
            Rule::Partial => "partial",
            Rule::Frozen => "frozen",
            Rule::Waits => "waits",
            Rule::Slow => "slow",
            Rule::Unproven => "unproven",
            Rule::UnprovenMarks => "unproven-marks",
            Rule::StaleCopy => "copy",
            Rule::Missing => "missing",
            Rule::UnexpectedFull => "anew",
            Rule::Unscheduled => "unscheduled",
            Rule::Unverified => "unverified",
            Rule::Unopened => "unopened",
            Rule::Future => "future",
            Rule::Size => "size",
            Rule::Growth => "growth",
            Rule::Gap => "gap",
            Rule::Lag => "lag",
            Rule::Quota => "quota",
            Rule::Space => "space",
            Rule::Outbox => "outbox",
            Rule::Key => "key",
            Rule::Unreachable => "store",
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Serialize for Rule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}
