//! Increments of tables with several groups of rows: nothing that changed is missed.
//!
//! Steps are chosen by chance from those that move, rewrite, empty and refill groups of rows.
//! `BKP_TEST_ROUNDS` sets the number of increments (default 6), `BKP_TEST_SEED` where the sequence begins.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::duck::{V, bed, export, id, restore, sql};

/// Rows of the tables at first: five groups, of which the last one is not full.
const ROWS: u64 = 520_000;

fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).map_or(otherwise, |text| text.parse().unwrap())
}

/// Tables with a key and without, of a database of this storage version.
fn made(storage: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("analytics.duckdb");
    let attach = format!("ATTACH '{}' AS d (STORAGE_VERSION '{storage}')", file.display());
    let columns = "range AS id, range % 7 AS kind, CASE WHEN range % 3 > 0 THEN range * 0.5::DOUBLE END AS ratio, CASE WHEN range % 50000 = 3 THEN repeat('long', 3000) ELSE 'n' || range % 1000 END AS note, [range, 1] AS list";
    let rows = format!("SELECT {columns} FROM range({ROWS})");
    let statements = [
        attach,
        "USE d".into(),
        "CREATE TABLE keyed (id BIGINT PRIMARY KEY, kind BIGINT, ratio DOUBLE, note VARCHAR, list BIGINT[])"
            .into(),
        format!("INSERT INTO keyed {rows}"),
        format!("CREATE TABLE bare AS {rows}"),
        "CHECKPOINT".into(),
        "SELECT 1".into(),
    ];
    let statements: Vec<&str> = statements.iter().map(String::as_str).collect();
    sql(V, Path::new(":memory:"), &statements);
    (folder, file)
}

/// How many rows of each table are in the one file and not in the other.
fn differences(one: &Path, other: &Path) -> Value {
    let attach = format!("ATTACH '{}' AS r (READ_ONLY)", other.display());
    let count = |table: &str| {
        let only = |one: &str, other: &str| {
            format!("(SELECT count(*) FROM (FROM {one} EXCEPT ALL FROM {other}))")
        };
        let (here, there) = (table.to_owned(), format!("r.{table}"));
        format!("{} + {}", only(&here, &there), only(&there, &here))
    };
    sql(V, one, &[&attach, &format!("SELECT {}, {}", count("keyed"), count("bare"))])
}

/// Something that happens to a table, by chance.
fn step(table: &str, chance: u64) -> Vec<String> {
    let at = (chance >> 8) % ROWS;
    let near = |length: u64| format!("id BETWEEN {at} AND {}", at + length);
    let mut steps = match chance % 11 {
        0 => vec![format!("UPDATE {table} SET note = 'c{chance}' WHERE {}", near(3000))],
        1 => vec![format!("UPDATE {table} SET ratio = -ratio WHERE {}", near(1))],
        2 => vec![format!("DELETE FROM {table} WHERE {}", near(2500))],
        3 => vec![format!("DELETE FROM {table} WHERE {}", near(260_000))],
        4 => vec![format!(
            "INSERT INTO {table} SELECT (SELECT max(id) FROM {table}) + range + 1, 1, 1, 'new', [] FROM range(5000)"
        )],
        5 => vec![format!("UPDATE {table} SET kind = kind + 1 WHERE id % 90001 = 7")],
        // What was changed comes back, or was never changed.
        6 => vec![format!(
            "UPDATE {table} SET note = 'n' || id % 1000 WHERE id % 50000 <> 3 AND {}",
            near(200_000)
        )],
        7 => vec![
            format!(
                "CREATE OR REPLACE TEMP TABLE kept AS FROM {table} WHERE {} ORDER BY id DESC",
                near(9000)
            ),
            format!("DELETE FROM {table} WHERE {}", near(9000)),
            format!("INSERT INTO {table} FROM temp.kept"),
        ],
        8 => vec![
            format!("CREATE OR REPLACE TEMP TABLE kept AS FROM {table}"),
            format!("DELETE FROM {table}"),
            "CHECKPOINT".into(),
            format!("INSERT INTO {table} FROM temp.kept"),
        ],
        9 => vec![format!("UPDATE {table} SET list = [id] WHERE {}", near(100))],
        _ => vec![],
    };
    if chance >> 40 & 1 == 0 {
        steps.push("CHECKPOINT".into());
    }
    steps
}

#[test]
fn nothing_that_changed_is_missed() {
    let mut chance = number("BKP_TEST_SEED", 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut next = move || {
        chance ^= chance << 13;
        chance ^= chance >> 7;
        chance ^= chance << 17;
        chance
    };
    for storage in ["v1.0.0", "v1.4.0"] {
        let (_folder, file) = made(storage);
        let bed = bed(&file);
        export(&bed, &[]);
        for round in 0..number("BKP_TEST_ROUNDS", 6) {
            let (keyed, bare) = (step("keyed", next()), step("bare", next()));
            let steps: Vec<&str> = keyed.iter().chain(&bare).map(String::as_str).collect();
            sql(V, &file, &[&steps[..], &["SELECT 1"]].concat());
            let manifest = export(&bed, &["--scope", "incremental"]);
            bed.run(&["verify", "--id", id(&manifest), "--level", "decode"]).done();
            let found = differences(&restore(&bed, id(&manifest)), &file);
            assert_eq!(found, json!([[0, 0]]), "{storage}, round {round}: {steps:?}");
        }
    }
}

/// A computed column may have the name under which the engine numbers rows, and hides the numbers: what is
/// asked for by them would be other rows.
#[test]
fn a_computed_column_that_hides_the_numbers_of_rows_is_no_number() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("analytics.duckdb");
    let tables = [("keyed", "id BIGINT PRIMARY KEY"), ("bare", "id BIGINT")];
    for (table, key) in tables {
        let columns = format!("{key}, v BIGINT, rowid BIGINT AS (id % 7)");
        let create = format!("CREATE TABLE {table} ({columns})");
        let insert = format!("INSERT INTO {table} (id, v) SELECT range, range FROM range(20000)");
        sql(V, &file, &[&create, &insert, "SELECT 1"]);
    }
    let bed = bed(&file);
    export(&bed, &[]);
    for round in 0..2 {
        for (table, _) in tables {
            let update = format!("UPDATE {table} SET v = -{round} WHERE id % 1000 = {round}");
            let delete = format!("DELETE FROM {table} WHERE id % 1000 = {}", 500 + round);
            // Rows that are equal: only as many of them as there are more.
            let more = format!(
                "INSERT INTO {table} (id, v) SELECT {}, 1 FROM range({})",
                90_000 + round,
                if table == "bare" { 3 } else { 1 }
            );
            sql(V, &file, &[&update, &delete, &more, "SELECT 1"]);
        }
        let restored = restore(&bed, id(&export(&bed, &["--scope", "incremental"])));
        assert_eq!(differences(&restored, &file), json!([[0, 0]]), "round {round}");
    }
}
