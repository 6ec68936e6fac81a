//! `bkp replicate --to`: another store gets the same bytes or nothing, whatever fails on the way, and a restore
//! takes its copy where the first store has lost its own.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bkp::cmd::replicate;
use bkp::domain::id::BackupId;
use bkp::error::{Kind, diagnose};
use bkp::ledger::{Holder, in_store};
use serde_json::Value;

use crate::support::bed::{Bed, Run};
use crate::support::books::{Books, assert_same_transfers};
use crate::support::duck::{self, dump, snapshot, sql};
use crate::support::fault::{Effect, Failure, FaultPlan, PlannedFault};
use crate::support::logs::{PATIENCE, numbers, restore_at, with_server};
use crate::support::planted::{Seed, now, plant};
use crate::support::postgres::bed::{NO_ARCHIVE, PostgresBed, recovered, system};
use crate::support::postgres::load::{Load, check};
use crate::support::postgres::{Options, Version, place};
use crate::support::s3::usual;
use crate::support::second::{V, database, empty, listed, stored, with_second, with_table};
use crate::support::tb;
use crate::support::wait::pause;

#[track_caller]
fn assert_same(bed: &Bed) {
    let (here, there) = (stored(&bed.path("store")), stored(&bed.path("off")));
    let keys: [Vec<&String>; 2] = [here.keys().collect(), there.keys().collect()];
    assert_eq!(keys[0], keys[1]);
    assert!(here == there, "the keys are the same, the bytes are not");
}

fn copies(bed: &Bed) -> Value {
    bed.json(&["replicate", "--to", "off"])
}

#[test]
fn copies_are_the_same_bytes_and_are_made_once() {
    let (_folder, file, bed) = database("");
    let ids = listed(&bed, "main");
    bed.run(&["pin", &ids[0], "--note", "the audit of 2026"]).done();
    bed.run(&["note", &ids[1], "seen"]).done();
    let dry = bed.json(&["replicate", "--to", "off", "--dry-run"]);
    assert_eq!((&dry["copied"], &dry["annotations"]), (&4.into(), &2.into()), "{dry}");
    assert!(stored(&bed.path("off")).is_empty());
    let report = copies(&bed);
    assert_eq!((&report["copied"], &report["present"]), (&4.into(), &0.into()), "{report}");
    assert_eq!(report["annotations"], 2);
    assert_same(&bed);
    let again = copies(&bed);
    assert_eq!((&again["copied"], &again["present"]), (&0.into(), &4.into()), "{again}");
    assert_eq!((&again["annotations"], &again["items"]), (&0.into(), &Value::Array(vec![])));
    bed.run(&["verify", "--all", "--store", "off", "--level", "decode"]).done();
    let target = bed.path("restored.duckdb");
    let words = ["restore", "analytics", "--store", "off", "--yes", "--to"];
    bed.run(&[&words[..], &[target.to_str().unwrap()]].concat()).done();
    assert_eq!(dump(&file), dump(&target));
    // What was said since, and what is new.
    bed.run(&["unpin", &ids[0]]).done();
    snapshot(&bed, &["--scope", "incremental"]);
    let later = copies(&bed);
    assert_eq!((&later["copied"], &later["annotations"]), (&1.into(), &1.into()), "{later}");
    let text = bed.run(&["replicate", "--to", "off", "analytics"]).done().stdout;
    assert!(
        text.contains("copied 0 backups (0 B) from") && text.contains("5 already there"),
        "{text}"
    );
}

#[test]
fn what_one_store_lost_comes_from_the_other() {
    let (_folder, file, bed) =
        database("[job.off]\nrun = \"replicate\"\nto = \"off\"\nfrom = \"main\"\n");
    copies(&bed);
    let newest = listed(&bed, "main").pop().unwrap();
    let object = bed.object(&newest, "tar.enc");
    let bytes = fs::read(&object).unwrap();
    for (damaged, how) in [(None, "lost"), (Some(bytes[..bytes.len() - 1].to_vec()), "cut")] {
        let _lost = fs::remove_file(&object);
        if let Some(damaged) = damaged {
            fs::write(&object, damaged).unwrap();
        }
        let target = bed.path(&format!("{how}.duckdb"));
        let words = ["restore", "--id", &newest, "--yes", "--to", target.to_str().unwrap()];
        let run = bed.run(&words).done();
        assert!(run.stderr.contains("trying the copy in store `off`"), "{}", run.stderr);
        assert_eq!(dump(&file), dump(&target), "{how}");
        // It stays damage.
        let run = bed.run(&["verify", "--id", &newest]).failed(13, "store `off` has a copy");
        assert!(run.stderr.contains("--store off"), "{}", run.stderr);
        // Whoever chose a store gets that one.
        bed.run(
            &[&words[..4], &["--to", bed.path("x.duckdb").to_str().unwrap(), "--store", "main"]]
                .concat(),
        )
        .failed(13, &newest);
    }
    // And where neither has it, both are named.
    let copy = bed.path("off").join(object.strip_prefix(bed.path("store")).unwrap());
    fs::remove_file(copy).unwrap();
    let target = bed.path("neither.duckdb");
    let words = ["restore", "--id", &newest, "--yes", "--to", target.to_str().unwrap()];
    bed.run(&words).failed(13, "no intact copy in the first store or in off");
    assert!(!target.exists());
}

/// A run that was killed anywhere leaves whole copies only, and the next run completes it.
#[test]
fn a_killed_run_leaves_whole_copies_and_goes_on() {
    let (_folder, _file, bed) = database("");
    let began = Instant::now();
    copies(&bed);
    let usual = u64::try_from(began.elapsed().as_micros()).unwrap();
    let rounds = std::env::var("BKP_TEST_ROUNDS").map_or(12, |text| text.parse().unwrap());
    let mut kills = 0;
    empty(&bed);
    for after in numbers(3, usual).take(rounds) {
        if kills % 4 == 3 {
            empty(&bed);
        }
        let mut child =
            bed.command(&["replicate", "--to", "off", "--wait-lock", "5m"]).spawn().unwrap();
        std::thread::park_timeout(Duration::from_micros(after));
        child.kill().unwrap();
        kills += u64::from(child.wait().unwrap().code().is_none());
        for id in listed(&bed, "off") {
            bed.run(&["verify", "--id", &id, "--store", "off"]).done();
        }
    }
    assert!(kills > 0);
    // Its lease is that of a process that is gone.
    bed.run(&["replicate", "--to", "off", "--wait-lock", "5m"]).done();
    assert_same(&bed);
}

/// Every call of either store fails in every way, one after the other.
#[test]
fn whatever_fails_copies_are_whole_or_absent() {
    let (_folder, _file, bed) = database("");
    let options = replicate::Options {
        to: "off".into(),
        from: Some("main".into()),
        source: None,
        reseal: false,
        dry_run: false,
        patience: Duration::ZERO,
    };
    let failures =
        [Failure::Transient, Failure::Permanent, Failure::Full, Failure::Missing, Failure::Exists];
    let effects =
        failures.into_iter().flat_map(|failure| [Effect::Before(failure), Effect::After(failure)]);
    for effect in effects.chain([Effect::FullAfter { bytes: 100 }]) {
        for nth in 0.. {
            empty(&bed);
            let plan = FaultPlan::new(vec![PlannedFault::nth(nth, effect)]);
            let ended = replicate::run(&bed.app(Some(plan.clone())), &options);
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
            let (here, there) = (stored(&bed.path("store")), stored(&bed.path("off")));
            for (key, bytes) in &there {
                assert!(here.get(key) == Some(bytes), "{effect:?} {nth}: {key} differs");
            }
            for key in there.keys().filter(|key| key.ends_with(".manifest.json")) {
                let stem = key.split('.').next().unwrap();
                let of = |keys: &BTreeMap<String, Vec<u8>>| {
                    keys.keys().filter(|key| key.starts_with(stem)).count()
                };
                assert_eq!(of(&here), of(&there), "{effect:?} {nth}: {key} is not whole");
            }
            if !plan.unfired().is_empty() {
                assert!(nth > 0, "{effect:?} never happened");
                break;
            }
        }
    }
    copies(&bed);
    assert_same(&bed);
}

/// What is damaged on either side is named, and which side is right; what builds on it is not copied either.
#[test]
fn damage_is_named_on_the_side_where_it_is() {
    let (_folder, _file, bed) = database("");
    let ids = listed(&bed, "main");
    // Left by somebody under the name of an object of the first backup.
    let object = bed.object(&ids[0], "tar.zst.enc");
    let copy = bed.path("off").join(object.strip_prefix(bed.path("store")).unwrap());
    let mut wrong = fs::read(&object).unwrap();
    *wrong.last_mut().unwrap() ^= 1;
    fs::create_dir_all(copy.parent().unwrap()).unwrap();
    fs::write(&copy, &wrong).unwrap();
    let run = bed.run(&["replicate", "--to", "off", "--json"]);
    let report: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(
        (run.code, &report["failed"], &report["copied"]),
        (Some(3), &2.into(), &2.into()),
        "{report}"
    );
    let reasons = report["items"].to_string();
    assert!(
        reasons.contains("the existing copy of") && reasons.contains("does not match the manifest"),
        "{reasons}"
    );
    assert!(reasons.contains(&format!("its parent {} has no complete copy", ids[0])), "{reasons}");
    // The original is damaged, and the store that gets the copies has nothing.
    empty(&bed);
    let original = fs::read(&object).unwrap();
    fs::write(&object, &wrong).unwrap();
    let run = bed.run(&["replicate", "--to", "off", "--json"]);
    assert_eq!(run.code, Some(3));
    assert_eq!(listed(&bed, "off").len(), 2);
    fs::write(&object, &original).unwrap();
    // A manifest that somebody altered is no manifest of ours.
    empty(&bed);
    let manifest = bed.object(&ids[0], "manifest.json");
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, text.replace("\"host\":", "\"host\": ")).unwrap();
    let run = bed.run(&["replicate", "--to", "off", "--json"]);
    assert_eq!(run.code, Some(3), "{}", run.stdout);
    assert_eq!(listed(&bed, "off").len(), 2);
    fs::write(&manifest, text).unwrap();
    copies(&bed);
    assert_same(&bed);
    // And where it is altered in the other store, that is said once its size shows it.
    let altered = bed.path("off").join(manifest.strip_prefix(bed.path("store")).unwrap());
    let text = fs::read_to_string(&altered).unwrap();
    fs::write(&altered, text.replace("\"host\":", "\"host\": ")).unwrap();
    let run = bed.run(&["replicate", "--to", "off"]);
    assert_eq!(run.code, Some(3), "{}", run.stdout);
    assert!(run.stdout.contains("differs from the manifest in"), "{}", run.stdout);
    fs::write(&altered, text).unwrap();
    copies(&bed);
}

/// A store with a retention of its own gets what that keeps, and what its cleanup removed does not come back.
#[test]
fn a_store_keeps_what_its_own_retention_says() {
    let jobs = "[job.nightly]\nrun = \"snapshot\"\nsource = \"analytics\"\nretention = { keep_all = true }\n";
    let more = format!(
        "[store.off.retention]\nkeep_last = 2\nmin_keep = 1\nmax_removed_percent = 100\n{jobs}"
    );
    let (_folder, _file, bed) = database(&more);
    for _ in 0..4 {
        snapshot(&bed, &["--scope", "full"]);
    }
    let report = copies(&bed);
    // Two snapshots and two exports, which no job is about.
    assert_eq!(report["copied"], 4, "{report}");
    let left = report["items"].to_string();
    assert!(left.contains("the retention of that store would not keep it"), "{left}");
    snapshot(&bed, &["--scope", "full"]);
    assert_eq!(copies(&bed)["copied"], 1);
    bed.run(&["cleanup", "--store", "off"]).done();
    let kept = listed(&bed, "off");
    assert_eq!(kept.len(), 4, "{kept:?}");
    let again = copies(&bed);
    assert_eq!((&again["copied"], listed(&bed, "off")), (&0.into(), kept), "{again}");
    assert_eq!(listed(&bed, "main").len(), 9);
}

/// Takes the lease of something else in the second store.
fn hold(bed: &Bed, job: &str) -> Box<dyn bkp::ledger::Lease> {
    let app = bed.app(None);
    let holder = Holder {
        job: job.into(),
        run: BackupId::new(now()),
        backup_type: None,
        host: "elsewhere".into(),
        process: 1,
        place: 7,
        state_dir: bed.path("elsewhere"),
    };
    let store: Arc<dyn bkp::store::AppendStore> = app.store_append("off").unwrap().into();
    in_store::acquire(store, &holder, Duration::from_mins(5), &app.ctx).unwrap()
}

#[test]
fn a_cleanup_and_a_replication_of_one_store_exclude_each_other() {
    let (_folder, _file, bed) = database("");
    let mut held = hold(&bed, "content.all");
    bed.run(&["cleanup", "--store", "off"]).failed(11, "elsewhere");
    bed.run(&["replicate", "--to", "off"]).failed(11, "elsewhere");
    bed.run(&["cleanup", "--store", "main"]).done();
    assert!(listed(&bed, "off").is_empty());
    held.free().unwrap();
    copies(&bed);
    assert_same(&bed);
}

/// What has no manifest that a key proves is not taken along.
#[test]
fn what_somebody_planted_is_not_copied() {
    let (_folder, file, bed) = database("");
    let stranger = duck::bed(&file);
    let mut app = bed.app(None);
    app.settings.recipients = vec![format!("file:{}", stranger.path("key").display())];
    let planted = plant(&bed, &app, &Seed { source: "analytics".into(), ..Seed::at(now()) });
    let run = bed.run(&["replicate", "--to", "off", "--json"]);
    let report: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(
        (run.code, &report["copied"], &report["failed"]),
        (Some(3), &4.into(), &1.into()),
        "{report}"
    );
    assert!(!listed(&bed, "off").contains(&planted.id.to_string()));
}

#[test]
fn stores_are_found_or_asked_for() {
    let (_folder, _file, bed) = database("");
    assert_eq!(bed.run(&["replicate"]).code, Some(2));
    bed.run(&["replicate", "--to", "main", "--from", "main"])
        .failed(2, "cannot be copied to itself");
    bed.run(&["replicate", "--to", "nowhere"]).failed(10, "no store `nowhere`");
    assert_eq!(bed.run(&["replicate", "--to", "off", "--scope", "full"]).code, Some(2));
    with_table(&bed, &format!("[store.third]\nurl = \"file://{}\"\n", bed.path("third").display()));
    bed.run(&["replicate", "--to", "off"]).failed(2, "pass --from NAME, one of: main, third");
    bed.run(&["replicate", "--to", "off", "analytics"]).done();
    assert_same(&bed);
}

/// As a job, between two services, and with every copy in the ledger.
#[test]
fn a_job_replicates_to_a_bucket_and_the_ledger_knows() {
    let folder = tempfile::tempdir().unwrap();
    let server = tb::Server::solo(folder.path());
    let file = folder.path().join("books.tigerbeetle");
    tb::format(&file, 0, 1);
    let bed = Bed::new(&file, "");
    let service = usual();
    let table = service.table_at(&service.endpoint(), "backups", "");
    with_table(
        &bed,
        &format!(
            "[store.off]\n{table}\n[job.away]\nrun = \"replicate\"\nto = \"off\"\nfrom = \"main\"\n"
        ),
    );
    bed.set_ledger(server.address(), "2m", "");
    let full = bed.snapshot("full");
    bed.snapshot("incremental");
    bed.run(&["run", "away"]).done();
    assert_eq!(listed(&bed, "off"), listed(&bed, "main"));
    bed.run(&["verify", "--all", "--store", "off"]).done();
    bed.run(&["verify", "--ledger"]).done();
    let events = bed.json(&["list", "--from-ledger"]);
    let copied = events["events"].as_array().unwrap().iter();
    assert_eq!(copied.filter(|event| event["status"] == "copied").count(), 2, "{events}");
    let status: Value = serde_json::from_str(&bed.run(&["status", "--json"]).stdout).unwrap();
    assert!(status["jobs"].to_string().contains("away"), "{status}");
    // The first store is gone.
    fs::remove_dir_all(bed.path("store")).unwrap();
    let target = bed.path("restored.tigerbeetle");
    let run = bed.run(&[
        "restore",
        "--id",
        &full,
        "--yes",
        "--store",
        "off",
        "--to",
        target.to_str().unwrap(),
    ]);
    run.done();
    // Which backup is the newest only that store knew.
    let other = bed.path("other.tigerbeetle");
    let words = ["restore", "books", "--yes", "--to", other.to_str().unwrap()];
    bed.run(&words).failed(10, "add --store off");
}

/// Of two stores one is the copy of the other; that it is behind is said as soon as the job is late, whatever
/// somebody puts there that looks like a copy.
#[test]
fn a_store_that_is_behind_is_a_finding() {
    let job = "[job.away]\nrun = \"replicate\"\nto = \"off\"\nwarn_after = \"1s\"\n";
    let (_folder, file, bed) = database(job);
    let behind = || {
        let status: Value = serde_json::from_str(&bed.run(&["status", "--json"]).stdout).unwrap();
        let found = status["findings"].as_array().unwrap().iter();
        let mine = found.filter(|finding| finding["rule"] == "copy");
        mine.map(|finding| finding["message"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let behind_at_last = || {
        let began = Instant::now();
        while behind().is_empty() {
            assert!(began.elapsed() < PATIENCE, "nothing is said");
            pause();
        }
        behind()
    };
    let all = behind_at_last();
    assert!(all.len() == 1 && all[0].contains("`off` lacks the newest 4 backup(s)"), "{all:?}");
    bed.run(&["run", "away"]).done();
    assert_eq!(behind(), [""; 0]);
    sql(V, &file, &["UPDATE t SET text = 'more' WHERE id < 5", "CHECKPOINT", "SELECT 1"]);
    let made = snapshot(&bed, &["--scope", "full"]);
    let mut keys = stored(&bed.path("store")).into_keys();
    let is_manifest =
        |key: &String| key.contains(duck::id(&made)) && key.ends_with("manifest.json");
    let key = keys.find(is_manifest).unwrap();
    let text = fs::read_to_string(bed.path("store").join(&key)).unwrap();
    let planted = bed.path("off").join(&key);
    fs::create_dir_all(planted.parent().unwrap()).unwrap();
    fs::write(&planted, text.replace("analytics", "analytica")).unwrap();
    let one = behind_at_last();
    assert!(one.len() == 1 && one[0].contains("`off` lacks the newest 1 backup(s)"), "{one:?}");
    fs::remove_file(&planted).unwrap();
    bed.run(&["run", "away"]).done();
    assert_eq!(behind(), [""; 0]);
}

/// Segments of a log go along, wherever some are missing, and a moment restores from the copies.
#[test]
fn a_log_of_tigerbeetle_goes_along() {
    let folder = tempfile::tempdir().unwrap();
    let server = tb::Server::solo(folder.path());
    let mut books = Books::begin(server.address(), 17);
    let bed = Bed::new(server.data_file(), server.address());
    with_second(&bed, "");
    let step = |books: &mut Books| (0..20).for_each(|_| books.step());
    step(&mut books);
    bed.snapshot("full");
    for _ in 0..3 {
        step(&mut books);
        bed.run(&["logs", "books"]).done();
    }
    let moment = books.moment();
    step(&mut books);
    let original = books.transfers();
    bed.run(&["logs", "books"]).done();
    copies(&bed);
    assert_same(&bed);
    bed.run(&["verify", "books", "--logs", "--store", "off"]).done();
    drop(server);
    fs::rename(bed.path("store"), bed.path("gone")).unwrap();
    fs::create_dir(bed.path("store")).unwrap();
    let config = fs::read_to_string(bed.path("bkp.toml")).unwrap();
    fs::write(
        bed.path("bkp.toml"),
        config.replace("store = \"main\"", "store = [\"main\", \"off\"]"),
    )
    .unwrap();
    let at = bkp::domain::timestamp::spelled(moment.at).unwrap();
    let (restored, _) = restore_at(&bed, "books", &["--at", &at]);
    with_server(&restored, |restored| assert_same_transfers(restored, &original, moment.at));
    fs::remove_dir(bed.path("store")).unwrap();
    fs::rename(bed.path("gone"), bed.path("store")).unwrap();
    let segments: Vec<String> =
        stored(&bed.path("off")).into_keys().filter(|key| key.contains("-log-")).collect();
    let mut ids: Vec<&str> = segments
        .iter()
        .map(|key| key.split("-log-").nth(1).unwrap().split('.').next().unwrap())
        .collect();
    ids.sort_unstable();
    ids.dedup();
    for key in segments.iter().filter(|key| key.contains(ids[0])) {
        fs::remove_file(bed.path("off").join(key)).unwrap();
    }
    assert_eq!(copies(&bed)["copied"], 1, "the beginning is filled");
    for key in segments.iter().filter(|key| key.contains(ids[2])) {
        fs::remove_file(bed.path("off").join(key)).unwrap();
    }
    assert_eq!(copies(&bed)["copied"], 1, "a hole is filled");
}

/// Files of a log that a server handed over go along, too, and a moment restores from the copies.
#[test]
fn a_log_of_postgres_goes_along() {
    let Some(version) = Version::any() else { return };
    let (server, bed) = PostgresBed::archiving(version, "");
    let off = bed.path("off");
    fs::create_dir(&off).unwrap();
    place::own(&off);
    let config = fs::read_to_string(bed.path("bkp.toml")).unwrap();
    let table = format!("[store.off]\nurl = \"file://{}\"\n[keys]", off.display());
    let config = config
        .replace("[keys]", &table)
        .replace("kind = \"postgres\"", "kind = \"postgres\"\nstore = \"main\"");
    bed.write("bkp.toml", &config);
    let load = Load::start(&server, "load");
    load.more(30);
    bed.snapshot("full");
    load.more(50);
    let last = load.stop();
    bed.archived(&server);
    bed.ship();
    let report = bed.json(&["replicate", "--to", "off"]);
    assert!(report["log_files"].as_u64().unwrap() > 0, "{report}");
    let (here, there) = (stored(&bed.path("store")), stored(&off));
    assert!(here == there, "{:?} {:?}", here.keys(), there.keys());
    assert_eq!(bed.json(&["replicate", "--to", "off"])["log_files"], 0);
    bed.run(&["verify", "pg", "--logs", "--store", "off"]).done();
    let home = bed.restore(&["pg", "--at", "latest", "--store", "off"]);
    let restored = recovered(version, &home, &Options::of(NO_ARCHIVE)).unwrap();
    assert_eq!(check(&restored, "load").unwrap().max_n, last);
    drop(restored);
    // What is gone is filled, and a damaged one is not spread, whatever somebody put beside it.
    let wal = off.join(format!("postgres/pg/wal/{}/00000001", system(&server)));
    let mut files: Vec<PathBuf> =
        fs::read_dir(&wal).unwrap().map(|item| item.unwrap().path()).collect();
    files.sort();
    assert!(files.len() > 3, "{files:?}");
    fs::remove_file(&files[0]).unwrap();
    fs::remove_file(&files[2]).unwrap();
    fs::write(wal.join("zzz.zst.enc"), "").unwrap();
    assert_eq!(bed.json(&["replicate", "--to", "off"])["log_files"], 2);
    assert!(files[2].exists() && files[0].exists());
    let origin = bed.path("store").join(files[1].strip_prefix(&off).unwrap());
    let mut bytes = fs::read(&origin).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&origin, bytes).unwrap();
    fs::remove_file(&files[1]).unwrap();
    fs::remove_file(&files[3]).unwrap();
    let run: Run = bed.run(&["replicate", "--to", "off", "--json"]);
    assert_eq!(run.code, Some(3), "{}", run.stdout);
    assert!(!files[1].exists() && files[3].exists());
}

/// A restore takes nothing older from another store than what it would have taken from the first one.
#[test]
fn an_older_copy_is_not_taken_unasked() {
    let (_folder, _file, bed) =
        database("[job.off]\nrun = \"replicate\"\nto = \"off\"\nfrom = \"main\"\n");
    copies(&bed);
    let newest = snapshot(&bed, &["--scope", "full"]);
    let newest = newest["id"].as_str().unwrap().to_owned();
    let target = bed.path("restored.duckdb");
    let words = ["restore", "analytics", "--yes", "--to", target.to_str().unwrap()];
    let manifest = bed.object(&newest, "manifest.json");
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, text.replace("\"host\":", "\"host\": ")).unwrap();
    let run = bed.run(&words);
    assert_eq!((run.code, target.exists()), (Some(13), false), "{}", run.stderr);
    fs::write(&manifest, text).unwrap();
    fs::remove_file(bed.object(&newest, "tar.zst.enc")).unwrap();
    bed.run(&words).failed(13, "no intact copy in the first store or in off");
    assert!(!target.exists());
    bed.run(&[&words[..], &["--store", "off"]].concat()).done();
}

/// Names that somebody puts into either store keep nothing from being copied.
#[test]
fn planted_names_keep_nothing_from_being_copied() {
    let (_folder, _file, bed) = database("");
    let ids = listed(&bed, "main");
    let beside = |id: &str, extension: &str| {
        let manifest = bed.object(id, "manifest.json");
        let name = manifest.file_name().unwrap().to_str().unwrap().to_owned();
        manifest.with_file_name(name.replace("manifest.json", extension))
    };
    fs::write(beside(&ids[0], "deleting.json"), "").unwrap();
    fs::write(beside(&ids[1], "junk"), "junk").unwrap();
    let manifest = bed.object(&ids[1], "manifest.json");
    let copy = bed.path("off").join(manifest.strip_prefix(bed.path("store")).unwrap());
    fs::create_dir_all(copy.parent().unwrap()).unwrap();
    let bytes = fs::read(&manifest).unwrap().len();
    fs::write(&copy, vec![b'0'; bytes]).unwrap();
    let run = bed.run(&["replicate", "--to", "off", "--json"]);
    let report: Value = serde_json::from_str(&run.stdout).unwrap();
    // The backup of that name, and the one that builds on it.
    let counts = (run.code, &report["copied"], &report["failed"]);
    assert_eq!(counts, (Some(3), &2.into(), &2.into()), "{report}");
    fs::remove_file(&copy).unwrap();
    assert_eq!(copies(&bed)["copied"], 2);
    let again = copies(&bed);
    assert_eq!((&again["copied"], &again["present"]), (&0.into(), &4.into()), "{again}");
    bed.run(&["verify", "--all", "--store", "off"]).done();
}

/// A replication that was paused for longer than its lease learns that a cleanup was there meanwhile.
#[test]
fn a_paused_replication_publishes_nothing_that_a_cleanup_removed() {
    let (_folder, _file, bed) = database("");
    let config = fs::read_to_string(bed.path("bkp.toml")).unwrap();
    fs::write(bed.path("bkp.toml"), format!("lease = \"2s\"\n{config}")).unwrap();
    let app = bed.app(None);
    for days in 20..26 {
        let at = now() - time::Duration::days(days);
        let seed = Seed { source: "analytics".into(), bytes: 30 << 20, ..Seed::at(at) };
        plant(&bed, &app, &seed);
    }
    let mut paused = 0;
    for _ in 0..4 {
        empty(&bed);
        let mut child = bed.command(&["replicate", "--to", "off"]).spawn().unwrap();
        let process = rustix::process::Pid::from_child(&child);
        let signal = |which| rustix::process::kill_process(process, which);
        let data = bed.path("off/duckdb");
        while !data.exists() && child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        if child.try_wait().unwrap().is_none() {
            signal(rustix::process::Signal::STOP).unwrap();
            paused += 1;
            std::thread::park_timeout(Duration::from_secs(3));
            bed.run(&["cleanup", "--store", "off"]);
            signal(rustix::process::Signal::CONT).unwrap();
        }
        let code = child.wait().unwrap().code();
        let found = bed.run(&["verify", "--all", "--store", "off", "--level", "exists"]).code;
        let count = listed(&bed, "off").len();
        assert!(count == 0 || found == Some(0), "{code:?}, {count} copies, {found:?}");
        assert!(code != Some(0) || count == 10, "{code:?} with {count} copies");
    }
    assert!(paused > 0, "it was never paused at work");
    bed.run(&["replicate", "--to", "off", "--wait-lock", "1m"]).done();
    assert_same(&bed);
}
