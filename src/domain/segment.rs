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

pub use self::keep::{LogRetention, keep};
pub use self::log::{Base, Break, Link, Log, Target, Window, needed, window};
pub use self::record::{Marks, Mode, NUMBER_MAX, Ops, Position, Segment, Totals};
pub use self::spans::Spans;

/// What makes a segment, in its name.
pub const KIND: &str = BackupKind::Log.as_str();

#[cfg(test)]
mod tests;
