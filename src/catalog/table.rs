//! The backups of a store as a table, `backup_metadata`, made from manifests on demand: in memory for a
//! query, or as a database.
//!
//! The manifests stay the truth.

use std::path::{Path, PathBuf};

use crate::source::duckdb::metadata_table;
use crate::source::duckdb::metadata_table::MetadataTable;

pub use crate::source::duckdb::metadata_table::Answer;

/// What a file of it is for, in the words of a message.
pub const FILE_TYPE: &str = "duckdb";

/// The table's name.
const NAME: &str = "backup_metadata";

/// The columns, in their order.
const COLUMNS: &str = "
    id UUID PRIMARY KEY, backup_type VARCHAR, backup_scope VARCHAR, tenant_id VARCHAR,
    start_time TIMESTAMP, end_time TIMESTAMP, status VARCHAR, backup_size_bytes UBIGINT,
    backup_location VARCHAR, checksum VARCHAR, compression VARCHAR, encryption VARCHAR,
    retention_until TIMESTAMP, source VARCHAR, kind VARCHAR, parent_id UUID";

/// A backup as a row of the table; times are UTC, RFC 3339.
#[derive(Debug, Clone, Default)]
pub struct CatalogRow {
    /// The backup's id.
    pub id: String,
    /// Its type.
    pub backup_type: String,
    /// Its scope.
    pub backup_scope: String,
    /// Whose data it is.
    pub tenant_id: Option<String>,
    /// When it began.
    pub start_time: String,
    /// When it was durable.
    pub end_time: String,
    /// `completed`.
    pub status: String,
    /// Sum over its objects as stored, bytes.
    pub backup_size_bytes: u64,
    /// URL of its manifest.
    pub backup_location: String,
    /// SHA-256 of its manifest as stored, hex.
    pub checksum: String,
    /// `none`, `gzip` or `zstd`.
    pub compression: String,
    /// `none` or `aes256-gcm`.
    pub encryption: String,
    /// Until when it is to be kept.
    pub retention_until: Option<String>,
    /// The source's name.
    pub source: String,
    /// What made it.
    pub kind: String,
    /// The backup that it adds to.
    pub parent_id: Option<String>,
}

impl CatalogRow {
    fn values(&self) -> Vec<Option<String>> {
        let CatalogRow { id, backup_type, backup_scope, start_time, end_time, status, .. } = self;
        let CatalogRow { backup_location, checksum, compression, encryption, source, kind, .. } =
            self;
        let size = self.backup_size_bytes.to_string();
        let text = |text: &String| Some(text.clone());
        vec![
            text(id),
            text(backup_type),
            text(backup_scope),
            self.tenant_id.clone(),
            text(start_time),
            text(end_time),
            text(status),
            Some(size),
            text(backup_location),
            text(checksum),
            text(compression),
            text(encryption),
            self.retention_until.clone(),
            text(source),
            text(kind),
            self.parent_id.clone(),
        ]
    }
}

fn sheet(rows: &[CatalogRow]) -> MetadataTable {
    let rows = rows.iter().map(CatalogRow::values).collect();
    MetadataTable { name: NAME, columns: COLUMNS, rows }
}

/// Makes a database with the table at `path`, as [`metadata_table::materialise`] does.
///
/// # Errors
/// As [`metadata_table::materialise`].
pub fn materialise(
    path: &Path,
    rows: &[CatalogRow],
    replace: bool,
) -> anyhow::Result<Option<PathBuf>> {
    metadata_table::materialise(&sheet(rows), path, replace)
}

/// Runs a query over the table; returns the names of the result's columns, and its rows as text.
///
/// # Errors
/// [`crate::error::Kind::Usage`] with what the engine says of the query.
pub fn query(rows: &[CatalogRow], sql: &str) -> anyhow::Result<Answer> {
    metadata_table::query(&sheet(rows), sql)
}
