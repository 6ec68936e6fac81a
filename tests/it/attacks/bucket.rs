//! Hostile listings and objects, and credentials and policies that promise less than they say.

use crate::support::bed::Bed;
use crate::support::s3::proxy::{Fault, Proxy, Rule};
use crate::support::s3::usual;
use crate::support::tb;

/// A bed whose store is reached through a proxy, with a backup in it; and where that store is.
fn bed() -> (Bed, Proxy, String) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.keep().join("0_0.tigerbeetle");
    tb::format(&file, 0, 1);
    let proxy = Proxy::before(usual().port);
    let bed = Bed::new(&file, "");
    bed.store_is(&usual().table_at(&proxy.endpoint(), "backups", "retry_seconds = 1"));
    bed.snapshot("full");
    let shown = bed.json(&["list"])["store"].as_str().unwrap().to_owned();
    let place = shown.strip_prefix("s3://").unwrap().split('?').next().unwrap().to_owned();
    (bed, proxy, place)
}

/// Every command that lists works.
#[track_caller]
fn all_works(bed: &Bed) {
    assert_eq!(bed.json(&["list"])["backups"].as_array().unwrap().len(), 1);
    let target = bed.path("target");
    for words in [
        &["verify", "--all", "--level", "digest"][..],
        &["restore", "books", "--yes", "--to", target.to_str().unwrap()],
        &["snapshot", "books", "--dry-run"],
        &["cleanup"],
        &["status"],
    ] {
        bed.run(words).done();
    }
    std::fs::remove_file(target).unwrap();
}

#[test]
fn foreign_object_names_do_not_stop_a_listing() {
    let (bed, proxy, place) = bed();
    for name in
        ["%01", "tigerbeetle/%08%1b", "tigerbeetle/books/full/a%00b", "a%20b", "a!b", "%c3%a4"]
    {
        usual().send("PUT", &format!("/{place}/{name}"), &[], "x").done();
    }
    all_works(&bed);
    // The same from a service that sends names as they are: not even a page of XML.
    proxy.plan(&[Rule::new("GET", "list-type", u32::MAX, Fault::Replace("%01", "\u{1}"))]);
    all_works(&bed);
    proxy.happened();
    let raw = "<Contents><Key>tigerbeetle/\u{1}\u{1b}\u{fffe}</Key><Size>1</Size></Contents></ListBucketResult>";
    proxy.plan(&[Rule::new(
        "GET",
        "list-type",
        u32::MAX,
        Fault::Replace("</ListBucketResult>", raw),
    )]);
    all_works(&bed);
    proxy.happened();
}

#[test]
fn endless_listings_are_refused() {
    let (bed, proxy, _place) = bed();
    let again = "<IsTruncated>true</IsTruncated><NextContinuationToken>x</NextContinuationToken>";
    let nothing = "<IsTruncated>true</IsTruncated>";
    for (fault, naming) in [
        (Fault::Replace("<IsTruncated>false</IsTruncated>", again), "the service"),
        (Fault::Replace("<IsTruncated>false</IsTruncated>", nothing), "continuation token"),
        (Fault::Replace("<Key>", "<<Key>"), "cannot be read"),
        (Fault::Pad(17 << 20), "length limit"),
    ] {
        proxy.plan(&[Rule::new("GET", "list-type", u32::MAX, fault)]);
        let began = std::time::Instant::now();
        bed.run(&["list"]).failed(16, naming);
        assert!(began.elapsed().as_secs() < 30);
        proxy.happened();
    }
}

/// What arrived damaged once is read again, and no backup is called damaged for it.
#[test]
fn a_damaged_answer_is_read_again() {
    let (bed, proxy, place) = bed();
    let id = bed.json(&["list"])["backups"][0]["id"].as_str().unwrap().to_owned();
    for (target, fault) in [
        ("manifest.json", Fault::Flip),
        (".tar.zst.enc", Fault::Flip),
        (".map.json", Fault::Flip),
        (".tar.zst.enc", Fault::Status(404, "NoSuchKey")),
        (".tar.zst.enc", Fault::Status(412, "PreconditionFailed")),
    ] {
        proxy.plan(&[Rule::new("GET", target, 1, fault)]);
        bed.run(&["verify", "--id", &id, "--level", "decode"]).done();
        proxy.happened();
    }
    proxy.plan(&[Rule::new("GET", "manifest.json", 1, Fault::Flip)]);
    let to = bed.path("target");
    bed.run(&["restore", "--id", &id, "--yes", "--to", to.to_str().unwrap()]).done();
    proxy.happened();
    let (bucket, prefix) = place.split_once('/').unwrap();
    let path = format!("/{bucket}?list-type=2&prefix={prefix}/tigerbeetle");
    assert!(!usual().ask("GET", &path, &[]).done().0.contains("damaged"));
}
