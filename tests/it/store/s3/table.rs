//! The settings in a store's table apply to every command: region, credentials and options are set
//! nowhere else here, and each request of any command is inspected on the wire.

use crate::support::bed::Bed;
use crate::support::s3::proxy::{Fault, Head, Proxy, Rule};
use crate::support::s3::{number, usual};
use crate::support::tb;

/// A region that nothing else would choose.
const REGION: &str = "eu-north-1";
/// A bucket there; the service refuses whoever signs for another region.
const BUCKET: &str = "far-away";

/// A store on the usual service of which only its table knows region, credentials and marks.
struct Own {
    bed: Bed,
    proxy: Proxy,
    /// Where it is in the service.
    place: String,
}

impl Own {
    fn new() -> Own {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.keep().join("0_0.tigerbeetle");
        tb::format(&file, 0, 1);
        let proxy = Proxy::before(usual().port);
        let bed = Bed::new(&file, "");
        let there = format!(
            "<CreateBucketConfiguration><LocationConstraint>{REGION}</LocationConstraint></CreateBucketConfiguration>"
        );
        // Another test may have made it already.
        let _made = usual().send("PUT", &format!("/{BUCKET}"), &[], &there);
        let place = format!("{BUCKET}/own-{}", number());
        bed.store_is(&format!(
            "url = \"s3://{place}/\"\nendpoint = {:?}\nregion = {REGION:?}\nprofile = \"own\"\ncredentials_file = \"own\"\nsse = \"s3\"\ntags = {{ team = \"own\" }}",
            proxy.endpoint()
        ));
        let secret = "[own]\naws_access_key_id = ofthetable\naws_secret_access_key = testsecret\n";
        std::fs::write(bed.path("own"), secret).unwrap();
        bed.chmod("own", 0o600);
        Own { bed, proxy, place }
    }

    /// The names of the objects below a folder.
    fn below(&self, folder: &str) -> Vec<String> {
        let (bucket, prefix) = self.place.split_once('/').unwrap();
        let path = format!("/{bucket}?list-type=2&prefix={prefix}/{folder}");
        let page = usual().ask("GET", &path, &[]).done().0;
        let names = page.split("<Key>").skip(1);
        names.map(|rest| rest.split("</Key>").next().unwrap().to_owned()).collect()
    }

    /// Puts other bytes in place of an object, as many as it had.
    fn overwrite(&self, ending: &str) {
        let names = self.below("tigerbeetle");
        let name = names.iter().find(|name| name.ends_with(ending)).unwrap();
        let path = format!("/{BUCKET}/{name}");
        let head = usual().ask("HEAD", &path, &[]).done();
        let length = head.header("content-length").unwrap().parse().unwrap();
        usual().send("PUT", &path, &[], &"x".repeat(length)).done();
    }

    /// Every request since the last time was made as the table says.
    #[track_caller]
    fn check(&self, what: &str) {
        let seen = self.proxy.seen();
        assert!(!seen.is_empty(), "{what}: no request");
        for head in seen {
            let signed = head.header("authorization").unwrap_or_default();
            let is_ours = signed.contains("Credential=ofthetable/")
                && signed.contains(&format!("/{REGION}/s3/aws4_request"));
            assert!(is_ours, "{what}: {}: {signed}", head.first());
            if makes_an_object(&head) {
                let sse = head.header("x-amz-server-side-encryption");
                assert_eq!(sse, Some("AES256"), "{what}: {}", head.first());
                let is_lease = head.first().contains("/leases/");
                let tagged = head.header("x-amz-tagging") == Some("team=own");
                assert!(tagged || is_lease, "{what}: {}", head.first());
            }
        }
    }
}

fn makes_an_object(head: &Head) -> bool {
    let first = head.first();
    first.starts_with("PUT") && !first.contains("partNumber")
        || first.starts_with("POST") && first.contains("uploads")
}

#[test]
fn every_request_of_every_command_is_made_as_the_table_says() {
    let own = Own::new();
    let run = |words: &[&str], code: i32| {
        let run = own.bed.run(words);
        assert_eq!(run.code, Some(code), "{words:?}: {}{}", run.stdout, run.stderr);
        assert!(!run.stderr.contains("cannot write the audit record"), "{words:?}: {}", run.stderr);
        own.check(&words.join(" "));
        run
    };
    run(&["doctor"], 0);
    let base = own.bed.snapshot("full");
    own.check("snapshot");
    let target = own.bed.path("target");
    let restore = ["restore", "books", "--yes", "--to", target.to_str().unwrap()];
    let url = own.bed.json(&["list"])["store"].as_str().unwrap().to_owned();
    for words in [
        &["snapshot", "books", "--scope", "incremental"][..],
        &["list", "--long"],
        &["list", "--store", &url],
        &["verify", "books", "--level", "exists", "--store", &url],
        &["verify", "--all", "--level", "decode"],
        &restore,
        &["pin", &base],
        &["unpin", &base],
        &["note", &base, "a word"],
        &["cleanup", "--dry-run"],
        &["cleanup"],
    ] {
        run(words, 0);
    }
    // What was done and found is on record where the table says.
    assert_eq!(own.below("audit").iter().filter(|name| name.contains("/restored-")).count(), 1);
    assert_eq!(own.below("audit").iter().filter(|name| name.contains("/verified-")).count(), 2);
    own.overwrite(&format!("{base}.tar.zst.enc"));
    run(&["verify", "--all", "--level", "digest"], 13);
    assert!(own.below("tigerbeetle").iter().any(|name| name.contains(".damaged-")));
    // And nothing is built on it.
    let report = own.bed.json(&["snapshot", "books"]);
    assert_eq!(report["manifest"]["scope"], "full", "{report}");
    own.check("snapshot after damage");
}

/// A look is enough to find other bytes of the same length, where the service tells checksums.
#[test]
fn an_object_that_was_overwritten_is_found_by_reading_it() {
    let own = Own::new();
    let id = own.bed.snapshot("full");
    own.bed.run(&["verify", "books", "--level", "exists"]).done();
    own.overwrite(&format!("{id}.tar.zst.enc"));
    own.bed.run(&["verify", "books", "--level", "digest"]).failed(13, "tar.zst.enc");
}

/// A record that cannot be written is no failure, and no secret.
#[test]
fn a_failed_audit_record_is_a_warning() {
    let own = Own::new();
    own.bed.snapshot("full");
    let denied = Fault::Status(403, "AccessDenied");
    own.proxy.plan(&[Rule::new("PUT", "/audit/", u32::MAX, denied)]);
    let run = own.bed.run(&["verify", "books", "--level", "exists"]).done();
    assert!(run.stderr.contains("cannot write the audit record `verified`"), "{}", run.stderr);
    own.proxy.happened();
}
