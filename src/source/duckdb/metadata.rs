//! The catalogue of backups as a table: `backup_metadata`, made from manifests on demand.
//!
//! The manifests stay the truth. The table is built in a file of its own that then gets its place
//! by renaming, so that two runs never wait for each other's lock.

use std::path::{Path, PathBuf};

use super::engine::{Session, TextRow};
use super::place::{self, Workshop};
use crate::error::Kind;

/// The columns, in their order.
const TABLE: &str = "CREATE TABLE backup_metadata (
    id UUID PRIMARY KEY, backup_type VARCHAR, backup_scope VARCHAR, tenant_id VARCHAR,
    start_time TIMESTAMP, end_time TIMESTAMP, status VARCHAR, backup_size_bytes UBIGINT,
    backup_location VARCHAR, checksum VARCHAR, compression VARCHAR, encryption VARCHAR,
    retention_until TIMESTAMP, source VARCHAR, kind VARCHAR, parent_id UUID)";

/// A backup as a row of the table; times are UTC, RFC 3339.
#[derive(Debug, Clone, Default)]
pub struct Row {
    /// The backup's id.
    pub id: String,
    /// Its type.
    pub backup_type: String,
    /// Its scope.
    pub backup_scope: String,
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

impl Row {
    fn values(&self) -> TextRow {
        let Row { id, backup_type, backup_scope, start_time, end_time, status, .. } = self;
        let Row { backup_location, checksum, compression, encryption, source, kind, .. } = self;
        let size = self.backup_size_bytes.to_string();
        let text = |text: &String| Some(text.clone());
        vec![
            text(id),
            text(backup_type),
            text(backup_scope),
            None,
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

fn fill(session: &Session, rows: &[Row]) -> anyhow::Result<()> {
    session.run(TABLE)?;
    session.run("BEGIN")?;
    session.insert("backup_metadata", &rows.iter().map(Row::values).collect::<Vec<_>>())?;
    session.run("COMMIT")
}

/// Makes a database file with the table at `path`, in the place of what stands there if that is to be
/// replaced. An older table of the kind is removed then; anything else is kept under another name, which
/// is returned.
///
/// # Errors
/// [`Kind::Refused`] if something stands there that is not to be replaced, or that a process has open
/// for writing; what engine or system say.
pub fn materialise(path: &Path, rows: &[Row], replace: bool) -> anyhow::Result<Option<PathBuf>> {
    let workshop = Workshop::beside(path)?;
    let built = workshop.path("catalog.duckdb");
    let spill = workshop.path("spill");
    let session = Session::open(Some(&built), true, &spill, Kind::Failed)?;
    fill(&session, rows)?;
    session.settle()?;
    std::fs::File::open(&built)?.sync_all()?;
    if !replace {
        return Ok(workshop.publish(&built, path, false)?);
    }
    match workshop.replace(&built, path)? {
        Some(older) if holds_nothing_else(&older, &spill) => {
            place::remove(&older)?;
            Ok(None)
        }
        kept => Ok(kept),
    }
}

/// Whether a file is a database that has the table of backups and nothing else.
fn holds_nothing_else(path: &Path, spill: &Path) -> bool {
    const MADE: &str = "SELECT table_name FROM duckdb_tables() WHERE NOT internal
        UNION ALL SELECT view_name FROM duckdb_views() WHERE NOT internal
        UNION ALL SELECT sequence_name FROM duckdb_sequences()
        UNION ALL SELECT type_name FROM duckdb_types() WHERE NOT internal
        UNION ALL SELECT function_name FROM duckdb_functions() WHERE NOT internal";
    let found = Session::open(Some(path), false, spill, Kind::Failed).and_then(|session| {
        let found = session.rows(MADE)?;
        session.close()?;
        Ok(found)
    });
    found.is_ok_and(|found| found == [[Some("backup_metadata".to_owned())]])
}

/// The names of a result's columns, and its rows as text.
pub type Answer = (Vec<String>, Vec<Vec<Option<String>>>);

/// Runs a query over the table; returns the names of the result's columns, and its rows as text.
///
/// # Errors
/// [`Kind::Usage`] with what the engine says of the query.
pub fn query(rows: &[Row], sql: &str) -> anyhow::Result<Answer> {
    // Nothing is spilled: the table is small, and the query gets no file system.
    let session = Session::confined(Kind::Usage)?;
    fill(&session, rows)?;
    session.table(sql.trim().trim_end_matches(';'))
}
