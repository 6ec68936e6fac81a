//! The main promise: what a live replica acknowledged before a capture began is in the restored
//! copy, and the copy starts.
//!
//! `BKP_TEST_ROUNDS` sets the number of captures (default 3): `BKP_TEST_ROUNDS=50 tests/run.sh
//! live_captures::` is the long version.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

use crate::support::bed::{Bed, Run, bare};
use crate::support::tb::{self, Ids, Volume, busy_replica};

/// Small batches from several clients: thousands of transfers per second, and a checkpoint every
/// few seconds.
const HEAVY: Volume = Volume { batch: 40, clients: 4, transfers: None };

fn rounds() -> usize {
    std::env::var("BKP_TEST_ROUNDS").map_or(3, |text| text.parse().unwrap())
}

fn starts_with_everything(restored: &Path, record: &Path, before: f64) {
    let server = tb::Server::start_existing(restored);
    let found = tb::check(server.address(), record, before, Ids::Every);
    assert_eq!(found["ok"], true, "{found}");
}

#[test]
fn full_captures_of_a_busy_replica_hold_everything_acknowledged_before() {
    let folder = tempfile::tempdir().unwrap();
    let (server, record) = busy_replica(folder.path());
    let bed = Bed::new(server.data_file(), server.address());
    for round in 0..rounds() {
        let load = tb::load(server.address(), &record, HEAVY);
        let before = tb::unix_time();
        let id = bed.snapshot("full");
        load.stop();
        let restored = bed.restore(&id);
        starts_with_everything(&restored, &record, before);
        std::fs::remove_file(restored).unwrap();
        eprintln!("round {round}: ok");
    }
}

#[test]
fn incremental_chains_of_a_busy_replica_hold_everything_acknowledged_before() {
    let folder = tempfile::tempdir().unwrap();
    let (server, record) = busy_replica(folder.path());
    let bed = Bed::new(server.data_file(), server.address());
    for round in 0..rounds().div_ceil(5) {
        let load = tb::load(server.address(), &record, HEAVY);
        bed.snapshot("full");
        let links: Vec<(f64, String)> =
            (0..5).map(|_| (tb::unix_time(), bed.snapshot("incremental"))).collect();
        load.stop();
        for (before, id) in [&links[2], &links[4]] {
            bed.run(&["verify", "--id", id, "--level", "decode"]).done();
            let restored = bed.restore(id);
            starts_with_everything(&restored, &record, *before);
            std::fs::remove_file(restored).unwrap();
        }
        eprintln!("round {round}: ok");
    }
}

/// If this stopped failing, the tests above would prove nothing.
#[test]
fn a_plain_copy_under_the_same_load_is_broken() {
    let folder = tempfile::tempdir().unwrap();
    let (server, record) = busy_replica(folder.path());
    let load = tb::load(server.address(), &record, HEAVY);
    let broken = (0..8).any(|attempt| {
        let copy = folder.path().join(format!("copy-{attempt}.tigerbeetle"));
        let before = tb::unix_time();
        slow_copy(server.data_file(), &copy);
        let started = tb::Server::start_broken(&copy, Duration::from_secs(40));
        let whole =
            started.is_some_and(|copy| tb::try_check(copy.address(), &record, before).0.success());
        std::fs::remove_file(copy).unwrap();
        !whole
    });
    load.stop();
    assert!(broken, "eight plain copies of a busy file all started with everything in them");
}

/// A plain copy, from front to back, that takes longer than two checkpoints, as any copy of a large
/// file does.
fn slow_copy(from: &Path, to: &Path) {
    let sequence = || {
        let mut superblock = [0; 48];
        File::open(from).unwrap().read_exact(&mut superblock).unwrap();
        u64::from_le_bytes(superblock[40..].try_into().unwrap())
    };
    let (mut source, mut copy) = (File::open(from).unwrap(), File::create(to).unwrap());
    let half = source.metadata().unwrap().len() / 2;
    std::io::copy(&mut source.by_ref().take(half), &mut copy).unwrap();
    let (then, began) = (sequence(), Instant::now());
    while sequence() < then + 2 {
        assert!(began.elapsed() < Duration::from_mins(2), "no checkpoint under load");
        std::thread::yield_now();
    }
    std::io::copy(&mut source, &mut copy).unwrap();
}

#[test]
fn a_restore_needs_only_store_and_key() {
    let folder = tempfile::tempdir().unwrap();
    let (server, record) = busy_replica(folder.path());
    let bed = Bed::new(server.data_file(), server.address());
    let id = bed.snapshot("full");
    let totals = tb::totals(server.address());
    drop(server);
    // Another machine: no configuration, no state; the store and a copy of the key.
    let elsewhere = tempfile::tempdir().unwrap();
    std::fs::copy(bed.path("key"), elsewhere.path().join("key")).unwrap();
    let store = format!("file://{}", bed.path("store").display());
    let run = |words: &[&str]| {
        let words: Vec<&str> =
            words.iter().copied().chain(["--store", &store, "--key", "file:key"]).collect();
        Run::of(&bare(elsewhere.path(), &words).output().unwrap()).done()
    };
    assert!(run(&["list"]).stdout.contains(&id));
    run(&["verify", "--id", &id[..13], "--level", "decode"]);
    run(&["restore", "books", "--to", "restored.tigerbeetle", "--yes"]);
    let restored = tb::Server::start_existing(&elsewhere.path().join("restored.tigerbeetle"));
    assert_eq!(tb::totals(restored.address()), totals);
    tb::check(restored.address(), &record, f64::INFINITY, Ids::Every);
}

#[test]
fn an_increment_of_an_idle_replica_is_small_and_restores() {
    let folder = tempfile::tempdir().unwrap();
    let (server, record) = busy_replica(folder.path());
    let bed = Bed::new(server.data_file(), "");
    let stored = |id: &str| {
        let listed = bed.json(&["list", "--id", id]);
        listed["backups"][0]["stored_bytes"].as_u64().unwrap()
    };
    let full = bed.snapshot("full");
    let (first, second) = (bed.snapshot("incremental"), bed.snapshot("differential"));
    assert!(stored(&first) < stored(&full) / 2, "{} of {}", stored(&first), stored(&full));
    for id in [&first, &second] {
        let restored = bed.restore(id);
        assert_eq!(
            std::fs::read(&restored).unwrap(),
            std::fs::read(bed.restore_again(&full)).unwrap()
        );
        std::fs::remove_file(restored).unwrap();
    }
    let restored = bed.restore(&first);
    starts_with_everything(&restored, &record, f64::INFINITY);
}

#[test]
fn a_stopped_replica_is_captured_only_when_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let (server, record) = busy_replica(folder.path());
    let bed = Bed::new(server.data_file(), "");
    bed.run(&["snapshot", "books", "--mode", "stopped"]).failed(15, "a server holds the data file");
    server.stop();
    let report = bed.json(&["snapshot", "books", "--mode", "stopped"]);
    assert_eq!(report["manifest"]["capture"]["mode"], "stopped");
    let restored = bed.restore(report["manifest"]["id"].as_str().unwrap());
    starts_with_everything(&restored, &record, f64::INFINITY);
}

#[test]
fn a_paused_replica_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let (server, record) = busy_replica(folder.path());
    let bed = Bed::new(server.data_file(), server.address());
    let load = tb::load(server.address(), &record, HEAVY);
    let before = tb::unix_time();
    let report = bed.json(&["snapshot", "books", "--mode", "pause"]);
    assert_eq!(report["manifest"]["capture"]["attempts"], 1);
    load.stop();
    tb::check(server.address(), &record, f64::INFINITY, Ids::Sample);
    let restored = bed.restore(report["manifest"]["id"].as_str().unwrap());
    starts_with_everything(&restored, &record, before);
}

/// The state of a process, as in `ps`.
fn state(process: rustix::process::Pid) -> char {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.as_raw_nonzero())).unwrap();
    stat.rsplit_once(") ").unwrap().1.chars().next().unwrap()
}

#[test]
fn a_killed_run_does_not_leave_its_server_paused() {
    let folder = tempfile::tempdir().unwrap();
    let (server, _record) = busy_replica(folder.path());
    let bed = Bed::new(server.data_file(), server.address());
    let words = ["snapshot", "books", "--mode", "pause", "-q"];
    let mut child = bed.command(&words).stdout(std::process::Stdio::null()).spawn().unwrap();
    while state(server.pid()) != 'T' {
        assert!(child.try_wait().unwrap().is_none(), "it ended before the server was paused");
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let began = Instant::now();
    while state(server.pid()) == 'T' {
        assert!(began.elapsed() < Duration::from_mins(1), "the server stays paused");
        std::thread::yield_now();
    }
    tb::totals(server.address());
}

/// Where the file system can clone, the mode works; where it cannot, it says so.
#[test]
fn reflink_works_or_says_why_not() {
    let folder = tempfile::tempdir().unwrap();
    let (server, record) = busy_replica(folder.path());
    let bed = Bed::new(server.data_file(), server.address());
    let load = tb::load(server.address(), &record, HEAVY);
    let before = tb::unix_time();
    let run = bed.run(&["snapshot", "books", "--mode", "reflink", "--json"]);
    load.stop();
    match run.code {
        Some(0) => {
            let report: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
            let restored = bed.restore(report["manifest"]["id"].as_str().unwrap());
            starts_with_everything(&restored, &record, before);
        }
        Some(15) => assert!(run.stderr.contains("cannot clone"), "{}", run.stderr),
        other => panic!("{other:?}: {}", run.stderr),
    }
}

#[test]
fn every_compression_and_any_recipient_restores_the_same_file() {
    let folder = tempfile::tempdir().unwrap();
    let (server, _record) = busy_replica(folder.path());
    let data_file = server.stop();
    let mut restored = Vec::new();
    for compression in ["zstd", "gzip", "none"] {
        let bed = Bed::with(&data_file, "", &format!("compression = \"{compression}\""));
        std::fs::write(bed.path("pass"), "correct horse battery staple\n").unwrap();
        bed.chmod("pass", 0o600);
        let (file, pass) = ("file:key", "passphrase:file:pass");
        let id = {
            let words = ["snapshot", "books", "--key", file, "--key", pass, "--json"];
            let report: serde_json::Value =
                serde_json::from_str(&bed.run(&words).done().stdout).unwrap();
            report["manifest"]["id"].as_str().unwrap().to_owned()
        };
        for key in [file, pass] {
            let target = bed.path(&key.replace(':', "-"));
            let words =
                ["restore", "--id", &id, "--key", key, "--yes", "--to", target.to_str().unwrap()];
            bed.run(&words).done();
            restored.push(Sha256::digest(std::fs::read(target).unwrap()));
        }
    }
    assert!(restored.iter().all(|file| *file == restored[0]));
}
