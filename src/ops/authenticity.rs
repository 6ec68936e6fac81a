//! Authenticity of what a store says about runs and backups: a MAC under a key derived from the data
//! key of a backup. Whoever can write to the store but has no key can plant such an object, or move
//! one; nobody believes it then.
//!
//! The last field of such an object is `"proof": {"backup": …, "mac": …}`. It names the manifest of the
//! backup whose data key it is. The MAC is that of the object's key, a newline, and the object with the
//! digits of the MAC replaced by zeros. A host that signs puts `signer` and `signature` between the two.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::catalog;
use crate::ctx::Ctx;
use crate::domain::names::{BackupName, MANIFEST_EXTENSION};
use crate::error::{Kind, diagnose};
use crate::keys::keyring::{Keyring, SignatureCheck};
use crate::keys::mac::{self, MacPurpose};
use crate::keys::signature::{self, Signer};
use crate::keys::{DataKey, Effort, KeyError};
use crate::store::{ReadStore, StoreError};
use crate::wire::AppContext;

/// Records of runs, and of what was done to backups.
pub const RECORD: MacPurpose = MacPurpose { info: b"bkp record 1", closing: b"\"}}" };
/// What is said of a backup beside its manifest.
pub const ANNOTATION: MacPurpose = MacPurpose { info: b"bkp annotation 1", closing: b"\"}}" };

/// Manifests that may turn out to be of no use in one run. Each costs a request and as many derivations
/// of a key as its recipients ask for; whoever plants objects plants thousands.
const FAILURES_MAX: usize = 32;

/// A body with its proof behind it.
#[derive(Serialize)]
struct Proven<'a, T> {
    #[serde(flatten)]
    body: &'a T,
    proof: StoredProof,
}

/// What stands in an object.
#[derive(Debug, Serialize, Deserialize)]
struct StoredProof {
    /// Key of the manifest of the backup.
    backup: String,
    /// Who signed it, if anybody did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    signer: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    signature: Option<String>,
    /// Zeros where the writer could not open the backup.
    mac: String,
}

/// Opens backups to make and check proofs, each at most once.
pub struct ProofChecker<'a> {
    store: &'a dyn ReadStore,
    keys: &'a Keyring,
    ctx: &'a Ctx,
    opened: Mutex<HashMap<BackupName, OpenOutcome>>,
}

/// The data key of an authentic backup, if a key at hand opens it.
type OpenOutcome = Result<Option<DataKey>, OpenRefusal>;

/// Why a backup proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenRefusal {
    /// It is not authentic, or none of the keys at hand opens it.
    Always,
    /// A store or a key's service does not answer, or too many others were tried before.
    Now,
}

/// Whether an object is what bkp wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is, by the key of this backup.
    Proven(BackupName),
    /// It carries no proof that holds with the keys at hand.
    Unproven,
    /// That cannot be said now.
    Unknown,
}

/// The keys at hand for proofs: none if there are none, since proofs are then neither made nor believed.
#[must_use]
pub fn keys(app: &AppContext) -> Keyring {
    app.keys_at_hand()
}

impl std::fmt::Debug for ProofChecker<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProofChecker").field("store", &self.store.url()).finish_non_exhaustive()
    }
}

impl<'a> ProofChecker<'a> {
    /// With the keys at hand, for what is in one store.
    #[must_use]
    pub fn new(store: &'a dyn ReadStore, keys: &'a Keyring, ctx: &'a Ctx) -> ProofChecker<'a> {
        ProofChecker { store, keys, ctx, opened: Mutex::default() }
    }

    /// The data key of a backup whose manifest is authentic. What opened, or did not, is remembered;
    /// after too many that did not, no further one is tried.
    #[must_use]
    pub fn open(&self, name: &BackupName) -> Option<DataKey> {
        self.try_open(name).ok().flatten()
    }

    /// Whether what is said of this backup can be proven.
    #[must_use]
    pub fn can_prove(&self, name: &BackupName) -> bool {
        self.keys.signer().is_some() || self.open(name).is_some()
    }

    /// The same, with what a refusal means; nothing if the backup is authentic by its signature, and no key at hand
    /// opens it.
    ///
    /// # Errors
    /// [`OpenRefusal`].
    pub fn try_open(&self, name: &BackupName) -> OpenOutcome {
        if self.keys.is_empty() {
            return Err(OpenRefusal::Always);
        }
        // It is held meanwhile: whoever else wants this key waits instead of deriving it too.
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = opened.get(name) {
            return known.clone();
        }
        if opened.values().filter(|key| key.is_err()).count() >= FAILURES_MAX {
            return Err(OpenRefusal::Now);
        }
        let refuse = |error: anyhow::Error| {
            let (id, diagnosis) = (name.id, diagnose(&error));
            let what =
                format!("cannot authenticate with backup {id}: {error:#}; {}", diagnosis.hint);
            self.ctx.monitor.detail(&what);
            refusal(&error, diagnosis.kind)
        };
        let key = self.read(name).map_err(refuse);
        opened.insert(name.clone(), key.clone());
        key
    }

    fn read(&self, name: &BackupName) -> anyhow::Result<Option<DataKey>> {
        let keys = (self.keys, Effort::Usual);
        let backup = catalog::read_authentic(self.store, &name.manifest_key(), keys, self.ctx)?;
        Ok(backup.key.ok())
    }

    /// The object with this key, as it is to be written: `body`, and the proof by the first backup of
    /// `by` that opens, or by the host's signature. Without either it has none.
    ///
    /// # Errors
    /// If `body` cannot be written as a JSON object.
    pub fn object<N: Borrow<BackupName>>(
        &self,
        of: MacPurpose,
        key: &str,
        body: &impl Serialize,
        by: impl IntoIterator<Item = N>,
    ) -> Result<Vec<u8>, serde_json::Error> {
        let (mut by, mut first) = (by.into_iter(), None);
        let mut opened = None;
        while let (None, Some(name)) = (&opened, by.next()) {
            // Without a key that opens anything there is nothing to read.
            let data_key = if self.keys.can_open() { self.open(name.borrow()) } else { None };
            if let Some(data_key) = data_key {
                opened = Some((name.borrow().clone(), Some(data_key)));
            } else {
                first.get_or_insert_with(|| name.borrow().clone());
                if !self.keys.can_open() {
                    break;
                }
            }
        }
        let signed = || first.filter(|_| self.keys.signer().is_some()).map(|name| (name, None));
        let by = opened.or_else(signed);
        let by = by.as_ref().map(|(name, data_key)| (name, data_key.as_ref()));
        object(of, key, body, by, self.keys.signer())
    }

    /// Whether the object with this key and these bytes is proven.
    #[must_use]
    pub fn judge(&self, of: MacPurpose, key: &str, bytes: &[u8]) -> Verdict {
        let Some((name, proof)) = proof_in(bytes) else { return Verdict::Unproven };
        match self.keys.check_signature(bytes, of, &context(key), proof.signer.as_deref()) {
            SignatureCheck::Trusted => return Verdict::Proven(name),
            SignatureCheck::Wrong => return Verdict::Unproven,
            SignatureCheck::Unknown => {}
        }
        match self.try_open(&name) {
            Ok(Some(data_key)) if mac::is_right(bytes, of, &context(key), &data_key) => {
                Verdict::Proven(name)
            }
            // A service may say more tomorrow.
            Ok(None) if self.keys.can_open() => Verdict::Unknown,
            Ok(_) | Err(OpenRefusal::Always) => Verdict::Unproven,
            Err(OpenRefusal::Now) => Verdict::Unknown,
        }
    }

    /// The backup by whose key the object with this key and these bytes is proven; `None` if it is not.
    #[must_use]
    pub fn proven(&self, of: MacPurpose, key: &str, bytes: &[u8]) -> Option<BackupName> {
        match self.judge(of, key, bytes) {
            Verdict::Proven(name) => Some(name),
            Verdict::Unproven | Verdict::Unknown => None,
        }
    }
}

/// What follows from an error for the next time.
fn refusal(error: &anyhow::Error, kind: Kind) -> OpenRefusal {
    let is_of_key = || match error.downcast_ref() {
        Some(KeyError::Wrong { .. } | KeyError::NoneFits { .. }) => true,
        Some(_) | None => false,
    };
    let is_missing = matches!(error.downcast_ref(), Some(StoreError::Missing { .. }));
    let is_bad = matches!(kind, Kind::Integrity | Kind::Refused);
    let is_always = is_missing || is_bad || (kind == Kind::Key && is_of_key());
    if is_always { OpenRefusal::Always } else { OpenRefusal::Now }
}

/// The object with this key: `body`, and the proof by a backup whose data key is at hand, by a signer, or both.
///
/// # Errors
/// If `body` cannot be written as a JSON object.
pub fn object(
    of: MacPurpose,
    key: &str,
    body: &impl Serialize,
    by: Option<(&BackupName, Option<&DataKey>)>,
    signer: Option<&Signer>,
) -> Result<Vec<u8>, serde_json::Error> {
    let Some((name, data_key)) = by else {
        let mut bytes = serde_json::to_vec(body)?;
        bytes.push(b'\n');
        return Ok(bytes);
    };
    let proof = StoredProof {
        backup: name.manifest_key(),
        signer: signer.map(|signer| signer.id().to_string()),
        signature: signer.map(|_| "0".repeat(signature::DIGITS)),
        mac: "0".repeat(mac::DIGITS),
    };
    let mut bytes = serde_json::to_vec(&Proven { body, proof })?;
    bytes.push(b'\n');
    // They are the last fields, so there are places for them. The signature covers the MAC.
    let _authenticated =
        data_key.is_some_and(|data_key| mac::sign(&mut bytes, of, &context(key), data_key));
    let _signed = signer.is_some_and(|signer| signer.sign(&mut bytes, of, &context(key)));
    Ok(bytes)
}

/// The backup that an object claims to be proven by; `None` if it claims none. Costs no request.
#[must_use]
pub fn named(bytes: &[u8]) -> Option<BackupName> {
    proof_in(bytes).map(|(name, _)| name)
}

fn proof_in(bytes: &[u8]) -> Option<(BackupName, StoredProof)> {
    #[derive(Deserialize)]
    struct UncheckedProof {
        proof: StoredProof,
    }
    let UncheckedProof { proof } = serde_json::from_slice(bytes).ok()?;
    match BackupName::parse(&proof.backup)? {
        (name, MANIFEST_EXTENSION) => Some((name, proof)),
        _ => None,
    }
}

fn context(key: &str) -> Vec<u8> {
    format!("{key}\n").into_bytes()
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use time::macros::datetime;

    use super::*;
    use crate::domain::id::BackupId;
    use crate::domain::names::{BackupType, Scope};

    #[test]
    fn a_proof_is_of_one_key_one_body_and_one_use() {
        let name = BackupName {
            id: BackupId::new(datetime!(2026-11-21 02:00:00 UTC)),
            backup_type: BackupType::Duckdb,
            source: "books".into(),
            scope: Scope::Full,
            kind: "snapshot".into(),
        };
        let (key, other) = (DataKey([7; 32]), DataKey([8; 32]));
        let body = json!({"schema": "bkp.run-record/1", "exit_code": 0});
        let bytes = object(RECORD, "runs/a", &body, Some((&name, Some(&key))), None).unwrap();
        assert_eq!(named(&bytes), Some(name));
        let right = |bytes: &[u8], of, at, key| mac::is_right(bytes, of, &context(at), key);
        assert!(right(&bytes, RECORD, "runs/a", &key));
        assert!(!right(&bytes, RECORD, "runs/b", &key), "it was moved");
        assert!(!right(&bytes, RECORD, "runs/a", &other));
        assert!(!right(&bytes, ANNOTATION, "runs/a", &key));
        let text = String::from_utf8(bytes).unwrap().replace("\"exit_code\":0", "\"exit_code\":1");
        assert!(!right(text.as_bytes(), RECORD, "runs/a", &key));
        let bare = object(RECORD, "runs/a", &body, None, None).unwrap();
        assert_eq!(named(&bare), None);
        assert!(!right(&bare, RECORD, "runs/a", &key));
    }
}
