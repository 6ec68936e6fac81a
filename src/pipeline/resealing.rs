//! Copies of objects under another data key: opened, checked to their plaintext, and sealed anew on the way. What is
//! inside of the seal stays as it is, and no byte of it touches a disk.

use std::io::{self, Read};
use std::sync::OnceLock;

use sha2::{Digest as _, Sha256};

use super::copies::role_of;
use super::roles::object_name;
use super::stored::{StoredReader, lost};
use super::{BackupReader, HOP_DEPTH, ObjectBuilder};
use crate::ctx::Ctx;
use crate::domain::hex::hex;
use crate::domain::id::BackupId;
use crate::domain::limits::SEAL_HEADER_BYTES_MAX;
use crate::domain::manifest::ObjectRecord;
use crate::domain::recipient::Recipient;
use crate::error::{Fault, FirstError, Kind, diagnose};
use crate::stage::digest::{UploadSink, drain};
use crate::stage::seal::{ObjectName, Sealer, open_header};
use crate::stage::tee::{Tee, TeeSink};
use crate::stage::thread_boundary::ThreadBoundary;
use crate::stage::{ChainStats, Sink};
use crate::store::{ReadStore, StoreError};

/// The stage that seals.
const SEAL: &str = "seal";
/// Bytes that are hashed at a time.
const CHUNK_BYTES: usize = 1 << 20;

/// Whether an object is sealed. One that is not has no key.
#[must_use]
pub fn is_sealed(object: &ObjectRecord) -> bool {
    object.stages.iter().any(|stage| stage == SEAL)
}

/// Who can open the sealed object with this key, as its header says; nothing of that is authentic yet.
///
/// # Errors
/// [`Kind::Integrity`] if it is none of the backup `id`; what the store fails with.
pub fn recipients_of(
    store: &dyn ReadStore,
    (id, key): (BackupId, &str),
    ctx: &Ctx,
) -> anyhow::Result<Vec<Recipient>> {
    let first_error = FirstError::default();
    let input = store.open(key, Some(0..SEAL_HEADER_BYTES_MAX as u64 + 64))?;
    let mut input = StoredReader { input, ctx: ctx.clone(), first_error: first_error.clone() };
    let prelude = open_header(&mut input, ObjectName::Whole(&object_name(id, key)));
    Ok(prelude.map_err(|error| first_error.or(error))?.header.recipients)
}

/// Makes copies of the objects of one backup under another data key.
#[derive(Debug)]
pub struct Resealing<'a> {
    /// The backup, of which everything can be opened.
    pub origin: &'a BackupReader<'a>,
    /// Where the copies go, under which key and for whom.
    pub builder: &'a ObjectBuilder<'a>,
}

impl Resealing<'_> {
    /// Copies an object: sealed anew if it is sealed, and else byte for byte. When this returns without an error the
    /// copy is there, and its content is what the manifest says. One that an earlier run made with the same data key
    /// is read and taken over.
    ///
    /// # Errors
    /// [`Kind::Integrity`] if the object is not what the manifest says; [`Kind::Refused`] if something else has its
    /// name in the other store; what the stores fail with. Then the copy is not there.
    pub fn object(&self, object: &ObjectRecord) -> anyhow::Result<ObjectRecord> {
        let ObjectBuilder { store, retain_until, ctx, .. } = *self.builder;
        if !is_sealed(object) {
            self.origin.copy_object(object, (store, retain_until), ctx)?;
            return Ok(object.clone());
        }
        match self.seal(object) {
            Ok(stats) => self.record(object, &stats),
            Err(error) => match error.downcast_ref() {
                Some(StoreError::Exists { .. }) => self.take_over(object),
                _ => Err(error),
            },
        }
    }

    fn seal(&self, object: &ObjectRecord) -> anyhow::Result<ChainStats> {
        let ObjectBuilder { store, key, recipients, ctx, .. } = *self.builder;
        let labels = self.builder.labels(role_of(self.origin.manifest(), object));
        let upload = store.create(&object.key, &labels)?;
        let name = object_name(self.builder.name.id, &object.key);
        let stored = Box::new(UploadSink::new("stored", upload));
        let sealer = Sealer::new(key, &name, recipients.to_vec(), None, stored)?;
        // Opening and sealing take about the same time: a thread for each.
        let sink: Box<dyn Sink> = Box::new(ThreadBoundary::new(SEAL, HOP_DEPTH, Box::new(sealer))?);
        let (first_error, copy) = (FirstError::default(), OnceLock::new());
        let mut sink = Some(sink);
        let mut tap = |opened: Box<dyn Read + Send>| -> Box<dyn Read + Send> {
            let Some(sink) = sink.take() else { return opened };
            let (tee, end) = Tee::new(opened, sink, first_error.clone());
            let _first = copy.set(end);
            Box::new(tee)
        };
        let mut input = self.origin.tapped(object, ctx, &first_error, &mut tap)?;
        drain(&mut input).map_err(|error| first_error.or(error))?;
        drop(input);
        let copy = copy.into_inner();
        copy.map_or_else(|| Err(unsealed(object).into()), TeeSink::finish)
    }

    fn record(&self, object: &ObjectRecord, stats: &ChainStats) -> anyhow::Result<ObjectRecord> {
        let stored = stats.get("stored");
        let stored = stored.and_then(|measure| Some((measure.bytes, hex(&measure.sha256?))));
        let (bytes, sha256) = stored.ok_or_else(|| unsealed(object))?;
        let sse = self.builder.store.sse().map(str::to_owned);
        Ok(ObjectRecord { bytes, sha256, sse, ..object.clone() })
    }

    /// What an earlier run left, if that is a copy of the object for the same recipients and under the same data key:
    /// all of it is read.
    fn take_over(&self, object: &ObjectRecord) -> anyhow::Result<ObjectRecord> {
        let ObjectBuilder { store, name, key, recipients, ctx, .. } = *self.builder;
        let at = object.key.as_str();
        let found =
            recipients_of(store, (name.id, at), ctx).map_err(|error| or_left(error, store, at))?;
        if found != recipients {
            return Err(left(store, at).into());
        }
        let (bytes, sha256) = measure(store, at, ctx)?;
        let sse = store.sse().map(str::to_owned);
        let copy = ObjectRecord { bytes, sha256: hex(&sha256), sse, ..object.clone() };
        let manifest = self.origin.manifest().clone();
        let there = BackupReader::new(store, manifest, key.clone());
        // All of what it holds is in the record of the original.
        let read = there.read(&copy, ctx, &mut |_input, _first_error| Ok(()));
        read.map_err(|error| or_left(error, store, at))?;
        Ok(copy)
    }
}

/// What stands in the way of a copy, and is not overwritten.
#[must_use]
pub fn left(store: &dyn ReadStore, key: &str) -> Fault {
    let message = format!(
        "{}: `{key}` is there already, and not as a copy that this run could continue",
        store.url()
    );
    let hint = "an earlier run left it that sealed for other keys or for public ones, or somebody put it there; nothing is overwritten: `bkp cleanup` of that store removes what belongs to no backup once it is older than `orphan_age`; then, or after removing it by hand, run this again";
    Fault::new(Kind::Refused, message).hint(hint)
}

/// `error`, and that it is about what [`left`] says if it is about what was read.
#[must_use]
pub fn or_left(error: anyhow::Error, store: &dyn ReadStore, key: &str) -> anyhow::Error {
    if diagnose(&error).kind == Kind::Integrity { error.context(left(store, key)) } else { error }
}

fn unsealed(object: &ObjectRecord) -> Fault {
    Fault::new(Kind::Failed, format!("`{}` passed through no seal", object.key))
}

/// Size and SHA-256 of a stored object.
fn measure(store: &dyn ReadStore, key: &str, ctx: &Ctx) -> anyhow::Result<(u64, [u8; 32])> {
    let first_error = FirstError::default();
    let input = store.open(key, None).map_err(|error| lost(error, key))?;
    let mut input = StoredReader { input, ctx: ctx.clone(), first_error: first_error.clone() };
    let (mut chunk, mut hasher, mut bytes) = (vec![0; CHUNK_BYTES], Sha256::new(), 0);
    loop {
        match input.read(&mut chunk) {
            Ok(0) => return Ok((bytes, hasher.finalize().into())),
            Ok(count) => {
                hasher.update(chunk.get(..count).unwrap_or_default());
                bytes += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(first_error.or(error)),
        }
    }
}
