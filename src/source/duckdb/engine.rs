//! The linked DuckDB, opened on files of ours only: never on a file that another process may have
//! open.

use std::path::Path;

use duckdb::{AccessMode, Config, Connection};

use super::format::Headers;
use crate::error::{Fault, Kind};

/// What DuckDB may take of memory; it spills to the folder of the file beyond that.
const MEMORY: &str = "512MB";

/// What was found in a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Table {
    /// Schema and name, quoted.
    pub(super) name: String,
    pub(super) rows: u64,
}

/// Why the linked engine cannot open a file with these headers; `None` if it can.
pub(super) fn cannot_read(headers: &Headers) -> Option<String> {
    let Some(version) = headers.storage_version() else {
        return Some("it is encrypted".into());
    };
    let engine = crate::version::duckdb();
    let mut numbers = engine.split('.').map(|part| part.parse::<u32>().unwrap_or_default());
    let linked = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
    let mut numbers = version.trim_start_matches('v').split('.').map(str::parse::<u32>);
    let wanted = numbers.next().zip(numbers.next());
    let wanted = wanted.and_then(|(major, minor)| Some((major.ok()?, minor.ok()?)))?;
    (wanted > linked).then(|| {
        format!("its storage version is {version}, and bkp links DuckDB {engine}, which reads up to its own")
    })
}

/// Opens a file of ours.
fn open(path: &Path, mode: AccessMode) -> anyhow::Result<Connection> {
    let opened = Config::default()
        .access_mode(mode)
        .and_then(|config| config.enable_autoload_extension(false))
        .and_then(|config| config.with("memory_limit", MEMORY))
        .and_then(|config| Connection::open_with_flags(path, config))
        .and_then(|connection| {
            connection.execute_batch("SET lock_configuration = true")?;
            Ok(connection)
        });
    opened.map_err(|error| refused(path, "open", &error))
}

fn refused(path: &Path, what: &str, error: &duckdb::Error) -> anyhow::Error {
    let engine = crate::version::duckdb();
    let message = format!("DuckDB {engine} cannot {what} {}: {error}", path.display());
    Fault::new(Kind::Integrity, message).into()
}

/// Lets the engine put the log into the file, which then stands alone.
///
/// # Errors
/// [`Kind::Integrity`] with what the engine says.
pub(super) fn settle(path: &Path) -> anyhow::Result<()> {
    let connection = open(path, AccessMode::ReadWrite)?;
    connection.execute_batch("CHECKPOINT").map_err(|error| refused(path, "checkpoint", &error))?;
    connection.close().map_err(|(_, error)| refused(path, "close", &error))
}

/// Opens the file and counts its tables; with `read`, reads every value of every table.
///
/// # Errors
/// As [`settle`].
pub(super) fn inspect(path: &Path, read: bool) -> anyhow::Result<Vec<Table>> {
    const TABLES: &str = "SELECT '\"' || replace(schema_name, '\"', '\"\"') || '\".\"' || replace(table_name, '\"', '\"\"') || '\"', coalesce(estimated_size, 0)::UBIGINT FROM duckdb_tables() WHERE NOT internal AND NOT temporary ORDER BY 1";
    let connection = open(path, AccessMode::ReadOnly)?;
    let failed = |what: &str, error| refused(path, what, &error);
    let mut statement =
        connection.prepare(TABLES).map_err(|error| failed("list the tables of", error))?;
    let rows = statement.query_map([], |row| Ok(Table { name: row.get(0)?, rows: row.get(1)? }));
    let tables = rows.and_then(Iterator::collect::<duckdb::Result<Vec<Table>>>);
    let mut tables = tables.map_err(|error| failed("list the tables of", error))?;
    for table in tables.iter_mut().filter(|_| read) {
        // Hashing reads every column; counting alone would read none.
        let sql = format!(
            "SELECT count(*)::UBIGINT, bit_xor(hash(*COLUMNS(*)))::VARCHAR FROM {}",
            table.name
        );
        let counted = connection.query_row(&sql, [], |row| row.get(0));
        table.rows =
            counted.map_err(|error| failed(&format!("read table {} of", table.name), error))?;
    }
    Ok(tables)
}
