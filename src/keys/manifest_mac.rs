//! Authentication of manifests and related files under the data key of their backup.

use ring::hmac;

use super::DataKey;
use super::keyring::{Keyring, SignatureCheck};
use super::mac::{self, MacPurpose};
use super::signature::{self, Signer};
use crate::domain::hex::hex;
use crate::domain::manifest::{Manifest, ManifestError};

/// What the MAC of a manifest is for.
const MANIFEST: MacPurpose = MacPurpose { info: b"bkp manifest 1", closing: b"\"}" };

/// The file of a manifest: indented JSON with the MAC in place.
///
/// # Errors
/// Never for a manifest that this program made; a value that JSON cannot hold otherwise.
pub fn encode(manifest: Manifest, key: &DataKey) -> Result<Vec<u8>, serde_json::Error> {
    encode_signed(manifest, key, None)
}

/// The same, signed by this host, if it signs.
///
/// # Errors
/// As [`encode`].
pub fn encode_signed(
    mut manifest: Manifest,
    key: &DataKey,
    signer: Option<&Signer>,
) -> Result<Vec<u8>, serde_json::Error> {
    manifest.signer = signer.map(|signer| signer.id().to_string());
    manifest.signature = signer.map(|_| "0".repeat(signature::DIGITS));
    manifest.mac = "0".repeat(mac::DIGITS);
    let mut bytes = serde_json::to_vec_pretty(&manifest)?;
    bytes.push(b'\n');
    // They are the last fields, so there are places for them. The signature covers the MAC.
    let _signed = mac::sign(&mut bytes, MANIFEST, b"", key)
        && signer.is_none_or(|signer| signer.sign(&mut bytes, MANIFEST, b""));
    Ok(bytes)
}

/// What the signature of a manifest's file says.
#[must_use]
pub fn check_signature(bytes: &[u8], manifest: &Manifest, keys: &Keyring) -> SignatureCheck {
    keys.check_signature(bytes, MANIFEST, b"", manifest.signer.as_deref())
}

/// Checks the MAC of the file of a manifest, which stands at the key `at`.
///
/// # Errors
/// [`ManifestError::Forged`].
pub fn authenticate(bytes: &[u8], key: &DataKey, at: &str) -> Result<(), ManifestError> {
    let is_right = mac::is_right(bytes, MANIFEST, b"", key);
    is_right.then_some(()).ok_or_else(|| ManifestError::Forged { key: at.to_owned() })
}

/// HMAC-SHA256 of a text that is to be as authentic as a manifest of the same data key, hex. `info` keeps
/// one use from being taken for another.
#[must_use]
pub fn tag(key: &DataKey, info: &[u8], text: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, &*key.derive(&[], &[info]));
    hex(hmac::sign(&key, text).as_ref())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::manifest::tests::sample;

    #[test]
    fn a_manifest_reads_back_and_authenticates() {
        let (key, other) = (DataKey([7; 32]), DataKey([8; 32]));
        let manifest = sample();
        let at = manifest.name().manifest_key();
        let bytes = encode(manifest, &key).expect("encodes");
        assert!(Manifest::parse(&bytes, &at).is_ok());
        assert!(authenticate(&bytes, &key, &at).is_ok());
        assert!(matches!(authenticate(&bytes, &other, &at), Err(ManifestError::Forged { .. })));
    }

    proptest! {
        #[test]
        fn every_changed_byte_is_noticed(at in any::<prop::sample::Index>(), flip in 1_u8..) {
            let key = DataKey([7; 32]);
            let mut bytes = encode(sample(), &key).expect("encodes");
            let place = at.index(bytes.len());
            // White space behind the closing brace carries nothing, but it is covered too.
            *at.get_mut(&mut bytes) ^= flip;
            prop_assert!(authenticate(&bytes, &key, "k").is_err(), "byte {place}");
        }
    }
}
