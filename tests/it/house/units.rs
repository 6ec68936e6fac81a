//! The systemd units, checked by systemd.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The most that `systemd-analyze security` may rate a unit, in tenths: 0 is confined, 100 is not.
const EXPOSURE_MAX: &str = "19";

/// The units of the repository as copies, in which the program is where this build put it.
fn units(folder: &Path) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    for item in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd")).unwrap() {
        let path = item.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let text = text.replace("/usr/bin/bkp", env!("CARGO_BIN_EXE_bkp"));
        let copy = folder.join(path.file_name().unwrap());
        fs::write(&copy, text).unwrap();
        paths.push(copy);
    }
    assert!(paths.len() >= 8, "{paths:?}");
    paths
}

fn analyze(words: &[&str], paths: &[PathBuf]) -> Output {
    Command::new("systemd-analyze").args(words).args(paths).output().unwrap()
}

#[test]
fn systemd_has_nothing_to_say_about_the_units() {
    let folder = tempfile::tempdir().unwrap();
    let found = analyze(&["verify", "--man=no"], &units(folder.path()));
    // Also those of this machine are read, and what is said of them is not about ours.
    let said = String::from_utf8_lossy(&found.stderr);
    let ours: Vec<&str> = said.lines().filter(|line| line.contains("bkp")).collect();
    assert!(ours.is_empty(), "{said}");
    assert!(found.status.success(), "{said}");
}

#[test]
fn the_units_are_confined() {
    let folder = tempfile::tempdir().unwrap();
    for unit in units(folder.path()) {
        if unit.extension() != Some("service".as_ref()) {
            continue;
        }
        // A template has to be given a name before it can be rated.
        let text = fs::read_to_string(&unit).unwrap();
        assert!(text.contains("\nCapabilityBoundingSet=\n"), "{}", unit.display());
        assert!(!text.contains("\nAmbientCapabilities="), "{}", unit.display());
        let named = PathBuf::from(unit.to_str().unwrap().replace("@.", "@books."));
        fs::write(&named, text).unwrap();
        let threshold = format!("--threshold={EXPOSURE_MAX}");
        let rated = analyze(&["security", "--offline=true", &threshold], &[named]);
        let said = String::from_utf8_lossy(&rated.stdout);
        assert!(rated.status.success(), "{}: {said}", unit.display());
    }
}
