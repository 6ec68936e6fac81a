//! Inspects an assembled database file: does the engine open it and read its content?

use std::collections::HashMap;
use std::path::Path;

use crate::error::Kind;
use crate::source::duckdb::engine::{CATALOG, Session, TextRow};
use crate::source::duckdb::schema::sql;
use crate::source::duckdb::schema::{by_table, quoted, stored_columns, text};

/// A table that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Table {
    /// Rows.
    pub(crate) rows: u64,
}

/// Opens the file and counts its tables; with `read`, reads every value of every table but those that are
/// computed when they are read: they are not in the file, and computing them runs what the database says.
///
/// # Errors
/// [`Kind::Integrity`] with what the engine says.
pub(crate) fn inspect(path: &Path, read: bool) -> anyhow::Result<Vec<Table>> {
    const TABLES: &str = "SELECT schema_name, table_name, coalesce(estimated_size, 0), sql FROM duckdb_tables() WHERE NOT internal AND NOT temporary ORDER BY ALL";
    const COLUMNS: &str = "SELECT schema_name, table_name, column_name, data_type FROM duckdb_columns() WHERE NOT internal ORDER BY table_oid, column_index";
    let session = Session::open(path, false, Kind::Integrity)?;
    session.leave_user_schema()?;
    let number = |row: &TextRow, at: usize| text(row, at).parse().unwrap_or_default();
    let rows = session.rows(TABLES)?;
    let columns = if read { by_table(session.rows(COLUMNS)?) } else { HashMap::new() };
    let mut tables = Vec::new();
    for row in rows {
        if !read {
            tables.push(Table { rows: number(&row, 2) });
            continue;
        }
        let (schema, name) = (text(&row, 0), text(&row, 1));
        let table = quoted(&schema, &name);
        let stored = stored_columns(&text(&row, 3), columns.get(&(schema, name)));
        let stored: Vec<String> = stored.iter().map(|column| sql::name(&column.name)).collect();
        // Hashing reads every column; counting alone would read none.
        let hash =
            if stored.is_empty() { "0".into() } else { format!("hash({})", stored.join(", ")) };
        let sql = format!("SELECT count(*), bit_xor({hash}) FROM {CATALOG}.{table}");
        let counted = session.rows(&sql)?;
        tables.push(Table { rows: counted.first().map_or(0, |row| number(row, 0)) });
    }
    session.close()?;
    Ok(tables)
}
