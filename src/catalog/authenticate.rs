//! The one place that tells whether a manifest is one that bkp wrote.

use sha2::{Digest as _, Sha256};

use super::envelopes::{FoundKey, find_key};
use super::manifest::read_manifest;
use crate::ctx::Ctx;
use crate::domain::manifest::Manifest;
use crate::domain::recipient::Recipient;
use crate::keys::{DataKey, Effort, Keyring, manifest_mac};
use crate::store::ReadStore;

/// A backup that a key at hand opens.
#[derive(Debug)]
pub struct UnlockedBackup {
    /// Its manifest, authentic.
    pub manifest: Manifest,
    /// Its data key.
    pub key: DataKey,
    /// The recipients of the envelope that gave the key; none if the manifest did.
    pub envelope: Vec<Recipient>,
    /// SHA-256 of the manifest as stored.
    pub sha256: [u8; 32],
}

/// Reads the manifest at `at` and authenticates it.
///
/// # Errors
/// What the store fails with; a [`ManifestError`](crate::domain::manifest::ManifestError); as [`authenticate`].
pub fn read_authentic(
    store: &dyn ReadStore,
    at: &str,
    keys: (&Keyring, Effort),
    ctx: &Ctx,
) -> anyhow::Result<UnlockedBackup> {
    let bytes = read_manifest(store, at)?;
    let manifest = Manifest::parse(&bytes, at)?;
    authenticate(store, (manifest, &bytes), keys, ctx)
}

/// Authenticates a manifest that was read from these bytes.
///
/// # Errors
/// [`ManifestError::Forged`](crate::domain::manifest::ManifestError::Forged) if it is not what the holder of its
/// data key wrote; what [`open_any`](crate::keys::open_any) says if no key at hand opens it; what the store fails
/// with; a cancellation.
pub fn authenticate(
    store: &dyn ReadStore,
    (manifest, bytes): (Manifest, &[u8]),
    keys: (&Keyring, Effort),
    ctx: &Ctx,
) -> anyhow::Result<UnlockedBackup> {
    let FoundKey { key, envelope } = find_key(store, &manifest, keys, ctx)?;
    manifest_mac::authenticate(bytes, &key, &manifest.name().manifest_key())?;
    Ok(UnlockedBackup { manifest, key, envelope, sha256: Sha256::digest(bytes).into() })
}
