//! What a source is asked for when a backup is made of it, and what it may work with.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use super::chain::Chain;
use crate::blockfile::map::{BlockMap, Checksum};
use crate::domain::id::BackupId;
use crate::domain::names::Scope;
use crate::error::Fault;
use crate::fs::scratch_dir::ScratchDir;
use crate::keys::KeyProvider;
use crate::keys::keyring::Keyring;

/// What an export is asked for.
#[derive(Debug)]
pub struct ExportRequest<'a> {
    /// The capture mode the operator chose on the command line, if any.
    pub mode: Option<String>,
    /// What an increment adds to, base first; empty for a full export.
    pub chain: &'a Chain<'a>,
    /// The `capture` record of the newest link.
    pub record: Option<Value>,
    /// An empty folder for what the work needs.
    pub scratch: &'a Path,
    /// The programs that it may work with.
    pub tools: &'a DrillTools,
}

/// What a replication is asked for.
#[derive(Debug)]
pub struct ReplicaRequest<'a> {
    /// The id of the backup that is being made.
    pub id: BackupId,
    /// What it adds to, base first; empty for a full one.
    pub chain: &'a Chain<'a>,
    /// What follows that in the chain of the newest replica: not built on, but the newest state that is known.
    /// Empty where nothing older than this run shall matter.
    pub skipped: &'a Chain<'a>,
}

/// What a capture is asked for.
pub struct CaptureRequest<'a> {
    /// The scope.
    pub scope: Scope,
    /// The mode the operator chose on the command line, if any.
    pub mode: Option<String>,
    /// What the chain of this backup holds already; `None` for a full backup.
    pub parent: Option<ParentMap>,
    /// The chain itself, base first; empty for a full backup.
    pub chain: &'a Chain<'a>,
    /// Makes a folder for what has to be a file while it is made.
    pub scratch: &'a dyn Fn() -> Result<ScratchDir, Fault>,
    /// Finds the data keys of backups of other sources.
    pub keys: &'a dyn BackupKeys,
}

impl std::fmt::Debug for CaptureRequest<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CaptureRequest").field("scope", &self.scope).finish_non_exhaustive()
    }
}

/// Finds the data keys of the backups that a key set is for. Stores and their catalogs are above sources.
pub trait BackupKeys {
    /// Wraps the data key of each for the recipients, and shows it to `line` as a line of a [key set](crate::keys::key_set). One
    /// that cannot be wrapped is named in [`WrappedKeys::lost`] and keeps no other from it.
    ///
    /// # Errors
    /// What `line` and the recipients fail with; what every store fails with; that the run is to stop.
    fn wrap(
        &self,
        recipients: &[Box<dyn KeyProvider>],
        line: &mut dyn FnMut(&[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<WrappedKeys>;
}

/// What a key set is of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WrappedKeys {
    /// The sources whose backups were looked for.
    pub sources: Vec<String>,
    /// URLs of the stores that were looked at.
    pub stores: Vec<String>,
    /// Whose backups they are, if they are a tenant's.
    pub tenant: Option<String>,
    /// Backups whose data key was wrapped.
    pub backups: u64,
    /// Archived files of logs whose data key was wrapped.
    pub log_files: u64,
    /// Backups and files whose data key was not.
    pub missing: u64,
    /// What is not in the key set, and why: the first of them.
    pub lost: Vec<String>,
}

/// What the parent of an incremental backup holds.
#[derive(Debug)]
pub struct ParentMap {
    /// The parent's `capture` record.
    pub record: Value,
    /// What its chain holds.
    pub held: Held,
}

/// What a chain of backups holds, so that the next one need not send it again.
#[derive(Debug, Default)]
pub struct Held {
    /// Blocks by address.
    pub blocks: BlockMap,
    /// Other entries by name, with the checksum that the source gives them.
    pub entries: BTreeMap<String, Checksum>,
}

impl Held {
    /// Whether the chain holds an entry with this name and content.
    #[must_use]
    pub fn has_entry(&self, name: &str, checksum: Checksum) -> bool {
        self.entries.get(name) == Some(&checksum)
    }
}

/// What an engine that runs inside of bkp may take of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ResourceLimits {
    /// Bytes of memory; `None` leaves it to the source.
    pub memory_bytes: Option<u64>,
    /// Threads; `None` leaves it to the source.
    pub threads: Option<u32>,
}

/// Programs of engines that bkp starts, for drills above all.
#[derive(Debug, Clone, Default)]
pub struct DrillTools {
    /// The `tigerbeetle` binary; `None` searches `PATH`.
    pub tigerbeetle: Option<PathBuf>,
    /// The folder of PostgreSQL's programs; `None` looks where packages put them.
    pub postgres: Option<PathBuf>,
    /// What an engine may take of this machine.
    pub share: ResourceLimits,
    /// The keys at hand, to try what is sealed with.
    pub keys: Option<Arc<Keyring>>,
}

impl DrillTools {
    /// The same with keys.
    #[must_use]
    pub fn with_keys(self, keys: Keyring) -> DrillTools {
        DrillTools { keys: Some(Arc::new(keys)), ..self }
    }
}
