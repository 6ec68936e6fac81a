//! The options of `bkp snapshot`, `bkp export` and `bkp replicate`.

use crate::domain::backup_kind::BackupKind;
use crate::domain::names::Scope;

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
