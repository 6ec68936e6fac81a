//! Key sets: with one of them and the recovery key alone, every backup opens.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use time::Duration;

use crate::support::bed::{Bed, Run};
use crate::support::cleanup::{self, daily, ids, with};
use crate::support::kms;
use crate::support::planted::{Seed, now, plant};
use crate::support::postgres::bed::{NO_ARCHIVE, PostgresBed, recovered};
use crate::support::postgres::load::{Load, check};
use crate::support::postgres::{Options, Version};
use crate::support::sealed::{generate, on};
use crate::support::tb;

/// A source that is a key set for a key file, with more lines in its table.
fn recovery(recipients: &[&str], more: &str) -> String {
    // Indented, so that nothing takes it for the line under [keys].
    format!("[source.recovery]\nkind = \"keys\"\n  recipients = {recipients:?}\n{more}\n")
}

/// Adds tables to the configuration.
fn add(bed: &Bed, tables: &str) {
    let config = fs::read_to_string(bed.path("bkp.toml")).unwrap();
    fs::write(bed.path("bkp.toml"), config + tables).unwrap();
}

/// A bed with a key file for recovery, and a key set for it.
fn with_set(bed: Bed) -> Bed {
    bed.run(&["keys", "generate", "recovery.key"]).done();
    add(&bed, &recovery(&["file:recovery.key"], ""));
    bed
}

/// Makes a key set and restores it with the recovery key.
#[track_caller]
fn make(bed: &Bed) -> (Value, PathBuf) {
    let made = bed.json(&["snapshot", "recovery"]);
    let file = bed.path("keyset.jsonl");
    let words = ["--key", "file:recovery.key", "restore", "recovery", "--yes", "--force", "--to"];
    bed.run(&[&words[..], &[file.to_str().unwrap()]].concat()).done();
    (made["manifest"].clone(), file)
}

/// The words of a command that has the key set and the recovery key, and no other key.
fn recovering<'w>(words: &[&'w str]) -> Vec<&'w str> {
    [&["--key", "file:recovery.key", "--with-keyset", "keyset.jsonl"], words].concat()
}

fn lines(file: &Path) -> Vec<String> {
    fs::read_to_string(file).unwrap().lines().map(str::to_owned).collect()
}

fn write(file: &Path, lines: &[String]) {
    fs::write(file, lines.join("\n") + "\n").unwrap();
}

/// What a run left of a bed's `key`, from now on only `new` is configured.
fn lose_the_key(bed: &Bed) {
    fs::remove_file(bed.path("key")).unwrap();
}

#[test]
fn two_years_of_backups_open_with_the_key_set_alone() {
    let bed = with_set(cleanup::bed("keep_last = 1000"));
    let made = daily(&bed, 730, now() - Duration::hours(1));
    let (manifest, file) = make(&bed);
    let capture = &manifest["capture"];
    assert_eq!((&capture["backups"], &capture["missing"]), (&730.into(), &0.into()), "{manifest}");
    assert_eq!((&manifest["type"], &manifest["scope"]), (&"kms".into(), &"full".into()));
    assert_eq!(capture["sources"], serde_json::json!(["books"]));
    // A head, an end and a line for each backup, and none of them a key in the clear.
    assert_eq!(lines(&file).len(), 732);
    assert_eq!(mode(&file), 0o600);

    lose_the_key(&bed);
    let nth = made[400].id.to_string();
    bed.run(&["--key", "file:recovery.key", "verify", "--id", &nth])
        .failed(12, "none of the available keys");
    bed.run(&recovering(&["verify", "--all", "--level", "digest"])).done();
    let listed = bed.json(&recovering(&["list"]));
    assert_eq!(listed["backups"].as_array().unwrap().len(), 731);

    // The way back: a new key for all of them, and then the key set is not needed.
    bed.run(&["keys", "generate", "new"]).done();
    let rewrapped = bed.json(&recovering(&["keys", "rewrap", "--to", "file:new"]));
    assert_eq!(rewrapped["stores"][0]["rewrapped"], 731, "{rewrapped}");
    fs::remove_file(bed.path("recovery.key")).unwrap();
    bed.recipients_are(&["file:new"]);
    cleanup::readable(&bed);
}

fn mode(file: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt as _;
    file.metadata().unwrap().permissions().mode() & 0o777
}

/// A real chain restores, and what is made after the key set is not in it.
#[test]
fn a_chain_restores_with_the_key_set_of_its_day() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("0_0.tigerbeetle");
    tb::format(&file, 0, 1);
    let bed = with_set(Bed::new(&file, ""));
    bed.run(&["snapshot", "recovery"]).failed(10, "no backup of books");
    bed.snapshot("full");
    let next = bed.snapshot("incremental");
    let (manifest, _) = make(&bed);
    let id = manifest["id"].as_str().unwrap();
    bed.run(&["snapshot", "recovery", "--scope", "incremental"]).failed(14, "always a full backup");
    for level in ["exists", "digest", "decode"] {
        bed.run(&["verify", "recovery", "--level", level]).done();
    }
    // The host's own key opens the key set, and none of the keys in it.
    let drill = ["verify", "recovery", "--level", "drill"];
    bed.run(&drill).failed_in_text(0, "the recovery key is not at hand");
    let drilled = bed.run(&[&["--key", "file:recovery.key"], &drill[..]].concat());
    drilled.failed_in_text(0, "2 of 2 open with the keys at hand");
    bed.run(&["restore", "--id", id, "--to", "x", "--table", "a.b", "--yes"]).failed(2, "--table");

    let later = bed.snapshot("incremental");
    lose_the_key(&bed);
    let target = bed.path("restored.tigerbeetle");
    let words = ["restore", "--id", &next, "--yes", "--to", target.to_str().unwrap()];
    bed.run(&["--key", "file:recovery.key"].into_iter().chain(words).collect::<Vec<_>>())
        .failed(12, "none of the available keys");
    bed.run(&recovering(&words)).done();
    assert!(target.exists());
    bed.run(&recovering(&["verify", "--id", &later])).failed(12, "none of the available keys");
}

#[test]
fn a_tenants_key_set_opens_that_tenants_backups_only() {
    let tables = |tenant: &str, name: &str| {
        format!(
            "[source.{name}]\nkind = \"tigerbeetle\"\ndata_file = \"/nowhere/{name}\"\ntenant = {tenant:?}\n"
        )
    };
    let bed = Bed::of_source(&(tables("acme", "books") + &tables("initech", "ledger")));
    bed.run(&["keys", "generate", "recovery.key"]).done();
    let plain = fs::read_to_string(bed.path("bkp.toml")).unwrap();
    let refused = |more: &str, naming: &str| {
        fs::write(bed.path("bkp.toml"), plain.clone() + &recovery(&["file:recovery.key"], more))
            .unwrap();
        bed.run(&["snapshot", "recovery"]).failed(78, naming);
    };
    refused("", "`books` is of tenant acme, and this key set is of none");
    refused("sources = [\"ledger\"]", "`ledger` is of tenant initech");
    refused("sources = [\"ledger\"]\ntenant = \"acme\"", "`ledger` is not of tenant acme");
    refused("tenant = \"umbrella\"", "there is no source of tenant umbrella");
    refused("sources = [\"recovery\"]", "is the key set itself");
    refused("sources = [\"books\", \"books\"]\ntenant = \"acme\"", "listed twice");
    fs::write(bed.path("bkp.toml"), plain.clone() + &recovery(&["fiel:x"], "")).unwrap();
    bed.run(&["list"]).failed(78, "source.recovery.recipients[0]");
    fs::write(bed.path("bkp.toml"), plain.clone() + &recovery(&[], "")).unwrap();
    bed.run(&["list"]).failed(78, "source.recovery.recipients");
    fs::write(bed.path("bkp.toml"), plain).unwrap();

    let app = bed.app(None);
    let seed = |name: &str, hours| Seed {
        source: name.into(),
        ..Seed::at(now() - Duration::hours(hours))
    };
    let mine = [plant(&bed, &app, &seed("books", 3)), plant(&bed, &app, &seed("books", 1))];
    let theirs = plant(&bed, &app, &seed("ledger", 2));
    add(&bed, &recovery(&["file:recovery.key"], "tenant = \"acme\""));
    let (manifest, _) = make(&bed);
    assert_eq!(manifest["tenant"], "acme");
    assert_eq!(
        (&manifest["capture"]["backups"], &manifest["capture"]["tenant"]),
        (&2.into(), &"acme".into())
    );
    lose_the_key(&bed);
    for backup in mine {
        bed.run(&recovering(&["verify", "--id", &backup.id.to_string()])).done();
    }
    bed.run(&recovering(&["verify", "--id", &theirs.id.to_string()]))
        .failed(12, "none of the available keys");
}

#[test]
fn what_no_key_opens_is_named_and_the_rest_is_in() {
    let bed = with_set(cleanup::bed("keep_last = 9"));
    let foreign = daily(&bed, 1, now() - Duration::days(2)).remove(0).id.to_string();
    fs::rename(bed.path("key"), bed.path("other.key")).unwrap();
    bed.run(&["keys", "generate"]).done();
    // Only what it cannot open.
    bed.run(&["snapshot", "recovery"]).failed(12, &foreign);
    daily(&bed, 3, now() - Duration::hours(1));
    let made = bed.run(&["snapshot", "recovery", "--json"]);
    assert_eq!(made.code, Some(3), "{}{}", made.stdout, made.stderr);
    assert!(
        made.stderr.contains(&format!("missing from the backup: the key of {foreign}")),
        "{}",
        made.stderr
    );
    let report: Value = serde_json::from_str(&made.stdout).unwrap();
    let capture = &report["manifest"]["capture"];
    assert_eq!((&capture["backups"], &capture["missing"]), (&3.into(), &1.into()));
    // A source that the configuration no longer names is not forgotten in silence.
    let config = fs::read_to_string(bed.path("bkp.toml")).unwrap();
    fs::write(
        bed.path("bkp.toml"),
        config
            .replace("[source.books]", "[source.renamed]")
            .replace("source = \"books\"", "source = \"renamed\""),
    )
    .unwrap();
    let warned = bed.run(&["snapshot", "recovery"]);
    assert!(
        warned.stderr.contains("backups of books, which is not configured"),
        "{}",
        warned.stderr
    );
    let config = fs::read_to_string(bed.path("bkp.toml")).unwrap();
    fs::write(
        bed.path("bkp.toml"),
        config.replace("kind = \"keys\"", "kind = \"keys\"\nsources = [\"books\"]"),
    )
    .unwrap();
    bed.run(&["snapshot", "recovery"]).failed_in_text(3, "keys of 3 backup(s)");
}

/// Anybody who may write can leave such a mark beside a backup, which is restored all the same.
#[test]
fn a_planted_mark_of_removal_keeps_no_backup_out() {
    let bed = with_set(cleanup::bed("keep_last = 9"));
    let app = bed.app(None);
    let made = [2, 1]
        .map(|hours| plant(&bed, &app, &Seed::at(now() - Duration::hours(hours))).id.to_string());
    let manifest = bed.object(&made[0], "manifest.json");
    let mark = manifest.to_str().unwrap().replace(".manifest.json", ".deleting.json");
    fs::write(&mark, "").unwrap();
    let (report, file) = make(&bed);
    assert_eq!(report["capture"]["backups"], 2, "{report}");
    assert!(lines(&file).iter().any(|line| line.contains(&made[0])));
    bed.run(&["keys", "generate", "new"]).done();
    bed.run(&["keys", "rewrap", "--to", "file:new"]).done();
    lose_the_key(&bed);
    bed.run(&["--key", "file:new", "verify", "--id", &made[0]]).done();
}

#[test]
fn a_key_set_is_untrusted_input() {
    let bed = with_set(cleanup::bed("keep_last = 9"));
    let app = bed.app(None);
    let seed = |hours| Seed::at(now() - Duration::hours(hours));
    let made = [3, 2, 1].map(|hours| plant(&bed, &app, &seed(hours)).id.to_string());
    let (_, file) = make(&bed);
    lose_the_key(&bed);
    let honest = lines(&file);
    let at = |id: &str| honest.iter().position(|line| line.contains(id)).unwrap();
    let verify = |id: &str| bed.run(&recovering(&["verify", "--id", id]));
    for id in &made {
        verify(id).done();
    }

    // Altered: it gives nothing, and the others open.
    let mut altered = honest.clone();
    altered[at(&made[0])] = altered[at(&made[0])].replace("\"host\":\"", "\"host\":\"x");
    write(&file, &altered);
    verify(&made[0]).failed(12, "none of the available keys");
    verify(&made[1]).done();
    // One backup's key under another's name.
    let mut swapped = honest.clone();
    swapped[at(&made[0])] = honest[at(&made[1])].replace(&made[1], &made[0]);
    write(&file, &swapped);
    verify(&made[0]).failed(12, "none of the available keys");
    // Cut off: what is there is used, and what is wrong is said.
    write(&file, &honest[..=at(&made[1])]);
    let cut = verify(&made[1]).done();
    assert!(
        cut.stderr.contains("is damaged: 2 entries can be read, 0 lines cannot, it ends early"),
        "{}",
        cut.stderr
    );
    verify(&made[2]).failed(12, "none of the available keys");
    let mut longer = honest.clone();
    longer.insert(1, "x".repeat(200_000));
    longer.remove(at(&made[0]) + 1);
    write(&file, &longer);
    let damaged = verify(&made[2]).done();
    assert!(damaged.stderr.contains("it had 3"), "{}", damaged.stderr);
    // No key set at all.
    for content in ["", "{}\n", "not a key set"] {
        fs::write(&file, content).unwrap();
        verify(&made[0]).failed(12, "not a key set");
    }
    fs::remove_file(&file).unwrap();
    verify(&made[0]).failed(12, "keyset.jsonl");
    fs::create_dir(&file).unwrap();
    verify(&made[0]).failed(12, "not a regular file");
    fs::remove_dir(&file).unwrap();
    assert!(Command::new("mkfifo").arg(&file).status().unwrap().success());
    verify(&made[0]).failed(12, "not a regular file");
}

/// A host that opens its own backups, and a recovery key whose private half is elsewhere.
#[test]
fn a_private_key_elsewhere_opens_what_a_host_made_for_its_own_key() {
    let bed = cleanup::bed("keep_last = 9");
    let made = daily(&bed, 3, now() - Duration::hours(1));
    let public = generate(&bed, "--age", "identity");
    add(&bed, &recovery(&[&public], ""));
    // Anybody can wrap for a public key: a host has to sign for that.
    bed.run(&["snapshot", "recovery"]).failed(78, "backups have to be signed");
    let signer = generate(&bed, "--signing", "signing.key");
    let config = fs::read_to_string(bed.path("bkp.toml")).unwrap();
    fs::write(
        bed.path("bkp.toml"),
        config.replace("[keys]\n", "[keys]\nsigning_key = \"file:signing.key\"\n"),
    )
    .unwrap();
    bed.run(&["snapshot", "recovery"]).done();
    let drilled = bed.run(&["verify", "recovery", "--level", "drill"]);
    drilled.failed_in_text(0, "the recovery key is not at hand");
    lose_the_key(&bed);

    let there = |trust: &[&str], words: &[&str]| {
        let lines = format!("recipients = [\"age:file:identity\"]\ntrust = {trust:?}");
        Run::of(&on(&bed, "reader", &lines, words).output().unwrap())
    };
    let restore = ["restore", "recovery", "--to", "keyset.jsonl", "--yes"];
    there(&[], &restore).failed(14, "is not trusted");
    there(&[&signer], &restore).done();
    there(&[&signer], &["verify", "recovery", "--level", "drill"]).failed_in_text(0, "3 of 3 open");
    for backup in &made {
        let id = backup.id.to_string();
        let words = ["--with-keyset", "keyset.jsonl", "verify", "--id", &id, "--level", "digest"];
        there(&[&signer], &words).done();
        // The signature in the key set vouches for backups that nobody signed. Without trust in it they stay unproven.
        there(&[], &words).failed(14, "is not trusted");
    }
}

/// A passphrase, and a key of KMS.
#[test]
fn recovery_recipients_may_be_of_any_kind() {
    let bed = cleanup::bed("keep_last = 9");
    let made = daily(&bed, 20, now() - Duration::hours(1));
    fs::write(bed.path("pass"), "a passphrase nobody guesses\n").unwrap();
    bed.chmod("pass", 0o600);
    fs::create_dir_all(bed.path(".aws")).unwrap();
    let profile = "[default]\naws_access_key_id = operator\naws_secret_access_key = s\n";
    fs::write(bed.path(".aws/credentials"), profile).unwrap();
    let kms = kms::recipient(&kms::new_key(kms::REGIONS[0]));
    add(&bed, &recovery(&["passphrase:file:pass", &kms], ""));
    let report = bed.json(&["snapshot", "recovery"]);
    assert_eq!(report["manifest"]["keys"].as_array().unwrap().len(), 3);
    assert_eq!(report["manifest"]["capture"]["backups"], 20);
    // What is at hand is no secret that the configuration shows to others.
    bed.chmod("pass", 0o644);
    bed.run(&["config", "check"]).failed(78, "source.recovery.recipients[0]");
    bed.chmod("pass", 0o600);
    lose_the_key(&bed);
    let id = made[19].id.to_string();
    for key in ["passphrase:file:pass", &kms] {
        let words = ["restore", "recovery", "--to", "keyset.jsonl", "--yes", "--force"];
        bed.run(&[&["--key", key], &words[..]].concat()).done();
        bed.run(&["--key", key, "verify", "--id", &id]).failed(12, "none of the available keys");
        let with = ["--key", key, "--with-keyset", "keyset.jsonl"];
        bed.run(&[&with[..], &["verify", "--all", "--level", "digest"]].concat()).done();
        let drill = ["verify", "recovery", "--level", "drill"];
        bed.run(&[&with[..], &drill].concat()).failed_in_text(0, "20 of 20 open");
    }
}

#[test]
fn jobs_make_key_sets_and_keep_some() {
    let bed = with_set(cleanup::bed("keep_last = 9"));
    daily(&bed, 2, now() - Duration::hours(1));
    add(
        &bed,
        "[job.keys]\nrun = \"snapshot\"\nsource = \"recovery\"\nretention = { keep_last = 2, min_keep = 1, max_removed_percent = 100 }\n",
    );
    let shown = bed.json(&["config", "show"]);
    assert!(shown.to_string().contains("\"keys\""), "{shown}");
    bed.run(&["run", "keys"]).done();
    let status = bed.run(&["status"]);
    assert!(
        status.stdout.contains("keys") && !status.stdout.contains("recovery is"),
        "{}",
        status.stdout
    );
    let keys = bed.json(&["keys", "list"]);
    let opens = |key: &str| {
        let rows = keys["keys"].as_array().unwrap();
        let row = rows.iter().find(|row| row["recipient"].as_str().unwrap().ends_with(key));
        row.unwrap()["backups"].clone()
    };
    assert_eq!((opens("/key"), opens("/recovery.key")), (3.into(), 1.into()), "{keys}");
    bed.run(&["keys", "status"]).done();
    let due = bed.json(&["run", "--dry-run"]);
    assert!(due.to_string().contains("keys"), "{due}");
    for _ in 0..3 {
        bed.run(&["snapshot", "recovery"]).done();
    }
    let listed = bed.json(&["list", "recovery"]);
    let listed = listed["backups"].as_array().unwrap();
    assert_eq!(listed.len(), 4);
    assert!(
        listed.iter().all(|backup| backup["type"] == "kms" && backup["kind"] == "snapshot"),
        "{listed:?}"
    );
    let done = bed.json(&["cleanup"]);
    assert_eq!(with(&done, "remove").len(), 2, "{done}");
    assert_eq!(ids(&bed).len(), 4);
    bed.run(&["doctor"]).failed_in_text(15, "source recovery: recovery recipient file:");
}

/// Every run is an event in the ledger, and the ledger vouches for what a key set made for a public key has.
#[test]
fn the_ledger_records_key_sets() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("books.tigerbeetle");
    tb::format(&file, 0, 1);
    let server = tb::Server::solo(folder.path());
    let bed = with_set(Bed::new(&file, ""));
    bed.set_ledger(server.address(), "2m", "");
    bed.snapshot("full");
    let (manifest, _) = make(&bed);
    let events = bed.json(&["list", "--from-ledger"]);
    let events = events["events"].as_array().unwrap();
    let of_set = events.iter().filter(|event| event["id"] == manifest["id"]);
    let of_set: Vec<_> = of_set
        .map(|event| (event["type"].as_str().unwrap(), event["status"].as_str().unwrap()))
        .collect();
    assert_eq!(of_set, ["started", "completed"].map(|status| ("kms", status)), "{events:?}");
    bed.run(&["verify", "--ledger"]).done();
}

/// Each archived segment of WAL has a data key of its own.
#[test]
fn the_archived_log_opens_with_the_key_set() {
    let version = Version::V18;
    let (server, bed) = PostgresBed::archiving(version, "");
    bed.run(&["keys", "generate", "recovery.key"]).done();
    let config = fs::read_to_string(bed.path("bkp.toml")).unwrap();
    bed.write("bkp.toml", &(config + &recovery(&["file:recovery.key"], "")));
    let load = Load::start(&server, "load");
    load.more(30);
    bed.snapshot("full");
    load.more(50);
    let last = load.stop();
    bed.archived(&server);
    bed.ship();
    drop(server);
    let made = bed.json(&["snapshot", "recovery"]);
    let capture = &made["manifest"]["capture"];
    assert!(capture["log_files"].as_u64().unwrap() > 1, "{capture}");
    assert_eq!(capture["missing"], 0);
    let file = bed.path("keyset.jsonl");
    let key = ["--key", "file:recovery.key"];
    let restore = ["restore", "recovery", "--yes", "--to", file.to_str().unwrap()];
    bed.run(&[&key[..], &restore].concat()).done();
    fs::remove_file(bed.path("key")).unwrap();

    bed.run(&[&key[..], &["verify", "pg", "--logs"]].concat())
        .failed_in_text(12, "none of the available keys");
    let set = [&key[..], &["--with-keyset", file.to_str().unwrap()]].concat();
    bed.run(&[&set[..], &["verify", "pg", "--logs"]].concat()).done();
    let home = bed.restore(&[&["pg", "--at", "latest"], &set[..]].concat());
    let restored = recovered(version, &home, &Options::of(NO_ARCHIVE)).unwrap();
    assert_eq!(check(&restored, "load").unwrap().max_n, last);
}
