//! What changed in a table since an earlier export, and applying it: the SQL of both ways.
//!
//! Of every export travel keys and hashes of the rows. A table with a primary key is compared by
//! key and row hash; one without is a multiset of rows, each known by two hashes of it.
//!
//! ```text
//! with a key:  bkp_k0, bkp_k1, …, bkp_h, bkp_live    the row with this key has this hash, or is gone
//! without:     bkp_h1, bkp_h2, bkp_n                 so many rows of this content, or so many more
//! ```

use super::index::{Column, TableEntry};
use super::sql;

/// A column as it goes into Parquet.
fn bent(column: &Column) -> String {
    let name = sql::name(&column.name);
    match sql::bent(&column.data_type) {
        None => name,
        Some(data_type) => format!("CAST({name} AS {data_type})"),
    }
}

/// The columns of a table as they go into Parquet.
pub(super) fn bent_columns(table: &TableEntry) -> String {
    let column = |column: &Column| format!("{} AS {}", bent(column), sql::name(&column.name));
    table.columns.iter().map(column).collect::<Vec<_>>().join(", ")
}

/// What a row's hash is computed from, column by column. Where DuckDB's hash takes different values
/// for the same, as it does for some nested ones, their text goes in too.
fn hashed(table: &TableEntry) -> Vec<String> {
    let column = |column: &Column| {
        let name = sql::name(&column.name);
        if sql::hashes_well(&column.data_type) {
            name
        } else if column.data_type.starts_with("UNION(") {
            format!("CAST(union_tag({name}) AS VARCHAR), CAST({name} AS VARCHAR)")
        } else {
            format!("CAST({name} AS VARCHAR)")
        }
    };
    table.columns.iter().map(column).collect()
}

/// The hash of a row.
fn hash(table: &TableEntry) -> String {
    format!("hash({})", hashed(table).join(", "))
}

/// Another hash of it: combining depends on the order, so that rows which agree in one differ in
/// the other.
fn hash_back(table: &TableEntry) -> String {
    let mut columns = hashed(table);
    columns.reverse();
    columns.push(columns.len().to_string());
    format!("hash({})", columns.join(", "))
}

/// Rows, sum and exclusive or of their hashes.
pub(super) fn content(table: &TableEntry, from: &str) -> String {
    let hash = hash(table);
    format!("SELECT count(*), coalesce(sum({hash}), 0), coalesce(bit_xor({hash}), 0) FROM {from}")
}

/// The same from the keys and hashes in `state`, which costs no second look at the rows.
pub(super) fn content_of_state(table: &TableEntry, state: &str) -> String {
    if is_keyed(table) {
        return format!(
            "SELECT count(*), coalesce(sum(bkp_h), 0), coalesce(bit_xor(bkp_h), 0) FROM {state}"
        );
    }
    // Of equal rows each pair leaves nothing of an exclusive or.
    format!(
        "SELECT coalesce(sum(bkp_n), 0), coalesce(sum(bkp_h1::HUGEINT * bkp_n), 0), coalesce(bit_xor(bkp_h1) FILTER (bkp_n % 2 = 1), 0) FROM {state}"
    )
}

/// The columns of the key, as they go into Parquet.
fn key(table: &TableEntry) -> Vec<String> {
    let key = table.key.iter().flatten();
    let column = |name: &String| table.columns.iter().find(|column| column.name == *name);
    key.filter_map(column).map(bent).collect()
}

/// Whether rows are told apart by a key.
fn is_keyed(table: &TableEntry) -> bool {
    table.key.as_ref().is_some_and(|names| !names.is_empty() && key(table).len() == names.len())
}

/// Whether changes of the table can be told row by row.
pub(super) fn is_divisible(table: &TableEntry) -> bool {
    // A column of that name hides the number of the row.
    is_keyed(table) || table.columns.iter().all(|column| !column.name.eq_ignore_ascii_case("rowid"))
}

fn key_names(table: &TableEntry) -> Vec<String> {
    (0..key(table).len()).map(|index| format!("bkp_k{index}")).collect()
}

/// Keys and hashes of all rows.
pub(super) fn state(table: &TableEntry, from: &str) -> String {
    if is_keyed(table) {
        let named = key(table).into_iter().zip(key_names(table));
        let named = named.map(|(key, name)| format!("{key} AS {name}")).collect::<Vec<_>>();
        let (key, hash) = (named.join(", "), hash(table));
        return format!("SELECT {key}, {hash} AS bkp_h, true AS bkp_live FROM {from}");
    }
    let (h1, h2) = (hash(table), hash_back(table));
    format!(
        "SELECT bkp_h1, bkp_h2, count(*) AS bkp_n FROM (SELECT {h1} AS bkp_h1, {h2} AS bkp_h2 FROM {from}) GROUP BY ALL"
    )
}

/// The state after the last of `files`: a full one and what changed since, oldest first.
pub(super) fn state_of(table: &TableEntry, files: &[String]) -> String {
    if let [only] = files {
        return format!("FROM read_parquet({})", sql::text(only));
    }
    let parts: Vec<String> = files
        .iter()
        .enumerate()
        .map(|(order, path)| {
            format!("SELECT *, {order} AS bkp_order FROM read_parquet({})", sql::text(path))
        })
        .collect();
    let all = parts.join(" UNION ALL ");
    if is_keyed(table) {
        let key = key_names(table).join(", ");
        return format!(
            "SELECT {key}, arg_max(bkp_h, bkp_order) AS bkp_h FROM ({all}) GROUP BY {key} HAVING arg_max(bkp_live, bkp_order)"
        );
    }
    format!(
        "SELECT bkp_h1, bkp_h2, sum(bkp_n)::BIGINT AS bkp_n FROM ({all}) GROUP BY bkp_h1, bkp_h2 HAVING sum(bkp_n) <> 0"
    )
}

/// What changed from the state that the query `before` gives to the one in `now`.
pub(super) fn changes(table: &TableEntry, before: &str, now: &str) -> String {
    if is_keyed(table) {
        let key = key_names(table).join(", ");
        return format!(
            "SELECT {key}, now.bkp_h AS bkp_h, now.bkp_h IS NOT NULL AS bkp_live FROM ({before}) AS old FULL JOIN {now} AS now USING ({key}) WHERE old.bkp_h IS DISTINCT FROM now.bkp_h"
        );
    }
    format!(
        "SELECT bkp_h1, bkp_h2, coalesce(now.bkp_n, 0) - coalesce(old.bkp_n, 0) AS bkp_n FROM ({before}) AS old FULL JOIN {now} AS now USING (bkp_h1, bkp_h2) WHERE old.bkp_n IS DISTINCT FROM now.bkp_n"
    )
}

/// Which rows of `from` the relation `changes` speaks of: those with a live key, or as many of a
/// content as were added (`sign` 1) or removed (`sign` -1).
fn rows_of(table: &TableEntry, changes: &str, from: &str, sign: i8) -> String {
    let (h1, h2) = (hash(table), hash_back(table));
    format!(
        "SELECT bkp_r FROM (SELECT r.bkp_r, c.bkp_n, row_number() OVER (PARTITION BY r.bkp_h1, r.bkp_h2) AS bkp_i FROM (SELECT rowid AS bkp_r, {h1} AS bkp_h1, {h2} AS bkp_h2 FROM {from}) AS r JOIN {changes} AS c USING (bkp_h1, bkp_h2) WHERE c.bkp_n * {sign} > 0) WHERE bkp_i <= bkp_n * {sign}"
    )
}

/// The rows that are new or changed, as they go into Parquet.
pub(super) fn upserts(table: &TableEntry, changes: &str, from: &str) -> String {
    let columns = bent_columns(table);
    if is_keyed(table) {
        let key = key(table).join(", ");
        let names = key_names(table).join(", ");
        return format!(
            "SELECT {columns} FROM {from} WHERE ({key}) IN (SELECT ({names}) FROM {changes} WHERE bkp_live)"
        );
    }
    let rows = rows_of(table, changes, from, 1);
    format!("SELECT {columns} FROM {from} WHERE rowid IN ({rows})")
}

/// Removes from `stage` what `changes` (a Parquet file) says is gone or has another content now.
pub(super) fn removal(table: &TableEntry, changes: &str, stage: &str) -> String {
    if is_keyed(table) {
        let (key, names) = (key(table).join(", "), key_names(table).join(", "));
        return format!("DELETE FROM {stage} WHERE ({key}) IN (SELECT ({names}) FROM {changes})");
    }
    let rows = rows_of(table, changes, stage, -1);
    format!("DELETE FROM {stage} WHERE rowid IN ({rows})")
}

/// Whether a table's own references keep it from being loaded at once, and if so the rows that can
/// go next: those that refer to nothing, to themselves, or to what is in `target` already.
pub(super) fn loadable(table: &TableEntry, target: &str) -> Option<String> {
    let rule = |(own, theirs): &(Vec<String>, Vec<String>)| {
        let pairs: Vec<(String, String)> =
            own.iter().map(|n| sql::name(n)).zip(theirs.iter().map(|n| sql::name(n))).collect();
        let all = |term: &dyn Fn(&(String, String)) -> String, word: &str| {
            pairs.iter().map(term).collect::<Vec<_>>().join(word)
        };
        let empty = all(&|(own, _)| format!("s.{own} IS NULL"), " OR ");
        let itself = all(&|(own, theirs)| format!("s.{own} = s.{theirs}"), " AND ");
        let there = all(&|(own, theirs)| format!("t.{theirs} = s.{own}"), " AND ");
        format!("({empty} OR ({itself}) OR EXISTS (SELECT 1 FROM {target} AS t WHERE {there}))")
    };
    let rules: Vec<String> = table.own.iter().map(rule).collect();
    (!rules.is_empty()).then(|| rules.join(" AND "))
}
