//! The one place that builds the chain, forwards and backwards.
//!
//! Forwards, on the thread of the source: archive → SHA-256 → compression → seal → SHA-256 → store.
//! Compression runs on threads of its own; sealing, hashing and storing share the thread behind it.
//! Backwards each arrow turns round, and every byte is checked before the next stage sees it.

use std::io::{self, Write};
use std::num::NonZero;

use time::OffsetDateTime;

pub use self::object_list::listed;
pub use self::reader::BackupReader;
pub use self::roles::{ROLE_DATA, ROLE_MAP};

use self::roles::object_name;

use crate::archive::ArchiveWriter;
use crate::archive::EntrySink;
use crate::ctx::Ctx;
use crate::domain::limits::{COMPRESSION_BYTES_MAX, FRAME_BYTES};
use crate::domain::manifest::{ObjectRecord, Plaintext, hex};
use crate::domain::names::BackupName;
use crate::domain::recipient::Recipient;
use crate::error::{Fault, FirstError, Kind};
use crate::keys::DataKey;
use crate::keys::object_keys::ObjectKey;
use crate::stage::Compression;
use crate::stage::digest::{Digest, UploadSink};
use crate::stage::seal::Sealer;
use crate::stage::thread_boundary::ThreadBoundary;
use crate::stage::{ChainStats, Sink, gzip, zstd};
use crate::store::{AppendStore, ObjectLabels, Role};

pub mod copies;
pub mod log_files;
mod object_list;
pub mod objects;
pub mod parts;
mod reader;
pub mod resealing;
mod roles;
mod stored;

/// Level of compression of a block map.
const MAP_LEVEL: i32 = 3;
/// Chunks that wait for the thread that seals, where nothing is compressed.
const HOP_DEPTH: usize = 8;

/// What an object is called in its header, and the key that opens it alone.
pub type NamedKey = (String, ObjectKey);

/// Everything that the objects of one backup share.
pub struct ObjectBuilder<'a> {
    /// Where they go.
    pub store: &'a dyn AppendStore,
    /// What they are called.
    pub name: &'a BackupName,
    /// What seals them.
    pub key: &'a DataKey,
    /// Who can open them.
    pub recipients: &'a [Recipient],
    /// How the data is compressed.
    pub compression: Compression,
    /// Until when they must not be removed, for stores that can see to that.
    pub retain_until: Option<OffsetDateTime>,
    /// Stops the run.
    pub ctx: &'a Ctx,
}

impl std::fmt::Debug for ObjectBuilder<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ObjectBuilder").field("name", &self.name).finish_non_exhaustive()
    }
}

impl ObjectBuilder<'_> {
    /// Makes the object with the source's data: `capture` pushes entries, the result is what it
    /// returned, once the object is durable and confirmed. The store is told this `role`.
    ///
    /// # Errors
    /// What `capture`, a stage or the store failed with; then no object is visible.
    pub fn archive<T>(
        &self,
        role: Role,
        capture: impl FnOnce(&mut dyn EntrySink) -> anyhow::Result<T>,
    ) -> anyhow::Result<(ObjectRecord, ChainStats, T)> {
        let (suffix, stage) = spelled(self.compression);
        let key = self.name.key(&format!("tar{suffix}.enc"));
        let chain = self.chain(&key, role, self.compression)?;
        let modified = u64::try_from(self.name.id.created().unix_timestamp()).unwrap_or(0);
        let mut writer = ArchiveWriter::new(chain, modified, self.ctx.cancel.clone());
        let captured = capture(&mut writer)?;
        let stats = writer.finish()?;
        let stages = ["tar"].into_iter().chain(stage).chain(["seal"]);
        Ok((record(ROLE_DATA, key, &stats, stages, self.store)?, stats, captured))
    }

    /// Makes the object with the block map. Its key comes back too: the next increment reads the map, perhaps on a
    /// host that cannot open the backup.
    ///
    /// # Errors
    /// As [`ObjectBuilder::archive`].
    pub fn map(
        &self,
        write: &dyn Fn(&mut dyn Write) -> io::Result<()>,
    ) -> anyhow::Result<(ObjectRecord, NamedKey)> {
        let compression = Compression::Zstd(MAP_LEVEL);
        let (suffix, stage) = spelled(compression);
        let key = self.name.key(&format!("map.json{suffix}.enc"));
        let first_error = FirstError::default();
        let (chain, object_key) = self.chain_and_key(&key, Role::Index, compression)?;
        let mut sink = SinkWriter::new(chain, &first_error);
        let mut buffered = io::BufWriter::with_capacity(64 << 10, &mut sink);
        let written = write(&mut buffered).and_then(|()| buffered.flush());
        drop(buffered);
        written.map_err(|error| first_error.or(error))?;
        let stats = sink.sink.finish()?;
        let stages = stage.into_iter().chain(["seal"]);
        Ok((record(ROLE_MAP, key, &stats, stages, self.store)?, object_key))
    }

    /// The chain behind the archive, built from its end.
    fn chain(
        &self,
        key: &str,
        role: Role,
        compression: Compression,
    ) -> anyhow::Result<Box<dyn Sink>> {
        self.chain_and_key(key, role, compression).map(|(sink, _key)| sink)
    }

    /// The same, and the key that seals what comes through it.
    fn chain_and_key(
        &self,
        key: &str,
        role: Role,
        compression: Compression,
    ) -> anyhow::Result<(Box<dyn Sink>, NamedKey)> {
        let upload = self.store.create(key, &self.labels(role))?;
        let stored = Box::new(UploadSink::new("stored", upload));
        let object = object_name(self.name.id, key);
        let sealed = Sealer::new(self.key, &object, self.recipients.to_vec(), None, stored)?;
        let object_key = (object, sealed.object_key().clone());
        let compressed: Box<dyn Sink> = match compression {
            // Without compressors between them, hashing and sealing would share a thread.
            Compression::None => {
                Box::new(ThreadBoundary::new("seal", HOP_DEPTH, Box::new(sealed))?)
            }
            Compression::Zstd(level) => {
                let threads = threads(zstd::worker_bytes(level));
                Box::new(zstd::Encoder::new(level, threads, Box::new(sealed))?)
            }
            Compression::Gzip(level) => {
                let threads = threads(gzip::WORKER_BYTES);
                Box::new(gzip::Encoder::new(level, threads, Box::new(sealed))?)
            }
        };
        Ok((Box::new(Digest::new("plaintext", compressed)), object_key))
    }

    fn labels(&self, role: Role) -> ObjectLabels {
        labels(self.name, role, self.retain_until)
    }
}

/// What stores are told of the objects of a backup that is kept until `retain_until`.
fn labels(name: &BackupName, role: Role, retain_until: Option<OffsetDateTime>) -> ObjectLabels {
    let label = |name: &str, value: String| (name.to_owned(), value);
    let pairs = vec![
        label("backup-id", name.id.to_string()),
        label("backup-type", name.backup_type.to_string()),
        label("backup-scope", name.scope.to_string()),
    ];
    ObjectLabels { role, pairs, retain_until, sha256: None }
}

/// Compression threads: one per core, at most eight, and no more than [`COMPRESSION_BYTES_MAX`] has
/// room for: each takes `worker_bytes` and two frames, and one frame is being filled.
fn threads(worker_bytes: usize) -> usize {
    let frame_bytes = 2 * FRAME_BYTES;
    let room = (COMPRESSION_BYTES_MAX - frame_bytes) / (worker_bytes + 2 * frame_bytes);
    std::thread::available_parallelism().map_or(1, NonZero::get).min(8).min(room).max(1)
}

/// The part of a key, and the stage's name, that tell the compression.
fn spelled(compression: Compression) -> (&'static str, Option<&'static str>) {
    match compression {
        Compression::None => ("", None),
        Compression::Gzip(_) => (".gz", Some("gzip")),
        Compression::Zstd(_) => (".zst", Some("zstd")),
    }
}

fn record<'s>(
    role: &str,
    key: String,
    stats: &ChainStats,
    stages: impl Iterator<Item = &'s str>,
    store: &dyn AppendStore,
) -> anyhow::Result<ObjectRecord> {
    let measured = |stage: &str| {
        let measure = stats.get(stage);
        let found = measure.and_then(|measure| Some((measure.bytes, hex(&measure.sha256?))));
        found.ok_or_else(|| Fault::new(Kind::Failed, format!("the {stage} stage measured nothing")))
    };
    let (bytes, sha256) = measured("stored")?;
    let (plaintext_bytes, plaintext_sha256) = measured("plaintext")?;
    Ok(ObjectRecord {
        role: role.to_owned(),
        key,
        bytes,
        sha256,
        plaintext: Plaintext { bytes: plaintext_bytes, sha256: plaintext_sha256 },
        stages: stages.map(str::to_owned).collect(),
        sse: store.sse().map(str::to_owned),
    })
}

/// Lets a chain be written through [`Write`].
struct SinkWriter {
    sink: Box<dyn Sink>,
    first_error: FirstError,
    /// What was written, bytes.
    bytes: u64,
}

impl SinkWriter {
    fn new(sink: Box<dyn Sink>, first_error: &FirstError) -> SinkWriter {
        SinkWriter { sink, first_error: first_error.clone(), bytes: 0 }
    }
}

impl Write for SinkWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.sink.write(bytes).map_err(|error| self.first_error.note(error))?;
        self.bytes += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
