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

impl VerifyLevel {
    /// Every level, the least first.
    pub const ALL: [VerifyLevel; 4] =
        [VerifyLevel::Exists, VerifyLevel::Digest, VerifyLevel::Decode, VerifyLevel::Drill];

    /// The word in the configuration, in reports and on the command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            VerifyLevel::Exists => "exists",
            VerifyLevel::Digest => "digest",
            VerifyLevel::Decode => "decode",
            VerifyLevel::Drill => "drill",
        }
    }

    /// The level of this word.
    #[must_use]
    pub fn parse(text: &str) -> Option<VerifyLevel> {
        VerifyLevel::ALL.into_iter().find(|level| level.as_str() == text)
    }
}
