//! The row count and hash of a table's content.

use super::index::{Content, TableEntry};
use super::{delta, hashed};
use crate::source::duckdb::engine::{Session, TextRow};

/// What an engine makes of [`hashed::PROBE`].
pub(crate) fn probe(session: &Session) -> anyhow::Result<String> {
    let rows = session.rows(hashed::PROBE)?;
    Ok(rows.into_iter().flatten().map(Option::unwrap_or_default).collect::<Vec<_>>().join(" "))
}

/// The content of the table `from` that looks like `table`.
pub(crate) fn content(
    session: &Session,
    table: &TableEntry,
    from: &str,
) -> anyhow::Result<Content> {
    content_of(session, &delta::content(table, from))
}

/// The content that a query gives: rows, sum and exclusive or.
pub(crate) fn content_of(session: &Session, query: &str) -> anyhow::Result<Content> {
    let rows = session.rows(query)?;
    let text = |at: usize| rows.first().and_then(|row: &TextRow| row.get(at)?.as_deref());
    let content = || {
        let (rows, sum) = (text(0)?.parse().ok()?, text(1)?.parse().ok()?);
        Some(Content { rows, sum, xor: text(2)?.parse().ok()? })
    };
    content().ok_or_else(|| {
        anyhow::anyhow!("DuckDB {} counts rows in an unknown way", crate::version::duckdb())
    })
}
