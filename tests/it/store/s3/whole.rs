//! Complete commands of the real program through S3: over a good connection, and over one with every
//! fault that networks have.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::bed::{Bed, Run, bare};
use crate::support::s3::proxy::{Fault, Proxy, Rule};
use crate::support::s3::{Service, strict, usual};
use crate::support::tb::{self, Ids};

/// How long something may take to begin on a busy machine.
const PATIENCE: Duration = Duration::from_mins(2);

/// A data file with something in it, whose server is gone.
fn data_file(folder: &Path) -> std::path::PathBuf {
    let server = tb::Server::solo(folder);
    tb::fill(server.address(), &folder.join("record"), 1000, 100_000);
    server.stop()
}

/// A bed whose backups are large enough to travel in parts.
fn bed(data_file: &Path, service: &Service, endpoint: &str, more: &str) -> Bed {
    let bed = Bed::with(data_file, "", "compression = \"none\"");
    bed.store_is(&service.table_at(endpoint, "backups", &format!("part_mib = 5\n{more}")));
    bed
}

/// Whether the usual service knows an unfinished upload of this bed's store.
fn is_uploading(bed: &Bed) -> bool {
    let shown = bed.run(&["config", "show"]).done().stdout;
    let prefix = shown.split("s3://backups/").nth(1).unwrap().split(['"', '?']).next().unwrap();
    let uploads = usual().ask("GET", "/backups?uploads", &[]).done().0;
    uploads.contains(&format!("<Key>{prefix}/"))
}

#[test]
fn backups_go_to_s3_and_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let file = data_file(folder.path());
    let (record, before) = (folder.path().join("record"), tb::unix_time());
    for service in [usual(), strict()] {
        let bed = bed(&file, service, &service.endpoint(), "");
        let doctor = bed.run(&["doctor"]).done();
        assert!(doctor.stdout.contains("nothing can be overwritten"), "{}", doctor.stdout);
        bed.snapshot("full");
        let id = bed.snapshot("incremental");
        let listing = bed.json(&["list"]);
        assert_eq!(listing["backups"].as_array().unwrap().len(), 2, "{listing}");
        bed.run(&["verify", "--id", &id, "--level", "decode"]).done();
        // Also where the service does not list unfinished uploads.
        bed.run(&["cleanup"]).done();
        let server = tb::Server::start_existing(&bed.restore(&id));
        tb::check(server.address(), &record, before, Ids::Every);

        // The store, a key, and credentials: no configuration.
        let shown = bed.run(&["config", "show"]).done().stdout;
        let url = shown.lines().find_map(|line| line.strip_prefix("url = ")).unwrap();
        let target = folder.path().join(format!("bare-{id}"));
        let key = format!("file:{}", bed.path("key").display());
        let words = ["restore", "--id", &id, "--store", url.trim_matches('"'), "--key", &key];
        let words = [&words[..], &["--yes", "--to", target.to_str().unwrap()]].concat();
        let mut command = bare(folder.path(), &words);
        command.env("AWS_ENDPOINT_URL", service.endpoint()).env("AWS_REGION", "us-east-1");
        command.env("AWS_ACCESS_KEY_ID", "test").env("AWS_SECRET_ACCESS_KEY", "testsecret");
        Run::of(&command.output().unwrap()).done();
    }
}

#[test]
fn doctor_names_missing_features_of_a_bucket() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("0_0.tigerbeetle");
    tb::format(&file, 0, 1);
    usual().ask("PUT", "/ruled", &[]).done();
    let bed = Bed::new(&file, "");
    bed.store_is(&usual().table_at(&usual().endpoint(), "ruled", ""));
    let found = || bed.run(&["doctor"]).done().stdout;
    assert!(found().contains("no lifecycle rule removes incomplete uploads"), "{}", found());
    let rule = "<LifecycleConfiguration><Rule><ID>a</ID><Status>Enabled</Status><Filter><Prefix></Prefix></Filter><AbortIncompleteMultipartUpload><DaysAfterInitiation>2</DaysAfterInitiation></AbortIncompleteMultipartUpload></Rule></LifecycleConfiguration>";
    usual().send("PUT", "/ruled?lifecycle", &[], rule).done();
    assert!(!found().contains("lifecycle"), "{}", found());
    let strict_bed = Bed::new(&file, "");
    strict_bed.store_is(&strict().table_at(&strict().endpoint(), "backups", ""));
    let found = strict_bed.run(&["doctor"]).done().stdout;
    assert!(
        found.contains("cannot tell whether a lifecycle rule removes incomplete uploads"),
        "{found}"
    );
}

#[test]
fn one_host_name_per_bucket_works_too() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("0_0.tigerbeetle");
    tb::format(&file, 0, 1);
    let bed = bed(&file, strict(), "http://s3.test", "path_style = false");
    // Nobody resolves that name: the requests go through a proxy, which knows where to.
    let proxy = Proxy::before(strict().port);
    let mut command = bed.command(&["snapshot", "books"]);
    command.env("HTTP_PROXY", proxy.endpoint()).env("http_proxy", proxy.endpoint());
    // Only requests whose path begins with the prefix, not with the bucket, have the name in front.
    proxy.plan(&[Rule::new("PUT", "/backups/", u32::MAX, Fault::ResetBefore)]);
    Run::of(&command.output().unwrap()).done();
}

#[test]
fn a_snapshot_survives_transient_faults() {
    let folder = tempfile::tempdir().unwrap();
    let file = data_file(folder.path());
    let proxy = Proxy::before(usual().port);
    let bed = bed(&file, usual(), &proxy.endpoint(), "");
    let of = |method, target, times, fault| Rule::new(method, target, times, fault);
    let slow_down = Fault::Status(503, "SlowDown");
    for rules in [
        vec![of("PUT", "partNumber", 3, slow_down), of("HEAD", "", 2, Fault::Status(503, ""))],
        vec![of("PUT", "", 3, Fault::Status(429, "TooManyRequests"))],
        vec![of("POST", "", 1, Fault::Status(500, "InternalError"))],
        vec![of("PUT", "", 2, Fault::Status(400, "XAmzContentSHA256Mismatch"))],
        vec![of("POST", "uploadId", 2, slow_down)],
        vec![of("PUT", "", 2, Fault::ResetBefore), of("POST", "", 1, Fault::ResetBefore)],
        vec![of("PUT", "", 2, Fault::ResetAfter), of("POST", "uploadId", 1, Fault::ResetAfter)],
        vec![of("PUT", "manifest.json", 1, Fault::ResetAfter)],
        vec![of("HEAD", "", 2, Fault::ResetBefore)],
    ] {
        proxy.plan(&rules);
        let id = bed.snapshot("full");
        proxy.happened();
        bed.run(&["verify", "--id", &id, "--level", "decode"]).done();
    }
    for fault in [slow_down, Fault::ResetBefore, Fault::ResetAfter, Fault::Cut(20)] {
        proxy.plan(&[of("GET", "list-type", 2, fault)]);
        assert_eq!(bed.json(&["list"])["backups"].as_array().unwrap().len(), 9);
        proxy.happened();
    }
    assert!(!is_uploading(&bed));
}

#[test]
fn a_snapshot_that_fails_for_good_leaves_nothing_and_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let file = data_file(folder.path());
    let proxy = Proxy::before(usual().port);
    let bed = bed(&file, usual(), &proxy.endpoint(), "retry_seconds = 1");
    let always = u32::MAX;
    for (rule, naming) in [
        (Rule::new("PUT", "partNumber=2", always, Fault::Status(503, "SlowDown")), "SlowDown"),
        (Rule::new("PUT", "partNumber=2", always, Fault::ResetBefore), "cannot write"),
        (
            Rule::new("PUT", "partNumber", always, Fault::Status(400, "ExpiredToken")).after(1),
            "renew them",
        ),
        (Rule::new("POST", "uploadId", always, Fault::Status(403, "AccessDenied")), "s3:PutObject"),
        (
            Rule::new("PUT", "", always, Fault::Status(403, "RequestTimeTooSkewed")),
            "correct the clock",
        ),
        (
            Rule::new("PUT", "manifest.json", always, Fault::Status(507, "QuotaExceeded")),
            "free space",
        ),
    ] {
        proxy.plan(&[rule]);
        bed.run(&["snapshot", "books", "--scope", "full"]).failed(16, naming);
        proxy.happened();
        assert_eq!(bed.json(&["list"])["backups"].as_array().unwrap().len(), 0);
        assert!(!is_uploading(&bed));
    }
    bed.snapshot("full");
}

/// The wish to stop is heard while a request is tried again, and nothing stays in the bucket.
#[test]
fn a_snapshot_that_is_told_to_stop_abandons_its_upload() {
    let folder = tempfile::tempdir().unwrap();
    let file = data_file(folder.path());
    let proxy = Proxy::before(usual().port);
    let bed = bed(&file, usual(), &proxy.endpoint(), "retry_seconds = 600");
    let always = Fault::Status(503, "SlowDown");
    proxy.plan(&[Rule::new("PUT", "partNumber=2", u32::MAX, always)]);
    let mut command = bed.command(&["snapshot", "books", "--scope", "full"]);
    let run = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let began = Instant::now();
    // Then it knows the id of its upload: whoever is told to stop before that has nothing to name.
    while proxy.met() == 0 {
        assert!(began.elapsed() < PATIENCE, "no upload was begun");
        std::thread::park_timeout(Duration::from_millis(20));
    }
    assert!(is_uploading(&bed));
    kill_process(Pid::from_child(&run), Signal::TERM).unwrap();
    let run = Run::of(&run.wait_with_output().unwrap()).failed(143, "terminated by a signal");
    assert!(!is_uploading(&bed), "{}", run.stderr);
    proxy.plan(&[]);
    bed.snapshot("full");
}

/// How long one request took says nothing of whether the next one works.
#[test]
fn a_request_that_broke_late_is_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let file = data_file(folder.path());
    let proxy = Proxy::before(usual().port);
    let bed = bed(&file, usual(), &proxy.endpoint(), "retry_seconds = 1");
    let late = Fault::ResetLate(Duration::from_secs(2));
    proxy.plan(&[Rule::new("PUT", "partNumber=1", 1, late), Rule::new("HEAD", "", 1, late)]);
    bed.snapshot("full");
    proxy.happened();
}

/// Reading a small object is waiting too.
#[test]
fn a_listing_that_stands_still_can_be_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let file = data_file(folder.path());
    let proxy = Proxy::before(usual().port);
    let bed = bed(&file, usual(), &proxy.endpoint(), "retry_seconds = 600");
    bed.snapshot("full");
    for target in ["list-type", "manifest.json"] {
        proxy.plan(&[Rule::new("GET", target, u32::MAX, Fault::Stall(10))]);
        let mut command = bed.command(&["list", "--long"]);
        let run = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let began = Instant::now();
        while proxy.met() == 0 {
            assert!(began.elapsed() < PATIENCE, "nothing was read");
            std::thread::park_timeout(Duration::from_millis(20));
        }
        kill_process(Pid::from_child(&run), Signal::INT).unwrap();
        Run::of(&run.wait_with_output().unwrap()).failed(130, "interrupted");
    }
}

#[test]
fn a_restore_is_complete_or_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let file = data_file(folder.path());
    let proxy = Proxy::before(usual().port);
    let bed = bed(&file, usual(), &proxy.endpoint(), "retry_seconds = 1");
    let id = bed.snapshot("full");
    let verify = || bed.run(&["verify", "--id", &id, "--level", "decode"]);
    let data = |times, fault| vec![Rule::new("GET", ".enc", times, fault)];
    for rules in [
        data(2, Fault::Cut(100_000)),
        data(2, Fault::Cut(0)),
        data(2, Fault::ResetAfter),
        data(2, Fault::Status(503, "SlowDown")),
        data(3, Fault::Slow(1 << 20, Duration::from_millis(20))),
    ] {
        proxy.plan(&rules);
        verify().done();
        proxy.happened();
    }
    let target = bed.path("target");
    let words = ["restore", "--id", &id, "--yes", "--to", target.to_str().unwrap()];
    for (rule, code, naming) in [
        (Rule::new("GET", ".enc", u32::MAX, Fault::Flip), 13, "object"),
        (Rule::new("GET", "manifest.json", u32::MAX, Fault::Flip), 13, "manifest"),
        (Rule::new("GET", ".tar", u32::MAX, Fault::Cut(1000)), 16, "the connection was lost"),
        (Rule::new("GET", ".tar", u32::MAX, Fault::Status(503, "SlowDown")), 16, "SlowDown"),
        (Rule::new("GET", ".tar", u32::MAX, Fault::Status(404, "NoSuchKey")), 13, "missing"),
        (Rule::new("GET", "", u32::MAX, Fault::Status(400, "ExpiredToken")), 16, "renew them"),
    ] {
        proxy.plan(&[rule]);
        bed.run(&words).failed(code, naming);
        proxy.happened();
        assert!(!target.exists());
    }
    bed.run(&words).done();
    assert!(fs::metadata(&target).unwrap().len() > 0);
}

/// A connection that stands still is given up and made anew.
#[test]
fn a_stalled_stream_is_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("0_0.tigerbeetle");
    tb::format(&file, 0, 1);
    let proxy = Proxy::before(usual().port);
    let bed = bed(&file, usual(), &proxy.endpoint(), "");
    let id = bed.snapshot("full");
    proxy.plan(&[Rule::new("GET", ".enc", 1, Fault::Stall(10))]);
    bed.run(&["verify", "--id", &id, "--level", "decode"]).done();
    proxy.happened();
}
