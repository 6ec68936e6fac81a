//! `bkp replicate --to --reseal`: the copies have the same content and open with the keys of today alone, whatever
//! fails on the way; nothing that somebody planted gets a seal of bkp's by it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bkp::cmd::replicate;
use bkp::error::{Kind, diagnose};
use serde_json::Value;

use crate::support::bed::{Bed, Run};
use crate::support::duck::{self, dump, snapshot, sql};
use crate::support::fault::{Effect, Failure, FaultPlan, PlannedFault};
use crate::support::logs::numbers;
use crate::support::planted::{Seed, now, plant};
use crate::support::second::{V, assert_opens_alone, database, empty, listed, recipients, stored};

/// Has backups made for a new key from now on.
fn rotate(bed: &Bed) {
    bed.run(&["keys", "generate", "new"]).done();
    bed.recipients_are(&["file:new"]);
}

const RESEAL: [&str; 6] = ["replicate", "--to", "off", "--reseal", "--key", "file:key"];

/// The report of a run that seals everything anew, however it ended.
fn reseal(bed: &Bed) -> (Option<i32>, Value) {
    let run = bed.run(&[&RESEAL[..], &["--json"]].concat());
    (run.code, serde_json::from_str(&run.stdout).unwrap())
}

fn counts(report: &Value, names: &[&str]) -> Vec<u64> {
    names.iter().map(|name| report[name].as_u64().unwrap()).collect()
}

/// The old key goes to another place, where bkp does not look for it.
fn lose_the_old_key(bed: &Bed) -> PathBuf {
    let lost = bed.path("lost.key");
    fs::rename(bed.path("key"), &lost).unwrap();
    lost
}

/// The old key opens nothing in the second store; every object and manifest there opens with the new one.
#[track_caller]
fn assert_of_the_new_key_alone(bed: &Bed, old: &Path) {
    assert_opens_alone(&bed.path("off"), &bed.path("new"), old);
    for id in listed(bed, "off") {
        let key = "file:lost.key";
        let run = bed.run(&["verify", "--id", &id, "--store", "off", "--key", key]);
        assert!(matches!(run.code, Some(12 | 13)), "{:?} {}", run.code, run.stdout);
    }
    let here = recipients(&bed.path("store"));
    let wrapped: BTreeSet<&str> =
        here.iter().map(|(_, recipient)| recipient.wrapped.as_str()).collect();
    for (key, bytes) in stored(&bed.path("off")) {
        let text = String::from_utf8_lossy(&bytes);
        assert!(!wrapped.iter().any(|wrapped| text.contains(wrapped)), "{key} has an old envelope");
    }
}

/// What the manifests of a store say, without what sealing anew changes.
fn said(store: &Path) -> Vec<Value> {
    let manifests = stored(store).into_iter().filter(|(key, _)| key.ends_with(".manifest.json"));
    let said = manifests.map(|(_, bytes)| {
        let mut manifest: Value = serde_json::from_slice(&bytes).unwrap();
        let fields = manifest.as_object_mut().unwrap();
        for name in ["mac", "keys", "sizes", "resealed", "signer", "signature"] {
            fields.remove(name);
        }
        for object in manifest["objects"].as_array_mut().unwrap() {
            let fields = object.as_object_mut().unwrap();
            fields.remove("bytes");
            fields.remove("sha256");
        }
        manifest
    });
    said.collect()
}

#[test]
fn the_new_key_alone_opens_the_copies() {
    let (_folder, file, bed) = database("");
    let ids = listed(&bed, "main");
    bed.run(&["pin", &ids[0], "--note", "the audit of 2026"]).done();
    bed.run(&["pin", &ids[1]]).done();
    bed.run(&["unpin", &ids[1]]).done();
    rotate(&bed);
    // Envelopes stay behind: they are those of the old bytes.
    bed.run(&["keys", "rewrap", "--key", "file:key", "--to", "file:new"]).done();
    let dry = bed.json(&[&RESEAL[..], &["--dry-run"]].concat());
    assert_eq!(counts(&dry, &["copied", "annotations"]), [4, 3], "{dry}");
    assert!(stored(&bed.path("off")).is_empty());
    let (code, report) = reseal(&bed);
    assert_eq!(code, Some(0), "{report}");
    assert_eq!(counts(&report, &["copied", "present", "annotations"]), [4, 0, 3], "{report}");
    assert_eq!(report["recipients"].as_array().unwrap().len(), 1);
    let (code, again) = reseal(&bed);
    let names = ["copied", "present", "present_resealed", "annotations"];
    assert_eq!((code, counts(&again, &names)), (Some(0), vec![0, 4, 4, 0]), "{again}");

    assert_eq!(said(&bed.path("store")), said(&bed.path("off")));
    let old = lose_the_old_key(&bed);
    assert_of_the_new_key_alone(&bed, &old);
    bed.run(&["verify", "--all", "--store", "off", "--level", "decode"]).done();
    let target = bed.path("restored.duckdb");
    let words = ["restore", "analytics", "--store", "off", "--yes", "--to"];
    bed.run(&[&words[..], &[target.to_str().unwrap()]].concat()).done();
    assert_eq!(dump(&file), dump(&target));
    // What was said of backups is as true there.
    let pinned = |store: &str| {
        let list = bed.json(&["list", "--store", store]);
        let pinned = list["backups"].as_array().unwrap().iter();
        pinned.map(|backup| backup["pinned"] == true).collect::<Vec<_>>()
    };
    assert_eq!(pinned("off"), pinned("main"));
    // Chains go on from the copies.
    let config = fs::read_to_string(bed.path("bkp.toml")).unwrap();
    fs::write(bed.path("bkp.toml"), config.replace("store = \"main\"", "store = \"off\"")).unwrap();
    sql(V, &file, &["UPDATE t SET text = 'last' WHERE id < 5", "CHECKPOINT", "SELECT 1"]);
    let next = snapshot(&bed, &["--scope", "incremental"]);
    assert_eq!(next["parent"], ids[2].as_str(), "{next}");
    duck::export(&bed, &["--scope", "incremental"]);
    let target = bed.path("next.duckdb");
    bed.run(&["restore", "--id", duck::id(&next), "--yes", "--to", target.to_str().unwrap()])
        .done();
    assert_eq!(dump(&file), dump(&target));
    bed.run(&["verify", "--all", "--store", "off", "--level", "decode"]).done();
}

#[test]
fn without_the_old_key_backups_are_named_and_nothing_is_copied() {
    let (_folder, _file, bed) = database("");
    rotate(&bed);
    lose_the_old_key(&bed);
    let run = bed.run(&["replicate", "--to", "off", "--reseal"]);
    assert_eq!(run.code, Some(3), "{}{}", run.stdout, run.stderr);
    for id in listed(&bed, "main") {
        assert!(run.stdout.contains(&id), "{}", run.stdout);
    }
    assert!(run.stdout.contains("none of the available keys"), "{}", run.stdout);
    assert!(stored(&bed.path("off")).is_empty());
    assert_eq!(bed.run(&["replicate", "analytics", "--reseal"]).code, Some(2));
    bed.recipients_are(&["file:nowhere"]);
    bed.run(&["replicate", "--to", "off", "--reseal"]).failed(12, "nowhere");
}

/// Copies are whole with the new key, or there is none.
#[track_caller]
fn assert_whole_or_absent(bed: &Bed, what: &str) {
    let there = listed(bed, "off");
    let run = bed.run(&["verify", "--all", "--store", "off", "--level", "decode"]);
    let expected = if there.is_empty() { vec![Some(0), Some(10)] } else { vec![Some(0)] };
    assert!(expected.contains(&run.code), "{what}: {there:?}: {}{}", run.stdout, run.stderr);
}

/// A run that was killed anywhere leaves whole copies only, and the next run completes it.
#[test]
fn a_killed_run_is_continued() {
    let (_folder, _file, bed) = database("");
    rotate(&bed);
    let began = Instant::now();
    assert_eq!(reseal(&bed).0, Some(0));
    let usual = u64::try_from(began.elapsed().as_micros()).unwrap();
    let rounds = std::env::var("BKP_TEST_ROUNDS").map_or(12, |text| text.parse().unwrap());
    let mut kills = 0;
    empty(&bed);
    for after in numbers(5, usual).take(rounds) {
        if kills % 4 == 3 {
            empty(&bed);
        }
        let words = [&RESEAL[..], &["--wait-lock", "5m"]].concat();
        let mut child = bed.command(&words).spawn().unwrap();
        std::thread::park_timeout(Duration::from_micros(after));
        child.kill().unwrap();
        kills += u64::from(child.wait().unwrap().code().is_none());
        assert_whole_or_absent(&bed, &format!("after {after} µs"));
    }
    assert!(kills > 0);
    bed.run(&[&RESEAL[..], &["--wait-lock", "5m"]].concat()).done();
    assert_eq!(listed(&bed, "off"), listed(&bed, "main"));
    let old = lose_the_old_key(&bed);
    assert_of_the_new_key_alone(&bed, &old);
    assert_whole_or_absent(&bed, "at last");
}

/// Every call of either store fails in every way, one after the other; the run after that has all of it.
#[test]
fn whatever_fails_copies_are_whole_or_absent() {
    let (_folder, _file, bed) = database("");
    rotate(&bed);
    let options = replicate::Options {
        to: "off".into(),
        from: Some("main".into()),
        source: None,
        reseal: true,
        dry_run: false,
        patience: Duration::ZERO,
    };
    let app = |plan: FaultPlan| {
        let mut app = bed.app(Some(plan));
        app.settings.recipients = vec![format!("file:{}", bed.path("key").display())];
        app
    };
    let failures = [Failure::Permanent, Failure::Full, Failure::Missing, Failure::Exists];
    let effects =
        failures.into_iter().flat_map(|failure| [Effect::Before(failure), Effect::After(failure)]);
    for effect in effects.chain([Effect::FullAfter { bytes: 100 }]) {
        // Each of some hundred calls takes a while, so each effect has a part of them.
        for nth in (0..).step_by(3) {
            empty(&bed);
            let plan = FaultPlan::new(vec![PlannedFault::nth(nth, effect)]);
            let ended = replicate::run(&app(plan.clone()), &options);
            let all = match &ended {
                Ok(report) => report.outcome.is_none(),
                Err(error) => {
                    let kind = diagnose(error).kind;
                    let known =
                        [Kind::Store, Kind::NotFound, Kind::Integrity, Kind::Refused, Kind::Busy];
                    assert!(known.contains(&kind), "{effect:?} {nth}: {kind:?}: {error:#}");
                    false
                }
            };
            let copied = listed(&bed, "off");
            assert!(!all || copied.len() == 4, "{effect:?} {nth}: success with {}", copied.len());
            if !plan.unfired().is_empty() {
                assert!(nth > 0, "{effect:?} never happened");
                break;
            }
            let what = format!("{effect:?} {nth}");
            assert_whole_or_absent(&bed, &what);
            let (code, report) = reseal(&bed);
            assert_eq!((code, listed(&bed, "off").len()), (Some(0), 4), "{what}: {report}");
        }
    }
    assert_whole_or_absent(&bed, "at last");
}

/// What nobody proves, and what was altered or damaged, gets no seal of bkp's.
#[test]
fn nothing_planted_or_damaged_is_sealed_anew() {
    let (_folder, file, bed) = database("");
    rotate(&bed);
    let ids = listed(&bed, "main");
    // Made by somebody with a key of his own, and one that says that it was sealed anew before.
    let stranger = duck::bed(&file);
    let mut app = bed.app(None);
    app.settings.recipients = vec![format!("file:{}", stranger.path("key").display())];
    let planted = plant(&bed, &app, &Seed { source: "analytics".into(), ..Seed::at(now()) });
    let (code, report) = reseal(&bed);
    assert_eq!((code, counts(&report, &["copied", "failed"])), (Some(3), vec![4, 1]), "{report}");
    assert!(!listed(&bed, "off").contains(&planted.id.to_string()));
    // A manifest that somebody altered.
    empty(&bed);
    let manifest = bed.object(&ids[0], "manifest.json");
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, text.replace("\"host\":", "\"host\": ")).unwrap();
    let (code, report) = reseal(&bed);
    assert_eq!((code, counts(&report, &["copied", "failed"])), (Some(3), vec![2, 3]), "{report}");
    assert!(!listed(&bed, "off").contains(&ids[0]));
    fs::write(&manifest, text).unwrap();
    // Each object of the first backup in turn: a byte of it is another one, and nothing of it becomes visible.
    for ending in ["tar.zst.enc", "map.json.zst.enc"] {
        let object = bed.object(&ids[0], ending);
        let original = fs::read(&object).unwrap();
        for at in [40, original.len() / 2, original.len() - 1] {
            empty(&bed);
            let mut wrong = original.clone();
            wrong[at] ^= 1;
            fs::write(&object, &wrong).unwrap();
            let (code, report) = reseal(&bed);
            let expected = (Some(3), vec![2, 3]);
            assert_eq!((code, counts(&report, &["copied", "failed"])), expected, "{report}");
            assert!(!listed(&bed, "off").contains(&ids[0]));
            let name = object.strip_prefix(bed.path("store")).unwrap();
            assert!(!bed.path("off").join(name).exists(), "{ending} at {at}");
        }
        fs::write(&object, original).unwrap();
    }
    // An object of another backup in its place.
    empty(&bed);
    let (mine, other) = (bed.object(&ids[0], "tar.zst.enc"), bed.object(&ids[2], "tar.zst.enc"));
    let original = fs::read(&mine).unwrap();
    fs::copy(other, &mine).unwrap();
    let (code, report) = reseal(&bed);
    assert_eq!((code, counts(&report, &["copied", "failed"])), (Some(3), vec![2, 3]), "{report}");
    fs::write(&mine, original).unwrap();
}

/// Something that is in the way is named and stays, and once a cleanup has removed it the copy is made.
#[test]
fn what_is_in_the_way_is_named() {
    let (_folder, _file, bed) = database("");
    let ids = listed(&bed, "main");
    let object = bed.object(&ids[0], "tar.zst.enc");
    let name = object.strip_prefix(bed.path("store")).unwrap().to_owned();
    let copy = bed.path("off").join(&name);
    rotate(&bed);
    let put = |bytes: &[u8]| {
        empty(&bed);
        fs::create_dir_all(copy.parent().unwrap()).unwrap();
        fs::write(&copy, bytes).unwrap();
    };
    let original = fs::read(&object).unwrap();
    // The old object itself, which the old key opens; something else; and nothing.
    for wrong in [&original[..], b"junk", b""] {
        put(wrong);
        let (code, report) = reseal(&bed);
        assert_eq!((code, &report["failed"]), (Some(3), &2.into()), "{report}");
        let reasons = report["items"].to_string();
        assert!(reasons.contains("is there already"), "{reasons}");
        assert_eq!(fs::read(&copy).unwrap(), wrong, "nothing is overwritten");
    }
    // One of an earlier try whose content is not that of the original any more.
    empty(&bed);
    assert_eq!(reseal(&bed).0, Some(0));
    let mut begun = fs::read(&copy).unwrap();
    *begun.last_mut().unwrap() ^= 1;
    put(&begun);
    let (code, report) = reseal(&bed);
    assert_eq!((code, &report["failed"]), (Some(3), &2.into()), "{report}");
    empty(&bed);
    assert_eq!(reseal(&bed).0, Some(0));
    // An object of a copy is gone: only that store had it.
    fs::remove_file(&copy).unwrap();
    for words in [&RESEAL[..], &RESEAL[..3]] {
        let run = bed.run(words);
        assert_eq!(run.code, Some(3), "{}", run.stdout);
        assert!(run.stdout.contains("has lost an object"), "{}", run.stdout);
    }
}

/// A cleanup takes what is in the way and belongs to no backup.
#[test]
fn a_cleanup_clears_the_way() {
    let (_folder, _file, bed) = database("");
    let at = now() - time::Duration::days(20);
    let old = plant(&bed, &bed.app(None), &Seed { source: "analytics".into(), ..Seed::at(at) });
    let copy = bed.path("off").join(&old.objects[0].key);
    fs::create_dir_all(copy.parent().unwrap()).unwrap();
    fs::write(&copy, "left").unwrap();
    rotate(&bed);
    let why = || {
        let (code, report) = reseal(&bed);
        assert_eq!((code, &report["failed"]), (Some(3), &1.into()), "{report}");
        report["items"].to_string()
    };
    assert!(why().contains("is there already"), "{}", why());
    bed.run(&["cleanup", "--store", "off"]).done();
    assert!(!copy.exists());
    // Its content was never one that bkp sealed, so there is no copy of it.
    assert!(why().contains("not a sealed object"), "{}", why());
    assert!(!copy.exists());
}

/// A copy under the old keys is refused by name, and one under new keys is no damage to anybody.
#[test]
fn copies_of_both_kinds_know_each_other() {
    let (_folder, file, bed) = database("");
    rotate(&bed);
    let plain = ["replicate", "--to", "off", "--key", "file:key", "--key", "file:new"];
    bed.run(&plain).done();
    let (code, report) = reseal(&bed);
    assert_eq!((code, &report["failed"]), (Some(3), &4.into()), "{report}");
    let reasons = report["items"].to_string();
    assert!(reasons.contains("keys open it that are not configured"), "{reasons}");
    empty(&bed);
    assert_eq!(reseal(&bed).0, Some(0));
    let before = stored(&bed.path("off"));
    let names = ["copied", "present", "present_resealed", "failed"];
    let report = bed.json(&plain);
    assert_eq!(counts(&report, &names), [0, 4, 4, 0], "{report}");
    let text = bed.run(&plain).done().stdout;
    assert!(text.contains("4 already there (4 of them sealed anew)"), "{text}");
    let back = bed.json(&[&plain[..1], &["--to", "main", "--from", "off"], &plain[3..]].concat());
    assert_eq!(counts(&back, &names), [0, 4, 4, 0], "{back}");
    assert!(before == stored(&bed.path("off")));
    // What is made for the new key goes along as it is, and needs no other seal.
    let made = snapshot(&bed, &["--scope", "full"]);
    assert_eq!(counts(&bed.json(&plain), &names), [1, 4, 4, 0]);
    let (code, report) = reseal(&bed);
    assert_eq!((code, counts(&report, &names)), (Some(0), vec![0, 5, 4, 0]), "{report}");
    // Who has the old key alone is told so.
    let words = ["replicate", "--to", "off", "--key", "file:key"];
    let run = Run::of(&bed.on_host(2, &words).output().unwrap());
    assert_eq!(run.code, Some(3), "{}", run.stdout);
    assert!(run.stdout.contains("sealed anew for other keys"), "{}", run.stdout);
    assert!(!run.stdout.contains("altered"), "{}", run.stdout);
    // A copy of a copy knows the original, too.
    let third = bed.path("third");
    fs::create_dir(&third).unwrap();
    let url = format!("file://{}", third.display());
    bed.run(&["replicate", "--from", "off", "--to", &url]).done();
    assert!(stored(&third) == stored(&bed.path("off")));
    fs::remove_dir_all(&third).unwrap();
    fs::create_dir(&third).unwrap();
    let words = ["replicate", "--from", "off", "--to", &url, "--reseal"];
    bed.run(&words).done();
    let report = bed.json(&[&plain[..1], &["--to", &url, "--from", "main"], &plain[3..]].concat());
    assert_eq!(counts(&report, &names), [0, 5, 5, 0], "{report}");
    // One of them is damaged: the other one is taken, although its bytes are others.
    let config = fs::read_to_string(bed.path("bkp.toml")).unwrap();
    let both = config.replace("store = \"main\"", "store = [\"main\", \"off\"]");
    fs::write(bed.path("bkp.toml"), both).unwrap();
    let key = ["--key", "file:key", "--key", "file:new"];
    let id = listed(&bed, "main")[0].clone();
    fs::remove_file(bed.object(&id, "tar.zst.enc")).unwrap();
    let target = bed.path("restored.duckdb");
    let words = ["restore", "--id", &id, "--yes", "--to", target.to_str().unwrap()];
    let run = bed.run(&[&words[..], &key].concat()).done();
    assert!(run.stderr.contains("trying the copy in store `off`"), "{}", run.stderr);
    assert!(target.exists() && file.exists() && duck::id(&made) != id);
}
