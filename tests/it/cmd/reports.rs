//! The output of `--json` matches the JSON Schemas: every report of the real program is validated
//! against the schema that the program itself prints.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use bkp::cmd::schema::REPORTS;
use serde_json::Value;

use crate::support::bed::{self, Bed, Run};
use crate::support::schema::wrong;
use crate::support::{duck, tb};

/// What is run, one after the other, each to its end.
const DONE: &[&[&str]] = &[
    &["keys", "generate"],
    &["keys", "generate", "more"],
    &["snapshot", "books"],
    &["snapshot", "books", "--dry-run"],
    &["snapshot", "books"],
    &["keys", "rewrap", "books", "--to", "file:more"],
    &["snapshot", "recovery"],
    &["verify", "recovery", "--level", "drill"],
    &["restore", "recovery", "--to", "keyset.jsonl", "--yes"],
    &["keys", "list"],
    &["keys", "status"],
    &["replicate", "tier", "--dry-run"],
    &["replicate", "tier"],
    &["export", "analytics"],
    &["export", "analytics", "--dry-run"],
    &["catalog", "--to", "catalog.duckdb"],
    &["list", "--sql", "FROM backup_metadata"],
    &["logs", "books"],
    &["logs", "books"],
    &["list"],
    &["list", "books", "--windows"],
    &["verify", "books", "--logs"],
    &["list", "--long"],
    &["list", "--from-ledger"],
    &["verify", "--ledger"],
    &["verify", "books", "--level", "exists"],
    &["verify", "--all"],
    &["verify", "books", "--level", "drill"],
    &["run", "--dry-run"],
    &["run"],
    &["cleanup"],
    &["cleanup", "--dry-run"],
    &["restore", "books", "--to", "x", "--dry-run"],
    &["restore", "books", "--to", "x", "--yes"],
    &["restore", "books", "--to", "taken", "--yes", "--force"],
    &["config", "check"],
    &["config", "show"],
    &["config", "show", "--origin"],
    &["config", "lifecycle", "--store", "s3://bucket/prefix"],
    &["config", "schema"],
    &["config", "schema", "--report", "list"],
    &["doctor"],
    &["completions", "fish"],
];

/// What `bkp init` reports, as a plan and when it is done.
fn first_configuration(bed: &Bed, database: &Path) -> [String; 2] {
    let source = format!("duckdb:{}", database.display());
    let store = format!("file://{}", bed.path("first/store").display());
    let words = ["--config", "first.toml", "--source", &source, "--store", &store, "--json"];
    [&["--print"][..], &[]].map(|last| {
        let output = bed::init(&bed.path(""), &[&words[..], last].concat()).output().unwrap();
        Run::of(&output).done().stdout
    })
}

#[test]
fn every_report_is_what_its_schema_says() {
    let folder = tempfile::tempdir().unwrap();
    let server = tb::Server::solo(folder.path());
    tb::fill(server.address(), &folder.path().join("record"), 50, 1_000);
    let database = folder.path().join("analytics.duckdb");
    duck::sql("1.5.6", &database, &["CREATE TABLE t AS SELECT 1 i"]);
    let tier = folder.path().join("tier");
    fs::create_dir(&tier).unwrap();
    fs::write(tier.join("a.parquet"), "PAR1").unwrap();
    let analytics = format!(
        "[source.recovery]\nkind = \"keys\"\n  recipients = [\"file:more\"]\n[source.tier]\nkind = \"parquet\"\npath = {tier:?}\n[source.analytics]\nkind = \"duckdb\"\npath = {database:?}\n[job.clean]\nrun = \"cleanup\"\nevery = \"1d\"\n"
    );
    let bed = Bed::with(server.data_file(), server.address(), &analytics);
    bed.set_ledger(server.address(), "2m", "");
    let mut seen = BTreeSet::new();
    let mut holds = |text: &str| {
        let value: Value = serde_json::from_str(text).unwrap();
        let name = value["schema"].as_str().unwrap().to_owned();
        let short = name.strip_prefix("bkp.").unwrap().split('/').next().unwrap();
        let schema = bed.run(&["config", "schema", "--report", short]).done().stdout;
        let schema: Value = serde_json::from_str(&schema).unwrap();
        let problems = wrong(&schema, &schema, &value, "");
        assert!(problems.is_empty(), "{name}: {problems:#?}");
        seen.insert(name);
    };
    let json = |words: &[&str]| bed.run(&[words, &["--json"]].concat());
    fs::write(bed.path("taken"), "").unwrap();

    for words in DONE {
        holds(&json(words).done().stdout);
    }
    for text in first_configuration(&bed, &database) {
        holds(&text);
    }
    server_folder(&bed.path("pgdata"));
    let config = fs::read_to_string(bed.path("bkp.toml")).unwrap();
    fs::write(bed.path("bkp.toml"), config + "[source.pg]\nkind = \"postgres\"\n").unwrap();
    let segment = "000000010000000000000007";
    holds(&json(&["logs", "pg", "--push", &format!("pgdata/pg_wal/{segment}")]).done().stdout);
    let fetched = "pgdata/pg_wal/RECOVERYXLOG";
    holds(&json(&["logs", "pg", "--fetch", segment, fetched]).done().stdout);
    assert!(
        fs::read(bed.path(fetched)).unwrap()
            == fs::read(bed.path(&format!("pgdata/pg_wal/{segment}"))).unwrap()
    );
    let windows = bed.json(&["list", "books", "--windows"]);
    let op = windows["windows"][0]["last_op"].to_string();
    for last in ["--dry-run", "--yes"] {
        holds(&json(&["restore", "books", "--op", &op, "--to", "y", last]).done().stdout);
    }
    // Whatever it finds: the disk of this machine may be full.
    holds(&json(&["status"]).stdout);
    holds(&json(&["list", "--runs"]).done().stdout);
    let listing = bed.json(&["list"]);
    fs::create_dir(bed.path("copies")).unwrap();
    let copies = format!("file://{}", bed.path("copies").display());
    holds(&json(&["replicate", "--to", &copies]).done().stdout);
    holds(&json(&["pin", listing["backups"][0]["id"].as_str().unwrap()]).done().stdout);
    let failed = json(&["snapshot", "absent"]);
    assert_eq!(failed.code, Some(10), "{}", failed.stderr);
    holds(&failed.stderr);
    let several = ["--key", "file:gone", "--key", "file:key"];
    holds(&json(&[&["verify", "books"], &several[..]].concat()).done().stderr);
    let stored = bed.stored();
    let is_manifest =
        |path: &&std::path::PathBuf| path.to_str().unwrap().ends_with("manifest.json");
    fs::remove_file(stored.iter().find(is_manifest).unwrap()).unwrap();
    let differing = json(&["verify", "--ledger"]);
    assert_eq!(differing.code, Some(13), "{}", differing.stderr);
    holds(&differing.stdout);
    assert_eq!(seen, every_schema(), "every shape was printed and held against its schema");
}

/// The names of all schemas, but for those that take a bucket with an archive, or a PostgreSQL server:
/// `store::s3::thaw` and `source::postgres::tenants` hold them against theirs.
fn every_schema() -> BTreeSet<String> {
    let elsewhere = ["thaw", "restore-tenant", "restore-tenant-plan", "config-tenants"];
    let here = REPORTS.iter().filter(|shape| !elsewhere.contains(&shape.name()));
    here.map(|shape| shape.schema.to_owned()).collect()
}

/// A folder like that of a PostgreSQL server, with a file of its log.
fn server_folder(folder: &Path) {
    let segment = "tests/vectors/wal/15/000000010000000000000007.zst";
    let segment = fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(segment)).unwrap();
    let segment = zstd::decode_all(&*segment).unwrap();
    fs::create_dir_all(folder.join("pg_wal")).unwrap();
    fs::write(folder.join("pg_wal/000000010000000000000007"), &segment).unwrap();
    fs::create_dir(folder.join("global")).unwrap();
    // The system identifier, which the first page has, too.
    fs::write(folder.join("global/pg_control"), &segment[24..32]).unwrap();
}

/// The test above would prove nothing with a validator that lets everything through.
#[test]
fn the_validator_finds_what_is_wrong() {
    let shape = REPORTS.iter().find(|shape| shape.name() == "list").unwrap();
    let schema = shape.json_schema();
    let row = serde_json::json!({
        "id": "x", "type": "duckdb", "source": "s", "scope": "full", "kind": "snapshot",
        "started": "2026-11-21T02:00:00Z", "stored_bytes": 1, "pinned": false,
        "cost_per_month": 0.5, "location": "u/x",
    });
    let problems = |change: &dyn Fn(&mut Value)| {
        let mut row = row.clone();
        change(&mut row);
        let list = serde_json::json!({ "schema": "bkp.list/1", "store": "u", "backups": [row] });
        wrong(&schema, &schema, &list, "").len()
    };
    assert_eq!(problems(&|_row| {}), 0);
    let changes: &[(&str, Value)] = &[
        ("id", 7.into()),
        ("type", "oracle".into()),
        ("started", "yesterday".into()),
        ("stored_bytes", (-1).into()),
        ("stored_bytes", 1.5.into()),
        ("surprise", true.into()),
        ("manifest", Value::Null),
    ];
    for (name, value) in changes {
        assert!(problems(&|row| row[*name] = value.clone()) > 0, "{name}: {value}");
    }
    let without = |row: &mut Value| drop(row.as_object_mut().unwrap().remove("source"));
    assert_eq!(problems(&without), 1);
}
