//! An export that exits with 0 can be restored to equal rows and objects.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::bed::Bed;
use crate::support::duck::{
    V, abandon, bed, bed_with, dump, export, id, objects, reindex, restore, snapshot, sql,
};

/// A database of this storage version that these statements make.
fn made(storage: &str, statements: &[&str]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("analytics.duckdb");
    let attach = format!("ATTACH '{}' AS d (STORAGE_VERSION '{storage}')", file.display());
    sql(
        V,
        Path::new(":memory:"),
        &[&[attach.as_str(), "USE d"], statements, &["SELECT 1"]].concat(),
    );
    (folder, file)
}

/// Exports, drills and restores the newest export: each with exit 0.
#[track_caller]
fn back(bed: &Bed, words: &[&str]) -> PathBuf {
    let manifest = export(bed, words);
    bed.run(&["verify", "--id", id(&manifest), "--level", "decode"]).done();
    bed.run(&["verify", "--id", id(&manifest), "--level", "drill"]).done();
    restore(bed, id(&manifest))
}

/// Databases that could not be exported, or whose exports could not be restored, or never with exit 0.
const ORDINARY: &[(&str, &str, &[&str])] = &[
    (
        "a union of lists",
        "v1.0.0",
        &[
            "CREATE TABLE t (v UNION(x VARCHAR[], y INT))",
            "INSERT INTO t VALUES (['a']), (7), (NULL)",
        ],
    ),
    (
        "a union of maps, arrays, unions and moments",
        "v1.0.0",
        &[
            "CREATE TABLE t (v UNION(m MAP(VARCHAR, INT), a INT[2], u UNION(i INT, s VARCHAR), t TIMESTAMP_MS))",
            "INSERT INTO t VALUES (MAP {'k': 1}), ([1, 2]::INT[2]), (TIMESTAMP_MS '2024-01-01 00:00:00.123')",
        ],
    ),
    (
        "geometries in lists and structs",
        "v1.5.0",
        &[
            "CREATE TABLE t (v GEOMETRY[], s STRUCT(g GEOMETRY), z GEOMETRY)",
            "INSERT INTO t VALUES (['POINT(1 2)'::GEOMETRY], {'g': 'POINT M(0 0 1)'::GEOMETRY}, 'POINT(1 2)'::GEOMETRY)",
        ],
    ),
    (
        "a generated column by a macro",
        "v1.0.0",
        &[
            "CREATE MACRO addx(a, b) AS a + b",
            "CREATE TABLE t (a INT, b INT AS (addx(a, 1)))",
            "INSERT INTO t(a) VALUES (3)",
        ],
    ),
    (
        // DuckDB 1.5 tells them without quotes.
        "references to tables with odd names",
        "v1.0.0",
        &[
            "CREATE SCHEMA \"o s\"",
            "CREATE TABLE \"o s\".\"sel\"\"ect2\" (id INT PRIMARY KEY, \"a b\" INT UNIQUE)",
            "INSERT INTO \"o s\".\"sel\"\"ect2\" VALUES (1, 2)",
            "CREATE TABLE \"o s\".t (x INT REFERENCES \"o s\".\"sel\"\"ect2\"(id), \"y z\" INT, c INT AS (x + 1), FOREIGN KEY (\"y z\") REFERENCES \"o s\".\"sel\"\"ect2\"(\"a b\"))",
            "INSERT INTO \"o s\".t VALUES (1, 2)",
            "CREATE TABLE p (i INT PRIMARY KEY)",
            "CREATE TABLE zz (i INT PRIMARY KEY)",
            "CREATE TABLE \"zz(i), FOREIGN KEY (x) REFERENCES p\" (i INT PRIMARY KEY)",
            "INSERT INTO p VALUES (1)",
            "INSERT INTO \"zz(i), FOREIGN KEY (x) REFERENCES p\" VALUES (7)",
            "CREATE TABLE w (x INT, y INT, d VARCHAR, FOREIGN KEY (x) REFERENCES p(i), FOREIGN KEY (y) REFERENCES \"zz(i), FOREIGN KEY (x) REFERENCES p\"(i), CHECK (d <> 'FOREIGN KEY (x) REFERENCES p(i)'))",
            "INSERT INTO w VALUES (1, 7, 'FOREIGN KEY (x) REFERENCES \"main\".\"p\"(\"i\")')",
            "CREATE TABLE \"order\" (id INT PRIMARY KEY)",
            "CREATE TABLE u (x INT REFERENCES \"order\"(id), y VARCHAR DEFAULT 'FOREIGN KEY (x) REFERENCES order(id)')",
        ],
    ),
    (
        // DuckDB 1.5 cannot open its own file again if the comment comes in a later session than the table.
        "a comment on a table that another one refers to and that calls a macro",
        "v1.0.0",
        &[
            "CREATE TYPE mood AS ENUM ('sad')",
            "CREATE SEQUENCE seq",
            "CREATE MACRO addup(a, b := 7) AS (a + b)",
            "CREATE TABLE it (id BIGINT PRIMARY KEY DEFAULT nextval('seq'), n INT DEFAULT addup(1), up BIGINT, CHECK (addup(n, b := 1) > -99), FOREIGN KEY (up) REFERENCES it(id))",
            "CREATE TABLE y (id BIGINT DEFAULT nextval('seq'), g BIGINT AS (addup(id, 5)), parent BIGINT, FOREIGN KEY (parent) REFERENCES it(id))",
            "COMMENT ON TABLE it IS 'a comment'",
            "COMMENT ON COLUMN it.id IS 'of a column'",
        ],
    ),
    (
        "a type of another one",
        "v1.0.0",
        &["CREATE TYPE mood AS ENUM ('a')", "CREATE TYPE lst AS mood[]", "CREATE MACRO m(x) AS x"],
    ),
    (
        "types without macros",
        "v1.0.0",
        &["CREATE TYPE mood AS ENUM ('a')", "CREATE TYPE lst AS mood[]"],
    ),
    (
        "a check by a macro",
        "v1.0.0",
        &["CREATE MACRO addx(a, b) AS a + b", "CREATE TABLE t (b INT CHECK (addx(b, 1) > 0))"],
    ),
    (
        "a table that refers to itself by its old name",
        "v1.0.0",
        &[
            "CREATE TABLE t (id INT PRIMARY KEY, up INT REFERENCES t(id))",
            "INSERT INTO t VALUES (1, NULL)",
            "ALTER TABLE t RENAME TO rt",
        ],
    ),
    (
        "a state of an aggregate",
        "v1.0.0",
        &["CREATE TABLE t AS SELECT sum(i) EXPORT_STATE s FROM range(5) x(i)"],
    ),
    (
        "a macro with a default, used by a default and an index",
        "v1.0.0",
        &[
            "CREATE MACRO em(x, y := 7) AS x + y",
            "CREATE TABLE t (a INT DEFAULT em(1), b INT)",
            "INSERT INTO t (b) VALUES (1), (2)",
            "CREATE INDEX i ON t ((em(b)))",
        ],
    ),
    (
        "sequences at their ends",
        "v1.0.0",
        &[
            "CREATE SEQUENCE s MAXVALUE 3",
            "SELECT nextval('s'), nextval('s'), nextval('s')",
            "CREATE SEQUENCE down INCREMENT -1 MINVALUE -2 MAXVALUE 0 START 0",
            "SELECT nextval('down'), nextval('down'), nextval('down')",
            "CREATE SEQUENCE early MAXVALUE 3",
            "SELECT nextval('early')",
        ],
    ),
    (
        "views over values and macros with lists",
        "v1.0.0",
        &[
            "CREATE VIEW v AS VALUES (1, 'a'), (2, 'b')",
            "CREATE VIEW w AS SELECT * FROM (VALUES (1), (2)) t(a) WHERE a NOT IN (2, 3)",
            "CREATE MACRO m(x) AS x IN (1, 2)",
            "CREATE MACRO n(x, y := [1, 2]) AS TABLE SELECT * FROM range(x) r(i) WHERE i IN (1, 2)",
        ],
    ),
    // The catalog notes one column for the view, which gives two.
    (
        "a view of a table that got a column later",
        "v1.0.0",
        &[
            "CREATE TABLE t (a INT)",
            "CREATE VIEW v AS SELECT * FROM t",
            "CREATE VIEW of_v AS SELECT * FROM v",
            "ALTER TABLE t ADD COLUMN b INT DEFAULT 5",
            "INSERT INTO t VALUES (1, 2)",
        ],
    ),
];

#[test]
fn ordinary_databases_are_restored_with_exit_0() {
    for (what, storage, statements) in ORDINARY {
        let (_folder, file) = made(storage, statements);
        let bed = bed(&file);
        let target = back(&bed, &[]);
        match *what {
            // It has no text.
            "a state of an aggregate" => {
                let sum = "SELECT finalize(s)::INT FROM t";
                assert_eq!(sql(V, &target, &[sum]), json!([[10]]));
            }
            // It goes by its new name there.
            "a table that refers to itself by its old name" => {
                assert_eq!(sql(V, &target, &["FROM rt"]), sql(V, &file, &["FROM rt"]));
                let to = "SELECT referenced_table FROM duckdb_constraints() WHERE constraint_type = 'FOREIGN KEY'";
                assert_eq!(sql(V, &target, &[to]), json!([["rt"]]));
            }
            "a view of a table that got a column later" => {
                for query in ["FROM v", "FROM of_v"] {
                    assert_eq!(sql(V, &target, &[query]), json!([[1, 2]]));
                }
            }
            _ => assert_eq!(dump(&target), dump(&file), "{what}"),
        }
        if *what == "a generated column by a macro" {
            let one = bed.path("one.duckdb");
            let to = ["--from-export", "--table", "t", "--yes", "--to", one.to_str().unwrap()];
            bed.run(&[&["restore", "analytics"][..], &to].concat()).done();
            assert_eq!(sql(V, &one, &["FROM t"]), json!([[3, 4]]));
        }
        let target = back(&bed, &["--scope", "incremental"]);
        let tables = "SELECT table_name, estimated_size FROM duckdb_tables() ORDER BY ALL";
        assert_eq!(sql(V, &target, &[tables]), sql(V, &file, &[tables]), "{what}");
    }
}

/// Sealed and genuine, and not what was exported: what a restore would name, a decode does.
#[test]
fn decode_finds_what_a_restore_would() {
    let create = |table: &str, key: &str| format!("CREATE TABLE {table} (id INT {key}, v VARCHAR)");
    let rows = |table: &str| format!("INSERT INTO {table} SELECT range, 'x' FROM range(5000)");
    let (_folder, file) = made(
        "v1.0.0",
        &[
            &create("keyed", "PRIMARY KEY"),
            &create("bare", ""),
            &rows("keyed"),
            &rows("bare"),
            "CREATE VIEW w AS FROM keyed",
        ],
    );
    let bed = bed(&file);
    let change = |table: &str| format!("UPDATE {table} SET v = 'y' WHERE id % 1000 = 7");
    let full = export(&bed, &[]);
    sql(V, &file, &[&change("keyed"), &change("bare"), "DELETE FROM bare WHERE id = 8"]);
    let increment = export(&bed, &["--scope", "incremental"]);
    let decode = |manifest: &Value| bed.run(&["verify", "--id", id(manifest), "--level", "decode"]);
    for (manifest, base) in [(&full, &increment), (&increment, &full)] {
        for at in [0, 1] {
            decode(manifest).done();
            let recorded = std::cell::RefCell::new(Value::Null);
            let sum = |index: &mut Value| {
                let sum = &mut index["tables"][at]["content"]["sum"];
                *recorded.borrow_mut() = sum.take();
                *sum = json!("7");
            };
            reindex(&bed, manifest, &sum);
            let name = if at == 0 { "bare" } else { "keyed" };
            decode(manifest).failed(13, &format!("the rows of \"main\".\"{name}\""));
            decode(base).done();
            reindex(&bed, manifest, &|index| {
                index["tables"][at]["content"]["sum"] = recorded.borrow().clone();
            });
        }
    }
    reindex(&bed, &increment, &|index| {
        let mut statements = index["statements"].as_array_mut().unwrap().iter_mut();
        let table = statements.find(|statement| statement["makes"] == "table").unwrap();
        table["sql"] = json!("CREATE TABLE main.bare (id INT CHECK (unknown(id)), v VARCHAR)");
    });
    decode(&increment).failed(3, "the definition of table");
    bed.run(&["verify", "--id", id(&increment), "--level", "drill"])
        .failed_in_text(3, "the definition of table");
}

/// Compression merges the zeros; so do the hashes.
#[test]
fn signs_of_zeros_are_not_compared() {
    let zeros =
        "CASE WHEN i % 3 = 0 THEN 0.0 WHEN i % 3 = 1 THEN round((-0.3)::DOUBLE) ELSE random() END";
    for (column, value) in
        [("DOUBLE", zeros), ("FLOAT", zeros), ("DOUBLE[]", &format!("[{zeros}]"))]
    {
        let (_folder, file) = made(
            "v1.0.0",
            &[
                &format!("CREATE TABLE t (id INT, v {column})"),
                &format!("INSERT INTO t SELECT i, {value} FROM range(3000) s(i)"),
                "CHECKPOINT",
                "DELETE FROM t WHERE id % 3 = 2",
            ],
        );
        let bed = bed(&file);
        let rows = "SELECT id, v = 0::DOUBLE FROM (SELECT id, v FROM t) ORDER BY id";
        let rows = if column.ends_with(']') {
            "SELECT id, v = [0::DOUBLE] FROM t ORDER BY id"
        } else {
            rows
        };
        let target = back(&bed, &[]);
        assert_eq!(sql(V, &target, &[rows]), sql(V, &file, &[rows]), "{column}");
        sql(V, &file, &["DELETE FROM t WHERE id = 3"]);
        let target = back(&bed, &["--scope", "incremental"]);
        assert_eq!(sql(V, &target, &[rows]), sql(V, &file, &[rows]), "{column}");
    }
}

#[test]
fn an_increment_with_a_key_that_parquet_bends_comes_back() {
    let (_folder, file) = made(
        "v1.5.0",
        &[
            "CREATE TABLE t (g GEOMETRY PRIMARY KEY, n INT)",
            "INSERT INTO t VALUES ('POINT(1 2)'::GEOMETRY, 1), ('POINT(3 4)'::GEOMETRY, 2)",
        ],
    );
    let bed = bed(&file);
    back(&bed, &[]);
    sql(V, &file, &["UPDATE t SET n = 7 WHERE n = 1", "DELETE FROM t WHERE n = 2"]);
    assert_eq!(dump(&back(&bed, &["--scope", "incremental"])), dump(&file));
}

/// A manifest names a thousand objects; the smaller tables travel together.
#[test]
fn a_database_has_as_many_tables_as_it_likes() {
    let (_folder, file) =
        made("v1.0.0", &["CREATE TABLE large AS SELECT range AS i FROM range(5000)"]);
    let create: Vec<String> =
        (0..1010).map(|n| format!("CREATE TABLE t{n} AS SELECT {n} AS i")).collect();
    sql(V, &file, &create.iter().map(String::as_str).collect::<Vec<_>>());
    let bed = bed(&file);
    let manifest = export(&bed, &[]);
    let tables = objects(&manifest, "table");
    assert_eq!(tables.len(), 1000);
    assert!(tables.iter().any(|key| key.contains("main.large")));
    let target = restore(&bed, id(&manifest));
    for query in [
        "SELECT count(*), sum(estimated_size)::INT FROM duckdb_tables()",
        "SELECT i FROM t1009 UNION ALL SELECT i FROM t0 UNION ALL SELECT count(*) FROM large ORDER BY 1",
    ] {
        assert_eq!(sql(V, &target, &[query]), sql(V, &file, &[query]));
    }
}

/// Names in the expression of an index that only the log has belong to no catalog yet.
#[test]
fn an_index_that_only_the_log_has_is_no_alarm() {
    let (_folder, file) = made("v1.0.0", &["CREATE TABLE other AS SELECT 1 AS i"]);
    let statements = [
        "CREATE TABLE t(a INT, b INT)",
        "CREATE INDEX i ON t ((a + b))",
        "INSERT INTO t VALUES (1, 2)",
    ];
    abandon(V, &file, &statements);
    let bed = bed(&file);
    let taken = snapshot(&bed, &[]);
    let restored = restore(&bed, id(&taken));
    assert_eq!(sql(V, &restored, &["FROM t"]), json!([[1, 2]]));
    bed.run(&["verify", "--id", id(&taken), "--level", "drill"]).done();
    let restored = back(&bed, &[]);
    assert_eq!(sql(V, &restored, &["FROM t"]), json!([[1, 2]]));
    let indexes = "SELECT count(*) FROM duckdb_indexes()";
    assert_eq!(sql(V, &restored, &[indexes]), json!([[1]]));
}

#[test]
fn a_wide_table_in_the_log_gets_the_memory_that_it_takes() {
    let (_folder, file) = made("v1.0.0", &["CREATE TABLE other AS SELECT 1 AS i"]);
    let columns: Vec<String> = (0..2000).map(|n| format!("i + {n} AS c{n}")).collect();
    let create = format!("CREATE TABLE t AS SELECT {} FROM range(3000) r(i)", columns.join(", "));
    sql(V, &file, &[&create, "CHECKPOINT"]);
    abandon(
        V,
        &file,
        &["SET wal_autocheckpoint = '1TB'", "UPDATE t SET c7 = c7 + 1 WHERE c0 % 2 = 0"],
    );
    let bed = bed(&file);
    let sums = "SELECT sum(c0)::VARCHAR, sum(c7)::VARCHAR, sum(c1999)::VARCHAR, count(*) FROM t";
    let manifest = export(&bed, &[]);
    let exported = restore(&bed, id(&manifest));
    let taken = snapshot(&bed, &[]);
    let restored = restore(&bed, id(&taken));
    let expected = sql(V, &restored, &[sums]);
    assert_eq!(sql(V, &exported, &[sums]), expected);
    assert_eq!(sql(V, &file, &[sums]), expected);
}

/// What one table cannot have keeps nobody from the others.
#[test]
fn one_table_that_cannot_be_made_does_not_spoil_the_rest() {
    let (_folder, file) = made("v1.0.0", &["CREATE TABLE t AS SELECT 1 AS i"]);
    let attach = format!("ATTACH '{}' AS d", file.display());
    let odd = ["CREATE SCHEMA d.temp", "CREATE TABLE d.temp.odd (i INTEGER CHECK (i > 0))"];
    sql(V, Path::new(":memory:"), &[&[attach.as_str()], &odd[..]].concat());
    let bed = bed_with(&file, "");
    let run = bed.run(&["export", "analytics", "--json"]);
    assert_eq!(run.code, Some(3), "{}{}", run.stdout, run.stderr);
    let report: Value = serde_json::from_str(&run.stdout).unwrap();
    assert!(report["manifest"]["capture"]["lost"].to_string().contains("odd"), "{report}");
    let target = bed.path("restored.duckdb");
    let to = ["--from-export", "--yes", "--to", target.to_str().unwrap()];
    let run = bed.run(&[&["restore", "analytics"][..], &to].concat());
    assert_eq!(run.code, Some(3), "{}{}", run.stdout, run.stderr);
    assert_eq!(sql(V, &target, &["FROM t"]), json!([[1]]));
}

#[test]
fn a_decode_finds_views_and_indexes_that_cannot_be_made() {
    let (_folder, file) = made(
        "v1.0.0",
        &[
            "CREATE TABLE t (id BIGINT, v VARCHAR)",
            "INSERT INTO t VALUES (1, 'a'), (2, 'b')",
            "CREATE INDEX by_v ON t (v)",
            "CREATE VIEW w AS FROM t",
        ],
    );
    let bed = bed(&file);
    let manifest = export(&bed, &[]);
    let decode = || bed.run(&["verify", "--id", id(&manifest), "--level", "decode"]);
    let restore = |to: &str| {
        let target = bed.path(to);
        bed.run(&["restore", "--id", id(&manifest), "--to", target.to_str().unwrap(), "--yes"])
    };
    decode().done();
    for (makes, sql) in [
        ("view", "CREATE VIEW main.w AS FROM gone"),
        ("index", "CREATE INDEX by_v ON main.gone (v)"),
    ] {
        reindex(&bed, &manifest, &|index| {
            let mut statements = index["statements"].as_array_mut().unwrap().iter_mut();
            statements.find(|statement| statement["makes"] == makes).unwrap()["sql"] = json!(sql);
        });
        let missing = format!("the {makes} \"main\".");
        decode().failed(3, &missing);
        let restored = restore(&format!("without-{makes}.duckdb"));
        let said = [restored.stdout, restored.stderr].concat();
        assert!(restored.code == Some(3) && said.contains(&missing), "{:?}: {said}", restored.code);
    }
}

/// What a check says may be another thing when it is restored: then its table does not take the rows, and a decode says
/// so. Rows that are not there any more, or only in an older link, are no matter.
#[test]
fn a_decode_tries_the_checks_of_tables() {
    let (_folder, file) = made(
        "v1.0.0",
        &[
            "CREATE MACRO allowed(n) AS n < 7",
            "CREATE TABLE t (id INT PRIMARY KEY, n INT CHECK (allowed(n)))",
            "INSERT INTO t SELECT range, range % 7 FROM range(5000)",
            // A function of the engine, too, is not to be found by its name from within.
            "CREATE MACRO count(x) AS 1",
        ],
    );
    let bed = bed(&file);
    let limit = |manifest: &Value, from: &str, to: &str| {
        let change = |index: &mut Value| {
            let mut statements = index["statements"].as_array_mut().unwrap().iter_mut();
            let is_it = |statement: &&mut Value| statement["name"].to_string().contains("allowed");
            let statement = statements.find(is_it).unwrap();
            let changed = statement["sql"].as_str().unwrap().replace(from, to);
            assert_ne!(statement["sql"], changed.as_str());
            statement["sql"] = json!(changed);
        };
        reindex(&bed, manifest, &change);
    };
    let verify = |manifest: &Value, level: &str| {
        bed.run(&["verify", "--id", id(manifest), "--level", level])
    };
    let why = "the rows of \"main\".\"t\": Constraint Error: CHECK";
    let full = export(&bed, &[]);
    verify(&full, "decode").done();
    limit(&full, "7", "6");
    verify(&full, "decode").failed(3, why);
    verify(&full, "drill").failed_in_text(3, why);
    limit(&full, "6", "7");
    // They are in the older link only.
    sql(V, &file, &["DELETE FROM t WHERE n = 6", "SELECT 1"]);
    let without = export(&bed, &["--scope", "incremental"]);
    limit(&without, "7", "6");
    verify(&without, "decode").done();
    verify(&without, "drill").done();
    limit(&without, "6", "7");
    // They are in the newer one only.
    sql(V, &file, &["INSERT INTO t SELECT range, 6 FROM range(5000, 5100)", "SELECT 1"]);
    let with = export(&bed, &["--scope", "incremental"]);
    limit(&with, "7", "6");
    verify(&with, "decode").failed(3, why);
}
