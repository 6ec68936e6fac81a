//! Restoring a source to a moment with its log.

use std::path::Path;

use serde_json::Value;

use crate::ctx::Ctx;
use crate::domain::names::BackupType;
use crate::domain::segment::{Segment, Target, Totals};
use crate::pipeline::BackupReader;
use crate::source::{Chain, Check, DrillTools, RestoreRequest, Restored};

/// What a restore to a moment is asked for.
#[derive(Debug)]
pub struct RestoreAtRequest<'a> {
    /// The snapshot to begin with, with everything it builds on; empty in query mode.
    pub base: &'a Chain<'a>,
    /// The segments to apply, in order, unbroken, authentic.
    pub segments: &'a [BackupReader<'a>],
    /// Where to end.
    pub target: Target,
    /// Where the result goes.
    pub restore: &'a RestoreRequest,
    /// The programs that may be started.
    pub tools: &'a DrillTools,
    /// The result is started by itself, whatever the original was a part of.
    pub alone: bool,
}

/// A result that the real engine is to be started on.
#[derive(Debug)]
pub struct LogDrill<'a> {
    /// The result; whatever is beside it is removed with it.
    pub file: &'a Path,
    /// Where the log says what it is of: its last segment.
    pub last: &'a Segment,
    /// What the books must have at least, and at most; `None` where nothing is on record.
    pub least: Option<Totals>,
    /// See `least`.
    pub most: Option<Totals>,
    /// The programs that may be started.
    pub tools: &'a DrillTools,
}

/// What a restore to a moment did.
#[derive(Debug, Clone, serde::Serialize, schemars::JsonSchema)]
pub struct RestoredAt {
    /// The result.
    #[serde(flatten)]
    pub restored: Restored,
    /// The last operation in it, in wal mode.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub op: Option<u64>,
    /// When its last operation was, nanoseconds since 1970, by the cluster's clock.
    pub timestamp: u64,
    /// How often a server was started and stopped on the way.
    pub server_starts: u32,
    /// In what it differs from the original at that moment; empty if in nothing.
    pub differences: Vec<String>,
    /// What is to be known before a server is started on it.
    pub notes: Vec<String>,
}

/// A kind of log: part of the [entry](crate::source::entry::SourceEntry) of its source.
pub struct LogKind {
    /// The type of the backups that its segments are.
    pub backup_type: BackupType,
    /// Decodes a segment and checks that it holds what its manifest says.
    pub decode: fn(&BackupReader<'_>, &Ctx) -> anyhow::Result<()>,
    /// Brings a source back to a moment. Nothing stands at the target before it is whole.
    pub restore_at: fn(&RestoreAtRequest<'_>, &Ctx) -> anyhow::Result<RestoredAt>,
    /// Starts the real engine on such a result, compares, and stops it.
    pub drill: fn(&LogDrill<'_>, &Ctx) -> anyhow::Result<Vec<Check>>,
    /// The totals that the `capture` record of a snapshot has: what was there before and after it.
    pub bracket: fn(&Value) -> Option<(Totals, Totals)>,
}

impl std::fmt::Debug for LogKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogKind").field("backup_type", &self.backup_type).finish_non_exhaustive()
    }
}
