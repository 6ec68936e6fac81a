//! Randomly generated databases (see `tests/it/support/duck/generate.py`), through snapshots, exports and
//! increments and back.
//!
//! `BKP_TEST_ROUNDS` sets their number, `BKP_TEST_SEED` that of the first one.

use std::path::Path;
use std::thread;

use crate::support::duck::{Generator, bed, export, id, restore, snapshot};

/// Databases if nothing else is asked for.
const ROUNDS: u64 = 40;

/// Steps that change a database after its first export.
const STEPS: u64 = 2;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

fn there_and_back(seed: u64, generator: &mut Generator) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("analytics.duckdb");
    let path = file.to_str().unwrap();
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    generator.ask(&["make", path, &seed.to_string()], &format!("seed {seed}"));
    let bed = bed(&file);
    let taken = snapshot(&bed, &[]);
    let mut last = export(&bed, &[]);
    let [from_snapshot, from_export] = [&taken, &last].map(|made| text(&restore(&bed, id(made))));
    let what = format!("seed {seed}, snapshot and export");
    generator.ask(&["equal", path, &from_snapshot, &from_export], &what);
    for step in 0..STEPS {
        let what = format!("seed {seed}, increment {step}");
        generator.ask(&["change", path, &seed.to_string(), &step.to_string()], &what);
        let next = export(&bed, &["--scope", "incremental"]);
        assert_eq!(next["parent"], last["id"], "seed {seed}");
        generator.ask(&["equal", path, &text(&restore(&bed, id(&next)))], &what);
        last = next;
    }
    for level in ["decode", "drill"] {
        bed.run(&["verify", "--id", id(&last), "--level", level]).done();
    }
}

#[test]
fn databases_made_by_chance_come_back() {
    let (first, count) = (number("BKP_TEST_SEED", 1), number("BKP_TEST_ROUNDS", ROUNDS));
    let failed = |seed: u64, generator: &mut Generator| {
        thread::scope(|scope| scope.spawn(|| there_and_back(seed, generator)).join().is_err())
    };
    let half = |odd: u64| {
        let seeds = (first..first + count).filter(move |seed| seed % 2 == odd);
        thread::spawn(move || {
            let mut generator = Generator::start();
            seeds.filter(|seed| failed(*seed, &mut generator)).collect::<Vec<_>>()
        })
    };
    let halves = [half(0), half(1)];
    let seeds: Vec<u64> = halves.into_iter().flat_map(|half| half.join().unwrap()).collect();
    assert!(seeds.is_empty(), "seeds {seeds:?}: run it with BKP_TEST_SEED and BKP_TEST_ROUNDS=1");
}
