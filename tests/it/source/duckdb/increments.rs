//! Increments of tables with several groups of rows: nothing that changed is missed.
//!
//! Steps are chosen by chance from those that move, rewrite, empty and refill groups of rows.
//! `BKP_TEST_ROUNDS` sets the number of increments (default 6), `BKP_TEST_SEED` where the sequence begins.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::duck::{V, bed, export, id, objects, restore, sql};

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

/// How many groups of rows an increment did not have to read, of how many.
fn skipped(run: &str) -> (u64, u64) {
    let line = run.lines().find(|line| line.contains("groups of rows are where they were"));
    let mut numbers =
        line.unwrap_or_default().split_whitespace().filter_map(|word| word.parse().ok());
    (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default())
}

/// A table of which each column is stored in another way: as one value, as none, by a dictionary, FSST, and
/// nested. And one of texts that have blocks of their own.
fn stored_in_many_ways(storage: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("analytics.duckdb");
    let attach = format!("ATTACH '{}' AS d (STORAGE_VERSION '{storage}')", file.display());
    let columns = "range AS id, 5 AS same, NULL::INTEGER AS none, 1.25::DOUBLE AS ratio, 7.50::DECIMAL(18,2) AS price, 'w' || range % 9 AS word, 'text number ' || range AS text, [range, 1] AS list, {'a': range % 5, 'b': 'b'} AS pair, DATE '2026-01-01' AS day, range % 2 = 0 AS odd";
    let statements = [
        &*attach,
        "USE d",
        &format!("CREATE TABLE t AS SELECT {columns} FROM range(400000)"),
        "CREATE TABLE texts AS SELECT range AS id, CASE WHEN range % 9000 = 3 THEN repeat('long', 9000) || range END AS long FROM range(130000)",
        "CHECKPOINT",
        "SELECT 1",
    ];
    sql(V, Path::new(":memory:"), &statements);
    (folder, file)
}

/// What happens to it, and whether something must be known again after that.
const STEPS: &[(&[&str], bool)] = &[
    (&["SELECT 1"], true),
    (&["VACUUM", "CHECKPOINT", "FORCE CHECKPOINT"], true),
    // Only a value that is stored nowhere but in the metadata, and back.
    (&["UPDATE t SET same = 6 WHERE id < 122880", "CHECKPOINT"], true),
    (&["UPDATE t SET same = 5 WHERE id < 122880", "CHECKPOINT"], true),
    (&["UPDATE t SET price = 7.51, day = DATE '2026-01-02'", "CHECKPOINT"], false),
    (&["UPDATE t SET none = 1 WHERE id = 130000", "CHECKPOINT"], true),
    (&["UPDATE t SET none = NULL WHERE id = 130000", "CHECKPOINT"], true),
    (&["UPDATE t SET none = 3"], false),
    (&["CHECKPOINT"], false),
    // Another column of this name.
    (
        &[
            "ALTER TABLE t DROP COLUMN none",
            "ALTER TABLE t ADD COLUMN none INTEGER DEFAULT 4",
            "CHECKPOINT",
        ],
        false,
    ),
    (
        &[
            "ALTER TABLE t DROP COLUMN none",
            "ALTER TABLE t ADD COLUMN none INTEGER DEFAULT 3",
            "CHECKPOINT",
        ],
        false,
    ),
    (&["ALTER TABLE t DROP COLUMN none", "ALTER TABLE t ADD COLUMN none INTEGER DEFAULT 2"], false),
    // The same words as a checksum adds them up, in another order; a letter in the middle of a long text.
    (
        &[
            "UPDATE t SET text = 'text number ' || CASE id WHEN 200000 THEN 200001 ELSE 200000 END WHERE id IN (200000, 200001)",
            "CHECKPOINT",
        ],
        true,
    ),
    (&["UPDATE t SET odd = NOT odd WHERE id IN (300000, 300001)", "CHECKPOINT"], true),
    (
        &[
            "UPDATE texts SET long = replace(long, 'glonglo', 'glOnglo') WHERE id = 90003",
            "CHECKPOINT",
        ],
        true,
    ),
    (&["UPDATE t SET list = [id, 2] WHERE id = 390000"], true),
    (&["UPDATE t SET pair = {'a': 9, 'b': NULL} WHERE id BETWEEN 20 AND 30", "CHECKPOINT"], true),
    // Rows that go are told apart, also when as many come.
    (&["DELETE FROM t WHERE id = 250000"], true),
    (&["CHECKPOINT", "DELETE FROM t WHERE id = 250001"], true),
    (&["CHECKPOINT"], true),
    (
        &[
            "CREATE TEMP TABLE kept AS FROM t WHERE id BETWEEN 5000 AND 5100",
            "DELETE FROM t WHERE id BETWEEN 5000 AND 5100",
            "INSERT INTO t FROM temp.kept",
            "CHECKPOINT",
        ],
        true,
    ),
    // What is gone now, and what was there again in its place.
    (&["UPDATE t SET word = 'x' WHERE id = 7"], true),
    (&["UPDATE t SET word = 'w7' WHERE id = 7", "CHECKPOINT"], true),
    (&["DELETE FROM t WHERE id BETWEEN 122880 AND 245759"], true),
    (&["CHECKPOINT", "VACUUM", "CHECKPOINT"], false),
    (
        &["INSERT INTO t BY NAME SELECT * REPLACE (id + 1000000 AS id) FROM t WHERE id < 122880"],
        false,
    ),
    (&["CHECKPOINT"], false),
    (
        &[
            "CREATE TEMP TABLE kept AS FROM t ORDER BY id",
            "DELETE FROM t",
            "CHECKPOINT",
            "INSERT INTO t FROM temp.kept",
            "CHECKPOINT",
        ],
        false,
    ),
    (&["UPDATE t SET ratio = -1 WHERE id % 1000 = 0", "CHECKPOINT"], false),
];

/// Whatever changes in the file, also where no number of rows, no block and no text of statistics shows it.
#[test]
fn what_is_not_read_has_not_changed() {
    std::thread::scope(|scope| {
        // Long rounds take both ways in which texts are stored.
        let is_long = std::env::var_os("BKP_TEST_ROUNDS").is_some();
        for storage in if is_long { &["v1.4.0", "v1.0.0"][..] } else { &["v1.4.0"] } {
            scope.spawn(move || {
                let (_folder, file) = stored_in_many_ways(storage);
                let bed = bed(&file);
                export(&bed, &[]);
                for (number, (statements, skips)) in STEPS.iter().enumerate() {
                    sql(V, &file, &[statements, &["SELECT 1"][..]].concat());
                    let run = bed.run(&["export", "analytics", "--scope", "incremental", "-v"]).done();
                    let (same, all) = skipped(&run.stderr);
                    let what = format!("{storage}, step {number}: {statements:?}: {same} of {all}");
                    assert!(!skips || same > 0, "{what}: {}", run.stderr);
                    let listed = bed.json(&["list"]);
                    let last = listed["backups"].as_array().unwrap().last().unwrap();
                    let restored = restore(&bed, id(last));
                    let attach = format!("ATTACH '{}' AS r (READ_ONLY)", restored.display());
                    let different = |table: &str| {
                        format!("(SELECT count(*) FROM (FROM {table} EXCEPT ALL FROM r.{table})) + (SELECT count(*) FROM (FROM r.{table} EXCEPT ALL FROM {table}))")
                    };
                    let count = format!(
                        "SELECT {}, {}, (SELECT count(*) FROM t) > 0",
                        different("t"),
                        different("texts")
                    );
                    let found = sql(V, &file, &[&attach, &count]);
                    assert_eq!(found, json!([[0, 0, true]]), "{what}");
                    std::fs::remove_file(restored).unwrap();
                }
            });
        }
    });
}

/// Of the rows of the last full export only those are read that may have changed: damage of the others, which is no
/// matter to it, does not even show. What is read is authentic.
#[test]
fn an_increment_reads_only_what_it_compares() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("analytics.duckdb");
    // Texts that take room: each group of rows has several segments of the object.
    let make = "CREATE TABLE t AS SELECT range AS id, md5(range::VARCHAR) || md5((-range)::VARCHAR) AS note FROM range(1200000)";
    let key = "ALTER TABLE t ADD PRIMARY KEY (id)";
    sql(V, &file, &[make, key, "CHECKPOINT", "SELECT 1"]);
    let bed = bed(&file);
    let full = export(&bed, &[]);
    let object = bed.object(id(&full), "0001-main.t.parquet.enc");
    let whole = std::fs::read(&object).unwrap();
    assert!(whole.len() > 20 << 20, "{}", whole.len());
    let damage = |parts: &[usize]| {
        let mut damaged = whole.clone();
        for part in parts {
            // In the middle of each of these twentieths.
            let at = damaged.len() / 20 * part + damaged.len() / 40;
            damaged[at] ^= 1;
        }
        std::fs::remove_file(&object).unwrap();
        std::fs::write(&object, damaged).unwrap();
    };
    let change = |note: &str| {
        let update = format!("UPDATE t SET note = '{note}' WHERE id >= 1199000");
        sql(V, &file, &[&update, "CHECKPOINT", "SELECT 1"]);
    };
    let words = ["export", "analytics", "--scope", "incremental"];
    let increment = || bed.run(&words);
    change("one");
    damage(&(1..15).collect::<Vec<_>>());
    let increased = export(&bed, &words[2..]);
    assert_eq!(objects(&increased, "table").len(), 1, "{increased}");
    // Its restore needs all of it.
    bed.run(&["restore", "--id", id(&increased), "--to", "damaged", "--yes"])
        .failed(13, ".t.parquet.enc");
    // What it does compare is what was stored, or no increment is made.
    change("two");
    damage(&[19]);
    increment().failed(13, ".t.parquet.enc");
    damage(&[]);
    let last = export(&bed, &words[2..]);
    let restored = restore(&bed, id(&last));
    let attach = format!("ATTACH '{}' AS r (READ_ONLY)", restored.display());
    let count =
        "SELECT (SELECT count(*) FROM (FROM t EXCEPT FROM r.t)), (SELECT count(*) FROM r.t)";
    assert_eq!(sql(V, &file, &[&attach, count]), json!([[0, 1_200_000]]));
    // Rows at the end need no more of it than the group that they went into.
    sql(V, &file, &["INSERT INTO t SELECT range, 'new' FROM range(2000000, 2000100)", "SELECT 1"]);
    damage(&(0..15).collect::<Vec<_>>());
    increment().done();
    damage(&[]);
    bed.run(&["verify", "analytics", "--from-export", "--level", "decode"]).done();
}

/// The same bytes are other rows where the numbers in them stand for other words.
#[test]
fn the_words_of_an_enum_count_and_not_their_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("analytics.duckdb");
    let make = |words: [&str; 2]| {
        let [one, other] = words;
        [
            "DROP TABLE IF EXISTS t".to_owned(),
            "DROP TYPE IF EXISTS mood".to_owned(),
            format!("CREATE TYPE mood AS ENUM ('{one}', '{other}')"),
            format!(
                "CREATE TABLE t AS SELECT range AS id, (CASE WHEN range % 3 = 0 THEN '{one}' ELSE '{other}' END)::mood AS mood FROM range(300000)"
            ),
            "CHECKPOINT".to_owned(),
            "SELECT 1".to_owned(),
        ]
    };
    let write = |words| {
        let statements = make(words);
        sql(V, &file, &statements.iter().map(String::as_str).collect::<Vec<_>>());
    };
    write(["calm", "wild"]);
    let bed = bed(&file);
    export(&bed, &[]);
    for words in [["wild", "calm"], ["calm", "wild"]] {
        write(words);
        let restored = restore(&bed, id(&export(&bed, &["--scope", "incremental"])));
        let count = "SELECT mood::VARCHAR, count(*) FROM t GROUP BY 1 ORDER BY 2";
        assert_eq!(sql(V, &restored, &[count]), json!([[words[0], 100_000], [words[1], 200_000]]));
    }
}

/// DuckDB 1.5 loses values of structs, or ends, where several threads insert a little less than a whole group of
/// rows at a time into a file: no restore may.
#[test]
fn structs_come_back_from_a_chain_of_nearly_full_groups() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("analytics.duckdb");
    let rows = |from: u64| {
        format!(
            "SELECT range + {from} AS id, {{'b': range, 'c': 1}} AS pair, {{'b': repeat('x', (range % 300)::INTEGER)}} AS text FROM range(122000)"
        )
    };
    sql(V, &file, &[&format!("CREATE TABLE bare AS {}", rows(0)), "SELECT 1"]);
    let create = "CREATE TABLE keyed (id BIGINT PRIMARY KEY, pair STRUCT(b BIGINT, c INTEGER), text STRUCT(b VARCHAR))";
    sql(V, &file, &[create, &format!("INSERT INTO keyed {}", rows(0)), "SELECT 1"]);
    let bed = bed(&file);
    export(&bed, &[]);
    for round in 1..4 {
        for table in ["bare", "keyed"] {
            let insert = format!("INSERT INTO {table} {}", rows(round * 1_000_000));
            sql(V, &file, &[&insert, "SELECT 1"]);
        }
        let restored = restore(&bed, id(&export(&bed, &["--scope", "incremental"])));
        assert_eq!(differences(&restored, &file), json!([[0, 0]]), "round {round}");
    }
}
