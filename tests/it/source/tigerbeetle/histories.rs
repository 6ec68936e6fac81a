//! Logs of clusters that were restored or made anew, of replicas that lag, and in stores that come and
//! go: histories are never mixed up, and no run reports success wrongly.

use std::fs;

use serde_json::Value;

use crate::support::bed::Bed;
use crate::support::books::{self, Books};
use crate::support::logs::{bed, restore_at, spelled, window, with_server};
use crate::support::tb;

/// Adds a second store, to which the sources go, too.
fn second_store(bed: &Bed) {
    let config = fs::read_to_string(bed.path("bkp.toml")).unwrap();
    let url = format!("[store.second]\nurl = \"file://{}\"\n[keys]", bed.path("second").display());
    let kind = "kind = \"tigerbeetle\"\n";
    let both = format!("{kind}store = [\"main\", \"second\"]\n");
    let config = config.replace("[keys]", &url).replace(kind, &both);
    fs::write(bed.path("bkp.toml"), config).unwrap();
    fs::create_dir(bed.path("second")).unwrap();
}

/// A run that ships after a gap; its report.
#[track_caller]
fn with_gap(bed: &Bed, source: &str, why: &str) -> Value {
    let run = bed.run(&["logs", source, "--json"]);
    assert_eq!(run.code, Some(3), "{} {}", run.stdout, run.stderr);
    let report: Value = serde_json::from_str(&run.stdout).unwrap();
    assert!(report["gap"].as_str().unwrap().contains(why), "{report}");
    report
}

/// A cluster that goes on from an earlier state has another history: neither log mixes the two, and
/// both histories restore.
#[test]
fn a_cluster_that_was_restored_begins_another_history() {
    let folder = tempfile::tempdir().unwrap();
    let server = tb::Server::solo(folder.path());
    let address = server.address().to_owned();
    let bed = bed(server.data_file(), &address, "");
    let mut ledger = Books::begin(&address, 71);
    (0..20).for_each(|_| ledger.step());
    let early = bed.snapshot("full");
    (0..40).for_each(|_| ledger.step());
    let first = ledger.moment();
    let first_rows = ledger.transfers();
    for source in ["books", "asked"] {
        bed.run(&["logs", source]).done();
    }
    drop(ledger);
    // The cluster comes back from the snapshot, and other things happen.
    let file = server.stop();
    let restored = bed.restore(&early);
    fs::rename(restored, &file).unwrap();
    let mut server = tb::Server::spawn(&file, &address, 0);
    assert!(server.wait_ready());
    let mut ledger = books::open(&address);
    ledger.go_on(99);
    (0..10).for_each(|_| ledger.step());
    with_gap(&bed, "books", "older state");
    with_gap(&bed, "asked", "a different history");
    bed.snapshot("full");
    (0..60).for_each(|_| ledger.step());
    let second = ledger.moment();
    let second_rows = ledger.transfers();
    for source in ["books", "asked"] {
        assert_eq!(bed.json(&["logs", source])["gap"], Value::Null);
        assert_eq!(bed.json(&["verify", source, "--logs"])["ok"], true);
        let listed = bed.json(&["list", source, "--windows"]);
        assert_eq!(listed["windows"].as_array().unwrap().len(), 2, "{listed}");
        assert_eq!(listed["gaps"].as_array().unwrap().len(), 1, "{listed}");
    }
    drop(server);
    for (moment, rows) in [(&first, &first_rows), (&second, &second_rows)] {
        let at = ["--at", &spelled(moment.at)];
        with_server(&restore_at(&bed, "books", &at).0, |books| {
            books::assert_same(books, rows, moment);
        });
        with_server(&restore_at(&bed, "asked", &at).0, |books| {
            books::assert_replayed(books, rows, moment);
        });
    }
}

/// A cluster made anew under the same id is noticed, under another one refused.
#[test]
fn a_cluster_that_was_replaced_is_not_continued() {
    let folder = tempfile::tempdir().unwrap();
    let server = tb::Server::solo(folder.path());
    let address = server.address().to_owned();
    let bed = bed(server.data_file(), &address, "");
    let record = folder.path().join("record");
    tb::fill(&address, &record, 20, 1_000);
    for source in ["books", "asked"] {
        bed.run(&["logs", source]).done();
    }
    let file = server.stop();
    fs::remove_file(&file).unwrap();
    tb::format(&file, 0, 1);
    let mut server = tb::Server::spawn(&file, &address, 0);
    assert!(server.wait_ready());
    // Empty, which is news, too.
    with_gap(&bed, "asked", "a different history");
    tb::fill(&address, &folder.path().join("other"), 20, 500);
    with_gap(&bed, "books", "older state");
    for source in ["books", "asked"] {
        let run = bed.run(&["logs", source]);
        assert!([Some(0)].contains(&run.code), "{}", run.stderr);
        bed.run(&["verify", source, "--logs"]).done();
    }
}

/// A replica that stands still while its cluster goes on has not shipped everything, and says so.
#[test]
fn a_lagging_replica_is_not_taken_for_idle() {
    let folder = tempfile::tempdir().unwrap();
    let mut cluster = tb::Cluster::of_three(folder.path());
    let address = cluster.address().to_owned();
    let file = cluster.replicas[1].data_file().to_owned();
    let bed = bed(&file, &address, "deadline = \"2m\"");
    let mut ledger = Books::begin(&address, 83);
    (0..20).for_each(|_| ledger.step());
    ledger.let_expire();
    bed.run(&["logs", "books"]).done();
    // By now everything is known.
    let idle = bed.json(&["logs", "books"]);
    assert_eq!(idle["shipped"], false, "{idle}");
    let config = fs::read_to_string(bed.path("bkp.toml")).unwrap();
    fs::write(bed.path("bkp.toml"), config.replace("\"2m\"", "\"3s\"")).unwrap();
    drop(cluster.replicas.remove(1).stop());
    (0..20).for_each(|_| ledger.step());
    bed.run(&["logs", "books"]).failed(15, "lags behind");
    // Nobody can be asked either.
    drop(cluster);
    bed.run(&["logs", "books"]).failed(15, "nothing is listening");
}

/// A store that is added later, or was away, costs the other one nothing.
#[test]
fn a_store_that_comes_or_goes_does_not_affect_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let server = tb::Server::solo(folder.path());
    let address = server.address().to_owned();
    let bed = bed(server.data_file(), &address, "");
    let record = folder.path().join("record");
    bed.snapshot("full");
    let ship = |transfers: u64, code: i32| {
        tb::fill(&address, &record, 20, transfers);
        for source in ["books", "asked"] {
            let run = bed.run(&["logs", source, "--json"]);
            assert_eq!(run.code, Some(code), "{} {}", run.stdout, run.stderr);
        }
    };
    ship(2_000, 0);
    ship(14_000, 0);
    let before = window(&bed, "books");
    second_store(&bed);
    ship(14_000, 0);
    let windows = |store: &str, source: &str| {
        let listed = bed.json(&["list", source, "--windows", "--store", store]);
        listed["windows"].as_array().unwrap().clone()
    };
    let admits = |store: &str, op: &Value| {
        windows(store, "books").iter().any(|window| {
            window["first_op"].as_u64() <= op.as_u64() && op.as_u64() <= window["last_op"].as_u64()
        })
    };
    assert!(admits("main", &before["first_op"]) && admits("main", &before["last_op"]));
    assert_eq!(windows("second", "asked").len(), 1);
    bed.snapshot("full");
    ship(2_000, 0);
    // One store is away for longer than the ring holds.
    let away = bed.path("away");
    fs::rename(bed.path("second"), &away).unwrap();
    ship(2_000, 3);
    ship(14_000, 3);
    let idle = bed.run(&["logs", "books", "--json"]);
    assert_eq!(idle.code, Some(3), "a store that is away is not up to date: {}", idle.stdout);
    let op = windows("main", "books").last().unwrap()["last_op"].clone();
    fs::rename(&away, bed.path("second")).unwrap();
    tb::fill(&address, &record, 20, 14_000);
    with_gap(&bed, "books", "overwritten");
    bed.run(&["logs", "asked"]).done();
    assert!(admits("main", &op), "{op} {:?}", windows("main", "books"));
    assert!(admits("main", &before["last_op"]));
    for (store, source) in
        [("main", "books"), ("main", "asked"), ("second", "books"), ("second", "asked")]
    {
        bed.run(&["verify", source, "--logs", "--store", store]).done();
    }
    let target = bed.path("restored");
    let words = ["restore", "books", "--op", &op.to_string(), "--store", "main", "--yes", "--to"];
    bed.run(&[&words[..], &[target.to_str().unwrap()]].concat()).done();
}
