//! Every call of a store fails in every way, one after the other, under whole commands: what comes
//! out is a whole backup or a whole file, or an error of the right kind and nothing.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use bkp::cmd::{logs, restore, snapshot};
use bkp::error::{Kind, diagnose};
use bkp::ops::selection::Select;
use rustix::fs::SeekFrom;

use crate::support::bed::Bed;
use crate::support::fault::{Effect, Failure, FaultPlan, PlannedFault};
use crate::support::tb;

const FAILURES: [Failure; 5] =
    [Failure::Transient, Failure::Permanent, Failure::Full, Failure::Missing, Failure::Exists];

/// What a failure of a store may end with. A call that a store does not make is asked for nothing.
fn fits(failure: Failure, kind: Kind) -> bool {
    match failure {
        Failure::Transient | Failure::Permanent | Failure::Full => kind == Kind::Store,
        // What should be there and is not, or the other way round, may be damage.
        Failure::Missing => matches!(kind, Kind::NotFound | Kind::Integrity),
        // A lease that exists is another run's.
        Failure::Exists => matches!(kind, Kind::Refused | Kind::Integrity | Kind::Busy),
    }
}

/// Runs `round` with the fault at its first call, its second, and so on until it is not reached.
fn sweep(effect: Effect, mut round: impl FnMut(&FaultPlan, u64)) {
    for nth in 0.. {
        let plan = FaultPlan::new(vec![PlannedFault::nth(nth, effect)]);
        round(&plan, nth);
        if !plan.unfired().is_empty() {
            assert!(nth > 0, "{effect:?} never happened");
            return;
        }
    }
}

fn take(bed: &Bed, plan: &FaultPlan) -> anyhow::Result<String> {
    let options = snapshot::Options {
        kind: bkp::domain::backup_kind::BackupKind::Snapshot,
        source: "books".into(),
        scope: None,
        mode: None,
        dry_run: false,
    };
    let report = snapshot::run(&bed.app(Some(plan.clone())), &options)?;
    Ok(report.value["manifest"]["id"].as_str().unwrap().to_owned())
}

fn listed(bed: &Bed) -> Vec<String> {
    let listing = bed.json(&["list"]);
    let ids = listing["backups"].as_array().unwrap().iter();
    ids.map(|backup| backup["id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_snapshot_survives_every_failure_of_its_store() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("0_0.tigerbeetle");
    tb::format(&file, 0, 1);
    let bed = Bed::new(&file, "");
    bed.snapshot("full");
    let copy = |from: &str, to: &str| {
        let _fresh = fs::remove_dir_all(bed.path(to));
        let words = ["-a", bed.path(from).to_str().unwrap(), bed.path(to).to_str().unwrap()]
            .map(str::to_owned);
        assert!(std::process::Command::new("cp").args(words).status().unwrap().success());
    };
    copy("store", "before");
    let before = listed(&bed);
    let effects = FAILURES.into_iter().flat_map(|failure| {
        [(failure, Effect::Before(failure)), (failure, Effect::After(failure))]
    });
    let effects = effects.chain([(Failure::Full, Effect::FullAfter { bytes: 100 })]);
    for (failure, effect) in effects {
        sweep(effect, |plan, nth| {
            copy("before", "store");
            let outcome = take(&bed, plan);
            let after = listed(&bed);
            match outcome {
                Ok(id) => {
                    assert!(after.contains(&id), "{effect:?} {nth}: success without a backup");
                }
                Err(error) => {
                    let kind = diagnose(&error).kind;
                    assert!(fits(failure, kind), "{effect:?} {nth}: {kind:?}: {error:#}");
                    // Only a lost answer may leave more than there was.
                    let lost = matches!(effect, Effect::After(_));
                    assert!(lost || after == before, "{effect:?} {nth}: {after:?}");
                }
            }
            for id in after.iter().filter(|id| !before.contains(*id)) {
                bed.run(&["verify", "--id", id, "--level", "decode"]).done();
            }
        });
    }
}

/// A segment that is not shipped is shipped by the next run, whole and once.
#[test]
fn a_log_survives_every_failure_of_its_store() {
    let folder = tempfile::tempdir().unwrap();
    let record = folder.path().join("record");
    let server = tb::Server::solo(folder.path());
    let bed = Bed::new(server.data_file(), "");
    tb::fill(server.address(), &record, 20, 1_000);
    bed.run(&["logs", "books"]).done();
    tb::fill(server.address(), &record, 20, 1_000);
    drop(server);
    let copy = |from: &str, to: &str| {
        let _fresh = fs::remove_dir_all(bed.path(to));
        let words = ["-a", bed.path(from).to_str().unwrap(), bed.path(to).to_str().unwrap()]
            .map(str::to_owned);
        assert!(std::process::Command::new("cp").args(words).status().unwrap().success());
    };
    copy("store", "before");
    let before = listed(&bed);
    for failure in FAILURES {
        for effect in [Effect::Before(failure), Effect::After(failure)] {
            sweep(effect, |plan, nth| {
                copy("before", "store");
                let options = logs::Options {
                    source: "books".into(),
                    mode: None,
                    follow: false,
                    dry_run: false,
                };
                if let Err(error) = logs::run(&bed.app(Some(plan.clone())), &options) {
                    let kind = diagnose(&error).kind;
                    assert!(fits(failure, kind), "{effect:?} {nth}: {kind:?}: {error:#}");
                    let lost = matches!(effect, Effect::After(_));
                    assert!(lost || listed(&bed) == before, "{effect:?} {nth}");
                    bed.run(&["logs", "books"]).done();
                }
                let verified = bed.json(&["verify", "books", "--logs"]);
                assert_eq!(verified["gaps"], serde_json::json!([]), "{effect:?} {nth}: {verified}");
                assert_eq!(verified["segments"], 2, "{effect:?} {nth}: {verified}");
                assert!(bed.run(&["logs", "books"]).done().stdout.contains("nothing to ship"));
            });
        }
    }
}

/// The bytes of a sparse file that are not zero, with their places.
fn content(path: &Path) -> Vec<(u64, Vec<u8>)> {
    let file = File::open(path).unwrap();
    let mut found = Vec::new();
    let mut at = 0;
    while let Ok(start) = rustix::fs::seek(&file, SeekFrom::Data(at)) {
        at = rustix::fs::seek(&file, SeekFrom::Hole(start)).unwrap();
        for offset in (start..at).step_by(4096) {
            let mut page = vec![0; 4096];
            let count = file.read_at(&mut page, offset).unwrap();
            page.truncate(count);
            if page.iter().any(|byte| *byte != 0) {
                found.push((offset, page));
            }
        }
    }
    found
}

#[test]
fn a_restore_survives_every_failure_of_its_store() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("0_0.tigerbeetle");
    tb::format(&file, 0, 1);
    let bed = Bed::new(&file, "");
    bed.snapshot("full");
    let id = bed.snapshot("incremental");
    let target = bed.path("target");
    let whole = content(&bed.restore(&id));
    assert!(whole.len() > 1000);
    let effects = FAILURES.into_iter().map(|failure| (Some(failure), Effect::Before(failure)));
    let reads = [0, 1, 200, 900].into_iter().flat_map(|bytes| {
        [Effect::Short { bytes }, Effect::Stalled { bytes }, Effect::Flip { bit: bytes * 8 + 3 }]
    });
    for (failure, effect) in effects.chain(reads.map(|effect| (None, effect))) {
        sweep(effect, |plan, nth| {
            let options = restore::Options {
                select: Select::Id(id.clone()),
                to: target.clone(),
                replica: None,
                addresses: Vec::new(),
                thaw: bkp::ops::thaw::ThawOptions::default(),
                from_export: false,
                database: None,
                schemas: Vec::new(),
                table: None,
                files: Vec::new(),
                tablespaces: Vec::new(),
                force: false,
                yes: true,
                dry_run: false,
            };
            match restore::run(&bed.app(Some(plan.clone())), &options) {
                Ok(_) => {
                    assert!(content(&target) == whole, "{effect:?} {nth}: another file");
                    fs::remove_file(&target).unwrap();
                }
                Err(error) => {
                    let kind = diagnose(&error).kind;
                    let fits = failure
                        .map_or(matches!(kind, Kind::Integrity | Kind::Store), |failure| {
                            fits(failure, kind)
                        });
                    assert!(fits, "{effect:?} {nth}: {kind:?}: {error:#}");
                    assert!(!target.exists(), "{effect:?} {nth}: a target");
                }
            }
        });
    }
}
