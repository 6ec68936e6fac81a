//! The DuckDB source: snapshots of a database file that another process has open, and exports of its tables.
//!
//! - [`configured`]: the settings, and the source that they make.
//! - [`data_file`]: what file and log look like.
//! - [`capture`]: from the file into a snapshot, or into a private copy that the engine may open.
//! - [`engine`]: the linked DuckDB, in a process of its own, with the functions that bkp adds to it.
//! - [`schema`]: what makes the tables again.
//! - [`export`]: from the tables into Parquet, and what changed in them since the last time.
//! - [`restore`]: from a chain of snapshots or of exports back to a file, or to nothing.
//! - [`metadata_table`]: one table of text, for the catalog of backups.
//!
//! What a capture holds is *transaction-consistent*: file and log as they are after one commit. The
//! live file is only read: bkp neither takes its lock nor opens it with DuckDB.

use std::time::Duration;

use crate::domain::backup_kind::BackupKind;
use crate::domain::names::{BackupType, Scope};
use crate::source::entry::SourceEntry;
use crate::source::{SourceKind, TargetKind, link_by_link};

mod attempt_error;
mod capture;
mod configured;
mod data_file;
mod discover;
mod engine;
mod export;
pub mod metadata_table;
mod restore;
mod schema;

const KIND: SourceKind = SourceKind {
    backup_type: BackupType::Duckdb,
    zstd_level: 3,
    open: configured::open,
    schema: || schemars::schema_for!(configured::Table).to_value(),
    extend: link_by_link,
    target: TargetKind::File,
    is_server: |_to| false,
    preflight: |_chain, _request, _ctx| Ok(Vec::new()),
    read_map: Some(configured::read_map),
    decode: restore::assemble::decode,
    guard: configured::guard,
    restore: restore::assemble::restore,
    drill: restore::assemble::drill,
};

/// The line in the table of sources.
pub const ENTRY: SourceEntry = SourceEntry {
    kind: KIND,
    makes: &[BackupKind::Snapshot, BackupKind::Export],
    log: None,
    tenants: None,
    finder: Some(discover::FINDER),
    serve: engine::serve::serve,
    interval,
    kept_days: 90,
};

fn interval(kind: BackupKind, scope: Option<Scope>) -> Duration {
    let is_increment = kind != BackupKind::Log && scope == Some(Scope::Incremental);
    Duration::from_hours(if is_increment { 6 } else { 24 })
}
