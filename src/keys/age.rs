//! Recipients `age:age1…`, a public key of age, and `age:REFERENCE`, the private one.
//!
//! The wrapped key is an ordinary age file of the 32 bytes of the data key, so that `age -d -i FILE` opens it
//! without bkp. Besides the keys that `age-keygen` makes, recipients for hardware are taken (`age1tag1…`,
//! `age1tagpq1…`), which need no plugin where backups are made.
//!
//! Anybody can seal for a public key. So what such a key opens is not shown to be from a host of ours: that takes
//! a [signature](super::signature).

use std::io::{Read as _, Write as _};
use std::iter;
use std::path::Path;

use age::secrecy::ExposeSecret as _;
use age::{tag, tagpq, x25519};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use zeroize::Zeroizing;

use super::{DataKey, Effort, KeyError, KeyProvider, RecipientKind, file, secret};
use crate::ctx::Cancel;
use crate::domain::id::BackupId;
use crate::domain::recipient::Recipient;

/// The line of [`super::kinds::RECIPIENTS`].
pub const KIND: RecipientKind = RecipientKind { prefix: "age", check, open };

/// Most bytes of a wrapped key, decoded. One for a key in hardware and against quantum computers takes 2 KiB.
const WRAPPED_BYTES_MAX: usize = 8 << 10;
const KEY_BYTES: u64 = 32;

const PUBLIC_PREFIX: &str = "age1";
const PRIVATE_PREFIX: &str = "AGE-SECRET-KEY-1";

/// What seals: whatever text age gives a public key.
type Public = Box<dyn age::Recipient + Send + Sync>;

/// A public key, and the private one if that is at hand.
struct Age {
    origin: String,
    /// The public key as text.
    id: String,
    public: Public,
    private: Option<x25519::Identity>,
}

fn check(text: &str) -> Result<(), (String, String)> {
    if text.starts_with(PUBLIC_PREFIX) {
        let hint = "write age:age1..., as `age-keygen -y FILE` prints it; keys of plugins and of ssh are not supported";
        return parse(text)
            .map(drop)
            .ok_or_else(|| ("not a public key of age".to_owned(), hint.to_owned()));
    }
    if secret::is_reference(text) {
        return Ok(());
    }
    let hint = "write age:age1... for the public key; refer to the private one: age:file:PATH, age:env:NAME, age:credential:NAME or age:cmd:COMMAND";
    Err((
        "neither a public key of age nor a reference to a private one".to_owned(),
        hint.to_owned(),
    ))
}

/// A public key from its text.
fn parse(text: &str) -> Option<Public> {
    if let Ok(key) = text.parse::<x25519::Recipient>() {
        return Some(Box::new(key));
    }
    if let Ok(key) = text.parse::<tag::Recipient>() {
        return Some(Box::new(key));
    }
    text.parse::<tagpq::Recipient>().ok().map(|key| -> Public { Box::new(key) })
}

fn open(text: &str, cancel: &Cancel) -> Result<Box<dyn KeyProvider>, KeyError> {
    let unusable = |origin: String, problem: &str| KeyError::Unusable {
        origin,
        problem: problem.to_owned(),
        hint: Some(
            "`bkp keys generate --age PATH` creates a private key and prints its public one"
                .to_owned(),
        ),
    };
    if let Some(public) = parse(text) {
        let (origin, id) = (format!("age:{text}"), text.to_owned());
        return Ok(Box::new(Age { origin, id, public, private: None }));
    }
    let origin = format!("age:{}", secret::origin(text));
    if text.starts_with(PUBLIC_PREFIX) {
        return Err(unusable(origin, "not a public key of age"));
    }
    let content = secret::read(text, cancel)?;
    let private = private(&content);
    let private = private.ok_or_else(|| {
        unusable(origin.clone(), "not an identity file of age with one AGE-SECRET-KEY-1 line")
    })?;
    let public = private.to_public();
    let id = public.to_string();
    Ok(Box::new(Age { origin, id, public: Box::new(public), private: Some(private) }))
}

/// The key in an identity file; `None` unless there is exactly one and nothing else but comments.
fn private(text: &[u8]) -> Option<x25519::Identity> {
    file::only_line(text).filter(|line| line.starts_with(PRIVATE_PREFIX))?.parse().ok()
}

impl KeyProvider for Age {
    fn kind(&self) -> &'static str {
        KIND.prefix
    }

    fn origin(&self) -> &str {
        &self.origin
    }

    fn can_open(&self) -> bool {
        self.private.is_some()
    }

    fn is_public(&self) -> bool {
        true
    }

    fn wrap(&self, key: &DataKey, _id: BackupId, _source: &str) -> Result<Recipient, KeyError> {
        let failed = |problem: String| KeyError::Unusable {
            origin: self.origin.clone(),
            problem,
            hint: None,
        };
        let public: &dyn age::Recipient = &*self.public;
        let encryptor = age::Encryptor::with_recipients(iter::once(public))
            .map_err(|error| failed(error.to_string()))?;
        let mut wrapped = Vec::new();
        let written = encryptor.wrap_output(&mut wrapped).and_then(|mut out| {
            out.write_all(&key.0)?;
            out.finish().map(drop)
        });
        written.map_err(|error| failed(error.to_string()))?;
        Ok(Recipient {
            kind: KIND.prefix.to_owned(),
            id: self.id.clone(),
            wrapped: BASE64.encode(wrapped),
            parameters: serde_json::Map::new(),
        })
    }

    fn matches(&self, recipient: &Recipient) -> bool {
        recipient.kind == KIND.prefix && recipient.id == self.id
    }

    fn open(
        &self,
        recipient: &Recipient,
        id: BackupId,
        _effort: Effort,
    ) -> Result<DataKey, KeyError> {
        let wrong = || KeyError::Wrong { origin: self.origin.clone(), id };
        let private = self.private.as_ref().ok_or_else(|| KeyError::Sealed {
            what: format!("backup {id}"),
            hint: format!("pass the private key of {}: --key age:file:PATH", self.id),
        })?;
        if recipient.wrapped.len() > WRAPPED_BYTES_MAX / 3 * 4 {
            return Err(wrong());
        }
        let wrapped = BASE64.decode(&recipient.wrapped).map_err(|_decode| wrong())?;
        let decryptor = age::Decryptor::new(wrapped.as_slice()).map_err(|_decrypt| wrong())?;
        let private: &dyn age::Identity = private;
        let plain = decryptor.decrypt(iter::once(private)).map_err(|_decrypt| wrong())?;
        let mut key = Zeroizing::new(Vec::with_capacity(64));
        plain.take(KEY_BYTES + 1).read_to_end(&mut key).map_err(|_read| wrong())?;
        Ok(DataKey(key.as_slice().try_into().map_err(|_length| wrong())?))
    }
}

/// Makes a new identity file at `path`, mode 0600, as `age-keygen` does, and returns the public key.
///
/// # Errors
/// As [`file::generate`].
pub fn generate(path: &Path) -> Result<String, KeyError> {
    let private = x25519::Identity::generate();
    let public = private.to_public().to_string();
    let line = private.to_string();
    let text = Zeroizing::new(format!(
        "# Private key of age, for bkp. Keep it away from the hosts that make backups.\n\
         # public key: {public}\n{}\n",
        line.expose_secret()
    ));
    file::create_key(path, text.as_bytes())?;
    Ok(public)
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    fn opened(text: &str) -> Box<dyn KeyProvider> {
        super::super::kinds::open(text, &Cancel::default()).expect(text)
    }

    fn id() -> BackupId {
        BackupId::new(datetime!(2026-11-21 02:00:00 UTC))
    }

    #[test]
    fn what_is_sealed_for_the_public_key_opens_with_the_private_one_only() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("identity");
        let public = generate(&path).expect("made");
        let (sealing, opening) =
            (opened(&format!("age:{public}")), opened(&format!("age:file:{}", path.display())));
        assert_eq!([sealing.can_open(), opening.can_open()], [false, true]);
        assert!(sealing.is_public() && opening.is_public());
        let key = DataKey([4; 32]);
        let recipient = sealing.wrap(&key, id(), "books").expect("wraps");
        assert_eq!((recipient.kind.as_str(), &recipient.id), ("age", &public));
        assert!(sealing.matches(&recipient) && opening.matches(&recipient));
        assert_eq!(opening.unwrap(&recipient, id()).expect("opens").0, key.0);
        assert!(matches!(sealing.unwrap(&recipient, id()), Err(KeyError::Sealed { .. })));

        let other = folder.path().join("other");
        generate(&other).expect("made");
        let other = opened(&format!("age:file:{}", other.display()));
        assert!(!other.matches(&recipient));
        assert!(matches!(other.unwrap(&recipient, id()), Err(KeyError::Wrong { .. })));
    }

    #[test]
    fn altered_wrappings_are_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("identity");
        let public = generate(&path).expect("made");
        let opening = opened(&format!("age:file:{}", path.display()));
        let recipient =
            opened(&format!("age:{public}")).wrap(&DataKey([4; 32]), id(), "books").expect("wraps");
        let raw = BASE64.decode(&recipient.wrapped).expect("base64");
        let altered =
            |wrapped: &[u8]| Recipient { wrapped: BASE64.encode(wrapped), ..recipient.clone() };
        for at in 0..raw.len() {
            let mut flipped = raw.clone();
            flipped[at] ^= 1;
            assert!(opening.unwrap(&altered(&flipped), id()).is_err(), "byte {at}");
            assert!(opening.unwrap(&altered(&raw[..at]), id()).is_err(), "cut at {at}");
        }
        let long = vec![b'x'; WRAPPED_BYTES_MAX + 1];
        assert!(opening.unwrap(&altered(&long), id()).is_err());
    }

    #[test]
    fn texts_are_checked_and_secrets_not_quoted() {
        let public = x25519::Identity::generate().to_public().to_string();
        assert!(check(&public).is_ok());
        assert!(check("file:/k").is_ok());
        let private = x25519::Identity::generate().to_string();
        for bad in ["age1", "age1yubikey1qwerty", private.expose_secret(), "x", ""] {
            let (problem, hint) = check(bad).expect_err(bad);
            assert!(bad.len() < 5 || !format!("{problem}{hint}").contains(bad), "{problem}");
        }
    }
}
