//! `bkp cleanup` and `pin`: they keep exactly what the policy says, leave only complete backups
//! wherever they are stopped, and the ledger agrees.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration as StdDuration;

use bkp::cmd::{cleanup, verify};
use bkp::domain::manifest::{Manifest, Retention};
use rustix::process::{Pid, Signal, kill_process};
use time::Duration;

use crate::support::bed::Bed;
use crate::support::cleanup::{add_job, bed, daily, ids, readable, with};
use crate::support::fault::{Effect, Failure, FaultPlan, PlannedFault};
use crate::support::planted::{self, Seed, now, plant};
use crate::support::s3::usual;
use crate::support::tb;

#[test]
fn what_the_policy_keeps_stays_with_everything_it_builds_on() {
    let bed = bed("keep_last = 3, keep_monthly = 4, max_removed_percent = 100");
    let made = daily(&bed, 100, now() - Duration::hours(1));
    // The model: the last three and the newest of four months, each with its chain.
    let mut wanted: BTreeSet<usize> = (97..100).collect();
    let mut months = Vec::new();
    for (at, manifest) in made.iter().enumerate().rev() {
        let month = (manifest.started.year(), manifest.started.month());
        if !months.contains(&month) && months.len() < 4 {
            months.push(month);
            wanted.insert(at);
        }
    }
    let chain = wanted.iter().flat_map(|at| at - at % 7..=*at);
    let expected: BTreeSet<String> = chain.map(|at| made[at].id.to_string()).collect();
    let planned = bed.json(&["cleanup", "--dry-run"]);
    assert_eq!(ids(&bed).len(), 100, "a dry run removes nothing");
    assert_eq!(with(&planned, "keep"), expected);
    let items = planned["stores"][0]["items"].as_array().unwrap();
    assert!(items.iter().all(|item| !item["reason"].as_str().unwrap().is_empty()));
    let done = bed.json(&["cleanup"]);
    assert_eq!(with(&done, "remove"), with(&planned, "remove"), "a dry run says what is done");
    assert_eq!(ids(&bed), expected);
    readable(&bed);
    let again = bed.json(&["cleanup"]);
    assert_eq!(again["stores"][0]["removed"], 0, "{again}");
    // Nothing of the removed ones is left but the notes of their deletion.
    let stored = bed.stored();
    let of_backups = |path: &&std::path::PathBuf| path.starts_with(bed.path("store/tigerbeetle"));
    assert_eq!(stored.iter().filter(of_backups).count(), 2 * expected.len());
    assert_eq!(bed.noted("deleted").len(), 100 - expected.len());
}

#[test]
fn pins_promises_and_failing_jobs_hold_backups() {
    let bed = bed("keep_last = 3, min_keep = 1, max_removed_percent = 100");
    let app = bed.app(None);
    let end = now() - Duration::hours(1);
    let at = |days| Seed::at(end - Duration::days(days));
    let pinned = plant(&bed, &app, &at(9)).id.to_string();
    let base = plant(&bed, &app, &at(8));
    let child = plant(&bed, &app, &at(7).built_on(&base));
    let until = Some(now() + Duration::days(1));
    let promised = plant(
        &bed,
        &app,
        &Seed { retention: Retention { until, ..Retention::default() }, ..at(6) },
    );
    let plain = plant(&bed, &app, &at(5)).id.to_string();
    // As many as have to be made after a time without any.
    let newest = [2, 1, 0].map(|days| plant(&bed, &app, &at(days)).id.to_string());
    bed.run(&["pin", &pinned, "--note", "the audit of 2026"]).done();
    bed.run(&["pin", &child.id.to_string()]).done();
    bed.run(&["note", &plain, "nothing \u{1b}[2J special"]).done();
    bed.run(&["note", &plain, &"long ".repeat(1000)]).failed(2, "longer than 4096");
    let long = bed.run(&["list", "--long"]);
    for said in [": the audit of 2026\n", ": nothing \\u{1b}[2J special\n"] {
        assert!(long.stdout.contains(said), "{said}: {long:?}");
    }
    bed.run(&["pin", "0"]).failed(2, "matches several");
    bed.run(&["pin", "ffffffff"]).failed(10, "no backup");
    // A run that failed freezes everything.
    planted::record(&bed, "nightly", now() - Duration::minutes(5), 16);
    let frozen = bed.json(&["cleanup"]);
    assert_eq!(with(&frozen, "remove").len(), 0, "{frozen}");
    assert!(frozen.to_string().contains("the last run of `nightly` ended with exit code 16"));
    planted::record(&bed, "nightly", now() - Duration::minutes(4), 0);
    let expected = [base.id, child.id, promised.id].map(|id| id.to_string());
    let expected: BTreeSet<String> = expected.into_iter().chain(newest).collect();
    bed.run(&["cleanup"]).done();
    let first: BTreeSet<String> = [pinned.clone()].into_iter().chain(expected.clone()).collect();
    assert_eq!(ids(&bed), first);
    bed.run(&["unpin", &pinned]).done();
    bed.run(&["unpin", &child.id.to_string()]).done();
    bed.run(&["pin", &child.id.to_string()]).done();
    bed.run(&["cleanup"]).done();
    assert_eq!(ids(&bed), expected);
    readable(&bed);
}

/// A backup of which a verification has found that it does not restore is none.
#[test]
fn damaged_backups_do_not_count() {
    let bed = bed("keep_last = 2, min_keep = 1, max_removed_percent = 100");
    let app = bed.app(None);
    let end = now() - Duration::hours(1);
    let full = |days| plant(&bed, &app, &Seed::at(end - Duration::days(days)));
    let (_older, good, base, newest) = (full(4), full(3), full(2), full(0));
    let child = plant(&bed, &app, &Seed::at(end - Duration::days(1)).built_on(&base));
    let manifest = bed.object(&base.id.to_string(), "manifest.json");
    let beside = manifest.to_str().unwrap().replace("manifest.json", "damaged-0001.json");
    fs::write(beside, "{}").unwrap();
    bed.run(&["cleanup"]).done();
    let stay = [&good, &base, &child, &newest].map(|one| one.id.to_string());
    assert_eq!(ids(&bed), BTreeSet::from(stay));
}

#[test]
fn a_source_that_shrank_or_stopped_loses_no_old_backups() {
    let bed = bed("keep_last = 1, min_keep = 1, max_removed_percent = 100");
    let app = bed.app(None);
    let end = now() - Duration::hours(1);
    for days in (1..6).rev() {
        plant(&bed, &app, &Seed { bytes: 10_000, ..Seed::at(end - Duration::days(days)) });
    }
    // Nothing for five days: frozen.
    let late = self::bed("keep_last = 1, min_keep = 1");
    let _made = daily(&late, 10, now() - Duration::days(5));
    let frozen = late.json(&["cleanup"]);
    assert!(frozen.to_string().contains("no recent backup"), "{frozen}");
    assert_eq!(ids(&late).len(), 10);
    plant(&bed, &app, &Seed { bytes: 10, ..Seed::at(end) });
    let odd = bed.json(&["cleanup"]);
    assert!(odd.to_string().contains("differs greatly in size from earlier ones"), "{odd}");
    assert_eq!(ids(&bed).len(), 6);
}

#[test]
fn orphans_are_removed_when_they_are_old() {
    let bed = bed("keep_all = true");
    let app = bed.app(None);
    let end = now();
    let old = plant(&bed, &app, &Seed::at(end - Duration::days(8)));
    let young = plant(&bed, &app, &Seed::at(end - Duration::days(6)));
    let whole = plant(&bed, &app, &Seed::at(end - Duration::days(9)));
    // Its job runs as it should: otherwise nothing is called old.
    (0..3).for_each(|day| drop(plant(&bed, &app, &Seed::at(end - Duration::days(day)))));
    for manifest in [&old, &young] {
        fs::remove_file(bed.path("store").join(manifest.name().manifest_key())).unwrap();
    }
    // Terms that ended long ago, records that nobody needs, somebody else's file.
    let term = |number: u32, days| {
        let key = bed.path("store/leases/books").join(format!("{number:020}"));
        fs::create_dir_all(key.parent().unwrap()).unwrap();
        let time =
            (end - Duration::days(days)).format(&time::format_description::well_known::Rfc3339);
        fs::write(key, format!("{{\"until\":\"{}\"}}", time.unwrap())).unwrap();
    };
    (1..=5).for_each(|number| term(number, 20 - 2 * i64::from(number)));
    planted::record(&bed, "nightly", end - Duration::days(500), 0);
    planted::record(&bed, "nightly", end - Duration::days(100), 0);
    // The only good run of a job, however old, says that it ran.
    planted::record(&bed, "yearly", end - Duration::days(600), 0);
    planted::record(&bed, "yearly", end - Duration::days(500), 16);
    fs::write(bed.path("store/readme.txt"), "not of bkp").unwrap();
    let report = bed.json(&["cleanup"]);
    let items = report["stores"][0]["items"].as_array().unwrap();
    let gone = |what: &str| {
        items.iter().filter(|item| item["what"] == what && item["action"] == "remove").count()
    };
    assert_eq!((gone("orphan"), gone("lease"), gone("record"), gone("backup")), (1, 4, 2, 0));
    let mut yearly = bed.stored();
    yearly.retain(|path| path.starts_with(bed.path("store/runs/yearly")));
    assert!(yearly.len() == 1 && yearly[0].to_str().unwrap().ends_with("-0-1.json"), "{yearly:?}");
    let exists = |key: &str| bed.path("store").join(key).exists();
    assert!(!exists(&old.objects[0].key) && exists(&young.objects[0].key));
    assert!(exists(&whole.objects[0].key) && exists("readme.txt"));
}

/// Stops a cleanup at every call to its store, one after the other, before and after the call takes
/// effect: what is listed is whole, and the next cleanup ends where one that was not stopped does.
#[test]
fn stopped_anywhere_it_leaves_only_whole_backups() {
    let bed = bed("keep_last = 2, min_keep = 1, max_removed_percent = 100");
    let _made = daily(&bed, 11, now() - Duration::hours(1));
    let copy = |from: &str, to: &str| {
        let _fresh = fs::remove_dir_all(bed.path(to));
        let words = ["-a", bed.path(from).to_str().unwrap(), bed.path(to).to_str().unwrap()]
            .map(str::to_owned);
        assert!(Command::new("cp").args(words).status().unwrap().success());
    };
    copy("store", "before");
    // Another test of this process that starts a program holds every lock for a moment.
    let patience = StdDuration::from_mins(1);
    let options = cleanup::Options { dry_run: false, patience };
    cleanup::run(&bed.app(None), &options).unwrap();
    let expected = ids(&bed);
    assert_eq!(expected.len(), 4, "two, and what they build on");
    let failures = [Effect::Before(Failure::Permanent), Effect::After(Failure::Permanent)];
    for effect in failures {
        for nth in 0.. {
            copy("before", "store");
            let plan = FaultPlan::new(vec![PlannedFault::nth(nth, effect)]);
            let stopped = cleanup::run(&bed.app(Some(plan.clone())), &options);
            let all = verify::Options {
                which: verify::VerifyTarget::All(None),
                from_export: false,
                thaw: None,
                level: bkp::domain::verify_level::VerifyLevel::Digest,
                scratch: None,
            };
            let whole = verify::run(&bed.app(None), &all).unwrap();
            assert_eq!(whole.outcome, None, "{effect:?} {nth}: {}", whole.text);
            if plan.unfired().is_empty() {
                assert!(
                    stopped.as_ref().map_or(true, |report| report.outcome.is_some()
                        || report.value["stores"][0]["removed"] == 7),
                    "{effect:?} {nth}: a failure that nobody is told of"
                );
            }
            cleanup::run(&bed.app(None), &options).unwrap();
            assert_eq!(ids(&bed), expected, "{effect:?} {nth}");
            let stored = bed.stored();
            let left = stored.iter().filter(|path| path.starts_with(bed.path("store/tigerbeetle")));
            assert_eq!(left.count(), 2 * expected.len(), "{effect:?} {nth}: something is left");
            if !plan.unfired().is_empty() {
                assert!(nth > 30, "only {nth} calls");
                break;
            }
        }
    }
}

/// The same with the real program and SIGKILL, as soon as a number of files has gone.
#[test]
fn killed_anywhere_it_leaves_only_whole_backups() {
    let bed = bed("keep_last = 1, min_keep = 1, max_removed_percent = 100");
    // Killed in the last chain, a cleanup leaves a week without a backup, after which nothing would be removed.
    let config = fs::read_to_string(bed.path("bkp.toml")).unwrap();
    assert!(config.contains("\nretention ="), "{config}");
    let config = config.replace("\nretention =", "\ncritical_after = \"60d\"\nretention =");
    fs::write(bed.path("bkp.toml"), config).unwrap();
    let files = || {
        bed.stored().iter().filter(|path| path.starts_with(bed.path("store/tigerbeetle"))).count()
    };
    let (mut kills, mut newest) = (0, String::new());
    // On a busy machine a cleanup may be done before anybody sees that something has gone.
    for _ in 0..20 {
        let made = daily(&bed, 29, now() - Duration::hours(1));
        newest = made.last().unwrap().id.to_string();
        for gone in [1, 2, 3, 5, 8, 13, 21, 34] {
            let before = files();
            let mut child = bed
                .command(&["cleanup", "-q"])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            while child.try_wait().unwrap().is_none() && files() + gone > before {
                std::thread::yield_now();
            }
            if child.try_wait().unwrap().is_none() {
                kill_process(Pid::from_child(&child), Signal::KILL).unwrap();
                kills += 1;
            }
            let _ended = child.wait().unwrap();
            assert!(ids(&bed).contains(&newest));
            readable(&bed);
        }
        if kills > 0 {
            break;
        }
    }
    assert!(kills > 0, "it was never killed at work");
    let last = bed.run(&["cleanup", "--wait-lock", "1m"]).done();
    assert_eq!(ids(&bed), BTreeSet::from([newest]), "{}{}", last.stdout, last.stderr);
    assert_eq!(files(), 2);
}

#[test]
fn a_second_cleanup_is_busy() {
    let bed = bed("keep_all = true");
    let _made = daily(&bed, 1, now());
    let lock = bed.path("state/locks/cleanup.all.lock");
    fs::create_dir_all(lock.parent().unwrap()).unwrap();
    let held = fs::File::create(&lock).unwrap();
    rustix::fs::flock(&held, rustix::fs::FlockOperation::LockExclusive).unwrap();
    bed.run(&["cleanup"]).failed(11, "is already running");
    bed.run(&["cleanup", "--dry-run"]).done();
    let waiting =
        bed.command(&["cleanup", "--wait-lock", "5m"]).stdout(Stdio::piped()).spawn().unwrap();
    std::thread::park_timeout(StdDuration::from_millis(200));
    drop(held);
    assert_eq!(crate::support::bed::Run::of(&waiting.wait_with_output().unwrap()).code, Some(0));
}

#[test]
fn the_ledger_knows_every_deletion() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("books.tigerbeetle");
    tb::format(&file, 0, 1);
    let server = tb::Server::solo(folder.path());
    let bed = Bed::new(&file, "");
    add_job(&bed, "keep_last = 1, min_keep = 1, max_removed_percent = 100");
    bed.set_ledger(server.address(), "2m", "");
    let taken: Vec<String> = (0..4).map(|_| bed.snapshot("full")).collect();
    bed.run(&["verify", "--ledger"]).done();
    // A ledger that is away keeps no cleanup from its work; what it has to learn waits.
    bed.set_ledger("127.0.0.1:9", "2m", "deadline = \"1s\"");
    bed.run(&["pin", &taken[1]]).done();
    let away = bed.run(&["cleanup", "--json"]);
    assert_eq!(away.code, Some(17), "{}{}", away.stdout, away.stderr);
    assert_eq!(ids(&bed), [&taken[1], &taken[3]].into_iter().cloned().collect());
    bed.set_ledger(server.address(), "2m", "");
    bed.run(&["cleanup"]).done();
    bed.run(&["verify", "--ledger"]).done();
    bed.run(&["unpin", &taken[1]]).done();
    bed.run(&["cleanup"]).done();
    bed.run(&["verify", "--ledger"]).done();
    let events = bed.json(&["list", "--from-ledger"]);
    let deleted = events["events"].as_array().unwrap().iter();
    let deleted: Vec<&str> = deleted
        .filter(|event| event["status"] == "deleted")
        .map(|event| event["id"].as_str().unwrap())
        .collect();
    assert_eq!(deleted.len(), 3, "{events}");
    assert!(taken[..3].iter().all(|id| deleted.contains(&id.as_str())));
}

#[test]
fn in_a_bucket_what_is_locked_is_retained_and_versions_and_uploads_go() {
    let bed = bed("keep_last = 1, min_keep = 1, max_removed_percent = 100");
    let bucket = "cleanup-locked";
    let headers = ["x-amz-bucket-object-lock-enabled: true"];
    usual().ask("PUT", &format!("/{bucket}"), &headers).done();
    bed.store_is(&usual().table_at(&usual().endpoint(), bucket, ""));
    let app = bed.app(None);
    let store = app.store_append("main").unwrap();
    let end = now() - Duration::hours(1);
    let plant = |days| planted::plant_in(&*store, &app, &Seed::at(end - Duration::days(days)));
    let (locked, plain, newest) = (plant(3), plant(2), plant(0));
    let url = store.url().split('?').next().unwrap();
    let prefix = url.split_once(bucket).unwrap().1.to_owned();
    let path = format!("/{bucket}{prefix}/{}?retention", locked.objects[0].key);
    let until = (now() + Duration::days(9)).format(&time::format_description::well_known::Rfc3339);
    let body = format!(
        "<Retention><Mode>GOVERNANCE</Mode><RetainUntilDate>{}</RetainUntilDate></Retention>",
        until.unwrap()
    );
    usual().send("PUT", &path, &[], &body).done();
    // A manifest that was written twice: removing the newest version brings the other one to light.
    let manifest = format!("/{bucket}{prefix}/{}", plain.name().manifest_key());
    let text = usual().ask("GET", &manifest, &[]).body().to_owned();
    usual().send("PUT", &manifest, &[], &text).done();
    // An upload that nobody finished, of bkp's and of somebody else's.
    let ours = format!("/{bucket}{prefix}/{}x", plain.objects[0].key);
    usual().send("POST", &format!("{ours}?uploads"), &[], "").done();
    let theirs = format!("/{bucket}{prefix}/tigerbeetle/somebody.bin?uploads");
    usual().send("POST", &theirs, &[], "").done();
    let report = bed.json(&["cleanup"]);
    assert_eq!(with(&report, "retain"), BTreeSet::from([locked.id.to_string()]), "{report}");
    assert!(report.to_string().contains("held until"), "{report}");
    assert_eq!(ids(&bed), [locked.id, newest.id].map(|id| id.to_string()).into());
    // Of the removed one not even a version is left.
    let versions = usual().ask("GET", &format!("/{bucket}?versions"), &[]);
    let gone = versions.body();
    assert!(!gone.contains(&plain.objects[0].key), "{gone}");
    assert!(!gone.contains(&plain.name().manifest_key()), "{gone}");
    // Only what is old counts as unfinished, and only what bkp would have begun.
    let prune = app.store_prune("main").unwrap();
    assert_eq!(prune.unfinished(now() - Duration::hours(1)).unwrap(), []);
    let found = prune.unfinished(now() + Duration::hours(1)).unwrap();
    let keys: Vec<&str> = found.iter().map(|upload| upload.key.as_str()).collect();
    assert_eq!(keys, [format!("{}x", plain.objects[0].key)]);
    for upload in &found {
        prune.abort(upload).unwrap();
    }
    assert_eq!(prune.unfinished(now() + Duration::hours(1)).unwrap(), []);
}

#[test]
fn a_long_history_is_shown_in_parts() {
    let bed = bed("keep_all = true");
    let end = now();
    let made = daily(&bed, 20, end);
    let listed = |words: &[&str]| -> Vec<String> {
        let report = bed.json(&[&["list"], words].concat());
        let backups = report["backups"].as_array().unwrap().iter();
        backups.map(|backup| backup["id"].as_str().unwrap().to_owned()).collect()
    };
    let ids = |range: std::ops::Range<usize>| -> Vec<String> {
        made[range].iter().map(|manifest| manifest.id.to_string()).collect()
    };
    let newest: Vec<String> = ids(17..20).into_iter().rev().collect();
    assert_eq!(listed(&["--limit", "3"]), newest);
    assert_eq!(
        listed(&["--scope", "full"]),
        [&made[0], &made[7], &made[14]].map(|m| m.id.to_string())
    );
    let time = |days: i64| {
        let at = end - Duration::days(days);
        at.format(&time::format_description::well_known::Rfc3339).unwrap()
    };
    assert_eq!(listed(&["--since", &time(4), "--until", &time(2)]), ids(15..17));
    bed.run(&["pin", &made[5].id.to_string()]).done();
    assert_eq!(listed(&["--pinned"]), ids(5..6));
    assert_eq!(listed(&["--type", "duckdb"]).len(), 0);
    assert_eq!(bed.run(&["list", "--since", "yesterday"]).code, Some(2));
    // What was seen last is said without the store, and when that was.
    bed.run(&["list", "--cached", "--store", &format!("file://{}", bed.path("state").display())])
        .failed(10, "has not fully listed");
    bed.run(&["list"]).done();
    fs::rename(bed.path("store"), bed.path("away")).unwrap();
    fs::create_dir(bed.path("store")).unwrap();
    assert_eq!(listed(&["--cached", "--limit", "3"]), newest);
    assert!(bed.json(&["list", "--cached"])["as_of"].is_string());
    assert_eq!(listed(&[]).len(), 0);
}

/// Two sources of one name in one store: retention weighs what each has made against the rest of its own,
/// and says that they share a name.
#[test]
fn each_of_two_sources_of_one_name_keeps_its_own() {
    let bed = bed("keep_last = 2, min_keep = 1, max_removed_percent = 100");
    let app = bed.app(None);
    let at = |hours| Seed::at(now() - Duration::hours(hours));
    let mine: Vec<Manifest> = [6, 5, 4].map(|hours| plant(&bed, &app, &at(hours))).to_vec();
    let other = [3, 2, 1].map(|hours| plant(&bed, &app, &at(hours).of_another()));
    let run = bed.run(&["cleanup", "--dry-run", "--json"]).done();
    let report = serde_json::from_str(&run.stdout).unwrap();
    let oldest = [&mine[0], &other[0]].map(|manifest| manifest.id.to_string());
    assert_eq!(with(&report, "remove"), BTreeSet::from(oldest));
    assert!(run.stderr.contains("cluster another"), "{}", run.stderr);
}
