//! The contract of a key provider, which wraps and unwraps a backup's data key.
//!
//! Every backup has one random 256-bit data key. It is wrapped once per recipient; any recipient
//! opens the backup. A new kind of recipient is one file beside this one and one line in
//! [`kinds::RECIPIENTS`].

use ring::hkdf;
use ring::rand::{SecureRandom as _, SystemRandom};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::ctx::Cancel;
use crate::domain::id::BackupId;
use crate::domain::key_facts::KeyFacts;
use crate::domain::limits::RECIPIENTS_MAX;
use crate::domain::recipient::Recipient;
use crate::error::{Classify, Fault, Kind, diagnosed};

pub mod age;
pub mod begun_copies;
pub mod envelope;
pub mod file;
pub mod key_set;
pub mod keyring;
pub mod kinds;
pub mod kms;
pub mod mac;
pub mod manifest_mac;
pub mod object_keys;
pub mod passphrase;
pub mod secret;
pub mod signature;
pub mod wrap;

/// A backup's data key. Cleared when dropped; has no printable form.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct DataKey(pub(crate) [u8; 32]);

impl DataKey {
    /// A new random key.
    ///
    /// # Errors
    /// [`KeyError::Random`].
    pub fn generate() -> Result<DataKey, KeyError> {
        let mut key = DataKey([0; 32]);
        SystemRandom::new().fill(&mut key.0).map_err(|_unspecified| KeyError::Random)?;
        Ok(key)
    }

    /// A key derived from this one: HKDF-SHA256 with `salt` and the concatenation of `info`.
    #[must_use]
    #[expect(clippy::missing_panics_doc, reason = "it cannot panic, as said below")]
    pub fn derive(&self, salt: &[u8], info: &[&[u8]]) -> Zeroizing<[u8; 32]> {
        let mut out = Zeroizing::new([0; 32]);
        let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(&self.0);
        let okm = prk.expand(info, hkdf::HKDF_SHA256);
        #[expect(
            clippy::expect_used,
            reason = "32 bytes are one block of HKDF-SHA256: cannot fail"
        )]
        okm.and_then(|okm| okm.fill(out.as_mut_slice())).expect("one block of HKDF-SHA256");
        out
    }
}

impl std::fmt::Debug for DataKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DataKey(..)")
    }
}

/// How much may be spent on a backup before anything of it is authenticated: its recipients say what it
/// costs to open them, and whoever can write to the store can write recipients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Effort {
    /// What opening something that bkp wrote with this configuration costs.
    #[default]
    Usual,
    /// Whatever the format allows: somebody named this backup and wants it opened.
    Named,
}

/// A key that can wrap and unwrap data keys.
pub trait KeyProvider: Send + Sync {
    /// The kind, as in [`Recipient::kind`].
    fn kind(&self) -> &'static str;

    /// Where the key comes from, for messages; never the key.
    fn origin(&self) -> &str;

    /// Whether it asks somebody else, who may not answer.
    fn is_service(&self) -> bool {
        false
    }

    /// Whether it opens what is sealed for it, by what is known here: a public key does not.
    fn can_open(&self) -> bool {
        true
    }

    /// Whether anybody can seal for it. What such a key opens is not thereby shown to be from somebody who has
    /// a key.
    fn is_public(&self) -> bool {
        false
    }

    /// How many recipients of one backup it tries to open where [`Effort::Usual`] has to do.
    fn tries_max(&self) -> usize {
        RECIPIENTS_MAX
    }

    /// What its place tells of the key itself.
    ///
    /// # Errors
    /// [`KeyError`] if its service cannot be asked or does not know it.
    fn facts(&self) -> Result<KeyFacts, KeyError> {
        Ok(KeyFacts::default())
    }

    /// Wraps `key` for the backup `id` of `source`.
    ///
    /// # Errors
    /// [`KeyError`] if the key cannot be used.
    fn wrap(&self, key: &DataKey, id: BackupId, source: &str) -> Result<Recipient, KeyError>;

    /// Whether this key may be the one that `recipient` names: cheap, no secret operation.
    fn matches(&self, recipient: &Recipient) -> bool;

    /// Opens what [`KeyProvider::wrap`] made.
    ///
    /// # Errors
    /// [`KeyError::Wrong`] if it does not authenticate under this key; [`KeyError::Away`] if that cannot
    /// be told today; [`KeyError::Spent`] if too many others were tried in vain.
    fn open(
        &self,
        recipient: &Recipient,
        id: BackupId,
        effort: Effort,
    ) -> Result<DataKey, KeyError>;

    /// The same with [`Effort::Usual`].
    ///
    /// # Errors
    /// As [`KeyProvider::open`].
    fn unwrap(&self, recipient: &Recipient, id: BackupId) -> Result<DataKey, KeyError> {
        self.open(recipient, id, Effort::Usual)
    }
}

/// Opens a provider from what stands after the colon of a recipient string.
type Open = fn(&str, &Cancel) -> Result<Box<dyn KeyProvider>, KeyError>;

/// How a kind of recipient is opened: one line of [`kinds::RECIPIENTS`].
#[derive(Debug, Clone, Copy)]
pub struct RecipientKind {
    /// The word before the colon in the configuration.
    pub prefix: &'static str,
    /// What is wrong with what stands after the colon, as far as its text tells, and what to write. It
    /// quotes nothing that could be a secret.
    pub check: fn(&str) -> Result<(), (String, String)>,
    /// Opens a provider from what stands after the colon.
    pub open: Open,
}

/// A recipient of the configuration as messages may show it: a command is shown by its first word
/// only, since it may contain a secret.
#[must_use]
pub fn shown(text: &str) -> String {
    match text.split_once(':') {
        Some(("passphrase", reference)) => format!("passphrase:{}", secret::origin(reference)),
        Some(("age", rest)) if !rest.starts_with("age1") => format!("age:{}", secret::origin(rest)),
        // A URL may carry a password, which is refused.
        Some(("kms", rest)) if rest.contains('@') => {
            format!("kms:{}?…", rest.split('?').next().unwrap_or_default())
        }
        _ => text.to_owned(),
    }
}

/// What to do about a wrapped key that does not open.
const ALTERED: &str = "pass another of the keys it was sealed for with --key; if none opens it, its manifest was altered or planted: check with `bkp verify --ledger`; another store may have an intact copy (--store)";

/// What a key operation can fail with. No variant carries key material.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The configuration names a kind of recipient that does not exist.
    #[error("unknown kind of recipient `{text}`")]
    Unknown {
        /// What stands before the colon.
        text: String,
        /// The words that could stand there.
        known: String,
    },
    /// A key or passphrase file cannot be read or written.
    #[error("key {origin}: {problem}")]
    Unusable {
        /// Where the key should be.
        origin: String,
        /// What is wrong, without its content.
        problem: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// The service that holds the key does not let us use it so.
    #[error("key {origin}: {problem}")]
    Forbidden {
        /// Which key.
        origin: String,
        /// What the service said.
        problem: String,
        /// What to do about it.
        hint: String,
    },
    /// The service that holds the key could not be asked, or cannot do it now: what it would say of the
    /// backup is not known.
    #[error("key {origin}: {problem}")]
    Away {
        /// Which key.
        origin: String,
        /// What is wrong.
        problem: String,
        /// What to do about it.
        hint: String,
    },
    /// So many backups were tried in vain that this one is not tried.
    #[error("not trying key {origin} on backup {id}: it failed to open too many others")]
    Spent {
        /// Where the key comes from.
        origin: String,
        /// The backup.
        id: BackupId,
    },
    /// The wrapped key does not authenticate under this key.
    #[error(
        "key {origin} does not open backup {id}: not the key the backup was sealed for, or the manifest was altered"
    )]
    Wrong {
        /// Where the key comes from.
        origin: String,
        /// The backup.
        id: BackupId,
    },
    /// None of the keys at hand is one that the backup was sealed for.
    #[error("none of the available keys ({}) opens this backup; it was sealed for: {}", have.join(", "), need.join(", "))]
    NoneFits {
        /// The keys at hand.
        have: Vec<String>,
        /// The recipients of the backup.
        need: Vec<String>,
    },
    /// The host keeps no key of it: it was sealed for others.
    #[error("this host has no key that opens {what}: it was sealed for others")]
    Sealed {
        /// What was to be opened.
        what: String,
        /// What to do about it.
        hint: String,
    },
    /// The system's random generator failed.
    #[error("the system's random number generator failed")]
    Random,
    /// The run was to stop while it waited for a service.
    #[error(transparent)]
    Stopped(#[from] Fault),
}

impl KeyError {
    /// Whether it is a word about the backup: the keys at hand do not show that bkp made it. Otherwise
    /// something is wrong here, and nothing is known of the backup.
    #[must_use]
    pub fn is_of_backup(&self) -> bool {
        match self {
            KeyError::Unusable { .. }
            | KeyError::Forbidden { .. }
            | KeyError::Spent { .. }
            | KeyError::Wrong { .. }
            | KeyError::NoneFits { .. }
            | KeyError::Sealed { .. } => true,
            KeyError::Unknown { .. }
            | KeyError::Away { .. }
            | KeyError::Random
            | KeyError::Stopped(_) => false,
        }
    }
}

diagnosed!(KeyError);

impl Classify for KeyError {
    fn kind(&self) -> Kind {
        match self {
            KeyError::Stopped(fault) => fault.kind(),
            KeyError::Unknown { .. }
            | KeyError::Unusable { .. }
            | KeyError::Forbidden { .. }
            | KeyError::Away { .. }
            | KeyError::Spent { .. }
            | KeyError::Wrong { .. }
            | KeyError::NoneFits { .. }
            | KeyError::Sealed { .. }
            | KeyError::Random => Kind::Key,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            KeyError::Unknown { known, .. } => {
                Some(format!("recipients are written as KIND:WHERE, with KIND one of: {known}"))
            }
            KeyError::Stopped(fault) => fault.hint(),
            KeyError::Unusable { hint, .. } => hint.clone(),
            KeyError::Forbidden { hint, .. }
            | KeyError::Away { hint, .. }
            | KeyError::Sealed { hint, .. } => Some(hint.clone()),
            KeyError::Spent { id, .. } => Some(format!("name it: --id {id}")),
            KeyError::Wrong { .. } => Some(ALTERED.to_owned()),
            KeyError::NoneFits { .. } | KeyError::Random => None,
        }
    }
}
