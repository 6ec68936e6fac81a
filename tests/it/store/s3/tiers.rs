//! Storage classes: the bucket's lifecycle, and what `cleanup` moves by copies in place.

use std::fs;
use std::path::Path;

use bkp::ctx::Ctx;
use bkp::domain::manifest::Manifest;
use bkp::domain::tier::StorageClass;
use bkp::store::s3::S3;
use bkp::store::{
    AppendStore, Declared, ObjectLabels, PruneStore, ReadStore, Role, StoreError, StoreLocation,
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use time::Duration;
use time::macros::datetime;

use crate::support::bed::Bed;
use crate::support::cleanup::with;
use crate::support::planted::{Seed, now, plant_in};
use crate::support::s3::proxy::{Fault, Proxy, Rule};
use crate::support::s3::{number, place, usual};
use crate::support::tb;

const TIERS: &str = "tiers = [{ after = \"30d\", class = \"STANDARD_IA\" }, { after = \"90d\", class = \"GLACIER\" }]";

fn open(place: &StoreLocation) -> S3 {
    S3::open(place, &Ctx::fixed(|| datetime!(2026-11-21 02:00:00 UTC))).unwrap()
}

/// A new bucket, with more headers for its making.
fn bucket(headers: &[&str]) -> String {
    let name = format!("tiers-{}", number());
    usual().ask("PUT", &format!("/{name}"), headers).done();
    name
}

fn put(store: &dyn AppendStore, key: &str, bytes: &[u8]) -> Declared {
    let labels = ObjectLabels {
        role: Role::Data,
        pairs: vec![("backup-id".into(), "x".into())],
        ..ObjectLabels::default()
    };
    let declared = Declared { bytes: bytes.len() as u64, sha256: Sha256::digest(bytes).into() };
    let mut upload = store.create(key, &labels).unwrap();
    upload.write(bytes).unwrap();
    upload.commit(declared).unwrap();
    declared
}

/// The path of an object for a service.
fn path(store: &dyn ReadStore, key: &str) -> String {
    let (place, _endpoint) = store.url().split_once('?').unwrap();
    format!("/{}/{key}", place.strip_prefix("s3://").unwrap())
}

/// A bed with a store in a new bucket.
fn bed(data_file: &Path, more: &str) -> (Bed, String) {
    let bed = Bed::new(data_file, "");
    let bucket = bucket(&[]);
    bed.store_is(&usual().table_at(&usual().endpoint(), &bucket, more));
    (bed, bucket)
}

/// The class of the data of a backup, and that of its manifest.
fn classes(bed: &Bed, manifest: &Manifest) -> (StorageClass, StorageClass) {
    let app = bed.app(None);
    let store = app.store_named("main").unwrap();
    let class = |key: &str| store.head(key).unwrap().class;
    (class(&manifest.objects[0].key), class(&manifest.name().manifest_key()))
}

#[test]
fn the_printed_lifecycle_is_what_doctor_wants() {
    let lifecycle = format!("tiers_by = \"lifecycle\"\n{TIERS}");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("0_0.tigerbeetle");
    tb::format(&file, 0, 1);
    let (bed, bucket) = bed(&file, &lifecycle);
    let printed = bed.run(&["config", "lifecycle"]).done().stdout;
    let printed: Value = serde_json::from_str(&printed).unwrap();
    let [tiers, uploads] = printed["Rules"].as_array().unwrap().as_slice() else {
        unreachable!("{printed}")
    };
    let prefix = tiers["Filter"]["And"]["Prefix"].as_str().unwrap();
    assert!(prefix.starts_with("test-") && prefix.ends_with('/'), "{prefix}");
    assert_eq!(tiers["Filter"]["And"]["Tags"], json!([{ "Key": "bkp-role", "Value": "data" }]));
    let transitions = json!([
        { "Days": 30, "StorageClass": "STANDARD_IA" },
        { "Days": 90, "StorageClass": "GLACIER" },
    ]);
    assert_eq!(tiers["Transitions"], transitions);
    assert_eq!(uploads["Filter"]["Prefix"], prefix);
    assert_eq!(uploads["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"], 7);
    bed.run(&["doctor"]).failed_in_text(16, "no lifecycle rule of the bucket moves data");

    let rule = |filter: &str, days: u32| {
        format!(
            "<LifecycleConfiguration><Rule><ID>a</ID><Status>Enabled</Status><Filter>{filter}</Filter><Transition><Days>30</Days><StorageClass>STANDARD_IA</StorageClass></Transition><Transition><Days>{days}</Days><StorageClass>GLACIER</StorageClass></Transition></Rule></LifecycleConfiguration>"
        )
    };
    let tag = "<Tag><Key>bkp-role</Key><Value>data</Value></Tag>";
    let of_data = format!("<And><Prefix>{prefix}</Prefix>{tag}</And>");
    let set = |text: &str| usual().send("PUT", &format!("/{bucket}?lifecycle"), &[], text).done();
    set(&rule(&of_data, 90));
    let doctor = bed.run(&["doctor"]).done().stdout;
    assert!(doctor.contains("the bucket's lifecycle moves data as `tiers` says"), "{doctor}");
    set(&rule(&of_data, 91));
    bed.run(&["doctor"]).failed_in_text(16, "no lifecycle rule of the bucket moves data");
    set(&rule("<Prefix></Prefix>", 90));
    bed.run(&["doctor"]).failed_in_text(16, "moves manifests and block maps to GLACIER");

    // What the rule asks for is what data has, and nothing else.
    let app = bed.app(None);
    let store = app.store_append("main").unwrap();
    put(&*store, "data", b"x");
    let tags =
        |key: &str| usual().ask("GET", &format!("{}?tagging", path(&*store, key)), &[]).done();
    assert!(tags("data").0.contains("<Key>bkp-role</Key><Value>data</Value>"));
    let mut upload = store.create("index", &ObjectLabels::default()).unwrap();
    upload.write(b"x").unwrap();
    upload.commit(Declared { bytes: 1, sha256: Sha256::digest(b"x").into() }).unwrap();
    assert!(!tags("index").0.contains("bkp-role"));
    // Then `cleanup` moves nothing.
    assert!(app.store_prune("main").unwrap().tiers().is_none());
}

#[test]
fn a_store_that_has_no_classes_has_no_tiers() {
    let bed = Bed::new(Path::new("/nowhere/0_0.tigerbeetle"), "");
    bed.run(&["config", "lifecycle"]).failed(14, "no configured store has lifecycle rules");
    let config = fs::read_to_string(bed.path("bkp.toml")).unwrap();
    fs::write(bed.path("bkp.toml"), config.replace("[keys]", &format!("{TIERS}\n[keys]"))).unwrap();
    bed.run(&["config", "check"]).failed(78, "store.main.tiers");
}

#[test]
fn a_copy_in_place_keeps_everything_but_the_class() {
    let more =
        "sse = \"kms\"\nsse_kms_key_id = \"alias/aws/s3\"\ntags = { team = \"a b\" }\npart_mib = 5";
    let store = open(&place(&usual().table_at(&usual().endpoint(), &bucket(&[]), more)));
    let declared = put(&store, "small", &vec![7; 200_000]);
    store.set_class("small", declared, StorageClass::GlacierIr).unwrap();
    let head = usual().ask("HEAD", &path(&store, "small"), &[]).done();
    for (name, expected) in [
        ("x-amz-storage-class", "GLACIER_IR"),
        ("x-amz-server-side-encryption", "aws:kms"),
        ("x-amz-meta-backup-id", "x"),
    ] {
        assert_eq!(head.header(name), Some(expected), "{}", head.0);
    }
    let tags = usual().ask("GET", &format!("{}?tagging", path(&store, "small")), &[]).done();
    assert!(tags.0.contains("<Key>team</Key><Value>a b</Value>"), "{}", tags.0);
    // Again is done already; what is not what was declared is left alone.
    store.set_class("small", declared, StorageClass::GlacierIr).unwrap();
    let wrong = Declared { bytes: 199_999, ..declared };
    let refused = store.set_class("small", wrong, StorageClass::Glacier);
    assert!(matches!(refused, Err(StoreError::Mismatch { .. })), "{refused:?}");
    assert_eq!(store.head("small").unwrap().class, StorageClass::GlacierIr);
    let refused = store.set_class("none", declared, StorageClass::Glacier);
    assert!(matches!(refused, Err(StoreError::Missing { .. })), "{refused:?}");
}

/// The service of the tests copies objects of any size; a proxy refuses that, as S3 does above 5 GiB.
#[test]
fn what_is_too_large_for_one_request_is_copied_in_its_parts() {
    let proxy = Proxy::before(usual().port);
    let more = "part_mib = 5\nretry_seconds = 1\ntags = { team = \"a\" }";
    let store = open(&place(&usual().table_at(&proxy.endpoint(), &bucket(&[]), more)));
    let bytes: Vec<u8> = (0..12_000_000_u32).map(|at| (at % 251) as u8).collect();
    let declared = put(&store, "large", &bytes);
    let too_large = Fault::Status(400, "InvalidRequest");
    proxy.plan(&[Rule::new("PUT", "large", 1, too_large)]);
    store.set_class("large", declared, StorageClass::StandardIa).unwrap();
    proxy.happened();
    let head =
        usual().ask("HEAD", &path(&store, "large"), &["x-amz-checksum-mode: ENABLED"]).done();
    assert_eq!(head.header("x-amz-storage-class"), Some("STANDARD_IA"), "{}", head.0);
    // This service calculates no checksum of copied parts, so what it put together was read back.
    assert!(head.header("etag").unwrap().contains("-3"), "{}", head.0);
    assert_eq!(head.header("x-amz-meta-backup-id"), Some("x"), "{}", head.0);
    let mut read = Vec::new();
    std::io::Read::read_to_end(&mut store.open("large", None).unwrap(), &mut read).unwrap();
    assert!(read == bytes);
    // One that fails on the way leaves the object as it was, and no parts.
    let always = u32::MAX;
    proxy.plan(&[
        Rule::new("PUT", "large", 1, too_large),
        Rule::new("PUT", "partNumber=2", always, Fault::Status(403, "AccessDenied")),
    ]);
    let refused = store.set_class("large", declared, StorageClass::Glacier);
    assert!(
        matches!(&refused, Err(StoreError::Denied { hint, .. }) if hint.contains("s3:PutObject")),
        "{refused:?}"
    );
    assert_eq!(store.head("large").unwrap().class, StorageClass::StandardIa);
    let name = path(&store, "large");
    let bucket = name.split('/').nth(1).unwrap();
    let uploads = usual().ask("GET", &format!("/{bucket}?uploads"), &[]).done().0;
    assert!(!uploads.contains("<Upload>"), "{uploads}");
}

/// Whatever becomes of the request for a copy, the object is there, whole, in one class or the other.
#[test]
fn a_copy_in_place_survives_faults() {
    let proxy = Proxy::before(usual().port);
    let more = "retry_seconds = 1";
    let store = open(&place(&usual().table_at(&proxy.endpoint(), &bucket(&[]), more)));
    let bytes = vec![9; 150_000];
    let declared = put(&store, "object", &bytes);
    let mut class = StorageClass::StandardIa;
    for (fault, times, works) in [
        (Fault::ResetBefore, 1, true),
        (Fault::ResetAfter, 1, true),
        (Fault::Status(503, "SlowDown"), 2, true),
        (Fault::Status(403, "AccessDenied"), u32::MAX, false),
    ] {
        for method in ["PUT", "HEAD"] {
            proxy.plan(&[Rule::new(method, "object", times, fault)]);
            let moved = store.set_class("object", declared, class);
            proxy.happened();
            assert_eq!(moved.is_ok(), works, "{method} {fault:?}: {moved:?}");
            proxy.plan(&[]);
            let found = store.head("object").unwrap();
            assert_eq!(found.class == class, works, "{method} {fault:?}");
            let mut read = Vec::new();
            std::io::Read::read_to_end(&mut store.open("object", None).unwrap(), &mut read)
                .unwrap();
            assert!(read == bytes, "{method} {fault:?}");
            if works {
                let is_first = class == StorageClass::StandardIa;
                class = if is_first { StorageClass::GlacierIr } else { StorageClass::StandardIa };
            }
        }
    }
}

#[test]
fn versions_are_replaced_and_locked_objects_are_left_alone() {
    let bucket = bucket(&["x-amz-bucket-object-lock-enabled: true"]);
    let store = open(&place(&usual().table_at(&usual().endpoint(), &bucket, "")));
    let declared = put(&store, "free", &vec![7; 200_000]);
    store.set_class("free", declared, StorageClass::GlacierIr).unwrap();
    let versions = || usual().ask("GET", &format!("/{bucket}?versions"), &[]).done().0;
    assert_eq!(versions().matches("<Version>").count(), 1, "{}", versions());
    let more = "object_lock = \"governance\"\nobject_lock_days = 30";
    let store = open(&place(&usual().table_at(&usual().endpoint(), &bucket, more)));
    let declared = put(&store, "locked", &vec![7; 200_000]);
    let refused = store.set_class("locked", declared, StorageClass::GlacierIr);
    assert!(matches!(refused, Err(StoreError::Retained { .. })), "{refused:?}");
    assert_eq!(store.head("locked").unwrap().class, StorageClass::Standard);
    assert_eq!(versions().matches("<Version>").count(), 2, "{}", versions());
}

#[test]
fn cleanup_moves_whole_chains_by_their_youngest_backup() {
    let (bed, _bucket) = bed(Path::new("/nowhere/0_0.tigerbeetle"), TIERS);
    let app = bed.app(None);
    let store = app.store_append("main").unwrap();
    let began = now();
    let seed = |days| Seed { bytes: 200_000, ..Seed::at(began - Duration::days(days)) };
    let plant = |seed: &Seed| plant_in(&*store, &app, seed);
    let old = plant(&seed(200));
    let old_child = plant(&seed(199).built_on(&old));
    // This one was continued until a month ago.
    let long = plant(&seed(150));
    let long_child = plant(&seed(40).built_on(&long));
    let small = plant(&Seed { bytes: 1000, ..seed(120) });
    let newest = plant(&seed(10));
    let newest_child = plant(&seed(9).built_on(&newest));
    let planned = bed.json(&["cleanup", "--dry-run"]);
    let moving = with(&planned, "move");
    let expected = [&old, &old_child, &long, &long_child].map(|made| made.id.to_string());
    assert_eq!(moving, expected.into(), "{planned:#}");
    assert_eq!(classes(&bed, &old).0, StorageClass::Standard, "a dry run moves nothing");
    let done = bed.json(&["cleanup"]);
    assert_eq!(with(&done, "move"), moving);
    assert_eq!(done["stores"][0]["moved_bytes"], 800_000, "{done:#}");
    for (made, class) in [
        (&old, StorageClass::Glacier),
        (&old_child, StorageClass::Glacier),
        (&long, StorageClass::StandardIa),
        (&long_child, StorageClass::StandardIa),
        (&small, StorageClass::Standard),
        (&newest, StorageClass::Standard),
        (&newest_child, StorageClass::Standard),
    ] {
        assert_eq!(classes(&bed, made), (class, StorageClass::Standard), "{}", made.id);
    }
    let again = bed.json(&["cleanup"]);
    assert_eq!(again["stores"][0]["moved"], 0, "{again:#}");
    assert_eq!(bed.json(&["list"])["backups"].as_array().unwrap().len(), 7);
    bed.run(&["verify", "--id", &long_child.id.to_string(), "--level", "digest"]).done();
}
