//! Restoring a source to a moment with its log.

use std::fmt;
use std::path::Path;

use serde_json::Value;

use crate::ctx::Ctx;
use crate::domain::id::BackupId;
use crate::domain::manifest::Identity;
use crate::domain::names::BackupType;
use crate::domain::segment::{Base, Segment, Target};
use crate::error::{Fault, Kind};
use crate::pipeline::BackupReader;
use crate::pipeline::log_files::LogFiles;
use crate::source::logs::files::LogFileKind;
use crate::source::{Chain, Check, DrillTools, RestoreRequest, Restored};

/// What a restore to a moment is asked for.
#[derive(Debug)]
pub struct RestoreAtRequest<'a> {
    /// The snapshot to begin with, with everything it builds on; empty for a log that needs none.
    pub base: &'a Chain<'a>,
    /// The segments to apply, in order, unbroken, authentic.
    pub segments: &'a [BackupReader<'a>],
    /// The files of the log, where its segments are about files that the server handed over.
    pub files: &'a LogFiles<'a>,
    /// Where to end.
    pub target: Target,
    /// What stands at the target is no longer a part of the result.
    pub exclusive: bool,
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
    /// What the log is of: see [`Segment::stream`].
    pub stream: &'a str,
    /// The `capture` record of the last backup before the moment that says what there was: of the snapshot that
    /// the restore began with, or of a segment where it began with none. `None` where there is no such backup.
    pub before: Option<&'a Value>,
    /// The same of the first backup after the moment.
    pub after: Option<&'a Value>,
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
    #[serde(rename = "op", skip_serializing_if = "Option::is_none")]
    pub position: Option<u64>,
    /// When its last operation was, nanoseconds since 1970, by the cluster's clock.
    pub timestamp: u64,
    /// How often a server was started and stopped on the way.
    pub server_starts: u32,
    /// In what it differs from the original at that moment; empty if in nothing.
    pub differences: Vec<String>,
    /// What is to be known before a server is started on it.
    pub notes: Vec<String>,
}

/// What somebody may want to end at, that only the log itself has a place for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogEvent {
    /// The end of the transaction with this number.
    Transaction(u32),
    /// The position that somebody gave this name.
    Name(String),
}

impl fmt::Display for LogEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LogEvent::Transaction(number) => write!(f, "transaction {number}"),
            LogEvent::Name(name) => write!(f, "restore point `{name}`"),
        }
    }
}

/// Finds the position of an event in a segment.
pub type FindEvent =
    fn(&BackupReader<'_>, &LogFiles<'_>, &LogEvent, &Ctx) -> anyhow::Result<Option<u64>>;

/// What a log may consist of.
#[derive(Debug)]
pub struct LogMode {
    /// The word in manifests, reports and configuration, and on the command line.
    pub name: &'static str,
    /// What that is, in a sentence for the schema of reports.
    pub about: &'static str,
}

/// A kind of log: part of the [entry](crate::source::entry::SourceEntry) of its source.
pub struct LogKind {
    /// The type of the backups that its segments are.
    pub backup_type: BackupType,
    /// What it may consist of, the best one first: where logs of two modes lead to a moment, a restore takes
    /// that one.
    pub modes: &'static [LogMode],
    /// What people call a position in it.
    pub position_name: &'static str,
    /// A position as people write it.
    pub spell: fn(u64) -> String,
    /// The segment that the `capture` record of a manifest describes, or what is wrong with that. Whatever makes
    /// segments of such a log has a `parent_sha256` in that record.
    pub read_segment: fn(&Value) -> Result<Segment, String>,
    /// Where the snapshot with this id ends, by its `capture` record; `None` if no log goes on from it.
    pub read_base: fn(BackupId, &Value) -> Option<Base>,
    /// What the manifest of a segment with this `capture` record says that it is of.
    pub identity: fn(&Value) -> Identity,
    /// Decodes a segment, and the files of the log that it is about, and checks that it holds what its manifest says.
    pub decode: fn(&BackupReader<'_>, &LogFiles<'_>, &Ctx) -> anyhow::Result<()>,
    /// Brings a source back to a moment. Nothing stands at the target before it is whole.
    pub restore_at: fn(&RestoreAtRequest<'_>, &Ctx) -> anyhow::Result<RestoredAt>,
    /// Finds an event in a segment, where it has any; a restore can end right before a target then.
    pub find_event: Option<FindEvent>,
    /// Starts the real engine on such a result, compares, and stops it.
    pub drill: fn(&LogDrill<'_>, &Ctx) -> anyhow::Result<Vec<Check>>,
    /// What is known of its files, where the server hands them over.
    pub files: Option<LogFileKind>,
}

impl LogKind {
    /// A position in words.
    #[must_use]
    pub fn position(&self, at: u64) -> String {
        format!("{} {}", self.position_name, (self.spell)(at))
    }

    /// Positions in words.
    #[must_use]
    pub fn positions(&self, first: u64, last: u64) -> String {
        format!("{}s {} to {}", self.position_name, (self.spell)(first), (self.spell)(last))
    }

    /// The refusal of a mode that it has not.
    #[must_use]
    pub fn unknown_mode(&self, text: &str) -> Fault {
        let names: Vec<&str> = self.modes.iter().map(|mode| mode.name).collect();
        Fault::new(Kind::Usage, format!("a log has no mode `{text}`"))
            .hint(format!("modes: {}", names.join(", ")))
    }
}

impl fmt::Debug for LogKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogKind").field("backup_type", &self.backup_type).finish_non_exhaustive()
    }
}
