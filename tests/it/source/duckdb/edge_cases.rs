//! Exports of unusual databases: changes that cancel out, values with equal text, schemas that cannot
//! be recreated everywhere, machines that are too small.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use bkp::domain::manifest::hex;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::support::bed::{Bed, Run};
use crate::support::duck::{V, bed, bed_with, dump, export, id, objects, reindex, restore, sql};
use crate::support::s3::usual;

/// A database made by these statements, and the folder that it is in.
fn made(statements: &[&str]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("analytics.duckdb");
    sql(V, &file, statements);
    (folder, file)
}

/// Names of the tables that a backup has rows of.
fn tables(manifest: &Value) -> Vec<String> {
    let name = |key: &&str| key.rsplit('-').next().unwrap().replace(".parquet.enc", "");
    let mut names: Vec<String> = objects(manifest, "table").iter().map(name).collect();
    names.sort();
    names
}

/// Restores with these words; the report is that of a run with this exit code.
#[track_caller]
fn restored(bed: &Bed, words: &[&str], code: i32) -> (PathBuf, Value) {
    let target = bed.path(&format!("to-{}.duckdb", fs::read_dir(bed.path("")).unwrap().count()));
    let to = ["restore", "analytics", "--from-export", "--yes", "--json", "--to"];
    let words = [&to[..], &[target.to_str().unwrap()], words].concat();
    let run = bed.run(&words);
    assert_eq!(run.code, Some(code), "{}{}", run.stdout, run.stderr);
    (target, serde_json::from_str(&run.stdout).unwrap_or_default())
}

/// Hashes as DuckDB combines them have the last column in an exclusive or: the sum and the exclusive or
/// over these two rows stay as they are when the two flags are swapped.
#[test]
fn a_swap_that_a_sum_does_not_see_is_exported() {
    let (_folder, file) = made(&[
        "CREATE TABLE t (id BIGINT PRIMARY KEY, flag BOOLEAN)",
        "INSERT INTO t SELECT range, range = 39 FROM range(300000)",
        "CREATE TABLE bag AS SELECT id, flag FROM t",
    ]);
    let sums = "SELECT sum(hash(id, flag))::VARCHAR, bit_xor(hash(id, flag))::VARCHAR FROM t";
    let before = sql(V, &file, &[sums]);
    let bed = bed(&file);
    export(&bed, &[]);
    for table in ["t", "bag"] {
        let swap = format!("UPDATE {table} SET flag = (id = 163893) WHERE id IN (39, 163893)");
        sql(V, &file, &[&swap]);
    }
    assert_eq!(sql(V, &file, &[sums]), before, "these ids do not cancel out in this engine");
    let manifest = export(&bed, &["--scope", "incremental"]);
    assert_eq!(tables(&manifest), ["main.bag", "main.t"]);
    assert_eq!(dump(&restore(&bed, id(&manifest))), dump(&file));
}

/// Two values of 16 bytes with one hash are easily made: each step is an exclusive or and a product.
#[test]
fn values_with_one_hash_are_told_apart_in_a_table_without_a_key() {
    const FACTOR: u64 = 0xd6e8_feb8_6659_fd93;
    let seed = 0xe17a_1465 ^ 16_u64.wrapping_mul(0xc6a4_a793_5bd1_e995);
    let step = |word: u64| (seed ^ word).wrapping_mul(FACTOR);
    let (first, other) = (u64::from_le_bytes(*b"AAAAAAAA"), u64::from_le_bytes(*b"CCCCCCCC"));
    let last = u64::from_le_bytes(*b"BBBBBBBB");
    let blob = |a: u64, b: u64| {
        let bytes = [a.to_le_bytes(), b.to_le_bytes()].concat();
        format!("from_hex('{}')", hex(&bytes))
    };
    let one = blob(first, last);
    let two = blob(other, last ^ step(first) ^ step(other));
    let (_folder, file) = made(&[&format!("CREATE TABLE bag AS SELECT {one} AS b")]);
    let same = format!("SELECT hash({one}) = hash({two}), {one} = {two}");
    assert_eq!(sql(V, &file, &[&same]), json!([[true, false]]), "this engine hashes otherwise");
    let bed = bed(&file);
    export(&bed, &[]);
    sql(V, &file, &[&format!("UPDATE bag SET b = {two}")]);
    let manifest = export(&bed, &["--scope", "incremental"]);
    assert_eq!(dump(&restore(&bed, id(&manifest))), dump(&file));
}

/// The same text, and another value: an option of a union, the type in a variant.
/// So are those of texts beside numbers, where the text of both leaves signs out.
#[test]
fn tables_whose_hashes_can_be_computed_back_are_in_every_increment() {
    let types = [
        "STRUCT(j JSON, d DOUBLE)",
        "STRUCT(j JSON, d DOUBLE)[]",
        "MAP(JSON, FLOAT)",
        "STRUCT(\"FLOAT\" VARCHAR)",
        "STRUCT(aFLOAT VARCHAR)",
        "STRUCT(e ENUM('DOUBLE'), s VARCHAR)",
    ];
    let create = types.iter().enumerate();
    let create = create.map(|(at, of)| format!("CREATE TABLE t{at} AS SELECT NULL::{of} AS v"));
    let create: Vec<String> =
        create.chain(["CREATE TABLE still AS SELECT [1.5::DOUBLE] AS v".to_owned()]).collect();
    let (_folder, file) = made(&create.iter().map(String::as_str).collect::<Vec<_>>());
    let bed = bed(&file);
    export(&bed, &[]);
    let manifest = export(&bed, &["--scope", "incremental"]);
    let expected: Vec<String> = (0..types.len()).map(|at| format!("main.t{at}")).collect();
    assert_eq!(tables(&manifest), expected);
}

/// Nobody who writes the database can make a change of such values that an increment takes for none: their tables
/// are in every one.
#[test]
fn values_with_one_text_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("analytics.duckdb");
    // Variants exist since this storage version.
    let attach = format!("ATTACH '{}' AS d (STORAGE_VERSION 'v1.5.0')", file.display());
    sql(V, Path::new(":memory:"), &[&attach, "CREATE TABLE d.first AS SELECT 1 AS i"]);
    let statements = [
        "CREATE TYPE either AS UNION(i INTEGER, s VARCHAR)",
        "CREATE TABLE keyed (k INTEGER PRIMARY KEY, l either[], n STRUCT(u either), v VARIANT, d DOUBLE)",
        "INSERT INTO keyed VALUES (1, [union_value(i := 1)], {'u': union_value(i := 1)}, 42::VARIANT, 0.0), (2, NULL, NULL, NULL, NULL)",
        "CREATE TABLE bag AS SELECT * FROM keyed",
        "CREATE TABLE variants AS SELECT k, v FROM keyed",
    ];
    sql(V, &file, &statements);
    let bed = bed(&file);
    export(&bed, &[]);
    for change in [
        "UPDATE keyed SET l = [union_value(s := '1')]::either[] WHERE k = 1",
        "UPDATE bag SET n = {'u': union_value(s := '1')} WHERE k = 1",
        "UPDATE variants SET v = '42'::VARIANT WHERE k = 1",
    ] {
        let table = change.split(' ').nth(1).unwrap();
        let text = |file: &Path| {
            sql(V, file, &[&format!("SELECT {table}::VARCHAR FROM {table} ORDER BY k")])
        };
        let before = (text(&file), dump(&file));
        sql(V, &file, &[change]);
        // The oracle sees what the text does not show.
        assert_ne!(dump(&file), before.1, "{change}");
        assert_eq!(text(&file), before.0, "{change}");
        let manifest = export(&bed, &["--scope", "incremental"]);
        assert_eq!(tables(&manifest), ["main.bag", "main.keyed", "main.variants"], "{change}");
        assert_eq!(dump(&restore(&bed, id(&manifest))), dump(&file), "{change}");
    }
}

/// The text of a nested time depends on the zone that a process lives in; hashes must not.
#[test]
fn an_export_from_berlin_is_restored_in_tokyo() {
    let (_folder, file) = made(&[
        "CREATE TABLE keyed (k INTEGER PRIMARY KEY, l TIMESTAMPTZ[])",
        "INSERT INTO keyed VALUES (1, [TIMESTAMPTZ '2024-07-01 12:00:00+00'])",
        "CREATE TABLE bag AS SELECT {'t': TIMESTAMPTZ '2024-01-01 00:00:00+00'} AS s FROM range(3)",
    ]);
    let bed = bed(&file);
    let within = |zone: &str, words: &[&str]| {
        let run = Run::of(&bed.command(words).env("TZ", zone).output().unwrap()).done();
        serde_json::from_str::<Value>(&run.stdout).unwrap()
    };
    within("Europe/Berlin", &["export", "analytics", "--json"]);
    // Nothing has changed but the zone.
    let next = ["export", "analytics", "--scope", "incremental", "--json"];
    let report = within("America/New_York", &next);
    assert_eq!(tables(&report["manifest"]), Vec::<String>::new());
    sql(V, &file, &["DELETE FROM bag WHERE rowid = 1"]);
    within("Asia/Kolkata", &next);
    let target = bed.path("tokyo.duckdb");
    let to = target.to_str().unwrap();
    within("Asia/Tokyo", &["restore", "analytics", "--from-export", "--yes", "--json", "--to", to]);
    assert_eq!(dump(&target), dump(&file));
}

/// What cannot be made in an empty database is kept: another engine or another machine may.
#[test]
fn a_statement_that_fails_here_is_kept_and_tried_again() {
    let (folder, file) = made(&["CREATE TABLE t AS SELECT 1 AS i"]);
    let data = folder.path().join("data.csv");
    fs::write(&data, "a,b\n1,2\n").unwrap();
    let view = format!("CREATE VIEW of_file AS FROM read_csv('{}')", data.display());
    sql(V, &file, &[&view]);
    // A schema that has the name of a catalog: its own statement is ambiguous, its rows are not.
    let attach = format!("ATTACH '{}' AS d", file.display());
    let temp =
        ["CREATE SCHEMA d.temp", "CREATE TABLE d.temp.odd AS SELECT range AS i FROM range(3)"];
    sql(V, Path::new(":memory:"), &[&[attach.as_str()], &temp[..]].concat());
    let bed = bed_with(&file, "encryption = \"none\"");
    let run = bed.run(&["export", "analytics", "--json"]);
    assert_eq!(run.code, Some(3), "{}{}", run.stdout, run.stderr);
    let report: Value = serde_json::from_str(&run.stdout).unwrap();
    let lost = report["manifest"]["capture"]["lost"].to_string();
    assert!(!lost.contains("of_file") && lost.contains("odd"), "{lost}");
    let script = bed.path("store").join(objects(&report["manifest"], "schema")[0]);
    let script = fs::read_to_string(script).unwrap();
    assert!(script.contains("read_csv") && script.contains("-- Failed in an empty"), "{script}");
    // The file of the view is there: it is a view again. The odd table is one of columns and rows.
    let (target, report) = restored(&bed, &[], 3);
    assert_eq!(sql(V, &target, &["FROM of_file"]), json!([[1, 2]]));
    let there = format!("ATTACH '{}' AS d", target.display());
    let rows = sql(V, Path::new(":memory:"), &[&there, "SELECT sum(i)::INTEGER FROM d.temp.odd"]);
    assert_eq!(rows, json!([[3]]));
    let lost = report["lost"].to_string();
    assert!(lost.contains("odd") && !lost.contains("of_file"), "{lost}");
    // It is not, and the view is one all the same.
    fs::remove_file(&data).unwrap();
    let (target, report) = restored(&bed, &[], 3);
    assert!(!report["lost"].to_string().contains("of_file"), "{report}");
    fs::write(&data, "a,b\n1,2\n").unwrap();
    assert_eq!(sql(V, &target, &["FROM of_file"]), json!([[1, 2]]));
    // Whoever wants one table does not miss the view.
    let (target, report) = restored(&bed, &["--table", "t"], 0);
    assert_eq!(sql(V, &target, &["FROM t"]), json!([[1]]));
    assert_eq!(report["lost"], Value::Null);
}

/// A name in a reference is written in any case.
#[test]
fn references_in_another_case_are_resolved() {
    let (_folder, file) = made(&[
        "CREATE TABLE \"Parent\" (\"Id\" INTEGER PRIMARY KEY)",
        "INSERT INTO \"Parent\" VALUES (1)",
        "CREATE TABLE child (i INTEGER REFERENCES PARENT(ID))",
        "INSERT INTO child VALUES (1), (NULL)",
        "CREATE TABLE tree (id INTEGER, above INTEGER REFERENCES TREE(ID), PRIMARY KEY (ID))",
        "INSERT INTO tree VALUES (3, NULL)",
        "INSERT INTO tree VALUES (1, 3)",
        "INSERT INTO tree VALUES (2, 1)",
        "CREATE INDEX by_i ON child(i)",
        "COMMENT ON TABLE child IS 'small'",
    ]);
    let bed = bed(&file);
    export(&bed, &[]);
    let (target, _) = restored(&bed, &[], 0);
    assert_eq!(dump(&target), dump(&file));
    sql(V, &file, &["UPDATE tree SET above = 3 WHERE id = 2"]);
    export(&bed, &["--scope", "incremental"]);
    let (target, _) = restored(&bed, &[], 0);
    assert_eq!(dump(&target), dump(&file));
    let (target, _) = restored(&bed, &["--table", "child"], 0);
    let names = "SELECT table_name, comment FROM duckdb_tables() ORDER BY ALL";
    assert_eq!(sql(V, &target, &[names]), json!([["Parent", null], ["child", "small"]]));
    let indexes = "SELECT index_name FROM duckdb_indexes()";
    assert_eq!(sql(V, &target, &[indexes]), json!([["by_i"]]));
    let left_out = bed_with(&file, "exclude = [\"Parent\"]");
    left_out.run(&["export", "analytics"]).failed(78, "refers to \"main\".\"Parent\"");
}

#[test]
fn schemas_may_have_any_name() {
    let schemas = ["copy", "restored", "drill", "memory", "bkp_stage", "bkp_new", "bkp_shape"];
    let mut statements = vec!["CREATE MACRO one() AS 1".to_owned()];
    for schema in schemas {
        statements.push(format!("CREATE SCHEMA d.{schema}"));
        statements.push(format!("CREATE TABLE d.{schema}.t (i INTEGER PRIMARY KEY, s VARCHAR)"));
        statements.push(format!("INSERT INTO d.{schema}.t VALUES (1, '{schema}')"));
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("analytics.duckdb");
    let attach = format!("ATTACH '{}' AS d", file.display());
    statements.insert(0, attach);
    let words: Vec<&str> = statements.iter().map(String::as_str).collect();
    sql(V, Path::new(":memory:"), &words);
    let bed = bed(&file);
    export(&bed, &[]);
    sql(V, &file, &["UPDATE analytics.memory.t SET s = 'new'"]);
    let manifest = export(&bed, &["--scope", "incremental"]);
    let (target, _) = restored(&bed, &[], 0);
    assert_eq!(dump(&target), dump(&file));
    bed.run(&["verify", "--id", id(&manifest), "--level", "drill"]).done();
}

#[test]
fn patterns_that_match_nothing_are_reported() {
    let (_folder, file) = made(&[
        "CREATE TABLE orders AS SELECT 1 AS i",
        "CREATE TABLE log_a AS SELECT 1 AS i",
        "CREATE VIEW of_log AS FROM log_a",
    ]);
    let with = |lines: &str| bed_with(&file, lines);
    let none = with("tables = [\"order\", \"s.*\"]");
    none.run(&["export", "analytics"]).failed(78, "none of the 2 tables");
    assert!(none.stored().is_empty());
    let bed = with("tables = [\"orders\", \"sales_*\"]");
    let run = bed.run(&["export", "analytics", "--json"]);
    assert_eq!(run.code, Some(3), "{}{}", run.stdout, run.stderr);
    assert!(run.stderr.contains("main.sales_*"), "{}", run.stderr);
    let report: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(tables(&report["manifest"]), ["main.orders"]);
    // What needs what is left out is named, and nothing is missing.
    let bed = with("exclude = [\"log_*\"]");
    let run = bed.run(&["export", "analytics"]).done();
    assert!(run.stderr.contains("of_log"), "{}", run.stderr);
    let run = with("exclude = [\"LOG_*\", \"nix\"]").run(&["export", "analytics", "--json"]);
    assert!(run.stderr.contains("no table matches `main.nix` in `exclude`"), "{}", run.stderr);
    assert!(!run.stderr.to_lowercase().contains("`main.log_*`"), "{}", run.stderr);
    let report: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(tables(&report["manifest"]), ["main.orders"]);
}

/// A table that is left out because it cannot be made does not make every run a partial one.
#[test]
fn excluded_tables_are_not_checked() {
    let (_folder, file) = made(&["CREATE TABLE t AS SELECT 1 AS i"]);
    let attach = format!("ATTACH '{}' AS d", file.display());
    let odd = ["CREATE SCHEMA d.temp", "CREATE TABLE d.temp.odd AS SELECT 1 AS i"];
    sql(V, Path::new(":memory:"), &[&[attach.as_str()], &odd[..]].concat());
    assert_eq!(bed(&file).run(&["export", "analytics"]).code, Some(3));
    bed_with(&file, "exclude = [\"temp.*\"]").run(&["export", "analytics"]).done();
}

#[test]
fn keys_of_bits_and_columns_with_our_names_go_through_increments() {
    let (_folder, file) = made(&[
        "CREATE TABLE bits (b BIT PRIMARY KEY, v INTEGER)",
        "INSERT INTO bits VALUES ('0101', 1), ('11', 2), ('000', 3)",
        "CREATE TABLE moods (m ENUM('a', 'b'), t TIMESTAMP_S, v INTEGER, PRIMARY KEY (m, t))",
        "INSERT INTO moods VALUES ('a', '2024-01-01', 1), ('b', '2024-01-01', 2)",
        "CREATE TABLE tree (id INTEGER PRIMARY KEY, bkp_r INTEGER REFERENCES tree(id), \"BKP_R_\" INTEGER, bkp_k0 INTEGER, bkp_row INTEGER)",
        "INSERT INTO tree VALUES (1, NULL, 1, 1, 1)",
        "INSERT INTO tree VALUES (2, 1, 1, 1, 1)",
        "CREATE TABLE numbers AS SELECT 1 AS rowid, 2 AS file_row_number",
    ]);
    let bed = bed(&file);
    export(&bed, &[]);
    for change in [
        "UPDATE bits SET v = 7 WHERE b = '11'",
        "DELETE FROM bits WHERE b = '000'",
        "UPDATE moods SET v = 7 WHERE m = 'b'",
        "UPDATE tree SET bkp_k0 = 7 WHERE id = 2",
        "INSERT INTO numbers VALUES (1, 2)",
    ] {
        sql(V, &file, &[change]);
        let manifest = export(&bed, &["--scope", "incremental"]);
        assert_eq!(dump(&restore(&bed, id(&manifest))), dump(&file), "{change}");
    }
}

/// Where `a` equals `A` they are still two keys: a primary key compares bytes.
#[test]
fn keys_that_a_collation_takes_for_equal_are_told_apart() {
    let (_folder, file) = made(&[
        "CREATE TABLE words (k VARCHAR COLLATE NOCASE PRIMARY KEY, v INTEGER)",
        "INSERT INTO words VALUES ('a', 1), ('A', 2), ('b', 3), ('é', 4), ('É', 5), ('same', 6)",
        "CREATE TABLE pairs (k VARCHAR COLLATE NOCASE.NOACCENT, n INTEGER, PRIMARY KEY (k, n))",
        "INSERT INTO pairs VALUES ('e', 1), ('E', 1), ('é', 1), ('e', 2)",
        "CREATE TABLE bag AS SELECT k FROM words",
        "CREATE TABLE tree (id VARCHAR COLLATE NOCASE PRIMARY KEY, above VARCHAR COLLATE NOCASE REFERENCES tree(id))",
        "INSERT INTO tree VALUES ('A', NULL)",
        "INSERT INTO tree VALUES ('a', 'A')",
    ]);
    let equal = "SELECT count(*) FROM words WHERE k = 'a'";
    assert_eq!(sql(V, &file, &[equal]), json!([[2]]), "this engine has other collations");
    let bed = bed(&file);
    let full = export(&bed, &[]);
    assert_eq!(dump(&restore(&bed, id(&full))), dump(&file));
    for change in [
        "DELETE FROM words WHERE k COLLATE \"C\" = 'A'",
        "UPDATE words SET k = 'B' WHERE v = 3",
        "UPDATE words SET v = 7 WHERE v = 5",
        "INSERT INTO words VALUES ('A', 8)",
        "DELETE FROM words WHERE v = 1",
        "DELETE FROM pairs WHERE k COLLATE \"C\" = 'E'",
        "INSERT INTO pairs VALUES ('É', 1)",
        "DELETE FROM bag WHERE k COLLATE \"C\" = 'A'",
        "INSERT INTO tree VALUES ('B', 'a')",
        "INSERT INTO tree VALUES ('b', 'B')",
    ] {
        sql(V, &file, &[change]);
        let table =
            ["words", "pairs", "bag", "tree"].into_iter().find(|name| change.contains(name));
        let manifest = export(&bed, &["--scope", "incremental"]);
        assert_eq!(tables(&manifest), [format!("main.{}", table.unwrap())], "{change}");
        assert_eq!(dump(&restore(&bed, id(&manifest))), dump(&file), "{change}");
    }
}

/// A manifest takes what names there may be, and nobody writes one that nobody reads.
#[test]
fn long_names_fit_into_a_manifest() {
    let (_folder, file) = made(&["CREATE TABLE t AS SELECT 1 AS i"]);
    let names: Vec<String> = (0..300).map(|n| format!("t{n:03}{}", "x".repeat(4000))).collect();
    let create: Vec<String> =
        names.iter().map(|name| format!("CREATE TABLE {name} AS SELECT 1 AS i")).collect();
    sql(V, &file, &create.iter().map(String::as_str).collect::<Vec<_>>());
    let bed = bed(&file);
    export(&bed, &[]);
    let only = names[7].as_str();
    let (target, _) = restored(&bed, &["--table", only], 0);
    assert_eq!(sql(V, &target, &[&format!("FROM {only}")]), json!([[1]]));
}

/// A key's index has to fit into memory: too little is the machine's fault, not the backup's.
#[test]
fn out_of_memory_is_not_damage_and_names_the_key() {
    let (_folder, file) = made(&[
        "CREATE TABLE t (k VARCHAR PRIMARY KEY)",
        "INSERT INTO t SELECT md5(range::VARCHAR) FROM range(1500000)",
    ]);
    let bed = bed(&file);
    export(&bed, &[]);
    let config = fs::read_to_string(bed.path("bkp.toml")).unwrap();
    let small = config.replace("kind = \"duckdb\"", "kind = \"duckdb\"\nmemory = \"64MiB\"");
    fs::write(bed.path("bkp.toml"), small).unwrap();
    let target = bed.path("small.duckdb");
    let words = ["restore", "analytics", "--from-export", "--yes", "--to"];
    let run = bed.run(&[&words[..], &[target.to_str().unwrap()]].concat());
    let run = run.failed(1, "Out of Memory");
    assert!(run.stderr.contains("set `memory` in the source's table"), "{}", run.stderr);
    assert!(!target.exists());
    bed.run(&["verify", "--latest", "analytics", "--level", "drill"]).failed(1, "Out of Memory");
    for (lines, naming) in [
        ("memory = \"1MiB\"", "memory"),
        ("memory = \"much\"", "memory"),
        ("threads = 0", "threads"),
    ] {
        let wrong = config.replace("kind = \"duckdb\"", &format!("kind = \"duckdb\"\n{lines}"));
        fs::write(bed.path("bkp.toml"), wrong).unwrap();
        bed.run(&["export", "analytics"]).failed(78, naming);
    }
    fs::write(bed.path("bkp.toml"), config).unwrap();
    let (target, _) = restored(&bed, &[], 0);
    assert_eq!(sql(V, &target, &["SELECT count(*) FROM t"]), json!([[1_500_000]]));
}

/// Keys and hashes are read by the next increment, which cannot wait until an archive thaws.
#[test]
fn what_the_next_increment_reads_is_not_archived() {
    let (_folder, file) =
        made(&["CREATE TABLE t (i INTEGER PRIMARY KEY)", "INSERT INTO t VALUES (1)"]);
    let bed = bed(&file);
    let service = usual();
    bed.store_is(&service.table_at(
        &service.endpoint(),
        "backups",
        "storage_class = \"STANDARD_IA\"",
    ));
    let report = bed.json(&["export", "analytics"]);
    let url = report["store"].as_str().unwrap();
    let prefix = url.strip_prefix("s3:/").unwrap().split('?').next().unwrap();
    for (role, archived) in [("table", true), ("data", false), ("map", false)] {
        let key = objects(&report["manifest"], role)[0];
        let head = service.ask("HEAD", &format!("{prefix}/{key}"), &[]).done();
        let class = head.header("x-amz-storage-class");
        assert_eq!(class == Some("STANDARD_IA"), archived, "{role}: {}", head.0);
    }
}

/// A signal ends the statement that the engine is at, however long that would go on.
#[test]
fn a_signal_interrupts_the_engine() {
    let (_folder, file) = made(&[
        // Only a database with another name is slow to check: the one that is being built.
        "CREATE TABLE t (k VARCHAR PRIMARY KEY, CHECK (CASE WHEN current_database() = 'analytics' THEN true ELSE levenshtein(repeat(k, 2), reverse(repeat(k, 2))) > 0 END))",
        "INSERT INTO t SELECT md5(range::VARCHAR) FROM range(900000)",
    ]);
    let bed = bed(&file);
    let manifest = export(&bed, &[]);
    let target = bed.path("never.duckdb");
    let words = ["restore", "--id", id(&manifest), "--yes", "--to", target.to_str().unwrap()];
    let mut command = bed.command(&words);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let workshops = || {
        let entries = fs::read_dir(bed.path("")).unwrap().map(|entry| entry.unwrap().path());
        let is_ours = |path: &PathBuf| path.display().to_string().contains("/.bkp-tmp-");
        entries.filter(is_ours).collect::<Vec<_>>()
    };
    // All rows go in by one statement. The file grows with the first eighth of them.
    let is_loading = |folder: &PathBuf| {
        let built = fs::metadata(folder.join("bkp_6f3a90c1.duckdb"));
        built.is_ok_and(|found| found.len() > 1 << 20)
    };
    while !workshops().iter().any(is_loading) {
        assert_eq!(child.try_wait().unwrap(), None, "it ended before it was seen to load rows");
        std::thread::yield_now();
    }
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let run = Run::of(&child.wait_with_output().unwrap());
    assert_eq!(run.code, Some(143), "{}", run.stderr);
    assert!(run.stderr.contains("terminated by a signal"), "{}", run.stderr);
    assert!(!target.exists());
    assert_eq!(workshops(), Vec::<PathBuf>::new());
}

/// Where the linked engine hashes in another way, rows are counted; only what was removed from a table
/// without a key cannot be told then.
#[test]
fn an_export_of_an_engine_with_other_hashes_is_restored() {
    let (_folder, file) = made(&[
        "CREATE TABLE keyed (k INTEGER PRIMARY KEY, v VARCHAR)",
        "INSERT INTO keyed SELECT range, 'x' FROM range(1000)",
        "CREATE TABLE bag AS SELECT 1 AS i FROM range(10)",
        "CREATE TABLE still AS SELECT 1 AS i FROM range(10)",
    ]);
    let bed = bed(&file);
    let foreign = |index: &mut Value| index["probe"] = json!("other hashes");
    let full = export(&bed, &[]);
    reindex(&bed, &full, &foreign);
    let (target, report) = restored(&bed, &[], 0);
    assert_eq!(dump(&target), dump(&file));
    assert!(report["next"].as_str().unwrap().contains("hashes were not compared"), "{report}");
    // Nothing can be told from it: the next one has all.
    let next = export(&bed, &["--scope", "incremental"]);
    assert_eq!(tables(&next), ["main.bag", "main.keyed", "main.still"]);
    sql(V, &file, &["DELETE FROM keyed WHERE k = 7", "UPDATE keyed SET v = 'y' WHERE k = 8"]);
    sql(V, &file, &["DELETE FROM bag WHERE rowid = 3"]);
    let last = export(&bed, &["--scope", "incremental"]);
    assert_eq!(tables(&last), ["main.bag", "main.keyed"]);
    reindex(&bed, &last, &foreign);
    let (target, report) = restored(&bed, &[], 3);
    assert!(report["lost"].to_string().contains("bag"), "{report}");
    let content = "SELECT count(*), bit_xor(hash(k, v))::VARCHAR FROM keyed";
    assert_eq!(sql(V, &target, &[content]), sql(V, &file, &[content]));
    assert_eq!(sql(V, &target, &["SELECT count(*) FROM still"]), json!([[10]]));
    // A count that differs is damage.
    reindex(&bed, &last, &|index| {
        let mut tables = index["tables"].as_array_mut().unwrap().iter_mut();
        tables.find(|table| table["name"] == "keyed").unwrap()["content"]["rows"] = json!(77);
    });
    let (target, report) = restored(&bed, &[], 3);
    assert!(report["lost"].to_string().contains("recorded 77"), "{report}");
    assert_eq!(sql(V, &target, &[content]), sql(V, &file, &[content]));
    bed.run(&["verify", "--id", id(&last), "--level", "drill"]).failed_in_text(3, "recorded 77");
}
