//! Segments of a change log: the rules by which they form a log, and what of it restores.
//!
//! A segment is a backup of scope incremental and kind [`KIND`]. It names the segment before it by id
//! and by the SHA-256 of that one's manifest, so a segment that is missing, changed or out of order is
//! found by reading manifests alone. Segments of two modes are two logs.
//!
//! Nothing here knows what a log is of: a source reads the records of its own backups, and says in the terms
//! of [`Segment`] and [`Base`] what the rules have to know.

mod description;
mod keep;
mod log;
mod window;

use super::backup_kind::BackupKind;

pub use self::description::{Damage, Range, Segment};
pub use self::keep::{LogRetention, keep};
pub use self::log::{Break, Link, Log};
pub use self::window::{Base, Target, Window, needed, window};

/// What makes a segment, in its name.
pub const KIND: &str = BackupKind::Log.as_str();

#[cfg(test)]
mod tests;
