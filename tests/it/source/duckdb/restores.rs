//! Restores under adverse conditions, the catalog as a file, and the leftovers of killed runs.

use std::fs;
use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::duck::{V, abandon, bed, bed_with, hidden, snapshot, sql};

/// An entry of a log with this kind, of which no engine knows what it means.
fn unknown_entry(kind: u8) -> Vec<u8> {
    let body = [100, 0, kind, 1, 2, 3, 4, 5];
    let sum = 0x1505 ^ u64::from_le_bytes(body).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    [&8_u64.to_le_bytes()[..], &sum.to_le_bytes(), &body].concat()
}

/// Every byte is what was captured, and the linked engine fails: another one may not, so file and log
/// are brought back as they were.
#[test]
fn what_the_engine_cannot_open_is_restored_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("analytics.duckdb");
    let log = folder.path().join("analytics.duckdb.wal");
    sql(V, &file, &["CREATE TABLE t AS SELECT range i FROM range(1000)"]);
    abandon(V, &file, &["INSERT INTO t VALUES (-1)"]);
    let mut bytes = fs::read(&log).unwrap();
    let commit = bytes[bytes.len() - 21..].to_vec();
    bytes.extend(unknown_entry(77));
    bytes.extend(commit);
    fs::write(&log, &bytes).unwrap();
    let bed = bed(&file);
    let manifest = snapshot(&bed, &[]);
    assert_eq!(manifest["capture"]["position"]["wal_bytes"], bytes.len());
    let id = manifest["id"].as_str().unwrap();
    let target = bed.path("restored.duckdb");
    let words = ["restore", "--id", id, "--to", target.to_str().unwrap(), "--yes", "--json"];
    let run = bed.run(&words);
    assert_eq!(run.code, Some(3), "{}", run.stderr);
    let report: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    assert!(report["lost"][0].as_str().unwrap().contains("DuckDB"), "{report}");
    assert!(report["next"].as_str().unwrap().contains("the recorded digest"), "{report}");
    assert_eq!(fs::read(&target).unwrap(), fs::read(&file).unwrap());
    assert_eq!(fs::read(bed.path("restored.duckdb.wal")).unwrap(), bytes);
    assert!(hidden(&bed.path("")).is_empty());
    bed.run(&["verify", "--id", id, "--level", "decode"]).done();
    bed.run(&["verify", "--id", id, "--level", "drill"]).failed(15, "cannot open the backup");
}

/// A number of which one name is taken would give a log to a file that it does not belong to.
#[test]
fn what_is_moved_aside_keeps_its_log_and_gets_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("analytics.duckdb");
    sql(V, &file, &["CREATE TABLE t AS SELECT range i FROM range(10)"]);
    let bed = bed(&file);
    let id = snapshot(&bed, &[])["id"].as_str().unwrap().to_owned();
    let restore_over = ["restore", "--id", &id, "--to", file.to_str().unwrap(), "--force", "--yes"];
    let rows = "SELECT count(*) FROM t";
    let stale = folder.path().join("analytics.duckdb.before-restore-1.wal");
    // A log without its file, which somebody removed.
    abandon(V, &file, &["INSERT INTO t VALUES (300)"]);
    fs::rename(folder.path().join("analytics.duckdb.wal"), &stale).unwrap();
    let stale_bytes = fs::read(&stale).unwrap();
    bed.run(&restore_over).done();
    let second = folder.path().join("analytics.duckdb.before-restore-2");
    assert_eq!(sql(V, &second, &[rows]), json!([[10]]));
    // Now the file that is moved has a log.
    abandon(V, &file, &["INSERT INTO t VALUES (300)", "INSERT INTO t VALUES (301)"]);
    let run = bed.run(&restore_over).done();
    assert!(run.stdout.contains("analytics.duckdb.before-restore-3"), "{}", run.stdout);
    let third = folder.path().join("analytics.duckdb.before-restore-3");
    assert_eq!(sql(V, &third, &[rows]), json!([[12]]));
    assert_eq!(sql(V, &file, &[rows]), json!([[10]]));
    assert_eq!(fs::read(&stale).unwrap(), stale_bytes);
}

fn cataloged(target: &Path) -> [String; 4] {
    ["catalog", "--to", target.to_str().unwrap(), "--force"].map(str::to_owned)
}

#[test]
fn a_catalog_replaces_only_a_catalog() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("analytics.duckdb");
    sql(V, &file, &["CREATE TABLE t AS SELECT 1 i"]);
    let bed = bed(&file);
    snapshot(&bed, &[]);
    let run = |target: &Path| {
        let words = cataloged(target);
        bed.run(&words.each_ref().map(String::as_str))
    };
    let count = "SELECT count(*) FROM backup_metadata";
    // A database with commits that only its log has.
    let other = folder.path().join("other.duckdb");
    sql(V, &other, &["CREATE TABLE t AS SELECT 1 i"]);
    abandon(V, &other, &["INSERT INTO t VALUES (2)"]);
    let kept = folder.path().join("other.duckdb.before-restore-1");
    assert!(run(&other).done().stdout.contains(kept.to_str().unwrap()));
    assert_eq!(sql(V, &kept, &["FROM t"]), json!([[1], [2]]));
    assert_eq!(sql(V, &other, &[count]), json!([[1]]));
    // Its own table it replaces without keeping it; one to which something was added it keeps.
    run(&other).done();
    run(&other).done();
    assert!(!folder.path().join("other.duckdb.before-restore-2").exists());
    sql(V, &other, &["CREATE VIEW v AS SELECT 1"]);
    run(&other).done();
    assert!(folder.path().join("other.duckdb.before-restore-2").exists());
    // Nothing in the store, nothing that is no file.
    let manifest =
        bed.stored().into_iter().find(|path| path.extension().unwrap() == "json").unwrap();
    let before = fs::read(&manifest).unwrap();
    run(&manifest).failed(14, "is inside the store");
    assert_eq!(fs::read(&manifest).unwrap(), before);
    run(folder.path()).failed(14, "is a folder");
    assert!(hidden(folder.path()).is_empty());
}

#[test]
fn two_runs_never_fight_over_a_catalog() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("analytics.duckdb");
    sql(V, &file, &["CREATE TABLE t AS SELECT 1 i"]);
    let bed = bed(&file);
    snapshot(&bed, &[]);
    let target = folder.path().join("catalog.duckdb");
    let words = cataloged(&target);
    for _ in 0..3 {
        let start = |_| bed.command(&words.each_ref().map(String::as_str)).spawn().unwrap();
        let mut runs: Vec<Child> = (0..4).map(start).collect();
        assert!(runs.iter_mut().all(|run| run.wait().unwrap().success()));
        assert_eq!(sql(V, &target, &["SELECT count(*) FROM backup_metadata"]), json!([[1]]));
    }
    let mut left: Vec<_> =
        fs::read_dir(folder.path()).unwrap().map(|item| item.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["analytics.duckdb", "catalog.duckdb"]);
}

#[test]
fn a_backup_is_as_secret_as_its_tables() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("analytics.duckdb");
    sql(V, &file, &["CREATE TABLE t AS SELECT 1 i"]);
    let bed = bed_with(&file, "encryption = \"none\"");
    bed.run(&["export", "analytics"]).done();
    snapshot(&bed, &[]);
    let query = "SELECT kind, encryption FROM backup_metadata ORDER BY kind";
    let found = bed.json(&["list", "--sql", query]);
    assert_eq!(found["rows"], json!([["export", "none"], ["snapshot", "aes256-gcm"]]));
}

/// Rows of a database lie there as they are, so the next run removes it, whatever it is for.
#[test]
fn what_a_killed_restore_left_is_named_and_removed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("analytics.duckdb");
    let rows = "CREATE TABLE t AS SELECT range i, md5(range::VARCHAR) s FROM range(1000000)";
    sql(V, &file, &[rows]);
    let bed = bed(&file);
    snapshot(&bed, &[]);
    let away = folder.path().join("away");
    fs::create_dir(&away).unwrap();
    let target = away.join("restored.duckdb");
    let words = ["restore", "analytics", "--to", target.to_str().unwrap(), "--yes"];
    let began = Instant::now();
    loop {
        let mut run = bed.command(&words).spawn().unwrap();
        while hidden(&away).is_empty() && run.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        run.kill().unwrap();
        run.wait().unwrap();
        if !hidden(&away).is_empty() {
            break;
        }
        // It was faster.
        assert!(began.elapsed() < Duration::from_mins(1), "no restore can be killed");
        fs::remove_file(&target).unwrap();
    }
    let left = hidden(&away).remove(0);
    // An export was killed, too.
    let work = bed.path("state/work/.bkp-tmp-1-2");
    fs::create_dir_all(&work).unwrap();
    for named in [&left, &work] {
        bed.run(&["doctor"]).failed_in_text(1, named.to_str().unwrap());
    }
    snapshot(&bed, &[]);
    assert!(!left.exists() && hidden(&bed.path("state/work")).is_empty());
    assert!(!target.exists() || hidden(&away).is_empty());
}
