//! The one place that tells whether a manifest is one that bkp wrote.

use sha2::{Digest as _, Sha256};

use super::envelopes::{FoundKey, ManifestFile, find_key};
use super::manifest::read_manifest;
use crate::ctx::Ctx;
use crate::domain::manifest::{Doubt, Manifest, ManifestError};
use crate::domain::recipient::Recipient;
use crate::keys::keyring::{Keyring, OpenedKey, SignatureCheck};
use crate::keys::{DataKey, Effort, KeyError, manifest_mac};
use crate::store::ReadStore;

/// A backup that bkp made.
#[derive(Debug)]
pub struct AuthenticBackup {
    /// Its manifest.
    pub manifest: Manifest,
    /// SHA-256 of the manifest as stored.
    pub sha256: [u8; 32],
    /// Its data key, or why no key at hand opens it: a trusted signature needs none.
    pub key: anyhow::Result<DataKey>,
    /// The recipients of the envelope that gave the key; none if the manifest did.
    pub envelope: Vec<Recipient>,
    /// Whether a key proves it. Else it is a signer or the ledger, whose word may count no more tomorrow.
    pub by_holder: bool,
}

/// A backup that a key at hand opens.
#[derive(Debug)]
pub struct UnlockedBackup {
    /// Its manifest, authentic.
    pub manifest: Manifest,
    /// Its data key.
    pub key: DataKey,
    /// SHA-256 of the manifest as stored.
    pub sha256: [u8; 32],
}

impl AuthenticBackup {
    /// The same, opened.
    ///
    /// # Errors
    /// Why no key at hand opens it.
    pub fn unlock(self) -> anyhow::Result<UnlockedBackup> {
        let AuthenticBackup { manifest, sha256, key, .. } = self;
        Ok(UnlockedBackup { manifest, key: key?, sha256 })
    }
}

/// Reads the manifest at `at` and authenticates it.
///
/// # Errors
/// What the store fails with; a [`ManifestError`]; as [`authenticate`].
pub fn read_authentic(
    store: &dyn ReadStore,
    at: &str,
    keys: (&Keyring, Effort),
    ctx: &Ctx,
) -> anyhow::Result<AuthenticBackup> {
    let bytes = read_manifest(store, at)?;
    let manifest = Manifest::parse(&bytes, at)?;
    authenticate(store, (manifest, &bytes), keys, ctx)
}

/// Authenticates a manifest that was read from these bytes. It is shown to be bkp's by its MAC, if the data key
/// was sealed by somebody who has a key himself; by the signature of a trusted signer; or by the word of the
/// ledger. For a public key anybody can seal, and knows the data key then: there the MAC shows nothing, and one that
/// is wrong does not show either that something of bkp's was altered. The signature covers the MAC, so that no other
/// data key than the signer's goes with it.
///
/// # Errors
/// [`ManifestError::Forged`] if it is not what its maker wrote; [`ManifestError::Untrusted`] if anybody can have
/// made it; what [`open_any`](crate::keys::keyring::open_any) says if no key at hand opens it and no trusted signer signed it;
/// what the store fails with; a cancellation.
pub fn authenticate(
    store: &dyn ReadStore,
    (manifest, bytes): (Manifest, &[u8]),
    keys: (&Keyring, Effort),
    ctx: &Ctx,
) -> anyhow::Result<AuthenticBackup> {
    let (at, sha256) = (manifest.name().manifest_key(), Sha256::digest(bytes).into());
    let signature = manifest_mac::check_signature(bytes, &manifest, keys.0);
    let is_trusted = signature == SignatureCheck::Trusted;
    let untrusted = |doubt| ManifestError::Untrusted { key: at.clone(), doubt };
    let file = ManifestFile { manifest: &manifest, bytes, sha256 };
    let FoundKey { opened, envelope } = match find_key(store, &file, keys, ctx) {
        Ok(found) => found,
        Err(error) if is_trusted && is_of_keys(&error) => {
            let (key, envelope) = (Err(error), Vec::new());
            return Ok(AuthenticBackup { manifest, sha256, key, envelope, by_holder: false });
        }
        Err(error) if signature == SignatureCheck::Wrong && is_of_keys(&error) => {
            return Err(untrusted(Doubt::Altered).into());
        }
        Err(error) => return Err(error),
    };
    match (file.is_right(&opened.key), opened.by_holder) {
        (false, true) => return Err(ManifestError::Forged { key: at }.into()),
        // The MAC does not cover the digits of the signature.
        (true, true) if signature == SignatureCheck::Wrong => {
            return Err(ManifestError::Forged { key: at }.into());
        }
        (false, false) => return Err(untrusted(Doubt::Altered).into()),
        (true, true) => {}
        (true, false) if is_trusted || keys.0.is_vouched_for(manifest.id, &sha256) => {}
        (true, false) => {
            let doubt = match (signature, manifest.signer) {
                (SignatureCheck::Wrong, _) => Doubt::Altered,
                (_, Some(signer)) => Doubt::Stranger(signer),
                (_, None) => Doubt::Unsigned,
            };
            return Err(untrusted(doubt).into());
        }
    }
    let OpenedKey { key, by_holder } = opened;
    Ok(AuthenticBackup { manifest, sha256, key: Ok(key), envelope, by_holder })
}

/// Whether an error says what the keys at hand do not open, and not that the run is to stop.
fn is_of_keys(error: &anyhow::Error) -> bool {
    error.downcast_ref().is_some_and(|error| !matches!(error, KeyError::Stopped(_)))
}
