//! Backups of several objects: an export has one for each table, so that other programs can read
//! them where they are stored.
//!
//! While a store confirms some objects the next one is made: with many of them, or far away, waiting would
//! take most of the time.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::thread::{self, JoinHandle};

use super::object_list;
use super::reader::stored as stored_bytes;
use super::resealing::or_left;
use super::{BackupReader, ObjectBuilder, ROLE_DATA, SinkWriter, record, spelled};
use crate::archive::EntrySink;
use crate::ctx::Ctx;
use crate::domain::limits::{OBJECTS_IN_MANIFEST_MAX, OBJECTS_MAX};
use crate::domain::manifest::{ObjectRecord, ROLE_OBJECTS};
use crate::error::{Fault, FirstError, Kind};
use crate::stage::Compression;
use crate::stage::digest::{Digest, UploadSink, drain};
use crate::stage::thread_boundary::ThreadBoundary;
use crate::stage::{ChainStats, Sink, StageError, StageStats, zstd};
use crate::store::{Role, StoreError};

/// Chunks that wait for the thread that hashes and stores.
const HOP_DEPTH: usize = 8;

/// Level of the compression of a list of objects.
const LIST_LEVEL: i32 = 3;
/// Most objects that are being confirmed at a time.
const CONFIRMING_MAX: usize = 8;
/// Most bytes of several objects that are being confirmed at a time: a store may hold what it has not
/// confirmed. A larger object is alone.
const CONFIRMING_BYTES_MAX: u64 = 32 << 20;

/// Writes the content of an object.
pub type ObjectBody<'b> = dyn FnMut(&mut dyn Write) -> anyhow::Result<()> + 'b;

/// Takes the objects of an export or a replica, one at a time.
pub trait ObjectSink {
    /// Makes an object whose content `body` writes. `name` becomes a part of its key: ASCII letters,
    /// digits, `-`, `_` and `.`. Only if it is `sealed` does it get a seal, and `.enc` after its name.
    ///
    /// # Errors
    /// What a stage or the store failed with: the backup must end then. What `body` failed with: then there is
    /// no such object, and others can be made.
    fn object(
        &mut self,
        role: &str,
        name: &str,
        sealed: bool,
        body: &mut ObjectBody<'_>,
    ) -> anyhow::Result<()>;

    /// Makes an object whose content `body` writes, compressed as the source's data is, and sealed: `name` gets the
    /// ending that says so.
    ///
    /// # Errors
    /// As [`ObjectSink::object`].
    fn compressed(
        &mut self,
        role: &str,
        name: &str,
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

impl ObjectBuilder<'_> {
    /// What the manifest of a backup of these objects names: all of them, or the first and a list of the
    /// others, which this stores.
    ///
    /// # Errors
    /// [`Kind::Source`] for more than [`OBJECTS_MAX`]; as [`ObjectBuilder::archive`].
    pub fn fit_manifest(
        &self,
        mut objects: Vec<ObjectRecord>,
    ) -> anyhow::Result<Vec<ObjectRecord>> {
        if objects.len() > OBJECTS_MAX {
            let message = format!("{} objects are more than {OBJECTS_MAX}", objects.len());
            return Err(Fault::new(Kind::Source, message).hint("split the source in two").into());
        }
        if objects.len() <= OBJECTS_IN_MANIFEST_MAX {
            return Ok(objects);
        }
        // What is no data is what tells the way to it.
        objects.sort_by_key(|object| object.role == ROLE_DATA);
        let others = objects.split_off(OBJECTS_IN_MANIFEST_MAX);
        objects.sort_by_key(|object| object.role != ROLE_DATA);
        let list = match self.store_list(&others) {
            Err(error) => match error.downcast_ref() {
                // Left by a run that made the same objects.
                Some(StoreError::Exists { .. }) => self.found_list(&others)?,
                _ => return Err(error),
            },
            list => list?,
        };
        objects.push(list);
        Ok(objects)
    }

    fn store_list(&self, objects: &[ObjectRecord]) -> anyhow::Result<ObjectRecord> {
        let key = self.name.key(object_list::EXTENSION);
        let upload = self.store.create(&key, &self.labels(Role::Index))?;
        let stored = Box::new(UploadSink::new("stored", upload));
        let sink = list_chain(Box::new(ThreadBoundary::new("store", HOP_DEPTH, stored)?), objects)?;
        record(ROLE_OBJECTS, key, &sink.finish()?, ["zstd"].into_iter(), self.store)
    }

    /// The list that is there, if it is what a list of these objects would be.
    fn found_list(&self, objects: &[ObjectRecord]) -> anyhow::Result<ObjectRecord> {
        let key = self.name.key(object_list::EXTENSION);
        let stored = Box::new(Digest::new("stored", Box::new(NullSink)));
        let stats = list_chain(stored, objects)?.finish()?;
        let list = record(ROLE_OBJECTS, key, &stats, ["zstd"].into_iter(), self.store)?;
        let first_error = FirstError::default();
        let mut found = stored_bytes(self.store, &list, self.ctx, &first_error)?;
        drain(&mut found).map_err(|error| or_left(first_error.or(error), self.store, &list.key))?;
        Ok(list)
    }
}

/// What a list of these objects went through on its way into `stored`.
fn list_chain(stored: Box<dyn Sink>, objects: &[ObjectRecord]) -> anyhow::Result<Box<dyn Sink>> {
    let sink = Digest::new("plaintext", Box::new(zstd::Encoder::new(LIST_LEVEL, 1, stored)?));
    let first_error = FirstError::default();
    let mut out = SinkWriter::new(Box::new(sink), &first_error);
    for object in objects {
        let mut line = serde_json::to_vec(object)?;
        line.push(b'\n');
        out.write_all(&line).map_err(|error| first_error.or(error))?;
    }
    Ok(out.sink)
}

/// The end of a chain of which only the digests are wanted.
struct NullSink;

impl Sink for NullSink {
    fn write(&mut self, _bytes: &[u8]) -> anyhow::Result<()> {
        Ok(())
    }

    fn finish(self: Box<Self>) -> anyhow::Result<ChainStats> {
        Ok(ChainStats::default())
    }
}

/// Makes the objects of one backup, one after the other.
#[derive(Debug)]
pub struct Objects<'a> {
    builder: &'a ObjectBuilder<'a>,
    made: Vec<ObjectRecord>,
    busy: ChainStats,
    /// In the order in which they were made.
    confirming: VecDeque<UnconfirmedObject>,
}

/// An object of which everything was written, and which is being confirmed on a thread of its own.
#[derive(Debug)]
struct UnconfirmedObject {
    role: String,
    key: String,
    stages: Vec<&'static str>,
    bytes: u64,
    thread: JoinHandle<anyhow::Result<ChainStats>>,
}

impl<'a> Objects<'a> {
    /// No object yet; all will be made by this builder.
    #[must_use]
    pub fn new(builder: &'a ObjectBuilder<'a>) -> Self {
        let (made, busy) = (Vec::new(), ChainStats::default());
        Objects { builder, made, busy, confirming: VecDeque::new() }
    }

    /// What was made, all of it confirmed, and how long each stage was busy with it.
    ///
    /// # Errors
    /// What an object failed with that was being confirmed.
    pub fn finish(mut self) -> anyhow::Result<(Vec<ObjectRecord>, ChainStats)> {
        self.confirm_all()?;
        Ok((std::mem::take(&mut self.made), std::mem::take(&mut self.busy)))
    }

    /// Waits until all objects are confirmed.
    fn confirm_all(&mut self) -> anyhow::Result<()> {
        while !self.confirming.is_empty() {
            self.confirm_first()?;
        }
        Ok(())
    }

    /// Waits until one more object of so many bytes may be confirmed beside the others.
    fn make_room(&mut self, bytes: u64) -> anyhow::Result<()> {
        loop {
            let under_way = self.confirming.iter().map(|object| object.bytes);
            let bytes_all = under_way.fold(bytes, u64::saturating_add);
            let is_full = self.confirming.len() >= CONFIRMING_MAX
                || (!self.confirming.is_empty() && bytes_all > CONFIRMING_BYTES_MAX);
            let is_done = self.confirming.front().is_some_and(|first| first.thread.is_finished());
            if !is_full && !is_done {
                return Ok(());
            }
            self.confirm_first()?;
        }
    }

    /// Waits until the object that was made first is confirmed.
    fn confirm_first(&mut self) -> anyhow::Result<()> {
        let Some(first) = self.confirming.pop_front() else { return Ok(()) };
        let UnconfirmedObject { role, key, stages, bytes: _, thread } = first;
        let confirmed = thread.join();
        let stats = confirmed
            .unwrap_or_else(|_panic| Err(StageError::Stopped { stage: "confirm" }.into()))?;
        self.made.push(record(&role, key, &stats, stages.into_iter(), self.builder.store)?);
        self.note(&stats);
        Ok(())
    }

    fn note(&mut self, stats: &ChainStats) {
        for StageStats { stage, busy, .. } in &stats.0 {
            let known = self.busy.0.iter_mut().find(|measure| measure.stage == *stage);
            if let Some(measure) = known {
                measure.busy += *busy;
            } else {
                self.busy.0.push(StageStats { stage, bytes: 0, sha256: None, busy: *busy });
            }
        }
    }

    /// Writes an object through its chain, and leaves it to be confirmed.
    fn make(
        &mut self,
        (role, key): (&str, String),
        sink: Box<dyn Sink>,
        stages: Vec<&'static str>,
        body: &mut ObjectBody<'_>,
    ) -> anyhow::Result<()> {
        let first_error = FirstError::default();
        let mut out = SinkWriter::new(sink, &first_error);
        body(&mut out).map_err(|error| first_error.or(error))?;
        let SinkWriter { sink, bytes, .. } = out;
        self.make_room(bytes)?;
        let thread = thread::Builder::new().name("confirm".into()).spawn(move || sink.finish())?;
        let role = role.to_owned();
        self.confirming.push_back(UnconfirmedObject { role, key, stages, bytes, thread });
        Ok(())
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
        self.make_room(0)?;
        let extension = if sealed { format!("{name}.enc") } else { name.to_owned() };
        let key = self.builder.name.key(&extension);
        let sink = if sealed {
            self.builder.chain(&key, Role::Data, Compression::None)?
        } else {
            self.plain(&key)?
        };
        self.make((role, key), sink, sealed.then_some("seal").into_iter().collect(), body)
    }

    fn compressed(
        &mut self,
        role: &str,
        name: &str,
        body: &mut ObjectBody<'_>,
    ) -> anyhow::Result<()> {
        // What was made before is stored first: compression takes the room that there is.
        self.confirm_all()?;
        let compression = self.builder.compression;
        let (suffix, stage) = spelled(compression);
        let key = self.builder.name.key(&format!("{name}{suffix}.enc"));
        let sink = self.builder.chain(&key, Role::Data, compression)?;
        self.make((role, key), sink, stage.into_iter().chain(["seal"]).collect(), body)
    }

    fn archive(
        &mut self,
        push: &mut dyn FnMut(&mut dyn EntrySink) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        // It holds Parquet, which is compressed.
        let builder = ObjectBuilder { compression: Compression::None, ..*self.builder };
        let (object, stats, ()) = builder.archive(Role::Index, |out| push(out))?;
        self.confirm_all()?;
        self.made.push(object);
        self.note(&stats);
        Ok(())
    }
}

impl Drop for Objects<'_> {
    fn drop(&mut self) {
        // Whoever drops this has an error already; what is stored meanwhile belongs to no backup.
        let _abandoned = self.confirm_all();
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
        self.read(self.object_named(extension, ctx)?, ctx, &mut |input, _first_error| look(input))
    }

    /// The object with this extension.
    ///
    /// # Errors
    /// [`Kind::Integrity`] if the backup has no such object; as [`BackupReader::objects`].
    pub fn object_named(&self, extension: &str, ctx: &Ctx) -> anyhow::Result<&ObjectRecord> {
        let key = self.manifest().name().key(extension);
        self.object_at(&key, ctx)?.ok_or_else(|| {
            Fault::new(Kind::Integrity, format!("object `{key}` is not in the manifest")).into()
        })
    }
}
