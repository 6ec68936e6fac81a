//! Recipient `passphrase:REFERENCE`: a key derived from a passphrase by PBKDF2-HMAC-SHA256.
//!
//! Salt and rounds stand in the recipient's parameters. A derivation costs a good part of a second,
//! so derived keys are remembered: all wrappings of one run share a salt, and all objects of one
//! backup share a wrapping.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::pbkdf2;
use ring::rand::{SecureRandom as _, SystemRandom};
use serde_json::Value;
use zeroize::Zeroizing;

use super::{DataKey, Effort, KeyError, KeyProvider, RecipientKind, secret, wrap};
use crate::ctx::Cancel;
use crate::domain::id::BackupId;
use crate::domain::limits::{
    PASSPHRASE_TRIES_MAX, PBKDF2_ROUNDS, PBKDF2_ROUNDS_MAX, PBKDF2_WASTE_MAX,
};
use crate::domain::recipient::Recipient;

/// The line of [`super::kinds::RECIPIENTS`].
pub const KIND: RecipientKind = RecipientKind { prefix: "passphrase", check: |_text| Ok(()), open };

const FUNCTION: &str = "pbkdf2-hmac-sha256";
const SALT_BYTES: usize = 16;

/// Derived keys that are remembered: no backup is to cost twice in a run.
const REMEMBERED_MAX: usize = 4096;

type Salt = [u8; SALT_BYTES];

/// A key that was derived before.
struct Derived {
    salt: Salt,
    rounds: NonZeroU32,
    key: Zeroizing<[u8; 32]>,
}

/// A passphrase and the keys that were derived from it.
struct Passphrase {
    origin: String,
    secret: Zeroizing<Vec<u8>>,
    /// The salt of everything that this run wraps.
    salt: Salt,
    derived: Mutex<Vec<Derived>>,
    /// Derivations of this run whose keys opened nothing.
    wasted: AtomicUsize,
}

fn open(reference: &str, cancel: &Cancel) -> Result<Box<dyn KeyProvider>, KeyError> {
    let secret = secret::read(reference, cancel)?;
    let mut salt = [0; SALT_BYTES];
    SystemRandom::new().fill(&mut salt).map_err(|_unspecified| KeyError::Random)?;
    let origin = format!("{}:{}", KIND.prefix, secret::origin(reference));
    let (derived, wasted) = (Mutex::default(), AtomicUsize::default());
    Ok(Box::new(Passphrase { origin, secret, salt, derived, wasted }))
}

impl Passphrase {
    fn unusable(&self, problem: String) -> KeyError {
        KeyError::Unusable { origin: self.origin.clone(), problem, hint: None }
    }

    /// The key for these parameters, and whether it had to be derived, which only `may_derive` allows.
    /// The lock is held meanwhile: whoever else wants this key waits for it instead of deriving it too.
    fn derive(
        &self,
        salt: Salt,
        rounds: NonZeroU32,
        may_derive: impl Fn() -> Result<(), KeyError>,
    ) -> Result<(Zeroizing<[u8; 32]>, bool), KeyError> {
        let mut derived = self.derived.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = derived.iter().find(|key| key.salt == salt && key.rounds == rounds) {
            return Ok((known.key.clone(), false));
        }
        may_derive()?;
        let mut key = Zeroizing::new([0; 32]);
        let algorithm = pbkdf2::PBKDF2_HMAC_SHA256;
        pbkdf2::derive(algorithm, rounds, &salt, &self.secret, key.as_mut_slice());
        if derived.len() == REMEMBERED_MAX {
            derived.remove(0);
        }
        derived.push(Derived { salt, rounds, key: key.clone() });
        Ok((key, true))
    }

    /// The rounds that a recipient asks for, if that is no more than `effort` allows.
    fn rounds(&self, asked: u32, effort: Effort) -> Result<NonZeroU32, KeyError> {
        let (least, most) = (PBKDF2_ROUNDS, PBKDF2_ROUNDS_MAX);
        let rounds = NonZeroU32::new(asked).filter(|_| (least..=most).contains(&asked));
        let rounds = rounds.ok_or_else(|| {
            self.unusable(format!("the number of rounds is not between {least} and {most}"))
        })?;
        if effort == Effort::Usual && asked > PBKDF2_ROUNDS {
            let problem = format!(
                "the backup asks for {asked} rounds of key derivation; bkp uses {PBKDF2_ROUNDS}"
            );
            let hint = "if you trust the backup, name it: --id ID".to_owned();
            let origin = self.origin.clone();
            return Err(KeyError::Unusable { origin, problem, hint: Some(hint) });
        }
        Ok(rounds)
    }
}

/// Salt and rounds of a recipient; `None` if it has none that make sense.
fn parameters(recipient: &Recipient) -> Option<(Salt, u32)> {
    let parameter = |name| recipient.parameters.get(name);
    if parameter("kdf")?.as_str()? != FUNCTION {
        return None;
    }
    let salt = BASE64.decode(parameter("salt")?.as_str()?).ok()?;
    let rounds = parameter("rounds")?.as_u64()?;
    Some((salt.try_into().ok()?, u32::try_from(rounds).ok()?))
}

impl KeyProvider for Passphrase {
    fn kind(&self) -> &'static str {
        KIND.prefix
    }

    fn origin(&self) -> &str {
        &self.origin
    }

    fn wrap(&self, key: &DataKey, id: BackupId, _source: &str) -> Result<Recipient, KeyError> {
        let rounds = self.rounds(PBKDF2_ROUNDS, Effort::Usual)?;
        let (wrapping_key, _) = self.derive(self.salt, rounds, || Ok(()))?;
        let parameters = [
            ("kdf", Value::from(FUNCTION)),
            ("salt", Value::from(BASE64.encode(self.salt))),
            ("rounds", Value::from(PBKDF2_ROUNDS)),
        ];
        Ok(Recipient {
            kind: KIND.prefix.to_owned(),
            id: KIND.prefix.to_owned(),
            wrapped: wrap::wrap(&wrapping_key, key, id)?,
            parameters: parameters
                .map(|(name, value)| (name.to_owned(), value))
                .into_iter()
                .collect(),
        })
    }

    fn matches(&self, recipient: &Recipient) -> bool {
        recipient.kind == KIND.prefix
    }

    fn tries_max(&self) -> usize {
        PASSPHRASE_TRIES_MAX
    }

    fn open(
        &self,
        recipient: &Recipient,
        id: BackupId,
        effort: Effort,
    ) -> Result<DataKey, KeyError> {
        let (salt, rounds) = parameters(recipient).ok_or_else(|| {
            self.unusable(format!("the backup's parameters are not those of {FUNCTION}"))
        })?;
        let rounds = self.rounds(rounds, effort)?;
        let may_derive = || {
            let is_spent = self.wasted.load(Ordering::Relaxed) >= PBKDF2_WASTE_MAX;
            let spent = || KeyError::Spent { origin: self.origin.clone(), id };
            if is_spent && effort == Effort::Usual { Err(spent()) } else { Ok(()) }
        };
        let (wrapping_key, is_new) = self.derive(salt, rounds, may_derive)?;
        let opened = wrap::unwrap(&wrapping_key, &recipient.wrapped, id, &self.origin);
        if is_new && opened.is_err() {
            self.wasted.fetch_add(1, Ordering::Relaxed);
        }
        opened
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Passphrase").field("origin", &self.origin).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    fn passphrase(secret: &[u8]) -> Passphrase {
        Passphrase {
            origin: "passphrase:test".into(),
            secret: Zeroizing::new(secret.to_vec()),
            salt: [1; SALT_BYTES],
            derived: Mutex::default(),
            wasted: AtomicUsize::default(),
        }
    }

    #[test]
    fn a_passphrase_wraps_and_unwraps_with_one_derivation() {
        let id = BackupId::new(datetime!(2026-11-21 02:00:00 UTC));
        let (provider, key) = (passphrase(b"correct horse"), DataKey([5; 32]));
        let recipient = provider.wrap(&key, id, "books").unwrap();
        assert!(provider.matches(&recipient));
        assert_eq!(provider.unwrap(&recipient, id).unwrap().0, key.0);
        provider.wrap(&key, id, "books").unwrap();
        assert_eq!(provider.derived.lock().unwrap().len(), 1);

        let wrong = passphrase(b"correct hose").unwrap(&recipient, id);
        assert!(matches!(wrong, Err(KeyError::Wrong { .. })));
    }

    #[test]
    fn hostile_parameters_are_refused_before_any_work() {
        let id = BackupId::new(datetime!(2026-11-21 02:00:00 UTC));
        let provider = passphrase(b"correct horse");
        let recipient = |name: &str, value: Value| {
            let mut parameters = serde_json::Map::new();
            parameters.insert("kdf".into(), FUNCTION.into());
            parameters.insert("salt".into(), BASE64.encode([1; 16]).into());
            parameters.insert("rounds".into(), PBKDF2_ROUNDS.into());
            parameters.insert(name.into(), value);
            let (kind, wrapped) = (KIND.prefix.to_owned(), String::new());
            Recipient { id: kind.clone(), kind, wrapped, parameters }
        };
        for (name, value) in [
            ("rounds", 0.into()),
            ("rounds", (PBKDF2_ROUNDS - 1).into()),
            ("rounds", (PBKDF2_ROUNDS_MAX + 1).into()),
            ("rounds", u64::MAX.into()),
            ("rounds", "many".into()),
            ("salt", "AAAA".into()),
            ("salt", 7.into()),
            ("kdf", "md5".into()),
        ] {
            let result = provider.open(&recipient(name, value), id, Effort::Named);
            assert!(matches!(result, Err(KeyError::Unusable { .. })), "{name}");
        }
        // More than bkp writes is for backups that somebody named.
        let more = recipient("rounds", (PBKDF2_ROUNDS + 1).into());
        let refused = provider.unwrap(&more, id);
        assert!(matches!(refused, Err(KeyError::Unusable { hint: Some(_), .. })));
        assert!(provider.derived.lock().unwrap().is_empty());
        let tried = provider.open(&more, id, Effort::Named);
        assert!(matches!(tried, Err(KeyError::Wrong { .. })));
        assert_eq!(provider.derived.lock().unwrap().len(), 1);
    }

    #[test]
    fn what_is_tried_in_vain_is_bounded() {
        let id = BackupId::new(datetime!(2026-11-21 02:00:00 UTC));
        let (honest, key) = (passphrase(b"correct horse"), DataKey([5; 32]));
        let good = honest.wrap(&key, id, "books").unwrap();
        let provider = passphrase(b"correct horse");
        provider.wasted.store(PBKDF2_WASTE_MAX, Ordering::Relaxed);
        let spent = provider.unwrap(&good, id);
        assert!(matches!(spent, Err(KeyError::Spent { .. })));
        assert_eq!(provider.open(&good, id, Effort::Named).unwrap().0, key.0);
        // What was derived once costs nothing more.
        assert_eq!(provider.unwrap(&good, id).unwrap().0, key.0);
    }
}
