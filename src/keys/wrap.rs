//! Wrapping a data key under another key: AES-256-GCM with a random nonce.
//!
//! The associated data is `bkp wrap 1` and the backup's id, so a wrapped key opens the backup it
//! was made for and no other. Stored as base64 of nonce, ciphertext and tag: 60 bytes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom as _, SystemRandom};
use zeroize::Zeroizing;

use super::{DataKey, KeyError};
use crate::domain::id::BackupId;

const CONTEXT: &str = "bkp wrap 1";

/// Wraps the data key of backup `id` under `wrapping_key`.
///
/// # Errors
/// [`KeyError::Random`].
pub fn wrap(wrapping_key: &[u8; 32], key: &DataKey, id: BackupId) -> Result<String, KeyError> {
    let mut nonce = [0; NONCE_LEN];
    SystemRandom::new().fill(&mut nonce).map_err(|_unspecified| KeyError::Random)?;
    let mut sealed = Zeroizing::new(key.0);
    let tag = cipher(wrapping_key)
        .seal_in_place_separate_tag(
            Nonce::assume_unique_for_key(nonce),
            associated(id),
            sealed.as_mut_slice(),
        )
        .map_err(|_unspecified| KeyError::Random)?;
    Ok(BASE64.encode([nonce.as_slice(), sealed.as_slice(), tag.as_ref()].concat()))
}

/// Opens what [`wrap`] made; `origin` names the wrapping key in messages.
///
/// # Errors
/// [`KeyError::Wrong`] if it was wrapped under another key or for another backup, or altered.
pub fn unwrap(
    wrapping_key: &[u8; 32],
    wrapped: &str,
    id: BackupId,
    origin: &str,
) -> Result<DataKey, KeyError> {
    let wrong = || KeyError::Wrong { origin: origin.to_owned(), id };
    let bytes = BASE64.decode(wrapped).map_err(|_decode| wrong())?;
    let (nonce, sealed) = bytes.split_first_chunk::<NONCE_LEN>().ok_or_else(wrong)?;
    let mut sealed = Zeroizing::new(sealed.to_vec());
    let nonce = Nonce::assume_unique_for_key(*nonce);
    let plain = cipher(wrapping_key).open_in_place(nonce, associated(id), &mut sealed);
    let mut key = DataKey([0; 32]);
    match plain {
        Ok(plain) if plain.len() == key.0.len() => {
            key.0.copy_from_slice(plain);
            Ok(key)
        }
        Ok(_) | Err(_) => Err(wrong()),
    }
}

fn cipher(key: &[u8; 32]) -> LessSafeKey {
    #[expect(clippy::expect_used, reason = "32 bytes are a key of AES-256: cannot fail")]
    let key = UnboundKey::new(&AES_256_GCM, key).expect("32 bytes");
    LessSafeKey::new(key)
}

fn associated(id: BackupId) -> Aad<String> {
    Aad::from(format!("{CONTEXT}{id}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    #[test]
    fn a_wrapped_key_opens_under_its_key_for_its_backup_only() {
        let id = BackupId::new(datetime!(2026-11-21 02:00:00 UTC));
        let other_id = BackupId::new(datetime!(2026-11-21 02:00:01 UTC));
        let key = DataKey([9; 32]);
        let wrapped = wrap(&[1; 32], &key, id).unwrap();
        assert_eq!(unwrap(&[1; 32], &wrapped, id, "k").unwrap().0, key.0);
        assert!(matches!(unwrap(&[2; 32], &wrapped, id, "k"), Err(KeyError::Wrong { .. })));
        assert!(matches!(unwrap(&[1; 32], &wrapped, other_id, "k"), Err(KeyError::Wrong { .. })));
        assert_ne!(wrapped, wrap(&[1; 32], &key, id).unwrap(), "nonces are random");
    }

    #[test]
    fn altered_wrappings_are_refused() {
        let id = BackupId::new(datetime!(2026-11-21 02:00:00 UTC));
        let wrapped = wrap(&[1; 32], &DataKey([9; 32]), id).unwrap();
        let raw = BASE64.decode(&wrapped).unwrap();
        assert_eq!(raw.len(), 60);
        for at in 0..raw.len() {
            let mut flipped = raw.clone();
            flipped[at] ^= 1;
            assert!(unwrap(&[1; 32], &BASE64.encode(&flipped), id, "k").is_err());
            assert!(unwrap(&[1; 32], &BASE64.encode(&raw[..at]), id, "k").is_err());
        }
        assert!(unwrap(&[1; 32], "not base64!", id, "k").is_err());
    }
}
