//! What `tests/fuzz` found, and what its targets begin with: every input once, as they stand, without a
//! fuzzer. A failure here is a regression.

use std::fs;
use std::path::Path;

#[expect(
    clippy::panic,
    dead_code,
    reason = "a target fails by panicking; only the fuzzer watches memory, and takes seeds from files"
)]
#[path = "../fuzz/targets/mod.rs"]
mod targets;

use targets::{TARGETS, Target};

fn runs(name: &str) {
    let target: &Target = TARGETS.iter().find(|target| target.name == name).unwrap();
    for seed in (target.seeds)() {
        assert!(seed.len() <= target.longest);
        (target.run)(&seed);
    }
    let found = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/found").join(name);
    let Ok(found) = fs::read_dir(found) else { return };
    for item in found {
        let path = item.unwrap().path();
        eprintln!("{}", path.display());
        (target.run)(&zstd::decode_all(&*fs::read(path).unwrap()).unwrap());
    }
}

#[test]
fn conversations_of_a_server_are_understood() {
    targets::postgres::understands_seeds();
}

macro_rules! targets {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                runs(stringify!($name));
            }
        )*

        #[test]
        fn every_target_is_run_here() {
            let here = [$(stringify!($name)),*];
            assert!(TARGETS.iter().map(|target| target.name).eq(here));
        }
    };
}

targets! {
    archive bucket compressed config duckdb keyset layout lease ledger manifest names parquet postgres recipients seal
    tigerbeetle wal
}
