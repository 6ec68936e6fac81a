//! The sidecar manifest, schema 1: the description of a backup.
//!
//! A backup exists if and only if its manifest exists. The last field, `mac`, is HMAC-SHA256 in
//! hex over the file's bytes with that value replaced by 64 zeros, under a key derived from the
//! backup's data key: who can write to the store but has no key cannot forge a manifest.
//!
//! Readers ignore fields they do not know, and nothing ever rewrites a manifest, so fields of later
//! versions survive. A later *schema* is refused.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use time::OffsetDateTime;

pub use super::hex::{hex, unhex};
use super::id::BackupId;
use super::limits::{MANIFEST_WEIGHT_MAX, RECIPIENTS_MAX};
use super::names::{BackupName, BackupType, Scope};
use super::recipient::Recipient;
use super::resealed::Resealed;
use super::segment;
use crate::error::{Classify, Kind, diagnosed};

/// The schema this version writes and reads.
pub const SCHEMA: &str = "bkp.manifest/1";

/// Role of the object that names the objects for which the manifest has no room.
pub const ROLE_OBJECTS: &str = "objects";

/// What a backup says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Manifest {
    /// `bkp.manifest/1`.
    pub schema: String,
    /// The backup's id.
    pub id: BackupId,
    /// The kind of system.
    #[serde(rename = "type")]
    pub backup_type: BackupType,
    /// The source's name.
    pub source: String,
    /// How much of the source this backup holds by itself.
    pub scope: Scope,
    /// What made it: `snapshot`, `log`, `export`, `replica`.
    pub kind: String,
    /// The backup that this one adds to.
    pub parent: Option<BackupId>,
    /// The full backup at the start of the chain; the backup itself if it is full.
    pub base: BackupId,
    /// What the source is, whatever the configuration calls it.
    #[serde(default)]
    pub identity: Identity,
    /// Whose data it is, if the source says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// The job that made it, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
    /// What started the run.
    #[serde(default)]
    pub trigger: Trigger,
    /// The user that the run belonged to.
    #[serde(default)]
    pub user: String,
    /// Name of the host that ran the backup.
    pub host: String,
    /// Name and version of the program.
    pub tool: String,
    /// When the run began.
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub started: OffsetDateTime,
    /// When every object was confirmed.
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub ended: OffsetDateTime,
    /// `completed`.
    pub status: String,
    /// Mode, consistency, position, and what the type adds.
    pub capture: Value,
    /// The objects, the one with the data first.
    pub objects: Vec<ObjectRecord>,
    /// Totals over all objects.
    pub sizes: Sizes,
    /// The recipients: any one of them opens the backup.
    pub keys: Vec<Recipient>,
    /// Until when the backup is to be kept.
    pub retention: Retention,
    /// Its place in the ledger, if one is configured.
    pub ledger: Option<Value>,
    /// URLs of the stores that the backup was made in, if they were several: each has the same
    /// objects and this manifest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub copies: Vec<String>,
    /// That this is a copy under another data key, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resealed: Option<Resealed>,
    /// Seconds that each stage was busy.
    pub timings: Map<String, Value>,
    /// Who signed it, as `trust` of a configuration names him, if anybody did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signer: Option<String>,
    /// Ed25519 over the file with these 128 digits replaced by zeros.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
    /// HMAC-SHA256 of the file with these 64 digits, and those of the signature, replaced by zeros; see
    /// bkp-format(5).
    pub mac: String,
}

/// One object of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ObjectRecord {
    /// What it is for: `data`, `map`, or `objects` for the list of those that the manifest has no room for.
    pub role: String,
    /// Its key in the store.
    pub key: String,
    /// Size as stored, bytes.
    pub bytes: u64,
    /// SHA-256 as stored, hex.
    pub sha256: String,
    /// What went into the chain.
    pub plaintext: Plaintext,
    /// The stages it went through, in order: `tar`, `zstd` or `gzip`, `seal`.
    pub stages: Vec<String>,
    /// How the store's service encrypts it, besides: `sse-s3` or `sse-kms`, if it was asked to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sse: Option<String>,
}

/// What went into the chain of an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Plaintext {
    /// Size, bytes.
    pub bytes: u64,
    /// SHA-256, hex.
    pub sha256: String,
}

/// Totals over all objects of a backup.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Sizes {
    /// Bytes before compression.
    pub plaintext_bytes: u64,
    /// Bytes as stored.
    pub stored_bytes: u64,
    /// `plaintext_bytes / stored_bytes`, rounded to two decimals.
    pub ratio: f64,
}

impl Sizes {
    /// The totals of these objects.
    #[must_use]
    pub fn of(objects: &[ObjectRecord]) -> Self {
        // What a manifest claims is not bounded by what anybody can store.
        let sum = |bytes: fn(&ObjectRecord) -> u64| {
            objects.iter().map(bytes).fold(0, u64::saturating_add)
        };
        let plaintext_bytes = sum(|object| object.plaintext.bytes);
        let stored_bytes = sum(|object| object.bytes);
        #[expect(clippy::cast_precision_loss, reason = "a ratio for people, two decimals")]
        let ratio = (plaintext_bytes as f64 / stored_bytes.max(1) as f64 * 100.0).round() / 100.0;
        Sizes { plaintext_bytes, stored_bytes, ratio }
    }
}

/// What a source is: the names that its engine gives it, such as `cluster` and `replica_id`, or
/// `host` and `path` where the engine gives none. Two sources with one name in two configurations
/// differ here. Empty in manifests of earlier versions.
pub type Identity = BTreeMap<String, String>;

/// What started a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Trigger {
    /// Somebody, or a program that does not say otherwise.
    #[default]
    Manual,
    /// The schedule of a job.
    Scheduled,
    /// Another program, by `BKP_TRIGGER=hook`.
    Hook,
}

impl std::str::FromStr for Trigger {
    type Err = ();

    fn from_str(word: &str) -> Result<Trigger, ()> {
        match word {
            "manual" => Ok(Trigger::Manual),
            "scheduled" => Ok(Trigger::Scheduled),
            "hook" => Ok(Trigger::Hook),
            _ => Err(()),
        }
    }
}

impl std::fmt::Display for Trigger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Trigger::Manual => "manual",
            Trigger::Scheduled => "scheduled",
            Trigger::Hook => "hook",
        })
    }
}

/// What the policy at the time of a backup promises of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Retention {
    /// Not before this time may a policy remove it. A policy that counts backups promises no date.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub until: Option<OffsetDateTime>,
    /// No policy may remove it.
    pub pinned: bool,
    /// The rules of the policy, as the configuration spells them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
}

/// What is wrong with a manifest.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// It is not a manifest.
    #[error("manifest `{key}` cannot be read: {reason}")]
    Invalid {
        /// Its key.
        key: String,
        /// What is wrong.
        reason: String,
    },
    /// A later version of bkp wrote it.
    #[error("manifest `{key}` has schema `{schema}`; this bkp reads `{SCHEMA}`")]
    Newer {
        /// Its key.
        key: String,
        /// Its schema.
        schema: String,
    },
    /// Its MAC does not fit: altered, or not made by a holder of the data key.
    #[error("manifest `{key}` is not authentic: its MAC does not match its content")]
    Forged {
        /// Its key.
        key: String,
    },
    /// Its data key was sealed for a public key, so that anybody can have made it, and nobody vouches for it.
    #[error(
        "manifest `{key}` is not trusted: anybody can seal for the public key that it was sealed for, and {doubt}"
    )]
    Untrusted {
        /// Its key.
        key: String,
        /// What is known of its signer.
        doubt: Doubt,
    },
    /// It says something else than its own key or its neighbours.
    #[error("manifest `{key}` contradicts the store: {reason}")]
    Misplaced {
        /// Its key.
        key: String,
        /// What differs.
        reason: String,
    },
}

diagnosed!(ManifestError);

impl Classify for ManifestError {
    fn kind(&self) -> Kind {
        match self {
            ManifestError::Newer { .. } | ManifestError::Untrusted { .. } => Kind::Refused,
            ManifestError::Invalid { .. }
            | ManifestError::Forged { .. }
            | ManifestError::Misplaced { .. } => Kind::Integrity,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            ManifestError::Newer { .. } => {
                Some("use the bkp version that made this backup, or a later one".into())
            }
            ManifestError::Untrusted { doubt, .. } => Some(doubt.hint()),
            ManifestError::Invalid { .. }
            | ManifestError::Forged { .. }
            | ManifestError::Misplaced { .. } => None,
        }
    }
}

/// Why a manifest is not trusted that anybody can have made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Doubt {
    /// It has no signature.
    Unsigned,
    /// Nobody trusts its signer here.
    Stranger(String),
    /// It is not what its maker wrote.
    Altered,
}

impl Doubt {
    fn hint(&self) -> String {
        match self {
            Doubt::Unsigned => "hosts that seal for a public key sign with a `signing_key`, and `trust` under [keys] names their signers; somebody without one made this, or removed the signature".to_owned(),
            Doubt::Stranger(signer) => {
                let signer = shown_signer(signer);
                format!("compare {signer} with what `bkp keys generate --signing` printed on the host that makes these backups; if it is the same, add it to `trust` under [keys], or pass --trust")
            }
            Doubt::Altered => "somebody altered it or put it there; another store may have an intact copy (--store), and `trust` under [keys] is not the cause".to_owned(),
        }
    }
}

impl std::fmt::Display for Doubt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Doubt::Unsigned => f.write_str("nobody signed it"),
            Doubt::Stranger(signer) => {
                write!(f, "its signer {} is not trusted here", shown_signer(signer))
            }
            Doubt::Altered => f.write_str("its signature or MAC does not match its content"),
        }
    }
}

/// Characters of a signer's public key as it is written.
const SIGNER_CHARS: usize = 52;

/// A signer for messages: whoever made the manifest may have written anything, of any length.
fn shown_signer(signer: &str) -> String {
    super::text::plain(&signer.chars().take(SIGNER_CHARS).collect::<String>())
}

/// What tells whether a file is one that this version can read.
#[derive(Deserialize)]
struct Schema {
    schema: String,
}

/// An upper bound of what a JSON text takes in memory once it is read, bytes: an object takes a map with
/// room for several fields, and anything else a value and perhaps a text of its own.
#[must_use]
pub fn weight(json: &[u8]) -> u64 {
    let of = |byte: &u8| match byte {
        b'{' => 700,
        b',' | b'[' => 128,
        _ => 1,
    };
    json.iter().map(of).fold(0, u64::saturating_add)
}

impl Manifest {
    /// The name that the backup's objects have.
    #[must_use]
    pub fn name(&self) -> BackupName {
        BackupName {
            id: self.id,
            backup_type: self.backup_type,
            source: self.source.clone(),
            scope: self.scope,
            kind: self.kind.clone(),
        }
    }

    /// The object with this role.
    #[must_use]
    pub fn object(&self, role: &str) -> Option<&ObjectRecord> {
        self.objects.iter().find(|object| object.role == role)
    }

    /// SHA-256 of the manifest that the run wrote which made this backup: that of the file, which is `sha256`, unless
    /// the backup was sealed anew since. As authentic as the manifest is.
    #[must_use]
    pub fn original_sha256(&self, sha256: &[u8; 32]) -> [u8; 32] {
        let from = self.resealed.as_ref().and_then(Resealed::from_sha256);
        from.unwrap_or(*sha256)
    }

    /// Sum over its objects when it was made, bytes.
    #[must_use]
    pub fn original_bytes(&self) -> u64 {
        self.resealed.as_ref().map_or(self.sizes.stored_bytes, |resealed| resealed.stored_bytes)
    }

    /// Reads a manifest without checking its MAC: for listings, and to find the recipients.
    ///
    /// # Errors
    /// [`ManifestError::Newer`], [`ManifestError::Invalid`], and [`ManifestError::Misplaced`] if it
    /// names another backup or other objects than belong under `key`.
    pub fn parse(bytes: &[u8], key: &str) -> Result<Self, ManifestError> {
        if weight(bytes) > MANIFEST_WEIGHT_MAX {
            let reason = format!("it would need more than {MANIFEST_WEIGHT_MAX} bytes of memory");
            return Err(ManifestError::Invalid { key: key.to_owned(), reason });
        }
        let invalid = |error: serde_json::Error| ManifestError::Invalid {
            key: key.to_owned(),
            reason: error.to_string(),
        };
        let Schema { schema } = serde_json::from_slice(bytes).map_err(invalid)?;
        if schema != SCHEMA {
            return Err(if schema.starts_with("bkp.manifest/") {
                ManifestError::Newer { key: key.to_owned(), schema }
            } else {
                ManifestError::Invalid { key: key.to_owned(), reason: format!("schema `{schema}`") }
            });
        }
        let manifest: Manifest = serde_json::from_slice(bytes).map_err(invalid)?;
        manifest.check_place(key)?;
        Ok(manifest)
    }

    fn check_place(&self, key: &str) -> Result<(), ManifestError> {
        let misplaced =
            |reason: String| Err(ManifestError::Misplaced { key: key.to_owned(), reason });
        if self.keys.len() > RECIPIENTS_MAX {
            let reason = format!("{} recipients are more than {RECIPIENTS_MAX}", self.keys.len());
            return Err(ManifestError::Invalid { key: key.to_owned(), reason });
        }
        let name = self.name();
        if name.manifest_key() != key {
            return misplaced(format!("it belongs at `{}`", name.manifest_key()));
        }
        if self.resealed.as_ref().is_some_and(|resealed| resealed.from_sha256().is_none()) {
            let reason = "what it was resealed from is not a SHA-256".to_owned();
            return Err(ManifestError::Invalid { key: key.to_owned(), reason });
        }
        for object in &self.objects {
            if BackupName::parse(&object.key).is_none_or(|(owner, _)| owner != name) {
                return misplaced(format!("`{}` is not an object of this backup", object.key));
            }
        }
        match (self.scope, self.parent) {
            (Scope::Full, None) if self.base == self.id => Ok(()),
            // The first segment of a log adds to nothing in the store.
            (Scope::Incremental, None) if self.base == self.id && self.kind == segment::KIND => {
                Ok(())
            }
            (Scope::Incremental | Scope::Differential, Some(parent))
                if parent < self.id && self.base <= parent =>
            {
                Ok(())
            }
            _ => misplaced("its parent and base do not match its scope".into()),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use time::macros::datetime;

    pub(crate) fn sample() -> Manifest {
        let started = datetime!(2026-11-21 02:00:00 UTC);
        let id = BackupId::new(started);
        let name = BackupName {
            id,
            backup_type: BackupType::Tigerbeetle,
            source: "books".into(),
            scope: Scope::Full,
            kind: "snapshot".into(),
        };
        let objects = vec![ObjectRecord {
            role: "data".into(),
            key: name.key("tar.zst.enc"),
            bytes: 100,
            sha256: "00".repeat(32),
            plaintext: Plaintext { bytes: 250, sha256: "11".repeat(32) },
            stages: vec!["tar".into(), "zstd".into(), "seal".into()],
            sse: None,
        }];
        Manifest {
            schema: SCHEMA.into(),
            id,
            backup_type: BackupType::Tigerbeetle,
            source: "books".into(),
            scope: Scope::Full,
            kind: "snapshot".into(),
            parent: None,
            base: id,
            identity: [("cluster".to_owned(), "7".to_owned())].into(),
            tenant: Some("acme".into()),
            job: Some("nightly".into()),
            trigger: Trigger::Scheduled,
            user: "bkp".into(),
            host: "ledger-1".into(),
            tool: "bkp 0.1.0".into(),
            started,
            ended: started,
            status: "completed".into(),
            capture: serde_json::json!({"mode": "online", "mac": "not this one"}),
            sizes: Sizes::of(&objects),
            objects,
            keys: vec![],
            retention: Retention::default(),
            ledger: None,
            copies: Vec::new(),
            resealed: None,
            signer: None,
            signature: None,
            timings: Map::new(),
            mac: String::new(),
        }
    }

    /// A mebibyte of JSON can take a hundred of memory.
    #[test]
    fn what_would_take_much_memory_is_refused_before_it_is_read() {
        let text = serde_json::to_string_pretty(&sample()).expect("encodes");
        assert!(weight(text.as_bytes()) < 64 << 10, "an ordinary one takes little");
        let heavy = r#"{"":0},"#.repeat(100_000);
        let heavy = text.replace("\"mode\"", &format!("\"x\":[{heavy}0],\"mode\""));
        assert!(heavy.len() < 1 << 20);
        let error = Manifest::parse(heavy.as_bytes(), "k").expect_err("refused");
        assert!(error.to_string().contains("of memory"), "{error}");
    }

    #[test]
    fn a_newer_schema_is_refused_and_says_so() {
        let bytes = br#"{"schema":"bkp.manifest/2","everything":"else"}"#;
        let error = Manifest::parse(bytes, "k").expect_err("refused");
        assert_eq!(error.kind(), Kind::Refused);
    }
}
