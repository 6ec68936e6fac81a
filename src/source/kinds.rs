//! The table of sources: the only place that names them.

use std::ffi::OsString;
use std::process::ExitCode;

use super::entry::SourceEntry;
use super::logs::{LogKind, LogMode};
use super::tenants::TenantKind;
use super::{SourceError, SourceKind, duckdb, keys, parquet, postgres, tigerbeetle};
use crate::domain::names::BackupType;

/// Every kind of source.
pub const SOURCES: &[SourceEntry] =
    &[duckdb::ENTRY, keys::ENTRY, parquet::ENTRY, postgres::ENTRY, tigerbeetle::ENTRY];

/// All that the source brings that made backups of this type; `None` if this version does not know it.
#[must_use]
pub fn entry_of(backup_type: BackupType) -> Option<&'static SourceEntry> {
    SOURCES.iter().find(|entry| entry.kind.backup_type == backup_type)
}

/// The kind of source that made backups of this type.
///
/// # Errors
/// [`SourceError::Unsupported`] if this version does not know it.
pub fn kind_of(backup_type: BackupType) -> Result<&'static SourceKind, SourceError> {
    let found = entry_of(backup_type).map(|entry| &entry.kind);
    found.ok_or_else(|| SourceError::Unsupported {
        what: format!("backups of type {backup_type}"),
        reason: "unknown to this version of bkp".into(),
    })
}

/// The kind of log whose segments have this type.
///
/// # Errors
/// [`SourceError::Unsupported`] if this version does not know it.
pub fn log_kind_of(backup_type: BackupType) -> Result<&'static LogKind, SourceError> {
    let found = entry_of(backup_type).and_then(|entry| entry.log.as_ref());
    found.ok_or_else(|| SourceError::Unsupported {
        what: format!("logs of type {backup_type}"),
        reason: "this version of bkp cannot ship this log".into(),
    })
}

/// What the source of this type does with tenants.
///
/// # Errors
/// [`SourceError::Unsupported`] if it has none that could be restored one by one.
pub fn tenant_kind_of(backup_type: BackupType) -> Result<&'static TenantKind, SourceError> {
    let found = entry_of(backup_type).and_then(|entry| entry.tenants.as_ref());
    found.ok_or_else(|| SourceError::Unsupported {
        what: format!("tenants in a source of type {backup_type}"),
        reason: "only in databases of PostgreSQL is one restored by itself".into(),
    })
}

/// Every kind of log with each of its modes, the best one of a kind first.
pub fn log_modes() -> impl Iterator<Item = (&'static LogKind, &'static LogMode)> {
    let kinds = SOURCES.iter().filter_map(|entry| entry.log.as_ref());
    kinds.flat_map(|kind| kind.modes.iter().map(move |mode| (kind, mode)))
}

/// What bkp does instead of a command where it started itself for a source; `None` if it did not.
#[must_use]
pub fn serve(words: &[OsString]) -> Option<ExitCode> {
    SOURCES.iter().find_map(|entry| (entry.serve)(words))
}
