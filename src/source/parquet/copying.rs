//! From one file into one object, unless its content is held already.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;

use rustix::io::Errno;

use super::footer::is_parquet;
use super::inventory::{HeldFile, broken};
use super::path::RelativePath;
use super::stable_read::{NotCopied, read, rows};
use super::walk::{self, FileStat};
use crate::ctx::Ctx;
use crate::domain::id::BackupId;
use crate::error::{Fault, Kind, diagnose};
use crate::pipeline::ROLE_DATA;
use crate::pipeline::objects::ObjectSink;
use crate::source::{Chain, ReplicaRequest};

/// How often a file is read that is changed meanwhile.
const ATTEMPTS: u32 = 3;
/// For so long a Parquet file without a footer is taken for one that is being written, nanoseconds.
const WRITING_FOR: i64 = 600_000_000_000;
/// Bytes that are read at once.
const READ_BYTES: usize = 1 << 20;

/// What was read of a file.
struct Content {
    stat: FileStat,
    sha256: String,
    rows: Option<u64>,
    /// Why its footer says nothing.
    broken: Option<String>,
}

/// Where an object is: the backup that has it, and what its key has after the backup's id.
type ObjectPlace = (BackupId, String);

/// Makes the objects of a replica.
pub(super) struct Copying<'a> {
    root: &'a OwnedFd,
    sealed: bool,
    id: BackupId,
    ctx: &'a Ctx,
    out: &'a mut dyn ObjectSink,
    /// Links that are not built on, from which last versions are copied.
    skipped: &'a Chain<'a>,
    /// The objects that are held already, by size and SHA-256 of their content.
    contents: HashMap<(u64, String), ObjectPlace>,
    sizes: HashSet<u64>,
    /// What this run has read.
    seen: BTreeMap<RelativePath, FileStat>,
    /// When the run began, nanoseconds since 1970.
    now: i64,
    /// Files that it copied.
    pub(super) copied: usize,
    /// Sum of their sizes.
    pub(super) copied_bytes: u64,
    /// Parquet files that were copied and are none, in words.
    pub(super) broken: Vec<String>,
    buffer: Vec<u8>,
}

impl<'a> Copying<'a> {
    /// A run that has copied nothing yet; `held` are the files whose objects it can refer to.
    pub(super) fn new(
        root: &'a OwnedFd,
        sealed: bool,
        request: &ReplicaRequest<'a>,
        (out, ctx): (&'a mut dyn ObjectSink, &'a Ctx),
        held: &[&HeldFile],
    ) -> Copying<'a> {
        let place = |file: &&HeldFile| {
            ((file.bytes, file.sha256.clone()), (file.backup, file.object.clone()))
        };
        Copying {
            root,
            sealed,
            id: request.id,
            ctx,
            out,
            skipped: request.skipped,
            contents: held.iter().map(place).collect(),
            sizes: held.iter().map(|file| file.bytes).collect(),
            seen: BTreeMap::new(),
            now: i64::try_from(ctx.now().unix_timestamp_nanos()).unwrap_or(i64::MAX),
            copied: 0,
            copied_bytes: 0,
            broken: Vec::new(),
            buffer: vec![0; READ_BYTES],
        }
    }

    /// Whether this run has read a file as it is.
    pub(super) fn has_read(&self, path: &RelativePath, stat: &FileStat) -> bool {
        self.seen.get(path) == Some(stat)
    }

    /// Copies a file, unless its content is held already. The inner error leaves the others.
    pub(super) fn file(
        &mut self,
        path: &RelativePath,
        known: Option<&HeldFile>,
    ) -> anyhow::Result<Result<HeldFile, NotCopied>> {
        for _ in 0..ATTEMPTS {
            self.ctx.cancel.check()?;
            match self.attempt(path, known)? {
                Err(NotCopied::Changed) => {}
                done => return Ok(done),
            }
        }
        Ok(Err(NotCopied::Changed))
    }

    /// A version of a file as it was known, with an object that this replica can refer to. The inner error says
    /// that its object is damaged, which must not keep anybody from the other files.
    ///
    /// # Errors
    /// What reading the object from its link fails with otherwise, or making it anew.
    pub(super) fn keep(
        &mut self,
        path: &RelativePath,
        known: HeldFile,
    ) -> anyhow::Result<Result<HeldFile, Fault>> {
        match self.carry(path, known) {
            Err(error) if diagnose(&error).kind == Kind::Integrity => {
                Ok(Err(Fault::new(Kind::Integrity, format!("{error:#}"))))
            }
            carried => carried.map(Ok),
        }
    }

    fn carry(&mut self, path: &RelativePath, known: HeldFile) -> anyhow::Result<HeldFile> {
        let content = (known.bytes, known.sha256.clone());
        if let Some((backup, object)) = self.contents.get(&content).cloned() {
            return Ok(HeldFile { backup, object, ..known });
        }
        let (skipped, ctx) = (self.skipped, self.ctx);
        let link = skipped.iter().find(|link| link.manifest().id == known.backup);
        let link = link.ok_or_else(|| broken(&format!("{} is not in its chain", known.backup)))?;
        let name = self.object_name(path);
        self.out.object(ROLE_DATA, &name, self.sealed, &mut |out| {
            link.named(&known.object, ctx, &mut |input| {
                std::io::copy(input, out)?;
                Ok(())
            })
        })?;
        let (backup, object) = self.count(content, name);
        Ok(HeldFile { backup, object, ..known })
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
            Err(why) => return Ok(Err(why)),
            Ok(Ok(rows)) => (rows, None),
            Ok(Err(why)) if self.is_being_written(&stat) => {
                return Ok(Err(NotCopied::Unfinished(why)));
            }
            Ok(Err(why)) => (None, Some(why)),
        };
        let content = Content { stat, sha256: String::new(), rows, broken };
        if self.sizes.contains(&stat.bytes) {
            let sha256 = match self.read(&file, path, &stat, &mut std::io::sink())? {
                Ok(sha256) => sha256,
                Err(why) => return Ok(Err(why)),
            };
            if let Some(place) = self.contents.get(&(stat.bytes, sha256.clone())).cloned() {
                // What was named with this content is not named again.
                let is_known = known.is_some_and(|known| known.sha256 == sha256);
                let broken = content.broken.filter(|_| !is_known);
                return Ok(Ok(self.held(path, Content { sha256, broken, ..content }, place)));
            }
        }
        self.copy(&file, path, content)
    }

    /// Whether a file may be one whose writer has not ended it. Where its time lies in the future, the system's own
    /// counts.
    fn is_being_written(&self, stat: &FileStat) -> bool {
        let since = if stat.modified > self.now { stat.changed } else { stat.modified };
        (0..WRITING_FOR).contains(&self.now.saturating_sub(since))
    }

    /// Makes the object of a file.
    fn copy(
        &mut self,
        file: &File,
        path: &RelativePath,
        mut content: Content,
    ) -> anyhow::Result<Result<HeldFile, NotCopied>> {
        let name = self.object_name(path);
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
        let place = self.count((content.stat.bytes, content.sha256.clone()), name);
        Ok(Ok(self.held(path, content, place)))
    }

    /// Counts an object that was made, and knows its content from now on.
    fn count(&mut self, content: (u64, String), name: String) -> ObjectPlace {
        self.copied += 1;
        self.copied_bytes = self.copied_bytes.saturating_add(content.0);
        let object = if self.sealed { format!("{name}.enc") } else { name };
        self.sizes.insert(content.0);
        self.contents.insert(content, (self.id, object.clone()));
        (self.id, object)
    }

    fn held(
        &mut self,
        path: &RelativePath,
        content: Content,
        (backup, object): ObjectPlace,
    ) -> HeldFile {
        let Content { stat, sha256, rows, broken } = content;
        if let Some(why) = broken {
            self.broken
                .push(format!("a valid Parquet file `{path}`: {why}; it was copied unchanged"));
        }
        self.seen.insert(path.clone(), stat);
        let settled = stat.is_settled(self.now);
        HeldFile { bytes: stat.bytes, sha256, rows, backup, object, stat, settled }
    }

    /// What the key of the next object has after the backup's id. The name of a sealed file stays sealed.
    fn object_name(&self, path: &RelativePath) -> String {
        let number = self.copied + 1;
        match (self.sealed, is_parquet(path)) {
            (false, _) => format!("{number:05}.{}", path.plain_name()),
            (true, true) => format!("{number:05}.parquet"),
            (true, false) => format!("{number:05}"),
        }
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
