//! Clusters of several replicas: captured from one of them, brought back as a whole.

use std::path::PathBuf;

use crate::bed::Bed;
use crate::tb::{self, Ids, Volume};

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
    restore("1", "x").failed(14, "the cluster still runs");
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
