//! What the manifest of a resealed backup says of the one that it is a copy of.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::OffsetDateTime;

use super::hex::unhex;

/// That a backup was sealed anew, under another data key: the same content in other bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Resealed {
    /// SHA-256 of the manifest that the run wrote which made the backup, hex. The ledger and the next segment of a
    /// log name the backup by it, however often it is sealed anew.
    pub from: String,
    /// Sum over the objects of that manifest as stored, bytes: what the ledger has.
    pub stored_bytes: u64,
    /// When it was sealed anew.
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub at: OffsetDateTime,
    /// Name of the host that did.
    pub host: String,
    /// Name and version of the program.
    pub tool: String,
    /// Who had signed the manifest that was read, as `trust` of a configuration names him, if anybody had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signer: Option<String>,
}

impl Resealed {
    /// [`Resealed::from`]; nothing if that is no SHA-256.
    #[must_use]
    pub fn from_sha256(&self) -> Option<[u8; 32]> {
        unhex(self.from.as_bytes())?.try_into().ok()
    }
}

/// A field of `file` that is not in `known`, what this version understands of it; nothing if it understands all.
#[must_use]
pub fn unknown_field(file: &Value, known: &Value) -> Option<String> {
    match (file, known) {
        (Value::Object(file), Value::Object(known)) => file.iter().find_map(|(name, value)| {
            let Some(known) = known.get(name) else { return Some(name.clone()) };
            unknown_field(value, known).map(|below| format!("{name}.{below}"))
        }),
        (Value::Array(file), Value::Array(known)) => {
            file.iter().zip(known).find_map(|(value, known)| unknown_field(value, known))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_field_of_a_later_version_is_found_wherever_it_is() {
        let known = json!({
            "schema": "bkp.manifest/1",
            "capture": { "mode": "online" },
            "objects": [{ "key": "a", "plaintext": { "bytes": 1 } }],
            "resealed": null,
        });
        assert_eq!(unknown_field(&known, &known), None);
        let mut file = known.clone();
        file["capture"]["later"] = json!(1);
        assert_eq!(unknown_field(&file, &known).as_deref(), Some("capture.later"));
        let mut file = known.clone();
        file["objects"][0]["plaintext"]["blake3"] = json!("ab");
        assert_eq!(unknown_field(&file, &known).as_deref(), Some("objects.plaintext.blake3"));
        let mut file = known.clone();
        file["legal_hold"] = json!(true);
        assert_eq!(unknown_field(&file, &known).as_deref(), Some("legal_hold"));
    }
}
