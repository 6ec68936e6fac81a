//! A segment as the rules see it.

use serde::{Deserialize, Serialize};

use crate::domain::id::BackupId;

/// What the rules know of a segment, as its source read it in the segment's manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// What the log consists of, in a word of its source.
    pub mode: String,
    /// What it is a log of, by the name that the engine gives it.
    pub stream: String,
    /// Whether a restore goes on from a snapshot. Else it begins with the beginning of the log, and needs
    /// nothing but segments.
    pub needs_base: bool,
    /// SHA-256 of the manifest of the segment before it, as the run wrote it which made that one, hex; `None` for
    /// the first one.
    pub parent_sha256: Option<String>,
    /// Why it does not continue what was shipped before.
    pub gap: Option<String>,
    /// Why no restore goes on over this segment, although nothing of it is missing.
    pub unreplayable: Option<String>,
    /// The first moment that it covers, nanoseconds since 1970, by the clock of what it is a log of.
    pub first_timestamp: u64,
    /// The last moment.
    pub last_timestamp: u64,
    /// From where to where, if the log counts what it holds.
    pub range: Option<Range>,
}

/// The positions of a segment, and what they are connected with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// The first position.
    pub first: u64,
    /// The last one; the next segment begins with the one after it.
    pub last: u64,
    /// What tells the place right before the first position from the same position in another history of the
    /// source: a checksum, or a branch of it.
    pub before: String,
    /// The same of the last position: the `before` of the next segment.
    pub after: String,
}

/// Why a segment does not follow the one before it, although it should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Damage {
    /// The one that it names is missing.
    Missing(BackupId),
    /// It names another one than the one that stands there.
    Parent,
    /// The one before it is of another log.
    Log,
    /// It begins before the end of the one before it.
    Time,
    /// It begins with this position, and the one before it ends with that one.
    Position(u64, u64),
}

impl Damage {
    /// The same in words, with the name that people have for a position.
    #[must_use]
    pub fn text(&self, position: &str) -> String {
        match self {
            Damage::Missing(parent) => format!("the segment {parent} is missing"),
            Damage::Parent => "the previous segment is not the one it names".into(),
            Damage::Log => "the previous segment belongs to another log".into(),
            Damage::Time => "it begins before the end of the previous segment".into(),
            Damage::Position(begins, ended) => format!(
                "it begins with {position} {begins}, but the previous segment ends with {position} {ended}"
            ),
        }
    }
}

impl Segment {
    /// Whether nothing before it is needed: where there are no snapshots to begin with, a segment that
    /// continues none begins with the beginning.
    #[must_use]
    pub fn is_from_the_beginning(&self) -> bool {
        !self.needs_base
            && (self.parent_sha256.is_none() || self.gap.is_some())
            && self.unreplayable.is_none()
    }

    /// Why this segment does not continue `before`, whose manifest has this digest; `None` if it
    /// does. A gap that the segment names itself is none of this.
    #[must_use]
    pub fn contradicts(&self, before: &Segment, before_sha256: &str) -> Option<Damage> {
        if self.parent_sha256.as_deref() != Some(before_sha256) {
            return Some(Damage::Parent);
        }
        if self.mode != before.mode || self.stream != before.stream {
            return Some(Damage::Log);
        }
        if self.gap.is_some() {
            return None;
        }
        if self.first_timestamp <= before.last_timestamp {
            return Some(Damage::Time);
        }
        let (Some(range), Some(earlier)) = (&self.range, &before.range) else { return None };
        let follows =
            earlier.last.checked_add(1) == Some(range.first) && range.before == earlier.after;
        (!follows).then_some(Damage::Position(range.first, earlier.last))
    }
}
