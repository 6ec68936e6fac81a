//! One table of text that the linked engine gets: for a query, or as a database of its own.
//!
//! The file is built in a folder of its own and gets its place by renaming, so that two runs never
//! wait for each other's lock.

use std::path::{Path, PathBuf};

use crate::error::{Fault, Kind};
use crate::source::ResourceLimits;
use crate::source::duckdb::engine::limits::EngineLimits;
use crate::source::duckdb::engine::{DatabaseTarget, Session, SessionOptions};
use crate::source::duckdb::restore::place;
use crate::source::duckdb::restore::place::RestoreDir;

/// What every DuckDB since 1.0 reads, whichever is linked.
const STORAGE_VERSION: &str = "v1.0.0";

/// A table and its rows, which are text that its columns convert.
#[derive(Debug)]
pub struct MetadataTable {
    /// Its name.
    pub name: &'static str,
    /// Its columns with their types, as SQL.
    pub columns: &'static str,
    /// Its rows.
    pub rows: Vec<Vec<Option<String>>>,
}

fn fill(session: &Session, sheet: &MetadataTable) -> anyhow::Result<()> {
    session.run(&format!("CREATE TABLE {} ({})", sheet.name, sheet.columns))?;
    session.run("BEGIN")?;
    session.insert(sheet.name, &sheet.rows)?;
    session.run("COMMIT")
}

/// Makes a database file with the table at `path`, in the place of what stands there if that is to be
/// replaced. An older table of the kind is removed then; anything else is kept under another name, which
/// is returned.
///
/// # Errors
/// [`Kind::Refused`] if something stands there that is not to be replaced, or that a process has open
/// for writing; what engine or system say.
pub fn materialise(
    sheet: &MetadataTable,
    path: &Path,
    replace: bool,
) -> anyhow::Result<Option<PathBuf>> {
    let scratch = RestoreDir::beside(path)?;
    let built = scratch.path("sheet.duckdb");
    let folder = built.parent();
    let (kind, limits) = (Kind::Failed, EngineLimits::modest(ResourceLimits::default()));
    let options = SessionOptions { folder, kind, limits, ctx: None };
    let storage_version = Some(STORAGE_VERSION);
    let place = DatabaseTarget {
        file: Some(&built),
        write: true,
        storage_version,
        ..DatabaseTarget::default()
    };
    let session = Session::opened(place, &options)?;
    fill(&session, sheet)?;
    session.merge_log()?;
    std::fs::File::open(&built)?.sync_all()?;
    if !replace {
        return Ok(scratch.publish(&built, path, false)?);
    }
    match scratch.replace(&built, path)? {
        Some(older) if holds_nothing_else(&older, sheet.name) => {
            place::remove(&older)?;
            Ok(None)
        }
        kept => Ok(kept),
    }
}

/// Whether a file is a database that has a table of this name and nothing else.
fn holds_nothing_else(path: &Path, name: &str) -> bool {
    const MADE: &str = "SELECT table_name FROM duckdb_tables() WHERE NOT internal
        UNION ALL SELECT view_name FROM duckdb_views() WHERE NOT internal
        UNION ALL SELECT sequence_name FROM duckdb_sequences()
        UNION ALL SELECT type_name FROM duckdb_types() WHERE NOT internal
        UNION ALL SELECT function_name FROM duckdb_functions() WHERE NOT internal";
    let found = Session::open(path, false, Kind::Failed).and_then(|session| {
        let found = session.rows(MADE)?;
        session.close()?;
        Ok(found)
    });
    found.is_ok_and(|found| found == [[Some(name.to_owned())]])
}

/// The names of a result's columns, and its rows as text.
pub type Answer = (Vec<String>, Vec<Vec<Option<String>>>);

/// Runs a query over the table; returns the names of the result's columns, and its rows as text.
///
/// # Errors
/// [`Kind::Usage`] with what the engine says of the query.
pub fn query(sheet: &MetadataTable, sql: &str) -> anyhow::Result<Answer> {
    // Nothing is spilled: the table is small, and the query gets no file system.
    let (kind, limits) = (Kind::Usage, EngineLimits::modest(ResourceLimits::default()));
    let options = SessionOptions { folder: None, kind, limits, ctx: None };
    let session = Session::opened(DatabaseTarget::default(), &options)?;
    fill(&session, sheet)?;
    session.table(sql.trim().trim_end_matches(';')).map_err(|error| {
        let hint = format!("the columns: bkp list --sql \"DESCRIBE {}\"", sheet.name);
        Fault::new(Kind::Usage, format!("{error:#}")).hint(hint).into()
    })
}
