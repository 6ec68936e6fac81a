//! What some machines do not permit or cannot have: mounts, file systems that clone, servers.
//!
//! A test that cannot have what it needs fails. Only where `BKP_TEST_WITHOUT` names that (`xfs`, `mounts`,
//! `postgres-16` and so on, with commas between them) it is left out, and says so; `tests/run.sh` names what it
//! tried in vain.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Fails, unless `BKP_TEST_WITHOUT` names `what`.
#[track_caller]
pub(crate) fn excused(what: &str, why: &str) {
    let without = std::env::var("BKP_TEST_WITHOUT").unwrap_or_default();
    let is_named = without.split(',').any(|named| named == what);
    assert!(is_named, "{why}; where this cannot be had, set BKP_TEST_WITHOUT={what}");
    eprintln!("NOT TESTED, for BKP_TEST_WITHOUT={without}: {why}");
}

/// Runs a command; what it said if it failed.
fn run(words: &[&str]) -> Result<(), String> {
    let output = Command::new(words[0]).args(&words[1..]).output();
    let output = output.map_err(|error| format!("`{}` does not start: {error}", words[0]))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("`{}`: {said}", words.join(" "))) }
}

/// What begins a command with mounts of its own.
pub(crate) const PRIVATE: &[&str] = &["unshare", "--map-root-user", "--mount"];

/// Whether private mounts are permitted; a test goes on without them only if it is excused.
#[track_caller]
pub(crate) fn can_mount() -> bool {
    let tried = run(&[PRIVATE, &["mount", "-t", "tmpfs", "none", "/proc"]].concat());
    if let Err(why) = &tried {
        excused("mounts", &format!("no private mount: {why}"));
    }
    tried.is_ok()
}

/// A file system made in a file; it is unmounted when this is dropped.
pub(crate) struct Mounted(pub(crate) PathBuf);

impl Mounted {
    /// One that clones files. Only root can mount it, where there are loop devices and the kernel has XFS;
    /// `None` for a test that is excused from it.
    #[track_caller]
    pub(crate) fn xfs(folder: &Path) -> Option<Mounted> {
        let (image, place) = (folder.join("image"), folder.join("xfs"));
        fs::File::create(&image).unwrap().set_len(320 << 20).unwrap();
        fs::create_dir(&place).unwrap();
        let (image, shown) = (image.to_str().unwrap(), place.to_str().unwrap());
        let made = run(&["mkfs.xfs", "-q", "-m", "reflink=1", image])
            .and_then(|()| run(&["mount", "-o", "loop", image, shown]));
        if let Err(why) = &made {
            excused("xfs", &format!("no file system that clones: {why}"));
        }
        made.is_ok().then_some(Mounted(place))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _unmounted = Command::new("umount").arg(&self.0).status();
    }
}
