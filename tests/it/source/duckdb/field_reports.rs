//! Databases as found in the field: links, logs with definitions in them, ambiguous names.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::bed::Bed;
use crate::support::duck::{V, abandon, bed, dump, export, id, restore, snapshot, sql};

fn made(folder: &tempfile::TempDir, name: &str, statements: &[&str]) -> PathBuf {
    let file = folder.path().join(format!("{name}.duckdb"));
    sql(V, &file, statements);
    file
}

/// The newest export, restored by a run with this exit code.
#[track_caller]
fn exported(bed: &Bed, code: i32) -> PathBuf {
    let target = bed.path("from-export.duckdb");
    let to = target.to_str().unwrap();
    let run = bed.run(&["restore", "analytics", "--from-export", "--yes", "--force", "--to", to]);
    assert_eq!(run.code, Some(code), "{}{}", run.stdout, run.stderr);
    target
}

#[track_caller]
fn drilled(bed: &Bed, manifest: &Value) {
    bed.run(&["verify", "--id", id(manifest), "--level", "drill"]).done();
}

/// Opened as the engine's own database, and without writing, none of these logs can be read.
#[test]
fn definitions_that_only_the_log_has_come_back() {
    const TABLE: &str = "CREATE TABLE t (i INTEGER, moment TIMESTAMP DEFAULT current_timestamp, n BIGINT DEFAULT nextval('ids'))";
    const ROWS: &str = "INSERT INTO t SELECT range, TIMESTAMP '2026-01-01', range FROM range(1000)";
    for (number, changes) in [
        &["CREATE INDEX by_i ON t (i)"] as &[&str],
        &["ALTER TABLE t ADD COLUMN note VARCHAR", "INSERT INTO t VALUES (1, NULL, 7, 'new')"],
        &["ALTER TABLE t ADD COLUMN kind VARCHAR DEFAULT upper('x')"],
    ]
    .iter()
    .enumerate()
    {
        let folder = tempfile::tempdir().unwrap();
        let before = ["CREATE SEQUENCE ids", TABLE, ROWS];
        let twin = made(&folder, "twin", &[&before[..], changes].concat());
        let file = made(&folder, "analytics", &before);
        abandon(V, &file, changes);
        let bed = bed(&file);
        let taken = snapshot(&bed, &[]);
        drilled(&bed, &taken);
        assert_eq!(dump(&restore(&bed, id(&taken))), dump(&twin), "snapshot {number}");
        drilled(&bed, &export(&bed, &[]));
        assert_eq!(dump(&exported(&bed, 0)), dump(&twin), "export {number}");
    }
}

/// DuckDB has the log beside the file that a link leads to.
#[test]
fn behind_a_link_the_log_is_that_of_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = made(&folder, "real", &["CREATE TABLE t AS SELECT 1 AS i"]);
    let link = folder.path().join("link.duckdb");
    symlink("real.duckdb", &link).unwrap();
    abandon(V, &file, &["INSERT INTO t VALUES (2)"]);
    let bed = bed(&link);
    let both = json!([[1], [2]]);
    let taken = snapshot(&bed, &[]);
    assert_eq!(sql(V, &restore(&bed, id(&taken)), &["FROM t ORDER BY i"]), both);
    export(&bed, &[]);
    assert_eq!(sql(V, &exported(&bed, 0), &["FROM t ORDER BY i"]), both);
}

/// Macros come before functions where both have a name.
#[test]
fn macros_are_not_taken_for_functions() {
    let folder = tempfile::tempdir().unwrap();
    let file = made(
        &folder,
        "analytics",
        &[
            "CREATE MACRO sum(x) AS 0",
            "CREATE MACRO bit_xor(x) AS 1",
            "CREATE MACRO hash(x) AS md5(x::VARCHAR)",
            "CREATE MACRO current_database() AS 'none'",
            "CREATE MACRO array_to_string(x, y) AS 'none'",
            "CREATE MACRO typeof(x) AS 'none'",
            "CREATE TYPE mood AS ENUM ('good', 'bad')",
            "CREATE TABLE t (i INTEGER PRIMARY KEY, s VARCHAR, m mood)",
            "INSERT INTO t SELECT range, 'old', 'good' FROM range(5000)",
            "CREATE TABLE bag AS SELECT i, s FROM t",
        ],
    );
    let bed = bed(&file);
    drilled(&bed, &snapshot(&bed, &[]));
    export(&bed, &[]);
    sql(V, &file, &["UPDATE t SET s = 'new' WHERE i = 3", "UPDATE bag SET s = 'new' WHERE i = 4"]);
    drilled(&bed, &export(&bed, &["--scope", "incremental"]));
    let target = exported(&bed, 0);
    let changed = "SELECT i FROM t WHERE s = 'new' UNION ALL SELECT i FROM bag WHERE s = 'new'";
    assert_eq!(sql(V, &target, &[changed]), json!([[3], [4]]));
    assert_eq!(dump(&target), dump(&file));
}

/// A definition that is written otherwise once it was in a file is not one that was lost; one in a schema,
/// or with an odd name, is none either.
#[test]
fn restored_objects_are_not_reported_as_missing() {
    let folder = tempfile::tempdir().unwrap();
    let file = made(
        &folder,
        "analytics",
        &[
            "CREATE SCHEMA drill",
            "CREATE SEQUENCE drill.ids START 10",
            "CREATE SEQUENCE ids START 1000",
            "CREATE SEQUENCE \"odd \"\" INCREMENT BY 7\" INCREMENT BY -2",
            "CREATE TABLE drill.t (i INTEGER PRIMARY KEY DEFAULT nextval('drill.ids'), s VARCHAR NOT NULL CHECK (s::DATE > '2020-01-01'::DATE), g DATE GENERATED ALWAYS AS (CAST(s AS DATE)))",
            "INSERT INTO drill.t (s) VALUES ('2026-01-01')",
            "CREATE VIEW v AS SELECT CAST(s AS DATE) AS d, INTERVAL '1 day' AS i FROM drill.t",
            "CREATE MACRO plain(x) AS CAST(x AS DATE)",
            "CREATE MACRO drill.\"odd(name\"(x, y := 1) AS x + y",
            "CREATE INDEX by_date ON drill.t ((CAST(s AS DATE)))",
        ],
    );
    let bed = bed(&file);
    drilled(&bed, &snapshot(&bed, &[]));
    drilled(&bed, &export(&bed, &[]));
    let target = exported(&bed, 0);
    let next = "INSERT INTO drill.t (s) VALUES ('2026-01-02') RETURNING i";
    assert_eq!(sql(V, &target, &[next]), json!([[11]]));
    sql(V, &file, &[next]);
    assert_eq!(dump(&target), dump(&file));
}

/// Parquet's variants have other types than DuckDB's.
#[test]
fn variants_that_parquet_cannot_hold_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("analytics.duckdb");
    let attach = format!("ATTACH '{}' AS d (STORAGE_VERSION 'v1.5.0')", file.display());
    sql(V, Path::new(":memory:"), &[&attach, "CREATE TABLE d.whole AS SELECT 1 AS i"]);
    sql(
        V,
        &file,
        &[
            "CREATE TABLE plain AS SELECT 42::VARIANT AS v",
            "CREATE TABLE bent AS SELECT 7::UTINYINT::VARIANT AS v",
            "CREATE TABLE refused AS SELECT INTERVAL '1 day'::VARIANT AS v",
        ],
    );
    let bed = bed(&file);
    let manifest = export(&bed, &[]);
    // Those that Parquet does hold go through it.
    let objects: Vec<&Value> = manifest["capture"]["tables"]
        .as_array()
        .unwrap()
        .iter()
        .map(|table| &table["object"])
        .collect();
    let apart = objects.iter().filter(|object| ***object == json!("rows.duckdb")).count();
    assert_eq!(apart, 2, "{manifest}");
    let target = exported(&bed, 0);
    assert_eq!(dump(&target), dump(&file));
}
