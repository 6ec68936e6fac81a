//! The user that the programs of PostgreSQL run as, and what this user is given. They refuse root.

use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _, lchown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{Fault, Kind};

/// Users that are taken if bkp runs as root and no other one is configured.
const USERS: [&str; 2] = ["postgres", "nobody"];

/// Who runs the programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Account {
    /// User and group; none for whoever runs bkp.
    other: Option<(u32, u32)>,
}

impl Account {
    /// If bkp runs as root, the user `configured`, or else `postgres` or `nobody`; if not, the one that bkp runs
    /// as.
    ///
    /// # Errors
    /// [`Kind::Config`] if there is no such user, it is root, or bkp is neither root nor that user.
    pub(crate) fn choose(configured: Option<&str>) -> Result<Account, Fault> {
        let own = rustix::process::geteuid();
        let found = match configured {
            Some(name) => Some(user(name).ok_or_else(|| {
                Fault::new(Kind::Config, format!("there is no user `{name}`"))
                    .hint("name a user of this machine that may run PostgreSQL")
            })?),
            None if own.is_root() => USERS.into_iter().find_map(user),
            None => None,
        };
        match found {
            Some((0, _)) => Err(Fault::new(Kind::Config, "PostgreSQL does not run as root")
                .hint("name another user to run it")),
            Some((uid, _)) if !own.is_root() && uid != own.as_raw() => {
                let message = "only root can run PostgreSQL as another user";
                Err(Fault::new(Kind::Config, message).hint("run bkp as root, or name no user"))
            }
            None if own.is_root() => {
                let message =
                    "PostgreSQL does not run as root, and there is no user `postgres` or `nobody`";
                Err(Fault::new(Kind::Config, message).hint("name another user to run it"))
            }
            found => Ok(Account { other: found.filter(|_| own.is_root()) }),
        }
    }

    /// Whoever runs bkp: for programs that only talk with servers, and do not refuse root.
    pub(crate) fn own() -> Account {
        Account { other: None }
    }

    /// Has a program run as this user.
    pub(crate) fn apply<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        if let Some((uid, gid)) = self.other {
            command.uid(uid).gid(gid);
        }
        command
    }

    /// Gives a file, or a folder with everything in it, to this user. Links are not followed.
    ///
    /// # Errors
    /// [`Kind::Failed`] with what the system says.
    pub(crate) fn give(&self, path: &Path) -> Result<(), Fault> {
        let Some((uid, gid)) = self.other else { return Ok(()) };
        let failed = |path: &Path, error: std::io::Error| {
            Fault::new(Kind::Failed, format!("cannot give {} away: {error}", path.display()))
                .hint("choose a folder whose file system has owners")
        };
        let mut open = vec![path.to_owned()];
        while let Some(path) = open.pop() {
            lchown(&path, Some(uid), Some(gid)).map_err(|error| failed(&path, error))?;
            if !path.symlink_metadata().is_ok_and(|found| found.is_dir()) {
                continue;
            }
            for item in fs::read_dir(&path).map_err(|error| failed(&path, error))? {
                open.push(item.map_err(|error| failed(&path, error))?.path());
            }
        }
        Ok(())
    }

    /// Gives the folders of the tablespaces to this user.
    ///
    /// # Errors
    /// As [`Account::give`].
    pub(crate) fn give_tablespaces(&self, data: &Path) -> Result<(), Fault> {
        for link in links(data) {
            if let Ok(folder) = link.canonicalize() {
                self.give(&folder)?;
            }
        }
        Ok(())
    }

    /// Lets this user pass through a folder of ours, but see nothing in it.
    ///
    /// # Errors
    /// [`Kind::Failed`] with what the system says; or that the user does not get as far as this folder.
    pub(crate) fn let_through(&self, folder: &Path) -> Result<(), Fault> {
        if self.other.is_none() {
            return Ok(());
        }
        let failed = |error: std::io::Error| {
            Fault::new(Kind::Failed, format!("cannot open {}: {error}", folder.display()))
        };
        let found = folder.metadata().map_err(failed)?;
        fs::set_permissions(folder, fs::Permissions::from_mode(found.mode() & 0o7777 | 0o011))
            .map_err(failed)?;
        let place = folder.canonicalize().map_err(failed)?;
        let closed = place.ancestors().find(|above| !self.passes(above));
        closed.map_or(Ok(()), |closed| {
            let message =
                format!("{} is closed to the user that PostgreSQL is to run as", closed.display());
            Err(Fault::new(Kind::Failed, message)
                .hint("let that user pass (chmod o+x), or choose another scratch folder"))
        })
    }

    /// Whether this user gets through a folder, as far as its mode says.
    fn passes(&self, folder: &Path) -> bool {
        let (Some((uid, gid)), Ok(found)) = (self.other, folder.metadata()) else { return true };
        let bit = match () {
            () if found.uid() == uid => 0o100,
            () if found.gid() == gid => 0o010,
            () => 0o001,
        };
        found.mode() & bit != 0
    }
}

/// The numbers of a user and its group.
fn user(name: &str) -> Option<(u32, u32)> {
    let user = uzers::get_user_by_name(name)?;
    Some((user.uid(), user.primary_group_id()))
}

/// A folder that nobody else gets into. It is removed when this is dropped.
#[derive(Debug)]
pub(crate) struct PrivateFolder(PathBuf);

impl PrivateFolder {
    /// Makes it.
    ///
    /// # Errors
    /// [`Kind::Failed`] with what the system says, as if it is there already.
    pub(crate) fn create(path: PathBuf) -> Result<PrivateFolder, Fault> {
        match fs::DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => Ok(PrivateFolder(path)),
            Err(error) => {
                let message = format!("cannot create {}: {error}", path.display());
                Err(Fault::new(Kind::Failed, message).hint("make the folder around it writable"))
            }
        }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for PrivateFolder {
    fn drop(&mut self) {
        // If it stays it has nothing that anybody could use.
        let _removed = fs::remove_dir_all(&self.0);
    }
}

/// Links of a data folder that lead elsewhere: tablespaces, and the log.
fn links(data: &Path) -> impl Iterator<Item = PathBuf> {
    let tablespaces = fs::read_dir(data.join("pg_tblspc")).into_iter().flatten();
    let found = tablespaces.filter_map(Result::ok).map(|item| item.path());
    found.chain([data.join("pg_wal")]).filter(|path| path.is_symlink())
}

/// Looks whether the folder, and everything that it links to, is below `scratch`: a server that is started on a copy
/// must not write to the tablespaces of the original.
///
/// # Errors
/// [`Kind::Refused`] with the link that leads elsewhere.
pub(crate) fn check_links(data: &Path, scratch: &Path) -> Result<(), Fault> {
    let inside = scratch.canonicalize().ok();
    for path in std::iter::once(data.to_owned()).chain(links(data)) {
        let place = path.canonicalize().ok();
        let is_inside = place.zip(inside.as_ref()).is_some_and(|(at, top)| at.starts_with(top));
        if !is_inside {
            let message = format!("{} leads out of {}", path.display(), scratch.display());
            return Err(Fault::new(Kind::Refused, message).hint(
                "nothing was started; map every tablespace to a folder of the restored copy",
            ));
        }
    }
    Ok(())
}
