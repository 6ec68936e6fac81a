//! The input of row hashes, and the functions that compute them.
//!
//! Rows are hashed by [`crate::source::duckdb::engine::row_hash`]. Values of nested and rare types go in twice: as their text, and as
//! DuckDB's own hash of them, which tells apart most values that share a text. DuckDB's storage may have a zero of the
//! other sign where there was one, so that both are the same here: signs are left out of a text with numbers, and
//! where it has other texts in it, those go in once more, exactly. A place goes in as its bytes.
//!
//! Exports up to schema 2 have DuckDB's own hashes of whole rows: [`engine`].

use crate::source::duckdb::engine::row_hash::FUNCTIONS;
use crate::source::duckdb::export::index::{Column, TableEntry};
use crate::source::duckdb::schema::sql;
use crate::source::duckdb::schema::sql::of_row;

/// What an engine makes of values of many types: equal where two make the same texts and hashes of them.
pub(crate) const PROBE: &str = "SELECT hash(hash(42::BIGINT, 'a longer text than fits inline', DATE '2020-02-29', 1.5::DECIMAL(9,2), TIMESTAMP '2020-01-01 00:00:01', NULL, true, '\\xAA'::BLOB, 170141183460469231731687303715884105727::HUGEINT, uuid '47183823-2574-4bfd-b411-99ed177d3e43', 1.5::DOUBLE, signbit('-0.0'::DOUBLE), 1.5::FLOAT)), hash([1.5, -0.0, NULL], {'a': INTERVAL '1 month -1 us'}, MAP {'k': 2.5::DOUBLE}, '0101'::BIT, 'b'::ENUM('a', 'b'), [1, 2]::INTEGER[2], union_value(i := 1)), CAST([1.5, -0.0, NULL] AS VARCHAR), CAST([0.1::DOUBLE, 'nan'::DOUBLE, 1e300] AS VARCHAR), CAST([0.1::FLOAT] AS VARCHAR), CAST({'a': INTERVAL '1 month -1 us', 'it''s': [NULL]} AS VARCHAR), CAST([TIMESTAMPTZ '2024-01-01 00:00:00+00', TIMESTAMPTZ '2024-07-01 12:00:00.000001+00'] AS VARCHAR), CAST('x' AS BLOB)::VARCHAR";

/// The text of a value: the same for every two that DuckDB does not tell apart.
fn exact_text(column: &Column) -> String {
    let text = format!("CAST({} AS VARCHAR)", of_row(&column.name));
    if !sql::may_float(&column.data_type) {
        return text;
    }
    format!("regexp_replace({text}, '-(0\\.0|nan)\\b', '\\1', 'g')")
}

/// A call of one of the [`FUNCTIONS`]: their full name is that of no macro.
fn call(function: &str, values: &[String]) -> String {
    format!("system.main.{function}({})", values.join(", "))
}

/// What tells every two values of a column apart.
fn distinct_value(column: &Column) -> String {
    let name = of_row(&column.name);
    match sql::hashes(&column.data_type) {
        sql::HashQuality::Narrow
        | sql::HashQuality::Wide
        | sql::HashQuality::Folded
        | sql::HashQuality::Float => name,
        sql::HashQuality::State => format!("hash({name})"),
        sql::HashQuality::Loosely if sql::is_place(&column.data_type) => {
            format!("system.main.ST_AsWKB({name})")
        }
        sql::HashQuality::Loosely => {
            let texts = sql::without_floats(&column.data_type);
            let texts = texts.map(|to| format!(", CAST(CAST({name} AS {to}) AS VARCHAR)"));
            format!("hash({name}), {}{}", exact_text(column), texts.unwrap_or_default())
        }
    }
}

/// Two hashes of a key with these values, of these types, of which no two keys share both, but for
/// chance; nothing if equal values of one of the types may look different.
pub(crate) fn key_hashes(
    table: &TableEntry,
    values: &[(String, &str)],
) -> Option<(String, String)> {
    if !table.keyed_hashes {
        return None;
    }
    let kinds = values.iter().map(|(_, data_type)| sql::hashes(data_type)).collect::<Vec<_>>();
    if let ([sql::HashQuality::Narrow], [(value, _)]) = (&*kinds, values) {
        // No two of them have the same one, of DuckDB's own.
        return Some((format!("hash({value})"), "0::UBIGINT".to_owned()));
    }
    let is_exact = |kind| {
        matches!(
            kind,
            &sql::HashQuality::Narrow | &sql::HashQuality::Wide | &sql::HashQuality::Folded
        )
    };
    let values = values.iter().map(|(value, _)| value.clone()).collect::<Vec<_>>();
    let [first, second] = FUNCTIONS.map(|function| call(function, &values));
    kinds.iter().all(is_exact).then_some((first, second))
}

/// The hash of a row, of 64 bits.
pub(crate) fn hash(table: &TableEntry) -> String {
    let [first, _] = FUNCTIONS;
    if table.keyed_hashes { row(first, table) } else { engine::hash(table) }
}

/// A second one, which is equal to the first by chance only.
pub(crate) fn second_hash(table: &TableEntry) -> String {
    let [_, second] = FUNCTIONS;
    if table.keyed_hashes { row(second, table) } else { engine::second_hash(table) }
}

fn row(function: &str, table: &TableEntry) -> String {
    call(function, &table.columns.iter().map(distinct_value).collect::<Vec<_>>())
}

/// The hashes of exports up to schema 2. DuckDB's own takes some values for the same that are not: an
/// empty list and none, 0 and -1 where they have 128 bits. So some columns go in twice, the second time as what
/// tells these apart. Signs of zeros, and of what is no number, count.
mod engine {
    use crate::source::duckdb::export::index::{Column, TableEntry};
    use crate::source::duckdb::schema::sql;
    use crate::source::duckdb::schema::sql::of_row;

    fn distinct_value(column: &Column) -> String {
        let name = of_row(&column.name);
        match sql::hashes(&column.data_type) {
            sql::HashQuality::Float => format!("{name}, signbit({name})"),
            sql::HashQuality::Narrow | sql::HashQuality::Wide | sql::HashQuality::State => name,
            sql::HashQuality::Folded | sql::HashQuality::Loosely => {
                format!("{name}, CAST({name} AS VARCHAR)")
            }
        }
    }

    /// The same by other hashes: two long values whose hash is the same in [`distinct_value`] differ here.
    fn second_distinct_value(column: &Column) -> String {
        let name = of_row(&column.name);
        match sql::hashes(&column.data_type) {
            sql::HashQuality::Float => format!("signbit({name}), {name}"),
            // No two of them have the same hash.
            sql::HashQuality::Narrow | sql::HashQuality::State => name,
            sql::HashQuality::Wide => format!("'bkp' || CAST({name} AS VARCHAR)"),
            sql::HashQuality::Folded | sql::HashQuality::Loosely => {
                format!("'bkp' || CAST({name} AS VARCHAR), {name}")
            }
        }
    }

    pub(crate) fn hash(table: &TableEntry) -> String {
        let columns = table.columns.iter().map(distinct_value).collect::<Vec<_>>();
        format!("hash(hash({}))", columns.join(", "))
    }

    pub(crate) fn second_hash(table: &TableEntry) -> String {
        let columns = table.columns.iter().rev().map(second_distinct_value).collect::<Vec<_>>();
        format!("hash(hash({}, {}))", columns.join(", "), columns.len())
    }
}
