//! Clusters of several replicas: captured from one of them, restored as a whole.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use rustix::process::{Signal, kill_process};

use crate::support::bed::{Bed, Run, bare};
use crate::support::tb::{self, Ids, Volume};

#[test]
fn a_lost_cluster_comes_back_from_one_snapshot() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = tb::Cluster::of_three(folder.path());
    let record = folder.path().join("record");
    tb::fill(cluster.address(), &record, 500, 100_000);
    let bed = Bed::new(cluster.replicas[1].data_file(), cluster.address());
    let load = Volume { batch: 40, clients: 3, transfers: None };
    let load = tb::load(cluster.address(), &record, load);
    bed.snapshot("full");
    bed.snapshot("incremental");
    load.stop();
    // A backup replica may lag: what the newest snapshot must hold is what was written before this.
    let before = tb::unix_time();
    tb::check(cluster.address(), &record, before, Ids::Sample);
    let id = bed.snapshot("incremental");

    let restore = |replica: &str, target: &str| {
        bed.run(&["restore", "--id", &id, "--to", target, "--yes", "--replica", replica])
    };
    bed.run(&["restore", "--id", &id, "--to", "x", "--yes"]).failed(14, "tigerbeetle recover");
    restore("1", "x").failed(14, "the cluster is still running");
    restore("3", "x").failed(14, "replicas 0 to 2");
    assert!(!bed.path("x").exists());

    drop(cluster);
    let files: Vec<PathBuf> = (0..3)
        .map(|replica| {
            let target = bed.path(&format!("0_{replica}.tigerbeetle"));
            restore(&replica.to_string(), target.to_str().unwrap()).done();
            target
        })
        .collect();
    bed.run(&["verify", "--id", &id, "--level", "drill"]).done();
    let cluster = tb::Cluster::start_existing(&files);
    let found = tb::check(cluster.address(), &record, before, Ids::Every);
    assert_eq!(found["ok"], true, "{found}");
    tb::fill(cluster.address(), &record, 500, 20_000);
}

/// A replica that lags has not everything that its cluster acknowledged.
#[test]
fn a_replica_that_lags_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = tb::Cluster::of_three(folder.path());
    let record = folder.path().join("record");
    tb::fill(cluster.address(), &record, 500, 20_000);
    let lagging = &cluster.replicas[1];
    let bed = Bed::with(lagging.data_file(), cluster.address(), "attempts = 2");
    let signal = |signal| kill_process(lagging.pid(), signal).unwrap();
    signal(Signal::STOP);
    tb::fill(cluster.address(), &record, 500, 20_000);
    let before = tb::unix_time();
    let run = bed.run(&["snapshot", "books"]);
    signal(Signal::CONT);
    run.failed(15, "the replica lags").failed(15, "beside another replica");
    let patient = Bed::new(lagging.data_file(), cluster.address());
    let id = patient.snapshot("full");
    drop(cluster);
    let restored = ["0", "1", "2"].map(|replica| {
        let target = patient.path(&format!("0_{replica}.tigerbeetle"));
        let words = ["restore", "--id", &id, "--yes", "--replica", replica, "--to"];
        let run = patient.run(&[&words[..], &[target.to_str().unwrap()]].concat()).done();
        assert!(run.stdout.contains(&format!("--id {id}")), "{}", run.stdout);
        target
    });
    let cluster = tb::Cluster::start_existing(&restored);
    let found = tb::check(cluster.address(), &record, before, Ids::Every);
    assert_eq!(found["ok"], true, "{found}");
}

/// What the client library thinks of a dead replica is nobody's report.
#[test]
fn a_dead_replica_is_not_heard_of() {
    let folder = tempfile::tempdir().unwrap();
    let mut cluster = tb::Cluster::of_three(folder.path());
    let address = cluster.address().to_owned();
    tb::fill(&address, &folder.path().join("record"), 100, 1_000);
    let bed = crate::support::logs::bed(cluster.replicas[1].data_file(), &address, "");
    drop(cluster.replicas.remove(2).stop());
    for words in [["snapshot", "books"], ["logs", "books"], ["logs", "asked"]] {
        let run = bed.run(&[&words[..], &["--json"]].concat()).done();
        assert_eq!(run.stderr, "", "{words:?}");
    }
    let words = ["restore", "books", "--replica", "0", "--to", "x", "--yes", "--json"];
    let run = bed.run(&words);
    assert_eq!(run.code, Some(14), "{}", run.stderr);
    // Warnings of ours, and one error.
    let said =
        run.stderr.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let schemas: Vec<String> = said.map(|said| said["schema"].to_string()).collect();
    assert!(
        schemas.iter().all(|one| one.contains("warning") || one.contains("error")),
        "{schemas:?}"
    );
    assert_eq!(schemas.iter().filter(|one| one.contains("error")).count(), 1, "{schemas:?}");
}

/// Nobody can tell how far behind a replica is that is cut off from its cluster.
#[test]
fn a_replica_whose_cluster_does_not_answer_is_not_captured() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("0_1.tigerbeetle");
    tb::format(&file, 1, 3);
    let bed = Bed::new(&file, "127.0.0.1:9");
    bed.run(&["snapshot", "books"]).failed(15, "cannot tell how far");
    bed.run(&["snapshot", "books", "--mode", "stopped"]).done();
    // The only replica of a cluster is behind nobody.
    let alone = folder.path().join("0_0.tigerbeetle");
    tb::format(&alone, 0, 1);
    let bed = Bed::new(&alone, "127.0.0.1:9");
    let run = bed.run(&["snapshot", "books"]).done();
    assert!(run.stderr.contains("no account totals"), "{}", run.stderr);
}

#[test]
fn a_restore_of_a_replica_says_that_nobody_was_asked() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("0_0.tigerbeetle");
    tb::format(&file, 0, 3);
    let bed = Bed::new(&file, "");
    bed.snapshot("full");
    let store = format!("file://{}", bed.path("store").display());
    let key = format!("file:{}", bed.path("key").display());
    let words = ["restore", "books", "--replica", "0", "--to", "x", "--yes"];
    let words = [&words[..], &["--store", &store, "--key", &key]].concat();
    let run = Run::of(&bare(folder.path(), &words).output().unwrap()).done();
    assert!(
        run.stderr.contains("cannot check whether the cluster is still running"),
        "{}",
        run.stderr
    );
    let named = [&words[..], &["--force", "--addresses", "replica-0:3001"]].concat();
    let run = Run::of(&bare(folder.path(), &named).output().unwrap());
    run.failed(2, "`replica-0:3001` is not a replica address");
}

/// A replica of several knows from later headers that a hole is not the end of its log; and what it
/// still has to get from its cluster is no damage.
#[test]
fn a_replica_with_a_hole_in_its_log_is_not_captured() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = tb::Cluster::of_three(folder.path());
    tb::fill(cluster.address(), &folder.path().join("record"), 100, 150_000);
    let file = cluster.replicas[1].data_file().to_owned();
    drop(cluster);
    let bed = Bed::with(&file, "", "attempts = 4");
    let id = bed.snapshot("full");
    let listed = bed.json(&["list", "--id", &id, "--long"]);
    let position = &listed["backups"][0]["manifest"]["capture"]["position"];
    let op = |name: &str| position[name].as_u64().unwrap();
    let (checkpoint, head) = (op("checkpoint_op"), op("head_op"));
    assert!(head > checkpoint + 20, "{checkpoint} {head}");
    let refused = |why: &str| {
        for mode in ["online", "stopped"] {
            let words = ["snapshot", "books", "--scope", "full", "--mode", mode];
            let run = bed.run(&words).failed(15, why).failed(15, "beside another replica");
            assert!(!run.stderr.contains("damaged"), "{}", run.stderr);
        }
    };
    let hole = head - 10;
    let open = File::options().read(true).write(true).open(&file).unwrap();
    let at = 360_448 + (hole % 1024) * 1_048_576 + 300;
    let mut byte = [0];
    open.read_exact_at(&mut byte, at).unwrap();
    open.write_all_at(&[byte[0] ^ 1], at).unwrap();
    refused(&format!("op {hole} of the log is incomplete"));
    open.write_all_at(&byte, at).unwrap();
    tb::rewrite_superblock(&file, &[(1344, &head.to_le_bytes())]);
    refused("state sync");
}
