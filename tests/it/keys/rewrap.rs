//! `bkp keys rewrap`: backups open with a new key alone, and nothing that is planted beside them matters.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};
use time::Duration;

use crate::support::bed::Bed;
use crate::support::cleanup::{self, daily, readable, with};
use crate::support::kms;
use crate::support::planted::now;
use crate::support::tb;

fn bed(folder: &tempfile::TempDir) -> Bed {
    let file = folder.path().join("0_0.tigerbeetle");
    tb::format(&file, 0, 1);
    let bed = Bed::new(&file, "");
    bed.run(&["keys", "generate", "new"]).done();
    bed
}

/// From now on only the new key is at hand.
fn lose_the_old_key(bed: &Bed) {
    bed.recipients_are(&["file:new"]);
    fs::remove_file(bed.path("key")).unwrap();
}

/// The envelopes beside a backup.
fn envelopes(bed: &Bed, id: &str) -> Vec<PathBuf> {
    let is_one = |path: &PathBuf| path.to_string_lossy().contains(&format!("{id}.wrapped-"));
    bed.stored().into_iter().filter(is_one).collect()
}

fn counts(report: &Value) -> (u64, u64) {
    let store = &report["stores"][0];
    (store["rewrapped"].as_u64().unwrap(), store["unchanged"].as_u64().unwrap())
}

#[test]
fn every_backup_opens_with_the_new_key_alone() {
    let folder = tempfile::tempdir().unwrap();
    let bed = bed(&folder);
    let (full, next) = (bed.snapshot("full"), bed.snapshot("incremental"));
    let manifest = fs::read(bed.object(&full, "manifest.json")).unwrap();

    let planned = bed.json(&["keys", "rewrap", "--to", "file:new", "--dry-run"]);
    assert_eq!(counts(&planned), (2, 0));
    assert!(envelopes(&bed, &full).is_empty(), "a dry run writes nothing");
    assert_eq!(counts(&bed.json(&["keys", "rewrap", "--to", "file:new"])), (2, 0));
    assert_eq!(counts(&bed.json(&["keys", "rewrap", "--to", "file:new"])), (0, 2));
    assert_eq!(envelopes(&bed, &full).len(), 1);
    assert_eq!(fs::read(bed.object(&full, "manifest.json")).unwrap(), manifest);

    lose_the_old_key(&bed);
    bed.run(&["verify", "--id", &next, "--level", "decode"]).done();
    bed.restore(&next);
    bed.run(&["verify", "--all", "--level", "digest"]).done();
    // The chain goes on, and what is said of old backups is authentic.
    let third = bed.snapshot("incremental");
    let manifest = fs::read(bed.object(&third, "manifest.json")).unwrap();
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    assert_eq!(manifest["parent"], next.as_str());
    assert_eq!(manifest["keys"].as_array().unwrap().len(), 1);
    bed.run(&["pin", &full]).done();
    bed.run(&["unpin", &full]).done();
    // A configured recipient needs nothing more.
    assert_eq!(counts(&bed.json(&["keys", "rewrap"])), (0, 3));
}

#[test]
fn without_a_key_that_opens_them_backups_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let bed = bed(&folder);
    let full = bed.snapshot("full");
    lose_the_old_key(&bed);
    let named = format!("{full} NOT rewrapped: none of the available keys");
    bed.run(&["keys", "rewrap"]).failed_in_text(3, &named);
    assert!(envelopes(&bed, &full).is_empty());
    bed.run(&["keys", "rewrap", "boks"]).failed(10, "no backup of `boks`");
    bed.run(&["keys", "rewrap", "--to", "file:missing"]).failed(12, "missing");
    bed.run(&["keys", "rewrap", "--to", "fiel:new"]).failed(12, "unknown kind of recipient");
}

#[test]
fn planted_envelopes_open_nothing_and_hide_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let bed = bed(&folder);
    let (one, other) = (bed.snapshot("full"), bed.snapshot("full"));
    bed.run(&["keys", "rewrap", "--to", "file:new"]).done();
    lose_the_old_key(&bed);
    let [mine] = envelopes(&bed, &one).try_into().unwrap();
    let [foreign] = envelopes(&bed, &other).try_into().unwrap();
    let (honest, foreign) = (fs::read_to_string(&mine).unwrap(), fs::read(&foreign).unwrap());
    let planted = |nth: usize| {
        let name = mine.file_name().unwrap().to_str().unwrap();
        let (stem, _) = name.split_once(".wrapped-").unwrap();
        mine.with_file_name(format!("{stem}.wrapped-01ffffff-ffff-7fff-8fff-{nth:012x}.json"))
    };
    // Newer ones: another backup's, none at all, one that is too large, and more than are usually looked at.
    fs::write(planted(0), &foreign).unwrap();
    fs::write(planted(1), "{").unwrap();
    fs::write(planted(2), vec![b' '; 1 << 20]).unwrap();
    bed.run(&["verify", "--all", "--level", "digest"]).done();
    for nth in 3..80 {
        fs::write(planted(nth), &foreign).unwrap();
    }
    bed.restore(&one);
    // That was asked for by name. What is looked at as usual starts at both ends, and does not count what is none.
    bed.run(&["verify", "--all", "--level", "digest"]).done();
    for nth in 0..80 {
        fs::write(planted(nth), "{}").unwrap();
    }
    bed.run(&["verify", "--all", "--level", "digest"]).done();
    for nth in 0..80 {
        fs::remove_file(planted(nth)).unwrap();
    }
    // One whose content was changed gives no key.
    fs::write(&mine, honest.replace("\"host\": \"", "\"host\": \"x")).unwrap();
    bed.run(&["verify", "--id", &one]).failed(12, "none of the available keys");
    fs::write(&mine, &honest).unwrap();
    bed.run(&["verify", "--id", &one, "--level", "decode"]).done();
}

#[test]
fn copies_take_envelopes_along() {
    let folder = tempfile::tempdir().unwrap();
    let bed = bed(&folder);
    let full = bed.snapshot("full");
    bed.run(&["keys", "rewrap", "--to", "file:new"]).done();
    let offsite = tempfile::tempdir().unwrap();
    let url = format!("file://{}", offsite.path().display());
    bed.run(&["replicate", "--from", "main", "--to", &url]).done();
    lose_the_old_key(&bed);
    bed.run(&["verify", "--id", &full, "--store", &url, "--level", "decode"]).done();
}

/// Retention reads old backups with the new key, and removes their envelopes with them.
#[test]
fn two_years_of_backups_open_and_expire_with_the_new_key_alone() {
    let bed = cleanup::bed("keep_last = 3, keep_monthly = 4, max_removed_percent = 100");
    let made = daily(&bed, 730, now() - Duration::hours(1));
    bed.run(&["keys", "generate", "new"]).done();
    assert_eq!(counts(&bed.json(&["keys", "rewrap", "--to", "file:new"])), (730, 0));
    let list = bed.json(&["list"]);
    lose_the_old_key(&bed);
    readable(&bed);
    assert_eq!(bed.json(&["list"]), list);
    let done = bed.json(&["cleanup"]);
    let kept = with(&done, "keep");
    assert!(kept.len() >= 6 && kept.len() < 60, "{done}");
    assert_eq!(with(&done, "remove").len(), made.len() - kept.len());
    let stored = bed.stored();
    let of_backups = |path: &&PathBuf| path.starts_with(bed.path("store/tigerbeetle"));
    // Of each an object, a manifest and an envelope.
    assert_eq!(stored.iter().filter(of_backups).count(), 3 * kept.len());
    readable(&bed);
}

/// From the key file to a key of KMS, from there to another key file; then KMS deletes its key.
#[test]
fn two_years_of_backups_outlive_a_deleted_kms_key() {
    let bed = cleanup::bed("keep_last = 3, keep_monthly = 4, max_removed_percent = 100");
    daily(&bed, 730, now() - Duration::hours(1));
    let profile = "[default]\naws_access_key_id = operator\naws_secret_access_key = s\n";
    fs::create_dir_all(bed.path(".aws")).unwrap();
    fs::write(bed.path(".aws/credentials"), profile).unwrap();
    let arn = kms::new_key(kms::REGIONS[0]);
    let old = kms::recipient(&arn);
    assert_eq!(counts(&bed.json(&["keys", "rewrap", "--to", &old])), (730, 0));
    fs::remove_file(bed.path("key")).unwrap();
    bed.recipients_are(&[&old]);
    bed.run(&["keys", "generate", "new"]).done();
    assert_eq!(counts(&bed.json(&["keys", "rewrap", "--to", "file:new"])), (730, 0));
    bed.recipients_are(&[&old, "file:new"]);
    let of = |report: &Value, key: &str| {
        let rows = report["keys"].as_array().unwrap().clone();
        rows.into_iter()
            .find(|row| row["recipient"].as_str().unwrap_or_default().contains(key))
            .unwrap()
    };
    let listed = bed.json(&["keys", "list"]);
    assert_eq!(listed["backups"], 730, "{listed}");
    assert_eq!(
        (&of(&listed, &arn)["backups"], &of(&listed, "new")["backups"]),
        (&730.into(), &730.into())
    );
    // The key file that was lost: backups name it, and the configuration does not.
    assert!(listed["keys"].as_array().unwrap().iter().any(|row| row["recipient"].is_null()));
    bed.run(&["keys", "status"]).done();

    let plain = arn.rsplit('/').next().unwrap();
    let body = json!({ "KeyId": plain, "PendingWindowInDays": 7 });
    kms::administer(kms::REGIONS[0], "ScheduleKeyDeletion", &body);
    bed.run(&["keys", "status"]).failed_in_text(18, "it is deleted 20");
    let status = bed.run(&["status", "--json"]);
    assert!(status.stdout.contains("and opens nothing then"), "{}", status.stdout);
    bed.recipients_are(&["file:new"]);
    readable(&bed);
    bed.run(&["verify", "--all", "--level", "digest"]).done();
}

/// What `keys status` and `status` say of keys that are old, disabled, or of no use.
#[test]
fn keys_that_need_attention_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let bed = bed(&folder);
    bed.snapshot("full");
    bed.recipients_are(&["file:key", "file:new"]);
    let naming = "opens none of the newest backups";
    for words in [&["keys", "status"][..], &["status"]] {
        let run = bed.run(words);
        assert!(run.stdout.contains(naming), "{}{}", run.stdout, run.stderr);
    }
    bed.snapshot("full");
    assert!(!bed.run(&["status"]).stdout.contains(naming));
    let alone = bed.json(&["keys", "list"]);
    assert_eq!(
        (&alone["keys"][0]["backups"], &alone["keys"][0]["alone"]),
        (&2.into(), &1.into()),
        "{alone}"
    );

    let old = std::time::SystemTime::now() - std::time::Duration::from_hours(91 * 24);
    let file = fs::File::options().append(true).open(bed.path("key")).unwrap();
    file.set_modified(old).unwrap();
    let run = bed.run(&["keys", "status"]).done();
    assert!(run.stdout.contains("it is 91 days old, more than 90 (`max_age`)"), "{}", run.stdout);
    let config = fs::read_to_string(bed.path("bkp.toml")).unwrap();
    let config = config.replace("[keys]\n", "[keys]\nmax_age = \"100d\"\n");
    fs::write(bed.path("bkp.toml"), config).unwrap();
    assert!(!bed.run(&["keys", "status"]).done().stdout.contains("days old"));
    fs::remove_file(bed.path("new")).unwrap();
    bed.run(&["keys", "status"]).failed_in_text(18, "unusable");
}
