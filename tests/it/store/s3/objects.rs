//! The features that an S3 store requires of its service, each on a service that has it.

use bkp::ctx::Ctx;
use bkp::domain::manifest::hex;
use bkp::store::s3::S3;
use bkp::store::{AppendStore, Declared, ObjectLabels, ReadStore, Role, StoreError};
use sha2::{Digest as _, Sha256};
use std::io::Read as _;
use time::OffsetDateTime;
use time::macros::datetime;

use crate::support::s3::proxy::{Fault, Proxy, Rule};
use crate::support::s3::{Service, place, strict, usual};

fn ctx() -> Ctx {
    Ctx::fixed(|| datetime!(2026-11-21 02:00:00 UTC))
}

fn open(service: &Service, more: &str) -> S3 {
    S3::open(&service.place("backups", more), &ctx()).unwrap()
}

fn put(store: &S3, key: &str, labels: &ObjectLabels, bytes: &[u8]) -> Result<(), StoreError> {
    let mut upload = store.create(key, labels)?;
    for chunk in bytes.chunks(1 << 20) {
        upload.write(chunk)?;
    }
    upload.commit(Declared { bytes: bytes.len() as u64, sha256: Sha256::digest(bytes).into() })
}

fn get(store: &S3, key: &str, range: Option<std::ops::Range<u64>>) -> Vec<u8> {
    let mut bytes = Vec::new();
    store.open(key, range).unwrap().read_to_end(&mut bytes).unwrap();
    bytes
}

/// Bytes that differ everywhere.
fn content(length: usize) -> Vec<u8> {
    let words = (0..length.div_ceil(8))
        .flat_map(|at| (at as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes());
    words.take(length).collect()
}

/// The path of an object for [`Service::ask`].
fn path(store: &S3, key: &str) -> String {
    let (place, _endpoint) = store.url().split_once('?').unwrap();
    format!("/{}/{key}", place.strip_prefix("s3://").unwrap())
}

#[test]
fn large_objects_travel_in_parts_and_come_back_in_pieces() {
    for service in [usual(), strict()] {
        let store = open(service, "part_mib = 5\nconnections = 3");
        // Six whole parts and a bit; three pieces of a reader.
        let bytes = content((32 << 20) + 12_345);
        put(&store, "large", &ObjectLabels::default(), &bytes).unwrap();
        assert_eq!(store.head("large").unwrap().bytes, bytes.len() as u64);
        assert!(get(&store, "large", None) == bytes);
        let piece = 8 << 20;
        for range in [piece - 1..piece + 1, 5..2 * piece + 5, piece..u64::MAX] {
            let within = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
            let (start, end) = (within(range.start), within(range.end));
            assert!(get(&store, "large", Some(range)) == bytes[start..end]);
        }
        // As many bytes as one part has need no second request.
        let one = content(5 << 20);
        put(&store, "one", &ObjectLabels::default(), &one).unwrap();
        assert!(get(&store, "one", None) == one);
    }
    let store = open(usual(), "part_mib = 5");
    put(&store, "large", &ObjectLabels::default(), &content((5 << 20) + 1)).unwrap();
    let head =
        usual().ask("HEAD", &path(&store, "large"), &["x-amz-checksum-mode: ENABLED"]).done();
    assert!(head.header("etag").unwrap().contains("-2"), "two parts: {}", head.0);
    assert!(head.header("x-amz-checksum-sha256").unwrap().ends_with("-2"), "{}", head.0);
}

/// Metadata is said before the first part is sent, so what is not longer than `held_mib` is held.
#[test]
fn objects_in_parts_have_their_sha256_in_their_metadata() {
    let store = open(usual(), "");
    let bytes = content(100_000_000);
    put(&store, "large", &ObjectLabels::default(), &bytes).unwrap();
    let head = usual().ask("HEAD", &path(&store, "large"), &[]).done();
    assert!(head.header("etag").unwrap().contains("-12"), "{}", head.0);
    let sha256: [u8; 32] = Sha256::digest(&bytes).into();
    let told = head.header("x-amz-meta-checksum-sha256").unwrap();
    assert_eq!(told, hex(&sha256));
    assert_eq!(store.head("large").unwrap().sha256, Some(sha256));
    // What is longer is not in memory when the first part is sent.
    let store = open(usual(), "part_mib = 5\nheld_mib = 10");
    for (key, length, told) in [("held", 10 << 20, true), ("sent", (10 << 20) + 1, false)] {
        let bytes = content(length);
        put(&store, key, &ObjectLabels::default(), &bytes).unwrap();
        assert_eq!(store.head(key).unwrap().sha256.is_some(), told, "{key}");
        assert!(get(&store, key, None) == bytes);
    }
}

/// A listing and a look tell the same version, and another one after somebody has written over it.
#[test]
fn a_version_is_reported_and_changes() {
    let store = open(usual(), "");
    put(&store, "key", &ObjectLabels::default(), b"content").unwrap();
    let listed = |store: &S3| store.list("").unwrap().next().unwrap().unwrap();
    let looked = store.head("key").unwrap();
    assert!(looked.version.is_some());
    assert_eq!(listed(&store).version, looked.version);
    assert_eq!(looked.sha256, Some(Sha256::digest(b"content").into()));
    usual().send("PUT", &path(&store, "key"), &[], "CONTENT").done();
    let other = store.head("key").unwrap();
    assert_eq!(other.bytes, looked.bytes);
    assert_ne!(other.version, looked.version);
    assert_eq!(listed(&store).version, other.version);
    let declared = Declared { bytes: 7, sha256: Sha256::digest(b"content").into() };
    assert_eq!(looked.differs(&declared), None);
}

#[test]
fn an_abandoned_upload_leaves_no_parts() {
    let store = open(usual(), "part_mib = 5\nheld_mib = 0");
    let mut upload = store.create("large", &ObjectLabels::default()).unwrap();
    upload.write(&content(11 << 20)).unwrap();
    let uploads = || usual().ask("GET", "/backups?uploads", &[]).done().0;
    let name = path(&store, "large").replace("/backups/", "");
    assert!(uploads().contains(&name), "{}", uploads());
    drop(upload);
    assert!(!uploads().contains(&name), "{}", uploads());
    // A wrong declaration is found before the service puts anything together.
    let mut upload = store.create("large", &ObjectLabels::default()).unwrap();
    upload.write(&content(11 << 20)).unwrap();
    let wrong = upload.commit(Declared { bytes: 11 << 20, sha256: [0; 32] });
    assert!(matches!(wrong, Err(StoreError::Mismatch { .. })), "{wrong:?}");
    assert!(!uploads().contains(&name), "{}", uploads());
}

#[test]
fn objects_get_the_configured_lock_class_encryption_and_tags() {
    let headers = ["x-amz-bucket-object-lock-enabled: true"];
    usual().ask("PUT", "/locked", &headers).done();
    let marks = "sse = \"kms\"\nsse_kms_key_id = \"alias/aws/s3\"\nstorage_class = \"STANDARD_IA\"\nobject_lock = \"governance\"\nobject_lock_days = 3\npart_mib = 5\ntags = { team = \"a b\" }";
    let store = S3::open(&usual().place("locked", marks), &ctx()).unwrap();
    let labels = ObjectLabels {
        pairs: vec![("backup-id".into(), "x".into())],
        role: Role::Data,
        ..ObjectLabels::default()
    };
    let later: OffsetDateTime = datetime!(2026-12-24 00:00:00 UTC);
    for (key, length, until, day) in [
        ("small", 10, None, "2026-11-24"),
        ("large", 6 << 20, None, "2026-11-24"),
        ("kept", 10, Some(later), "2026-12-24"),
    ] {
        let labels = ObjectLabels { retain_until: until, ..labels.clone() };
        put(&store, key, &labels, &content(length)).unwrap();
        let head = usual().ask("HEAD", &path(&store, key), &[]).done();
        for (name, expected) in [
            ("x-amz-server-side-encryption", "aws:kms"),
            ("x-amz-storage-class", "STANDARD_IA"),
            ("x-amz-object-lock-mode", "GOVERNANCE"),
            ("x-amz-object-lock-retain-until-date", day),
            ("x-amz-meta-backup-id", "x"),
        ] {
            let found = head.header(name).unwrap_or_default();
            assert!(found.starts_with(expected), "{key}: {name}: {found}");
        }
        if key == "large" {
            // This service forgets the tags of objects in parts.
            continue;
        }
        let tags = usual().ask("GET", &format!("{}?tagging", path(&store, key)), &[]).done();
        assert!(tags.0.contains("<Key>team</Key><Value>a b</Value>"), "{}", tags.0);
    }
    // What every run reads is not archived; what means nothing after a run is not locked.
    for (role, locked) in [(Role::Index, true), (Role::Lease, false)] {
        let key = format!("{role:?}");
        put(&store, &key, &ObjectLabels { role, ..labels.clone() }, b"x").unwrap();
        let head = usual().ask("HEAD", &path(&store, &key), &[]).done();
        assert!(!matches!(head.header("x-amz-storage-class"), Some("STANDARD_IA")), "{}", head.0);
        assert_eq!(head.header("x-amz-object-lock-mode").is_some(), locked, "{}", head.0);
        assert_eq!(head.header("x-amz-server-side-encryption"), Some("aws:kms"), "{}", head.0);
    }
    let store = open(usual(), "sse = \"s3\"");
    put(&store, "small", &labels, b"x").unwrap();
    let head = usual().ask("HEAD", &path(&store, "small"), &[]).done();
    assert_eq!(head.header("x-amz-server-side-encryption"), Some("AES256"));
}

/// What a service does not do although it was asked to is no success.
#[test]
fn a_service_that_ignores_requested_features_is_refused() {
    let store = open(strict(), "sse = \"s3\"");
    let refused = put(&store, "key", &ObjectLabels::default(), b"x");
    assert!(
        matches!(&refused, Err(StoreError::Denied { problem, .. }) if problem.contains("encryption")),
        "{refused:?}"
    );
    let store = open(strict(), "storage_class = \"STANDARD_IA\"");
    let labels = ObjectLabels { role: Role::Data, ..ObjectLabels::default() };
    let refused = put(&store, "key", &labels, b"x");
    assert!(
        matches!(&refused, Err(StoreError::Denied { hint, .. }) if hint.contains("storage_class")),
        "{refused:?}"
    );
}

#[test]
fn wrong_credentials_and_a_missing_bucket_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("credentials");
    let write = |text: &str| std::fs::write(&file, text).unwrap();
    let table = format!(
        "url = \"s3://backups/a\"\nendpoint = {:?}\ncredentials_file = {file:?}\n",
        strict().endpoint()
    );
    write("[default]\naws_access_key_id = test\naws_secret_access_key = wrong\n");
    let store = S3::open(&place(&table), &ctx()).unwrap();
    let refused = store.list("").err().unwrap();
    assert!(
        matches!(&refused, StoreError::Denied { hint, .. } if hint.contains("secret key")),
        "{refused:?}"
    );
    write("[other]\n");
    let refused = S3::open(&place(&table), &ctx()).err().unwrap();
    assert!(
        matches!(&refused, StoreError::Denied { hint, .. } if hint.contains("credentials")),
        "{refused:?}"
    );
    write("[default]\naws_access_key_id = test\naws_secret_access_key = testsecret\n");
    let none = table.replace("backups", "no-such-bucket");
    let absent = S3::open(&place(&none), &ctx()).unwrap().list("").err().unwrap();
    assert!(
        matches!(&absent, StoreError::Absent { hint, .. } if hint.contains("no-such-bucket")),
        "{absent:?}"
    );
    let nobody = table.replace(&strict().port.to_string(), "1");
    let store = S3::open(&place(&format!("{nobody}retry_seconds = 0\n")), &ctx()).unwrap();
    let away = store.list("").err().unwrap();
    assert!(
        matches!(&away, StoreError::Unavailable { source, .. } if source.to_string().contains("refused")),
        "{away:?}"
    );
}

/// A lost answer is no outcome: bkp finds out whether it was the one who wrote what is there.
#[test]
fn a_lost_answer_is_neither_a_failure_nor_a_clash() {
    let proxy = Proxy::before(usual().port);
    let table = usual().table_at(&proxy.endpoint(), "backups", "part_mib = 5");
    let store = S3::open(&place(&table), &ctx()).unwrap();
    let labels = ObjectLabels::default();
    proxy.plan(&[Rule::new("PUT", "/small", 1, Fault::ResetAfter)]);
    put(&store, "small", &labels, b"small").unwrap();
    proxy.happened();
    proxy.plan(&[
        Rule::new("POST", "uploads", 1, Fault::ResetAfter),
        Rule::new("PUT", "partNumber=1", 1, Fault::ResetAfter),
        Rule::new("POST", "uploadId", 1, Fault::ResetAfter),
    ]);
    let bytes = content(11 << 20);
    put(&store, "large", &labels, &bytes).unwrap();
    proxy.happened();
    assert!(get(&store, "large", None) == bytes);
    // Somebody else's object of the same content is a clash, even behind a lost answer.
    let mut late = store.create("clash", &labels).unwrap();
    late.write(b"same").unwrap();
    put(&store, "clash", &labels, b"same").unwrap();
    proxy.plan(&[Rule::new("PUT", "/clash", 1, Fault::ResetAfter)]);
    let clash = late.commit(Declared { bytes: 4, sha256: Sha256::digest(b"same").into() });
    assert!(matches!(clash, Err(StoreError::Exists { .. })), "{clash:?}");
    proxy.happened();
}

#[test]
fn a_service_that_overwrites_is_refused_unless_the_table_says_so() {
    let proxy = Proxy::before(usual().port);
    let ignores = [
        Rule::new("PUT", "", u32::MAX, Fault::Without("if-none-match")),
        Rule::new("POST", "", u32::MAX, Fault::Without("if-none-match")),
    ];
    let open =
        |more| S3::open(&place(&usual().table_at(&proxy.endpoint(), "backups", more)), &ctx());
    let store = open("").unwrap();
    assert!(store.self_test().unwrap().unwrap().contains("nothing can be overwritten"));
    proxy.plan(&ignores);
    // The header is signed: a service that does not know it still counts it. One that checks no
    // signatures shows what happens then.
    let refused = store.self_test();
    assert!(
        matches!(&refused, Err(StoreError::Denied { problem, hint, .. }) if problem.contains("If-None-Match") && hint.contains("re-read")),
        "{refused:?}"
    );
    let store = open("create_only = \"re-read\"").unwrap();
    assert!(store.self_test().unwrap().unwrap().contains("checks before and after"));
    let mut late = store.create("key", &ObjectLabels::default()).unwrap();
    late.write(b"late").unwrap();
    put(&store, "key", &ObjectLabels::default(), b"first").unwrap();
    assert!(matches!(
        put(&store, "key", &ObjectLabels::default(), b"x"),
        Err(StoreError::Exists { .. })
    ));
    let clash = late.commit(Declared { bytes: 4, sha256: Sha256::digest(b"late").into() });
    assert!(matches!(clash, Err(StoreError::Exists { .. })), "{clash:?}");
    assert_eq!(get(&store, "key", None), b"first");
}
