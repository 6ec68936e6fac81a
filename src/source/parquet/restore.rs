//! From the objects back to a folder.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{DirBuilder, File};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use serde_json::Value;

use super::inventory::{HeldFile, Inventory, broken};
use super::path::RelativePath;
use super::walk::{self, glob_set};
use crate::concurrent;
use crate::ctx::Ctx;
use crate::domain::id::BackupId;
use crate::domain::manifest::{ObjectRecord, Plaintext};
use crate::error::{Fault, Kind};
use crate::fs::scratch_dir::ScratchDir;
use crate::pipeline::BackupReader;
use crate::source::{Chain, RestoreRequest, Restored};

/// Files that are read at a time. Each takes up to 30 MiB of memory.
const AT_A_TIME: usize = 4;

/// Brings the files of the newest replica of a chain back, or those of them that are asked for. They are for
/// their owner alone, and have the times that they had. The folder appears once all of them are there.
///
/// # Errors
/// [`Kind::Usage`] if no file fits the patterns; [`Kind::Integrity`] if an object is not what it was.
pub(super) fn restore(
    chain: &Chain<'_>,
    request: &RestoreRequest,
    ctx: &Ctx,
) -> anyhow::Result<Restored> {
    let files = wanted(Inventory::of(chain, ctx)?, &request.files)?;
    let links = links(chain);
    check(&files, &links, ctx)?;
    let scratch = ScratchDir::beside(&request.target)?;
    let tree = scratch.path("tree");
    make(&files, &links, &tree, ctx)?;
    ctx.cancel.check()?;
    let moved_aside = scratch.publish_folder(&tree, &request.target, request.force)?;
    let bytes = files.bytes();
    let shown = request.target.display();
    let next = format!("point its readers at {shown}; the files are readable for their owner only");
    Ok(Restored {
        target: request.target.clone(),
        bytes,
        bytes_written: bytes,
        moved_aside,
        next,
        lost: Vec::new(),
    })
}

fn wanted(mut inventory: Inventory, patterns: &[String]) -> anyhow::Result<Inventory> {
    if patterns.is_empty() {
        return Ok(inventory);
    }
    // As paths are typed: from the folder on, and a folder for what is in it.
    let plain = |pattern: &String| {
        let pattern = pattern.trim_start_matches("./").trim_start_matches('/');
        if pattern.ends_with('/') { format!("{pattern}**") } else { pattern.to_owned() }
    };
    let patterns: Vec<String> = patterns.iter().map(plain).collect();
    let globs = glob_set(&patterns).map_err(|problem| {
        Fault::new(Kind::Usage, format!("--file {problem}"))
            .hint("a pattern is like 2026/*.parquet")
    })?;
    inventory.0.retain(|path, _| globs.is_match(path.as_path()));
    if inventory.0.is_empty() {
        let message = "no file of this replica matches --file";
        let hint = "* does not cross folders: **/NAME finds a file in any folder, FOLDER/** all that is in one";
        return Err(Fault::new(Kind::Usage, message).hint(hint).into());
    }
    Ok(inventory)
}

/// The backups of a chain by their ids.
pub(super) type Links<'c, 's> = BTreeMap<BackupId, &'c BackupReader<'s>>;

pub(super) fn links<'c, 's>(chain: &'c Chain<'s>) -> Links<'c, 's> {
    chain.iter().map(|link| (link.manifest().id, link)).collect()
}

/// The backup and the object that hold a file. Both say what its content is, and have to say the same.
fn held_by<'c, 's>(
    links: &Links<'c, 's>,
    path: &RelativePath,
    file: &HeldFile,
    ctx: &Ctx,
) -> anyhow::Result<(&'c BackupReader<'s>, &'c ObjectRecord)> {
    let link = links.get(&file.backup).copied();
    let link = link.ok_or_else(|| broken(&format!("{} is not in its chain", file.backup)))?;
    let object = link.object_named(&file.object, ctx)?;
    let Plaintext { bytes, sha256 } = &object.plaintext;
    if (*bytes, sha256) != (file.bytes, &file.sha256) {
        return Err(broken(&format!("the object of `{path}` has other content")));
    }
    Ok((link, object))
}

/// Shows the content of a file to `look`.
///
/// # Errors
/// What `look` fails with; [`Kind::Integrity`] if the content is not the file's.
pub(super) fn read(
    links: &Links<'_, '_>,
    (path, file): (&RelativePath, &HeldFile),
    ctx: &Ctx,
    look: &mut dyn FnMut(&mut dyn Read) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let (link, _object) = held_by(links, path, file, ctx)?;
    link.named(&file.object, ctx, look)
}

/// Makes sure that every object is there before anything is made.
fn check(files: &Inventory, links: &Links<'_, '_>, ctx: &Ctx) -> anyhow::Result<()> {
    // Files of the same content share an object.
    let objects: BTreeMap<_, _> =
        files.0.iter().map(|item| ((item.1.backup, &item.1.object), item)).collect();
    let objects: Vec<_> = objects.into_values().collect();
    concurrent::each(&objects, &ctx.cancel, |(path, file)| {
        let (link, object) = held_by(links, path, file, ctx)?;
        link.check(object)
    })?;
    Ok(())
}

/// Writes every file below `tree`, durably. Folders are opened one below the other: a path may be as long as the
/// system takes, and that of the target comes before it.
fn make(files: &Inventory, links: &Links<'_, '_>, tree: &Path, ctx: &Ctx) -> anyhow::Result<()> {
    let failed = |path: &dyn std::fmt::Display, error: &dyn std::fmt::Display| {
        Fault::new(Kind::Failed, format!("cannot write `{path}`: {error}"))
    };
    let made = DirBuilder::new().mode(0o700).create(tree).map_err(Into::into);
    let root = made.and_then(|()| walk::open_root(tree).map_err(anyhow::Error::from));
    let root = root.map_err(|error| failed(&tree.display(), &error))?;
    let all: Vec<_> = files.0.iter().collect();
    concurrent::each_of_few(&all, AT_A_TIME, &ctx.cancel, |(path, file)| {
        read(links, (path, file), ctx, &mut |input| {
            write(input, &root, path, file).map_err(|error| failed(path, &error).into())
        })
    })?;
    let folders: BTreeSet<Vec<&[u8]>> = files.0.keys().flat_map(RelativePath::folders).collect();
    for folder in &folders {
        let synced = folder_at(&root, folder).and_then(rustix::fs::fsync);
        synced.map_err(|error| failed(&folder.join(&b'/').escape_ascii(), &error))?;
    }
    rustix::fs::fsync(&root).map_err(|error| failed(&tree.display(), &error))?;
    Ok(())
}

/// Opens a folder below `root`, and makes it and those that it is in where they are not there.
fn folder_at(root: &OwnedFd, names: &[&[u8]]) -> Result<OwnedFd, Errno> {
    let mut folder = root.try_clone().map_err(|_refused| Errno::MFILE)?;
    for name in names {
        match rustix::fs::mkdirat(&folder, *name, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
        folder = walk::open_folder(&folder, name)?;
    }
    Ok(folder)
}

fn write(
    input: &mut dyn Read,
    root: &OwnedFd,
    path: &RelativePath,
    held: &HeldFile,
) -> io::Result<()> {
    let mut names: Vec<&[u8]> = path.names().collect();
    let name = names.pop().ok_or(Errno::INVAL)?;
    let folder = folder_at(root, &names)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR;
    let mut file = File::from(rustix::fs::openat(&folder, name, flags, mode)?);
    io::copy(input, &mut file)?;
    if let Some(modified) = time(held.stat.modified) {
        file.set_modified(modified)?;
    }
    file.sync_all()
}

/// Refuses what is for replicas of a cluster.
///
/// # Errors
/// [`Kind::Usage`].
pub(super) fn guard(_record: &Value, request: &RestoreRequest) -> anyhow::Result<Vec<String>> {
    if request.replica.is_some() {
        let message = "a folder of files is not a replica of a cluster";
        return Err(Fault::new(Kind::Usage, message).hint("omit --replica").into());
    }
    Ok(Vec::new())
}

/// A time of so many nanoseconds since 1970.
fn time(nanos: i64) -> Option<SystemTime> {
    let length = Duration::from_nanos(nanos.unsigned_abs());
    if nanos < 0 { UNIX_EPOCH.checked_sub(length) } else { UNIX_EPOCH.checked_add(length) }
}
