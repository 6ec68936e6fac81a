//! Whether a restore may put something at its target.

use std::path::Path;

use crate::error::{Fault, Kind};
use crate::fs::staged_file::folder_of;
use crate::source::TargetKind;
use crate::store::ReadStore;

/// Whether something stands at `target`. Only what a restore makes may, if it is to be moved aside: where that is
/// a file, whoever names a folder means a place in it. An empty folder is as good as none.
///
/// # Errors
/// [`Kind::Refused`] for anything else, and for a place in the store.
pub(crate) fn check_target(
    store: &dyn ReadStore,
    target: &Path,
    kind: TargetKind,
    extension: &str,
) -> anyhow::Result<bool> {
    if kind == TargetKind::Server {
        // Only the server knows.
        return Ok(false);
    }
    let shown = target.display();
    let is_folder = kind == TargetKind::Folder;
    let refuse =
        |what: String, hint: String| Err(Fault::new(Kind::Refused, what).hint(hint).into());
    if store.contains(target) {
        let what = format!("{shown} is inside the store {}", store.url());
        return refuse(what, "choose another --to".into());
    }
    let named = target.to_string_lossy();
    if target.to_str().is_none() {
        return refuse(format!("{shown} is not UTF-8"), "choose another --to".into());
    }
    let ends_well = is_folder || !named.ends_with('/');
    match target.symlink_metadata() {
        Ok(found) if found.is_file() && !is_folder => Ok(true),
        Ok(found) if found.is_dir() && is_folder => Ok(!is_empty(target)),
        Err(_) if ends_well && folder_of(target).is_dir() => Ok(false),
        Err(_) if ends_well => {
            let folder = folder_of(target).display();
            refuse(
                format!("folder {folder} does not exist"),
                format!("create it: mkdir -p {folder}"),
            )
        }
        Ok(found) if found.is_symlink() => {
            refuse(format!("{shown} is a symbolic link"), "pass the path it points to".into())
        }
        Ok(_) if is_folder => refuse(
            format!("{shown} exists and is not a folder"),
            "--to names the folder to create: choose another path".into(),
        ),
        Ok(found) if !found.is_dir() => refuse(
            format!("{shown} exists and is not a regular file"),
            "--to names the file to create: choose another path".into(),
        ),
        Ok(_) | Err(_) => refuse(
            format!("{shown} is a folder"),
            format!(
                "--to names the file to create, for example --to {}/restored.{extension}",
                named.trim_end_matches('/')
            ),
        ),
    }
}

fn is_empty(folder: &Path) -> bool {
    std::fs::read_dir(folder).is_ok_and(|mut items| items.next().is_none())
}
