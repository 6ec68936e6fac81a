//! Object locks of chains: nothing that a backup builds on can be removed before the backup itself, and
//! before the day that its manifest promises.

use std::fs;

use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

use crate::support::bed::Bed;
use crate::support::s3::proxy::{Fault, Proxy, Rule};
use crate::support::s3::usual;
use crate::support::tb;

/// A bucket with object lock, which the tests of this file share.
const BUCKET: &str = "chains";

/// A bed whose snapshots are kept for 30 days and locked, through a proxy.
fn bed(mode: &str) -> (Bed, Proxy) {
    // Another test may have made it already.
    let _made =
        usual().ask("PUT", &format!("/{BUCKET}"), &["x-amz-bucket-object-lock-enabled: true"]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.keep().join("0_0.tigerbeetle");
    tb::format(&file, 0, 1);
    let bed = Bed::new(&file, "");
    let proxy = Proxy::before(usual().port);
    let lock = format!("object_lock = \"{mode}\"\nobject_lock_days = 2");
    bed.store_is(&usual().table_at(&proxy.endpoint(), BUCKET, &lock));
    let job = "[job.books]\nrun = \"snapshot\"\nsource = \"books\"\nretention = { keep_within = \"30d\" }\n";
    let config = fs::read_to_string(bed.path("bkp.toml")).unwrap();
    fs::write(bed.path("bkp.toml"), config + job).unwrap();
    (bed, proxy)
}

fn keep_within(bed: &Bed, days: &str) {
    let config = fs::read_to_string(bed.path("bkp.toml")).unwrap();
    let (before, after) = config.split_once("keep_within = \"").unwrap();
    let after = after.split_once('"').unwrap().1;
    fs::write(bed.path("bkp.toml"), format!("{before}keep_within = \"{days}\"{after}")).unwrap();
}

/// The lock of every object of a backup: its mode, and until when.
fn locks(bed: &Bed, id: &str) -> Vec<(String, OffsetDateTime)> {
    let shown = bed.run(&["config", "show"]).done().stdout;
    let prefix = shown.split(&format!("s3://{BUCKET}/")).nth(1).unwrap();
    let prefix = prefix.split(['"', '?']).next().unwrap();
    let path = format!("/{BUCKET}?list-type=2&prefix={prefix}/tigerbeetle");
    let page = usual().ask("GET", &path, &[]).done().0;
    let names = page.split("<Key>").skip(1).map(|rest| rest.split("</Key>").next().unwrap());
    let of_backup = names.filter(|name| name.contains(id));
    let lock = |name: &str| {
        let head = usual().ask("HEAD", &format!("/{BUCKET}/{name}"), &[]).done();
        let until = head.header("x-amz-object-lock-retain-until-date").unwrap();
        let mode = head.header("x-amz-object-lock-mode").unwrap().to_owned();
        (mode, OffsetDateTime::parse(until, &Rfc3339).unwrap())
    };
    of_backup.map(lock).collect()
}

#[test]
fn a_chain_is_locked_until_the_promise_of_its_newest_backup() {
    for mode in ["governance", "compliance"] {
        let (bed, _proxy) = bed(mode);
        let began = OffsetDateTime::now_utc();
        let base = bed.snapshot("full");
        let days = Duration::days;
        let first = locks(&bed, &base);
        // Data, block map and manifest: as the promise says, not as `object_lock_days`.
        assert_eq!(first.len(), 3, "{first:?}");
        for (found, until) in &first {
            assert_eq!(*found, mode.to_uppercase());
            assert!((days(29)..days(31)).contains(&(*until - began)), "{until}");
        }
        keep_within(&bed, "60d");
        let promised = bed.json(&["snapshot", "books"]);
        assert_eq!(promised["manifest"]["scope"], "incremental", "{promised}");
        let until = promised["manifest"]["retention"]["until"].as_str().unwrap();
        let until = OffsetDateTime::parse(until, &Rfc3339).unwrap();
        let child = promised["manifest"]["id"].as_str().unwrap();
        for (found, locked) in locks(&bed, &base).into_iter().chain(locks(&bed, child)) {
            assert!(found == mode.to_uppercase() && locked >= until, "{found} {locked} < {until}");
        }
        // A shorter promise makes no lock shorter.
        keep_within(&bed, "1d");
        bed.snapshot("incremental");
        assert!(locks(&bed, &base).iter().all(|(_, locked)| *locked >= until));
        // And nothing that is locked is removed.
        let gone = bed.json(&["cleanup"]);
        assert_eq!(bed.json(&["list"])["backups"].as_array().unwrap().len(), 3, "{gone}");
    }
}

/// A log restores nothing without the snapshot that it goes on from, and the segments since.
#[test]
fn a_log_extends_the_locks_of_what_it_goes_on_from() {
    let folder = tempfile::tempdir().unwrap();
    let server = tb::Server::solo(folder.path());
    let (address, file) = (server.address().to_owned(), server.data_file().to_owned());
    tb::fill(&address, &folder.path().join("record"), 10, 100);
    for mode in ["wal", "query"] {
        let bed = Bed::with(&file, &address, &format!("[source.books.logs]\nmode = \"{mode}\"\n"));
        let lock = "object_lock = \"governance\"\nobject_lock_days = 2";
        let _made =
            usual().ask("PUT", &format!("/{BUCKET}"), &["x-amz-bucket-object-lock-enabled: true"]);
        bed.store_is(&usual().table_at(&usual().endpoint(), BUCKET, lock));
        let job =
            "[job.log]\nrun = \"logs\"\nsource = \"books\"\nevery = \"6h\"\nkeep_log = \"30d\"\n";
        let config = fs::read_to_string(bed.path("bkp.toml")).unwrap();
        fs::write(bed.path("bkp.toml"), config + job).unwrap();
        let began = OffsetDateTime::now_utc();
        let base = bed.snapshot("full");
        assert!(locks(&bed, &base).iter().all(|(_, until)| *until < began + Duration::days(3)));
        tb::fill(&address, &folder.path().join(mode), 10, 100);
        let shipped = bed.json(&["logs", "books"]);
        let until = shipped["manifest"]["retention"]["until"].as_str().unwrap();
        let until = OffsetDateTime::parse(until, &Rfc3339).unwrap();
        let segment = shipped["manifest"]["id"].as_str().unwrap();
        assert!(locks(&bed, segment).iter().all(|(_, locked)| *locked >= until), "{mode}");
        // A log that was asked for restores from its first segment on, and needs no snapshot.
        let is_locked = locks(&bed, &base).iter().all(|(_, locked)| *locked >= until);
        assert_eq!(is_locked, mode == "wal", "{mode}: {:?}", locks(&bed, &base));
    }
    drop(server);
}

/// An increment must not outlive its base: if the base cannot be locked for longer, nothing is built on it.
#[test]
fn a_chain_that_cannot_be_locked_for_longer_is_not_continued() {
    let (bed, proxy) = bed("governance");
    bed.snapshot("full");
    keep_within(&bed, "60d");
    let refuse = Fault::Status(403, "AccessDenied");
    proxy.plan(&[Rule::new("PUT", "retention", u32::MAX, refuse)]);
    let words = ["snapshot", "books", "--scope", "incremental"];
    bed.run(&words).failed(16, "s3:PutObjectRetention");
    assert_eq!(bed.json(&["list"])["backups"].as_array().unwrap().len(), 1);
    let run = bed.run(&["snapshot", "books"]).done();
    assert!(run.stderr.contains("taking a full backup, since"), "{}", run.stderr);
    assert!(run.stdout.contains("full snapshot"), "{}", run.stdout);
    proxy.happened();
    // A service that says yes and does nothing is not believed.
    keep_within(&bed, "90d");
    proxy.plan(&[Rule::new("PUT", "retention", u32::MAX, Fault::Status(200, ""))]);
    let run = bed.run(&["snapshot", "books"]).done();
    assert!(run.stderr.contains("does not show it"), "{}", run.stderr);
    assert!(run.stdout.contains("full snapshot"), "{}", run.stdout);
}
