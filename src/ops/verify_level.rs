//! The levels of a verification.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How deep to look. Each level includes those before it.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum VerifyLevel {
    /// Manifest and objects are there, authentic, and of the right size.
    Exists,
    /// Every stored byte has the SHA-256 that the manifest names.
    Digest,
    /// Everything decrypts, decompresses, and refers only to what is there; every row of an export is the one that was exported.
    Decode,
    /// The real engine starts on a restored copy and answers as it did at capture.
    Drill,
}
