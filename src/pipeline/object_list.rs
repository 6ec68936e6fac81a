//! The objects of a backup that has more of them than its manifest has room for.
//!
//! The manifest names the first [`crate::domain::limits::OBJECTS_IN_MANIFEST_MAX`], and an object with the role
//! [`ROLE_OBJECTS`] names the others, one JSON object a line. That one says no more than a manifest
//! does, so it is not sealed: whoever has no key can still tell what belongs to a backup. What it says is
//! as authentic as the manifest, which has its SHA-256.

use std::io::{BufRead as _, BufReader, Read};

use super::stored::{StoredReader, digest, lost};
use crate::ctx::Ctx;
use crate::domain::limits::{OBJECT_LINE_BYTES_MAX, OBJECTS_MAX};
use crate::domain::manifest::{Manifest, ManifestError, ObjectRecord, ROLE_OBJECTS};
use crate::domain::names::BackupName;
use crate::error::FirstError;
use crate::stage::digest::{DigestReader, drain};
use crate::stage::zstd;
use crate::store::ReadStore;

/// Extension of the list of objects.
pub(super) const EXTENSION: &str = "objects.json.zst";

/// The objects that a manifest does not name itself; none for most backups. They are as authentic as the
/// manifest is.
///
/// # Errors
/// [`ManifestError`] or [`crate::error::Kind::Integrity`] if the list is not the one that was stored, or says anything but
/// what bkp writes; what the store fails with.
pub fn listed(
    store: &dyn ReadStore,
    manifest: &Manifest,
    ctx: &Ctx,
) -> anyhow::Result<Vec<ObjectRecord>> {
    let Some(list) = manifest.object(ROLE_OBJECTS) else { return Ok(Vec::new()) };
    let key = &list.key;
    let first_error = FirstError::default();
    let input = store.open(key, None).map_err(|error| lost(error, key))?;
    let watched = StoredReader { input, ctx: ctx.clone(), first_error: first_error.clone() };
    let stored = DigestReader::new(
        watched,
        key,
        list.bytes,
        digest(&list.sha256, key)?,
        first_error.clone(),
    );
    let mut input: Box<dyn Read + Send> = Box::new(stored);
    if list.stages.iter().any(|stage| stage == "zstd") {
        input = Box::new(zstd::Decoder::new(input, key, first_error.clone())?);
    }
    let objects = parse(&mut input, manifest).map_err(|error| first_error.or(error))?;
    drain(&mut input).map_err(|error| first_error.or(error))?;
    Ok(objects)
}

fn parse(input: &mut dyn Read, manifest: &Manifest) -> anyhow::Result<Vec<ObjectRecord>> {
    let name = manifest.name();
    let wrong = |reason: String| ManifestError::Misplaced { key: name.manifest_key(), reason };
    let (mut objects, mut line) = (Vec::new(), Vec::new());
    let mut input = BufReader::new(input);
    loop {
        line.clear();
        let count = input.by_ref().take(OBJECT_LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
        if count == 0 {
            return Ok(objects);
        }
        let object: ObjectRecord = serde_json::from_slice(&line)
            .map_err(|error| wrong(format!("its list of objects cannot be read: {error}")))?;
        if BackupName::parse(&object.key).is_none_or(|(owner, _)| owner != name) {
            return Err(wrong(format!("`{}` is not an object of this backup", object.key)).into());
        }
        objects.push(object);
        if objects.len() > OBJECTS_MAX {
            return Err(wrong(format!("it has more than {OBJECTS_MAX} objects")).into());
        }
    }
}
