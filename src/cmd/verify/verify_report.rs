//! The result of verifying one backup.

use schemars::JsonSchema;
use serde::Serialize;

use crate::domain::id::BackupId;
use crate::domain::verify_level::VerifyLevel;
use crate::error::Kind;
use crate::source::Drilled;

/// The stable shape `bkp.verify/1`; with `--all`, without `store`, part of [`super::VerifyAllReport`].
#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::cmd) struct VerifyReport {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) store: Option<String>,
    pub(super) id: BackupId,
    pub(super) source: String,
    pub(super) level: VerifyLevel,
    /// Every backup that was read: the chain, base first.
    pub(super) chain: Vec<BackupId>,
    pub(super) ok: bool,
    pub(super) seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) drill: Option<Drilled>,
}

impl VerifyReport {
    /// What it counts for: a drill that lacks something is no success.
    pub(super) fn outcome(&self) -> Option<Kind> {
        (!self.ok).then_some(Kind::Partial)
    }
}
