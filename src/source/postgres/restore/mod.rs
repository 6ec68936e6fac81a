//! From the chain back to a data folder.
//!
//! - [`tree`]: the folder as it is built, with [`patch`] for changed blocks. [`recovery`]: what a server is told that
//!   starts on it. [`drill`]: that start, tried.
//!   [`decode`]: a chain that is only read. [`contents`]: what a backup says of itself.

mod contents;
mod decode;
mod drill;
mod patch;
pub(super) mod recovery;
pub(super) mod tree;

use std::collections::BTreeMap;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;

use serde_json::Value;

use self::tree::Tree;
use super::record::BaseRecord;
use crate::ctx::Ctx;
use crate::error::{Fault, Kind};
use crate::fs::scratch_dir::ScratchDir;
use crate::fs::staged_file::folder_of;
use crate::source::{Chain, RestoreRequest, Restored};

pub(super) use self::decode::decode;
pub(super) use self::drill::{drill, drill_log};

/// Brings the newest base backup of a chain back. What starts on it replays the log that is in it, and has what was
/// committed when the backup ended.
///
/// # Errors
/// [`Kind::Integrity`] if a backup is not what it was; what the file system says. Nothing stands at the target then.
pub(super) fn restore(
    chain: &Chain<'_>,
    request: &RestoreRequest,
    ctx: &Ctx,
) -> anyhow::Result<Restored> {
    let record = BaseRecord::of_newest(chain)?;
    let building = Building::begin(&record, request)?;
    let mut tree = building.build(chain, ctx)?;
    building.publish(&mut tree, request, ctx)
}

/// A data folder that is built beside its target.
pub(super) struct Building {
    scratch: ScratchDir,
    /// Folders of tablespaces, built beside theirs.
    spaces: Vec<Space>,
}

struct Space {
    oid: u32,
    target: PathBuf,
    scratch: ScratchDir,
}

impl Building {
    /// Begins beside the target, and beside the folder of each tablespace.
    pub(super) fn begin(record: &BaseRecord, request: &RestoreRequest) -> anyhow::Result<Building> {
        let scratch = ScratchDir::beside(&request.target)?;
        let places = tablespace_folders(record, request)?;
        let spaces = places.iter().map(|(oid, target)| {
            let above = folder_of(target);
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(above).map_err(
                |error| {
                    Fault::new(Kind::Failed, format!("cannot make {}: {error}", above.display()))
                },
            )?;
            let is_free = target.symlink_metadata().is_err()
                || std::fs::read_dir(target).is_ok_and(|mut items| items.next().is_none());
            if !is_free {
                let message = format!("{} is not empty", target.display());
                let hint = "choose another folder for the tablespace";
                return Err(Fault::new(Kind::Refused, message).hint(hint));
            }
            Ok(Space { oid: *oid, target: target.clone(), scratch: ScratchDir::beside(target)? })
        });
        let spaces = spaces.collect::<Result<_, Fault>>()?;
        Ok(Building { scratch, spaces })
    }

    /// Builds the folder.
    pub(super) fn build(&self, chain: &Chain<'_>, ctx: &Ctx) -> anyhow::Result<Tree> {
        let spaces: BTreeMap<_, _> =
            self.spaces.iter().map(|space| (space.oid, space.scratch.path("tree"))).collect();
        let mut tree = Tree::begin(self.scratch.path("tree"), spaces)?;
        tree.build(chain, ctx)?;
        recovery::forget(&self.root())?;
        recovery::do_not_archive(&self.root())?;
        Ok(tree)
    }

    /// Where the data folder is built.
    pub(super) fn root(&self) -> PathBuf {
        self.scratch.path("tree")
    }

    /// Makes it durable and gives it its name, tablespaces first.
    pub(super) fn publish(
        &self,
        tree: &mut Tree,
        request: &RestoreRequest,
        ctx: &Ctx,
    ) -> anyhow::Result<Restored> {
        for Space { oid, target, .. } in &self.spaces {
            let link = self.root().join(format!("pg_tblspc/{oid}"));
            std::fs::create_dir_all(self.root().join("pg_tblspc"))?;
            std::os::unix::fs::symlink(std::path::absolute(target)?, link)?;
        }
        tree.sync()?;
        ctx.cancel.check()?;
        for Space { target, scratch, .. } in &self.spaces {
            scratch.publish_folder(&scratch.path("tree"), target, false)?;
        }
        let moved_aside =
            self.scratch.publish_folder(&self.root(), &request.target, request.force)?;
        Ok(Restored {
            target: request.target.clone(),
            bytes: tree.written,
            bytes_written: tree.written,
            moved_aside,
            next: next_step(request),
            lost: Vec::new(),
        })
    }
}

/// The folder of each tablespace: the one that was chosen, or one beside the data folder.
fn tablespace_folders(
    record: &BaseRecord,
    request: &RestoreRequest,
) -> Result<Vec<(u32, PathBuf)>, Fault> {
    let is_known = |oid: u32| record.tablespaces.iter().any(|known| known.oid == oid);
    if let Some((oid, _)) = request.tablespaces.iter().find(|(oid, _)| !is_known(*oid)) {
        let known = record.tablespaces.iter();
        let known: Vec<String> =
            known.map(|known| format!("{} ({})", known.oid, known.location)).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        let message = format!("the server had no tablespace {oid}");
        return Err(Fault::new(Kind::Usage, message).hint(format!("it had: {known}")));
    }
    let folder = |oid: u32| {
        let chosen = request.tablespaces.iter().find(|(of, _)| *of == oid);
        let beside = || {
            let mut beside = request.target.clone().into_os_string();
            beside.push(format!(".tablespaces/{oid}"));
            PathBuf::from(beside)
        };
        chosen.map_or_else(beside, |(_, folder)| folder.clone())
    };
    Ok(record.tablespaces.iter().map(|space| (space.oid, folder(space.oid))).collect())
}

fn next_step(request: &RestoreRequest) -> String {
    let target = request.target.display();
    let owner = if rustix::process::geteuid().is_root() {
        format!("give it to the server's user (chown -R postgres: {target}), and ")
    } else {
        String::new()
    };
    let configuration = if request.target.join("postgresql.conf").exists() {
        ""
    } else {
        " with its configuration, which stood outside of the data folder (pass -c config_file=PATH)"
    };
    format!(
        "{owner}start a server on {target}{configuration}; it replays the log that it needs before it takes connections, and archives nothing until `ALTER SYSTEM RESET archive_mode` and a restart"
    )
}

/// Refuses to restore a data folder to the address of a server.
///
/// # Errors
/// [`Kind::Usage`].
pub(super) fn preflight(request: &RestoreRequest) -> anyhow::Result<Vec<String>> {
    if !super::dump::is_server(&request.target) {
        return Ok(Vec::new());
    }
    let message = "a base backup is restored to a folder, not into a server";
    Err(Fault::new(Kind::Usage, message).hint("name a folder, or pass --from-export").into())
}

/// What has to be known before a restore begins.
///
/// # Errors
/// [`Kind::Usage`] for what is of other sources.
pub(super) fn guard(record: &Value, request: &RestoreRequest) -> anyhow::Result<Vec<String>> {
    if request.replica.is_some() {
        let message = "a data folder of PostgreSQL is not a replica of a cluster";
        return Err(Fault::new(Kind::Usage, message).hint("omit --replica").into());
    }
    let Ok(record) = BaseRecord::read(record) else { return Ok(Vec::new()) };
    let folders = tablespace_folders(&record, request)?.into_iter().zip(&record.tablespaces);
    let notes = folders.map(|((oid, folder), space)| {
        format!("tablespace {oid} (was {}) goes to {}", space.location, folder.display())
    });
    Ok(notes.collect())
}
