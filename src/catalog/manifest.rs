//! Reading the file of a manifest, and classifying manifests that cannot be trusted.

use std::io::Read as _;

use crate::domain::limits::MANIFEST_BYTES_MAX;
use crate::domain::manifest::ManifestError;
use crate::error::{Fault, Kind};
use crate::keys::KeyError;
use crate::store::ReadStore;

/// Whether an error says that what stands in the place of a manifest is not shown to be one that bkp
/// wrote: it is none, or not authentic, or no key at hand opens it. Whoever can write to the store can
/// bring that about, so it must not keep anybody from the other backups. That a key could not be asked
/// today is something else.
#[must_use]
pub fn is_unproven(error: &anyhow::Error) -> bool {
    let of_key = error.downcast_ref::<KeyError>().is_some_and(KeyError::is_of_backup);
    of_key || error.downcast_ref::<ManifestError>().is_some()
}

/// Whether an error says that a manifest was altered whose data key a key at hand opens.
#[must_use]
pub fn is_altered(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(ManifestError::Forged { .. }))
}

/// The bytes of a manifest, as stored.
///
/// # Errors
/// What the store fails with; [`ManifestError::Invalid`] if it is larger than any manifest.
pub fn read_manifest(store: &dyn ReadStore, key: &str) -> anyhow::Result<Vec<u8>> {
    let bytes = read_small(store, key, MANIFEST_BYTES_MAX)?;
    bytes.ok_or_else(|| {
        let reason = format!("larger than {MANIFEST_BYTES_MAX} bytes");
        ManifestError::Invalid { key: key.to_owned(), reason }.into()
    })
}

/// The bytes of a small object; `None` if there are more than `bytes_max`.
///
/// # Errors
/// What the store fails with.
pub(super) fn read_small(
    store: &dyn ReadStore,
    key: &str,
    bytes_max: u64,
) -> anyhow::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    let read = store.open(key, None)?.take(bytes_max + 1).read_to_end(&mut bytes);
    read.map_err(|error| Fault::new(Kind::Store, format!("reading `{key}` failed: {error}")))?;
    Ok((bytes.len() as u64 <= bytes_max).then_some(bytes))
}
