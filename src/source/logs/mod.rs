//! The contract of a change log: what a source did between two snapshots, shipped in segments, and
//! replayed up to a chosen moment.
//!
//! A source that has one implements [`LogSource`]; what needs no configuration of the day is a
//! [`LogKind`] in the entry of its source.

pub mod files;
pub mod restore_at;
pub mod ship;

pub use self::files::{ExaminedFile, FilePlace, LogFileKind, Neighbours};
pub use self::restore_at::{
    FindEvent, LogDrill, LogEvent, LogKind, LogMode, RestoreAtRequest, RestoredAt,
};
pub use self::ship::{LogSource, OnGap, OwnEvents};
