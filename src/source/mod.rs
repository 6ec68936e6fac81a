//! The contract of a source: something that can be captured and restored.
//!
//! A source pushes entries into an [`EntrySink`], or objects into an [`ObjectSink`], one at a time, in the order it likes; the chain
//! does the rest. Bringing back needs no configuration: [`SourceKind::restore`] works from what
//! the backup says of itself. A new source is one folder beside this file and one line in
//! [`kinds::SOURCES`].
//!
//! What every source guarantees:
//!
//! - What it captured is consistent, and [`Captured::record`] says in which sense; if it cannot be,
//!   the capture fails. There are no partial captures.
//! - Memory does not grow with the size of what is captured, beyond a block map of 16 bytes per
//!   block. Nothing is staged on disk, except by an export, in the folder it is given.
//! - The source is only read, unless the operator chose a mode that says otherwise.

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::archive::EntrySink;
use crate::ctx::{Ctx, host};
use crate::domain::backup_kind::BackupKind;
use crate::domain::health::LogLag;
use crate::domain::manifest::Identity;
use crate::domain::names::BackupType;
use crate::error::{Classify, Fault, Kind, diagnosed};
use crate::fs::scratch_dir::ScratchDir;
use crate::fs::staged_file::folder_of;
use crate::pipeline::objects::ObjectSink;
use crate::table::ConfigError;

pub use self::chain::{CHAIN_LINKS_MAX, Chain, Continuation, link_by_link};
pub use self::requests::{
    BackupKeys, CaptureRequest, DrillTools, ExportRequest, Held, ParentMap, ReplicaRequest,
    ResourceLimits, WrappedKeys,
};

use self::logs::ship::{LogSource, OwnEvents};

mod attempt_error;
mod chain;
pub mod device;
pub mod discovery;
pub mod duckdb;
pub mod entry;
pub mod keys;
pub mod kinds;
pub mod logs;
pub mod parquet;
pub mod postgres;
mod requests;
pub mod tenants;
pub mod tigerbeetle;
pub(crate) mod watchdog;

/// Writes the block map of a backup: a small object beside the big one.
pub type MapWriter = Box<dyn Fn(&mut dyn Write) -> std::io::Result<()> + Send>;

/// What a capture ends with.
pub struct Captured {
    /// The manifest's `capture`: mode, consistency, position, and what the type adds.
    pub record: Value,
    /// The block map, for sources that have one.
    pub map: Option<MapWriter>,
    /// What could not be captured, in words: the backup is only a part then.
    pub lost: Vec<String>,
}

impl std::fmt::Debug for Captured {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Captured").field("record", &self.record).finish_non_exhaustive()
    }
}

/// One line of `bkp doctor`.
#[derive(
    Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
pub struct Check {
    /// What was looked at.
    pub what: String,
    /// Whether it is as it should be.
    pub ok: bool,
    /// What was found.
    pub found: String,
    /// What to do if it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// A configured source, ready to be captured.
pub trait Source: Send + Sync {
    /// What it is, whatever the configuration calls it: the names that the engine gives it, or
    /// [`on_this_host`] where it gives none. Stays the same over the life of the source, also on
    /// another host if the engine says so.
    ///
    /// # Errors
    /// What reading the source fails with.
    fn identity(&self, ctx: &Ctx) -> anyhow::Result<Identity>;

    /// Whether an increment of it could build on a backup with this `capture` record.
    ///
    /// # Errors
    /// [`Kind::Refused`] if that backup is of something else; what reading the source fails with.
    fn check_parent(&self, record: &Value, ctx: &Ctx) -> anyhow::Result<()>;

    /// Pushes everything the request asks for into `out`.
    ///
    /// # Errors
    /// [`SourceError::Unsupported`] for a source of files; else [`SourceError`], what `out` failed with, or a
    /// cancellation; nothing may be kept then.
    fn capture(
        &self,
        _request: &CaptureRequest<'_>,
        _out: &mut dyn EntrySink,
        _ctx: &Ctx,
    ) -> anyhow::Result<Captured> {
        Err(not_made(BackupKind::Snapshot).into())
    }

    /// Pushes the source's tables into `out`, as files that other programs read.
    ///
    /// # Errors
    /// [`SourceError::Unsupported`] for a source that has no tables; as [`Source::capture`].
    fn export(
        &self,
        _request: &ExportRequest<'_>,
        _out: &mut dyn ObjectSink,
        _ctx: &Ctx,
    ) -> anyhow::Result<Captured> {
        Err(not_made(BackupKind::Export).into())
    }

    /// Pushes the source's files that are new or have changed into `out`, each as an object.
    ///
    /// # Errors
    /// [`SourceError::Unsupported`] for a source that is no folder of files; as [`Source::capture`].
    fn replicate(
        &self,
        _request: &ReplicaRequest<'_>,
        _out: &mut dyn ObjectSink,
        _ctx: &Ctx,
    ) -> anyhow::Result<Captured> {
        Err(not_made(BackupKind::Replica).into())
    }

    /// What can be said of the source without capturing it.
    fn check(&self, tools: &DrillTools, ctx: &Ctx) -> Vec<Check>;

    /// What its engine may take of this machine, as configured.
    fn share(&self) -> ResourceLimits {
        ResourceLimits::default()
    }

    /// Who is to be able to open its backups besides the recipients of all, as the configuration names them.
    fn recipients(&self) -> &[String] {
        &[]
    }

    /// The other sources that it is about, if it names them.
    fn of_sources(&self) -> &[String] {
        &[]
    }

    /// Addresses at which the source's servers answer, if they are configured.
    fn addresses(&self) -> &[String] {
        &[]
    }

    /// How far the archive of its log is behind, where a server archives one and says so.
    ///
    /// # Errors
    /// What asking the server fails with.
    fn log_lag(&self, _ctx: &Ctx) -> anyhow::Result<Option<LogLag>> {
        Ok(None)
    }

    /// Opens its change log in `mode`, or in the configured one. Connects to nothing yet.
    ///
    /// # Errors
    /// [`Kind::Usage`] if it has no log, or none of that mode: [`LogKind::unknown_mode`](logs::LogKind::unknown_mode).
    fn log(
        &self,
        _mode: Option<&str>,
        _own: Option<OwnEvents>,
    ) -> anyhow::Result<Box<dyn LogSource>> {
        let message = "a source of this kind ships no change log";
        Err(Fault::new(Kind::Usage, message)
            .hint("see `bkp snapshot`, `bkp export` and `bkp replicate`")
            .into())
    }
}

/// The refusal of a source to make backups of this kind.
fn not_made(kind: BackupKind) -> SourceError {
    let reason = "a source of this kind makes none".to_owned();
    SourceError::Unsupported { what: format!("{kind}s"), reason }
}

/// The identity of a source that its engine gives no name: where it is.
#[must_use]
pub fn on_this_host(path: &Path) -> Identity {
    let place = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let path = ("path".to_owned(), place.to_string_lossy().into_owned());
    [("host".to_owned(), host()), path].into()
}

/// Whether objects are sealed, as the key `encryption` of the source's table at `place` says; they are by default.
///
/// # Errors
/// [`ConfigError::Invalid`] for a word that is none.
pub(crate) fn is_sealed(place: &str, encryption: Option<&str>) -> Result<bool, ConfigError> {
    match encryption {
        None | Some("aes256-gcm") => Ok(true),
        Some("none") => Ok(false),
        Some(other) => {
            let problem = format!("no encryption `{other}`");
            let error = ConfigError::invalid(format!("{place}.encryption"), problem);
            Err(error.suggest("use aes256-gcm or none"))
        }
    }
}

/// What a restore is asked for.
#[derive(Debug, Clone)]
pub struct RestoreRequest {
    /// The path of the result. Does not exist yet, or is to be moved aside.
    pub target: PathBuf,
    /// Which replica of a cluster the result shall be.
    pub replica: Option<u8>,
    /// The one database that is wanted of several.
    pub database: Option<String>,
    /// The schemas that are wanted, with everything in them; empty for all of them.
    pub schemas: Vec<String>,
    /// The one table that is wanted, as SCHEMA.TABLE.
    pub table: Option<String>,
    /// The files that are wanted, as patterns of their paths; empty for all of them.
    pub files: Vec<String>,
    /// Folders of their own for tablespaces, by their numbers.
    pub tablespaces: Vec<(u32, PathBuf)>,
    /// Addresses at which a server of the source would answer if it still ran.
    pub addresses: Vec<String>,
    /// Move what stands at `target` aside instead of refusing.
    pub force: bool,
    /// What an engine may take of this machine.
    pub share: ResourceLimits,
    /// Where a folder can be made for what has to be a file on the way to a server.
    pub scratch: PathBuf,
    /// The programs that it may work with.
    pub tools: DrillTools,
}

impl RestoreRequest {
    /// A restore of everything to a new place, which nothing else is said of.
    #[must_use]
    pub fn to(target: PathBuf) -> RestoreRequest {
        RestoreRequest {
            scratch: folder_of(&target).to_owned(),
            tools: DrillTools::default(),
            target,
            replica: None,
            database: None,
            schemas: Vec::new(),
            table: None,
            files: Vec::new(),
            tablespaces: Vec::new(),
            addresses: Vec::new(),
            force: false,
            share: ResourceLimits::default(),
        }
    }
}

/// What a restore did.
#[derive(Debug, Clone, serde::Serialize, schemars::JsonSchema)]
pub struct Restored {
    /// The path of the result.
    pub target: PathBuf,
    /// Logical size of the result, bytes.
    pub bytes: u64,
    /// Bytes written (less than `bytes` where the result is sparse).
    pub bytes_written: u64,
    /// Where what stood at the target was moved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub moved_aside: Option<PathBuf>,
    /// What the operator should do next.
    pub next: String,
    /// What of the backup is not in the result, in words: the restore is only a part then.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub lost: Vec<String>,
}

/// How a drill compared what it restored with what was recorded at capture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Compared {
    /// It is equal to what was recorded.
    Equal,
    /// It lies between what was recorded before and after the capture of a source in use.
    Within,
    /// Nothing was recorded.
    Nothing,
}

/// What a drill found.
#[derive(Debug, Clone, serde::Serialize, schemars::JsonSchema)]
pub struct Drilled {
    /// From the first byte read to the first answer of the engine, seconds: the measured RTO.
    pub rto_seconds: f64,
    /// How the content was compared with what was recorded at capture.
    pub compared: Compared,
    /// What was compared, and with what outcome.
    pub checks: Vec<Check>,
}

impl Drilled {
    /// Whether nothing was amiss.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.checks.iter().all(|check| check.ok)
    }
}

/// A source opened from its table, or what is wrong with the table.
pub type Opened = Result<Box<dyn Source>, ConfigError>;

/// What a restore makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetKind {
    /// A file, and perhaps some that belong to it beside it.
    File,
    /// A folder.
    Folder,
    /// A database of a server.
    Server,
}

/// What is done with the backups of a kind of source. Everything that needs no configuration of the day
/// is here, so that a restore works from store and key alone.
pub struct SourceKind {
    /// The word in the configuration's `kind`, in keys and in manifests.
    pub backup_type: BackupType,
    /// The zstd level that suits its data, where the configuration names none.
    pub zstd_level: u8,
    /// Reads the rest of a `[source.NAME]` table.
    pub open: fn(&str, toml::Table) -> Opened,
    /// The JSON Schema of that table.
    pub schema: fn() -> Value,
    /// How a backup goes on from a chain, where nobody says otherwise.
    pub extend: fn(&Chain<'_>, &Ctx) -> anyhow::Result<Continuation>,
    /// What a restore makes, unless it is told the address of a server.
    pub target: TargetKind,
    /// Whether what a restore is to go to is the address of a server.
    pub is_server: fn(&Path) -> bool,
    /// Reads the block map that [`Captured::map`] of a snapshot wrote; `None` where a capture reads that of its
    /// chain by itself.
    pub read_map: Option<fn(&mut dyn std::io::Read) -> anyhow::Result<Held>>,
    /// Decodes a chain and checks its structure, and what else can be told without a restore.
    pub decode: fn(&Chain<'_>, &DecodeTools<'_>, &Ctx) -> anyhow::Result<()>,
    /// Refuses, before anything is read or written, a restore that would do harm; returns what the
    /// operator has to know before it begins.
    pub guard: fn(&Value, &RestoreRequest) -> anyhow::Result<Vec<String>>,
    /// Refuses, before anything is written, a restore that a server does not permit; returns what the operator has to
    /// know before it begins.
    pub preflight: fn(&Chain<'_>, &RestoreRequest, &Ctx) -> anyhow::Result<Vec<String>>,
    /// Brings a chain back.
    pub restore: fn(&Chain<'_>, &RestoreRequest, &Ctx) -> anyhow::Result<Restored>,
    /// Brings a chain back at a scratch folder, starts the real engine on it, compares, stops it.
    pub drill: fn(&Chain<'_>, &Path, &DrillTools, &Ctx) -> anyhow::Result<Drilled>,
}

impl std::fmt::Debug for SourceKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SourceKind").field("backup_type", &self.backup_type).finish_non_exhaustive()
    }
}

/// What a decode works with.
pub struct DecodeTools<'a> {
    /// Makes a folder for what has to be a file while it is read.
    pub scratch: &'a dyn Fn() -> Result<ScratchDir, Fault>,
    /// What an engine may take of this machine.
    pub share: ResourceLimits,
}

impl std::fmt::Debug for DecodeTools<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DecodeTools").field("share", &self.share).finish_non_exhaustive()
    }
}

/// What a source can fail with.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// It cannot be read.
    #[error("cannot read {what}")]
    Unreadable {
        /// The file or address.
        what: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// It is not what the configuration says it is, or has a form that this version does not know.
    #[error("{what}: {reason}")]
    Unsupported {
        /// The file or address.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// It cannot be captured in this mode here.
    #[error("{what}: mode `{mode}`: {reason}")]
    Mode {
        /// The file or address.
        what: String,
        /// The mode.
        mode: &'static str,
        /// Why not.
        reason: String,
        /// What to do instead.
        hint: String,
    },
    /// Nobody changes it, and it is not what it says it is.
    #[error("{what} is damaged: {reason}")]
    Damaged {
        /// The file.
        what: String,
        /// Which part of it.
        reason: String,
        /// What to do about it.
        hint: String,
    },
    /// It cannot say what has changed since the backup that an increment would build on.
    #[error("{what}: no increment is possible: {reason}")]
    NoIncrement {
        /// The file or address.
        what: String,
        /// Why not.
        reason: String,
    },
    /// It changed faster than it could be read.
    #[error(
        "{what}: no consistent capture in {attempts} attempts; the last one ended with: {last}"
    )]
    TooFast {
        /// The file.
        what: String,
        /// How many attempts were made.
        attempts: u32,
        /// Why the last one ended.
        last: String,
    },
    /// An engine that bkp started or asked did not answer as it should.
    #[error("{what}: {reason}")]
    Engine {
        /// The program or address.
        what: String,
        /// What it did or did not do.
        reason: String,
        /// What to do about it.
        hint: String,
    },
}

diagnosed!(SourceError);

impl Classify for SourceError {
    fn kind(&self) -> Kind {
        Kind::Source
    }

    fn hint(&self) -> Option<String> {
        match self {
            SourceError::Unreadable { source, .. } => Some(unreadable_hint(source.kind()).into()),
            SourceError::Unsupported { .. } => Some(
                "correct the source's table, or use a bkp that knows this format".into(),
            ),
            SourceError::Mode { hint, .. }
            | SourceError::Damaged { hint, .. }
            | SourceError::Engine { hint, .. } => Some(hint.clone()),
            SourceError::NoIncrement { .. } => Some("take a full backup: --scope full".into()),
            SourceError::TooFast { .. } => Some(
                "run it at a quieter time, or use --mode reflink (XFS, btrfs), --mode pause, or stop the replica and use --mode stopped"
                    .into(),
            ),
        }
    }
}

/// What to do about a source that cannot be read.
fn unreadable_hint(kind: ErrorKind) -> &'static str {
    let misplaced = [
        ErrorKind::NotFound,
        ErrorKind::NotADirectory,
        ErrorKind::IsADirectory,
        ErrorKind::InvalidInput,
    ];
    if kind == ErrorKind::PermissionDenied {
        "make it readable for the user who runs bkp (group membership or CAP_DAC_READ_SEARCH)"
    } else if misplaced.contains(&kind) {
        "correct the path in the source's table; relative paths start at the configuration's folder"
    } else {
        "check the disk"
    }
}
