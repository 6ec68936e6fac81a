//! Checks that the rows of a table survive a round trip through Parquet before it is exported. Tables
//! that do not are stored in a separate database file: see [`crate::source::duckdb::export::native`].

use std::path::Path;

use crate::ctx::Ctx;
use crate::source::duckdb::engine::Session;
use crate::source::duckdb::export::content::content;
use crate::source::duckdb::export::delta;
use crate::source::duckdb::export::index::{Content, TableEntry};
use crate::source::duckdb::export::unchanged;
use crate::source::duckdb::schema::sql;

/// Rows from the beginning and from the end of a table that are tried where every value of its types is
/// known to come back: what is tried are schema and conversions.
const SAMPLE_ROWS: u64 = 4096;

/// The table of the session that takes what came back.
const CAME: &str = "temp.main.bkp_trial";

/// How a table goes through Parquet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RoundTrip {
    /// Its rows come back as they are.
    Passes,
    /// They do, but only into a table of their types: they cannot be compared where they are.
    Whole,
    /// They do not, and why.
    Fails(String),
}

/// Tries whether the rows of a table come back from Parquet as they are.
///
/// # Errors
/// That the run is to stop.
pub(crate) fn run(
    session: &Session,
    table: &TableEntry,
    scratch: &Path,
    ctx: &Ctx,
) -> anyhow::Result<RoundTrip> {
    let outcome = comes_back(session, table, scratch);
    ctx.cancel.check()?;
    Ok(outcome.unwrap_or_else(|error| RoundTrip::Fails(format!("{error:#}"))))
}

fn comes_back(session: &Session, table: &TableEntry, scratch: &Path) -> anyhow::Result<RoundTrip> {
    // A name for each: DuckDB keeps what it has read of one.
    let path = |what: &str| scratch.join(format!("{what}-{}.parquet", uuid::Uuid::now_v7()));
    let (rows, state) = (path("trial"), path("trial-state"));
    let here = table.here();
    let some = sample(session, table)?;
    let from = some.as_deref().unwrap_or(&here);
    session.save(&delta::rows(table, from), &rows)?;
    load(session, table, &rows)?;
    session.save(&delta::state(table, CAME), &state)?;
    if delta::is_keyed(table) {
        // An increment reads the keys again.
        let keys = format!("read_parquet({})", sql::text(&session.path(&state)));
        session.rows(&delta::keys(table, &keys))?;
    }
    let came = content(session, table, CAME)?;
    let is_same = came == content(session, table, from)?;
    let again = delta::rows_again(table, &session.path(&rows), None);
    let is_same_again = content(session, table, &again).is_ok_and(|again| again == came);
    session.run(&format!("DROP TABLE {CAME}"))?;
    std::fs::remove_file(&rows)?;
    std::fs::remove_file(&state)?;
    Ok(match (is_same, is_same_again) {
        (true, true) => RoundTrip::Passes,
        (true, false) => RoundTrip::Whole,
        (false, _) => RoundTrip::Fails("values come back as others".to_owned()),
    })
}

/// Puts the rows of a Parquet file into the table [`CAME`], which has the types of `table`.
fn load(session: &Session, table: &TableEntry, file: &Path) -> anyhow::Result<()> {
    let names: Vec<String> = table.columns.iter().map(|column| column.name.clone()).collect();
    let (here, names) = (table.here(), sql::names(&names));
    session.run(&format!(
        "CREATE OR REPLACE TEMP TABLE bkp_trial AS SELECT {names} FROM {here} LIMIT 0"
    ))?;
    let back = unchanged::rows(table, &sql::text(&session.path(file)), &[]);
    session.run(&format!("INSERT INTO {CAME} ({names}) {back}"))
}

/// What the rows of a Parquet file add up to when they are in a table of their types again.
pub(crate) fn content_once_loaded(
    session: &Session,
    table: &TableEntry,
    file: &Path,
) -> anyhow::Result<Content> {
    load(session, table, file)?;
    let found = content(session, table, CAME);
    session.run(&format!("DROP TABLE {CAME}"))?;
    found
}

/// Some rows of a table, where that is enough.
fn sample(session: &Session, table: &TableEntry) -> anyhow::Result<Option<String>> {
    let is_plain = table.columns.iter().all(|column| sql::is_plain(&column.data_type));
    if !is_plain || !table.has_rowid() {
        return Ok(None);
    }
    let here = table.here();
    // As many as there are, at least, have numbers: after deletions some are higher.
    let count = session.rows(&format!("SELECT count(*) FROM {here}"))?;
    let count = count.into_iter().flatten().flatten().next().unwrap_or_default();
    let count: u64 = count.parse().unwrap_or_default();
    let end = count.saturating_sub(SAMPLE_ROWS);
    let part = |rows: &str| format!("(FROM {here} WHERE {rows} LIMIT {SAMPLE_ROWS})");
    let first = part(&format!("rowid < {SAMPLE_ROWS}"));
    let last = part(&format!("rowid >= {}", end.max(SAMPLE_ROWS)));
    Ok(Some(format!("(FROM {first} UNION ALL FROM {last})")))
}
