//! From the files of the folder into objects: which of them are copied, and what is said of the others.

use std::collections::BTreeSet;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::Path;

use serde_json::json;

use super::copying::Copying;
use super::inventory::{FILES_MAX, HeldFile, Inventory};
use super::path::RelativePath;
use super::stable_read::NotCopied;
use super::walk::{self, FileStat, Listing, Patterns};
use crate::ctx::Ctx;
use crate::domain::id::BackupId;
use crate::domain::limits::OBJECTS_MAX;
use crate::error::Fault;
use crate::pipeline::objects::ObjectSink;
use crate::source::{Captured, ReplicaRequest, SourceError};

/// How often the folder is listed where files were moved meanwhile.
const LISTINGS_MAX: u32 = 3;
/// Most things that are named one by one.
const NAMED_MAX: usize = 20;
/// Most files that a run copies: a backup has no more objects, and some are not files.
const COPIED_MAX: usize = OBJECTS_MAX - 16;
/// Most files that a run copies again because it builds on a link further back: new ones need room, too.
pub(super) const CARRIED_MAX: usize = COPIED_MAX / 2;

/// Which files, and where they go.
pub(super) struct Replication<'a> {
    /// The folder.
    pub(super) root: &'a Path,
    /// Which of its files.
    pub(super) patterns: &'a Patterns,
    /// Whether their objects are sealed.
    pub(super) sealed: bool,
    /// What it adds to.
    pub(super) request: &'a ReplicaRequest<'a>,
    /// Clock, cancellation and messages.
    pub(super) ctx: &'a Ctx,
}

/// What a run says besides the files that it holds.
#[derive(Default)]
struct Messages {
    /// What is missing.
    lost: Vec<String>,
    /// What the next run takes.
    unfinished: Vec<String>,
}

impl Replication<'_> {
    /// Copies what the chain does not have.
    ///
    /// # Errors
    /// [`SourceError`] if the folder cannot be read, or has lost all its files; what `out` failed with.
    pub(super) fn run(&self, out: &mut dyn ObjectSink) -> anyhow::Result<Captured> {
        let ReplicaRequest { chain, skipped, .. } = *self.request;
        let built_on = Inventory::of(chain, self.ctx)?;
        // What the folder was like the last time, whichever link this replica builds on.
        let newest = built_on.clone().followed_by(skipped, self.ctx)?;
        let root = walk::open_root(self.root)?;
        let ids: BTreeSet<BackupId> = chain.iter().map(|link| link.manifest().id).collect();
        let held = newest.0.values().filter(|file| ids.contains(&file.backup));
        let held: Vec<&HeldFile> = built_on.0.values().chain(held).collect();
        let mut copying = Copying::new(&root, self.sealed, self.request, (out, self.ctx), &held);
        let (after, messages) = self.take(&root, &mut copying, &newest, &ids)?;
        let changes = after.since(&built_on);
        let deleted = newest.0.keys().filter(|path| !after.0.contains_key(*path)).count();
        for line in shortened(messages.unfinished.clone()) {
            self.ctx.monitor.warn(&line);
        }
        let record = json!({
            "mode": "online",
            "consistency": "file by file",
            "path": self.root.display().to_string(),
            "files": after.0.len(),
            "bytes": after.bytes(),
            "rows": after.rows(),
            "copied": copying.copied,
            "copied_bytes": copying.copied_bytes,
            "deleted": deleted,
            "unfinished": messages.unfinished.len(),
        });
        let lost = shortened(messages.lost);
        let map = move |out: &mut dyn Write| after.write(&changes, out);
        Ok(Captured { record, map: Some(Box::new(map)), lost })
    }

    /// Takes every file that is listed. A file that is moved meanwhile may be listed nowhere, or be gone when it is
    /// to be read: the folder is listed again then.
    fn take(
        &self,
        root: &OwnedFd,
        copying: &mut Copying<'_>,
        newest: &Inventory,
        ids: &BTreeSet<BackupId>,
    ) -> anyhow::Result<(Inventory, Messages)> {
        let (mut after, mut listed_before) = (Inventory::default(), None);
        let is_carried = |file: &&HeldFile| !ids.contains(&file.backup);
        let slots = COPIED_MAX.saturating_sub(newest.0.values().filter(is_carried).count());
        let mut listings = 0;
        loop {
            listings += 1;
            let listing = walk::list(root, self.root, self.patterns, &self.ctx.cancel)?;
            self.check(&listing, newest)?;
            let mut messages = Messages::default();
            let listed: BTreeSet<RelativePath> =
                listing.files.iter().map(|(path, _)| path.clone()).collect();
            let mut taken = Inventory::default();
            let mut gone = Vec::new();
            for (path, stat) in &listing.files {
                self.ctx.cancel.check()?;
                let known = after.0.remove(path).or_else(|| newest.0.get(path).cloned());
                match self.file(copying, (path, stat), known.as_ref(), (ids, slots))? {
                    Ok(file) => drop(taken.0.insert(path.clone(), file)),
                    Err(NotCopied::Gone) => gone.push(path),
                    Err(why) => {
                        // Of what is there and cannot be read, the last version that could be is kept.
                        let kept = known.map(|known| copying.keep(path, known)).transpose()?;
                        let kept = messages.kept(path, kept);
                        messages.note(path, &why, kept.is_some());
                        taken.0.extend(kept.map(|kept| (path.clone(), kept)));
                    }
                }
            }
            let vanished = newest.0.keys().any(|path| !listed.contains(path));
            after = taken;
            let is_news = !gone.is_empty() || listed_before.as_ref() != Some(&listed);
            if listings < LISTINGS_MAX && is_news && (vanished || !gone.is_empty()) {
                listed_before = Some(listed);
                continue;
            }
            let gone =
                gone.iter().map(|path| format!("`{path}`, which was moved or deleted meanwhile"));
            messages.lost.extend(gone);
            self.keep_unknown(copying, &listing, newest, (&mut after, &mut messages))?;
            messages.lost.append(&mut copying.broken);
            messages.of_others(&listing, self.ctx);
            return Ok((after, messages));
        }
    }

    /// Takes a file, unless it is known and unchanged. The inner error leaves the others.
    fn file(
        &self,
        copying: &mut Copying<'_>,
        (path, stat): (&RelativePath, &FileStat),
        known: Option<&HeldFile>,
        (ids, slots): (&BTreeSet<BackupId>, usize),
    ) -> anyhow::Result<Result<HeldFile, NotCopied>> {
        let is_held =
            |file: &HeldFile| ids.contains(&file.backup) || file.backup == self.request.id;
        let is_carried = known.is_some_and(|known| !is_held(known));
        match known.filter(|known| known.stat == *stat && is_held(known)) {
            // What this run has read itself it need not read again.
            Some(known) if known.settled || copying.has_read(path, stat) => Ok(Ok(known.clone())),
            // For those that are carried there is room.
            _ if copying.copied >= slots && !is_carried => Ok(Err(NotCopied::TooMany)),
            _ => copying.file(path, known),
        }
    }

    /// Refuses to record that everything was deleted: a disk that is not mounted looks like that.
    fn check(&self, listing: &Listing, newest: &Inventory) -> Result<(), SourceError> {
        let what = self.root.display().to_string();
        if listing.files.len() > FILES_MAX {
            let reason = format!("it has more than {FILES_MAX} files");
            return Err(SourceError::Unsupported { what, reason });
        }
        let known = newest.0.len();
        if listing.files.is_empty() && listing.unreadable.is_empty() && known > 0 {
            let reason = format!("it has none of the {known} files that it had");
            let hint =
                "mount it; if all files were deleted on purpose, record it with --scope full";
            return Err(SourceError::Damaged { what, reason, hint: hint.into() });
        }
        Ok(())
    }

    /// Keeps what is known of files in folders that cannot be read now: they may all be there.
    fn keep_unknown(
        &self,
        copying: &mut Copying<'_>,
        listing: &Listing,
        newest: &Inventory,
        (after, messages): (&mut Inventory, &mut Messages),
    ) -> anyhow::Result<()> {
        for (folder, why) in &listing.unreadable {
            self.ctx.cancel.check()?;
            let mut kept = 0;
            for (path, file) in &newest.0 {
                let is_unknown = path.is_in(folder) || path == folder;
                // What was read of the folder before it could not be is newer.
                let is_taken =
                    |other: &RelativePath| other == path || other.is_in(path) || path.is_in(other);
                if is_unknown && !after.0.keys().any(is_taken) {
                    let file = messages.kept(path, Some(copying.keep(path, file.clone())?));
                    kept += usize::from(file.is_some());
                    after.0.extend(file.map(|file| (path.clone(), file)));
                }
            }
            messages.lost.push(format!(
                "`{folder}`, which cannot be read ({why}); {kept} file(s) in it stay as they were"
            ));
        }
        Ok(())
    }
}

impl Messages {
    /// The last version of a file, or what is said of one that its backup does not give back.
    fn kept(
        &mut self,
        path: &RelativePath,
        kept: Option<Result<HeldFile, Fault>>,
    ) -> Option<HeldFile> {
        match kept? {
            Ok(kept) => Some(kept),
            Err(damage) => {
                self.lost.push(format!("the last version of `{path}`: {damage}"));
                None
            }
        }
    }

    /// Says why a file is not in the backup as it is now.
    fn note(&mut self, path: &RelativePath, why: &NotCopied, known: bool) {
        let stays = if known { "; its last version stays" } else { "" };
        let current = if known { "the current " } else { "" };
        let lost = match why {
            NotCopied::Gone => return,
            NotCopied::Unfinished(why) => {
                return self.unfinished.push(format!(
                    "`{path}` is still being written ({why}); the next run copies it{stays}"
                ));
            }
            NotCopied::Changed => {
                format!("{current}`{path}`, which changed while it was read{stays}")
            }
            NotCopied::Unreadable(error) => {
                format!("{current}`{path}`, which cannot be read ({error}){stays}")
            }
            NotCopied::TooMany => {
                format!("{current}`{path}`: a run copies {COPIED_MAX} files; run it again{stays}")
            }
        };
        self.lost.push(lost);
    }

    /// Says what in the folder is no file, or has a path that no backup can have.
    fn of_others(&mut self, listing: &Listing, ctx: &Ctx) {
        let others = listing.others.iter();
        let others = others.map(|path| format!("`{path}` is not a regular file and is not copied"));
        for line in shortened(others.collect()) {
            ctx.monitor.warn(&line);
        }
        self.lost.extend(listing.unnamed.iter().cloned());
    }
}

/// The first lines, and how many more there are.
fn shortened(mut lines: Vec<String>) -> Vec<String> {
    if lines.len() > NAMED_MAX {
        let more = lines.split_off(NAMED_MAX).len();
        lines.push(format!("{more} more like these"));
    }
    lines
}
