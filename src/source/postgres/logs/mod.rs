//! The write-ahead log of a server: files that it hands over one by one, each archived by itself.
//!
//! - [`files`]: what the hooks know of such a file, and [`facts`]: what stands in its header.
//! - [`shipping`]: the job that says in one manifest what has arrived. [`lineage`]: which files follow each other
//!   over changes of the timeline.
//! - [`follow`]: a follower, which receives the log as it is written.
//! - [`segment`]: what such a manifest says, and the list of files that it comes with.
//! - [`restore_at`]: the way back to a moment.

mod facts;
mod files;
mod follow;
mod lineage;
mod restore_at;
mod segment;
pub(super) mod shipping;

use super::record::read_base;
use super::restore::drill_log;
use super::wal::lsn;
use crate::domain::names::BackupType;
use crate::source::logs::{LogKind, LogMode};

/// What the log consists of.
const MODES: &[LogMode] =
    &[LogMode { name: "wal", about: "Files of the write-ahead log, as the server archives them." }];

/// The line in the table of logs.
pub(super) const LOG: LogKind = LogKind {
    backup_type: BackupType::Postgres,
    modes: MODES,
    position_name: "LSN",
    spell: lsn::text,
    read_segment: segment::read_segment,
    read_base,
    identity: segment::identity_of,
    decode: segment::decode,
    restore_at: restore_at::restore_at,
    find_event: Some(segment::find_event),
    drill: drill_log,
    files: Some(files::FILES),
};
