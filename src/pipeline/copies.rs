//! Copies of stored objects from one store to another: the same bytes under the same keys, each checked against
//! its authenticated digest on the way, and confirmed by the store that takes it as on the first day.

use std::io::Read;

use time::OffsetDateTime;

use super::ROLE_DATA;
use super::reader::BackupReader;
use super::stored::digest;
use crate::ctx::Ctx;
use crate::domain::backup_kind::BackupKind;
use crate::domain::manifest::{Manifest, ObjectRecord};
use crate::error::{Fault, FirstError, Kind};
use crate::stage::digest::drain;
use crate::stage::thread_boundary::read_ahead;
use crate::store::{AppendStore, Declared, ObjectLabels, Role, StoreError, Upload};

/// Chunks that are read while others are written.
const READ_AHEAD: usize = 8;
/// Bytes that are passed on at a time.
const CHUNK_BYTES: usize = 1 << 20;

/// What became of an object that was to be copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyOutcome {
    /// It is in the other store now.
    Copied,
    /// It was there already, with the same bytes: all of them were read.
    WasThere,
}

impl BackupReader<'_> {
    /// Copies an object of this backup to another store. When this returns without an error, what is there is what
    /// the manifest says.
    ///
    /// # Errors
    /// [`Kind::Integrity`] if the object here, or one of that name there, is not what the manifest says: the text
    /// tells which; what the stores fail with.
    pub fn copy_object(
        &self,
        object: &ObjectRecord,
        (to, retain_until): (&dyn AppendStore, Option<OffsetDateTime>),
        ctx: &Ctx,
    ) -> anyhow::Result<CopyOutcome> {
        let declared = declared(object)?;
        let role = role_of(self.manifest(), object);
        let labels = super::labels(&self.manifest().name(), role, retain_until);
        let labels = ObjectLabels { sha256: Some(declared.sha256), ..labels };
        // Within one service no byte needs to come here.
        match to.copy_from(self.store_url(), &object.key, &labels, declared) {
            Ok(true) => return Ok(CopyOutcome::Copied),
            Ok(false) => {}
            Err(StoreError::Exists { .. }) => return confirm_copy(object, to, ctx),
            Err(error) => return Err(error.into()),
        }
        let upload = match to.create(&object.key, &labels) {
            Ok(upload) => upload,
            Err(StoreError::Exists { .. }) => return confirm_copy(object, to, ctx),
            Err(error) => return Err(error.into()),
        };
        let first_error = FirstError::default();
        let stored = self.stored(object, ctx, &first_error)?;
        let mut input = read_ahead("read", Box::new(stored), READ_AHEAD);
        if pass_on(&mut input, &first_error, upload, declared)? {
            return Ok(CopyOutcome::Copied);
        }
        confirm_copy(object, to, ctx)
    }
}

/// What a store is told that an object of a backup is for.
#[must_use]
pub fn role_of(manifest: &Manifest, object: &ObjectRecord) -> Role {
    let is_read_by_increments = manifest.kind == BackupKind::Export && object.key.contains(".tar.");
    if object.role == ROLE_DATA && !is_read_by_increments { Role::Data } else { Role::Index }
}

/// What an object has to be.
///
/// # Errors
/// [`crate::domain::manifest::ManifestError`] if its digest is none.
pub fn declared(object: &ObjectRecord) -> anyhow::Result<Declared> {
    Ok(Declared { bytes: object.bytes, sha256: digest(&object.sha256, &object.key)? })
}

/// Writes what `input` gives to an upload and commits it; false if somebody else was faster.
pub(super) fn pass_on(
    input: &mut dyn Read,
    first_error: &FirstError,
    mut upload: Box<dyn Upload>,
    declared: Declared,
) -> anyhow::Result<bool> {
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let count = input.read(&mut chunk).map_err(|error| first_error.or(error))?;
        let read = chunk.get(..count).unwrap_or_default();
        if read.is_empty() {
            break;
        }
        upload.write(read)?;
    }
    match upload.commit(declared) {
        Ok(()) => Ok(true),
        Err(StoreError::Exists { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Reads what another store has under the name of an object, and compares it with the manifest.
fn confirm_copy(
    object: &ObjectRecord,
    to: &dyn AppendStore,
    ctx: &Ctx,
) -> anyhow::Result<CopyOutcome> {
    let first_error = FirstError::default();
    let mut input = super::reader::stored(to, object, ctx, &first_error)?;
    if let Err(error) = drain(&mut input) {
        let error = first_error.or(error);
        let message = format!(
            "{}: the existing copy of `{}` does not match the manifest",
            to.url(),
            object.key
        );
        let hint = "the original matches its manifest, so the copy is damaged; nothing is overwritten: remove the copy by hand and replicate again";
        return Err(error.context(Fault::new(Kind::Integrity, message).hint(hint)));
    }
    Ok(CopyOutcome::WasThere)
}
