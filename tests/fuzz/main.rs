//! One target, driven by libFuzzer; `run.sh` builds and starts it. See `targets/mod.rs`.
//!
//! - `BKP_FUZZ_TARGET=NAME` says which. Everything else is libFuzzer's own (`-help=1`).
//! - `BKP_FUZZ_TAKE=FILE` prints a data file or a database as a seed of its target; `seeds/README` says
//!   which are there.
//! - `BKP_FUZZ_SEEDS=FOLDER` writes the seeds of all targets instead, each below its target's name, and
//!   prints for each target its name and the length of its longest input.
//!
//! What a target cannot see itself is watched here: how much memory an input takes, and whether it
//! gives it back.

#![no_main]

mod meter;
mod targets;

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::exit;
use std::sync::OnceLock;

use targets::{TARGETS, Target};

static TARGET: OnceLock<&Target> = OnceLock::new();

/// Times that an input is repeated which did not give back all memory: what is made once and kept is no
/// leak, what is lost each time is one.
const REPEATS: usize = 8;

libfuzzer_sys::fuzz_target!(init: begin(), |data: &[u8]| run(data));

fn begin() {
    if let Some(folder) = std::env::var_os("BKP_FUZZ_SEEDS") {
        write_seeds(Path::new(&folder)).unwrap();
        exit(0);
    }
    if let Some(path) = std::env::var_os("BKP_FUZZ_TAKE") {
        let path = Path::new(&path);
        let is_database = path.extension() == Some("duckdb".as_ref());
        let take = if is_database { targets::duckdb::take } else { targets::tigerbeetle::take };
        std::io::stdout().write_all(&take(path).unwrap()).unwrap();
        exit(0);
    }
    let name = std::env::var("BKP_FUZZ_TARGET").unwrap_or_default();
    let Some(target) = TARGETS.iter().find(|target| target.name == name) else {
        eprintln!("BKP_FUZZ_TARGET names no target: `{name}`");
        exit(2);
    };
    TARGET.set(target).unwrap();
}

fn write_seeds(folder: &Path) -> std::io::Result<()> {
    targets::postgres::understands_seeds();
    for target in TARGETS {
        let below = folder.join(target.name);
        fs::create_dir_all(&below)?;
        for (number, seed) in (target.seeds)().iter().enumerate() {
            assert!(seed.len() <= target.longest, "{} {number}: {}", target.name, seed.len());
            fs::write(below.join(format!("seed-{number:02}")), seed)?;
        }
        println!("{} {}", target.name, target.longest);
    }
    Ok(())
}

fn run(data: &[u8]) {
    let target = TARGET.get().unwrap();
    let before = meter::begin();
    (target.run)(data);
    let (fixed, each) = target.memory;
    let (taken, most) = (meter::peak() - before, fixed + each * data.len());
    assert!(
        taken <= isize::try_from(most).unwrap(),
        "an input of {} bytes took {taken} bytes of memory, more than {most}",
        data.len()
    );
    let mut live = meter::live();
    for repeat in 0..REPEATS {
        if live <= before {
            return;
        }
        let last = live;
        (target.run)(data);
        live = meter::live();
        if live <= last {
            return;
        }
        assert!(repeat + 1 < REPEATS, "{} bytes are lost each time", live - last);
    }
}
