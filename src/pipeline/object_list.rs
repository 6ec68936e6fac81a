//! The objects of a backup that has more of them than its manifest has room for.
//!
//! The manifest names the first [`crate::domain::limits::OBJECTS_IN_MANIFEST_MAX`], and an object with the role
//! [`ROLE_OBJECTS`] names the others, one JSON object a line. That one says no more than a manifest
//! does, so it is not sealed: whoever has no key can still tell what belongs to a backup. What it says is
//! as authentic as the manifest, which has its SHA-256.

use std::io::{BufRead as _, BufReader, Read};

use super::stored::{StoredReader, digest, lost};
use crate::ctx::Ctx;
use crate::domain::limits::{OBJECT_LINE_BYTES_MAX, OBJECT_LIST_BYTES_MAX, OBJECTS_MAX};
use crate::domain::manifest::{Manifest, ManifestError, ObjectRecord, ROLE_OBJECTS};
use crate::domain::names::BackupName;
use crate::error::FirstError;
use crate::stage::digest::DigestReader;
use crate::stage::zstd;
use crate::store::ReadStore;

/// Extension of the list of objects.
pub(super) const EXTENSION: &str = "objects.json.zst";
/// Most stages of an object.
const STAGES_MAX: usize = 4;

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
    let wrong = |reason: String| ManifestError::Invalid { key: key.clone(), reason };
    if list.bytes > OBJECT_LIST_BYTES_MAX {
        return Err(wrong(format!("it has more than {OBJECT_LIST_BYTES_MAX} bytes")).into());
    }
    let first_error = FirstError::default();
    let input = store.open(key, None).map_err(|error| lost(error, key))?;
    let stored = StoredReader { input, ctx: ctx.clone(), first_error: first_error.clone() };
    let sha256 = digest(&list.sha256, key)?;
    let mut stored = DigestReader::new(stored, key, list.bytes, sha256, first_error.clone());
    // A few bytes may stand for very many, so all of them are proven first.
    let mut bytes = Vec::new();
    stored.read_to_end(&mut bytes).map_err(|error| first_error.or(error))?;
    let plain: Box<dyn Read + '_> = match list.stages.as_slice() {
        [stage] if stage == "zstd" => {
            Box::new(zstd::Decoder::new(bytes.as_slice(), key, first_error.clone())?)
        }
        _ => return Err(wrong("it is not compressed with zstd".to_owned()).into()),
    };
    parse(plain, manifest).map_err(|error| first_error.or(error))
}

fn parse(input: impl Read, manifest: &Manifest) -> anyhow::Result<Vec<ObjectRecord>> {
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
        if object.stages.len() > STAGES_MAX {
            return Err(wrong(format!("`{}` has more than {STAGES_MAX} stages", object.key)).into());
        }
        if BackupName::parse(&object.key).is_none_or(|(owner, _)| owner != name) {
            return Err(wrong(format!("`{}` is not an object of this backup", object.key)).into());
        }
        objects.push(object);
        if objects.len() > OBJECTS_MAX {
            return Err(wrong(format!("it has more than {OBJECTS_MAX} objects")).into());
        }
    }
}
