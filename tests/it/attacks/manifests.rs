//! Manifests and annotations planted by someone who can write to the store but has no key: none of them
//! may remove a backup, prevent one, or cause another one to be restored.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use bkp::domain::id::BackupId;
use bkp::domain::manifest::Manifest;
use bkp::domain::names::{BackupName, BackupType, Scope};
use serde_json::{Value, json};
use time::Duration;

use crate::support::bed::{Bed, Run};
use crate::support::cleanup::{self, ids};
use crate::support::planted::{Seed, now, plant};
use crate::support::tb;

/// Nothing but the newest, and nothing that goes is left for the next time.
const LAST: &str = "keep_last = 1, min_keep = 1, max_removed_percent = 100";

/// A bed with a source that snapshots can be taken of.
fn small(folder: &tempfile::TempDir) -> Bed {
    let file = folder.path().join("0_0.tigerbeetle");
    tb::format(&file, 0, 1);
    Bed::new(&file, "")
}

/// Full backups of the last days, oldest first.
fn daily(bed: &Bed, days: i64) -> Vec<Manifest> {
    let app = bed.app(None);
    let at = |day| Seed::at(now() - Duration::hours(1) - Duration::days(day));
    (0..days).rev().map(|day| plant(bed, &app, &at(day))).collect()
}

/// The path beside a backup with this ending.
fn beside(bed: &Bed, id: &str, ending: &str) -> PathBuf {
    let manifest = bed.object(id, "manifest.json");
    PathBuf::from(manifest.to_str().unwrap().replace("manifest.json", ending))
}

/// Puts bytes where a manifest of a full snapshot of `books` would be that began then.
fn put(bed: &Bed, ahead: Duration, bytes: &[u8]) -> String {
    let id = BackupId::new(now() + ahead);
    put_as(bed, id, bytes)
}

fn put_as(bed: &Bed, id: BackupId, bytes: &[u8]) -> String {
    let (backup_type, source) = (BackupType::Tigerbeetle, "books".to_owned());
    let name = BackupName { id, backup_type, source, scope: Scope::Full, kind: "snapshot".into() };
    let path = bed.path("store").join(name.manifest_key());
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
    id.to_string()
}

/// The manifest of a backup as somebody without a key makes it of another: a later one, for others.
fn foreign(bed: &Bed, of: &str, ahead: Duration, keys: &Value) -> String {
    let text = fs::read_to_string(bed.object(of, "manifest.json")).unwrap();
    let id = BackupId::new(now() + ahead);
    let (from, to) = (of.parse::<BackupId>().unwrap().created(), id.created());
    let day = |at: time::OffsetDateTime| {
        format!("{:04}/{:02}/{:02}", at.year(), u8::from(at.month()), at.day())
    };
    let text = text.replace(of, &id.to_string()).replace(&day(from), &day(to));
    let mut manifest: Value = serde_json::from_str(&text).unwrap();
    manifest["keys"] = keys.clone();
    put_as(bed, id, &serde_json::to_vec(&manifest).unwrap())
}

fn passphrase(index: usize, rounds: u32) -> Value {
    let mut bytes = [0_u8; 16];
    bytes[0] = u8::try_from(index).unwrap();
    json!({
        "kind": "passphrase", "id": "passphrase", "wrapped": "A".repeat(80),
        "kdf": "pbkdf2-hmac-sha256", "salt": base64(&bytes), "rounds": rounds,
    })
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// Everything that has no key of ours, in the place of a newer backup than any; their ids.
fn plant_all(bed: &Bed, of: &str) -> Vec<String> {
    let other = json!([{ "kind": "file", "id": "0".repeat(64), "wrapped": "A".repeat(80) }]);
    vec![
        foreign(bed, of, Duration::days(400), &json!([])),
        foreign(bed, of, Duration::seconds(60), &other),
        put(bed, Duration::days(500), &vec![b' '; (1 << 20) + 1]),
        put(bed, Duration::seconds(61), &vec![b' '; (1 << 20) + 1]),
        put(bed, Duration::seconds(62), b"no JSON"),
        put(bed, Duration::seconds(63), br#"{"schema":"bkp.manifest/9"}"#),
        put(bed, Duration::days(503), b""),
    ]
}

#[track_caller]
fn names_all(run: &Run, ids: &[String]) {
    for id in ids {
        assert!(run.stderr.contains(id.as_str()), "{id} is not named: {run:?}");
    }
}

/// One byte of the newest manifest turns over. It has the size that it had, and even if the store showed
/// the version that was seen before, as a disk does whose bits rot, nothing goes for its sake.
#[test]
fn an_overwritten_manifest_removes_no_good_backup() {
    for seen_before in [false, true] {
        let bed = cleanup::bed(LAST);
        let made = daily(&bed, 4);
        let newest = made[3].id.to_string();
        bed.run(&["cleanup", "--dry-run"]).done();
        let path = bed.object(&newest, "manifest.json");
        let mut bytes = fs::read(&path).unwrap();
        let at = bytes.len() / 2;
        bytes[at] ^= 1;
        fs::write(&path, bytes).unwrap();
        if seen_before {
            pretend_seen(&bed, &made[3].name().manifest_key());
        }
        let run = bed.run(&["cleanup"]).done();
        let left: std::collections::BTreeSet<String> = ids(&bed);
        let kept = [&made[2], &made[3]].map(|manifest| manifest.id.to_string());
        assert_eq!(left, kept.into(), "{run:?}");
        bed.run(&["verify", "--id", &made[2].id.to_string(), "--level", "digest"]).done();
    }
}

/// Makes what is cached of a manifest look as if it were of the version that the store has now.
fn pretend_seen(bed: &Bed, key: &str) {
    Run::of(&bed.on_host(2, &["cleanup", "--dry-run"]).output().unwrap()).done();
    let cache = |state: &str| {
        let items = fs::read_dir(bed.path(state).join("cache")).unwrap();
        let mut items = items.map(|item| item.unwrap().path());
        items
            .find(|path| path.file_name().unwrap().to_str().unwrap().starts_with("facts-"))
            .unwrap()
    };
    let read = |path: &Path| serde_json::from_slice::<Value>(&fs::read(path).unwrap()).unwrap();
    let (ours, theirs) = (cache("state"), cache("state-2"));
    let mut facts = read(&ours);
    assert_eq!(facts[key]["proof"], "Authentic");
    facts[key]["version"] = read(&theirs)[key]["version"].clone();
    fs::write(ours, facts.to_string()).unwrap();
}

/// The same with an object that has gone since the listing, or is another one: what stays is looked at.
#[test]
fn a_lost_object_removes_no_good_backup() {
    let bed = cleanup::bed(LAST);
    let made = daily(&bed, 4);
    bed.run(&["cleanup", "--dry-run"]).done();
    let object = bed.object(&made[3].id.to_string(), "tar.zst.enc");
    fs::write(&object, b"short").unwrap();
    bed.run(&["cleanup"]).done();
    assert!(ids(&bed).contains(&made[2].id.to_string()));
}

#[test]
fn a_planted_unpin_lets_nothing_go_and_pins_are_not_used_up() {
    let bed = cleanup::bed(LAST);
    let made = daily(&bed, 4);
    let pinned = made[0].id.to_string();
    bed.run(&["pin", &pinned]).done();
    let later = BackupId::new(now() + Duration::days(400)).to_string();
    for planted in ["unpin-65535.json", &format!("unpin-{later}.json")] {
        fs::write(beside(&bed, &pinned, planted), b"").unwrap();
    }
    bed.run(&["cleanup"]).done();
    assert!(ids(&bed).contains(&pinned), "it is pinned");
    let long = bed.run(&["list", "--long"]);
    assert!(long.stdout.contains("pinned 20") && !long.stdout.contains("unproven"), "{long:?}");
    // The last number is taken; there is another way to pin, and a planted pin is one.
    fs::write(beside(&bed, &pinned, "pin-65535.json"), b"{}").unwrap();
    bed.run(&["pin", &pinned]).done();
    // A host without a key may keep a backup and not let it go.
    bed.recipients_are(&["file:other"]);
    bed.run(&["keys", "generate"]).done();
    bed.run(&["unpin", &pinned]).failed(12, "no available key opens it");
    let run = bed.run(&["pin", &pinned]).done();
    assert!(run.stderr.contains("without authentication"), "{run:?}");
    bed.recipients_are(&["file:key"]);
    let long = bed.run(&["list", "--long"]);
    assert!(long.stdout.contains("(unproven)"), "{long:?}");
    bed.run(&["cleanup"]).done();
    assert!(ids(&bed).contains(&pinned));
    bed.run(&["unpin", &pinned]).done();
    bed.run(&["cleanup"]).done();
    assert!(!ids(&bed).contains(&pinned), "who has the key lets it go, whatever was planted");
}

/// An unpin is believed of the backup that it is about, and where it was written.
#[test]
fn an_unpin_of_another_backup_is_not_believed() {
    let bed = cleanup::bed(LAST);
    let made = daily(&bed, 4);
    let [victim, other] = [&made[0], &made[1]].map(|manifest| manifest.id.to_string());
    for id in [&victim, &other] {
        bed.run(&["pin", id]).done();
    }
    bed.run(&["unpin", &other]).done();
    let unpin = |path: &&PathBuf| path.to_str().unwrap().contains(".unpin-");
    let stored = bed.stored();
    let path = stored.iter().find(unpin).unwrap();
    let text = fs::read_to_string(path).unwrap();
    let pin = |path: &&PathBuf| {
        let path = path.to_str().unwrap();
        path.contains(&victim) && path.contains(".pin-")
    };
    let pin = stored.iter().find(pin).unwrap().file_name().unwrap().to_str().unwrap();
    let pin = pin.split_once('.').unwrap().1;
    let taken: Value = serde_json::from_str(&text).unwrap();
    let taken = taken["takes_back"][0].as_str().unwrap();
    let name = path.file_name().unwrap().to_str().unwrap().split_once('.').unwrap().1;
    for forged in [text.clone(), text.replace(&other, &victim), text.replace(taken, pin)] {
        fs::write(beside(&bed, &victim, name), forged).unwrap();
        bed.run(&["cleanup"]).done();
        assert!(ids(&bed).contains(&victim));
    }
    assert!(!ids(&bed).contains(&other));
}

#[test]
fn planted_damage_marks_are_checked() {
    let folder = tempfile::tempdir().unwrap();
    let bed = small(&folder);
    let base = bed.snapshot("full");
    let increment = ["snapshot", "books", "--scope", "incremental"];
    // Called damaged by nobody who could know: it is read, and built on.
    fs::write(beside(&bed, &base, "damaged-65535.json"), b"{}").unwrap();
    let run = bed.run(&increment).done();
    assert!(run.stderr.contains("no available key authenticates the mark"), "{run:?}");
    bed.run(&["verify", "--id", &base, "--level", "decode"]).done();
    let run = bed.run(&increment).done();
    assert!(!run.stderr.contains("damaged"), "it was looked at: {run:?}");
    // It is damaged, and somebody without a key says that it is not.
    let path = bed.object(&base, "tar.zst.enc");
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    fs::write(&path, bytes).unwrap();
    bed.run(&["verify", "--id", &base, "--level", "digest"]).failed(13, "tar.zst.enc");
    let later = BackupId::new(now() + Duration::days(400)).to_string();
    for planted in ["sound-65535.json", &format!("sound-{later}.json")] {
        fs::write(beside(&bed, &base, planted), b"").unwrap();
    }
    bed.run(&increment).failed(13, "a verification found backup");
}

/// What somebody calls damaged is not counted, and nothing goes for its sake either.
#[test]
fn planted_damage_removes_nothing() {
    let bed = cleanup::bed("keep_last = 2, min_keep = 1, max_removed_percent = 100");
    let made = daily(&bed, 5);
    fs::write(beside(&bed, &made[3].id.to_string(), "damaged-0001.json"), b"{}").unwrap();
    bed.run(&["cleanup"]).done();
    let kept = [&made[2], &made[3], &made[4]].map(|manifest| manifest.id.to_string());
    assert_eq!(ids(&bed), kept.into());
}

#[test]
fn planted_manifests_neither_stop_nor_influence_runs() {
    let folder = tempfile::tempdir().unwrap();
    let bed = small(&folder);
    cleanup::add_job(&bed, LAST);
    let good = bed.snapshot("full");
    let planted = plant_all(&bed, &good);
    let restored = bed.run(&["restore", "books", "--to", "r.tigerbeetle", "--yes"]).done();
    assert!(restored.stdout.contains(&good), "{restored:?}");
    names_all(&restored, &planted);
    // It says that the newest was not looked at.
    let verified = bed.run(&["verify", "books"]).failed_in_text(3, &good);
    names_all(&verified, &planted);
    let next: Value = bed.json(&["snapshot", "books", "--scope", "incremental"]);
    assert_eq!(next["manifest"]["parent"], good.as_str());
    let auto = bed.json(&["snapshot", "books"]);
    assert_eq!(auto["manifest"]["scope"], "incremental", "{auto}");
    let cleaned = bed.run(&["cleanup"]).done();
    assert!(cleaned.stderr.contains("larger than 1048576 bytes"), "{cleaned:?}");
    assert!(ids(&bed).contains(&good));
    // It ends with what it found, which may be critical, and not with an error.
    let found = bed.run(&["status"]);
    assert!([Some(0), Some(18)].contains(&found.code), "{found:?}");
    bed.run(&["restore", "books", "--to", "s.tigerbeetle", "--yes", "--key", "file:none"])
        .failed(12, "none");
}

/// Whoever names a backup gets it or hears why not; a second one of its id does not keep him from it.
#[test]
fn a_copy_under_another_name_hides_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let bed = small(&folder);
    let base = bed.snapshot("full");
    let child = bed.snapshot("incremental");
    // The child's, put among the full ones, with other content; and the base's among the increments.
    for (id, from, to) in [(&child, "incremental", "full"), (&base, "full", "differential")] {
        let path = bed.object(id, "manifest.json");
        let text = fs::read_to_string(&path).unwrap();
        let copy = path.to_str().unwrap().replace(&format!("/{from}/"), &format!("/{to}/"));
        fs::create_dir_all(Path::new(&copy).parent().unwrap()).unwrap();
        let mut manifest: Value = serde_json::from_str(&text.replace(from, to)).unwrap();
        if to == "full" {
            manifest["parent"] = Value::Null;
            manifest["base"] = id.as_str().into();
        } else {
            let earlier = BackupId::new(now() - Duration::days(1)).to_string();
            manifest["parent"] = earlier.as_str().into();
            manifest["base"] = earlier.into();
        }
        fs::write(copy, serde_json::to_vec(&manifest).unwrap()).unwrap();
    }
    for (name, which) in [("a", vec!["--id", &child]), ("b", vec!["books"])] {
        let words = [vec!["restore"], which, vec!["--to", name, "--yes"]].concat();
        let run = bed.run(&words).done();
        assert!(run.stdout.contains(&child), "{run:?}");
    }
    let next = bed.json(&["snapshot", "books", "--scope", "incremental"]);
    assert_eq!(next["manifest"]["parent"], child.as_str());
}

/// The newest backup was altered after it was made: an older one in its place would be a silent loss.
#[test]
fn an_altered_backup_is_told_from_a_planted_one() {
    let folder = tempfile::tempdir().unwrap();
    let bed = small(&folder);
    let older = bed.snapshot("full");
    let newest = bed.snapshot("full");
    let path = bed.object(&newest, "manifest.json");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("\"completed\"", "\"Completed\"")).unwrap();
    for words in [&["verify", "books"][..], &["restore", "books", "--to", "r", "--yes"]] {
        bed.run(words).failed(13, &newest);
    }
    bed.run(&["restore", "--id", &older, "--to", "r", "--yes"]).done();
}

/// What is planted is tried as if bkp had made it, and no harder: unless somebody names it.
#[test]
fn planted_recipients_cost_little() {
    let folder = tempfile::tempdir().unwrap();
    let bed = small(&folder);
    fs::write(bed.path("pass"), "correct horse").unwrap();
    bed.chmod("pass", 0o600);
    bed.recipients_are(&["passphrase:file:pass"]);
    let good = bed.snapshot("full");
    let hard: Vec<Value> = (0..32).map(|index| passphrase(index, 10_000_000)).collect();
    for minutes in 1..4 {
        foreign(&bed, &good, Duration::minutes(minutes), &hard.clone().into());
    }
    let began = Instant::now();
    let run = bed.run(&["restore", "books", "--to", "r", "--yes"]).done();
    assert!(run.stderr.contains("asks for 10000000 rounds"), "{run:?}");
    // One derivation of ten million rounds takes longer than all of that.
    assert!(began.elapsed().as_secs() < 20, "{:?}", began.elapsed());
}

/// Sizes that no store can hold are sums that do not fit; and a listing is as large as memory is.
#[test]
fn planted_sizes_stop_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("0_0.tigerbeetle");
    tb::format(&file, 0, 1);
    let bed = Bed::in_memory(&file);
    let good = bed.snapshot("full");
    for days in 1..4 {
        let id = foreign(&bed, &good, Duration::days(-days), &json!([]));
        let object = fs::File::create(beside(&bed, &id, "tar.zst.enc")).unwrap();
        object.set_len((1 << 63) - 1).unwrap();
    }
    let status = bed.run(&["status"]);
    assert!(status.stdout.contains("books"), "{status:?}");
    bed.run(&["list"]).done();
    // Not a hundred times its size, as it would take.
    let heavy =
        format!("{{\"schema\":\"bkp.manifest/1\",\"x\":[{}0]}}", "{\"\":0},".repeat(140_000));
    let heavy = put(&bed, Duration::days(1), heavy.as_bytes());
    let listed = bed.run(&["list", "--long"]);
    assert!(listed.stdout.contains("bytes of memory"), "{listed:?}");
    let id = heavy.as_str();
    assert!(listed.stdout.contains(id) && listed.stdout.contains(&good), "{listed:?}");
}

/// Whoever says that a base is being removed keeps no backup from being made: the next one is a full one,
/// those after it build on that, and cleanup, which removes nothing here, takes the mark away.
#[test]
fn a_planted_mark_of_removal_costs_no_run() {
    let folder = tempfile::tempdir().unwrap();
    let bed = small(&folder);
    let taken = |words: &[&str]| {
        let run = bed.run(&[&["snapshot", "books", "--json"], words].concat()).done();
        let report: Value = serde_json::from_str(&run.stdout).unwrap();
        (run, report["manifest"].clone())
    };
    let base = bed.snapshot("full");
    let child = taken(&[]).1;
    assert_eq!(child["scope"], "incremental");
    let mark = beside(&bed, &base, "deleting.json");
    fs::write(&mark, b"").unwrap();
    let asked = ["snapshot", "books", "--scope", "incremental"];
    bed.run(&asked).failed(14, &format!("{base} is marked for removal"));
    let (run, full) = taken(&[]);
    assert_eq!(full["scope"], "full");
    assert!(run.stderr.contains(&base), "{run:?}");
    assert_eq!(taken(&[]).1["parent"], full["id"]);
    bed.restore(child["id"].as_str().unwrap());
    bed.run(&["cleanup"]).done();
    assert!(!mark.exists());
    assert_eq!(ids(&bed).len(), 4);
}

/// A note is one line, whoever wrote it: it can forge no row of a backup, and turns no text around.
#[test]
fn a_planted_note_cannot_forge_output() {
    let folder = tempfile::tempdir().unwrap();
    let bed = small(&folder);
    let id = bed.snapshot("full");
    let note = json!({
        "schema": "bkp.mark/1", "word": "note", "at": "2026-11-22T14:30:00Z", "process": 1,
        "host": "vm\nforged", "note": "fine\nforged\u{202e}",
    });
    fs::write(beside(&bed, &id, "note-0001.json"), note.to_string()).unwrap();
    let listed = bed.run(&["list", "--long"]).done().stdout;
    assert!(listed.contains("fine"), "{listed}");
    assert!(!listed.lines().any(|line| line.starts_with("forged")), "{listed}");
    assert!(!listed.contains('\u{202e}'), "{listed}");
}

/// What stands in the place of the next lease and is no object takes the place of no run.
#[test]
fn a_folder_in_the_place_of_a_lease_stops_no_run() {
    let folder = tempfile::tempdir().unwrap();
    let bed = small(&folder);
    bed.snapshot("full");
    let leases = bed.path("store/leases/books");
    let last = fs::read_dir(&leases).unwrap().map(|item| item.unwrap().file_name()).max().unwrap();
    let last: u64 = last.to_str().unwrap().parse().unwrap();
    for (next, what) in (last + 1..).zip(["folder", "link"]) {
        let path = leases.join(format!("{next:020}"));
        match what {
            "folder" => fs::create_dir(path).unwrap(),
            _ => std::os::unix::fs::symlink("/nowhere", path).unwrap(),
        }
    }
    let run = bed.run(&["snapshot", "books"]).done();
    assert!(run.stderr.contains("skipping the lease"), "{}", run.stderr);
    bed.run(&["snapshot", "books"]).done();
}
