//! The table of sources, and that of logs: the only place that names them.

use std::ffi::OsString;
use std::io;

use super::logs::LogKind;
use super::{SourceError, SourceKind, duckdb, tigerbeetle};
use crate::domain::names::BackupType;

/// Every kind of source.
pub const SOURCES: &[SourceKind] = &[duckdb::KIND, tigerbeetle::KIND];

/// The kind of source that made backups of this type.
///
/// # Errors
/// [`SourceError::Unsupported`] if this version does not know it.
pub fn kind_of(backup_type: BackupType) -> Result<&'static SourceKind, SourceError> {
    let found = SOURCES.iter().find(|kind| kind.backup_type == backup_type);
    found.ok_or_else(|| SourceError::Unsupported {
        what: format!("backups of type {backup_type}"),
        reason: "unknown to this version of bkp".into(),
    })
}

/// Every kind of log.
pub const LOGS: &[LogKind] = &[tigerbeetle::LOG];

/// What bkp does instead of a command where it started itself for a restore; `None` if it did not.
#[must_use]
pub fn inside(words: impl Iterator<Item = OsString>) -> Option<io::Result<()>> {
    tigerbeetle::serve_if_private(words)
}

/// The kind of log whose segments have this type.
///
/// # Errors
/// [`SourceError::Unsupported`] if this version does not know it.
pub fn log_kind_of(backup_type: BackupType) -> Result<&'static LogKind, SourceError> {
    let found = LOGS.iter().find(|kind| kind.backup_type == backup_type);
    found.ok_or_else(|| SourceError::Unsupported {
        what: format!("logs of type {backup_type}"),
        reason: "this version of bkp cannot ship this log".into(),
    })
}
