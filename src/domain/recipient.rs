//! Wrapped keys: who can open a backup, according to its header and manifest.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A data key wrapped for one recipient, as it stands in headers and manifests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Recipient {
    /// The kind of recipient: `file`, `passphrase`, …
    pub kind: String,
    /// Which key of that kind, without telling anything secret.
    pub id: String,
    /// The wrapped data key, base64.
    pub wrapped: String,
    /// Further parameters of the kind (salt, rounds, …).
    #[serde(flatten)]
    pub parameters: serde_json::Map<String, serde_json::Value>,
}
