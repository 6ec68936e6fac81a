//! Rows that Parquet cannot represent exactly, stored in a database file with keys and hashes: unions
//! of lists, geometries in lists, states of aggregates, some variants; and the smallest tables of a
//! database that has more of them than a manifest takes. Each export has all of them anew.

use std::path::{Path, PathBuf};

use crate::source::duckdb::engine::{DatabaseTarget, Session, SessionOptions};
use crate::source::duckdb::export::content::content;
use crate::source::duckdb::export::index::{Index, TableEntry};
use crate::source::duckdb::schema::sql;

/// The member of an export's archive.
pub(crate) const MEMBER: &str = "rows.duckdb";

/// What it is called beside the database.
pub(crate) const NAME: &str = "bkp_6f3a90c1_rows";

/// The table in it that has the rows of one.
pub(crate) fn relation(native: &str) -> String {
    format!("{NAME}.main.{}", sql::name(native))
}

/// Copies the rows of tables that are marked into a database file beside `file`, in the folder of `options`,
/// and compares. Returns why that failed, for each with which it did.
///
/// # Errors
/// What the engine says of the files.
pub(crate) fn make(
    index: &Index,
    file: &Path,
    options: &SessionOptions<'_>,
) -> anyhow::Result<(PathBuf, Vec<(String, String)>)> {
    let path = file.with_file_name(MEMBER);
    let place = DatabaseTarget {
        file: Some(file),
        storage_version: Some(&index.storage_version),
        beside: &[(NAME, &path)],
        ..DatabaseTarget::default()
    };
    let copied = index.tables.iter().filter(|table| table.native.is_some());
    let limits = options.limits.inserting(copied);
    let session = Session::opened(place, &SessionOptions { limits, ..*options })?;
    session.leave_user_schema()?;
    session.take_row_keys(index.row_keys.as_deref())?;
    let mut failed = Vec::new();
    for table in &index.tables {
        let Some(native) = &table.native else { continue };
        if let Err(error) = copy(&session, table, native) {
            failed.push((table.quoted(), format!("{error:#}")));
        }
    }
    session.run(&format!("CHECKPOINT {NAME}"))?;
    session.run(&format!("DETACH {NAME}"))?;
    session.close()?;
    Ok((path, failed))
}

fn copy(session: &Session, table: &TableEntry, native: &str) -> anyhow::Result<()> {
    let names: Vec<String> = table.columns.iter().map(|column| column.name.clone()).collect();
    let (into, names) = (relation(native), sql::names(&names));
    session.run(&format!("CREATE TABLE {into} AS SELECT {names} FROM {}", table.here()))?;
    if content(session, table, &into)? == table.content {
        return Ok(());
    }
    session.run(&format!("DROP TABLE {into}"))?;
    anyhow::bail!("its rows come back as others")
}
