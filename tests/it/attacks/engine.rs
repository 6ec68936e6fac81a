//! Whoever writes the database controls its names, labels and definitions: none of them is ever run,
//! opened or obeyed by an export, restore or drill.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode};
use serde_json::{Value, json};

use crate::support::bed::{Bed, Run, bare};
use crate::support::duck::{V, bed, dump, engine, export, id, reindex, sql};

/// A database made by these statements, in a folder.
fn made(statements: &[&str]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("analytics.duckdb");
    sql(V, &file, statements);
    (folder, file)
}

/// Restores the newest export, within a time, by a run with this exit code.
#[track_caller]
fn restored(bed: &Bed, code: i32) -> (PathBuf, Value) {
    let target = bed.path("restored.duckdb");
    let to = target.to_str().unwrap();
    let words = ["restore", "analytics", "--from-export", "--yes", "--force", "--json", "--to", to];
    let run = within(bed, &words);
    assert_eq!(run.code, Some(code), "{}{}", run.stdout, run.stderr);
    (target, serde_json::from_str(&run.stdout).unwrap_or_default())
}

/// Runs and does not wait for ever.
#[track_caller]
fn within(bed: &Bed, words: &[&str]) -> Run {
    let mut command = bed.command(words);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let began = Instant::now();
    while child.try_wait().unwrap().is_none() {
        let hangs = began.elapsed() > Duration::from_mins(2);
        if hangs {
            child.kill().unwrap();
        }
        assert!(!hangs, "{words:?} hangs");
        std::thread::park_timeout(Duration::from_millis(20));
    }
    Run::of(&child.wait_with_output().unwrap())
}

/// Statements that an attacker would like to have run, after one that belongs there.
fn wanted(bed: &Bed) -> String {
    let (key, written) = (bed.path("key"), bed.path("written.csv"));
    format!(
        "CREATE TABLE main.loot AS FROM read_text('{}');\nCOPY (SELECT 1 AS i) TO '{}';\n",
        key.display(),
        written.display()
    )
}

#[track_caller]
fn assert_unharmed(bed: &Bed, restored: &Path) {
    assert!(!bed.path("written.csv").exists(), "a statement of the database wrote a file");
    let key = fs::read(bed.path("key")).unwrap();
    let held = fs::read(restored).unwrap();
    let text = String::from_utf8_lossy(&key).trim().to_owned();
    let secret = text.lines().last().unwrap().as_bytes();
    let has = held.windows(secret.len()).any(|window| window == secret);
    assert!(!has, "the restored database has the key of its backups");
    let loot = "SELECT count(*) FROM duckdb_tables() WHERE table_name = 'loot'";
    assert_eq!(sql(V, restored, &[loot]), json!([[0]]));
}

/// DuckDB's own export writes the labels of types as they are, and neither comments nor dollars quote for
/// whoever cuts its script with less than a parser.
#[test]
fn a_label_with_statements_in_it_is_a_label() {
    let (_folder, file) = made(&["CREATE TABLE t AS SELECT 1 AS i"]);
    let bed = bed(&file);
    let key = bed.path("key");
    // What fails where there are no files would show.
    let look = format!(
        "FROM query(CASE WHEN current_setting($k$enable_external_access$k$) THEN $k$FROM read_text($p${}$p$)$k$ ELSE $k$SELECT 1 AS i$k$ END)",
        key.display()
    );
    let label = format!(
        "x\nCREATE MACRO main.m(a) AS $$zz*/ --$$ /*'*/; CREATE TABLE main.loot AS {look}; SELECT 1 /*'*/ /*"
    );
    let make = format!("CREATE TYPE e AS ENUM ('{}', 'b')", label.replace('\'', "''"));
    sql(V, &file, &[&make, "CREATE MACRO m(a) AS 'zz*/ --'", "CREATE TABLE u (e e)"]);
    let manifest = export(&bed, &[]);
    within(&bed, &["verify", "--id", id(&manifest), "--level", "drill"]).done();
    let (target, _) = restored(&bed, 0);
    assert_unharmed(&bed, &target);
    assert_eq!(dump(&target), dump(&file));
}

/// As an export would have it that was made before labels were told from statements: sealed, and genuine.
#[test]
fn statements_that_an_older_export_recorded_are_not_run() {
    let (_folder, file) = made(&[
        "CREATE TABLE t AS SELECT 1 AS i",
        "CREATE MACRO m(a) AS a + 1",
        "CREATE VIEW v AS SELECT 2 AS j",
    ]);
    let bed = bed(&file);
    let manifest = export(&bed, &[]);
    let more = wanted(&bed);
    let key = bed.path("key");
    for (number, (makes, planted)) in [
        ("macro", format!("CREATE MACRO main.m(a) AS (a + 1);\n{more}")),
        ("macro", more.clone()),
        ("view", format!("CREATE VIEW v AS SELECT 2 AS j;{more}")),
        ("view", format!("COPY (SELECT 1) TO '{}'", bed.path("written.csv").display())),
        (
            "table",
            format!(
                "CREATE TABLE main.t AS SELECT content AS i FROM read_text('{}')",
                key.display()
            ),
        ),
        ("table", "CREATE TABLE main.t AS SELECT 1 AS i".to_owned()),
    ]
    .iter()
    .enumerate()
    {
        reindex(&bed, &manifest, &|index| {
            let mut statements = index["statements"].as_array_mut().unwrap().iter_mut();
            let found = statements.find(|statement| statement["makes"] == *makes).unwrap();
            found["sql"] = json!(planted);
        });
        let (target, report) = restored(&bed, 3);
        assert_unharmed(&bed, &target);
        assert!(!report["lost"].as_array().unwrap().is_empty(), "{number}: {report}");
        assert_eq!(sql(V, &target, &["FROM t"]), json!([[1]]), "{number}");
    }
}

/// A pipe that nobody writes to: whoever opens it waits for ever.
#[test]
fn what_a_view_or_a_macro_reads_is_not_opened() {
    let (folder, file) = made(&["CREATE TABLE t AS SELECT 1 AS i"]);
    let data = folder.path().join("data.csv");
    fs::write(&data, "a,b\n1,2\n").unwrap();
    let path = data.display();
    sql(
        V,
        &file,
        &[
            "CREATE SCHEMA s",
            &format!("CREATE VIEW s.of_file AS SELECT a + 1 AS c FROM read_csv('{path}')"),
            "COMMENT ON VIEW s.of_file IS 'it''s'",
            &format!("CREATE VIEW by_name AS FROM '{path}'"),
            &format!("CREATE MACRO rows_of(n := 7) AS TABLE SELECT n, a FROM read_csv('{path}')"),
            &format!("CREATE MACRO count_of() AS (SELECT count(*) FROM read_csv('{path}'))"),
            "CREATE VIEW above AS SELECT * FROM rows_of()",
        ],
    );
    let before = dump(&file);
    fs::remove_file(&data).unwrap();
    rustix::fs::mknodat(CWD, &data, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let bed = bed(&file);
    let run = within(&bed, &["export", "analytics", "--json"]).done();
    let report: Value = serde_json::from_str(&run.stdout).unwrap();
    within(&bed, &["verify", "--id", id(&report["manifest"]), "--level", "drill"]).done();
    let (target, _) = restored(&bed, 0);
    assert_eq!(dump(&target), before);
    // They are what they were once the file is there again.
    fs::remove_file(&data).unwrap();
    fs::write(&data, "a,b\n1,2\n").unwrap();
    assert_eq!(sql(V, &target, &["FROM s.of_file"]), json!([[2]]));
    assert_eq!(sql(V, &target, &["FROM above"]), json!([[7, 1]]));
    // One table needs none of them.
    let only = bed.path("only.duckdb");
    let to = only.to_str().unwrap();
    let words = ["restore", "analytics", "--from-export", "--yes", "--table", "t", "--to", to];
    within(&bed, &words).done();
    assert_eq!(sql(V, &only, &["FROM t"]), json!([[1]]));
}

/// Names, comments, defaults and labels come back as they are, and a terminal obeys none of them.
#[test]
fn what_an_engine_says_is_shown_as_data() {
    let odd = "x\u{1b}]0;owned\u{7}\r\n\u{202e}; DROP TABLE t; --";
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("analytics.duckdb");
    // A schema that has the name of a catalog: a statement for what is in it is ambiguous.
    let attach = format!("ATTACH '{}' AS d", file.display());
    let lost = format!("CREATE TABLE d.temp.\"lost {odd}\" AS SELECT 1 AS i");
    sql(V, Path::new(":memory:"), &[&attach, "CREATE SCHEMA d.temp", &lost]);
    let name = format!("\"{odd}\"");
    let statements = [
        format!("CREATE SCHEMA {name}"),
        format!("CREATE SEQUENCE {name} START 3"),
        format!("CREATE TYPE {name} AS ENUM ('{odd}')"),
        format!("CREATE MACRO {name}({name} := '{odd}') AS {name} || '{odd}'"),
        format!(
            "CREATE TABLE {name}.{name} ({name} VARCHAR PRIMARY KEY DEFAULT '{odd}' CHECK ({name} <> '{odd}'), e ENUM ('{odd}'))"
        ),
        format!("INSERT INTO {name}.{name} VALUES ('a', '{odd}')"),
        format!("CREATE INDEX {name} ON {name}.{name} (e)"),
        format!("CREATE VIEW {name} AS SELECT {name} FROM {name}.{name}"),
        format!("COMMENT ON TABLE {name}.{name} IS '{odd}'"),
    ];
    sql(V, &file, &statements.each_ref().map(String::as_str));
    let bed = bed(&file);
    let is_shown = |run: &Run| {
        let shown = format!("{}{}", run.stdout, run.stderr);
        assert!(!shown.contains(['\u{1b}', '\u{7}', '\r', '\u{202e}']), "{shown:?}");
        assert_eq!(run.code, Some(3), "{shown}");
        assert!(shown.contains("lost x"), "{shown}");
    };
    is_shown(&bed.run(&["export", "analytics"]));
    sql(V, &file, &[&format!("UPDATE {name}.{name} SET e = NULL")]);
    is_shown(&bed.run(&["export", "analytics", "--scope", "incremental"]));
    let target = bed.path("restored.duckdb");
    let to = ["--from-export", "--yes", "--to", target.to_str().unwrap()];
    is_shown(&bed.run(&[&["restore", "analytics"][..], &to].concat()));
    let rows = format!("SELECT count(*) FROM {name}.{name} WHERE e IS NULL");
    assert_eq!(sql(V, &target, &[&rows]), json!([[1]]));
    let comment = "SELECT comment FROM duckdb_tables() WHERE comment IS NOT NULL";
    assert_eq!(sql(V, &target, &[comment]), json!([[odd]]));
}

/// The engine reads what somebody else wrote: it has no privilege, no key and no environment.
#[test]
fn the_engine_runs_without_what_bkp_may() {
    let (_folder, file) = made(&[
        // Slow enough to be looked at.
        "CREATE TABLE t AS SELECT range AS i, md5(range::VARCHAR) AS s FROM range(3000000)",
    ]);
    let bed = bed(&file);
    let mut command = bed.command(&["export", "analytics"]);
    let mut child = command.env("SECRET", "of bkp").stdout(Stdio::null()).spawn().unwrap();
    let me = child.id().to_string();
    let field = |status: &str, name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.trim().to_owned()
    };
    let found = loop {
        assert_eq!(child.try_wait().unwrap(), None, "no engine was seen");
        let processes = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
        let found = processes.filter_map(|path| {
            let status = fs::read_to_string(path.join("status")).ok()?;
            let words = fs::read_to_string(path.join("cmdline")).ok()?;
            let is_it = field(&status, "PPid:") == me && words.contains("duckdb-engine");
            // It is under way once it has given up what it has to.
            (is_it && field(&status, "NoNewPrivs:") == "1").then(|| {
                let environment = fs::read_to_string(path.join("environ")).unwrap_or_default();
                let limits = fs::read_to_string(path.join("limits")).unwrap_or_default();
                let files = fs::read_dir(path.join("fd")).into_iter().flatten();
                let files = files.filter_map(|file| fs::read_link(file.ok()?.path()).ok());
                (status, environment, limits, files.collect::<Vec<_>>())
            })
        });
        if let Some((status, environment, limits, files)) = found.last()
            && !limits.is_empty()
            && files.iter().any(|file| file.ends_with("bkp_6f3a90c1.duckdb"))
        {
            break (status, environment, limits, files);
        }
        std::thread::yield_now();
    };
    child.wait().unwrap();
    let (status, environment, limits, files) = found;
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
        assert_eq!(field(&status, set), "0000000000000000", "{set}");
    }
    assert!(!environment.contains("SECRET") && !environment.contains("BKP"), "{environment}");
    let core = limits.lines().find(|line| line.starts_with("Max core")).unwrap();
    assert!(core.split_whitespace().nth(4) == Some("0"), "{core}");
    assert!(!limits.lines().any(|line| line.starts_with("Max data") && line.contains("unlimited")));
    assert!(!files.iter().any(|file| file.ends_with("key") || file.starts_with(bed.path("store"))));
}

/// Whoever starts an engine by hand gets nothing of it.
#[test]
fn an_engine_answers_nobody_but_bkp() {
    let folder = tempfile::tempdir().unwrap();
    let run = Run::of(&bare(folder.path(), &["duckdb-engine"]).output().unwrap());
    assert_ne!(run.code, Some(0), "{}{}", run.stdout, run.stderr);
    assert!(fs::read_dir(folder.path()).unwrap().next().is_none());
}

/// Whatever the umask of the one who restores.
#[test]
fn restored_files_are_for_their_owner_alone() {
    let (folder, file) = made(&["CREATE TABLE t AS SELECT 1 AS i"]);
    let words = ["abandon", file.to_str().unwrap(), "INSERT INTO t VALUES (2)"];
    assert_eq!(engine(V, &words).status().unwrap().code(), None);
    let bed = bed(&file);
    bed.run(&["snapshot", "analytics"]).done();
    export(&bed, &[]);
    let catalog = folder.path().join("catalog.duckdb");
    bed.run(&["catalog", "--to", catalog.to_str().unwrap()]).done();
    let snapshot = folder.path().join("snapshot.duckdb");
    bed.run(&["restore", "analytics", "--yes", "--to", snapshot.to_str().unwrap()]).done();
    let (exported, _) = restored(&bed, 0);
    for path in [catalog, snapshot, exported] {
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", path.display());
    }
}

/// Macros with the names of what bkp asks the engine for: drills and exports read the same as without them,
/// and nothing of theirs is run.
#[test]
fn macros_with_names_of_the_engine_change_nothing() {
    for (number, made) in [
        &[
            "CREATE MACRO cut(x) AS x",
            "CREATE MACRO upper(x) AS x",
            "CREATE MACRO array_to_string(a, b) AS 'evil'",
            "CREATE TABLE g (i INT CHECK (cut(i) >= 0), h INT GENERATED ALWAYS AS (cut(i)) VIRTUAL)",
            "INSERT INTO g (i) FROM range(20)",
        ][..],
        &[
            "CREATE TABLE t AS SELECT 1 AS i",
            "CREATE MACRO duckdb_tables() AS TABLE SELECT 1 AS x",
            "CREATE MACRO duckdb_constraints() AS TABLE SELECT 1 AS x",
        ],
    ]
    .into_iter()
    .enumerate()
    {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("analytics.duckdb");
        sql(V, &file, made);
        let bed = bed(&file);
        bed.run(&["snapshot", "analytics"]).done();
        bed.run(&["verify", "analytics", "--level", "drill"]).done();
        let run = bed.run(&["export", "analytics"]);
        assert_eq!(run.code, Some(0), "{number}: {}", run.stderr);
        bed.run(&["verify", "analytics", "--from-export", "--level", "drill"]).done();
    }
}

/// A view over macros of macros that is larger than any memory costs nothing but itself, and comes back.
#[test]
fn a_view_that_ends_the_engine_spoils_no_export() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("analytics.duckdb");
    let eight = |inner: &str| [inner; 8].join(" + ");
    let mut made = vec![
        "CREATE TABLE t AS FROM range(100) r(i)".to_owned(),
        "CREATE MACRO m9(x) AS x".to_owned(),
        "CREATE VIEW vast AS SELECT m9(i) AS y FROM t".to_owned(),
        format!("CREATE MACRO m1(x) AS {}", eight("x")),
    ];
    made.extend(
        (2..9).map(|k| format!("CREATE MACRO m{k}(x) AS {}", eight(&format!("m{}(x)", k - 1)))),
    );
    made.push("CREATE OR REPLACE MACRO m9(x) AS m8(x) + m8(x)".to_owned());
    sql(V, &file, &made.iter().map(String::as_str).collect::<Vec<_>>());
    let bed = bed(&file);
    bed.run(&["export", "analytics"]).done();
    let target = bed.path("back.duckdb");
    let words =
        ["restore", "analytics", "--from-export", "--yes", "--to", target.to_str().unwrap()];
    bed.run(&words).done();
    let views = "SELECT view_name FROM duckdb_views() WHERE NOT internal";
    assert_eq!(sql(V, &target, &[views]), json!([["vast"]]));
    assert_eq!(sql(V, &target, &["SELECT count(*) FROM t"]), json!([[100]]));
}

/// The inverse of DuckDB's hash of a `BIGINT`.
fn with_hash(hash: u64) -> i64 {
    const FACTOR: u64 = 0xd6e8_feb8_6659_fd93;
    // Newton's iteration: each step doubles the bits that are right.
    let mut inverse = FACTOR;
    for _ in 0..6 {
        inverse = inverse.wrapping_mul(2_u64.wrapping_sub(FACTOR.wrapping_mul(inverse)));
    }
    let shifted = |x: u64| x ^ (x >> 32);
    let before = shifted(shifted(shifted(hash).wrapping_mul(inverse)).wrapping_mul(inverse));
    before.cast_signed()
}

/// DuckDB's hash of a row has no key: two columns are enough to keep it as it was.
#[test]
fn a_change_that_keeps_the_hash_of_the_engine_is_exported() {
    let row = "CREATE TABLE t (id BIGINT PRIMARY KEY, account BIGINT, amount BIGINT); INSERT INTO t VALUES (1, 7, 100)";
    let (_folder, file) = made(&[row, "CREATE TABLE u AS FROM t"]);
    let number = |query: &str| {
        let found = sql(V, &file, &[&format!("SELECT CAST(({query}) AS VARCHAR)")]);
        found[0][0].as_str().unwrap().parse::<u64>().unwrap()
    };
    // The last column goes in by an exclusive or.
    let bare =
        number("SELECT hash(1::BIGINT, 666::BIGINT, 0::BIGINT)") ^ number("SELECT hash(0::BIGINT)");
    let amount = with_hash(number("SELECT hash(id, account, amount) FROM t") ^ bare);
    assert_eq!(
        number(&format!("SELECT hash(1::BIGINT, 666::BIGINT, {amount}::BIGINT)")),
        number("SELECT hash(id, account, amount) FROM t"),
        "the attack no longer works on the engine itself"
    );
    let bed = bed(&file);
    export(&bed, &[]);
    let change = |table: &str| format!("UPDATE {table} SET account = 666, amount = {amount}");
    sql(V, &file, &[&change("t"), &change("u")]);
    export(&bed, &["--scope", "incremental"]);
    let (target, _) = restored(&bed, 0);
    assert_eq!(dump(&target), dump(&file));
}

/// Which of two texts stands at each of 342 places: a digit for four of them, the lowest bit first.
const SAME_HASHES: [&str; 2] = [
    "cfa4455822161da23588c94b340ec99573e14f7343c82a7088594206494036065f246e704ba18e5a0db530",
    "cfa480c4121611123288c985b80d30d473e1f3b183a71a708ce99006494036065f2c60614ba18e5a0db530",
];

/// Signs of what is no number are left out of the text of a value with numbers, where they are of no matter;
/// in a text within it they are, and there they can be moved so that DuckDB's hash stays as it was.
#[test]
fn a_nested_value_that_keeps_its_text_and_its_hash_is_exported() {
    let [one, other] = SAME_HASHES.map(|digits| {
        let place = |at: usize| {
            let digit = digits.chars().nth(at / 4).unwrap().to_digit(16).unwrap();
            let text = if digit >> (at % 4) & 1 == 1 { "nan,-nan" } else { "-nan,nan" };
            format!("{text},......,")
        };
        (0..342).map(place).collect::<String>()
    });
    let value = |text: &str| format!("{{'f': 1.5::DOUBLE, 's': '{text}'}}");
    let (one, other) = (value(&one), value(&other));
    let table = "CREATE TABLE t (id INTEGER PRIMARY KEY, v STRUCT(f DOUBLE, s VARCHAR))";
    let (_folder, file) = made(&[table, &format!("INSERT INTO t VALUES (1, {one})")]);
    let plain =
        |value: &str| format!("regexp_replace(CAST({value} AS VARCHAR), '-nan', 'nan', 'g')");
    let same = format!(
        "SELECT hash({one}) = hash({other}) AND {} = {} AND {one} <> {other}",
        plain(&one),
        plain(&other)
    );
    assert_eq!(sql(V, &file, &[&same]), serde_json::json!([[true]]), "the attack no longer works");
    let bed = bed(&file);
    export(&bed, &[]);
    sql(V, &file, &[&format!("UPDATE t SET v = {other}"), "SELECT 1"]);
    export(&bed, &["--scope", "incremental"]);
    let (target, _) = restored(&bed, 0);
    assert_eq!(dump(&target), dump(&file));
}

/// The text of a place does not say everything of its coordinates.
#[test]
fn a_place_whose_coordinates_are_no_numbers_is_exported() {
    let place = |payload: &str| {
        format!(
            "ST_GeomFromWKB('\\x01\\x01\\x00\\x00\\x00{payload}\\x00\\x00\\x00\\x00\\x00\\xF8\\x7F\\x00\\x00\\x00\\x00\\x00\\x00\\xF0\\x3F'::BLOB)"
        )
    };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("analytics.duckdb");
    let attach = format!("ATTACH '{}' AS d (STORAGE_VERSION 'v1.5.0')", file.display());
    let insert = format!("INSERT INTO t VALUES (1, {})", place("\\x01"));
    let create = "CREATE TABLE t (id INTEGER PRIMARY KEY, v GEOMETRY)";
    sql(V, Path::new(":memory:"), &[&attach, "USE d", create, &insert, "SELECT 1"]);
    let bed = bed(&file);
    export(&bed, &[]);
    let bytes = "SELECT CAST(ST_AsWKB(v) AS VARCHAR) FROM t";
    let before = sql(V, &file, &[bytes]);
    sql(V, &file, &[&format!("UPDATE t SET v = {}", place("\\x02")), "SELECT 1"]);
    let after = sql(V, &file, &[bytes]);
    assert_ne!(before, after);
    export(&bed, &["--scope", "incremental"]);
    let (target, _) = restored(&bed, 0);
    assert_eq!(sql(V, &target, &[bytes]), after);
}
