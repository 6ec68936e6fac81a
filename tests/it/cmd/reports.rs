//! The output of `--json` matches the JSON Schemas: every report of the real program is validated
//! against the schema that the program itself prints.
#![expect(clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use bkp::cmd::schema::REPORTS;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::support::bed::{self, Bed, Run};
use crate::support::{duck, tb};

/// Says what is wrong with `value`. Knows the keywords that the schemas use and panics at any
/// other; a field that a schema does not mention is wrong, unless it says that there may be more.
fn wrong(root: &Value, schema: &Value, value: &Value, place: &str) -> Vec<String> {
    let Some(keywords) = schema.as_object() else {
        return if schema == true { vec![] } else { vec![format!("{place}: nothing is allowed")] };
    };
    let here = |what: &str| vec![format!("{place}: {what}: {value}")];
    let unless = |fine: bool, what: &str| if fine { vec![] } else { here(what) };
    let alternatives = |options: &Value| {
        let fine = |option: &&Value| wrong(root, option, value, place).is_empty();
        options.as_array().unwrap().iter().filter(fine).count()
    };
    let check = |(keyword, argument): (&String, &Value)| match keyword.as_str() {
        "description" | "title" | "default" | "$schema" | "$defs" => vec![],
        "$ref" => {
            let target = root.pointer(argument.as_str().unwrap().strip_prefix('#').unwrap());
            wrong(root, target.unwrap(), value, place)
        }
        "type" => unless(is_of_type(argument, value), &format!("not of type {argument}")),
        "const" => unless(value == argument, "not the constant"),
        "oneOf" => unless(alternatives(argument) == 1, "not one of the alternatives"),
        "anyOf" => unless(alternatives(argument) > 0, "none of the alternatives"),
        "minimum" => unless(value.is_null() || value.as_f64() >= argument.as_f64(), "too small"),
        "maximum" => unless(value.is_null() || value.as_f64() <= argument.as_f64(), "too large"),
        "format" => unless(has_format(argument.as_str().unwrap(), value), "not of the format"),
        "items" => {
            let items = value.as_array().into_iter().flatten().enumerate();
            items
                .flat_map(|(i, item)| wrong(root, argument, item, &format!("{place}/{i}")))
                .collect()
        }
        "required" => {
            let names = argument.as_array().unwrap().iter().map(|name| name.as_str().unwrap());
            let missing = names.filter(|name| value.get(name).is_none());
            missing.map(|name| format!("{place}: `{name}` is missing")).collect()
        }
        // Both speak of the same fields.
        "properties" | "additionalProperties" => fields(root, schema, value, place),
        unknown => panic!("{place}: the test does not know `{unknown}`"),
    };
    keywords.iter().flat_map(check).collect()
}

fn fields(root: &Value, schema: &Value, value: &Value, place: &str) -> Vec<String> {
    let closed = Value::Bool(false);
    let more = schema.get("additionalProperties").unwrap_or(&closed);
    let fields = value.as_object().into_iter().flatten();
    fields
        .flat_map(|(name, field)| {
            let own = schema.get("properties").and_then(|properties| properties.get(name));
            wrong(root, own.unwrap_or(more), field, &format!("{place}/{name}"))
        })
        .collect()
}

fn is_of_type(types: &Value, value: &Value) -> bool {
    let is = |name: &Value| match name.as_str().unwrap() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "number" => value.is_number(),
        "integer" => value.is_u64() || value.is_i64(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        unknown => panic!("the test does not know the type `{unknown}`"),
    };
    types.as_array().map_or_else(|| is(types), |types| types.iter().any(is))
}

fn has_format(format: &str, value: &Value) -> bool {
    let is_time = |text: &str| OffsetDateTime::parse(text, &Rfc3339).is_ok();
    match format {
        // That it may be absent is the business of its type.
        _ if value.is_null() => true,
        "date-time" => value.as_str().is_none_or(is_time),
        "uint" | "uint64" => value.as_u64().is_some(),
        "int64" => value.as_i64().is_some(),
        "uint32" => value.as_u64().is_some_and(|number| u32::try_from(number).is_ok()),
        "uint16" => value.as_u64().is_some_and(|number| u16::try_from(number).is_ok()),
        "uint8" => value.as_u64().is_some_and(|number| number < 256),
        "double" => value.is_number(),
        unknown => panic!("the test does not know the format `{unknown}`"),
    }
}

/// What is run, one after the other, each to its end.
const DONE: &[&[&str]] = &[
    &["keys", "generate"],
    &["keys", "generate", "more"],
    &["snapshot", "books"],
    &["snapshot", "books", "--dry-run"],
    &["snapshot", "books"],
    &["keys", "rewrap", "books", "--to", "file:more"],
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
        "[source.tier]\nkind = \"parquet\"\npath = {tier:?}\n[source.analytics]\nkind = \"duckdb\"\npath = {database:?}\n[job.clean]\nrun = \"cleanup\"\nevery = \"1d\"\n"
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
    let every: BTreeSet<String> = REPORTS.iter().map(|shape| shape.schema.to_owned()).collect();
    assert_eq!(seen, every, "every shape was printed and held against its schema");
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
