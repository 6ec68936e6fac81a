//! The chain backwards: each stage is reversed, and every byte is checked before the next stage sees
//! it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use super::object_list;
use super::roles::{ROLE_DATA, ROLE_MAP, object_name};
use super::stored::{StoredReader, digest, lost};
use crate::archive;
use crate::concurrent::each;
use crate::ctx::Ctx;
use crate::domain::manifest::{Manifest, ManifestError, ObjectRecord, Plaintext};
use crate::error::{Fault, FirstError, Kind, diagnose};
use crate::keys::object_keys::{ContentKey, ObjectKey};
use crate::keys::{DataKey, KeyError};
use crate::stage::digest::{DigestReader, drain};
use crate::stage::seal::{ObjectName, Opener, Prelude, open_header};
use crate::stage::thread_boundary::read_ahead;
use crate::stage::{gzip, zstd};
use crate::store::{Declared, ReadStore};

/// Chunks that a thread may read ahead of the next.
const READ_AHEAD: usize = 8;

/// What is put between the seal of an object and the stages within.
pub(super) type Tap<'t> = &'t mut dyn FnMut(Box<dyn Read + Send>) -> Box<dyn Read + Send>;

/// A backup whose manifest is authentic, opened for reading.
pub struct BackupReader<'a> {
    store: &'a dyn ReadStore,
    manifest: Manifest,
    key: ContentKey,
    /// The objects that the manifest has no room for, by key, once somebody asked for them.
    listed: OnceLock<BTreeMap<String, ObjectRecord>>,
    /// Keys of the objects that were read to their end and had the right digests.
    proven: Mutex<BTreeSet<String>>,
}

impl std::fmt::Debug for BackupReader<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BackupReader").field("id", &self.manifest.id).finish_non_exhaustive()
    }
}

impl<'a> BackupReader<'a> {
    /// A reader of the backup that `manifest` describes, which the caller has authenticated. `key` opens its objects.
    #[must_use]
    pub fn new(store: &'a dyn ReadStore, manifest: Manifest, key: impl Into<ContentKey>) -> Self {
        let (key, listed) = (key.into(), OnceLock::new());
        BackupReader { store, manifest, key, listed, proven: Mutex::default() }
    }

    pub(super) fn store(&self) -> &'a dyn ReadStore {
        self.store
    }

    /// What the backup says of itself.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The URL of the store that it is read from.
    pub(super) fn store_url(&self) -> &str {
        self.store.url()
    }

    /// Every object of the backup, also those that the manifest has no room for.
    ///
    /// # Errors
    /// As [`object_list::listed`].
    pub fn objects(&self, ctx: &Ctx) -> anyhow::Result<impl Iterator<Item = &ObjectRecord>> {
        Ok(self.manifest.objects.iter().chain(self.listed(ctx)?.values()))
    }

    /// The object with this key.
    pub(super) fn object_at(&self, key: &str, ctx: &Ctx) -> anyhow::Result<Option<&ObjectRecord>> {
        let named = self.manifest.objects.iter().find(|object| object.key == key);
        if named.is_some() { Ok(named) } else { Ok(self.listed(ctx)?.get(key)) }
    }

    fn listed(&self, ctx: &Ctx) -> anyhow::Result<&BTreeMap<String, ObjectRecord>> {
        // Whoever comes first reads it, and the others wait.
        let _reading = self.proven();
        if let Some(listed) = self.listed.get() {
            return Ok(listed);
        }
        let listed = object_list::listed(self.store, &self.manifest, ctx)?;
        let listed = listed.into_iter().map(|object| (object.key.clone(), object)).collect();
        Ok(self.listed.get_or_init(|| listed))
    }

    /// Checks that every object is there and has the size that the manifest names, and its SHA-256
    /// where the store tells one.
    ///
    /// # Errors
    /// [`Kind::Integrity`] if one is missing, of another size or of another SHA-256.
    pub fn check_objects(&self, ctx: &Ctx) -> anyhow::Result<()> {
        let objects: Vec<&ObjectRecord> = self.objects(ctx)?.collect();
        self.check_each(&objects, ctx)
    }

    /// The same for all but the block map, which restoring a snapshot does not need.
    ///
    /// # Errors
    /// As [`BackupReader::check_objects`].
    pub fn check_data(&self, ctx: &Ctx) -> anyhow::Result<()> {
        let data = self.objects(ctx)?.filter(|object| object.role != ROLE_MAP);
        self.check_each(&data.collect::<Vec<_>>(), ctx)
    }

    fn check_each(&self, objects: &[&ObjectRecord], ctx: &Ctx) -> anyhow::Result<()> {
        each(objects, &ctx.cancel, |object| self.check(object)).map(drop)
    }

    /// Checks that an object is there and has the size and, where the store tells one, the SHA-256 of its record.
    ///
    /// # Errors
    /// As [`BackupReader::check_objects`].
    pub fn check(&self, object: &ObjectRecord) -> anyhow::Result<()> {
        let found = self.store.head(&object.key).map_err(|error| lost(error, &object.key))?;
        let sha256 = digest(&object.sha256, &object.key)?;
        if let Some(why) = found.differs(&Declared { bytes: object.bytes, sha256 }) {
            let message = format!("object `{}` {why}", object.key);
            return Err(Fault::new(Kind::Integrity, message).into());
        }
        Ok(())
    }

    /// Reads every stored byte that no other method has read to its end, and compares size and
    /// SHA-256.
    ///
    /// # Errors
    /// [`Kind::Integrity`] if they differ from the manifest.
    pub fn check_digests(&self, ctx: &Ctx) -> anyhow::Result<()> {
        for object in self.objects(ctx)? {
            if self.proven().contains(&object.key) {
                continue;
            }
            let first_error = FirstError::default();
            let mut input = self.stored(object, ctx, &first_error)?;
            drain(&mut input).map_err(|error| first_error.or(error))?;
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
        let first_error = FirstError::default();
        let mut input = self.stored(object, ctx, &first_error)?;
        drain(&mut input).map_err(|error| first_error.or(error))?;
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
        self.read(object, ctx, &mut |input, first_error| archive::read(input, first_error, visit))
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

    /// The same, or if the block map is damaged or gone its copy, which is the member `copy` of the archive.
    ///
    /// # Errors
    /// As [`BackupReader::entries`], if neither can be read.
    pub fn map_or_copy<T>(
        &self,
        ctx: &Ctx,
        copy: &str,
        look: &mut dyn FnMut(&mut dyn Read) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let error = match self.map(ctx, look) {
            Err(error) if diagnose(&error).kind == Kind::Integrity => error,
            read => return read,
        };
        let mut found = None;
        self.entries(ctx, &mut |name, _size, body| {
            if name == copy {
                found = Some(look(body)?);
            }
            Ok(())
        })?;
        found.ok_or(error)
    }

    fn object(&self, role: &str) -> anyhow::Result<&ObjectRecord> {
        let found = self.manifest.object(role).ok_or_else(|| ManifestError::Misplaced {
            key: self.manifest.name().manifest_key(),
            reason: format!("it names no object with the role `{role}`"),
        })?;
        Ok(found)
    }

    /// Runs the chain backwards over one object and drains what `consume` leaves.
    pub(super) fn read(
        &self,
        object: &ObjectRecord,
        ctx: &Ctx,
        consume: &mut dyn FnMut(&mut dyn Read, &FirstError) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let first_error = FirstError::default();
        let mut input = self.tapped(object, ctx, &first_error, &mut |opened| opened)?;
        let outcome = consume(&mut input, &first_error);
        // A typed error of the chain explains whatever the consumer made of it.
        outcome.map_err(|error| first_error.or(error))?;
        drain(&mut input).map_err(|error| first_error.or(error))?;
        self.proven().insert(object.key.clone());
        Ok(())
    }

    fn proven(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.proven.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The stored bytes, checked against the manifest.
    pub(super) fn stored(
        &self,
        object: &ObjectRecord,
        ctx: &Ctx,
        first_error: &FirstError,
    ) -> anyhow::Result<DigestReader<StoredReader>> {
        stored(self.store, object, ctx, first_error)
    }

    /// Its data key, if every object can be opened.
    #[must_use]
    pub fn data_key(&self) -> Option<&DataKey> {
        match &self.key {
            ContentKey::Data(key) => Some(key),
            ContentKey::Kept(_) => None,
        }
    }

    /// Whether every object can be opened.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.data_key().is_some()
    }

    pub(super) fn object_key(&self, prelude: &Prelude, name: &str) -> Result<ObjectKey, KeyError> {
        match &self.key {
            ContentKey::Data(key) => Ok(prelude.object_key(key)),
            ContentKey::Kept(kept) => kept.get(name).cloned().ok_or_else(|| KeyError::Sealed {
                what: format!("object `{name}`"),
                hint: "pass a key that the backup was sealed for with --key; to make increments, a host keeps what it needs of its last backup in `state_dir`, and takes a full backup where that is lost".to_owned(),
            }),
        }
    }

    /// The content of an object, checked on the way; what comes out of the seal goes through `tap`.
    pub(super) fn tapped(
        &self,
        object: &ObjectRecord,
        ctx: &Ctx,
        first_error: &FirstError,
        tap: Tap<'_>,
    ) -> anyhow::Result<Box<dyn Read + Send>> {
        let mut input: Box<dyn Read + Send> = Box::new(self.stored(object, ctx, first_error)?);
        for stage in object.stages.iter().rev() {
            input = match stage.as_str() {
                "seal" => {
                    let name = object_name(self.manifest.id, &object.key);
                    let prelude = open_header(&mut input, ObjectName::Whole(&name))
                        .map_err(|error| first_error.or(error))?;
                    let key = self.object_key(&prelude, &name)?;
                    let opener = Opener::with_key(input, &prelude, &key, first_error.clone());
                    Box::new(read_ahead("open", tap(Box::new(opener)), READ_AHEAD))
                }
                "zstd" => Box::new(zstd::Decoder::new(input, &object.key, first_error.clone())?),
                "gzip" => Box::new(gzip::Decoder::new(input, &object.key, first_error.clone())),
                "tar" => input,
                other => {
                    let message = format!(
                        "object `{}` uses a stage `{other}` unknown to this bkp",
                        object.key
                    );
                    return Err(Fault::new(Kind::Refused, message)
                        .hint("use a newer version of bkp")
                        .into());
                }
            };
        }
        let Plaintext { bytes, sha256 } = &object.plaintext;
        let sha256 = digest(sha256, &object.key)?;
        let name = format!("{} (content)", object.key);
        // Decompressing, hashing and, by the caller, placing take about the same time: a thread for each.
        let ahead = read_ahead("decompress", input, READ_AHEAD);
        let checked = DigestReader::new(ahead, name, *bytes, sha256, first_error.clone());
        Ok(Box::new(read_ahead("digest", Box::new(checked), READ_AHEAD)))
    }
}

/// The bytes that a store has of an object, checked against the object's record.
pub(super) fn stored(
    store: &dyn ReadStore,
    object: &ObjectRecord,
    ctx: &Ctx,
    first_error: &FirstError,
) -> anyhow::Result<DigestReader<StoredReader>> {
    let input = store.open(&object.key, None).map_err(|error| lost(error, &object.key))?;
    let watched = StoredReader { input, ctx: ctx.clone(), first_error: first_error.clone() };
    let sha256 = digest(&object.sha256, &object.key)?;
    Ok(DigestReader::new(watched, &object.key, object.bytes, sha256, first_error.clone()))
}
