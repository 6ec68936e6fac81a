//! Cleanup concurrent with everything else: runs that build on what it removes, pins, clocks that are
//! wrong, stores that fail, people who can write to the bucket.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration as StdDuration;

use bkp::cmd::snapshot;
use bkp::cmd::{cleanup, pin};
use bkp::ctx::{Cancel, Ctx, Monitor};
use bkp::domain::backup_kind::BackupKind;
use bkp::domain::event::Event;
use bkp::domain::manifest::Manifest;
use bkp::domain::names::{BackupType, Scope};
use bkp::error::{Kind, diagnose};
use bkp::keys::DataKey;
use bkp::ops::annotations::AnnotationKind;
use bkp::ops::run_guard::RunGuard;
use bkp::wire::AppContext;
use serde_json::Value;
use sha2::Digest as _;
use time::{Duration, OffsetDateTime};

use crate::support::bed::{Bed, Run};
use crate::support::cleanup::{add_job, bed, daily, ids, readable, with};
use crate::support::fault::{Effect, Failure, FaultPlan, PlannedFault};
use crate::support::planted::{self, Seed, now, plant};
use crate::support::tb;
use crate::support::trace::Operation;

const LAST: &str = "keep_last = 1, min_keep = 1, max_removed_percent = 100";
const OPTIONS: cleanup::Options =
    cleanup::Options { dry_run: false, patience: StdDuration::from_mins(1) };

type Act = Box<dyn FnOnce() + Send>;

/// Does something when a run begins its work: after it has chosen what to build on, before it reads the
/// source.
struct Gate(Mutex<Option<Act>>);

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gate")
    }
}

impl Monitor for Gate {
    fn begin(&self, _what: &str, _total: Option<u64>) {
        let act = self.0.lock().unwrap().take();
        if let Some(act) = act {
            act();
        }
    }
    fn advance(&self, _bytes: u64) {}
    fn warn(&self, _message: &str) {}
    fn detail(&self, _message: &str) {}
    fn end(&self) {}
}

fn gated(bed: &Bed, act: Act) -> AppContext {
    let ctx = Ctx::new(Cancel::default(), Arc::new(Gate(Mutex::new(Some(act)))));
    AppContext { ctx, ..bed.app(None) }
}

/// A bed whose source is a data file that nobody writes, and that goes to these stores.
fn still(folder: &Path, stores: &[&str]) -> Bed {
    let file = folder.join("books.tigerbeetle");
    tb::format(&file, 0, 1);
    let bed = Bed::new(&file, "");
    let config = fs::read_to_string(bed.path("bkp.toml")).unwrap();
    let kind = "kind = \"tigerbeetle\"\n";
    let mut config = config.replace(kind, &format!("{kind}store = {stores:?}\n"));
    for store in stores.iter().filter(|store| **store != "main") {
        fs::create_dir(bed.path(store)).unwrap();
        let url = bed.path(store).display().to_string();
        config += &["[store.", store, "]\nurl = \"file://", &url, "\"\n"].concat();
    }
    fs::write(bed.path("bkp.toml"), config).unwrap();
    add_job(&bed, LAST);
    bed
}

fn incremental() -> snapshot::Options {
    let scope = Some(Scope::Incremental);
    let source = "books".to_owned();
    snapshot::Options { kind: BackupKind::Snapshot, source, scope, mode: None, dry_run: false }
}

/// Makes newer full backups than those that are there, so that no rule keeps these any more. A clock
/// that is ahead does that.
fn outdate(bed: &Bed, store: &str) {
    let app = bed.app(None);
    let store = app.store_append(store).unwrap();
    let later = now() + Duration::seconds(1);
    planted::plant_in(&*store, &app, &Seed::at(later));
    while now() <= later {
        std::thread::park_timeout(StdDuration::from_millis(20));
    }
}

fn in_store(bed: &Bed, store: &str) -> BTreeSet<String> {
    let listing = bed.json(&["list", "--store", store]);
    let backups = listing["backups"].as_array().unwrap().iter();
    backups.map(|backup| backup["id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn the_chain_of_a_run_in_progress_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let bed = Arc::new(still(folder.path(), &["main"]));
    let (full, step) = (bed.snapshot("full"), bed.snapshot("incremental"));
    let inside = Arc::clone(&bed);
    let act = move || {
        outdate(&inside, "main");
        let report = inside.json(&["cleanup"]);
        assert_eq!(report["stores"][0]["removed"], 0, "{report}");
        assert!(report.to_string().contains("a run is in progress: process"), "{report}");
        let marks = inside.stored().into_iter();
        assert_eq!(marks.filter(|path| path.ends_with("deleting.json")).count(), 0);
    };
    let app = gated(&bed, Box::new(act));
    let report = snapshot::run(&app, &incremental()).unwrap();
    assert_eq!(report.value["manifest"]["parent"], step.as_str());
    assert!(ids(&bed).is_superset(&[full, step].into()));
    bed.run(&["verify", "--id", report.value["manifest"]["id"].as_str().unwrap()]).done();
}

/// Whoever cleans up does not see the lease: its clock is far away, say. Then the run finds out.
#[test]
fn a_run_whose_chain_was_removed_makes_no_backup() {
    let folder = tempfile::tempdir().unwrap();
    let bed = Arc::new(still(folder.path(), &["main"]));
    let taken = [bed.snapshot("full"), bed.snapshot("incremental")];
    let inside = Arc::clone(&bed);
    let act = move || {
        outdate(&inside, "main");
        fs::remove_dir_all(inside.path("store/leases/books")).unwrap();
        let report = inside.json(&["cleanup"]);
        assert_eq!(with(&report, "remove"), taken.into(), "{report}");
    };
    let app = gated(&bed, Box::new(act));
    let error = snapshot::run(&app, &incremental()).unwrap_err();
    assert!(format!("{error:#}").contains("was removed while it was being made"), "{error:#}");
    assert_eq!(diagnose(&error).kind, Kind::Integrity);
    assert_eq!(ids(&bed).len(), 1, "only what was planted");
}

#[test]
fn of_two_stores_the_one_that_lost_the_chain_gets_no_backup() {
    let folder = tempfile::tempdir().unwrap();
    let bed = Arc::new(still(folder.path(), &["main", "second"]));
    let taken = [bed.snapshot("full"), bed.snapshot("incremental")];
    let (inside, gone) = (Arc::clone(&bed), taken.clone());
    let act = move || {
        outdate(&inside, "main");
        fs::remove_dir_all(inside.path("store/leases/books")).unwrap();
        let report = inside.json(&["cleanup", "--store", "main"]);
        assert_eq!(with(&report, "remove"), gone.into(), "{report}");
    };
    let app = gated(&bed, Box::new(act));
    let report = snapshot::run(&app, &incremental()).unwrap();
    assert_eq!(report.outcome, Some(Kind::Partial), "{}", report.text);
    let id = report.value["manifest"]["id"].as_str().unwrap();
    assert!(!in_store(&bed, "main").contains(id), "it builds on what is not there");
    bed.run(&["verify", "--id", id, "--store", "second"]).done();
}

/// A chain of which a link is marked, and still there, is not built on; one of two stores goes on.
#[test]
fn a_run_that_finds_the_mark_of_a_removal_makes_no_backup() {
    let folder = tempfile::tempdir().unwrap();
    let bed = Arc::new(still(folder.path(), &["main"]));
    let base = bed.snapshot("full");
    let mark = bed.object(&base, "manifest.json");
    let mark = PathBuf::from(mark.to_str().unwrap().replace("manifest.json", "deleting.json"));
    let at = mark.clone();
    let app = gated(&bed, Box::new(move || fs::write(at, "{}").unwrap()));
    let error = snapshot::run(&app, &incremental()).unwrap_err();
    assert!(format!("{error:#}").contains("was removed while it was being made"), "{error:#}");
    // The next one does not choose it, and the next cleanup, which keeps it, takes the mark away.
    let next = bed.json(&["snapshot", "books"]);
    assert_eq!(next["manifest"]["scope"], "full", "{next}");
    bed.run(&["pin", &base]).failed(14, "has begun to remove");
    bed.run(&["cleanup"]).done();
    assert!(!mark.exists() && ids(&bed).contains(&base));
    bed.run(&["pin", &base]).done();
}

/// Objects of a run that began by a clock that was far behind look old; the lease, and at last the run
/// itself, see to it that nothing incomplete becomes visible.
#[test]
fn objects_of_a_run_in_progress_are_not_orphans() {
    let bed = bed("keep_all = true");
    let app = bed.app(None);
    let mirrored = app.stores_append(None).unwrap();
    let run = RunGuard::begin(&app, "books", BackupType::Tigerbeetle, &mirrored).unwrap();
    let manifest = plant(&bed, &app, &Seed::at(now() - Duration::days(30)));
    let at = bed.path("store").join(manifest.name().manifest_key());
    fs::remove_file(&at).unwrap();
    let object = bed.path("store").join(&manifest.objects[0].key);
    let report = bed.json(&["cleanup"]);
    assert!(report.to_string().contains("a run is in progress"), "{report}");
    assert!(object.exists());
    fs::remove_dir_all(bed.path("store/leases/books")).unwrap();
    assert_eq!(bed.json(&["cleanup"])["stores"][0]["removed"], 1);
    assert!(!object.exists());
    let error = run.publish(manifest, (&DataKey::generate().unwrap(), None), &[]).unwrap_err();
    assert!(format!("{error:#}").contains("was removed: cleanup mistook it"), "{error:#}");
    assert!(!at.exists());
}

#[test]
fn a_mark_beside_a_young_upload_is_not_believed() {
    let bed = bed("keep_all = true");
    let app = bed.app(None);
    let [young, old] = [3, 30].map(|hours| {
        let manifest = plant(&bed, &app, &Seed::at(now() - Duration::hours(hours)));
        let key = manifest.name().key("deleting.json");
        fs::write(bed.path("store").join(key), "{}").unwrap();
        fs::remove_file(bed.path("store").join(manifest.name().manifest_key())).unwrap();
        bed.path("store").join(&manifest.objects[0].key)
    });
    bed.run(&["cleanup"]).done();
    assert!(young.exists() && !old.exists());
}

/// Where the clock of [`a_pin_at_the_last_moment_holds`] puts a pin, and when: once cleanup has decided.
static PIN: OnceLock<(PathBuf, PathBuf)> = OnceLock::new();

fn pinning_clock() -> OffsetDateTime {
    let (pin, cache) = PIN.get().unwrap();
    if fs::read_dir(cache).is_ok_and(|mut items| items.next().is_some()) {
        fs::write(pin, "{}").unwrap();
    }
    now()
}

#[test]
fn a_pin_at_the_last_moment_holds() {
    let bed = bed(LAST);
    let made = daily(&bed, 8, now() - Duration::hours(1));
    let name = made[0].name();
    let pin = bed.path("store").join(name.key("pin-0001.json"));
    PIN.set((pin, bed.path("state/cache"))).unwrap();
    let mut app = bed.app(None);
    app.ctx = Ctx::fixed(pinning_clock);
    // The first one builds on nothing; what builds on it goes first.
    let report = cleanup::run(&app, &OPTIONS).unwrap();
    assert!(report.value.to_string().contains("\"reason\":\"pinned\""), "{}", report.value);
    let left = [&made[0], &made[7]].map(|manifest| manifest.id.to_string());
    assert_eq!(ids(&bed), left.into(), "{}", report.text);
    let marks =
        bed.stored().into_iter().filter(|path| path.to_str().unwrap().ends_with("deleting.json"));
    assert_eq!(marks.count(), 0);
    readable(&bed);
}

#[test]
fn a_pin_reaches_the_stores_that_answer_and_says_which_do_not() {
    let folder = tempfile::tempdir().unwrap();
    let bed = still(folder.path(), &["main", "second"]);
    let id = bed.snapshot("full");
    fs::rename(bed.path("store"), bed.path("away")).unwrap();
    let words = ["pin", &id];
    bed.run(&words).failed_in_text(3, "NOT pinned in");
    let pinned = bed.json(&["list", "--store", "second", "--pinned"]);
    assert_eq!(pinned["backups"].as_array().unwrap().len(), 1);
}

#[test]
fn notes_that_are_written_at_once_are_all_there() {
    let bed = bed("keep_all = true");
    let id = plant(&bed, &bed.app(None), &Seed::at(now())).id.to_string();
    let writers: Vec<_> = (0..8)
        .map(|number| {
            let text = format!("note {number}");
            let words = ["note", &id, &text];
            bed.command(&words).stdout(Stdio::null()).spawn().unwrap()
        })
        .collect();
    for writer in writers {
        Run::of(&writer.wait_with_output().unwrap()).done();
    }
    let mut notes = bed.stored();
    notes.retain(|path| path.to_str().unwrap().contains(".note-"));
    let texts: BTreeSet<String> = notes
        .iter()
        .map(|path| {
            let stored: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
            stored["note"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(texts, (0..8).map(|number| format!("note {number}")).collect());
}

/// Whoever can only add to the store must not be able to have anything removed.
#[test]
fn forged_backups_count_for_nothing() {
    let bed = bed("keep_last = 3, min_keep = 1, max_removed_percent = 100");
    let app = bed.app(None);
    let end = now() - Duration::hours(5);
    let real = daily(&bed, 5, end);
    for hour in 1..4 {
        let forged = plant(&bed, &app, &Seed::at(end + Duration::hours(hour)));
        let path = bed.path("store").join(forged.name().manifest_key());
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replace("\"planted\"", "\"plantex\"")).unwrap();
    }
    // And one of nothing at all, by somebody who has a key.
    let empty = plant(&bed, &app, &Seed { bytes: 0, ..Seed::at(end + Duration::hours(4)) });
    let report = bed.json(&["cleanup"]);
    assert!(report.to_string().contains("not authenticated by any key"), "{report}");
    let left = ids(&bed);
    let real: Vec<String> = real.iter().map(|manifest| manifest.id.to_string()).collect();
    assert!(real.iter().all(|id| left.contains(id)), "the last three, and their chain: {report}");
    let of_empty = report["stores"][0]["items"].as_array().unwrap().iter();
    let mut of_empty = of_empty.filter(|item| item["id"] == empty.id.to_string().as_str());
    assert!(of_empty.any(|item| item["reason"].as_str().unwrap().starts_with("damaged")));
    // What was found is remembered, and found again where the memory is lost.
    fs::remove_dir_all(bed.path("state/cache")).unwrap();
    assert_eq!(bed.json(&["cleanup"])["stores"][0]["removed"], 0);
    // A host that has lost its key believes nothing, and removes nothing.
    fs::remove_dir_all(bed.path("state/cache")).unwrap();
    fs::rename(bed.path("key"), bed.path("key.away")).unwrap();
    let lost = bed.run(&["cleanup", "--json"]).done();
    assert!(lost.stderr.contains("continuing without a key"), "{}", lost.stderr);
    let report: Value = serde_json::from_str(&lost.stdout).unwrap();
    assert_eq!(report["stores"][0]["removed"], 0, "{report}");
    fs::rename(bed.path("key.away"), bed.path("key")).unwrap();
    // A host without a key says that it cannot tell.
    let config = fs::read_to_string(bed.path("bkp.toml")).unwrap();
    fs::write(bed.path("bkp.toml"), config.replace("[\"file:key\"]", "[]")).unwrap();
    fs::remove_dir_all(bed.path("state/cache")).unwrap();
    let blind = bed.run(&["cleanup", "--dry-run"]).done();
    assert!(blind.stderr.contains("every manifest is taken as authentic"), "{}", blind.stderr);
}

#[test]
fn a_verification_that_found_damage_freezes_its_source() {
    let bed = bed(LAST);
    let config = fs::read_to_string(bed.path("bkp.toml")).unwrap();
    let job = "[job.check]\nrun = \"verify\"\nsource = \"books\"\n";
    fs::write(bed.path("bkp.toml"), config + job).unwrap();
    let _made = daily(&bed, 9, now() - Duration::hours(1));
    planted::record(&bed, "check", now() - Duration::minutes(9), 13);
    let report = bed.json(&["cleanup"]);
    assert!(report.to_string().contains("the last run of `check` found damage"), "{report}");
    assert_eq!(ids(&bed).len(), 9);
    // What is dated in the future is not its last run.
    planted::record(&bed, "check", now() + Duration::days(9), 0);
    bed.run(&["cleanup"]).done();
    assert_eq!(ids(&bed).len(), 9);
    planted::record(&bed, "check", now() - Duration::minutes(1), 0);
    bed.run(&["cleanup"]).done();
    assert!(ids(&bed).len() < 9);
}

/// A clock that is years ahead, and the first backups that are made by it.
#[test]
fn a_clock_that_jumped_makes_nothing_old() {
    let bed = bed(LAST);
    let app = bed.app(None);
    let before = now() - Duration::days(400);
    let _made = daily(&bed, 10, before);
    let orphan = plant(&bed, &app, &Seed::at(before));
    fs::remove_file(bed.path("store").join(orphan.name().manifest_key())).unwrap();
    planted::record(&bed, "nightly", before - Duration::days(100), 0);
    planted::record(&bed, "nightly", now() - Duration::hours(2), 0);
    plant(&bed, &app, &Seed::at(now() - Duration::hours(1)));
    let files = bed.stored().len();
    let report = bed.json(&["cleanup"]);
    assert_eq!(report["stores"][0]["removed"], 0, "{report}");
    assert!(report.to_string().contains("too few backups since"), "{report}");
    assert_eq!(bed.stored().len(), files);
}

/// One backup that cannot be removed keeps what it builds on, and nothing else.
#[test]
fn a_backup_that_cannot_be_removed_does_not_keep_others() {
    let bed = bed(LAST);
    let made = daily(&bed, 22, now() - Duration::hours(1));
    let stuck = made[10].name().manifest_key();
    let fault = PlannedFault::nth(0, Effect::Before(Failure::Permanent)).of(Operation::Delete);
    let plan = FaultPlan::new(vec![fault.at(&stuck)]);
    let report = cleanup::run(&bed.app(Some(plan)), &OPTIONS).unwrap();
    assert_eq!(report.outcome, Some(Kind::Store), "{}", report.text);
    let left: BTreeSet<String> = [7, 8, 9, 10, 21].map(|at: usize| made[at].id.to_string()).into();
    assert_eq!(ids(&bed), left);
    readable(&bed);
}

/// A store in which cleanup could not take its lease is left alone.
#[test]
fn a_store_without_its_lease_is_not_cleaned_up() {
    let folder = tempfile::tempdir().unwrap();
    let bed = still(folder.path(), &["main", "second"]);
    let app = bed.app(None);
    for store in ["main", "second"] {
        let store = app.store_append(store).unwrap();
        for day in 0..3 {
            planted::plant_in(&*store, &app, &Seed::at(now() - Duration::days(day + 1)));
        }
    }
    fs::write(bed.path("second/leases"), "in the way").unwrap();
    let run = bed.run(&["cleanup", "--json"]);
    assert_eq!(run.code, Some(3), "{}{}", run.stdout, run.stderr);
    assert!(run.stdout.contains("could not take the lease of store"), "{}", run.stdout);
    assert_eq!((in_store(&bed, "main").len(), in_store(&bed, "second").len()), (1, 3));
}

/// A bed with a ledger that knows every backup that is planted.
struct Known {
    bed: Bed,
    server: tb::Server,
    _folder: tempfile::TempDir,
}

impl Known {
    fn new() -> Known {
        let folder = tempfile::tempdir().unwrap();
        let server = tb::Server::solo(folder.path());
        let bed = bed(LAST);
        bed.set_ledger(server.address(), "2m", "");
        Known { bed, server, _folder: folder }
    }

    fn plant(&self, app: &AppContext, at: OffsetDateTime) -> Manifest {
        let manifest = plant(&self.bed, app, &Seed::at(at));
        let file = fs::read(self.bed.path("store").join(manifest.name().manifest_key())).unwrap();
        let sha256 = sha2::Sha256::digest(&file).into();
        app.ledger().unwrap().record(&Event::completed(&manifest, &sha256)).unwrap();
        manifest
    }

    fn deleted(&self) -> BTreeSet<String> {
        let events = self.bed.json(&["list", "--from-ledger"]);
        let events = events["events"].as_array().unwrap().iter();
        let deleted = events.filter(|event| event["status"] == "deleted");
        deleted.map(|event| event["id"].as_str().unwrap().to_owned()).collect()
    }
}

/// Stops a cleanup at every call to its store; whatever became of it, the ledger learns of the deletion,
/// and of no other.
#[test]
fn a_cleanup_stopped_anywhere_reports_every_deletion_to_the_ledger() {
    let known = Known::new();
    let (bed, app) = (&known.bed, known.bed.app(None));
    let begin = now() - Duration::hours(10);
    let mut last = known.plant(&app, begin);
    let (mut removed, mut minutes) = (BTreeSet::new(), 0);
    for effect in [Effect::Before(Failure::Permanent), Effect::After(Failure::Permanent)] {
        for nth in 0.. {
            minutes += 1;
            let next = known.plant(&app, begin + Duration::minutes(minutes));
            removed.insert(std::mem::replace(&mut last, next).id.to_string());
            let plan = FaultPlan::new(vec![PlannedFault::nth(nth, effect)]);
            let _stopped = cleanup::run(&bed.app(Some(plan.clone())), &OPTIONS);
            cleanup::run(&bed.app(None), &OPTIONS).unwrap();
            assert_eq!(ids(bed), [last.id.to_string()].into(), "{effect:?} {nth}");
            if !plan.unfired().is_empty() {
                assert!(nth > 5, "only {nth} calls");
                break;
            }
        }
        bed.run(&["verify", "--ledger"]).done();
    }
    assert_eq!(known.deleted(), removed);
}

/// A container that keeps no state dies between the removal and the ledger: the store knows.
#[test]
fn another_host_reports_a_deletion_to_the_ledger() {
    let known = Known::new();
    let (bed, app) = (&known.bed, known.bed.app(None));
    let end = now() - Duration::hours(1);
    let made: Vec<Manifest> =
        (0..4).map(|day| known.plant(&app, end - Duration::days(3 - day))).collect();
    bed.set_ledger("127.0.0.1:9", "2m", "deadline = \"1s\"");
    let away = bed.run(&["cleanup"]);
    assert_eq!(away.code, Some(17), "{}{}", away.stdout, away.stderr);
    fs::remove_dir_all(bed.path("state")).unwrap();
    bed.set_ledger(known.server.address(), "2m", "");
    bed.run(&["cleanup"]).done();
    let gone: BTreeSet<String> = made[..3].iter().map(|one| one.id.to_string()).collect();
    assert_eq!(known.deleted(), gone);
    bed.run(&["verify", "--ledger"]).done();
    // Somebody who removes a backup cannot make bkp say that it did: what he writes is not authentic.
    let note = bed.noted("deleted")[0].clone();
    let victim = known.plant(&app, now() - Duration::minutes(9));
    let newest = known.plant(&app, now() - Duration::minutes(8));
    for key in [victim.name().manifest_key(), victim.objects[0].key.clone()] {
        fs::remove_file(bed.path("store").join(key)).unwrap();
    }
    let text = fs::read_to_string(&note).unwrap();
    let id = text.split("\"backup\":\"").nth(1).unwrap()[..36].to_owned();
    let forged = note.to_str().unwrap().replace(&id, &victim.id.to_string());
    fs::write(forged, text.replace(&id, &victim.id.to_string())).unwrap();
    let warned = bed.run(&["cleanup"]);
    assert!(warned.stderr.contains("not reported to the ledger"), "{}", warned.stderr);
    assert!(!known.deleted().contains(&victim.id.to_string()));
    assert_eq!(bed.run(&["verify", "--ledger"]).code, Some(13));
    assert!(ids(bed).contains(&newest.id.to_string()));
}

#[test]
fn a_pin_that_cannot_check_for_a_removal_fails() {
    let bed = bed("keep_all = true");
    let id = plant(&bed, &bed.app(None), &Seed::at(now())).id.to_string();
    let options = pin::Options { id, word: AnnotationKind::Pin, note: None, dry_run: false };
    let fault = PlannedFault::nth(0, Effect::Before(Failure::Permanent)).of(Operation::Head);
    let app = bed.app(Some(FaultPlan::new(vec![fault.at("deleting.json")])));
    assert_eq!(diagnose(&pin::run(&app, &options).unwrap_err()).kind, Kind::Store);
}

/// Without a ledger the store says who did what.
#[test]
fn restores_verifications_and_failures_are_recorded() {
    let folder = tempfile::tempdir().unwrap();
    let bed = still(folder.path(), &["main"]);
    let id = bed.snapshot("full");
    bed.run(&["verify", "--id", &id]).done();
    bed.run(&["verify", "--all"]).done();
    let _restored = bed.restore(&id);
    fs::write(folder.path().join("books.tigerbeetle"), "not a data file").unwrap();
    assert_ne!(bed.run(&["snapshot", "books"]).code, Some(0));
    let counts = ["verified", "restored", "failed"].map(|what| bed.noted(what).len());
    assert_eq!(counts, [2, 1, 1]);
    let text = fs::read_to_string(&bed.noted("restored")[0]).unwrap();
    let said: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&said["backup"], &said["exit_code"]), (&id.as_str().into(), &0.into()), "{said}");
    // Where this host may not write, it restores all the same.
    fs::remove_dir_all(bed.path("store/audit")).unwrap();
    fs::write(bed.path("store/audit"), "in the way").unwrap();
    bed.run(&["verify", "--id", &id]).done();
}

/// A log of a segment every six hours and a snapshot a day, for so many days: ten operations each time.
fn log_of(bed: &Bed, days: i64) {
    let app = bed.app(None);
    let begin = now() - Duration::days(days);
    let nanoseconds = |at: OffsetDateTime| u64::try_from(at.unix_timestamp_nanos()).unwrap();
    let sum = |op: i64| format!("{op:032x}");
    let mut before: Option<Manifest> = None;
    for number in 0..days * 4 {
        let (from, until) =
            (begin + Duration::hours(6 * number), begin + Duration::hours(6 * number + 6));
        let (first, last) = (number * 10 + 1, number * 10 + 10);
        let parent_sha256 = before.as_ref().map(|before| {
            let path = bed.path("store").join(before.name().manifest_key());
            bkp::domain::manifest::hex(&sha2::Sha256::digest(fs::read(path).unwrap()))
        });
        let capture = serde_json::json!({
            "mode": "wal", "consistency": "transaction-consistent", "cluster": "7",
            "parent_sha256": parent_sha256, "gap": null, "records": {},
            "position": {
                "first_timestamp": nanoseconds(from) + 1, "last_timestamp": nanoseconds(until),
                "last_time": null, "first_op": first, "last_op": last,
                "before_checksum": sum(first - 1), "last_checksum": sum(last), "expiries": [],
            },
        });
        let at = until - Duration::minutes(1);
        let seed = Seed { kind: "log", capture, ..Seed::at(at) };
        let seed = match &before {
            Some(before) => seed.built_on(before),
            None => seed,
        };
        before = Some(plant(bed, &app, &seed));
        if number % 4 == 0 {
            let at = from + Duration::hours(3);
            let position =
                serde_json::json!({ "head_op": first, "head_timestamp": nanoseconds(at) });
            let capture = serde_json::json!({ "cluster": "7", "position": position });
            plant(bed, &app, &Seed { capture, ..Seed::at(at) });
        }
    }
}

#[test]
fn a_log_keeps_its_bases_and_loses_what_restores_nothing() {
    let kinds = |bed: &Bed| {
        let listing = bed.json(&["list"]);
        let backups = listing["backups"].as_array().unwrap().clone();
        let count = |kind: &str| backups.iter().filter(|backup| backup["kind"] == kind).count();
        (count("log"), count("snapshot"))
    };
    let bed = bed(LAST);
    log_of(&bed, 60);
    assert_eq!(kinds(&bed), (240, 60));
    // A log that is kept for ever keeps the snapshot that it begins at.
    let report = bed.json(&["cleanup"]);
    assert!(report.to_string().contains("keep_log: a retained log begins here"), "{report}");
    assert_eq!(kinds(&bed), (240, 2));
    let windows = || bed.json(&["list", "books", "--windows"])["windows"].clone();
    assert_eq!(windows().as_array().unwrap().len(), 1, "{}", windows());
    let config = fs::read_to_string(bed.path("bkp.toml")).unwrap();
    let job = "[job.log]\nrun = \"logs\"\nsource = \"books\"\nevery = \"6h\"\nkeep_log = \"35d\"\n";
    fs::write(bed.path("bkp.toml"), config + job).unwrap();
    // The only base is the first: everything since is needed.
    bed.run(&["cleanup"]).done();
    assert_eq!(kinds(&bed), (240, 2));

    let bed = self::bed(LAST);
    log_of(&bed, 60);
    let config = fs::read_to_string(bed.path("bkp.toml")).unwrap();
    fs::write(bed.path("bkp.toml"), config + job).unwrap();
    let planned = bed.json(&["cleanup", "--dry-run"]);
    let done = bed.json(&["cleanup"]);
    assert_eq!(with(&done, "remove"), with(&planned, "remove"));
    // 35 days of four segments each, what lies between them and the snapshot before, and the 16 operations
    // before that one that a cluster may have taken back.
    let (segments, snapshots) = kinds(&bed);
    assert!((140..=148).contains(&segments) && snapshots == 2, "{segments} {snapshots}");
    let windows = bed.json(&["list", "books", "--windows"])["windows"].clone();
    assert_eq!(windows.as_array().unwrap().len(), 1, "{windows}");
    assert_eq!(bed.json(&["cleanup"])["stores"][0]["removed"], 0);
}
