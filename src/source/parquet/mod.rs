//! The Parquet source: a folder of files that other programs write, such as the cold tier of a lake.
//!
//! - [`settings`]: what is configured, and the source that it makes.
//! - [`path`], [`walk`]: files below the folder, by paths that cannot lead out of it.
//! - [`inventory`]: the files of a moment, and which object holds each of them.
//! - [`copy`]: from the folder into objects; [`copying`]: from a file into one; [`stable_read`]: so that each is
//!   of one moment.
//! - [`footer`]: what a Parquet file says of itself, in [`thrift`].
//! - [`extend`]: on which earlier replica the next one builds.
//! - [`restore`]: from the objects back to a folder; [`check`]: the same without keeping it.
//!
//! What a replica holds is consistent *file by file*: each file as it was at one moment, not all of them at the
//! same one. Writers of Parquet make a file once and never change it, so more than that is rarely missed.

mod check;
mod copy;
mod copying;
mod discover;
mod extend;
mod footer;
mod inventory;
mod path;
mod restore;
mod settings;
mod stable_read;
mod thrift;
mod walk;

use std::time::Duration;

use crate::domain::backup_kind::BackupKind;
use crate::domain::names::BackupType;
use crate::source::entry::SourceEntry;
use crate::source::{SourceKind, TargetKind};

const KIND: SourceKind = SourceKind {
    backup_type: BackupType::Parquet,
    zstd_level: 3,
    open: settings::open,
    schema: || schemars::schema_for!(settings::Table).to_value(),
    extend: extend::extend,
    target: TargetKind::Folder,
    is_server: |_to| false,
    preflight: |_chain, _request, _ctx| Ok(Vec::new()),
    // Only snapshots have block maps.
    read_map: None,
    decode: check::decode,
    guard: restore::guard,
    restore: restore::restore,
    drill: check::drill,
};

/// The line in the table of sources.
pub const ENTRY: SourceEntry = SourceEntry {
    kind: KIND,
    makes: &[BackupKind::Replica],
    log: None,
    tenants: None,
    finder: Some(discover::FINDER),
    serve: |_words| None,
    interval: |_kind, _scope| Duration::from_hours(1),
    kept_days: 365,
};
