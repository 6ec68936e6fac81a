//! What `doctor` says of a bucket: each contradiction to what the configuration promises, and nothing where there is none.

use std::fs;

use crate::support::bed::{Bed, Run};
use crate::support::s3::{number, strict, usual};
use crate::support::tb;

const LIFECYCLE: &str = "<LifecycleConfiguration>RULES</LifecycleConfiguration>";
const UNFINISHED: &str = "<Rule><ID>unfinished</ID><Status>Enabled</Status><Filter><Prefix></Prefix></Filter><AbortIncompleteMultipartUpload><DaysAfterInitiation>7</DaysAfterInitiation></AbortIncompleteMultipartUpload></Rule>";

/// A bed whose store is in a new bucket, made with these headers.
fn bed(headers: &[&str], store: &str, job: &str) -> (Bed, String) {
    let bucket = format!("protected-{}", number());
    usual().ask("PUT", &format!("/{bucket}"), headers).done();
    let file = tempfile::tempdir().unwrap().keep().join("0_0.tigerbeetle");
    tb::format(&file, 0, 1);
    let bed = Bed::with(&file, "", "rto = \"4h\"");
    bed.store_is(&usual().table_at(&usual().endpoint(), &bucket, store));
    let config = fs::read_to_string(bed.path("bkp.toml")).unwrap();
    let job = format!("[job.books]\nrun = \"snapshot\"\nsource = \"books\"\n{job}\n");
    fs::write(bed.path("bkp.toml"), config + &job).unwrap();
    set(&bucket, "lifecycle", &LIFECYCLE.replace("RULES", UNFINISHED));
    (bed, bucket)
}

fn set(bucket: &str, what: &str, body: &str) {
    usual().send("PUT", &format!("/{bucket}?{what}"), &[], body).done();
}

fn versions(bucket: &str, status: &str) {
    let body =
        format!("<VersioningConfiguration><Status>{status}</Status></VersioningConfiguration>");
    set(bucket, "versioning", &body);
}

fn doctor(bed: &Bed) -> Run {
    bed.run(&["doctor"])
}

#[track_caller]
fn fails(bed: &Bed, naming: &str) {
    doctor(bed).failed_in_text(78, naming);
}

#[test]
fn a_bucket_that_suits_its_promises_is_described() {
    let (bed, _bucket) = bed(
        &["x-amz-bucket-object-lock-enabled: true"],
        "object_lock = \"governance\"\nobject_lock_days = 30",
        "retention = { keep_within = \"30d\" }",
    );
    let run = doctor(&bed).done();
    for naming in [
        "versioning of main: on; former versions stay for ever",
        "object lock of main: on; bkp locks for 30 days and as long as backups are promised; no default retention",
        "expiration of main: no rule of the bucket deletes backups",
        "replication of main: the service copies the bucket nowhere",
        "archives of main: everything is read at once",
    ] {
        assert!(run.stdout.contains(naming), "`{naming}` is not in {}", run.stdout);
    }
    let plain = Bed::new(&tempfile::tempdir().unwrap().keep(), "");
    assert!(!doctor(&plain).stdout.contains("versioning of main"), "a folder has none");
}

#[test]
fn what_is_not_told_is_no_failure() {
    let file = tempfile::tempdir().unwrap().keep().join("0_0.tigerbeetle");
    tb::format(&file, 0, 1);
    let bed = Bed::new(&file, "");
    bed.store_is(&strict().table_at(&strict().endpoint(), "backups", ""));
    let run = doctor(&bed).done();
    for right in
        ["GetBucketVersioning", "GetBucketObjectLockConfiguration", "GetReplicationConfiguration"]
    {
        assert!(run.stdout.contains(&format!("cannot tell: allow s3:{right}")), "{}", run.stdout);
    }
}

#[test]
fn locks_that_contradict_retention_are_named() {
    let lock = |days: u32| format!("object_lock = \"governance\"\nobject_lock_days = {days}");
    let headers = ["x-amz-bucket-object-lock-enabled: true"];
    let (counted, bucket) = bed(&headers, &lock(10), "retention = { keep_daily = 7 }");
    fails(
        &counted,
        "object_lock_days locks for 10 days, and job books keeps backups for at most 7",
    );
    let default = "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule><DefaultRetention><Mode>COMPLIANCE</Mode><Years>1</Years></DefaultRetention></Rule></ObjectLockConfiguration>";
    set(&bucket, "object-lock", default);
    fails(&counted, "default retention locks for 365 days");
    let (yearly, _bucket) = bed(&headers, &lock(10), "retention = { keep_yearly = 5 }");
    fails(&yearly, "locked for 10 days and kept for up to 1830 days");
    let (unlimited, _bucket) = bed(&headers, &lock(10), "retention = { keep_all = true }");
    fails(&unlimited, "locked for 10 days and kept for ever");
    // A promise that locks follow.
    let (within, _bucket) = bed(&headers, &lock(10), "retention = { keep_within = \"90d\" }");
    doctor(&within).done();
    let (suspended, bucket) = bed(&[], "", "");
    versions(&bucket, "Suspended");
    fails(&suspended, "suspended: what is overwritten or deleted from now on is gone");
}

#[test]
fn rules_of_the_bucket_that_lose_backups_are_named() {
    let (bed, bucket) = bed(&[], "", "retention = { keep_within = \"30d\" }");
    let rule = |id: &str, body: &str| {
        let rule = format!(
            "<Rule><ID>{id}</ID><Status>Enabled</Status><Filter><Prefix></Prefix></Filter>{body}</Rule>"
        );
        LIFECYCLE.replace("RULES", &(UNFINISHED.to_owned() + &rule))
    };
    set(&bucket, "lifecycle", &rule("tidy", "<Expiration><Days>14</Days></Expiration>"));
    fails(&bed, "lifecycle rule `tidy` deletes objects after 14 days");
    set(&bucket, "lifecycle", &rule("late", "<Expiration><Days>60</Days></Expiration>"));
    let run = doctor(&bed).done();
    assert!(run.stdout.contains("objects are deleted by `late` after 60 days"), "{}", run.stdout);

    versions(&bucket, "Enabled");
    let former = "<NoncurrentVersionExpiration><NoncurrentDays>9</NoncurrentDays></NoncurrentVersionExpiration>";
    set(&bucket, "lifecycle", &rule("former", former));
    let run = doctor(&bed).done();
    assert!(run.stdout.contains("former versions stay for 9 days"), "{}", run.stdout);

    let copy = format!("{bucket}-copy");
    usual().ask("PUT", &format!("/{copy}"), &[]).done();
    versions(&copy, "Enabled");
    let replication = |markers: &str| {
        format!(
            "<ReplicationConfiguration><Role>arn:aws:iam::1:role/r</Role><Rule><ID>away</ID><Priority>1</Priority><Status>Enabled</Status><Filter><Prefix></Prefix></Filter><DeleteMarkerReplication><Status>{markers}</Status></DeleteMarkerReplication><Destination><Bucket>arn:aws:s3:::{copy}</Bucket></Destination></Rule></ReplicationConfiguration>"
        )
    };
    set(&bucket, "replication", &replication("Disabled"));
    let run = doctor(&bed).done();
    let naming = format!("to {copy} without a promised time, without deletions");
    assert!(run.stdout.contains(&naming), "{}", run.stdout);
    set(&bucket, "replication", &replication("Enabled"));
    fails(&bed, "replication rule `away` copies deletions to");
}

#[test]
fn archives_that_take_longer_to_thaw_than_a_restore_may_are_named() {
    let tiers = "tiers = [{ after = \"90d\", class = \"GLACIER_IR\" }, { after = \"365d\", class = \"DEEP_ARCHIVE\" }]";
    let (bed, _bucket) = bed(&[], tiers, "retention = { keep_yearly = 5 }");
    fails(&bed, "data older than 365 days is in DEEP_ARCHIVE and takes 12 hours to thaw");
    let config = fs::read_to_string(bed.path("bkp.toml")).unwrap();
    fs::write(bed.path("bkp.toml"), config.replace("rto = \"4h\"", "rto = \"1d\"")).unwrap();
    let run = doctor(&bed).done();
    assert!(run.stdout.contains("DEEP_ARCHIVE from 365 days on"), "{}", run.stdout);
}
