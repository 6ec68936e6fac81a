//! Looking at a database file that was put together: does the engine open it, and read what is in it?

use std::path::Path;

use super::engine::{CATALOGUE, Session, TextRow};
use super::sql;
use crate::error::Kind;

/// A table that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Table {
    /// Rows.
    pub(super) rows: u64,
}

/// Opens the file and counts its tables; with `read`, reads every value of every table.
///
/// # Errors
/// [`Kind::Integrity`] with what the engine says.
pub(super) fn inspect(path: &Path, read: bool) -> anyhow::Result<Vec<Table>> {
    const TABLES: &str = "SELECT schema_name, table_name, coalesce(estimated_size, 0) FROM duckdb_tables() WHERE NOT internal AND NOT temporary ORDER BY ALL";
    let session = Session::open(path, false, Kind::Integrity)?;
    session.step_out()?;
    let number = |row: &TextRow, at: usize| {
        row.get(at).cloned().flatten().and_then(|text| text.parse().ok()).unwrap_or_default()
    };
    let mut tables = Vec::new();
    for row in session.rows(TABLES)? {
        let text =
            |at: usize| sql::name(row.get(at).cloned().flatten().unwrap_or_default().as_str());
        if !read {
            tables.push(Table { rows: number(&row, 2) });
            continue;
        }
        // Hashing reads every column; counting alone would read none.
        let sql = format!(
            "SELECT count(*), bit_xor(hash(*COLUMNS(*))) FROM {CATALOGUE}.{}.{}",
            text(0),
            text(1)
        );
        let counted = session.rows(&sql)?;
        tables.push(Table { rows: counted.first().map_or(0, |row| number(row, 0)) });
    }
    session.close()?;
    Ok(tables)
}
