//! The systemd units, checked by systemd.

use std::fs;
use std::path::Path;
use std::process::Command;

#[test]
fn systemd_has_nothing_to_say_about_the_units() {
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd");
    let folder = tempfile::tempdir().unwrap();
    let mut paths = Vec::new();
    for item in fs::read_dir(units).unwrap() {
        let path = item.unwrap().path();
        // The program is where this build put it, not where a package would.
        let text = fs::read_to_string(&path).unwrap();
        let text = text.replace("/usr/bin/bkp", env!("CARGO_BIN_EXE_bkp"));
        let copy = folder.path().join(path.file_name().unwrap());
        fs::write(&copy, text).unwrap();
        paths.push(copy);
    }
    assert!(paths.len() >= 5, "{paths:?}");
    // Also those of this machine are read, and what is said of them is not about ours.
    let mut command = Command::new("systemd-analyze");
    let found = command.args(["verify", "--man=no"]).args(&paths).output();
    let found = found.expect("systemd-analyze: tests/run.sh gets it");
    let said = String::from_utf8_lossy(&found.stderr);
    let ours: Vec<&str> = said.lines().filter(|line| line.contains("bkp")).collect();
    assert!(ours.is_empty(), "{said}");
    assert!(found.status.success(), "{said}");
}
