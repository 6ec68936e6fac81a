//! Copies between two buckets of one service: the service makes them, or they go through this host.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bkp::domain::manifest::unhex;

use crate::support::bed::Bed;
use crate::support::s3::proxy::{Fault, Head, Proxy, Rule};
use crate::support::s3::{number, strict, usual};
use crate::support::tb;

/// A source whose data is in order and no longer changes.
fn data_file() -> PathBuf {
    let folder = tempfile::tempdir().unwrap().keep();
    let server = tb::Server::solo(&folder);
    tb::fill(server.address(), &folder.join("record"), 1000, 50_000);
    server.stop()
}

/// A bed with the stores `main` and `copy`, described by these tables.
fn bed_with(main: &str, copy: &str) -> Bed {
    let bed = Bed::with(&data_file(), "", "store = \"main\"\ncompression = \"none\"");
    bed.store_is(&format!("{main}[store.copy]\n{copy}"));
    bed
}

/// The same in two buckets of the usual service, behind a proxy.
fn bed() -> (Bed, Proxy, [String; 2]) {
    let proxy = Proxy::before(usual().port);
    let buckets = ["from", "to"].map(|name| format!("{name}-{}", number()));
    for bucket in &buckets {
        usual().ask("PUT", &format!("/{bucket}"), &[]).done();
    }
    let table = |bucket: &str| usual().table_at(&proxy.endpoint(), bucket, "part_mib = 5");
    (bed_with(&table(&buckets[0]), &table(&buckets[1])), proxy, buckets)
}

fn replicate(bed: &Bed) -> serde_json::Value {
    bed.json(&["replicate", "--to", "copy", "--from", "main"])
}

/// Requests for the content of data in a bucket, or below a prefix of it, since the last look.
fn reads(proxy: &Proxy, place: &str) -> usize {
    let read = format!("GET /{place}/");
    let is_read = |head: &&Head| head.first().starts_with(&read) && head.first().contains(".tar.");
    proxy.seen().iter().filter(is_read).count()
}

/// AWS tells the SHA-256 of a part that it copied. The service here does not, so the proxy adds it.
fn tell_checksums(bed: &Bed, proxy: &Proxy) {
    let listed = bed.json(&["list", "--long"]);
    let mut rules = Vec::new();
    for backup in listed["backups"].as_array().unwrap() {
        for object in backup["manifest"]["objects"].as_array().unwrap() {
            let sha256 = unhex(object["sha256"].as_str().unwrap().as_bytes()).unwrap();
            let told = format!(
                "<ChecksumSHA256>{}</ChecksumSHA256></CopyPartResult>",
                BASE64.encode(sha256)
            );
            let key: &str = object["key"].as_str().unwrap().to_owned().leak();
            rules.push(Rule::new("PUT", key, 1, Fault::Replace("</CopyPartResult>", told.leak())));
        }
    }
    proxy.plan(&rules);
}

/// On the service that forgets checksums of parts: the other one refuses parts whose checksum it did not tell.
#[test]
fn one_service_copies_by_itself_and_the_copy_is_whole() {
    let proxy = Proxy::before(strict().port);
    let table = || strict().table_at(&proxy.endpoint(), "backups", "part_mib = 5");
    let (main, copy) = (table(), table());
    let bed = bed_with(&main, &copy);
    let place =
        |table: &str| table.split("s3://").nth(1).unwrap().split('"').next().unwrap().to_owned();
    let ids = [bed.snapshot("full"), bed.snapshot("incremental")];
    tell_checksums(&bed, &proxy);
    proxy.seen();
    let report = replicate(&bed);
    assert_eq!(report["copied"], 2, "{report}");
    proxy.happened();
    assert_eq!(reads(&proxy, &place(&main)), 0, "no byte of data came from there");
    for id in &ids {
        bed.run(&["verify", "--id", id, "--store", "copy", "--level", "decode"]).done();
    }
    assert_eq!(replicate(&bed)["present"], 2);
}

/// The service has copied something else.
const WRONG: Fault = Fault::Replace(
    "</CopyPartResult>",
    "<ChecksumSHA256>RBNvo1WzZ4oRRq0W9+hknpT7T8If536DEMBg9hyq/4o=</ChecksumSHA256></CopyPartResult>",
);

#[test]
fn what_the_service_does_not_copy_goes_through_this_host() {
    let (bed, proxy, buckets) = bed();
    let id = bed.snapshot("full");
    for fault in [Fault::Status(403, "AccessDenied"), WRONG] {
        proxy.plan(&[Rule::new("PUT", "partNumber=1", 1, fault)]);
        proxy.seen();
        assert_eq!(replicate(&bed)["copied"], 1);
        proxy.happened();
        assert!(reads(&proxy, &buckets[0]) > 0);
        bed.run(&["verify", "--id", &id, "--store", "copy", "--level", "decode"]).done();
        let uploads = usual().ask("GET", &format!("/{}?uploads", buckets[1]), &[]).done().0;
        assert!(!uploads.contains("<Key>"), "{uploads}");
        let path = format!("/{}?list-type=2", buckets[1]);
        let page = usual().ask("GET", &path, &[]).done().0;
        for rest in page.split("<Key>").skip(1) {
            let name = rest.split("</Key>").next().unwrap();
            usual().ask("DELETE", &format!("/{}/{name}", buckets[1]), &[]).done();
        }
    }
}

/// The service would copy whatever is there; what it is, the manifest knows.
#[test]
fn an_object_that_was_exchanged_is_not_copied() {
    let (bed, _proxy, buckets) = bed();
    bed.snapshot("full");
    let page = usual().ask("GET", &format!("/{}?list-type=2", buckets[0]), &[]).done().0;
    let mut names = page.split("<Key>").skip(1).map(|rest| rest.split("</Key>").next().unwrap());
    let name = names.find(|name| name.ends_with(".tar.enc")).unwrap().to_owned();
    let bytes: usize = page
        .split(&name)
        .nth(1)
        .unwrap()
        .split("<Size>")
        .nth(1)
        .unwrap()
        .split('<')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    usual().send("PUT", &format!("/{}/{name}", buckets[0]), &[], &"x".repeat(bytes)).done();
    let run = bed.run(&["replicate", "--to", "copy", "--from", "main"]);
    assert_eq!(run.code, Some(3), "{}{}", run.stdout, run.stderr);
    assert!(run.stdout.contains("FAILED"), "{}", run.stdout);
    let page = usual().ask("GET", &format!("/{}?list-type=2", buckets[1]), &[]).done().0;
    assert!(!page.contains("manifest.json") && !page.contains(".tar.enc"), "{page}");
}
