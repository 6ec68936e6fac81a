//! Randomly generated databases (see `tests/it/support/duck/generate.py`), through snapshots, exports and
//! increments and back.
//!
//! `BKP_TEST_ROUNDS` sets their number, `BKP_TEST_SEED` that of the first one.

use std::path::Path;
use std::thread;

use crate::support::duck::{bed, export, generate, id, restore, snapshot};

/// Databases if nothing else is asked for.
const ROUNDS: u64 = 40;

/// Steps that change a database after its first export.
const STEPS: u64 = 2;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

#[track_caller]
fn make(words: &[&str]) {
    let made = generate(words);
    assert_eq!(made.status.code(), Some(0), "{words:?}: {}", String::from_utf8_lossy(&made.stderr));
}

#[track_caller]
fn assert_equal(file: &Path, restored: &Path, what: &str) {
    let compared = generate(&["equal", file.to_str().unwrap(), restored.to_str().unwrap()]);
    let text = [compared.stdout, compared.stderr].concat();
    assert_eq!(compared.status.code(), Some(0), "{what}: {}", String::from_utf8_lossy(&text));
}

fn there_and_back(seed: u64) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("analytics.duckdb");
    let path = file.to_str().unwrap();
    make(&["make", path, &seed.to_string()]);
    let bed = bed(&file);
    let taken = snapshot(&bed, &[]);
    assert_equal(&file, &restore(&bed, id(&taken)), &format!("seed {seed}, snapshot"));
    let mut last = export(&bed, &[]);
    assert_equal(&file, &restore(&bed, id(&last)), &format!("seed {seed}, export"));
    for step in 0..STEPS {
        make(&["change", path, &seed.to_string(), &step.to_string()]);
        let next = export(&bed, &["--scope", "incremental"]);
        assert_eq!(next["parent"], last["id"], "seed {seed}");
        assert_equal(&file, &restore(&bed, id(&next)), &format!("seed {seed}, increment {step}"));
        last = next;
    }
    for level in ["decode", "drill"] {
        bed.run(&["verify", "--id", id(&last), "--level", level]).done();
    }
}

#[test]
fn databases_made_by_chance_come_back() {
    let (first, count) = (number("BKP_TEST_SEED", 1), number("BKP_TEST_ROUNDS", ROUNDS));
    let failed = |seed: u64| thread::spawn(move || there_and_back(seed)).join().is_err();
    let half = |odd: u64| {
        let seeds = (first..first + count).filter(move |seed| seed % 2 == odd);
        thread::spawn(move || seeds.filter(|seed| failed(*seed)).collect::<Vec<_>>())
    };
    let halves = [half(0), half(1)];
    let seeds: Vec<u64> = halves.into_iter().flat_map(|half| half.join().unwrap()).collect();
    assert!(seeds.is_empty(), "seeds {seeds:?}: run it with BKP_TEST_SEED and BKP_TEST_ROUNDS=1");
}
