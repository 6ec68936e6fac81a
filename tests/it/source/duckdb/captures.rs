//! Captures of damaged or unusual files and logs, and from clones.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::support::duck::{WRITERS, abandon, bed, restore, snapshot, sql};
use crate::support::machine::Mounted;

const BLOCK: usize = 256 << 10;
const BLOCKS_AT: usize = 12288;

fn log_of(file: &Path) -> PathBuf {
    PathBuf::from(format!("{}.wal", file.display()))
}

/// A database of this storage version with one table, and more in its log only.
fn with_log(version: &str, storage: &str, file: &Path, more: &[&str]) {
    let attach = format!("ATTACH '{}' AS d (STORAGE_VERSION '{storage}')", file.display());
    sql(
        version,
        Path::new(":memory:"),
        &[&attach, "CREATE TABLE d.t AS SELECT 1 i", "CHECKPOINT d"],
    );
    abandon(version, file, &[&["SET wal_autocheckpoint = '1TB'"], more].concat());
}

/// A bulk insert writes its rows into the file before it commits; the log then only points at them.
#[test]
fn damage_is_found_in_blocks_that_only_the_log_refers_to() {
    for (version, storage) in WRITERS {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("analytics.duckdb");
        let bulk = "CREATE TABLE b AS SELECT range i, md5(range::VARCHAR) s FROM range(200000)";
        with_log(version, storage, &file, &[bulk]);
        let whole = fs::read(&file).unwrap();
        assert!(fs::metadata(log_of(&file)).unwrap().len() < 10_000, "the log only points");
        let bed = bed(&file);
        let id = snapshot(&bed, &[])["id"].as_str().unwrap().to_owned();
        let rows = sql(version, &restore(&bed, &id), &["SELECT count(*) FROM b"]);
        assert_eq!(rows, json!([[200_000]]));
        for block in [3, 7] {
            let mut bytes = whole.clone();
            bytes[BLOCKS_AT + block * BLOCK + 1000] ^= 1;
            fs::write(&file, &bytes).unwrap();
            let run = bed.run(&["snapshot", "analytics", "--mode", "online"]);
            run.failed(15, &format!("block {block} ")).failed(15, "is damaged");
        }
        // What a writer that was killed had begun is nobody's.
        let begun = [&whole[..], &vec![5; BLOCK]].concat();
        fs::write(&file, &begun).unwrap();
        snapshot(&bed, &["--mode", "online"]);
    }
}

/// Since v1.3.0 a log names the database and the checkpoint that it goes on from.
#[test]
fn a_log_that_does_not_belong_to_the_file_is_refused() {
    for (version, storage) in &WRITERS[1..] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("analytics.duckdb");
        let other = folder.path().join("other.duckdb");
        with_log(version, storage, &other, &["INSERT INTO t VALUES (2)"]);
        with_log(version, storage, &file, &["INSERT INTO t VALUES (2)"]);
        let bed = bed(&file);
        snapshot(&bed, &[]);
        let stale = fs::read(log_of(&file)).unwrap();
        fs::copy(log_of(&other), log_of(&file)).unwrap();
        bed.run(&["snapshot", "analytics"]).failed(15, "belongs to another database");
        fs::write(log_of(&file), &stale).unwrap();
        sql(version, &file, &["CHECKPOINT"]);
        snapshot(&bed, &[]);
        fs::write(log_of(&file), &stale).unwrap();
        bed.run(&["snapshot", "analytics"]).failed(15, "continues checkpoint");
        // Its version is another number.
        let mut unknown = stale.clone();
        unknown[5] = 9;
        fs::write(log_of(&file), &unknown).unwrap();
        bed.run(&["snapshot", "analytics"]).failed(15, "format unknown to this bkp");
        fs::remove_file(log_of(&file)).unwrap();
        snapshot(&bed, &[]);
    }
}

/// Nobody goes on with it, so that now a backup is wanted most: everything is taken as it is, and whoever opens
/// a restored copy puts it in order.
#[test]
fn what_a_checkpoint_left_that_was_broken_off_is_captured_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("analytics.duckdb");
    with_log("1.5.6", "v1.0.0", &file, &["INSERT INTO t VALUES (2)"]);
    let next = folder.path().join("analytics.duckdb.wal.checkpoint");
    fs::write(&next, "").unwrap();
    let bed = bed(&file);
    let run = bed.run(&["snapshot", "analytics"]).done();
    assert!(run.stderr.contains("killed during a checkpoint"), "{}", run.stderr);
    let listed = bed.json(&["list"]);
    let id = listed["backups"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!(sql("1.5.6", &restore(&bed, &id), &["FROM t ORDER BY i"]), json!([[1], [2]]));
    bed.run(&["verify", "--id", &id, "--level", "decode"]).done();
    bed.run(&["verify", "--id", &id, "--level", "drill"]).done();
    bed.run(&["export", "analytics"]).done();
    // The next one is an ordinary one again.
    fs::remove_file(&next).unwrap();
    let taken = snapshot(&bed, &["--scope", "incremental"]);
    assert_eq!(taken["capture"]["consistency"], "transaction-consistent");
    let id = taken["id"].as_str().unwrap();
    assert_eq!(sql("1.5.6", &restore(&bed, id), &["FROM t ORDER BY i"]), json!([[1], [2]]));
}

#[test]
fn where_the_file_system_clones_a_capture_is_one_of_a_clone_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let Some(mounted) = Mounted::xfs(folder.path()) else { return };
    for (version, storage) in WRITERS {
        let file = mounted.0.join(format!("{storage}.duckdb"));
        with_log(version, storage, &file, &["INSERT INTO t VALUES (2)"]);
        let bed = bed(&file);
        let taken = [
            (snapshot(&bed, &["--scope", "full"]), "reflink"),
            (snapshot(&bed, &["--scope", "full", "--mode", "online"]), "online"),
        ];
        for (manifest, mode) in taken {
            assert_eq!(manifest["capture"]["mode"], mode);
            let restored = restore(&bed, manifest["id"].as_str().unwrap());
            assert_eq!(sql(version, &restored, &["SELECT sum(i)::INT FROM t"]), json!([[3]]));
        }
        // Nothing is left of the clone.
        let left = fs::read_dir(&mounted.0).unwrap();
        let left: Vec<_> = left.map(|item| item.unwrap().file_name()).collect();
        assert!(left.iter().all(|name| name.to_str().unwrap().starts_with('v')), "{left:?}");
    }
    // Where it cannot be cloned for another reason it is read as it is.
    let file = folder.path().join("analytics.duckdb");
    sql("1.5.6", &file, &["CREATE TABLE t AS SELECT 1 i"]);
    assert_eq!(snapshot(&bed(&file), &[])["capture"]["mode"], "online");
}
