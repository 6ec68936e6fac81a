//! What a snapshot builds on: whatever is wrong with the previous backup, an automatic choice ends
//! with a backup, and a scope that was asked for ends with the reason.

use std::fs;
use std::path::PathBuf;

use bkp::cmd::snapshot;
use bkp::ctx::Ctx;
use bkp::wire::AppContext;
use serde_json::Value;
use time::{Duration, OffsetDateTime};

use crate::support::bed::{Bed, Run};
use crate::support::tb;

fn formatted(folder: &tempfile::TempDir, name: &str) -> PathBuf {
    let file = folder.path().join(name);
    tb::format(&file, 0, 1);
    file
}

/// An automatic snapshot: it is full, it verifies, and it says why it did not go on.
#[track_caller]
fn falls_back(bed: &Bed, why: &str) -> Run {
    let run = bed.run(&["snapshot", "books", "--json"]).done();
    let report: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(report["manifest"]["scope"], "full", "{run:?}");
    assert!(run.stderr.contains(why), "`{why}` is not in: {}", run.stderr);
    let id = report["manifest"]["id"].as_str().unwrap();
    bed.run(&["verify", "--id", id, "--level", "decode"]).done();
    run
}

#[test]
fn a_damaged_block_map_is_not_built_on() {
    let folder = tempfile::tempdir().unwrap();
    let bed = Bed::new(&formatted(&folder, "a"), "");
    let id = bed.snapshot("full");
    let map = bed.object(&id, "map.json.zst.enc");
    let mut bytes = fs::read(&map).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    bed.chmod(map.strip_prefix(bed.path("")).unwrap().to_str().unwrap(), 0o600);
    fs::write(&map, bytes).unwrap();
    bed.run(&["snapshot", "books", "--scope", "incremental"]).failed(13, &id);
    falls_back(&bed, &id);
    assert_eq!(bed.json(&["snapshot", "books"])["manifest"]["scope"], "incremental");
}

#[test]
fn a_backup_of_another_replica_is_not_built_on() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (formatted(&folder, "a"), folder.path().join("b"));
    tb::format(&second, 1, 3);
    let bed = Bed::new(&first, "");
    bed.snapshot("full");
    let config = fs::read_to_string(bed.path("bkp.toml")).unwrap();
    let config = config.replace(&format!("{first:?}"), &format!("{second:?}"));
    fs::write(bed.path("bkp.toml"), config).unwrap();
    bed.run(&["snapshot", "books", "--scope", "incremental"])
        .failed(14, "is of a different source")
        .failed(14, "--scope full");
    falls_back(&bed, "is of a different source");
}

#[test]
fn a_backup_from_the_future_is_not_built_on() {
    let folder = tempfile::tempdir().unwrap();
    let bed = Bed::new(&formatted(&folder, "a"), "");
    let ahead = snapshot_at(&bed, || OffsetDateTime::now_utc() + Duration::HOUR);
    bed.run(&["snapshot", "books", "--scope", "incremental"]).failed(10, "build on");
    falls_back(&bed, &ahead);
    // What is older by today's clock is built on.
    let report = bed.json(&["snapshot", "books"]);
    assert_eq!(report["manifest"]["scope"], "incremental");
    assert_ne!(report["manifest"]["parent"], Value::String(ahead));
}

/// Takes a snapshot on another clock; returns its id.
fn snapshot_at(bed: &Bed, clock: fn() -> OffsetDateTime) -> String {
    let app = AppContext { ctx: Ctx::fixed(clock), ..bed.app(None) };
    let options = snapshot::Options {
        kind: bkp::domain::backup_kind::BackupKind::Snapshot,
        source: "books".into(),
        scope: None,
        mode: None,
        dry_run: false,
    };
    let report = snapshot::run(&app, &options).unwrap();
    report.value["manifest"]["id"].as_str().unwrap().to_owned()
}

/// A restore reads the whole chain, so an automatic choice does not let it grow for ever.
#[test]
fn a_long_chain_ends_with_a_new_base() {
    let folder = tempfile::tempdir().unwrap();
    let bed = Bed::new(&formatted(&folder, "a"), "");
    let scopes: Vec<String> = (0..30)
        .map(|_| {
            let report = bed.json(&["snapshot", "books"]);
            report["manifest"]["scope"].as_str().unwrap().to_owned()
        })
        .collect();
    let full: Vec<usize> = (0..30).filter(|at| scopes[*at] == "full").collect();
    assert_eq!(full, [0, 28]);
    bed.run(&["verify", "books", "--level", "decode"]).done();
}
