//! From the objects back to a folder.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::inventory::{HeldFile, Inventory, broken};
use super::path::RelativePath;
use super::walk::glob_set;
use crate::concurrent;
use crate::ctx::Ctx;
use crate::domain::id::BackupId;
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
    let globs = glob_set(patterns).map_err(|problem| {
        Fault::new(Kind::Usage, format!("--file {problem}"))
            .hint("a pattern is like 2026/*.parquet")
    })?;
    inventory.0.retain(|path, _| globs.is_match(path.as_path()));
    if inventory.0.is_empty() {
        let message = "no file of this replica fits --file";
        let hint = "* does not cross folders: **/NAME finds a file wherever it is";
        return Err(Fault::new(Kind::Usage, message).hint(hint).into());
    }
    Ok(inventory)
}

/// The backups of a chain by their ids.
pub(super) type Links<'c, 's> = BTreeMap<BackupId, &'c BackupReader<'s>>;

pub(super) fn links<'c, 's>(chain: &'c Chain<'s>) -> Links<'c, 's> {
    chain.iter().map(|link| (link.manifest().id, link)).collect()
}

/// The backup that holds a file.
pub(super) fn holder<'c, 's>(
    links: &Links<'c, 's>,
    file: &HeldFile,
) -> anyhow::Result<&'c BackupReader<'s>> {
    let link = links.get(&file.backup).copied();
    link.ok_or_else(|| broken(&format!("{} is not in its chain", file.backup)))
}

/// Makes sure that every object is there before anything is made.
pub(super) fn check(files: &Inventory, links: &Links<'_, '_>, ctx: &Ctx) -> anyhow::Result<()> {
    let objects: BTreeSet<(BackupId, &str)> =
        files.0.values().map(|file| (file.backup, file.object.as_str())).collect();
    let objects: Vec<_> = objects.into_iter().collect();
    concurrent::each(&objects, &ctx.cancel, |(backup, object)| match links.get(backup) {
        Some(link) => link.check_named(object, ctx),
        None => Err(broken(&format!("{backup} is not in its chain"))),
    })?;
    Ok(())
}

/// Writes every file below `tree`, durably.
fn make(files: &Inventory, links: &Links<'_, '_>, tree: &Path, ctx: &Ctx) -> anyhow::Result<()> {
    let failed = |path: &Path, error: &io::Error| {
        Fault::new(Kind::Failed, format!("cannot write {}: {error}", path.display()))
    };
    let mut folders = vec![tree.to_owned()];
    let known: BTreeSet<PathBuf> =
        files.0.keys().flat_map(RelativePath::folders).map(|folder| tree.join(folder)).collect();
    folders.extend(known);
    for folder in &folders {
        let made = DirBuilder::new().mode(0o700).create(folder);
        made.map_err(|error| failed(folder, &error))?;
    }
    let all: Vec<_> = files.0.iter().collect();
    concurrent::some(&all, AT_A_TIME, &ctx.cancel, |(path, file)| {
        let target = tree.join(path.as_path());
        let link = holder(links, file)?;
        link.named(&file.object, ctx, &mut |input| {
            write(input, &target, file).map_err(|error| failed(&target, &error).into())
        })?;
        let digest = link.plaintext_of(&file.object, ctx)?;
        let is_it = digest.is_some_and(|found| found == (file.bytes, file.sha256.as_str()));
        if is_it {
            Ok(())
        } else {
            Err(broken(&format!("the object of `{path}` is of another file")))
        }
    })?;
    for folder in folders.iter().rev() {
        let synced = File::open(folder).and_then(|folder| folder.sync_all());
        synced.map_err(|error| failed(folder, &error))?;
    }
    Ok(())
}

fn write(input: &mut dyn Read, target: &Path, held: &HeldFile) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(target)?;
    io::copy(input, &mut file)?;
    file.flush()?;
    if let Some(modified) = time(held.stat.modified) {
        file.set_modified(modified)?;
    }
    file.sync_all()
}

/// A time of so many nanoseconds since 1970.
fn time(nanos: i64) -> Option<SystemTime> {
    let length = Duration::from_nanos(nanos.unsigned_abs());
    if nanos < 0 { UNIX_EPOCH.checked_sub(length) } else { UNIX_EPOCH.checked_add(length) }
}
