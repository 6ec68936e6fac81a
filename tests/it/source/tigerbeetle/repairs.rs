//! Replicas that come back to their cluster: while they repair their log nothing is declared lost that is
//! not, and nothing is kept back.
//!
//! `BKP_TEST_ROUNDS` sets how often a replica is restarted (default 2):
//! `BKP_TEST_ROUNDS=100 tests/run.sh repairs`.

use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use serde_json::Value;

use crate::support::bed::Bed;
use crate::support::logs::{PATIENCE, numbers};
use crate::support::tb;

/// The number of the operation in the slot of `op`: from the ring of prepares, or 0.
fn in_slot(data_file: &Path, op: u64) -> u64 {
    let mut header = [0; 256];
    let file = std::fs::File::open(data_file).unwrap();
    file.read_exact_at(&mut header, 360_448 + (op % 1024) * 1_048_576).unwrap();
    let reserved = header[252] == 0;
    if reserved { 0 } else { u64::from_le_bytes(header[224..232].try_into().unwrap()) }
}

/// What a run that may be told to try again came to: its report, or `None` for exit code 15.
#[track_caller]
fn ship(bed: &Bed) -> Option<Value> {
    let run = bed.run(&["logs", "books", "--json"]);
    assert!([Some(0), Some(3), Some(15)].contains(&run.code), "{:?} {}", run.code, run.stderr);
    (run.code != Some(15)).then(|| serde_json::from_str(&run.stdout).unwrap())
}

/// The last op that a run shipped.
fn last_op(report: &Value) -> Option<u64> {
    report.pointer("/manifest/capture/position/last_op")?.as_u64()
}

/// The last op that a window of the store has.
fn shipped(bed: &Bed) -> u64 {
    let listed = bed.run(&["list", "books", "--windows", "--json"]);
    let listed: Value = serde_json::from_str(&listed.stdout).unwrap();
    let last = listed["windows"].as_array().unwrap().last().unwrap();
    last["last_op"].as_u64().unwrap()
}

/// Ships in a loop until the log, which goes until op `before`, has everything up to `op`, with proof of
/// every gap. Returns how many there were.
#[track_caller]
fn ship_until(bed: &Bed, data_file: &Path, mut before: u64, op: u64) -> usize {
    let began = Instant::now();
    let mut gaps = 0;
    while before < op {
        let report = ship(bed).unwrap_or_default();
        if let Some(gap) = report["gap"].as_str() {
            gaps += 1;
            let lost = before + 1;
            assert!(gap.contains(&format!("from op {lost} on")), "{gap}");
            assert!(in_slot(data_file, lost) != lost, "op {lost} is where it was: {gap}");
        }
        before = last_op(&report).unwrap_or(before);
        assert!(began.elapsed() < PATIENCE, "shipped until op {before}, not {op}");
    }
    gaps
}

/// The store has it as soon as the replica has: a first one that ships during the repair, and one that
/// has no addresses to ask at.
#[test]
fn a_replica_that_repairs_its_log_declares_no_gap() {
    let folder = tempfile::tempdir().unwrap();
    let mut cluster = tb::Cluster::of_three(folder.path());
    let address = cluster.address().to_owned();
    let record = folder.path().join("record");
    tb::fill(&address, &record, 1, 100);
    let file = cluster.replicas[1].data_file().to_owned();
    let beds = [Bed::new(&file, &address), Bed::new(&file, "")];
    let rounds = std::env::var("BKP_TEST_ROUNDS").map_or(2, |text| text.parse().unwrap());
    for bed in &beds {
        bed.snapshot("full");
        bed.run(&["logs", "books"]).done();
    }
    for (round, more) in (0..rounds).zip(numbers(7, 500)) {
        // Replica 1 is the primary of every third view, too.
        let stopped = cluster.replicas.remove(1).stop();
        tb::fill(&address, &record, 1, 300 + more);
        if round % 2 == 1 {
            let primary = cluster.replicas.remove(0).stop();
            let mut back = tb::Server::spawn(&primary, &address, 0);
            assert!(back.wait_ready());
            cluster.replicas.insert(0, back);
        }
        let before = shipped(&beds[1]);
        let back = tb::Server::spawn(&stopped, &address, 1);
        cluster.replicas.insert(1, back);
        for bed in &beds {
            assert_eq!(ship_until(bed, &file, shipped(bed), before + 300 + more), 0);
        }
        assert!(cluster.replicas[1].wait_ready());
    }
    for bed in &beds {
        let verified = bed.json(&["verify", "books", "--logs"]);
        assert_eq!((&verified["ok"], &verified["gaps"]), (&true.into(), &Value::Array(vec![])));
    }
}

/// A replica that was away for longer than a ring gets a checkpoint, not the operations: what it never
/// had is a gap, and what it still has is not.
#[test]
fn a_replica_that_was_synced_ships_what_it_has() {
    let folder = tempfile::tempdir().unwrap();
    let mut cluster = tb::Cluster::of_three(folder.path());
    let address = cluster.address().to_owned();
    let record = folder.path().join("record");
    tb::fill(&address, &record, 1, 100);
    let file = cluster.replicas[1].data_file().to_owned();
    let bed = Bed::new(&file, &address);
    bed.snapshot("full");
    bed.run(&["logs", "books"]).done();
    let first = shipped(&bed);
    tb::fill(&address, &record, 1, 100);
    let stopped = cluster.replicas.remove(1).stop();
    tb::fill(&address, &record, 1, 4_000);
    cluster.replicas.insert(1, tb::Server::spawn(&stopped, &address, 1));
    assert_eq!(ship_until(&bed, &file, first, first + 4_100), 1);
    assert!(cluster.replicas[1].wait_ready());
    bed.run(&["verify", "books", "--logs"]).done();
}

/// A replica that comes back with an empty file says so until it has something to ship.
#[test]
fn a_replica_that_comes_back_empty_ships_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut cluster = tb::Cluster::of_three(folder.path());
    let address = cluster.address().to_owned();
    let record = folder.path().join("record");
    tb::fill(&address, &record, 1, 1_500);
    let file = cluster.replicas[1].data_file().to_owned();
    let bed = Bed::new(&file, &address);
    bed.snapshot("full");
    bed.run(&["logs", "books"]).done();
    let first = shipped(&bed);
    let stopped = cluster.replicas.remove(1).stop();
    std::fs::remove_file(&stopped).unwrap();
    tb::fill(&address, &record, 1, 2_500);
    let output = Command::new(tb::program())
        .arg("recover")
        .args([&format!("--cluster={}", tb::CLUSTER), &format!("--addresses={address}")])
        .args(["--replica=1", "--replica-count=3"])
        .arg(&stopped)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    cluster.replicas.insert(1, tb::Server::spawn(&stopped, &address, 1));
    assert!(ship_until(&bed, &file, first, first + 2_400) <= 1);
    assert!(cluster.replicas[1].wait_ready());
    bed.run(&["verify", "books", "--logs"]).done();
}
