//! The one place that builds the chain, forwards and backwards.
//!
//! Forwards, on the thread of the source: archive → SHA-256 → compression → seal → SHA-256 → store.
//! Compression runs on threads of its own; sealing, hashing and storing share the thread behind it.
//! Backwards each arrow turns round, and every byte is checked before the next stage sees it.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::num::NonZero;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::archive::{self, ArchiveWriter};
use crate::config::settings::Compression;
use crate::ctx::Ctx;
use crate::domain::id::BackupId;
use crate::domain::limits::{COMPRESSION_BYTES_MAX, FRAME_BYTES};
use crate::domain::manifest::{Manifest, ManifestError, ObjectRecord, Plaintext, hex, unhex};
use crate::domain::names::BackupName;
use crate::error::{Blame, Fault, Kind};
use crate::keys::{DataKey, Recipient};
use crate::source::EntrySink;
use crate::stage::digest::{Deposit, Digest, DigestReader, drain};
use crate::stage::hop::{Hop, read_ahead};
use crate::stage::seal::{Opener, Sealer, open_header};
use crate::stage::{Sink, Trail, gzip, zstd};
use crate::store::{AppendStore, Declared, ObjectLabels, ReadStore, Role};

pub mod objects;

/// Role of the object with the source's data.
pub const ROLE_DATA: &str = "data";
/// Role of the object with the block map.
pub const ROLE_MAP: &str = "map";

/// Level of compression of a block map.
const MAP_LEVEL: i32 = 3;
/// Chunks that a thread may read ahead of the next.
const READ_AHEAD: usize = 8;
/// Chunks that wait for the thread that seals, where nothing is compressed.
const HOP_DEPTH: usize = 8;

/// Everything that the objects of one backup share.
pub struct Recipe<'a> {
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
    /// Stops the run.
    pub ctx: &'a Ctx,
}

impl std::fmt::Debug for Recipe<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recipe").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Recipe<'_> {
    /// Makes the object with the source's data: `capture` pushes entries, the result is what it
    /// returned, once the object is durable and confirmed. The store is told this `role`.
    ///
    /// # Errors
    /// What `capture`, a stage or the store failed with; then no object is visible.
    pub fn archive<T>(
        &self,
        role: Role,
        capture: impl FnOnce(&mut dyn EntrySink) -> anyhow::Result<T>,
    ) -> anyhow::Result<(ObjectRecord, Trail, T)> {
        let (suffix, stage) = spelled(self.compression);
        let key = self.name.key(&format!("tar{suffix}.enc"));
        let chain = self.chain(&key, role, self.compression)?;
        let modified = u64::try_from(self.name.id.created().unix_timestamp()).unwrap_or(0);
        let mut writer = ArchiveWriter::new(chain, modified, self.ctx.cancel.clone());
        let captured = capture(&mut writer)?;
        let trail = writer.finish()?;
        let stages = ["tar"].into_iter().chain(stage).chain(["seal"]);
        Ok((record(ROLE_DATA, key, &trail, stages, self.store)?, trail, captured))
    }

    /// Makes the object with the block map.
    ///
    /// # Errors
    /// As [`Recipe::archive`].
    pub fn map(
        &self,
        write: &dyn Fn(&mut dyn Write) -> io::Result<()>,
    ) -> anyhow::Result<ObjectRecord> {
        let compression = Compression::Zstd(MAP_LEVEL);
        let (suffix, stage) = spelled(compression);
        let key = self.name.key(&format!("map.json{suffix}.enc"));
        let blame = Blame::default();
        let mut sink =
            SinkWriter { sink: self.chain(&key, Role::Index, compression)?, blame: blame.clone() };
        let mut buffered = io::BufWriter::with_capacity(64 << 10, &mut sink);
        let written = write(&mut buffered).and_then(|()| buffered.flush());
        drop(buffered);
        written.map_err(|error| blame.or(error))?;
        let trail = sink.sink.finish()?;
        record(ROLE_MAP, key, &trail, stage.into_iter().chain(["seal"]), self.store)
    }

    /// The chain behind the archive, built from its end.
    fn chain(
        &self,
        key: &str,
        role: Role,
        compression: Compression,
    ) -> anyhow::Result<Box<dyn Sink>> {
        let upload = self.store.create(key, &self.labels(role))?;
        let stored = Box::new(Deposit::new("stored", upload));
        let object = object_name(self.name.id, key);
        let sealed = Sealer::new(self.key, &object, self.recipients.to_vec(), stored)?;
        let compressed: Box<dyn Sink> = match compression {
            // Without compressors between them, hashing and sealing would share a thread.
            Compression::None => Box::new(Hop::new("seal", HOP_DEPTH, Box::new(sealed))?),
            Compression::Zstd(level) => {
                let threads = threads(zstd::worker_bytes(level));
                Box::new(zstd::Encoder::new(level, threads, Box::new(sealed))?)
            }
            Compression::Gzip(level) => {
                let threads = threads(gzip::WORKER_BYTES);
                Box::new(gzip::Encoder::new(level, threads, Box::new(sealed))?)
            }
        };
        Ok(Box::new(Digest::new("plaintext", compressed)))
    }

    fn labels(&self, role: Role) -> ObjectLabels {
        let label = |name: &str, value: String| (name.to_owned(), value);
        let pairs = vec![
            label("backup-id", self.name.id.to_string()),
            label("backup-type", self.name.backup_type.to_string()),
            label("backup-scope", self.name.scope.to_string()),
        ];
        ObjectLabels { role, pairs, ..ObjectLabels::default() }
    }
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

/// The name that an object's header carries: it ties the object to its backup and place.
fn object_name(id: BackupId, key: &str) -> String {
    format!("{id}/{}", key.rsplit('/').next().unwrap_or(key))
}

fn record<'s>(
    role: &str,
    key: String,
    trail: &Trail,
    stages: impl Iterator<Item = &'s str>,
    store: &dyn AppendStore,
) -> anyhow::Result<ObjectRecord> {
    let measured = |stage: &str| {
        let measure = trail.get(stage);
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
    blame: Blame,
}

impl Write for SinkWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.sink.write(bytes).map_err(|error| self.blame.note(error))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A backup whose manifest is authentic, opened for reading.
pub struct BackupReader<'a> {
    store: &'a dyn ReadStore,
    manifest: Manifest,
    key: DataKey,
    /// Keys of the objects that were read to their end and had the right digests.
    proven: Mutex<BTreeSet<String>>,
}

impl std::fmt::Debug for BackupReader<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BackupReader").field("id", &self.manifest.id).finish_non_exhaustive()
    }
}

impl<'a> BackupReader<'a> {
    /// A reader of the backup that `manifest` describes; the caller has authenticated it with `key`.
    #[must_use]
    pub fn new(store: &'a dyn ReadStore, manifest: Manifest, key: DataKey) -> Self {
        BackupReader { store, manifest, key, proven: Mutex::default() }
    }

    /// What the backup says of itself.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Checks that every object is there and has the size that the manifest names, and its SHA-256
    /// where the store tells one.
    ///
    /// # Errors
    /// [`Kind::Integrity`] if one is missing, of another size or of another SHA-256.
    pub fn check_objects(&self) -> anyhow::Result<()> {
        for object in &self.manifest.objects {
            let found = self.store.head(&object.key).map_err(|error| lost(error, &object.key))?;
            let sha256 = digest(&object.sha256, &object.key)?;
            if let Some(why) = found.differs(&Declared { bytes: object.bytes, sha256 }) {
                let message = format!("object `{}` {why}", object.key);
                return Err(Fault::new(Kind::Integrity, message).into());
            }
        }
        Ok(())
    }

    /// Reads every stored byte that no other method has read to its end, and compares size and
    /// SHA-256.
    ///
    /// # Errors
    /// [`Kind::Integrity`] if they differ from the manifest.
    pub fn check_digests(&self, ctx: &Ctx) -> anyhow::Result<()> {
        for object in &self.manifest.objects {
            if self.proven().contains(&object.key) {
                continue;
            }
            let blame = Blame::default();
            let mut input = self.stored(object, ctx, &blame)?;
            drain(&mut input).map_err(|error| blame.or(error))?;
            self.proven().insert(object.key.clone());
        }
        Ok(())
    }

    /// Reads the stored bytes of the block map and compares their digest, if there is one.
    ///
    /// # Errors
    /// As [`BackupReader::check_digests`].
    pub fn check_map(&self, ctx: &Ctx) -> anyhow::Result<()> {
        let Ok(object) = self.object(ROLE_MAP) else { return Ok(()) };
        let blame = Blame::default();
        let mut input = self.stored(object, ctx, &blame)?;
        drain(&mut input).map_err(|error| blame.or(error))?;
        Ok(())
    }

    /// Shows every entry of the data object to `visit`, in order. When this returns without an
    /// error, every byte was authentic and the digests are those of the manifest.
    ///
    /// # Errors
    /// What `visit`, a stage or the store failed with.
    pub fn entries(
        &self,
        ctx: &Ctx,
        visit: &mut dyn FnMut(&str, u64, &mut dyn Read) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let object = self.object(ROLE_DATA)?;
        self.read(object, ctx, &mut |input, blame| archive::read(input, blame, visit))
    }

    /// Shows the block map to `look`.
    ///
    /// # Errors
    /// As [`BackupReader::entries`].
    pub fn map<T>(
        &self,
        ctx: &Ctx,
        look: &mut dyn FnMut(&mut dyn Read) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let object = self.object(ROLE_MAP)?;
        let mut found = None;
        self.read(object, ctx, &mut |input, _blame| {
            found = Some(look(input)?);
            Ok(())
        })?;
        found.ok_or_else(|| Fault::new(Kind::Failed, "the block map was not read").into())
    }

    fn object(&self, role: &str) -> anyhow::Result<&ObjectRecord> {
        let found = self.manifest.object(role).ok_or_else(|| ManifestError::Misplaced {
            key: self.manifest.name().manifest_key(),
            reason: format!("it names no object with the role `{role}`"),
        })?;
        Ok(found)
    }

    /// Runs the chain backwards over one object and drains what `consume` leaves.
    fn read(
        &self,
        object: &ObjectRecord,
        ctx: &Ctx,
        consume: &mut dyn FnMut(&mut dyn Read, &Blame) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let blame = Blame::default();
        let mut input = self.plaintext(object, ctx, &blame)?;
        let outcome = consume(&mut input, &blame);
        // A typed error of the chain explains whatever the consumer made of it.
        outcome.map_err(|error| blame.or(error))?;
        drain(&mut input).map_err(|error| blame.or(error))?;
        self.proven().insert(object.key.clone());
        Ok(())
    }

    fn proven(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.proven.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The stored bytes, checked against the manifest.
    fn stored(
        &self,
        object: &ObjectRecord,
        ctx: &Ctx,
        blame: &Blame,
    ) -> anyhow::Result<DigestReader<Watched>> {
        let input = self.store.open(&object.key, None).map_err(|error| lost(error, &object.key))?;
        let watched = Watched { input, ctx: ctx.clone(), blame: blame.clone() };
        let sha256 = digest(&object.sha256, &object.key)?;
        Ok(DigestReader::new(watched, &object.key, object.bytes, sha256, blame.clone()))
    }

    fn plaintext(
        &self,
        object: &ObjectRecord,
        ctx: &Ctx,
        blame: &Blame,
    ) -> anyhow::Result<Box<dyn Read + Send>> {
        let mut input: Box<dyn Read + Send> = Box::new(self.stored(object, ctx, blame)?);
        for stage in object.stages.iter().rev() {
            input = match stage.as_str() {
                "seal" => {
                    let name = object_name(self.manifest.id, &object.key);
                    let prelude =
                        open_header(&mut input, &name).map_err(|error| blame.or(error))?;
                    let opener = Opener::new(input, &prelude, &self.key, blame.clone());
                    Box::new(read_ahead("open", Box::new(opener), READ_AHEAD))
                }
                "zstd" => Box::new(zstd::Decoder::new(input, &object.key, blame.clone())?),
                "gzip" => Box::new(gzip::Decoder::new(input, &object.key, blame.clone())),
                "tar" => input,
                other => {
                    let message = format!(
                        "object `{}` went through a stage `{other}` that this bkp does not know",
                        object.key
                    );
                    return Err(Fault::new(Kind::Refused, message)
                        .hint("use a later version of bkp")
                        .into());
                }
            };
        }
        let Plaintext { bytes, sha256 } = &object.plaintext;
        let sha256 = digest(sha256, &object.key)?;
        let name = format!("{} (content)", object.key);
        let checked = DigestReader::new(input, name, *bytes, sha256, blame.clone());
        // Decompressing and hashing are one thread's work, placing what comes out another's.
        Ok(Box::new(read_ahead("decompress", Box::new(checked), READ_AHEAD)))
    }
}

/// An object that a manifest names and the store does not have is damage, not a wrong question.
fn lost(error: crate::store::StoreError, key: &str) -> anyhow::Error {
    if matches!(error, crate::store::StoreError::Missing { .. }) {
        let message = format!("object `{key}` is missing although its manifest is there");
        return Fault::new(Kind::Integrity, message).into();
    }
    error.into()
}

fn digest(text: &str, key: &str) -> Result<[u8; 32], ManifestError> {
    let parsed = unhex(text.as_bytes()).and_then(|bytes| bytes.try_into().ok());
    parsed.ok_or_else(|| ManifestError::Invalid {
        key: key.to_owned(),
        reason: format!("`{text}` is not a SHA-256"),
    })
}

/// Stored bytes on their way in: counts them for the progress display, looks at the wish to stop,
/// and keeps the kind of a store's failure.
struct Watched {
    input: Box<dyn Read + Send>,
    ctx: Ctx,
    blame: Blame,
}

impl Read for Watched {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.ctx.cancel.check().map_err(|fault| self.blame.note(fault))?;
        let count = self.input.read(buffer).map_err(|error| {
            if error.kind() == io::ErrorKind::Interrupted {
                return error;
            }
            if let Err(fault) = self.ctx.cancel.check() {
                return self.blame.note(fault);
            }
            let fault = Fault::new(Kind::Store, format!("reading from the store failed: {error}"));
            self.blame.note(fault)
        })?;
        self.ctx.monitor.advance(count as u64);
        Ok(count)
    }
}
