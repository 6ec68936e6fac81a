//! From the files into objects.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::io::Errno;
use serde_json::json;

use super::footer::is_parquet;
use super::inventory::{FILES_MAX, HeldFile, Inventory};
use super::path::RelativePath;
use super::stable_read::{NotCopied, read, rows};
use super::walk::{self, FileStat, Listing, Patterns};
use crate::ctx::Ctx;
use crate::domain::id::BackupId;
use crate::domain::limits::OBJECTS_MAX;
use crate::pipeline::ROLE_DATA;
use crate::pipeline::objects::ObjectSink;
use crate::source::{Captured, ReplicaRequest, SourceError};

/// How often a file is read that is changed meanwhile.
const ATTEMPTS: u32 = 3;
/// For so long a Parquet file without a footer is taken for one that is being written, nanoseconds.
const WRITTEN_FOR: i64 = 600_000_000_000;
/// Bytes that are read at once.
const READ_BYTES: usize = 1 << 20;
/// Most things that are named one by one.
const NAMED_MAX: usize = 20;
/// Most files that a run copies: a backup has no more objects, and some are not files.
const COPIED_MAX: usize = OBJECTS_MAX - 16;

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

impl Replication<'_> {
    /// Copies what the chain does not have.
    ///
    /// # Errors
    /// [`SourceError`] if the folder cannot be read, or has lost all its files; what `out` failed with.
    pub(super) fn run(&self, out: &mut dyn ObjectSink) -> anyhow::Result<Captured> {
        let before = Inventory::of(self.request.chain, self.ctx)?;
        let root = walk::open_root(self.root)?;
        let listing = walk::list(&root, self.root, self.patterns, &self.ctx.cancel)?;
        self.check(&listing, &before)?;
        let mut contents: BTreeMap<u64, Vec<HeldFile>> = BTreeMap::new();
        for file in before.0.values() {
            contents.entry(file.bytes).or_default().push(file.clone());
        }
        let mut copying = Copying {
            root: &root,
            sealed: self.sealed,
            id: self.request.id,
            ctx: self.ctx,
            out,
            contents,
            now: i64::try_from(self.ctx.now().unix_timestamp_nanos()).unwrap_or(i64::MAX),
            copied: 0,
            copied_bytes: 0,
            failed: Vec::new(),
            unfinished: Vec::new(),
            buffer: vec![0; READ_BYTES],
        };
        let mut after = copying.files(&listing, &before)?;
        copying.failed.extend(keep_unknown(&listing, &before, &mut after));
        self.tell(&listing, &copying.unfinished);
        let changes = after.since(&before);
        let deleted = before.0.keys().filter(|path| !after.0.contains_key(*path)).count();
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
            "unfinished": copying.unfinished.len(),
        });
        let lost = shortened(copying.failed);
        let map = move |out: &mut dyn Write| after.write(&changes, out);
        Ok(Captured { record, map: Some(Box::new(map)), lost })
    }

    /// Refuses to record that everything was deleted: a disk that is not mounted looks like that.
    fn check(&self, listing: &Listing, before: &Inventory) -> Result<(), SourceError> {
        let what = self.root.display().to_string();
        if listing.files.len() > FILES_MAX {
            let reason = format!("it has more than {FILES_MAX} files");
            return Err(SourceError::Unsupported { what, reason });
        }
        let (lost, known) =
            (listing.files.is_empty() && listing.unreadable.is_empty(), before.0.len());
        if lost && known > 0 {
            let reason = format!("it has none of the {known} files that it had");
            let hint =
                "mount it; if all files were deleted on purpose, record it with --scope full";
            return Err(SourceError::Damaged { what, reason, hint: hint.into() });
        }
        Ok(())
    }

    fn tell(&self, listing: &Listing, unfinished: &[String]) {
        let monitor = &self.ctx.monitor;
        let links =
            listing.others.iter().map(|path| format!("`{path}` is no file and is not copied"));
        for line in shortened(links.collect()) {
            monitor.warn(&line);
        }
        for line in shortened(unfinished.to_vec()) {
            monitor.warn(&line);
        }
    }
}

/// Keeps what is known of files in folders that cannot be read now: they may all be there. Says which folders.
fn keep_unknown(listing: &Listing, before: &Inventory, after: &mut Inventory) -> Vec<String> {
    let mut said = Vec::new();
    for (folder, error) in &listing.unreadable {
        let known = before.0.iter().filter(|(path, _)| path.is_in(folder) || *path == folder);
        let known: Vec<_> = known.map(|(path, file)| (path.clone(), file.clone())).collect();
        said.push(format!(
            "`{folder}`, which cannot be read ({error}); {} files in it stay as they were",
            known.len()
        ));
        after.0.extend(known);
    }
    said
}

/// The first lines, and how many more there are.
fn shortened(mut lines: Vec<String>) -> Vec<String> {
    if lines.len() > NAMED_MAX {
        let more = lines.split_off(NAMED_MAX).len();
        lines.push(format!("{more} more like these"));
    }
    lines
}

/// What was read of a file.
struct Content {
    stat: FileStat,
    sha256: String,
    rows: Option<u64>,
    /// Why its footer says nothing.
    broken: Option<String>,
}

struct Copying<'a> {
    root: &'a OwnedFd,
    sealed: bool,
    id: BackupId,
    ctx: &'a Ctx,
    out: &'a mut dyn ObjectSink,
    /// What is held already, by size.
    contents: BTreeMap<u64, Vec<HeldFile>>,
    /// When the run looked at the folder, nanoseconds since 1970.
    now: i64,
    copied: usize,
    copied_bytes: u64,
    /// What is missing, in words.
    failed: Vec<String>,
    /// Files that the next run takes, in words.
    unfinished: Vec<String>,
    buffer: Vec<u8>,
}

impl Copying<'_> {
    fn files(&mut self, listing: &Listing, before: &Inventory) -> anyhow::Result<Inventory> {
        let mut after = Inventory::default();
        let mut left = 0;
        for (path, stat) in &listing.files {
            self.ctx.cancel.check()?;
            let known = before.0.get(path);
            if let Some(known) = known.filter(|known| known.settled && known.stat == *stat) {
                after.0.insert(path.clone(), known.clone());
                continue;
            }
            if self.copied >= COPIED_MAX {
                left += 1;
                after.0.extend(known.map(|known| (path.clone(), known.clone())));
                continue;
            }
            match self.file(path, known)? {
                Ok(held) => drop(after.0.insert(path.clone(), held)),
                Err(why) => {
                    let is_gone = matches!(why, NotCopied::Gone);
                    self.note(path, why, known.is_some());
                    // Of what is there and cannot be read, the last version that could be is kept.
                    let kept = known.filter(|_| !is_gone).cloned();
                    after.0.extend(kept.map(|known| (path.clone(), known)));
                }
            }
        }
        if left > 0 {
            let most = format!("{left} files more than the {COPIED_MAX} that a run copies");
            self.failed.push(format!("{most}: run it again"));
        }
        Ok(after)
    }

    fn note(&mut self, path: &RelativePath, why: NotCopied, known: bool) {
        let stays = if known { "; its last version stays" } else { "" };
        match why {
            NotCopied::Gone => {}
            NotCopied::Changed => {
                self.failed.push(format!("`{path}`, which was changed while it was read{stays}"));
            }
            NotCopied::Unreadable(error) => {
                self.failed.push(format!("`{path}`, which cannot be read ({error}){stays}"));
            }
            NotCopied::Unfinished(why) => self.unfinished.push(format!(
                "`{path}` is still being written ({why}); the next run takes it{stays}"
            )),
        }
    }

    /// Copies a file, unless its content is held already. The inner error leaves the others.
    fn file(
        &mut self,
        path: &RelativePath,
        known: Option<&HeldFile>,
    ) -> anyhow::Result<Result<HeldFile, NotCopied>> {
        let mut last = NotCopied::Changed;
        for _ in 0..ATTEMPTS {
            self.ctx.cancel.check()?;
            match self.attempt(path, known)? {
                Err(NotCopied::Changed) => last = NotCopied::Changed,
                done => return Ok(done),
            }
        }
        Ok(Err(last))
    }

    fn attempt(
        &mut self,
        path: &RelativePath,
        known: Option<&HeldFile>,
    ) -> anyhow::Result<Result<HeldFile, NotCopied>> {
        let opened = walk::open_file(self.root, path).and_then(|file| {
            let stat = FileStat::of_file(&file)?;
            Ok((file, stat))
        });
        let (file, stat) = match opened {
            Ok(opened) => opened,
            Err(Errno::NOENT) => return Ok(Err(NotCopied::Gone)),
            // What was a file is a link or a folder now: the next look at the folder will say.
            Err(Errno::LOOP | Errno::NOTDIR | Errno::ISDIR | Errno::NXIO) => {
                return Ok(Err(NotCopied::Changed));
            }
            Err(error) => return Ok(Err(NotCopied::Unreadable(error.into()))),
        };
        let (rows, broken) = match rows(&file, path, &stat) {
            Ok(rows) => (rows, None),
            Err(why) if self.now.saturating_sub(stat.modified) < WRITTEN_FOR => {
                return Ok(Err(NotCopied::Unfinished(why)));
            }
            Err(why) => (None, Some(why)),
        };
        let content = Content { stat, sha256: String::new(), rows, broken };
        let may_be_held = known.is_some_and(|known| known.bytes == stat.bytes)
            || self.contents.contains_key(&stat.bytes);
        if may_be_held {
            let sha256 = match self.read(&file, path, &stat, &mut std::io::sink())? {
                Ok(sha256) => sha256,
                Err(why) => return Ok(Err(why)),
            };
            let held = self.contents.get(&stat.bytes).into_iter().flatten();
            if let Some(held) = held.into_iter().find(|held| held.sha256 == sha256) {
                let (backup, object) = (held.backup, held.object.clone());
                let content = Content { sha256, ..content };
                return Ok(Ok(self.held(content, backup, object)));
            }
        }
        self.copy(&file, path, content)
    }

    /// Makes the object of a file.
    fn copy(
        &mut self,
        file: &File,
        path: &RelativePath,
        mut content: Content,
    ) -> anyhow::Result<Result<HeldFile, NotCopied>> {
        let name = object_name(self.copied + 1, path, self.sealed);
        let mut outcome = None;
        let (sealed, stat, ctx) = (self.sealed, content.stat, self.ctx);
        let mut buffer = std::mem::take(&mut self.buffer);
        let made = self.out.object(ROLE_DATA, &name, sealed, &mut |out| {
            let read = read(file, (path, &stat), self.root, out, &mut buffer, ctx)?;
            let is_whole = read.is_ok();
            outcome = Some(read);
            // An error leaves no object.
            if is_whole { Ok(()) } else { Err(anyhow::anyhow!("it was not read")) }
        });
        self.buffer = buffer;
        match (outcome, made) {
            (Some(Ok(sha256)), Ok(())) => content.sha256 = sha256,
            (Some(Err(why)), Err(_)) => return Ok(Err(why)),
            (_, made) => return made.map(|()| Err(NotCopied::Changed)),
        }
        self.copied += 1;
        self.copied_bytes = self.copied_bytes.saturating_add(content.stat.bytes);
        if let Some(why) = &content.broken {
            self.failed.push(format!(
                "a whole `{path}`: {why}, so it is no Parquet file; it was copied as it is"
            ));
        }
        let object = if self.sealed { format!("{name}.enc") } else { name };
        let held = self.held(content, self.id, object);
        self.contents.entry(held.bytes).or_default().push(held.clone());
        Ok(Ok(held))
    }

    fn held(&self, content: Content, backup: BackupId, object: String) -> HeldFile {
        let Content { stat, sha256, rows, broken: _ } = content;
        let settled = stat.is_settled(self.now);
        HeldFile { bytes: stat.bytes, sha256, rows, backup, object, stat, settled }
    }

    fn read(
        &mut self,
        file: &File,
        path: &RelativePath,
        stat: &FileStat,
        out: &mut dyn Write,
    ) -> anyhow::Result<Result<String, NotCopied>> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let read = read(file, (path, stat), self.root, out, &mut buffer, self.ctx);
        self.buffer = buffer;
        read
    }
}

/// What the key of a file's object has after the backup's id. The name of a sealed file stays sealed.
fn object_name(number: usize, path: &RelativePath, sealed: bool) -> String {
    match (sealed, is_parquet(path)) {
        (false, _) => format!("{number:05}.{}", path.plain_name()),
        (true, true) => format!("{number:05}.parquet"),
        (true, false) => format!("{number:05}"),
    }
}
