//! The options of `bkp snapshot`, `bkp export` and `bkp replicate`.

use crate::domain::backup_kind::BackupKind;
use crate::domain::id::BackupId;
use crate::domain::names::{BackupName, BackupType, Scope};

/// What `bkp snapshot` was asked for.
#[derive(Debug, Clone)]
pub struct Options {
    /// How the backup is to be made.
    pub kind: BackupKind,
    /// The source's name.
    pub source: String,
    /// The scope; `None` lets bkp choose: incremental while a usable chain exists, else full.
    pub scope: Option<Scope>,
    /// The capture mode, if not the configured one.
    pub mode: Option<String>,
    /// Say what would be done, and do nothing.
    pub dry_run: bool,
}

impl Options {
    /// What a backup of this id and scope is called.
    pub(super) fn name(&self, backup_type: BackupType, id: BackupId, scope: Scope) -> BackupName {
        let (source, kind) = (self.source.clone(), self.kind.as_str().to_owned());
        BackupName { id, backup_type, source, scope, kind }
    }
}
