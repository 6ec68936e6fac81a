//! What manifest, ledger and table say of a backup besides its content: what the source is, how the run
//! came about, and until when it is to be kept. All three say the same.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::support::bed::{Bed, Run};
use crate::support::duck::sql;
use crate::support::jobs::add;
use crate::support::tb;

const DAY: i64 = 86_400;

/// Seconds from the beginning of a backup to the end of its retention.
fn promised(manifest: &Value) -> Option<i64> {
    let time = |value: &Value| {
        value.as_str().map(|text| OffsetDateTime::parse(text, &Rfc3339).unwrap().unix_timestamp())
    };
    Some(time(&manifest["retention"]["until"])? - time(&manifest["started"]).unwrap())
}

/// The newest manifest in the store.
fn newest(bed: &Bed) -> Value {
    let listing = bed.json(&["list"]);
    let id = listing["backups"].as_array().unwrap().last().unwrap()["id"].as_str().unwrap();
    serde_json::from_slice(&fs::read(bed.object(id, "manifest.json")).unwrap()).unwrap()
}

#[test]
fn manifest_ledger_and_table_promise_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("books.tigerbeetle");
    tb::format(&file, 0, 1);
    let server = tb::Server::solo(folder.path());
    let bed = Bed::with(&file, "", "tenant = \"acme\"");
    bed.set_ledger(server.address(), "2m", "");
    add(
        &bed,
        "[job.daily]\nrun = \"snapshot\"\nsource = \"books\"\nretention = { keep_within = \"40d\", keep_daily = 7 }",
    );
    let manual = bed.json(&["snapshot", "books", "--scope", "full"])["manifest"].clone();
    bed.json(&["run", "daily"]);
    let asked = newest(&bed);
    let user = Run::of(&Command::new("id").arg("-un").output().unwrap()).done().stdout;
    for (manifest, job) in [(&manual, Value::Null), (&asked, json!("daily"))] {
        assert_eq!(promised(manifest), Some(40 * DAY), "{manifest}");
        let rules = "keep_within = \"40d\", keep_daily = 7, min_keep = 3";
        assert_eq!(manifest["retention"]["policy"], rules);
        assert_eq!(manifest["tenant"], "acme");
        assert_eq!(manifest["user"], user.trim());
        assert_eq!((&manifest["job"], &manifest["trigger"]), (&job, &json!("manual")));
        assert_eq!(manifest["identity"]["cluster"], tb::CLUSTER.to_string());
        assert!(manifest["identity"]["replica_id"].is_string(), "{manifest}");
    }
    let query = "SELECT tenant_id, retention_until = date_trunc('second', start_time) + INTERVAL 40 DAY FROM backup_metadata ORDER BY start_time";
    let table = bed.json(&["list", "--sql", query]);
    assert_eq!(table["rows"], json!([["acme", "true"], ["acme", "true"]]));
    let events = bed.json(&["list", "--from-ledger"])["events"].clone();
    let completed =
        events.as_array().unwrap().iter().filter(|event| event["status"] == "completed");
    let days: Vec<&Value> = completed.map(|event| &event["retention_days"]).collect();
    assert_eq!(days, [&json!(40), &json!(40)]);
    assert_eq!(bed.json(&["verify", "--ledger"])["differences"], json!([]));
}

#[test]
fn a_tick_says_that_the_schedule_started_it() {
    let (_folder, bed) =
        crate::support::jobs::bed("[job.daily]\nrun = \"snapshot\"\nsource = \"books\"");
    bed.run(&["run"]).done();
    let manifest = newest(&bed);
    assert_eq!((&manifest["job"], &manifest["trigger"]), (&json!("daily"), &json!("scheduled")));
    // The documented default is a promise, too.
    assert_eq!(promised(&manifest), Some(365 * DAY));
    let mut hook = bed.command(&["snapshot", "books"]);
    Run::of(&hook.env("BKP_TRIGGER", "hook").output().unwrap()).done();
    assert_eq!(newest(&bed)["trigger"], "hook");
    let mut wrong = bed.command(&["list"]);
    Run::of(&wrong.env("BKP_TRIGGER", "cron").output().unwrap()).failed(78, "$BKP_TRIGGER");
}

#[test]
fn a_policy_that_counts_promises_no_date() {
    let jobs = "[job.daily]\nrun = \"snapshot\"\nsource = \"books\"\nretention = { keep_last = 4 }";
    let (_folder, bed) = crate::support::jobs::bed(jobs);
    let manifest = bed.json(&["snapshot", "books"])["manifest"].clone();
    assert_eq!(promised(&manifest), None);
    assert_eq!(manifest["retention"]["policy"], "keep_last = 4, min_keep = 3");
}

/// Two hosts have given two databases one name, in one store.
#[test]
fn nothing_is_built_on_the_backups_of_another_source_with_the_same_name() {
    let folder = tempfile::tempdir().unwrap();
    let (here, there) = (folder.path().join("here.duckdb"), folder.path().join("there.duckdb"));
    for file in [&here, &there] {
        sql("2.0.0", file, &["CREATE TABLE t AS SELECT 1 i"]);
    }
    let bed = Bed::of_source(&format!("[source.analytics]\nkind = \"duckdb\"\npath = {here:?}\n"));
    let config = fs::read_to_string(bed.path("bkp.toml")).unwrap();
    let other = config.replace("here.duckdb", "there.duckdb").replace("\"state\"", "\"state-2\"");
    fs::write(bed.path("other.toml"), other).unwrap();
    let on_other = ["snapshot", "analytics", "--config", "other.toml", "--json"];
    let first = bed.json(&["snapshot", "analytics"])["manifest"].clone();
    let run = bed.run(&on_other).done();
    assert!(run.stderr.contains("is of a different source"), "{}", run.stderr);
    let second: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(second["manifest"]["scope"], "full");
    assert_ne!(first["identity"], second["manifest"]["identity"]);
    // Each goes on from its own.
    let next = bed.json(&["snapshot", "analytics"])["manifest"].clone();
    assert_eq!((&next["scope"], &next["parent"]), (&json!("incremental"), &first["id"]));
}
