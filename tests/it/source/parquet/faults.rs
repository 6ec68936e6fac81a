//! Every call of a store fails in every way under whole commands.

use crate::support::fault::{Effect, Failure, FaultPlan, PlannedFault};

use super::*;

const FAILURES: [Failure; 5] =
    [Failure::Transient, Failure::Permanent, Failure::Full, Failure::Missing, Failure::Exists];

fn listed(tier: &Tier) -> Vec<String> {
    let listing = tier.bed.json(&["list"]);
    let ids = listing["backups"].as_array().unwrap().iter();
    ids.map(|backup| id(backup).to_owned()).collect()
}

#[test]
fn a_replica_survives_every_failure_of_its_store() {
    let tier = Tier::of_any();
    tier.write("a", "1");
    tier.write("b/c", "2");
    tier.replicate();
    tier.write("a", "2, which is longer");
    tier.write("d", "3");
    tier.remove("b/c");
    let copy = |from: &str, to: &str| {
        let _fresh = fs::remove_dir_all(tier.bed.path(to));
        let mut command = Command::new("cp");
        command.arg("-a").args([tier.bed.path(from), tier.bed.path(to)]);
        assert!(command.status().unwrap().success());
    };
    copy("store", "before");
    let before = listed(&tier);
    let effects =
        FAILURES.into_iter().flat_map(|failure| [Effect::Before(failure), Effect::After(failure)]);
    for effect in effects.chain([Effect::FullAfter { bytes: 10 }]) {
        for nth in 0.. {
            copy("before", "store");
            let plan = FaultPlan::new(vec![PlannedFault::nth(nth, effect)]);
            let options = snapshot::Options {
                kind: BackupKind::Replica,
                source: "tier".into(),
                scope: None,
                mode: None,
                dry_run: false,
            };
            let outcome = snapshot::run(&tier.bed.app(Some(plan.clone())), &options);
            let after = listed(&tier);
            let new: Vec<&String> = after.iter().filter(|id| !before.contains(id)).collect();
            match outcome {
                Ok(_) => assert_eq!(new.len(), 1, "{effect:?} {nth}: success without a backup"),
                Err(error) => {
                    let kind = diagnose(&error).kind;
                    // Only a lost answer may leave more than there was.
                    let lost = matches!(effect, Effect::After(_));
                    assert!(lost || new.is_empty(), "{effect:?} {nth}: {kind:?}: {after:?}");
                }
            }
            for id in new {
                assert!(tier.restore(&["--id", id]) == tier.files(), "{effect:?} {nth}");
            }
            if !plan.unfired().is_empty() {
                assert!(nth > 0, "{effect:?} never happened");
                break;
            }
        }
    }
}

#[test]
fn a_restored_folder_survives_every_failure_of_its_store() {
    let tier = Tier::of_any();
    tier.write("a", vec![1; 5000]);
    tier.replicate();
    tier.write("b/c", "2");
    let newest = tier.replicate();
    let target = tier.bed.path("target");
    let effects = FAILURES.into_iter().map(Effect::Before);
    let reads = [0, 1, 200, 900].into_iter().flat_map(|bytes| {
        [Effect::Short { bytes }, Effect::Stalled { bytes }, Effect::Flip { bit: bytes * 8 + 3 }]
    });
    for effect in effects.chain(reads) {
        for nth in 0.. {
            let plan = FaultPlan::new(vec![PlannedFault::nth(nth, effect)]);
            let options = restore::Options {
                select: Select::Id(id(&newest).to_owned()),
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
            match restore::run(&tier.bed.app(Some(plan.clone())), &options) {
                Ok(_) => {
                    assert!(files(&target) == tier.files(), "{effect:?} {nth}: other files");
                    fs::remove_dir_all(&target).unwrap();
                }
                Err(_) => assert!(!target.exists(), "{effect:?} {nth}: a folder without success"),
            }
            if !plan.unfired().is_empty() {
                assert!(nth > 0, "{effect:?} never happened");
                break;
            }
        }
    }
}
