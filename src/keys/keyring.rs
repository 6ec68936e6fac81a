//! The keyring: everything that a command has to open backups with, and to tell whether they are bkp's.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::key_set::KeySet;
use super::mac::MacPurpose;
use super::object_keys::{self, ObjectKey};
use super::signature::is_right_text;
use super::signature::{self, Signer, SignerId};
use super::{DataKey, Effort, KeyError, KeyProvider};
use crate::ctx::Cancel;
use crate::domain::id::BackupId;
use crate::domain::limits::RECIPIENTS_MAX;
use crate::domain::names::BackupName;
use crate::domain::recipient::Recipient;

/// What else can vouch for a manifest, by the backup's id and the SHA-256 of its file: the ledger. Asked only when
/// nothing else does.
pub type TrustedWord = Arc<dyn Fn(BackupId, &[u8; 32]) -> bool + Send + Sync>;

/// What a signature says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignatureCheck {
    /// There is none, or nobody here trusts its signer.
    Unknown,
    /// It is right, and of a trusted signer.
    Trusted,
    /// It claims a trusted signer, who did not sign this.
    Wrong,
}

/// The keys at hand, and whose word is taken. Several commands may share one.
#[derive(Default)]
pub struct Keyring {
    providers: Vec<Box<dyn KeyProvider>>,
    signer: Option<Signer>,
    trust: Vec<SignerId>,
    word: Option<TrustedWord>,
    key_set: Option<KeySet>,
    /// Where the keys of single objects are kept.
    state_dir: Option<PathBuf>,
}

impl Keyring {
    /// A keyring with these providers, in the order in which they are configured.
    #[must_use]
    pub fn new(providers: Vec<Box<dyn KeyProvider>>) -> Keyring {
        Keyring { providers, ..Keyring::default() }
    }

    /// The same that signs, and trusts its own signatures.
    #[must_use]
    pub fn signing_with(mut self, signer: Option<Signer>) -> Keyring {
        self.trust.extend(signer.as_ref().map(Signer::id));
        Keyring { signer, ..self }
    }

    /// The same that trusts further signers.
    #[must_use]
    pub fn trusting(mut self, trust: &[SignerId]) -> Keyring {
        self.trust.extend_from_slice(trust);
        self
    }

    /// The same that takes somebody else's word for a manifest.
    #[must_use]
    pub fn believing(self, word: Option<TrustedWord>) -> Keyring {
        Keyring { word, ..self }
    }

    /// The same that finds data keys in a key set, too.
    #[must_use]
    pub fn with_key_set(self, key_set: Option<KeySet>) -> Keyring {
        Keyring { key_set, ..self }
    }

    /// The same with what this host keeps of its own backups.
    #[must_use]
    pub fn keeping_in(self, state_dir: PathBuf) -> Keyring {
        Keyring { state_dir: Some(state_dir), ..self }
    }

    /// Its providers.
    #[must_use]
    pub fn providers(&self) -> &[Box<dyn KeyProvider>] {
        &self.providers
    }

    /// The key set at hand.
    #[must_use]
    pub fn key_set(&self) -> Option<&KeySet> {
        self.key_set.as_ref()
    }

    /// The signing key of this host.
    #[must_use]
    pub fn signer(&self) -> Option<&Signer> {
        self.signer.as_ref()
    }

    /// Whether nothing is at hand that could tell anything of a backup.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.trust.is_empty() && !self.can_open()
    }

    /// Whether any of the keys opens what is sealed for it.
    #[must_use]
    pub fn can_open(&self) -> bool {
        self.providers.iter().any(|key| key.can_open())
    }

    /// Whether these recipients of backup `id` are the keys at hand, all of them, and nobody else. What a key here can
    /// open it has to open: a passphrase has no name.
    ///
    /// # Errors
    /// What a key says that could not be tried.
    pub fn are_recipients(&self, recipients: &[Recipient], id: BackupId) -> Result<bool, KeyError> {
        Ok(self
            .providers
            .iter()
            .all(|key| recipients.iter().any(|recipient| key.matches(recipient)))
            && self.owns(recipients, id)?)
    }

    /// Whether each of these recipients of backup `id` is one of the keys at hand.
    ///
    /// # Errors
    /// As [`Keyring::are_recipients`].
    pub fn owns(&self, recipients: &[Recipient], id: BackupId) -> Result<bool, KeyError> {
        for recipient in recipients {
            let mut is_own = false;
            for key in self.providers.iter().filter(|key| key.matches(recipient)) {
                // One that only seals here has nothing but its name to show.
                is_own |= !key.can_open()
                    || match key.open(recipient, id, Effort::Named) {
                        Ok(_) | Err(KeyError::Forbidden { .. } | KeyError::Sealed { .. }) => true,
                        Err(KeyError::Wrong { .. }) => false,
                        Err(error) => return Err(error),
                    };
            }
            if !is_own {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Which keys these are: what they did not open, and whom they did not trust, is not tried with them again.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let providers = self.providers.iter().map(|key| key.origin().to_owned());
        let trust = self.trust.iter().map(ToString::to_string);
        let key_set = self.key_set.as_ref().map(KeySet::fingerprint);
        providers.chain(trust).chain(key_set).collect::<Vec<_>>().join("\n")
    }

    /// Whether `bytes` carry a signature of `context` and themselves by the signer that they name.
    #[must_use]
    pub fn check_signature(
        &self,
        bytes: &[u8],
        of: MacPurpose,
        context: &[u8],
        signer: Option<&str>,
    ) -> SignatureCheck {
        self.check(signer, |signer| signature::is_right(bytes, of, context, signer))
    }

    /// The same of a text, as [`Signer::sign_text`] signs it.
    #[must_use]
    pub fn check_text(
        &self,
        (signature, signer): (Option<&str>, Option<&str>),
        info: &[u8],
        text: &[u8],
    ) -> SignatureCheck {
        let signature = signature.unwrap_or_default();
        self.check(signer, |signer| is_right_text(signature, info, text, signer))
    }

    fn check(&self, signer: Option<&str>, is_right: impl Fn(&SignerId) -> bool) -> SignatureCheck {
        let signer = signer.and_then(|text| text.parse().ok());
        match signer.filter(|signer| self.trust.contains(signer)) {
            None => SignatureCheck::Unknown,
            Some(signer) if is_right(&signer) => SignatureCheck::Trusted,
            Some(_) => SignatureCheck::Wrong,
        }
    }

    /// Whether somebody else vouches for the manifest of a backup.
    #[must_use]
    pub fn is_vouched_for(&self, id: BackupId, sha256: &[u8; 32]) -> bool {
        self.word.as_ref().is_some_and(|word| word(id, sha256))
    }

    /// The keys of single objects of a backup that this host kept.
    #[must_use]
    pub fn kept(&self, name: &BackupName) -> BTreeMap<String, ObjectKey> {
        self.state_dir.as_ref().map(|folder| object_keys::load(folder, name)).unwrap_or_default()
    }
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keyring").field("fingerprint", &self.fingerprint()).finish_non_exhaustive()
    }
}

/// A data key that was opened.
#[derive(Debug)]
pub struct OpenedKey {
    /// The data key.
    pub key: DataKey,
    /// Whoever sealed it had a key too, and is believed whatever the data key authenticates. Otherwise anybody
    /// can have sealed it.
    pub by_holder: bool,
}

/// Opens a wrapped data key with the first provider that can, at the usual cost.
///
/// # Errors
/// As [`open_any`].
pub fn unwrap_any(
    keys: &Keyring,
    recipients: &[Recipient],
    id: BackupId,
    cancel: &Cancel,
) -> anyhow::Result<DataKey> {
    open_any(keys, recipients, id, Effort::Usual, cancel).map(|opened| opened.key)
}

/// Opens a wrapped data key with the first provider that can.
///
/// # Errors
/// [`KeyError::NoneFits`] if no provider matches any recipient, [`KeyError::Away`] if one that matches
/// could not be asked, [`KeyError::Wrong`] or another error of a provider that matches if none of them
/// opens it; a cancellation.
pub fn open_any(
    keys: &Keyring,
    recipients: &[Recipient],
    id: BackupId,
    effort: Effort,
    cancel: &Cancel,
) -> anyhow::Result<OpenedKey> {
    let mut failure: Option<KeyError> = None;
    let mut providers: Vec<_> = keys.providers().iter().filter(|key| key.can_open()).collect();
    // What is at hand first: a service that does not answer takes its time. Of that, what proves something.
    providers.sort_by_key(|provider| (provider.is_service(), provider.is_public()));
    for provider in providers {
        let tries_max = match effort {
            Effort::Usual => provider.tries_max(),
            Effort::Named => RECIPIENTS_MAX,
        };
        let suited = recipients.iter().filter(|recipient| provider.matches(recipient));
        for recipient in suited.take(tries_max) {
            // A derivation takes seconds if whoever wrote the recipient wants it to.
            cancel.check()?;
            match provider.open(recipient, id, effort) {
                Ok(key) => return Ok(OpenedKey { key, by_holder: !provider.is_public() }),
                Err(error @ KeyError::Stopped(_)) => return Err(error.into()),
                // What a service did not say today is no word against the backup.
                Err(error @ KeyError::Away { .. }) => failure = Some(error),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
    }
    let none = || KeyError::NoneFits {
        have: keys.providers().iter().map(|provider| provider.origin().to_owned()).collect(),
        need: recipients.iter().map(named).collect(),
    };
    Err(failure.unwrap_or_else(none).into())
}

/// A recipient for messages: its kind, and its id where there are several of a kind.
fn named(recipient: &Recipient) -> String {
    let Recipient { kind, id, .. } = recipient;
    if kind == id { format!("a {kind}") } else { format!("{kind} {id}") }
}
