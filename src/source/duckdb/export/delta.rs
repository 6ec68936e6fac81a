//! What changed in a table since an earlier export, and applying it: the SQL of both ways.
//!
//! A table with a primary key is compared by key and row hash; one without is a multiset of rows, each
//! known by two hashes of it. Both are computed from the rows of the last full export, and travel with
//! every increment for what changed in it:
//!
//! ```text
//! with a key:  bkp_k0, bkp_k1, …, bkp_h, bkp_live    the row with this key has this hash, or is gone
//! without:     bkp_h1, bkp_h2, bkp_n                 so many more rows of this content, or fewer
//! ```
//!
//! What stands for a whole table is a sum of the rows' hashes and an exclusive or of them, or of the second
//! hashes where there are some.

use std::ops::Range;

use crate::source::duckdb::engine::groups::GROUP_ROWS;
use crate::source::duckdb::engine::row_hash::FUNCTIONS;
use crate::source::duckdb::engine::tally;
use crate::source::duckdb::export::hashed;
use crate::source::duckdb::export::hashed::{hash, second_hash};
use crate::source::duckdb::export::index::{Column, TableEntry};
use crate::source::duckdb::schema::sql::{self, ROW, of_row};

/// A value of a column as keys compare it: texts by their bytes. `=` takes some for equal where the column
/// has a collation, and queries hand that on; in a primary key they are two.
fn exact(value: &str, data_type: &str) -> String {
    // No other type has collations.
    if data_type == "VARCHAR" { format!("({value} COLLATE \"C\")") } else { value.to_owned() }
}

/// A column of [`ROW`], of the table's key, to be compared.
fn exact_of_row(column: &Column) -> String {
    exact(&of_row(&column.name), &column.data_type)
}

/// A column as it goes into Parquet.
fn parquet_value(column: &Column) -> String {
    let name = of_row(&column.name);
    match sql::parquet_type(&column.data_type) {
        None => name,
        Some(data_type) => format!("CAST({name} AS {data_type})"),
    }
}

/// The columns of a table as they go into Parquet.
fn parquet_columns(table: &TableEntry) -> String {
    let column =
        |column: &Column| format!("{} AS {}", parquet_value(column), sql::name(&column.name));
    table.columns.iter().map(column).collect::<Vec<_>>().join(", ")
}

/// All rows, as they go into Parquet.
pub(crate) fn rows(table: &TableEntry, from: &str) -> String {
    format!("SELECT {} FROM {from} AS {ROW}", parquet_columns(table))
}

/// The second hash of a row, which stands for it in sums beside the first, if that does not do so itself.
fn other_hash(table: &TableEntry) -> Option<String> {
    (!is_keyed(table)).then(|| second_hash(table))
}

/// The number of a row's group.
pub(crate) fn group(table: &TableEntry) -> String {
    if !table.has_rowid() {
        return "0::UBIGINT".to_owned();
    }
    format!("CAST({ROW}.rowid // {GROUP_ROWS} AS UBIGINT)")
}

/// Notes what groups of the rows add up to: see [`crate::source::duckdb::engine::tally`]. True for every row.
fn tallied(table: &TableEntry) -> String {
    let (group, hash) = (group(table), hash(table));
    match other_hash(table) {
        None => format!("system.main.{}({group}, {hash})", tally::ONE_HASH),
        Some(other) => format!("system.main.{}({group}, {hash}, {other})", tally::TWO_HASHES),
    }
}

/// All rows as they go into Parquet, which are noted on the way.
pub(crate) fn tallied_rows(table: &TableEntry, from: &str) -> String {
    format!("{} WHERE {}", rows(table, from), tallied(table))
}

/// How many rows there are, which are noted.
pub(crate) fn tallied_count(table: &TableEntry, from: &str) -> String {
    format!("SELECT count(*) FROM {from} AS {ROW} WHERE {}", tallied(table))
}

/// How many rows there are in these ranges of their numbers, whose numbers are noted in place of what they hold.
pub(crate) fn tallied_numbers(table: &TableEntry, ranges: &[Range<u64>]) -> String {
    let numbers = format!("SELECT {ROW}.rowid FROM {} AS {ROW}", table.here());
    let numbers = parts(&numbers, "rowid", Some(ranges));
    let place = format!("{ROW}.rowid % {GROUP_ROWS}");
    let [hash, other] = FUNCTIONS.map(|function| format!("system.main.{function}({place})"));
    let (tally, group) = (tally::TWO_HASHES, group(table));
    format!(
        "SELECT count(*) FROM {numbers} AS {ROW} WHERE system.main.{tally}({group}, {hash}, {other})"
    )
}

/// Rows, sum and exclusive or of their hashes.
pub(crate) fn content(table: &TableEntry, from: &str) -> String {
    let (hash, mixed) = (hash(table), mixed(table, "bkp_o"));
    let other = other_hash(table).unwrap_or_else(|| hash.clone());
    format!(
        "SELECT count(*), coalesce(sum(bkp_h), 0), coalesce(bit_xor({mixed}), 0) FROM (SELECT {hash} AS bkp_h, {other} AS bkp_o FROM {from} AS {ROW})"
    )
}

/// The content of a table whose keys and hashes `state` gives. Where fewer than no rows have some content,
/// it is that of no table.
pub(crate) fn content_of_state(table: &TableEntry, state: &str) -> String {
    if is_keyed(table) {
        let mixed = mixed(table, "bkp_h");
        return format!(
            "SELECT count(*), coalesce(sum(bkp_h), 0), coalesce(bit_xor({mixed}), 0) FROM ({state})"
        );
    }
    let mixed = mixed(table, "bkp_h2");
    format!(
        "SELECT coalesce(sum(abs(bkp_n)), 0), coalesce(sum(bkp_h1::HUGEINT * abs(bkp_n)), 0), coalesce(bit_xor({mixed}) FILTER (bkp_n % 2 <> 0), 0) FROM ({state})"
    )
}

/// The keys and hashes of the rows that came with the changes in a Parquet file.
pub(crate) fn arrivals(table: &TableEntry, changes: &str) -> String {
    let came = if is_keyed(table) { "bkp_live" } else { "bkp_n > 0" };
    format!("FROM read_parquet({}) WHERE {came}", sql::text(changes))
}

/// A hash of a row as it goes into the exclusive or: one without a key is hashed once more, since it comes
/// from the hashes of columns by an exclusive or itself.
fn mixed(table: &TableEntry, hash: &str) -> String {
    if table.keyed_hashes { hash.to_owned() } else { format!("hash({hash})") }
}

/// The columns of the key.
fn key(table: &TableEntry) -> Vec<&Column> {
    let key = table.key.iter().flatten();
    key.filter_map(|name| table.columns.iter().find(|column| column.name == *name)).collect()
}

/// Whether rows are told apart by a key.
pub(crate) fn is_keyed(table: &TableEntry) -> bool {
    table.key.as_ref().is_some_and(|names| !names.is_empty() && key(table).len() == names.len())
}

/// Whether changes of the table can be told row by row.
pub(crate) fn is_divisible(table: &TableEntry) -> bool {
    !table.whole && (is_keyed(table) || table.has_rowid())
}

/// The rows of a table in these ranges of their numbers, with the numbers; all of them if there are none.
pub(crate) fn part(table: &TableEntry, ranges: Option<&[Range<u64>]>) -> String {
    let here = table.here();
    if ranges.is_none() {
        return here;
    }
    let columns = table.columns.iter().map(|column| of_row(&column.name));
    let columns = columns.collect::<Vec<_>>().join(", ");
    parts(&format!("SELECT {ROW}.rowid, {columns} FROM {here} AS {ROW}"), "rowid", ranges)
}

/// The rows of the Parquet file of a full export as the table has them; of some places only, or of all.
pub(crate) fn rows_again(table: &TableEntry, file: &str, places: Option<&[Range<u64>]>) -> String {
    let typed = |column: &Column| {
        let (value, name) = (of_row(&column.name), sql::name(&column.name));
        format!("CAST({value} AS {}) AS {name}", column.data_type)
    };
    let typed = table.columns.iter().map(typed).collect::<Vec<_>>().join(", ");
    let rows = format!("SELECT {typed} FROM read_parquet({}) AS {ROW}", sql::text(file));
    parts(&rows, "file_row_number", places)
}

/// A relation with the rows of a query in these ranges of a number of [`ROW`], in their order; with all rows
/// if there are none.
fn parts(query: &str, number: &str, ranges: Option<&[Range<u64>]>) -> String {
    let part = |rows: &Range<u64>| {
        let (start, end) = (rows.start, rows.end);
        format!("{query} WHERE {ROW}.{number} >= {start} AND {ROW}.{number} < {end}")
    };
    match ranges {
        None => format!("({query})"),
        Some([]) => format!("({query} WHERE false)"),
        Some(ranges) => {
            format!("({})", ranges.iter().map(part).collect::<Vec<_>>().join(" UNION ALL "))
        }
    }
}

/// Where the rows of a table at the last export are: those of a full export, as a relation with the table's
/// columns, and files with keys and hashes of what changed since, oldest first.
#[derive(Debug)]
pub(crate) struct ExportedRows {
    pub(crate) base: String,
    pub(crate) later: Vec<String>,
}

fn key_names(table: &TableEntry) -> String {
    let names = (0..key(table).len()).map(|index| format!("bkp_k{index}"));
    names.collect::<Vec<_>>().join(", ")
}

/// Keys and hashes of all rows.
pub(crate) fn state(table: &TableEntry, from: &str) -> String {
    let hash = hash(table);
    if is_keyed(table) {
        let keys = key_columns(table);
        let keys =
            keys.map(|(number, column)| format!("{} AS bkp_k{number}", parquet_value(column)));
        let keys = keys.collect::<Vec<_>>().join(", ");
        return format!("SELECT {keys}, {hash} AS bkp_h, true AS bkp_live FROM {from} AS {ROW}");
    }
    let second = second_hash(table);
    format!(
        "SELECT bkp_h1, bkp_h2, count(*) AS bkp_n FROM (SELECT {hash} AS bkp_h1, {second} AS bkp_h2 FROM {from} AS {ROW}) GROUP BY ALL"
    )
}

/// Keys and hashes of the rows that a state adds up to.
pub(crate) fn state_of(table: &TableEntry, before: &ExportedRows) -> String {
    let base = state(table, &before.base);
    if before.later.is_empty() {
        return base;
    }
    let first = format!("SELECT *, 0 AS bkp_order FROM ({base})");
    let later = before.later.iter().zip(1_u32..).map(|(path, order)| {
        format!("SELECT *, {order} AS bkp_order FROM read_parquet({})", sql::text(path))
    });
    let all = std::iter::once(first).chain(later).collect::<Vec<_>>().join(" UNION ALL ");
    if is_keyed(table) {
        let key = key_names(table);
        return format!(
            "SELECT {key}, arg_max(bkp_h, bkp_order) AS bkp_h FROM ({all}) GROUP BY {key} HAVING arg_max(bkp_live, bkp_order)"
        );
    }
    format!(
        "SELECT bkp_h1, bkp_h2, sum(bkp_n)::BIGINT AS bkp_n FROM ({all}) GROUP BY bkp_h1, bkp_h2 HAVING sum(bkp_n) <> 0"
    )
}

/// What changed in the table `from` since the state that the query `before` gives. Keys are as the table
/// has them.
pub(crate) fn changes(table: &TableEntry, before: &str, from: &str) -> String {
    if is_keyed(table) {
        let (key, typed) = (key_names(table), typed_keys(table));
        let names = key_columns(table)
            .map(|(number, column)| format!("{} AS bkp_k{number}", exact_of_row(column)));
        let (names, hash) = (names.collect::<Vec<_>>().join(", "), hash(table));
        return format!(
            "SELECT {key}, now.bkp_h AS bkp_h, now.bkp_h IS NOT NULL AS bkp_live FROM (SELECT {typed}, bkp_h FROM ({before})) AS old FULL JOIN (SELECT {names}, {hash} AS bkp_h FROM {from} AS {ROW}) AS now USING ({key}) WHERE old.bkp_h IS DISTINCT FROM now.bkp_h"
        );
    }
    let now = state(table, from);
    format!(
        "SELECT bkp_h1, bkp_h2, coalesce(now.bkp_n, 0) - coalesce(old.bkp_n, 0) AS bkp_n FROM ({before}) AS old FULL JOIN ({now}) AS now USING (bkp_h1, bkp_h2) WHERE old.bkp_n IS DISTINCT FROM now.bkp_n"
    )
}

/// Temporary tables of one session with what [`crate::source::duckdb::engine::diff`] found: rows by their `rowid`, and keys by their hashes.
pub(crate) const FOUND_ROWS: &str = "bkp_rows";
pub(crate) const FOUND_GONE: &str = "bkp_gone";

/// Of every row two hashes of its key, the hash of the row, and a number: of a state 1 if there is such a row
/// and 0 if it is gone, of the table `from`, which comes last, the place. Nothing for a table of which that
/// cannot be told.
pub(crate) fn sequences(
    table: &TableEntry,
    before: &ExportedRows,
    from: &str,
) -> Option<Vec<String>> {
    if !is_keyed(table) || !table.has_rowid() {
        return None;
    }
    let key = key(table).into_iter().map(|column| (of_row(&column.name), &*column.data_type));
    let (key, other) = hashed::key_hashes(table, &key.collect::<Vec<_>>())?;
    let (old_key, old_other) = hashed::key_hashes(table, &old_key(table))?;
    let (typed, hash) = (typed_keys(table), hash(table));
    let base = format!("SELECT {key}, {other}, {hash}, 1::UBIGINT FROM {} AS {ROW}", before.base);
    let later = before.later.iter().map(|path| {
        let file = sql::text(path);
        format!(
            "SELECT {old_key}, {old_other}, coalesce(bkp_h, 0), CAST(bkp_live AS UBIGINT) FROM (SELECT {typed}, bkp_h, bkp_live FROM read_parquet({file}))"
        )
    });
    let now =
        format!("SELECT {key}, {other}, {hash}, CAST({ROW}.rowid AS UBIGINT) FROM {from} AS {ROW}");
    Some(std::iter::once(base).chain(later).chain([now]).collect())
}

/// As [`changes`], of what was found. A key that is gone comes up somewhere in the state.
pub(crate) fn changes_found(
    table: &TableEntry,
    before: &ExportedRows,
    from: &str,
) -> Option<String> {
    let exact = key_columns(table)
        .map(|(number, column)| format!("{} AS bkp_k{number}", exact_of_row(column)));
    let (exact, hash) = (exact.collect::<Vec<_>>().join(", "), hash(table));
    let (old_key, old_other) = hashed::key_hashes(table, &old_key(table))?;
    let (key, typed) = (key_names(table), typed_keys(table));
    let base = key_columns(table)
        .map(|(number, column)| format!("{} AS bkp_k{number}", of_row(&column.name)));
    let base = base.collect::<Vec<_>>().join(", ");
    let base = format!("SELECT {base} FROM {} AS {ROW}", before.base);
    let later = before.later.iter();
    let later = later.map(|path| format!("SELECT {typed} FROM read_parquet({})", sql::text(path)));
    let old = std::iter::once(base).chain(later).collect::<Vec<_>>().join(" UNION ALL ");
    Some(format!(
        "SELECT {exact}, {hash} AS bkp_h, true AS bkp_live FROM {from} AS {ROW} WHERE {ROW}.rowid IN (FROM temp.main.{FOUND_ROWS}) UNION ALL SELECT DISTINCT {key}, NULL::UBIGINT, false FROM ({old}) WHERE ({old_key}, {old_other}) IN (FROM temp.main.{FOUND_GONE})"
    ))
}

/// The key as keys and hashes have it, with its types.
fn old_key(table: &TableEntry) -> Vec<(String, &str)> {
    let named = key_columns(table).map(|(number, column)| (format!("bkp_k{number}"), column));
    named.map(|(name, column)| (name, column.data_type.as_str())).collect()
}

/// As [`upserts`], of what was found.
pub(crate) fn upserts_found(table: &TableEntry, from: &str) -> String {
    format!("{} WHERE {ROW}.rowid IN (FROM temp.main.{FOUND_ROWS})", rows(table, from))
}

/// The changes as they go into Parquet.
pub(crate) fn parquet_changes(table: &TableEntry, changes: &str) -> String {
    if !is_keyed(table) {
        return format!("FROM {changes}");
    }
    let parquet_value =
        |(number, column): (usize, &Column)| match sql::parquet_type(&column.data_type) {
            None => format!("bkp_k{number}"),
            Some(data_type) => format!("CAST(bkp_k{number} AS {data_type}) AS bkp_k{number}"),
        };
    let keys = key_columns(table).map(parquet_value).collect::<Vec<_>>().join(", ");
    format!("SELECT {keys}, bkp_h, bkp_live FROM {changes}")
}

/// How many rows more `changes` of a table without a key says there are, and what their hashes add up to.
pub(crate) fn sums_of_changes(changes: &str) -> String {
    format!(
        "SELECT coalesce(sum(bkp_n), 0), coalesce(sum(bkp_h1::HUGEINT * bkp_n), 0) FROM {changes}"
    )
}

/// The columns of the key, each with its number.
pub(super) fn key_columns(table: &TableEntry) -> impl Iterator<Item = (usize, &Column)> {
    key(table).into_iter().enumerate()
}

/// The keys of a state that comes from Parquet, as the table has them.
pub(crate) fn keys(table: &TableEntry, state: &str) -> String {
    format!("SELECT {} FROM {state}", typed_keys(table))
}

/// Keys that come from Parquet, as the table has them.
pub(super) fn typed_keys(table: &TableEntry) -> String {
    let typed = |(number, column): (usize, &Column)| {
        format!("CAST(bkp_k{number} AS {}) AS bkp_k{number}", column.data_type)
    };
    key_columns(table).map(typed).collect::<Vec<_>>().join(", ")
}

/// Which rows of `from` the relation `changes` speaks of: as many of a content as were added (`sign`
/// 1) or removed (`sign` -1).
fn rows_of(table: &TableEntry, changes: &str, from: &str, sign: i8) -> String {
    let (h1, h2) = (hash(table), second_hash(table));
    format!(
        "SELECT bkp_r FROM (SELECT r.bkp_r, c.bkp_n, row_number() OVER (PARTITION BY r.bkp_h1, r.bkp_h2) AS bkp_i FROM (SELECT {ROW}.rowid AS bkp_r, {h1} AS bkp_h1, {h2} AS bkp_h2 FROM {from} AS {ROW}) AS r JOIN {changes} AS c USING (bkp_h1, bkp_h2) WHERE c.bkp_n * {sign} > 0) WHERE bkp_i <= bkp_n * {sign}"
    )
}

/// The rows that are new or changed, as they go into Parquet.
pub(crate) fn upserts(table: &TableEntry, changes: &str, from: &str) -> String {
    let rows = rows(table, from);
    if !is_keyed(table) {
        let wanted = rows_of(table, changes, from, 1);
        return format!("{rows} WHERE {ROW}.rowid IN ({wanted})");
    }
    let same = |(number, column): (usize, &Column)| {
        format!("{} = bkp_key.bkp_k{number}", exact_of_row(column))
    };
    let same = key_columns(table).map(same).collect::<Vec<_>>().join(" AND ");
    format!("{rows} SEMI JOIN (FROM {changes} WHERE bkp_live) AS bkp_key ON {same}")
}

/// Removes from `stage`, the rows of a table without a key, as many of each content as `changes` (a
/// Parquet file) says.
pub(crate) fn removal(table: &TableEntry, changes: &str, stage: &str) -> String {
    let rows = rows_of(table, changes, stage, -1);
    format!("DELETE FROM {stage} WHERE rowid IN ({rows})")
}

/// Whether a table's own references keep it from being loaded at once, and if so the rows that can
/// go next: those that refer to nothing, to themselves, or to what is in `target` already.
pub(crate) fn loadable(table: &TableEntry, target: &str) -> Option<String> {
    let value = |relation: &str, name: &str| {
        let column = table.columns.iter().find(|column| column.name.eq_ignore_ascii_case(name));
        let data_type = column.map_or("", |column| &column.data_type);
        exact(&format!("{relation}.{}", sql::name(name)), data_type)
    };
    let rule = |(own, theirs): &(Vec<String>, Vec<String>)| {
        let pairs: Vec<(String, String)> =
            own.iter().cloned().zip(theirs.iter().cloned()).collect();
        let all = |term: &dyn Fn(&(String, String)) -> String, word: &str| {
            pairs.iter().map(term).collect::<Vec<_>>().join(word)
        };
        let mine = |name: &str| value(ROW, name);
        let empty = all(&|(own, _)| format!("{} IS NULL", mine(own)), " OR ");
        let itself = all(&|(own, theirs)| format!("{} = {}", mine(own), mine(theirs)), " AND ");
        let there = |(own, theirs): &(String, String)| {
            format!("{} = {}", value("bkp_there", theirs), mine(own))
        };
        let there = all(&there, " AND ");
        format!(
            "({empty} OR ({itself}) OR EXISTS (SELECT 1 FROM {target} AS bkp_there WHERE {there}))"
        )
    };
    let rules: Vec<String> = table.own.iter().map(rule).collect();
    (!rules.is_empty()).then(|| rules.join(" AND "))
}
