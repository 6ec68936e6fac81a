//! Segments of a change log: their description, and the rules by which they form a log.
//!
//! A segment is a backup of scope incremental and kind [`KIND`]. It names the segment before it by id
//! and by the SHA-256 of that one's manifest, so a segment that is missing, changed or out of order is
//! found by reading manifests alone. Segments of the two modes are two logs.

mod keep;
mod log;
mod record;
mod spans;

use super::backup_kind::BackupKind;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::names::BackupName;

pub use self::keep::{LogRetention, keep};
pub use self::log::{Base, Break, Link, Log, Target, Window, needed, window};
pub use self::record::{Marks, Mode, NUMBER_MAX, Ops, Position, Segment, Totals};
pub use self::spans::Spans;

/// What makes a segment, in its name.
pub const KIND: &str = BackupKind::Log.as_str();

/// The name of the lease under which a run makes a backup of this name, or builds on one.
#[must_use]
pub fn lease(name: &BackupName) -> String {
    if name.kind == KIND { format!("{}.{KIND}", name.source) } else { name.source.clone() }
}

/// The time of nanoseconds since 1970.
#[must_use]
pub fn time_of(timestamp: u64) -> Option<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(timestamp)).ok()
}

/// The same for people, RFC 3339.
#[must_use]
pub fn spelled(timestamp: u64) -> Option<String> {
    time_of(timestamp)?.format(&Rfc3339).ok()
}

/// A time for people, RFC 3339.
#[must_use]
pub fn rfc3339(time: OffsetDateTime) -> String {
    time.format(&Rfc3339).unwrap_or_else(|_| time.to_string())
}

#[cfg(test)]
mod tests;
