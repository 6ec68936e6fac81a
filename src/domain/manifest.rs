//! The sidecar manifest, schema 1: what a backup says of itself.
//!
//! A backup exists if and only if its manifest exists. The last field, `mac`, is HMAC-SHA256 in
//! hex over the file's bytes with that value replaced by 64 zeros, under a key derived from the
//! backup's data key: who can write to the store but has no key cannot forge a manifest.
//!
//! Readers ignore fields they do not know, and nothing ever rewrites a manifest, so fields of later
//! versions survive. A later *schema* is refused.

use ring::hmac;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use time::OffsetDateTime;

use super::id::BackupId;
use super::limits::RECIPIENTS_MAX;
use super::names::{BackupName, BackupType, Scope};
use super::segment;
use crate::error::{Classify, Kind};
use crate::keys::{DataKey, Recipient};

/// The schema this version writes and reads.
pub const SCHEMA: &str = "bkp.manifest/1";

const MAC_INFO: &[u8] = b"bkp manifest 1";
const MAC_HEX: usize = 64;

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
    /// What made it: `snapshot`, `log`, `export`.
    pub kind: String,
    /// The backup that this one adds to.
    pub parent: Option<BackupId>,
    /// The full backup at the start of the chain; the backup itself if it is full.
    pub base: BackupId,
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
    /// Seconds that each stage was busy.
    pub timings: Map<String, Value>,
    /// HMAC-SHA256 of the file with these 64 digits replaced by zeros; see bkp-format(5).
    pub mac: String,
}

/// One object of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ObjectRecord {
    /// What it is for: `data` or `map`.
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
        let plaintext_bytes = objects.iter().map(|object| object.plaintext.bytes).sum();
        let stored_bytes: u64 = objects.iter().map(|object| object.bytes).sum();
        #[expect(clippy::cast_precision_loss, reason = "a ratio for people, two decimals")]
        let ratio = (plaintext_bytes as f64 / stored_bytes.max(1) as f64 * 100.0).round() / 100.0;
        Sizes { plaintext_bytes, stored_bytes, ratio }
    }
}

/// Until when a backup is to be kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Retention {
    /// Not before this time may a policy remove it.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub until: Option<OffsetDateTime>,
    /// No policy may remove it.
    pub pinned: bool,
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
    #[error("manifest `{key}` is not authentic: its MAC does not fit its content")]
    Forged {
        /// Its key.
        key: String,
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

impl Classify for ManifestError {
    fn kind(&self) -> Kind {
        match self {
            ManifestError::Newer { .. } => Kind::Refused,
            ManifestError::Invalid { .. }
            | ManifestError::Forged { .. }
            | ManifestError::Misplaced { .. } => Kind::Integrity,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            ManifestError::Newer { .. } => {
                Some("use the version of bkp that made this backup, or a later one".into())
            }
            ManifestError::Invalid { .. }
            | ManifestError::Forged { .. }
            | ManifestError::Misplaced { .. } => None,
        }
    }
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

    /// The file: indented JSON with the MAC in place.
    ///
    /// # Errors
    /// Never for a manifest that this program made; a value that JSON cannot hold otherwise.
    pub fn encode(mut self, key: &DataKey) -> Result<Vec<u8>, serde_json::Error> {
        self.mac = "0".repeat(MAC_HEX);
        let mut bytes = serde_json::to_vec_pretty(&self)?;
        bytes.push(b'\n');
        let tag = hmac::sign(&mac_key(key), &bytes);
        if let Some(cell) = mac_range(&bytes).and_then(|range| bytes.get_mut(range)) {
            cell.copy_from_slice(hex(tag.as_ref()).as_bytes());
        }
        Ok(bytes)
    }

    /// Reads a manifest without checking its MAC: for listings, and to find the recipients.
    ///
    /// # Errors
    /// [`ManifestError::Newer`], [`ManifestError::Invalid`], and [`ManifestError::Misplaced`] if it
    /// names another backup or other objects than belong under `key`.
    pub fn parse(bytes: &[u8], key: &str) -> Result<Self, ManifestError> {
        #[derive(Deserialize)]
        struct Schema {
            schema: String,
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
        for object in &self.objects {
            if BackupName::parse(&object.key).is_none_or(|(owner, _)| owner != name) {
                return misplaced(format!("`{}` is no object of this backup", object.key));
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
            _ => misplaced("its parent and base do not fit its scope".into()),
        }
    }

    /// Checks the MAC of `bytes`, from which a manifest was parsed.
    ///
    /// # Errors
    /// [`ManifestError::Forged`].
    pub fn authenticate(bytes: &[u8], key: &DataKey, at: &str) -> Result<(), ManifestError> {
        let forged = || ManifestError::Forged { key: at.to_owned() };
        let range = mac_range(bytes).ok_or_else(forged)?;
        let claimed = bytes.get(range.clone()).and_then(unhex).ok_or_else(forged)?;
        let mut zeroed = bytes.to_vec();
        zeroed.get_mut(range).ok_or_else(forged)?.fill(b'0');
        hmac::verify(&mac_key(key), &zeroed, &claimed).map_err(|_unspecified| forged())
    }
}

/// HMAC-SHA256 of a text that is to be as authentic as a manifest of the same data key, hex. `info` keeps
/// one use from being taken for another.
#[must_use]
pub fn tag(key: &DataKey, info: &[u8], text: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, &*key.derive(&[], &[info]));
    hex(hmac::sign(&key, text).as_ref())
}

fn mac_key(key: &DataKey) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, &*key.derive(&[], &[MAC_INFO]))
}

/// Where the MAC's 64 digits stand: they are the value of the last field, and nothing but the
/// closing quote, brace and white space follows them.
fn mac_range(bytes: &[u8]) -> Option<std::ops::Range<usize>> {
    const FIELD: &[u8] = b"\"mac\":";
    let field = bytes.windows(FIELD.len()).rposition(|window| window == FIELD)?;
    let value = field + FIELD.len();
    let open = value + bytes.get(value..)?.iter().position(|byte| !byte.is_ascii_whitespace())?;
    let start = open + 1;
    let tail = bytes.get(start + MAC_HEX..)?;
    let closing: Vec<u8> = tail.iter().copied().filter(|b| !b.is_ascii_whitespace()).collect();
    (bytes.get(open) == Some(&b'"') && closing == b"\"}").then_some(start..start + MAC_HEX)
}

/// Lower-case hex.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _infallible = write!(text, "{byte:02x}");
        text
    })
}

/// Reads lower-case hex.
#[must_use]
pub fn unhex(text: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = text.as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
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
            timings: Map::new(),
            mac: String::new(),
        }
    }

    #[test]
    fn a_manifest_reads_back_and_authenticates() {
        let (key, other) = (DataKey([7; 32]), DataKey([8; 32]));
        let at = sample().name().manifest_key();
        let bytes = sample().encode(&key).expect("encodes");
        // `sample` draws a new id each time, so take the one that was encoded.
        let id = serde_json::from_slice::<Manifest>(&bytes).expect("parses");
        let at = if id.name().manifest_key() == at { at } else { id.name().manifest_key() };
        assert!(Manifest::parse(&bytes, &at).is_ok());
        assert!(Manifest::authenticate(&bytes, &key, &at).is_ok());
        assert!(matches!(
            Manifest::authenticate(&bytes, &other, &at),
            Err(ManifestError::Forged { .. })
        ));
    }

    #[test]
    fn a_newer_schema_is_refused_and_says_so() {
        let bytes = br#"{"schema":"bkp.manifest/2","everything":"else"}"#;
        let error = Manifest::parse(bytes, "k").expect_err("refused");
        assert_eq!(error.kind(), Kind::Refused);
    }

    proptest! {
        #[test]
        fn every_changed_byte_is_noticed(at in any::<prop::sample::Index>(), flip in 1_u8..) {
            let key = DataKey([7; 32]);
            let mut bytes = sample().encode(&key).expect("encodes");
            let place = at.index(bytes.len());
            // White space behind the closing brace carries nothing, but it is covered too.
            *at.get_mut(&mut bytes) ^= flip;
            prop_assert!(Manifest::authenticate(&bytes, &key, "k").is_err(), "byte {place}");
        }
    }
}
