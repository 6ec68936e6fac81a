//! Files and folders for the user who is to run the backups.

use std::fs::{DirBuilder, File};
use std::io::Write as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use anyhow::Context as _;
use rustix::fs::{Gid, Mode, Uid, chown, fchmod, fchown};

use crate::error::{Fault, Kind};
use crate::fs::staged_file::StagedFile;

/// The user of the package.
const SERVICE_USER: &str = "bkp";

/// Another user than the one who runs this, to whom everything is handed over.
#[derive(Debug)]
pub(super) struct Owner {
    pub(super) name: String,
    user: Uid,
    group: Gid,
}

impl Owner {
    /// The user of this name, or for root that of the package; `None` if it is who runs this.
    pub(super) fn choose(name: Option<&str>) -> anyhow::Result<Option<Owner>> {
        let ours = rustix::process::geteuid();
        let found = uzers::get_user_by_name(name.unwrap_or(SERVICE_USER));
        let Some(user) = found else {
            return match name {
                None => Ok(None),
                Some(name) => Err(Fault::new(Kind::Usage, format!("--user: no user `{name}`"))
                    .hint("create it first, or leave --user out")
                    .into()),
            };
        };
        if user.uid() == ours.as_raw() || (name.is_none() && !ours.is_root()) {
            return Ok(None);
        }
        if !ours.is_root() {
            let message = "--user: only root can hand files to another user";
            let hint = "run bkp init as root, or as that user without --user";
            return Err(Fault::new(Kind::Usage, message).hint(hint).into());
        }
        let name = user.name().to_string_lossy().into_owned();
        let (user, group) = (Uid::from_raw(user.uid()), Gid::from_raw(user.primary_group_id()));
        Ok(Some(Owner { name, user, group }))
    }

    /// Hands a file or folder over.
    pub(super) fn give(owner: Option<&Owner>, path: &Path) -> anyhow::Result<()> {
        let Some(owner) = owner else { return Ok(()) };
        chown(path, Some(owner.user), Some(owner.group))
            .with_context(|| format!("cannot give {} to user {}", path.display(), owner.name))
    }

    /// Makes a folder that only its owner may enter; one that exists stays as it is. Whether it was made.
    pub(super) fn make_folder(owner: Option<&Owner>, path: &Path) -> anyhow::Result<bool> {
        if path.is_dir() {
            return Ok(false);
        }
        let failed = || format!("cannot create the folder {}", path.display());
        if let Some(above) = path.parent() {
            std::fs::create_dir_all(above).with_context(failed)?;
        }
        DirBuilder::new().mode(0o700).create(path).with_context(failed)?;
        Owner::give(owner, path)?;
        let above = path.parent().unwrap_or(path);
        File::open(above).and_then(|above| above.sync_all()).with_context(failed)?;
        Ok(true)
    }

    /// Writes a configuration, durably, which its user may read and only who runs this may change. It gets
    /// its name as a whole, and never that of another file.
    pub(super) fn write(owner: Option<&Owner>, path: &Path, text: &str) -> anyhow::Result<()> {
        let staged = StagedFile::beside(path)?;
        let failed = || format!("cannot write {}", path.display());
        let mut file = staged.file();
        file.write_all(text.as_bytes()).with_context(failed)?;
        if let Some(owner) = owner {
            fchown(file, None, Some(owner.group)).with_context(failed)?;
            fchmod(file, Mode::RUSR | Mode::WUSR | Mode::RGRP).with_context(failed)?;
        }
        file.sync_all().with_context(failed)?;
        staged.publish_at(path, false)?;
        Ok(())
    }
}
