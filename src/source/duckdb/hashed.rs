//! What the hashes of a row are computed from.
//!
//! DuckDB's hash takes some values for the same that are not: an empty list and none, 0 and -1 where they
//! have 128 bits. So some columns go in twice, the second time as what tells these apart. Those of `-0.0` and
//! `0.0` are the same to DuckDB, whose storage may have the one where the other was; hashes of exports
//! before told them apart.

use super::delta::of_row;
use super::index::{Column, TableEntry};
use super::sql;

/// Hashes of values of many types, as text: equal where two engines hash alike.
pub(super) const PROBE: &str = "SELECT hash(hash(42::BIGINT, 'a longer text than fits inline', DATE '2020-02-29', 1.5::DECIMAL(9,2), TIMESTAMP '2020-01-01 00:00:01', NULL, true, '\\xAA'::BLOB, 170141183460469231731687303715884105727::HUGEINT, uuid '47183823-2574-4bfd-b411-99ed177d3e43', 1.5::DOUBLE, signbit('-0.0'::DOUBLE), 1.5::FLOAT)), hash([1.5, -0.0, NULL], {'a': INTERVAL '1 month -1 us'}, MAP {'k': 2.5::DOUBLE}, '0101'::BIT, 'b'::ENUM('a', 'b'), [1, 2]::INTEGER[2], union_value(i := 1)), CAST([1.5, -0.0, NULL] AS VARCHAR), CAST([0.1::DOUBLE, 'nan'::DOUBLE, 1e300] AS VARCHAR), CAST([0.1::FLOAT] AS VARCHAR), CAST({'a': INTERVAL '1 month -1 us', 'it''s': [NULL]} AS VARCHAR), CAST([TIMESTAMPTZ '2024-01-01 00:00:00+00', TIMESTAMPTZ '2024-07-01 12:00:00.000001+00'] AS VARCHAR), CAST('x' AS BLOB)::VARCHAR";

/// The text of a value: the same for every two that DuckDB does not tell apart.
fn exact_text(column: &Column, signs: bool) -> String {
    let text = format!("CAST({} AS VARCHAR)", of_row(&column.name));
    if signs || !sql::may_float(&column.data_type) {
        return text;
    }
    format!("regexp_replace({text}, '-(0\\.0|nan)\\b', '\\1', 'g')")
}

/// What tells every two values of a column apart; with `signs`, those of zero and of what is no number, too.
fn told_apart(column: &Column, signs: bool) -> String {
    let name = of_row(&column.name);
    match sql::hashes(&column.data_type) {
        sql::Hashes::Float if signs => format!("{name}, signbit({name})"),
        sql::Hashes::Narrow | sql::Hashes::Wide | sql::Hashes::State | sql::Hashes::Float => name,
        sql::Hashes::Folded | sql::Hashes::Loosely => {
            format!("{name}, {}", exact_text(column, signs))
        }
    }
}

/// The same by other hashes: two long values whose hash is the same in [`told_apart`] differ here.
fn told_apart_otherwise(column: &Column, signs: bool) -> String {
    let name = of_row(&column.name);
    match sql::hashes(&column.data_type) {
        sql::Hashes::Float if signs => format!("signbit({name}), {name}"),
        // No two of them have the same hash.
        sql::Hashes::Narrow | sql::Hashes::State | sql::Hashes::Float => name,
        sql::Hashes::Wide => format!("'bkp' || CAST({name} AS VARCHAR)"),
        sql::Hashes::Folded | sql::Hashes::Loosely => {
            format!("'bkp' || {}, {name}", exact_text(column, signs))
        }
    }
}

/// Two hashes of a key with these values, of these types, of which no two keys share both, but for
/// chance; nothing if equal values of one of the types may look different.
pub(super) fn key_hashes(values: &[(String, &str)]) -> Option<(String, String)> {
    let other = |(value, data_type): &(String, &str)| match sql::hashes(data_type) {
        sql::Hashes::Narrow => Some(value.clone()),
        sql::Hashes::Wide | sql::Hashes::Folded => {
            Some(format!("'bkp' || CAST({value} AS VARCHAR)"))
        }
        sql::Hashes::Float | sql::Hashes::Loosely | sql::Hashes::State => None,
    };
    let others = values.iter().rev().map(other).collect::<Option<Vec<_>>>()?;
    let (first, count) = (values.iter().map(|(value, _)| value.as_str()), values.len());
    let first = format!("hash({})", first.collect::<Vec<_>>().join(", "));
    // That of one narrow value is enough.
    let is_narrow =
        |(_, data_type): &(String, &str)| matches!(sql::hashes(data_type), sql::Hashes::Narrow);
    if count == 1 && values.iter().all(is_narrow) {
        return Some((first, "0::UBIGINT".to_owned()));
    }
    Some((first, format!("hash(hash({}, {count}))", others.join(", "))))
}

/// The hash of a row, of 64 bits.
pub(super) fn hash(table: &TableEntry) -> String {
    let columns: Vec<String> =
        table.columns.iter().map(|column| told_apart(column, table.signs)).collect();
    format!("hash(hash({}))", columns.join(", "))
}

/// A second one that shares no hash of a long value with the first.
pub(super) fn second_hash(table: &TableEntry) -> String {
    let columns = table.columns.iter().rev();
    let columns: Vec<String> =
        columns.map(|column| told_apart_otherwise(column, table.signs)).collect();
    format!("hash(hash({}, {}))", columns.join(", "), columns.len())
}
