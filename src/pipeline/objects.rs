//! Backups of several objects: an export has one for each table, so that other programs can read
//! them where they are stored.
//!
//! While a store confirms one object the next one is made: with many tables, or far away, waiting
//! would take most of the time.

use std::io::{Read, Write};
use std::thread::{self, JoinHandle};

use super::{BackupReader, ObjectBuilder, SinkWriter, record};
use crate::archive::EntrySink;
use crate::ctx::Ctx;
use crate::domain::manifest::ObjectRecord;
use crate::error::{Fault, FirstError, Kind};
use crate::stage::Compression;
use crate::stage::digest::{Digest, UploadSink};
use crate::stage::thread_boundary::ThreadBoundary;
use crate::stage::{ChainStats, Sink, StageError, StageStats};
use crate::store::Role;

/// Chunks that wait for the thread that hashes and stores.
const HOP_DEPTH: usize = 8;

/// Writes the content of an object.
pub type ObjectBody<'b> = dyn FnMut(&mut dyn Write) -> anyhow::Result<()> + 'b;

/// Takes the objects of an export, one at a time.
pub trait ObjectSink {
    /// Makes an object whose content `body` writes. `name` becomes a part of its key: ASCII letters,
    /// digits, `-`, `_` and `.`. Only if it is `sealed` does it get a seal, and `.enc` after its name.
    ///
    /// # Errors
    /// What `body`, a stage or the store failed with; the export must end then.
    fn object(
        &mut self,
        role: &str,
        name: &str,
        sealed: bool,
        body: &mut ObjectBody<'_>,
    ) -> anyhow::Result<()>;

    /// Makes the archive of the export, sealed: what only bkp itself reads again, at the next increment
    /// already. A store keeps it where it can be read at any time.
    ///
    /// # Errors
    /// As [`ObjectSink::object`].
    fn archive(
        &mut self,
        push: &mut dyn FnMut(&mut dyn EntrySink) -> anyhow::Result<()>,
    ) -> anyhow::Result<()>;
}

/// Makes the objects of one backup, one after the other.
#[derive(Debug)]
pub struct Objects<'a> {
    builder: &'a ObjectBuilder<'a>,
    made: Vec<ObjectRecord>,
    busy: ChainStats,
    ending: Option<Ending>,
}

/// An object of which everything was written, and which is being confirmed on a thread of its own.
#[derive(Debug)]
struct Ending {
    role: String,
    key: String,
    sealed: bool,
    thread: JoinHandle<anyhow::Result<ChainStats>>,
}

impl<'a> Objects<'a> {
    /// No object yet; all will be made by this recipe.
    #[must_use]
    pub fn new(builder: &'a ObjectBuilder<'a>) -> Self {
        Objects { builder, made: Vec::new(), busy: ChainStats::default(), ending: None }
    }

    /// What was made, all of it confirmed, and how long each stage was busy with it.
    ///
    /// # Errors
    /// What the last object failed with.
    pub fn finish(mut self) -> anyhow::Result<(Vec<ObjectRecord>, ChainStats)> {
        self.end()?;
        Ok((std::mem::take(&mut self.made), std::mem::take(&mut self.busy)))
    }

    /// Waits until the object that is ending is confirmed.
    fn end(&mut self) -> anyhow::Result<()> {
        let Some(Ending { role, key, sealed, thread }) = self.ending.take() else { return Ok(()) };
        let ended = thread.join();
        let trail =
            ended.unwrap_or_else(|_panic| Err(StageError::Stopped { stage: "end" }.into()))?;
        let stages = sealed.then_some("seal").into_iter();
        self.made.push(record(&role, key, &trail, stages, self.builder.store)?);
        self.note(&trail);
        Ok(())
    }

    fn note(&mut self, trail: &ChainStats) {
        for StageStats { stage, busy, .. } in &trail.0 {
            let known = self.busy.0.iter_mut().find(|measure| measure.stage == *stage);
            if let Some(measure) = known {
                measure.busy += *busy;
            } else {
                self.busy.0.push(StageStats { stage, bytes: 0, sha256: None, busy: *busy });
            }
        }
    }

    /// The chain of an object that is stored as it is.
    fn plain(&self, key: &str) -> anyhow::Result<Box<dyn Sink>> {
        let upload = self.builder.store.create(key, &self.builder.labels(Role::Data))?;
        let stored = Box::new(UploadSink::new("stored", upload));
        Ok(Box::new(Digest::new(
            "plaintext",
            Box::new(ThreadBoundary::new("store", HOP_DEPTH, stored)?),
        )))
    }
}

impl ObjectSink for Objects<'_> {
    fn object(
        &mut self,
        role: &str,
        name: &str,
        sealed: bool,
        body: &mut ObjectBody<'_>,
    ) -> anyhow::Result<()> {
        if self.ending.as_ref().is_some_and(|ending| ending.thread.is_finished()) {
            self.end()?;
        }
        let extension = if sealed { format!("{name}.enc") } else { name.to_owned() };
        let key = self.builder.name.key(&extension);
        let sink = if sealed {
            self.builder.chain(&key, Role::Data, Compression::None)?
        } else {
            self.plain(&key)?
        };
        let blame = FirstError::default();
        let mut out = SinkWriter { sink, blame: blame.clone() };
        body(&mut out).map_err(|error| blame.or(error))?;
        // One at a time: each holds buffers.
        self.end()?;
        let sink = out.sink;
        let thread = thread::Builder::new().name("end".into()).spawn(move || sink.finish())?;
        self.ending = Some(Ending { role: role.to_owned(), key, sealed, thread });
        Ok(())
    }

    fn archive(
        &mut self,
        push: &mut dyn FnMut(&mut dyn EntrySink) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        // It holds Parquet, which is compressed.
        let builder = ObjectBuilder { compression: Compression::None, ..*self.builder };
        let (object, trail, ()) = builder.archive(Role::Index, |out| push(out))?;
        self.end()?;
        self.made.push(object);
        self.note(&trail);
        Ok(())
    }
}

impl Drop for Objects<'_> {
    fn drop(&mut self) {
        // Whoever drops this has an error already; what is stored meanwhile belongs to no backup.
        let _abandoned = self.end();
    }
}

impl BackupReader<'_> {
    /// Shows the content of the object with this extension to `look`. When this returns without an
    /// error, every byte was that of the manifest.
    ///
    /// # Errors
    /// [`Kind::Integrity`] if the backup has no such object; as [`BackupReader::entries`].
    pub fn named(
        &self,
        extension: &str,
        ctx: &Ctx,
        look: &mut dyn FnMut(&mut dyn Read) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let key = self.manifest().name().key(extension);
        let found = self.manifest().objects.iter().find(|object| object.key == key);
        let object = found.ok_or_else(|| {
            Fault::new(Kind::Integrity, format!("object `{key}` is not in the manifest"))
        })?;
        self.read(object, ctx, &mut |input, _blame| look(input))
    }
}
