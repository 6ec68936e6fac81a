//! Snapshots of DuckDB files, written by engines of other versions than the linked one (see
//! `tests/it/support/duck/engine.py`).
//!
//! `BKP_TEST_ROUNDS` sets the number of captures under load (default 6).

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::json;

mod captures;
mod edge_cases;
mod export;
mod field_reports;
mod increments;
mod proven;
mod random_databases;
mod restores;

use crate::support::duck::{
    WRITERS, Writer, abandon, bed, bed_with, engine, linked, restore, rounds, snapshot, sql,
};

/// The main promise for a database in use: what was committed before a capture began is in the
/// restored file, nothing is half there, and the writer never notices.
#[test]
fn chains_of_a_hammered_database_hold_everything_committed_before() {
    for (version, storage) in WRITERS {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("analytics.duckdb");
        let writer = Writer::start(version, storage, &file, 100_000);
        let bed = bed(&file);
        let mut taken = Vec::new();
        for round in 0..rounds() {
            let low = writer.committed();
            let scope = if round == 0 { "full" } else { "incremental" };
            let manifest = snapshot(&bed, &["--scope", scope]);
            // One commit may have happened that the file beside does not tell yet.
            let high = writer.committed() + 1;
            assert_eq!(manifest["capture"]["storage_version"], storage);
            assert_eq!(manifest["capture"]["consistency"], "transaction-consistent");
            taken.push((manifest["id"].as_str().unwrap().to_owned(), low, high));
            writer.reach(high + 3);
        }
        for (id, low, high) in &taken {
            let restored = restore(&bed, id);
            writer.judge(&restored, *low, *high);
        }
        let newest = &taken.last().unwrap().0;
        bed.run(&["verify", "--id", newest, "--level", "decode"]).done();
        let drill = bed.run(&["verify", "--id", newest, "--level", "drill"]);
        // What a later engine wrote is drilled by a later engine only, and says so.
        if storage == "v2.0.0" && linked().starts_with("1.") {
            drill.failed(15, "storage version is v2.0.0");
        } else {
            drill.done();
        }
        writer.stop();
    }
}

/// What the test above would find if captures were copies: the same writer, and `cp`.
#[test]
fn a_naive_copy_of_a_hammered_database_is_no_backup() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("analytics.duckdb");
    let writer = Writer::start("1.5.6", "v1.0.0", &file, 100_000);
    let broken = (0..20).find(|round| {
        let copy = folder.path().join(format!("copy-{round}.duckdb"));
        let low = writer.committed();
        let words = ["naive", file.to_str().unwrap(), copy.to_str().unwrap()];
        assert!(engine("1.5.6", &words).status().unwrap().success());
        let high = (writer.committed() + 1).to_string();
        let words = ["check", copy.to_str().unwrap(), &low.to_string(), &high];
        !engine("1.5.6", &words).stderr(Stdio::null()).status().unwrap().success()
    });
    assert!(broken.is_some(), "20 copies were good");
    writer.stop();
}

#[test]
fn an_increment_holds_only_what_changed_and_each_step_restores_exactly() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("analytics.duckdb");
    let v = "1.5.6";
    sql(v, &file, &["CREATE TABLE t AS SELECT range i, md5(range::VARCHAR) s FROM range(200000)"]);
    let bed = bed(&file);
    let contents = "SELECT count(*), sum(i)::BIGINT, bit_xor(hash(i, s))::VARCHAR FROM t";
    let full = snapshot(&bed, &["--scope", "full"]);
    assert_eq!(full["capture"]["units_pushed"], full["capture"]["units"]);
    let mut expected = vec![(full["id"].clone(), sql(v, &file, &[contents]))];
    for change in [
        "INSERT INTO t VALUES (-1, 'new'), (-1, 'new')",
        "DELETE FROM t WHERE i % 1000 = 7",
        "UPDATE t SET s = 'changed' WHERE i = 5",
        "ALTER TABLE t ADD COLUMN z INTEGER DEFAULT 3",
        "INSERT INTO t VALUES (-1, 'new', 3)",
        "DELETE FROM t WHERE rowid = (SELECT max(rowid) FROM t WHERE i = -1)",
        "CREATE TABLE u AS SELECT i FROM t WHERE i < 5000",
        "DROP TABLE u",
        "UPDATE t SET s = s || '!' WHERE i BETWEEN 1000 AND 3000",
        "DELETE FROM t WHERE i > 150000",
    ] {
        sql(v, &file, &[change, "CHECKPOINT"]);
        let manifest = snapshot(&bed, &["--scope", "incremental"]);
        let pushed = manifest["capture"]["units_pushed"].as_u64().unwrap();
        // Of the file as it is now: the engine compresses by samples, and may write a group of rows that
        // changed in more blocks than the whole table took before.
        let units = manifest["capture"]["units"].as_u64().unwrap();
        assert!(pushed < units, "{change}: {pushed} of {units}");
        // A table that was dropped leaves its blocks, so that nothing but the headers is new then.
        assert!(pushed > 0 || change.starts_with("DROP"), "{change}");
        expected.push((manifest["id"].clone(), sql(v, &file, &[contents])));
    }
    let unchanged = snapshot(&bed, &["--scope", "auto"]);
    assert_eq!(unchanged["scope"], "incremental");
    assert_eq!(unchanged["capture"]["units_pushed"], 0);
    for (id, content) in expected {
        let restored = restore(&bed, id.as_str().unwrap());
        assert_eq!(sql(v, &restored, &[contents]), content);
    }
    // Without a log the restored file is the captured one, byte for byte.
    let restored = restore(&bed, unchanged["id"].as_str().unwrap());
    assert_eq!(fs::read(&restored).unwrap(), fs::read(&file).unwrap());
}

#[test]
fn commits_that_only_the_log_has_are_restored_into_one_file() {
    for (version, storage) in WRITERS {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("analytics.duckdb");
        let attach = format!("ATTACH '{}' AS d (STORAGE_VERSION '{storage}')", file.display());
        sql(version, Path::new(":memory:"), &[&attach, "CREATE TABLE d.t AS SELECT 1 i"]);
        let more = "INSERT INTO t SELECT range FROM range(2, 5000)";
        abandon(version, &file, &["SET wal_autocheckpoint = '1TB'", more]);
        let bed = bed(&file);
        for mode in ["online", "stopped"] {
            let manifest = snapshot(&bed, &["--mode", mode, "--scope", "full"]);
            assert!(manifest["capture"]["position"]["wal_bytes"].as_u64().unwrap() > 1000);
            let restored = restore(&bed, manifest["id"].as_str().unwrap());
            let rows = sql(version, &restored, &["SELECT count(*), sum(i)::BIGINT FROM t"]);
            assert_eq!(rows, json!([[4999, 12_497_500]]), "{version} {storage} {mode}");
        }
    }
}

#[test]
fn a_torn_end_of_the_log_loses_only_its_commit() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("analytics.duckdb");
    sql("1.5.6", &file, &["CREATE TABLE t (i INTEGER)"]);
    let inserts =
        ["SET wal_autocheckpoint = '1TB'", "INSERT INTO t VALUES (1)", "INSERT INTO t VALUES (2)"];
    abandon("1.5.6", &file, &inserts);
    let log = folder.path().join("analytics.duckdb.wal");
    let bytes = fs::read(&log).unwrap();
    fs::write(&log, &bytes[..bytes.len() - 3]).unwrap();
    let bed = bed(&file);
    let id = snapshot(&bed, &[])["id"].as_str().unwrap().to_owned();
    assert_eq!(sql("1.5.6", &restore(&bed, &id), &["FROM t"]), json!([[1]]));
    // A damaged entry inside of it is not a torn end: DuckDB itself refuses such a log.
    let mut damaged = bytes.clone();
    damaged[bytes.len() / 2] ^= 1;
    fs::write(&log, &damaged).unwrap();
    bed.run(&["snapshot", "analytics"]).failed(15, "log has a wrong checksum");
}

#[test]
fn damage_is_found_by_a_capture_in_blocks_that_are_in_use() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("analytics.duckdb");
    let rows = "CREATE TABLE t AS SELECT range i, md5(range::VARCHAR) s FROM range(100000)";
    let before = rows.replacen("TABLE t", "TABLE u", 1);
    // What stands before blocks in use stays in the file when it is free.
    sql("1.5.6", &file, &[&before, "CHECKPOINT", rows, "CHECKPOINT", "DROP TABLE u", "CHECKPOINT"]);
    let bed = bed(&file);
    snapshot(&bed, &[]);
    let whole = fs::read(&file).unwrap();
    let blocks = (whole.len() - 12288) / (256 << 10);
    let (mut refused, mut taken) = (0, 0);
    for block in 0..blocks {
        let mut bytes = whole.clone();
        bytes[12288 + block * (256 << 10) + 1000] ^= 1;
        fs::write(&file, &bytes).unwrap();
        let run = bed.run(&["snapshot", "analytics", "--scope", "full"]);
        if run.code == Some(0) {
            taken += 1;
            let free = "SELECT count(*) FROM pragma_storage_info('t') WHERE block_id = ";
            let used = sql("2.0.0", &file, &[&format!("{free}{block}")]);
            assert_eq!(used, json!([[0]]), "block {block} is in use");
        } else {
            refused += 1;
            run.failed(15, &format!("block {block} ")).failed(15, "analytics.duckdb is damaged");
        }
    }
    assert!(refused > 3 && taken > 3, "{refused} blocks in use, {taken} free");
}

#[test]
fn other_files_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("analytics.duckdb");
    let bed = bed(&file);
    let refused = |naming: &str| {
        let run = bed.run(&["snapshot", "analytics"]).failed(15, naming);
        assert!(run.stderr.contains("analytics.duckdb"), "{}", run.stderr);
        assert!(bed.stored().is_empty());
    };
    refused("cannot read");
    fs::write(&file, "PAR1 is something else").unwrap();
    refused("it is not a DuckDB database");
    fs::write(&file, "").unwrap();
    refused("it is not a DuckDB database");
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    refused("cannot read");
    fs::remove_dir(&file).unwrap();
    sql("2.0.0", &file, &["CREATE TABLE t (i INTEGER)"]);
    let whole = fs::read(&file).unwrap();
    fs::write(&file, &whole[..5000]).unwrap();
    refused("it ends before its first block");
    let mut damaged = whole.clone();
    (damaged[4100], damaged[8200]) = (0xee, 0xee);
    fs::write(&file, &damaged).unwrap();
    refused("both of its database headers have wrong checksums");
    fs::write(&file, &whole).unwrap();
    bed.run(&["snapshot", "analytics", "--mode", "pause"]).failed(2, "no mode `pause`");
    snapshot(&bed, &[]);
}

#[test]
fn an_open_database_is_held_by_its_owner_and_by_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("analytics.duckdb");
    sql("1.5.6", &file, &["CREATE TABLE t AS SELECT 1 i"]);
    let bed = bed(&file);
    let id = snapshot(&bed, &[])["id"].as_str().unwrap().to_owned();
    let mut owner = engine("1.5.6", &["hold", file.to_str().unwrap()]);
    let mut owner = owner.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(owner.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "open\n");
    snapshot(&bed, &[]);
    bed.run(&["snapshot", "analytics", "--mode", "stopped"]).failed(15, "open for writing");
    let restore_over = ["restore", "--id", &id, "--to", file.to_str().unwrap(), "--force", "--yes"];
    bed.run(&restore_over).failed(14, "open");
    owner.stdin.take().unwrap().flush().unwrap();
    owner.wait().unwrap();
    snapshot(&bed, &["--mode", "stopped"]);
    bed.run(&restore_over).done();
    // What was there is a database still.
    let aside = folder.path().join("analytics.duckdb.before-restore-1");
    assert_eq!(sql("1.5.6", &aside, &["FROM t"]), json!([[1]]));
}

/// A log of another file would be applied without a word: nothing under such a name may stay.
#[test]
fn a_stale_log_never_meets_a_restored_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("analytics.duckdb");
    sql("1.5.6", &file, &["CREATE TABLE t AS SELECT range i FROM range(10)"]);
    let bed = bed(&file);
    let id = snapshot(&bed, &[])["id"].as_str().unwrap().to_owned();
    abandon("1.5.6", &file, &["INSERT INTO t VALUES (300)"]);
    let rows = "SELECT count(*) FROM t";
    let restore_over = ["restore", "--id", &id, "--to", file.to_str().unwrap(), "--force", "--yes"];
    bed.run(&restore_over).done();
    assert_eq!(sql("1.5.6", &file, &[rows]), json!([[10]]));
    // File and log that were there stay together.
    let aside = folder.path().join("analytics.duckdb.before-restore-1");
    assert_eq!(sql("1.5.6", &aside, &[rows]), json!([[11]]));
    // A log whose file is gone.
    abandon("1.5.6", &file, &["INSERT INTO t VALUES (300)"]);
    fs::remove_file(&file).unwrap();
    bed.run(&restore_over).done();
    assert_eq!(sql("1.5.6", &file, &[rows]), json!([[10]]));
    let left: Vec<String> = fs::read_dir(folder.path())
        .unwrap()
        .map(|item| item.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with('.'))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_killed_run_leaves_nothing_that_counts_and_the_next_one_works() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("analytics.duckdb");
    let rows = "CREATE TABLE t AS SELECT range i, md5(range::VARCHAR) s FROM range(1000000)";
    sql("1.5.6", &file, &[rows]);
    let bed = bed_with(&file, "compression = \"zstd\"\nlevel = 19");
    let mut child = bed.command(&["snapshot", "analytics"]).spawn().unwrap();
    // It is at work when its lease is there.
    let began = Instant::now();
    while !bed.path("store/leases").exists() && began.elapsed() < Duration::from_mins(1) {
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(bed.stored().iter().all(|path| !path.to_str().unwrap().ends_with("manifest.json")));
    bed.set_ledger("", "2s", "");
    let began = Instant::now();
    while bed.run(&["snapshot", "analytics"]).code == Some(11) {
        assert!(began.elapsed() < Duration::from_mins(1), "the lease does not end");
    }
    let target = bed.path("again.duckdb");
    // A restore that was killed leaves its folder to the next one.
    fs::create_dir(bed.path(".bkp-tmp-1-2")).unwrap();
    fs::write(bed.path(".bkp-tmp-1-2/restored.duckdb"), "half").unwrap();
    bed.run(&["restore", "analytics", "--to", target.to_str().unwrap(), "--yes"]).done();
    assert_eq!(sql("1.5.6", &target, &["SELECT count(*) FROM t"]), json!([[1_000_000]]));
    assert!(!bed.path(".bkp-tmp-1-2").exists());
}

#[test]
fn small_blocks_are_captured_too() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("analytics.duckdb");
    let attach = format!("ATTACH '{}' AS d (BLOCK_SIZE 16384)", file.display());
    let rows = "CREATE TABLE d.t AS SELECT range i, md5(range::VARCHAR) s FROM range(30000)";
    sql("1.5.6", Path::new(":memory:"), &[&attach, rows]);
    let bed = bed(&file);
    let full = snapshot(&bed, &[]);
    sql("1.5.6", &file, &["UPDATE t SET s = 'x' WHERE i = 3"]);
    let next = snapshot(&bed, &[]);
    assert_eq!(next["scope"], "incremental");
    let count = "SELECT count(*) FROM t WHERE s = 'x'";
    for (manifest, rows) in [(full, 0), (next, 1)] {
        let restored = restore(&bed, manifest["id"].as_str().unwrap());
        assert_eq!(sql("1.5.6", &restored, &[count]), json!([[rows]]));
    }
}
