//! Objects that are not what a manifest says of them.

use crate::ctx::Ctx;
use crate::domain::hex::unhex;
use crate::domain::manifest::{Manifest, ObjectRecord, ROLE_OBJECTS};
use crate::error::{Kind, diagnose};
use crate::pipeline;
use crate::store::{Declared, ReadStore, StoreError};

/// What an object is not as a manifest says; nothing if it is.
pub(super) fn differs(
    store: &dyn ReadStore,
    object: &ObjectRecord,
) -> Result<Option<String>, StoreError> {
    let ObjectRecord { key, bytes, sha256, .. } = object;
    let Some(sha256) = unhex(sha256.as_bytes()).and_then(|sha256| sha256.try_into().ok()) else {
        return Ok(Some(format!("its manifest names no SHA-256 of `{key}`")));
    };
    match store.head(key) {
        Ok(found) => {
            let why = found.differs(&Declared { bytes: *bytes, sha256 });
            Ok(why.map(|why| format!("`{key}` {why}")))
        }
        Err(StoreError::Missing { .. }) => Ok(Some(format!("`{key}` is missing"))),
        Err(error) => Err(error),
    }
}

/// The objects that a manifest has no room for. If their list is not what the manifest says, it is one that is
/// nowhere: such a backup is not whole.
pub(super) fn listed_or_lost(
    store: &dyn ReadStore,
    manifest: &Manifest,
    ctx: &Ctx,
) -> anyhow::Result<Vec<ObjectRecord>> {
    match pipeline::listed(store, manifest, ctx) {
        Err(error) if diagnose(&error).kind == Kind::Integrity => {
            let list = manifest.object(ROLE_OBJECTS).cloned();
            Ok(list.map(|list| ObjectRecord { bytes: u64::MAX, ..list }).into_iter().collect())
        }
        listed => listed,
    }
}
