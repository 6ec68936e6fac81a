//! What is left of the rows of a link of a chain: those that no later link changes.

use std::ops::Range;

use crate::source::duckdb::export::delta;
use crate::source::duckdb::export::index::{Column, TableEntry};
use crate::source::duckdb::schema::sql::{ROW, of_row};

/// The rows of a Parquet file of which none of the `later` relations with changes speaks: what is gone or
/// has another content then.
pub(crate) fn rows(table: &TableEntry, file: &str, later: &[String]) -> String {
    let rows = format!("SELECT {ROW}.* FROM read_parquet({file}) AS {ROW}");
    if later.is_empty() {
        return rows;
    }
    let (keys, same) = changed_later(table, later);
    format!("{rows} ANTI JOIN ({keys}) AS bkp_key ON {same}")
}

/// Notes, as bits of a variable of the session, which rows in this part of a Parquet file the `later` relations with
/// changes speak of. The part is of fewer rows than a billion.
pub(crate) fn note_changed(
    table: &TableEntry,
    file: &str,
    later: &[String],
    part: &Range<u64>,
) -> String {
    let (keys, same) = changed_later(table, later);
    let (start, end) = (part.start, part.end);
    let last = end - start - 1;
    format!(
        "SET VARIABLE bkp_changed = (SELECT bitstring_agg(CAST({ROW}.file_row_number - {start} AS INTEGER), 0, {last}) FROM read_parquet({file}) AS {ROW} SEMI JOIN ({keys}) AS bkp_key ON {same} WHERE {ROW}.file_row_number >= {start} AND {ROW}.file_row_number < {end})"
    )
}

/// The other rows of that part.
pub(crate) fn rows_not_noted(file: &str, part: &Range<u64>) -> String {
    let (start, end) = (part.start, part.end);
    format!(
        "SELECT {ROW}.* FROM read_parquet({file}) AS {ROW} WHERE {ROW}.file_row_number >= {start} AND {ROW}.file_row_number < {end} AND coalesce(get_bit(getvariable('bkp_changed'), CAST({ROW}.file_row_number - {start} AS INTEGER)), 0) = 0"
    )
}

/// The keys that these relations with changes speak of, and when a row of a Parquet file has one of them.
fn changed_later(table: &TableEntry, later: &[String]) -> (String, String) {
    let typed = delta::typed_keys(table);
    let keys = later.iter().map(|changes| format!("SELECT {typed} FROM {changes}"));
    let same = |(number, column): (usize, &Column)| {
        format!("CAST({} AS {}) = bkp_key.bkp_k{number}", of_row(&column.name), column.data_type)
    };
    let same = delta::key_columns(table).map(same).collect::<Vec<_>>();
    (keys.collect::<Vec<_>>().join(" UNION ALL "), same.join(" AND "))
}
