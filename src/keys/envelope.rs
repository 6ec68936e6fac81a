//! Envelopes: the data key of a backup, wrapped for recipients that its manifest does not name.
//!
//! Manifests and the headers of objects never change. Whoever can open a backup can therefore write a small
//! object beside it, `….wrapped-<id>.json`, that wraps the same data key for further recipients. Its last field is
//! an HMAC-SHA256 over the file with that field's digits replaced by zeros, under a key derived from the data
//! key: what an envelope gave is believed once it verifies the envelope that gave it. bkp-format(5) has the
//! format.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::key_set;
use super::keyring::{Keyring, OpenedKey, SignatureCheck, open_any};
use super::mac::{self, MacPurpose};
use super::signature::{self, Signer};
use super::{DataKey, Effort, KeyError, KeyProvider};
use crate::ctx::{Cancel, host};
use crate::domain::hex::hex;
use crate::domain::id::BackupId;
use crate::domain::limits::{MARK_BYTES_MAX, RECIPIENTS_MAX};
use crate::domain::manifest::weight;
use crate::domain::recipient::Recipient;

/// The schema that this version writes and reads.
pub const SCHEMA: &str = key_set::ENTRY_SCHEMA;

/// Most memory that reading one may take, bytes: it is read before it is authenticated.
const WEIGHT_MAX: u64 = 4 << 20;

const WRAPPED: MacPurpose = MacPurpose { info: b"bkp wrapped 1", closing: b"\"}" };

/// What stands in an envelope.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Envelope {
    /// [`SCHEMA`].
    pub schema: String,
    /// The backup whose data key it is.
    pub backup: BackupId,
    /// SHA-256 of the manifest as stored, hex; in a key set, of an archived file of a log, of what its header says.
    pub manifest: String,
    /// When it was written.
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub at: OffsetDateTime,
    /// Name of the host that wrote it.
    pub host: String,
    /// Who can open the backup by it.
    pub recipients: Vec<Recipient>,
    /// Who signed it, as `trust` of a configuration names him, if anybody did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signer: Option<String>,
    /// Ed25519 over the file with these 128 digits replaced by zeros.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
    /// HMAC-SHA256 of the file with these 64 digits, and those of the signature, replaced by zeros.
    pub mac: String,
}

impl Envelope {
    /// The data key of a backup whose manifest has this SHA-256, wrapped for these recipients; not yet signed.
    #[must_use]
    pub fn new(
        backup: BackupId,
        sha256: &[u8; 32],
        recipients: Vec<Recipient>,
        at: OffsetDateTime,
    ) -> Envelope {
        Envelope {
            schema: SCHEMA.to_owned(),
            backup,
            manifest: hex(sha256),
            at,
            host: host(),
            recipients,
            signer: None,
            signature: None,
            mac: String::new(),
        }
    }

    /// The file, with its MAC and the signature of this host, if it signs; `None` if it would be larger than [`MARK_BYTES_MAX`] or name more recipients
    /// than are read.
    #[must_use]
    pub fn encode(self, key: &DataKey, signer: Option<&Signer>) -> Option<Vec<u8>> {
        self.encode_as(serde_json::to_vec_pretty, key, signer)
    }

    /// The same in one line, for a key set.
    #[must_use]
    pub fn encode_line(self, key: &DataKey, signer: Option<&Signer>) -> Option<Vec<u8>> {
        self.encode_as(serde_json::to_vec, key, signer)
    }

    fn encode_as(
        mut self,
        write: impl Fn(&Envelope) -> serde_json::Result<Vec<u8>>,
        key: &DataKey,
        signer: Option<&Signer>,
    ) -> Option<Vec<u8>> {
        self.signer = signer.map(|signer| signer.id().to_string());
        self.signature = signer.map(|_| "0".repeat(signature::DIGITS));
        self.mac = "0".repeat(mac::DIGITS);
        let mut bytes = write(&self).ok()?;
        bytes.push(b'\n');
        let is_signed = mac::sign(&mut bytes, WRAPPED, b"", key)
            && signer.is_none_or(|signer| signer.sign(&mut bytes, WRAPPED, b""));
        (is_signed
            && bytes.len() as u64 <= MARK_BYTES_MAX
            && self.recipients.len() <= RECIPIENTS_MAX)
            .then_some(bytes)
    }

    /// Reads an envelope of the backup `id` without checking its MAC; `None` for anything else.
    fn parse(bytes: &[u8], id: BackupId) -> Option<Envelope> {
        if bytes.len() as u64 > MARK_BYTES_MAX || weight(bytes) > WEIGHT_MAX {
            return None;
        }
        let envelope: Envelope = serde_json::from_slice(bytes).ok()?;
        let is_one = envelope.schema == SCHEMA
            && envelope.backup == id
            && envelope.recipients.len() <= RECIPIENTS_MAX;
        is_one.then_some(envelope)
    }
}

/// The data key of backup `id` that the envelope with these bytes gives, and the recipients in it; `None` if it
/// is no envelope of that backup, or was altered or planted. A trusted signature vouches for the manifest of the
/// digest that the envelope names.
///
/// # Errors
/// As [`open_any`] if none of `keys` opens it.
pub fn open(
    bytes: &[u8],
    (id, sha256): (BackupId, &[u8; 32]),
    (keys, effort): (&Keyring, Effort),
    cancel: &Cancel,
) -> anyhow::Result<Option<(OpenedKey, Vec<Recipient>)>> {
    let Some(envelope) = Envelope::parse(bytes, id) else { return Ok(None) };
    let opened = open_any(keys, &envelope.recipients, id, effort, cancel)?;
    let is_right = mac::is_right(bytes, WRAPPED, b"", &opened.key);
    let signature = keys.check_signature(bytes, WRAPPED, b"", envelope.signer.as_deref());
    let vouches = signature == SignatureCheck::Trusted && envelope.manifest == hex(sha256);
    let opened = OpenedKey { by_holder: opened.by_holder || vouches, ..opened };
    Ok(is_right.then_some((opened, envelope.recipients)))
}

/// The data key of backup `id` that the key set at hand gives, and the recipients beside it; `None` if it gives none
/// that is right. `is_right` says whether a data key is that of the backup: copies that were sealed anew have others, and
/// anybody can have sealed one for a public key.
///
/// # Errors
/// What reading the key set fails with; [`KeyError::Away`] if a key could not be asked; a cancellation.
pub fn from_key_set(
    of: (BackupId, &[u8; 32]),
    keys: &Keyring,
    is_right: &dyn Fn(&DataKey) -> bool,
    cancel: &Cancel,
) -> anyhow::Result<Option<(OpenedKey, Vec<Recipient>)>> {
    let Some(key_set) = keys.key_set() else { return Ok(None) };
    let (mut unknown, mut wrong) = (None, None);
    for line in key_set.of(of.0)? {
        cancel.check()?;
        // At the usual cost: bkp writes none that asks for more.
        match open(&line, of, (keys, Effort::Usual), cancel) {
            Ok(Some(found)) if is_right(&found.0.key) => return Ok(Some(found)),
            // That of a copy under another data key, unless there is no other.
            Ok(Some(found)) if found.0.by_holder => wrong = wrong.or(Some(found)),
            Ok(Some(_) | None) => {}
            Err(error) if error.downcast_ref().is_some_and(KeyError::is_of_backup) => {}
            Err(error) => unknown = unknown.or(Some(error)),
        }
    }
    unknown.map_or(Ok(wrong), Err)
}

/// Wraps the data key of a backup, and tries at once whether that opens, if it can be tried here.
///
/// # Errors
/// What wrapping and opening fail with.
pub fn wrap(
    recipient: &dyn KeyProvider,
    key: &DataKey,
    (id, source): (BackupId, &str),
) -> Result<Recipient, KeyError> {
    let wrapped = recipient.wrap(key, id, source)?;
    if recipient.can_open() {
        recipient.open(&wrapped, id, Effort::Named)?;
    }
    Ok(wrapped)
}

/// The recipients of an envelope of backup `id`, whose data key is at hand; nothing if it is not one that a
/// holder of that key wrote.
#[must_use]
pub fn recipients(bytes: &[u8], id: BackupId, key: &DataKey) -> Vec<Recipient> {
    let envelope = Envelope::parse(bytes, id).filter(|_| mac::is_right(bytes, WRAPPED, b"", key));
    envelope.map(|envelope| envelope.recipients).unwrap_or_default()
}

/// The recipients of an envelope of backup `id` that a trusted signer signed; nothing if it is none.
#[must_use]
pub fn signed_recipients(bytes: &[u8], id: BackupId, keys: &Keyring) -> Vec<Recipient> {
    let is_trusted = |envelope: &Envelope| {
        let signer = envelope.signer.as_deref();
        keys.check_signature(bytes, WRAPPED, b"", signer) == SignatureCheck::Trusted
    };
    let envelope = Envelope::parse(bytes, id).filter(is_trusted);
    envelope.map(|envelope| envelope.recipients).unwrap_or_default()
}

/// Whether it has the shape of an envelope of backup `id`.
#[must_use]
pub fn is_of(bytes: &[u8], id: BackupId) -> bool {
    Envelope::parse(bytes, id).is_some()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use time::macros::datetime;

    use super::*;

    fn sample(id: BackupId, recipients: usize) -> Envelope {
        let recipient = Recipient {
            kind: "file".into(),
            id: "0011223344556677".into(),
            wrapped: "A".repeat(80),
            parameters: serde_json::Map::new(),
        };
        Envelope {
            schema: SCHEMA.into(),
            backup: id,
            manifest: "00".repeat(32),
            at: datetime!(2026-11-24 02:00:00 UTC),
            host: "ledger-1".into(),
            recipients: vec![recipient; recipients],
            signer: None,
            signature: None,
            mac: String::new(),
        }
    }

    #[test]
    fn an_envelope_is_of_one_backup_and_one_key() {
        let id = BackupId::new(datetime!(2026-11-21 02:00:00 UTC));
        let other = BackupId::new(datetime!(2026-11-21 02:00:01 UTC));
        let bytes = sample(id, 2).encode(&DataKey([7; 32]), None).expect("fits");
        assert_eq!(recipients(&bytes, id, &DataKey([7; 32])).len(), 2);
        assert!(recipients(&bytes, id, &DataKey([8; 32])).is_empty());
        assert!(recipients(&bytes, other, &DataKey([7; 32])).is_empty());
        assert!(sample(id, RECIPIENTS_MAX + 1).encode(&DataKey([7; 32]), None).is_none());
    }

    proptest! {
        #[test]
        fn every_changed_byte_is_noticed(at in any::<prop::sample::Index>(), flip in 1_u8..) {
            let (id, key) = (BackupId::new(datetime!(2026-11-21 02:00:00 UTC)), DataKey([7; 32]));
            let mut bytes = sample(id, 1).encode(&key, None).expect("fits");
            *at.get_mut(&mut bytes) ^= flip;
            prop_assert!(recipients(&bytes, id, &key).is_empty());
        }
    }
}
