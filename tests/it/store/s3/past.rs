//! `--store-at`: a versioned bucket as it was, the day after somebody overwrote and deleted everything.

use std::fs;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::support::bed::Bed;
use crate::support::s3::{number, usual};
use crate::support::tb;

/// A bed whose store has a bucket for itself, and the bucket.
fn bed(versioned: bool) -> (Bed, String) {
    let bucket = format!("past-{}", number());
    usual().ask("PUT", &format!("/{bucket}"), &[]).done();
    if versioned {
        let enabled = "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>";
        usual().send("PUT", &format!("/{bucket}?versioning"), &[], enabled).done();
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.keep().join("0_0.tigerbeetle");
    tb::format(&file, 0, 1);
    let bed = Bed::new(&file, "");
    bed.store_is(&usual().table_at(&usual().endpoint(), &bucket, ""));
    (bed, bucket)
}

fn names(bucket: &str) -> Vec<String> {
    let page = usual().ask("GET", &format!("/{bucket}?list-type=2"), &[]).done().0;
    let names = page.split("<Key>").skip(1);
    names.map(|rest| rest.split("</Key>").next().unwrap().to_owned()).collect()
}

/// The end of this second, once it is over: a service tells when something was written by whole seconds, or by
/// parts of them.
fn a_second_of_its_own() -> String {
    let now = || OffsetDateTime::now_utc().unix_timestamp();
    let at = now();
    while now() == at {
        std::thread::park_timeout(std::time::Duration::from_millis(20));
    }
    let began = OffsetDateTime::from_unix_timestamp(at).unwrap();
    (began + time::Duration::milliseconds(999)).format(&Rfc3339).unwrap()
}

#[test]
fn everything_that_was_overwritten_and_deleted_restores_as_of_before() {
    let (bed, bucket) = bed(true);
    let nothing_yet = a_second_of_its_own();
    let base = bed.snapshot("full");
    let child = bed.snapshot("incremental");
    let good = fs::read(bed.restore(&child)).unwrap();
    let before = a_second_of_its_own();
    let there = names(&bucket);
    for (at, name) in there.iter().enumerate() {
        let path = format!("/{bucket}/{name}");
        if at % 2 == 0 {
            usual().send("PUT", &path, &[], "garbage").done();
        }
        if at % 3 != 0 {
            usual().ask("DELETE", &path, &[]).done();
        }
    }
    // And a backup was planted and removed since.
    usual().send("PUT", &format!("/{bucket}/planted"), &[], "garbage").done();
    bed.run(&["verify", "--id", &child]).failed_in_text(10, "");
    let as_of = |words: &[&'static str]| -> Vec<String> {
        let words = words.iter().map(|word| (*word).to_owned());
        words.chain(["--store-at".to_owned(), before.clone()]).collect()
    };
    let run = |words: Vec<String>| bed.run(&words.iter().map(String::as_str).collect::<Vec<_>>());
    let listed = run(as_of(&["list", "--long"])).done().stdout;
    assert!(listed.contains(&base) && listed.contains(&child), "{listed}");
    let found = names(&bucket);
    run(as_of(&["verify", "--all", "--level", "decode"])).done();
    let target = bed.path("restored");
    let mut words = as_of(&["restore", "books", "--yes", "--to"]);
    words.insert(4, target.to_str().unwrap().to_owned());
    let restored = run(words).done();
    assert!(!restored.stderr.contains("audit"), "{}", restored.stderr);
    assert!(fs::read(&target).unwrap() == good, "the restored file differs");
    assert_eq!(names(&bucket), found, "the bucket was written to");
    let early = bed.run(&["list", "--store-at", &nothing_yet]).done();
    assert!(!early.stdout.contains(&base), "{}", early.stdout);
}

#[test]
fn a_store_without_versions_cannot_be_read_as_of_a_time() {
    let (unversioned, _bucket) = bed(false);
    unversioned.snapshot("full");
    let words = ["list", "--store-at", "2026-11-21T02:00:00Z"];
    unversioned.run(&words).failed(10, "has no versions of its objects");
    let folder = Bed::of_source("");
    folder.run(&words).failed(2, "--store-at is for buckets with versioning");
    let cached = folder.run(&["list", "--cached", "--store-at", "2026-11-21T02:00:00Z"]);
    assert_eq!(cached.code, Some(2), "{}", cached.stderr);
}
