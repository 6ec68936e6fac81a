//! Exports: Parquet and back, in full and as changes. What is restored is compared by an engine that
//! knows nothing of bkp.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::bed::Run;
use crate::support::duck::{
    self, V, Writer, bed, bed_with, dump, engine, export, hidden, id, objects, restore, rounds, sql,
};

#[test]
fn every_type_comes_back_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("analytics.duckdb");
    let run = Run::of(&engine(V, &["types", file.to_str().unwrap()]).output().unwrap()).done();
    assert!(run.stdout.trim().parse::<u32>().unwrap() > 60, "{}", run.stdout);
    let bed = bed(&file);
    let manifest = export(&bed, &[]);
    assert_eq!(dump(&restore(&bed, id(&manifest))), dump(&file));
    bed.run(&["verify", "--id", id(&manifest), "--level", "decode"]).done();
    let drill = bed.json(&["verify", "--id", id(&manifest), "--level", "drill"]);
    assert_eq!(drill["drill"]["compared"], "equal");
}

/// A schema with everything that DuckDB's own export loses or fails at.
const SCHEMA: &[&str] = &[
    "CREATE SCHEMA \"odd \"\"schema\"",
    "CREATE TYPE mood AS ENUM ('a', 'b''c')",
    "CREATE TYPE pair AS STRUCT(x INTEGER, \"Y z\" INTERVAL)",
    "CREATE SEQUENCE plain START 5 INCREMENT 2",
    "SELECT nextval('plain'), nextval('plain')",
    "CREATE SEQUENCE round MINVALUE 1 MAXVALUE 3 CYCLE",
    "SELECT nextval('round'), nextval('round'), nextval('round')",
    "CREATE MACRO plus(a, b := 3) AS a + b",
    "CREATE MACRO several(a) AS a + 1, (a, b) AS a * b",
    "CREATE MACRO rows_of(n) AS TABLE SELECT range AS r FROM range(n)",
    "CREATE TABLE parent (i INTEGER PRIMARY KEY, m mood, p pair, d INTEGER DEFAULT nextval('plain'), g INTEGER GENERATED ALWAYS AS (i + 1), f VARCHAR COLLATE nocase CHECK (f <> 'x'), u VARCHAR UNIQUE)",
    "INSERT INTO parent (i, m, p, f, u) VALUES (1, 'b''c', {x: 1, \"Y z\": INTERVAL '-1 month'}, 'A', NULL), (2, NULL, NULL, NULL, 'u')",
    "CREATE TABLE child (c INTEGER, i INTEGER REFERENCES parent(i))",
    "INSERT INTO child VALUES (1, 1), (1, 1), (2, NULL)",
    "CREATE TABLE tree (id INTEGER PRIMARY KEY, above INTEGER REFERENCES tree(id))",
    "INSERT INTO tree VALUES (9, NULL)",
    "INSERT INTO tree SELECT 9 - i, 10 - i FROM range(1, 9) r(i) WHERE i = 1",
    "INSERT INTO tree VALUES (1, 8)",
    "INSERT INTO tree VALUES (0, 1)",
    "CREATE TABLE nothing (\"a,(b\" INTEGER, \"select\" VARCHAR)",
    "CREATE TABLE \"odd \"\"schema\".\"../../evil\" (\"q\"\"u\" INTEGER NOT NULL, \"z\" DECIMAL(18,3) DEFAULT 1.5)",
    "INSERT INTO \"odd \"\"schema\".\"../../evil\" VALUES (1, 2), (1, 2)",
    "CREATE TABLE \"T\u{e9}st\n2\" AS SELECT 1 AS \"\u{1f600}\", 'it''s' AS bkp_h",
    "CREATE VIEW second AS SELECT i + 1 AS k FROM parent",
    "CREATE VIEW first AS SELECT plus(k) AS k FROM second",
    "CREATE INDEX by_m ON parent(m)",
    "CREATE UNIQUE INDEX \"u x\" ON nothing(\"a,(b\", (\"select\" || 'x'))",
    "COMMENT ON TABLE parent IS 'it''s'",
    "COMMENT ON COLUMN parent.m IS 'of a column'",
    "COMMENT ON VIEW first IS 'of a view'",
    "COMMENT ON INDEX by_m IS 'of an index'",
    "COMMENT ON SEQUENCE plain IS 'of a sequence'",
    "COMMENT ON TYPE mood IS 'of a type'",
    "COMMENT ON MACRO plus IS 'of a macro'",
    "COMMENT ON MACRO TABLE rows_of IS 'of a table macro'",
];

#[test]
fn every_kind_of_object_comes_back_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("analytics.duckdb");
    sql(V, &file, SCHEMA);
    let bed = bed(&file);
    let manifest = export(&bed, &[]);
    assert_eq!(manifest["capture"]["lost"], json!([]));
    let restored = restore(&bed, id(&manifest));
    assert_eq!(dump(&restored), dump(&file));
    // A sequence goes on where it was, a macro knows its defaults.
    for query in
        ["SELECT nextval('plain')", "SELECT nextval('round')", "SELECT plus(1), several(2, 3)"]
    {
        let before = sql(V, &file, &[query]);
        assert_eq!(sql(V, &restored, &[query]), before, "{query}");
    }
    // One table comes with those that it refers to.
    let only = bed.path("only.duckdb");
    let to = only.to_str().unwrap();
    let words = ["restore", "analytics", "--from-export", "--yes", "--to", to, "--table"];
    bed.run(&[&words[..], &["absent"]].concat()).failed(10, "no table `absent`");
    bed.run(&[&words[..], &["main.child"]].concat()).done();
    let tables = "SELECT table_name, estimated_size FROM duckdb_tables() ORDER BY ALL";
    assert_eq!(sql(V, &only, &[tables]), json!([["child", 3], ["parent", 2]]));
    bed.run(&["restore", "analytics", "--to", "x", "--yes"]).failed(10, "exports");
}

/// Adds a table that no export can have: its schema has the name of a catalog, so a statement for what is
/// in it is ambiguous.
fn add_odd(file: &Path) {
    let attach = format!("ATTACH '{}' AS d", file.display());
    let temp = ["CREATE SCHEMA d.temp", "CREATE TABLE d.temp.odd AS SELECT 1 i"];
    sql(V, Path::new(":memory:"), &[&[attach.as_str()], &temp[..]].concat());
}

#[test]
fn what_cannot_be_exported_is_named_and_the_run_is_partial() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("analytics.duckdb");
    let gone = [
        "CREATE TABLE t AS SELECT 1 i",
        "CREATE TABLE u AS SELECT 1 i",
        "CREATE VIEW dangling AS FROM u",
        "DROP TABLE u",
    ];
    sql(V, &file, &gone);
    add_odd(&file);
    let bed = bed(&file);
    let run = bed.run(&["export", "analytics", "--json"]);
    assert_eq!(run.code, Some(3), "{}{}", run.stdout, run.stderr);
    assert!(run.stderr.contains("odd"), "{}", run.stderr);
    let report: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(report["manifest"]["capture"]["lost"].as_array().unwrap().len(), 1);
    let target = bed.path("partial.duckdb");
    let to = target.to_str().unwrap();
    let id = id(&report["manifest"]);
    let run = bed.run(&["restore", "--id", id, "--to", to, "--yes", "--json"]);
    assert_eq!(run.code, Some(3), "{}{}", run.stdout, run.stderr);
    let report: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(report["lost"].as_array().unwrap().len(), 1);
    assert!(report["lost"][0].as_str().unwrap().contains("odd"), "{report}");
    assert_eq!(sql(V, &target, &["FROM t"]), json!([[1]]));
    // A view over a table that is gone is one again.
    sql(V, &target, &["CREATE TABLE u AS SELECT 5 i"]);
    assert_eq!(sql(V, &target, &["FROM dangling"]), json!([[5]]));
}

/// A schema that could be recreated is not tried again before it changes; one that could not is named every time.
#[test]
fn increments_name_what_a_schema_lacks_since_the_last_one() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("analytics.duckdb");
    sql(V, &file, &["CREATE TABLE t AS SELECT 1 i", "CREATE VIEW v AS FROM t"]);
    let bed = bed(&file);
    let words = ["export", "analytics", "--scope", "incremental"];
    let increment = || bed.run(&words);
    bed.run(&["export", "analytics"]).done();
    increment().done();
    add_odd(&file);
    for _ in 0..2 {
        let run = increment();
        assert_eq!(run.code, Some(3), "{}{}", run.stdout, run.stderr);
        assert!(run.stderr.contains("odd"), "{}", run.stderr);
    }
    sql(V, &file, &["DROP SCHEMA temp CASCADE", "SELECT 1"]);
    for _ in 0..2 {
        increment().done();
    }
}

/// Each step is a state that a chain must bring back.
const STEPS: &[&[&str]] = &[
    &[
        "UPDATE keyed SET s = 'changed' WHERE i % 100 = 3",
        "DELETE FROM keyed WHERE i % 100 = 4",
        "INSERT INTO keyed SELECT range, 7, 'new', INTERVAL '-1 day' FROM range(100000, 100100)",
    ],
    &[],
    &[
        "INSERT INTO bag SELECT 1, 'twice' FROM range(3)",
        "DELETE FROM bag WHERE rowid IN (SELECT min(rowid) FROM bag WHERE a = 5)",
    ],
    &[
        "DELETE FROM bag WHERE b = 'twice' AND rowid = (SELECT min(rowid) FROM bag WHERE b = 'twice')",
        "UPDATE bag SET a = NULL WHERE a = 9",
    ],
    &[
        "ALTER TABLE keyed ADD COLUMN more VARCHAR DEFAULT 'x'",
        "DROP TABLE quiet",
        "CREATE TABLE fresh AS SELECT 1 i",
    ],
    &[
        "DELETE FROM keyed WHERE i < 500",
        "INSERT INTO keyed SELECT range, 1, 'back', NULL, NULL FROM range(100)",
        "DELETE FROM two WHERE a = 1",
        "INSERT INTO two VALUES (1, 'x', 5)",
    ],
    &[
        "UPDATE keyed SET s = s WHERE i = 700",
        "DELETE FROM bag",
        "CREATE OR REPLACE TABLE fresh AS SELECT 2 i, 3 j",
    ],
    &[
        "INSERT INTO bag VALUES (NULL, NULL), (NULL, NULL), (1, '')",
        "INSERT INTO big VALUES (170141183460469231731687303715884105727, 1)",
    ],
    &["UPDATE big SET v = 2 WHERE v = 1", "DELETE FROM nested WHERE l IS NULL"],
    &["UPDATE nested SET l = [NULL] WHERE l = []", "DELETE FROM two"],
];

#[test]
fn a_chain_of_increments_restores_to_each_step() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("analytics.duckdb");
    sql(
        V,
        &file,
        &[
            "CREATE TABLE keyed (i BIGINT PRIMARY KEY, n INTEGER, s VARCHAR, v INTERVAL)",
            "INSERT INTO keyed SELECT range, range % 7, md5(range::VARCHAR), to_days((range % 5)::INTEGER) FROM range(20000)",
            "CREATE TABLE two (a INTEGER, b VARCHAR, c INTEGER, PRIMARY KEY (b, a))",
            "INSERT INTO two VALUES (1, 'x', 1), (1, 'y', 2), (2, 'x', 3)",
            "CREATE TABLE big (k HUGEINT PRIMARY KEY, v INTEGER)",
            "CREATE TABLE bag AS SELECT range % 10 AS a, 'same' AS b FROM range(1000)",
            "CREATE TABLE nested AS SELECT unnest([NULL, [], [NULL], [1, 2]]::INTEGER[][]) AS l",
            "CREATE TABLE quiet AS SELECT range i FROM range(100000)",
        ],
    );
    let bed = bed(&file);
    let full = export(&bed, &[]);
    let mut states = vec![(full, dump(&file))];
    for statements in STEPS {
        let statements = if statements.is_empty() { &["SELECT 1"][..] } else { statements };
        sql(V, &file, statements);
        let manifest = export(&bed, &["--scope", "incremental"]);
        assert_eq!(manifest["parent"], states.last().unwrap().0["id"]);
        states.push((manifest, dump(&file)));
    }
    let tables = |step: usize| -> Vec<String> {
        let keys = objects(&states[step].0, "table").into_iter();
        keys.map(|key| key.rsplit('-').next().unwrap().to_owned()).collect()
    };
    // What did not change is not there.
    assert_eq!(tables(1), ["main.keyed.parquet.enc"]);
    assert!(tables(2).is_empty());
    assert_eq!(tables(3), ["main.bag.parquet.enc"]);
    assert_eq!(tables(5), ["main.fresh.parquet.enc", "main.keyed.parquet.enc"]);
    let stored = |step: usize| states[step].0["sizes"]["stored_bytes"].as_u64().unwrap();
    assert!(stored(1) * 5 < stored(0), "{} of {}", stored(1), stored(0));
    for (step, (manifest, state)) in states.iter().enumerate() {
        assert_eq!(&dump(&restore(&bed, id(manifest))), state, "step {step}");
    }
    let (last, third) = (&states.last().unwrap().0, &states[3]);
    bed.run(&["verify", "--id", id(last), "--level", "drill"]).done();
    // By time: the newest export until then.
    let at = third.0["started"].as_str().unwrap();
    let target = bed.path("at.duckdb");
    let words = ["restore", "analytics", "--from-export", "--at", at, "--yes", "--to"];
    bed.run(&[&words[..], &[target.to_str().unwrap()]].concat()).done();
    assert_eq!(dump(&target), third.1);
    // One table through the whole chain.
    let only = bed.path("only.duckdb");
    let words = ["restore", "analytics", "--from-export", "--table", "main.keyed", "--yes", "--to"];
    bed.run(&[&words[..], &[only.to_str().unwrap()]].concat()).done();
    let content = "SELECT count(*), bit_xor(hash(*COLUMNS(*)))::VARCHAR FROM keyed";
    assert_eq!(sql(V, &only, &[content]), sql(V, &file, &[content]));
    // Another host goes on with the chain: all it needs is in the store.
    sql(V, &file, &["DELETE FROM keyed WHERE i = 1000"]);
    let words = ["export", "analytics", "--scope", "auto", "--json"];
    let run = Run::of(&bed.on_host(2, &words).output().unwrap()).done();
    let report: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(report["manifest"]["parent"], last["id"]);
    assert_eq!(dump(&restore(&bed, id(&report["manifest"]))), dump(&file));
}

/// Tables with keys of every kind: names, columns, values.
const KEYS: [(&str, &str, &str); 5] = [
    ("number", "k BIGINT PRIMARY KEY", "range"),
    ("wide", "k VARCHAR COLLATE NOCASE PRIMARY KEY", "'Key ' || range"),
    ("pair", "k INTEGER, l VARCHAR, PRIMARY KEY (k, l)", "range % 100, (range // 100)::VARCHAR"),
    ("float", "k DOUBLE PRIMARY KEY", "range / 8"),
    ("rowid", "rowid BIGINT PRIMARY KEY", "range"),
];

/// Texts that no encoding makes smaller, so that bytes speak of rows, and the value that is changed.
const FILL: &str = "md5(range::VARCHAR), range";

/// The tables that an export has objects for, and their bytes.
fn table_sizes(manifest: &Value) -> Vec<(String, u64)> {
    let objects = manifest["objects"].as_array().unwrap().iter();
    let tables = objects.filter(|object| object["role"] == "table");
    let size = |object: &Value| {
        let name = object["key"].as_str().unwrap().split(".parquet").next().unwrap();
        let table = name.rsplit_once('.').unwrap().1.to_owned();
        (table, object["bytes"].as_u64().unwrap())
    };
    tables.map(size).collect()
}

/// Keys of every kind; and rows in another order, of which too many would wait for each other.
#[test]
fn what_changed_is_found_in_one_pass_or_by_a_join() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("analytics.duckdb");
    let mut statements = Vec::new();
    for (table, columns, values) in KEYS {
        statements.push(format!("CREATE TABLE {table} (f VARCHAR, v INTEGER, {columns})"));
        statements.push(format!("INSERT INTO {table} SELECT {FILL}, {values} FROM range(5000)"));
    }
    // Of 128 bits, 0 and -1 have the same hash.
    for (table, key) in [("folded", "PRIMARY KEY"), ("bag", "")] {
        let columns = format!("k INTEGER {key}, h HUGEINT, d DECIMAL(38,2)");
        statements.push(format!("CREATE TABLE {table} ({columns})"));
        statements.push(format!("INSERT INTO {table} VALUES (1, 0, 0), (2, -1, -0.01)"));
    }
    statements.push("CREATE TABLE turned (k BIGINT PRIMARY KEY, v INTEGER)".to_owned());
    statements.push("INSERT INTO turned SELECT range, range FROM range(300000)".to_owned());
    let make: Vec<&str> = statements.iter().map(String::as_str).collect();
    sql(V, &file, &make);
    let bed = bed_with(&file, "memory = \"128MiB\"");
    let mut manifests = vec![table_sizes(&export(&bed, &[]))];
    for round in 0..3 {
        let mut statements = Vec::new();
        for (table, _, values) in KEYS {
            let range = format!("range({}, {})", 5000 + round * 100, 5150 + round * 100);
            statements.push(format!("DELETE FROM {table} WHERE v % 100 = {}", 90 - round));
            statements.push(format!("UPDATE {table} SET v = -v - 1 WHERE v % 97 = {round}"));
            statements.push(format!(
                "INSERT OR REPLACE INTO {table} SELECT {FILL}, {values} FROM {range}"
            ));
        }
        for table in ["folded", "bag"] {
            let column = ["h = -h - 1", "d = -d - 0.01", "h = -h - 1, d = -d - 0.01"][round];
            statements.push(format!("UPDATE {table} SET {column}"));
        }
        if round == 1 {
            let turned = "SELECT k, v + (k % 100 = 0)::INTEGER FROM turned ORDER BY k DESC";
            statements.push(format!("CREATE TEMP TABLE t AS {turned}"));
            statements.push("DELETE FROM turned".to_owned());
            statements.push("CHECKPOINT".to_owned());
            statements.push("INSERT INTO turned SELECT * FROM temp.t".to_owned());
        }
        let change: Vec<&str> = statements.iter().map(String::as_str).collect();
        sql(V, &file, &change);
        let run = bed.run(&["export", "analytics", "--scope", "incremental", "-v"]).done();
        let joined = run.stderr.contains("main.turned: too much of it differs");
        assert_eq!(joined, round == 1, "round {round}: {}", run.stderr);
        assert_eq!(run.stderr.matches("compared by a join").count(), usize::from(round == 1));
        let restored = bed.path(&format!("restored-{round}"));
        let to = ["--to", restored.to_str().unwrap(), "--yes"];
        bed.run(&[&["restore", "analytics", "--from-export"][..], &to].concat()).done();
        assert_eq!(dump(&restored), dump(&file), "round {round}");
        let listed = bed.json(&["list", "--long"]);
        manifests.push(table_sizes(&listed["backups"][round + 1]["manifest"]));
    }
    // An increment that took everything anew would be right, too, but none.
    for (table, ..) in KEYS {
        let full = manifests[0].iter().find(|(of, _)| of == table).unwrap().1;
        for sizes in &manifests[1..] {
            let changed = sizes.iter().find(|(of, _)| of == table).map_or(0, |(_, bytes)| *bytes);
            assert!(changed * 2 < full, "{table}: {changed} of {full}");
        }
    }
}

#[test]
fn unsealed_tables_are_plain_parquet_and_patterns_select_them() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("analytics.duckdb");
    sql(
        V,
        &file,
        &[
            "CREATE TABLE orders AS SELECT range i FROM range(1000)",
            "CREATE TABLE log_a AS SELECT 1 i",
            "CREATE VIEW of_log AS FROM log_a",
            "COMMENT ON TABLE log_a IS 'left out'",
            "CREATE SCHEMA s",
            "CREATE TABLE s.orders AS SELECT 2 i",
        ],
    );
    let bed = bed_with(&file, "encryption = \"none\"\nexclude = [\"main.log_*\"]");
    let manifest = export(&bed, &[]);
    let keys = objects(&manifest, "table");
    assert_eq!(keys.len(), 2, "{keys:?}");
    for (key, rows) in keys.iter().zip([1000, 1]) {
        let path = bed.path("store").join(key);
        assert_eq!(path.extension().unwrap(), "parquet");
        let count = format!("SELECT count(*) FROM '{}'", path.display());
        assert_eq!(sql(V, Path::new(":memory:"), &[&count]), json!([[rows]]));
    }
    let script = bed.path("store").join(objects(&manifest, "schema")[0]);
    assert!(fs::read_to_string(script).unwrap().contains("CREATE TABLE \"s\".\"orders\""));
    let restored = restore(&bed, id(&manifest));
    assert_eq!(sql(V, &restored, &["SELECT count(*) FROM orders"]), json!([[1000]]));
    // What was changed in the store does not get far.
    let path = bed.path("store").join(keys[0]);
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::remove_file(&path).unwrap();
    fs::write(&path, bytes).unwrap();
    let target = bed.path("never.duckdb");
    let words = ["restore", "--id", id(&manifest), "--yes", "--to", target.to_str().unwrap()];
    bed.run(&words).failed(13, "SHA-256");
    assert!(!target.exists());
}

#[test]
fn a_hammered_database_is_exported_as_of_one_moment() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("analytics.duckdb");
    let writer = Writer::start(V, "v1.0.0", &file, 20_000);
    let bed = bed(&file);
    let mut taken: Vec<(String, u64, u64)> = Vec::new();
    for round in 0..rounds().min(10) {
        let low = writer.committed();
        let scope = if round == 0 { "full" } else { "incremental" };
        let manifest = export(&bed, &["--scope", scope]);
        let high = writer.committed() + 1;
        taken.push((id(&manifest).to_owned(), low, high));
        writer.reach(high + 3);
    }
    for (id, low, high) in &taken {
        let restored: PathBuf = restore(&bed, id);
        writer.judge(&restored, *low, *high);
    }
    writer.stop();
    assert!(hidden(&bed.path("state/work")).is_empty());
}

#[test]
fn a_file_that_the_linked_engine_cannot_read_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret.duckdb");
    let attach = format!("ATTACH '{}' AS d (ENCRYPTION_KEY 'key')", secret.display());
    // Without this setting only an extension encrypts what is written.
    let allow = "SET force_mbedtls_unsafe = 'true'";
    sql(V, Path::new(":memory:"), &[allow, &attach, "CREATE TABLE d.t AS SELECT 1 i"]);
    let mut files = vec![(secret, "it is encrypted")];
    let later = folder.path().join("later.duckdb");
    sql("2.0.0", &later, &["CREATE TABLE t AS SELECT 1 i"]);
    if duck::linked().starts_with("1.") {
        files.push((later, "storage version is v2.0.0"));
    }
    for (file, reason) in files {
        let bed = bed(&file);
        let run = bed.run(&["export", "analytics"]).failed(15, reason);
        assert!(run.stderr.contains("bkp snapshot"), "{}", run.stderr);
        assert!(bed.stored().is_empty());
        let restored = restore(&bed, id(&duck::snapshot(&bed, &[])));
        if reason.contains("encrypted") {
            let attach =
                format!("ATTACH '{}' AS d (ENCRYPTION_KEY 'key', READ_ONLY)", restored.display());
            assert_eq!(sql(V, Path::new(":memory:"), &[&attach, "FROM d.t"]), json!([[1]]));
        } else {
            assert_eq!(sql("2.0.0", &restored, &["FROM t"]), json!([[1]]));
        }
    }
}

#[test]
fn the_catalog_is_a_table() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("analytics.duckdb");
    sql(V, &file, &["CREATE TABLE t AS SELECT 1 i"]);
    let bed = bed(&file);
    let snapshot = duck::snapshot(&bed, &[]);
    let exported = export(&bed, &[]);
    let target = bed.path("catalog.duckdb");
    let words = ["catalog", "--to", target.to_str().unwrap()];
    bed.run(&words).done();
    bed.run(&words).failed(14, "already exists");
    bed.run(&[&words[..], &["--force"]].concat()).done();
    let query = "SELECT id, backup_type, backup_scope, status, kind, encryption, backup_size_bytes FROM backup_metadata ORDER BY id";
    let row = |manifest: &Value, kind: &str| {
        json!([
            manifest["id"],
            "duckdb",
            "full",
            "completed",
            kind,
            "aes256-gcm",
            manifest["sizes"]["stored_bytes"]
        ])
    };
    let expected = json!([row(&snapshot, "snapshot"), row(&exported, "export")]);
    assert_eq!(sql(V, &target, &[query]), expected);
    let found = bed.json(&[
        "list",
        "--sql",
        "SELECT kind, count(*) AS n FROM backup_metadata GROUP BY ALL ORDER BY 1;",
    ]);
    assert_eq!(found["columns"], json!(["kind", "n"]));
    assert_eq!(found["rows"], json!([["export", "1"], ["snapshot", "1"]]));
    bed.run(&["list", "--sql", "SELECT nonsense FROM backup_metadata"]).failed(2, "nonsense");
    bed.run(&["list", "--sql", "SELECT * FROM read_text('/etc/hostname')"]).failed(2, "disabled");
}

/// Before the first export, `doctor` makes one and keeps nothing of it: what an export would lack is known
/// before anybody relies on it.
#[test]
fn doctor_checks_an_export() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("analytics.duckdb");
    sql(V, &file, &["CREATE TABLE t AS FROM range(1000) r(i)"]);
    let bed = bed_with(
        &file,
        "[job.nightly]\nrun = \"export\"\nsource = \"analytics\"\nevery = \"1d\"\nscope = \"full\"\n",
    );
    let run = bed.run(&["doctor"]).done();
    assert!(run.stdout.contains("discarded it"), "{}", run.stdout);
    // The limits that stay are told before they are met.
    for limit in ["exports have 512 MiB", "the index of a key has to fit", "more than 1000 tables"]
    {
        assert!(run.stdout.contains(limit), "{limit}: {}", run.stdout);
    }
    assert_eq!(bed.json(&["list"])["backups"], json!([]));
    let left = fs::read_dir(bed.path("state").join("work")).map_or(0, Iterator::count);
    assert_eq!(left, 0);
    add_odd(&file);
    bed.run(&["doctor"]).failed_in_text(15, "cannot be exported");
}
