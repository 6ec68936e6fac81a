//! Caches in the state directory: if lost or damaged, they are rebuilt.

use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::ctx::Ctx;
use crate::fs::staged_file::{StagedFile, folder_of};

/// The folder of caches in a state directory.
#[must_use]
pub fn folder(state_dir: &Path) -> PathBuf {
    state_dir.join("cache")
}

/// What a file says; nothing if it is not there or is not what was written.
#[must_use]
pub fn load<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

/// Writes a file; what fails is said with `-v` only, since nothing is lost.
pub fn save(path: &Path, value: &impl Serialize, ctx: &Ctx) {
    let written = serde_json::to_vec(value).map_err(io::Error::from);
    let written = written.and_then(|bytes| replace(path, &bytes, 0o600));
    if let Err(error) = written {
        ctx.monitor.detail(&format!("cannot write the cache {}: {error}", path.display()));
    }
}

/// Puts a file of this content and mode in the place of whatever is there, at once: a reader sees
/// the old one or the new one. Who else can write to that folder cannot make this write to any other file:
/// it is written under a name that nobody knows before, and that must be new.
///
/// # Errors
/// What the system says.
pub fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let folder = folder_of(path);
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let staged = StagedFile::named(rustix::fs::open(folder, flags, Mode::empty())?)?;
    staged.file().write_all(bytes)?;
    rustix::fs::fchmod(staged.file(), Mode::from_raw_mode(mode))?;
    staged.file().sync_all()?;
    Ok(staged.replace(path.file_name().unwrap_or_default())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_saved_is_loaded_and_what_is_damaged_is_not() {
        let home = tempfile::tempdir().expect("a folder");
        let path = folder(home.path()).join("x.json");
        assert_eq!(load::<Vec<u8>>(&path), None);
        replace(&path, b"[1,2]", 0o600).expect("written");
        replace(&path, b"[3]", 0o600).expect("written again");
        assert_eq!(load::<Vec<u8>>(&path), Some(vec![3]));
        replace(&path, b"[3", 0o600).expect("written");
        assert_eq!(load::<Vec<u8>>(&path), None);
        let items = std::fs::read_dir(folder(home.path())).expect("a folder");
        assert_eq!(items.count(), 1, "no draft is left");
    }
}
