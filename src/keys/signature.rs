//! Signatures of small JSON files: Ed25519, for files that hosts write which cannot open what they seal, and for
//! recipients that anybody can seal for.
//!
//! A signed file has the fields `signer` and `signature`, and behind them, as its last one, `mac`. The signature
//! is over the file with its own digits replaced by zeros. It covers the MAC, and with that the data key that the
//! signer used: for a public key, anybody could give the reader another one.
//!
//! A signing key is a text file as key files are: one line `BKP-SIGNING-KEY-1-` and the 32 bytes of the seed in
//! base64. Its public half is written `ed25519:` and 32 bytes in base64.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use zeroize::Zeroizing;

use super::mac::{self, MacPurpose};
use super::{DataKey, KeyError, file, secret};
use crate::ctx::Cancel;
use crate::domain::hex::{hex, unhex};

/// Hexadecimal digits of a signature.
pub const DIGITS: usize = mac::SIGNATURE_DIGITS;

const LINE_PREFIX: &str = "BKP-SIGNING-KEY-1-";
const PUBLIC_PREFIX: &str = "ed25519:";

/// Who signed: the public half of a signing key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SignerId([u8; 32]);

impl fmt::Display for SignerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PUBLIC_PREFIX}{}", BASE64.encode(self.0))
    }
}

impl FromStr for SignerId {
    type Err = ();

    fn from_str(text: &str) -> Result<SignerId, ()> {
        let bytes = text.strip_prefix(PUBLIC_PREFIX).and_then(|text| BASE64.decode(text).ok());
        bytes.and_then(|bytes| bytes.try_into().ok()).map(SignerId).ok_or(())
    }
}

/// A host's signing key.
pub struct Signer {
    pair: Ed25519KeyPair,
    id: SignerId,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Signer").field(&self.id.to_string()).finish()
    }
}

impl Signer {
    /// Reads the signing key that `reference` points to, as a reference to a secret.
    ///
    /// # Errors
    /// [`KeyError::Unusable`] if it cannot be read or is none; [`KeyError::Stopped`].
    pub fn open(reference: &str, cancel: &Cancel) -> Result<Signer, KeyError> {
        let path = reference.strip_prefix("file:").unwrap_or("PATH");
        let is_missing = reference.starts_with("file:") && !Path::new(path).exists();
        let text = secret::read(reference, cancel).map_err(|error| match error {
            KeyError::Unusable { origin, problem, hint: _ } if is_missing => {
                let hint = format!("create it with `bkp keys generate --signing {path}`, and add the public key that is printed to `trust` under [keys] wherever backups are restored");
                KeyError::Unusable { origin, problem, hint: Some(hint) }
            }
            other @ (KeyError::Unusable { .. } | KeyError::Unknown { .. } | KeyError::Forbidden { .. } | KeyError::Away { .. } | KeyError::Spent { .. } | KeyError::Wrong { .. } | KeyError::NoneFits { .. } | KeyError::Sealed { .. } | KeyError::Random | KeyError::Stopped(_)) => other,
        })?;
        file::parse(&text, LINE_PREFIX).and_then(|seed| Signer::of(&seed)).ok_or_else(|| {
            KeyError::Unusable {
                origin: secret::origin(reference),
                problem: format!("not a signing key: it needs one line `{LINE_PREFIX}...`"),
                hint: Some("restore this file from a copy; `bkp keys generate --signing PATH` creates a new one".to_owned()),
            }
        })
    }

    fn of(seed: &[u8; 32]) -> Option<Signer> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).ok()?;
        let id = SignerId(pair.public_key().as_ref().try_into().ok()?);
        Some(Signer { pair, id })
    }

    /// Its public half.
    #[must_use]
    pub fn id(&self) -> SignerId {
        self.id
    }

    /// Signs a text, hex. `info` keeps one use from being taken for another.
    #[must_use]
    pub fn sign_text(&self, info: &[u8], text: &[u8]) -> String {
        hex(self.pair.sign(&message(info, b"\0", text)).as_ref())
    }

    /// Puts the signature of `context` and `bytes` in the place of its zeros in `bytes`, which have their MAC
    /// already. Returns whether there is such a place.
    #[must_use]
    pub fn sign(&self, bytes: &mut [u8], of: MacPurpose, context: &[u8]) -> bool {
        let Some(text) = unsigned(bytes, of, context) else { return false };
        let signature = self.pair.sign(&text);
        let cell = place(bytes, of).and_then(|range| bytes.get_mut(range));
        cell.map(|cell| cell.copy_from_slice(hex(signature.as_ref()).as_bytes())).is_some()
    }
}

/// Whether `bytes` carry the signature of `context` and themselves by this signer.
#[must_use]
pub fn is_right(bytes: &[u8], of: MacPurpose, context: &[u8], signer: &SignerId) -> bool {
    let Some(text) = unsigned(bytes, of, context) else { return false };
    let digits = place(bytes, of).and_then(|range| bytes.get(range));
    digits.and_then(unhex).is_some_and(|signature| verify(signer, &text, &signature))
}

/// Whether it is the signature of a text, as [`Signer::sign_text`] makes it.
#[must_use]
pub fn is_right_text(signature: &str, info: &[u8], text: &[u8], signer: &SignerId) -> bool {
    unhex(signature.as_bytes())
        .is_some_and(|signature| verify(signer, &message(info, b"\0", text), &signature))
}

fn verify(signer: &SignerId, text: &[u8], signature: &[u8]) -> bool {
    UnparsedPublicKey::new(&ED25519, &signer.0).verify(text, signature).is_ok()
}

fn message(info: &[u8], context: &[u8], text: &[u8]) -> Vec<u8> {
    [info, context, text].concat()
}

/// What is signed. A manifest is signed as it is, which DESIGN and bkp-format(5) promise; whatever has a context
/// begins with what it is for, and no manifest begins like that.
fn unsigned(bytes: &[u8], of: MacPurpose, context: &[u8]) -> Option<Vec<u8>> {
    let mut text = bytes.to_vec();
    text.get_mut(place(bytes, of)?)?.fill(b'0');
    Some(if context.is_empty() {
        text
    } else {
        message(of.info, &[b"\n", context].concat(), &text)
    })
}

fn place(bytes: &[u8], of: MacPurpose) -> Option<std::ops::Range<usize>> {
    mac::signature_place(bytes, of.closing)
}

/// Makes a new signing key at `path`, mode 0600, and returns its public half.
///
/// # Errors
/// As [`file::generate`].
pub fn generate(path: &Path) -> Result<SignerId, KeyError> {
    let seed = DataKey::generate()?;
    let signer = Signer::of(&seed.0).ok_or(KeyError::Random)?;
    let encoded = Zeroizing::new(BASE64.encode(seed.0));
    let text = Zeroizing::new(format!(
        "# bkp signing key; its public half is {}\n\
         # Whoever has this line can make backups that pass for those of this host. It opens none.\n\
         {LINE_PREFIX}{}\n",
        signer.id,
        encoded.as_str()
    ));
    file::create_key(path, text.as_bytes())?;
    Ok(signer.id)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OF: MacPurpose = MacPurpose { info: b"bkp test 1", closing: b"\"}" };

    fn signer(seed: u8) -> Signer {
        Signer::of(&[seed; 32]).expect("a key")
    }

    fn file_of(text: &str, blank: &str) -> Vec<u8> {
        let value = serde_json::Value::from(text);
        format!(
            "{{\"text\":{value},{blank}\"signature\"{blank}:{blank}\"{}\"{blank},{blank}\"mac\":{blank}\"{}\"}}\n",
            "0".repeat(DIGITS),
            "0".repeat(mac::DIGITS)
        )
        .into_bytes()
    }

    #[test]
    fn a_signature_is_of_one_signer_one_use_and_one_place() {
        let mut bytes = file_of("a", "");
        assert!(signer(1).sign(&mut bytes, OF, b"runs/a\n"));
        assert!(is_right(&bytes, OF, b"runs/a\n", &signer(1).id()));
        assert!(!is_right(&bytes, OF, b"runs/a\n", &signer(2).id()));
        assert!(!is_right(&bytes, OF, b"runs/b\n", &signer(1).id()));
        assert!(!is_right(&bytes, OF, b"", &signer(1).id()));
        let other = MacPurpose { info: b"bkp test 2", ..OF };
        assert!(!is_right(&bytes, other, b"runs/a\n", &signer(1).id()));
    }

    #[test]
    fn the_signature_covers_the_mac_and_not_the_other_way_round() {
        let (key, other) = (DataKey([7; 32]), DataKey([8; 32]));
        let mut bytes = file_of("a", " ");
        assert!(mac::sign(&mut bytes, OF, b"", &key));
        assert!(signer(1).sign(&mut bytes, OF, b""));
        assert!(is_right(&bytes, OF, b"", &signer(1).id()));
        assert!(mac::is_right(&bytes, OF, b"", &key));
        // Under a data key that somebody else chose.
        let mut forged = bytes.clone();
        assert!(mac::sign(&mut forged, OF, b"", &other));
        assert!(mac::is_right(&forged, OF, b"", &other));
        assert!(!is_right(&forged, OF, b"", &signer(1).id()));
        // Signed by somebody else.
        let mut forged = bytes.clone();
        assert!(signer(2).sign(&mut forged, OF, b""));
        assert!(mac::is_right(&forged, OF, b"", &key));
        assert!(!is_right(&forged, OF, b"", &signer(1).id()));
    }

    #[test]
    fn only_the_field_before_the_mac_is_a_signature() {
        let zeros = "0".repeat(DIGITS);
        let mac = format!("\"mac\":\"{}\"}}", "0".repeat(mac::DIGITS));
        for text in [
            format!("{{\"signature\":\"{zeros}\",\"x\":1,{mac}"),
            format!("{{\"signature\":\"{}\",{mac}", "0".repeat(64)),
            format!("{{\"signed\":\"{zeros}\",{mac}"),
            format!("{{{mac}"),
            format!("{{\"signature\":\"{zeros}\"}}"),
            String::new(),
        ] {
            assert_eq!(place(text.as_bytes(), OF), None, "{text}");
        }
    }

    #[test]
    fn a_public_key_reads_as_it_is_written() {
        let id = signer(3).id();
        assert_eq!(id.to_string().parse(), Ok(id));
        for text in ["", "ed25519:", "ed25519:AAAA", "age1xyz", "ed25519:!"] {
            assert_eq!(text.parse::<SignerId>(), Err(()), "{text}");
        }
    }

    #[test]
    fn a_generated_key_signs_and_is_never_overwritten() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("new/signing.key");
        let id = generate(&path).expect("made");
        let reference = format!("file:{}", path.display());
        let signer = Signer::open(&reference, &Cancel::default()).expect("opens");
        assert_eq!(signer.id(), id);
        let signature = signer.sign_text(b"of", b"text");
        assert!(is_right_text(&signature, b"of", b"text", &id));
        assert!(!is_right_text(&signature, b"of", b"texts", &id));
        assert!(!is_right_text(&signature, b"off", b"text", &id));
        assert!(matches!(generate(&path), Err(KeyError::Unusable { hint: Some(_), .. })));
        crate::cache::replace(&path, b"BKP-KEY-1-AAAA\n", 0o600).expect("written");
        assert!(Signer::open(&reference, &Cancel::default()).is_err());
    }

    proptest! {
        #[test]
        fn every_changed_byte_is_noticed(
            text in ".{0,40}",
            blank in "[ \n]{0,3}",
            at in any::<prop::sample::Index>(),
            flip in 1_u8..,
        ) {
            let mut bytes = file_of(&text, &blank);
            prop_assert!(mac::sign(&mut bytes, OF, b"", &DataKey([7; 32])));
            prop_assert!(signer(1).sign(&mut bytes, OF, b""));
            prop_assert!(is_right(&bytes, OF, b"", &signer(1).id()));
            *at.get_mut(&mut bytes) ^= flip;
            prop_assert!(!is_right(&bytes, OF, b"", &signer(1).id()));
        }
    }
}
