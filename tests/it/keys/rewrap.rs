//! `bkp keys rewrap`: backups open with a new key alone, and nothing that is planted beside them matters.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;
use time::Duration;

use crate::support::bed::Bed;
use crate::support::cleanup::{self, daily, readable, with};
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
