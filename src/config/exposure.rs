//! Checks who else can change the configuration or read its secrets.
//!
//! Whoever can change it runs commands as bkp's user, since it names some. A group counts as others:
//! what is in it changes, and nobody thinks of this file then.

use std::fs::{File, Metadata};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use rustix::fs::StatVfsMountFlags;

use crate::fs::staged_file::folder_of;
use crate::table::ConfigError;

/// Whoever is in the group, and everybody.
const OTHERS_WRITE: u32 = 0o022;
/// In such a folder only the owner of a file can rename or remove it.
const STICKY: u32 = 0o1000;

/// Makes sure that nobody but root and the user who runs bkp can change the configuration that is open as
/// `file`, or put another one in its place.
///
/// # Errors
/// [`ConfigError::Invalid`] names who can, and what to do about it.
pub(super) fn check_writers(path: &Path, file: &File) -> Result<(), ConfigError> {
    let unreadable = |source| ConfigError::Unreadable { path: path.to_owned(), source };
    // What is mounted read-only has the permissions of some other place.
    let mount = rustix::fs::fstatvfs(file).map_err(|errno| unreadable(errno.into()))?;
    if mount.f_flag.contains(StatVfsMountFlags::RDONLY) {
        return Ok(());
    }
    check(path, &file.metadata().map_err(unreadable)?, 0)?;
    let real = path.canonicalize().map_err(unreadable)?;
    // Where it is a link, both the link's folder and the file's can give it another content.
    for place in [path, &real] {
        let folder = folder_of(place);
        check(folder, &folder.metadata().map_err(unreadable)?, STICKY)?;
    }
    Ok(())
}

/// `harmless` is a bit that makes up for the rights of others.
fn check(path: &Path, found: &Metadata, harmless: u32) -> Result<(), ConfigError> {
    let (shown, mode) = (path.display(), found.permissions().mode());
    let ours = [0, rustix::process::geteuid().as_raw()];
    if !ours.contains(&found.uid()) {
        let problem = format!("owned by user {}, who can change what bkp does", found.uid());
        return Err(ConfigError::invalid(shown.to_string(), problem).suggest(format!(
            "change its owner to root or the user who runs bkp: chown root {shown}"
        )));
    }
    if mode & OTHERS_WRITE != 0 && mode & harmless == 0 {
        let problem =
            format!("writable by others (mode {:03o}), who can change what bkp does", mode & 0o777);
        return Err(
            ConfigError::invalid(shown.to_string(), problem).suggest(format!("chmod go-w {shown}"))
        );
    }
    Ok(())
}

/// Whether every user of this machine can read the configuration, as far as its own mode and that of its
/// folder say.
pub(super) fn is_public(path: &Path) -> bool {
    let mode = |path: &Path| path.metadata().map_or(0, |found| found.permissions().mode());
    let real = path.canonicalize().unwrap_or_else(|_gone| path.to_owned());
    mode(&real) & 0o004 != 0 && mode(folder_of(&real)) & 0o001 != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{Permissions, set_permissions};

    #[test]
    fn what_others_can_write_or_replace_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("bkp.toml");
        let file = File::create(&path).expect("created");
        for (of_file, of_folder, fine) in [
            (0o644, 0o700, true),
            (0o640, 0o755, true),
            (0o644, 0o1777, true),
            (0o664, 0o700, false),
            (0o646, 0o700, false),
            (0o600, 0o777, false),
            (0o600, 0o770, false),
        ] {
            set_permissions(&path, Permissions::from_mode(of_file)).expect("set");
            set_permissions(folder.path(), Permissions::from_mode(of_folder)).expect("set");
            let found = check_writers(&path, &file);
            assert_eq!(found.is_ok(), fine, "{of_file:o} in {of_folder:o}: {found:?}");
        }
    }
}
