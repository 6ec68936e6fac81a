//! Backups as found by a listing, and the filter for them.

use crate::domain::names::{BackupName, BackupType, Mark};

/// A backup as a listing shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundBackup {
    /// What its keys say.
    pub name: BackupName,
    /// Sum over its objects and its manifest, bytes.
    pub stored_bytes: u64,
    /// Whether no retention may remove it.
    pub pinned: bool,
    /// Whether a cleanup has begun to remove it.
    pub being_removed: bool,
    /// What stands beside it, in order; nothing where no whole listing was at hand.
    pub marks: Vec<Mark>,
}

/// Which backups to look for.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Only this type.
    pub backup_type: Option<BackupType>,
    /// Only this source.
    pub source: Option<String>,
    /// Only ids that begin so.
    pub id: Option<String>,
}

impl Filter {
    /// Every backup of a source.
    #[must_use]
    pub fn of_source(backup_type: BackupType, source: &str) -> Filter {
        Filter { backup_type: Some(backup_type), source: Some(source.to_owned()), id: None }
    }
}

impl FoundBackup {
    /// Whether a verification has found it [damaged](Mark::damage).
    #[must_use]
    pub fn is_damaged(&self) -> bool {
        Mark::damage(&self.marks)
    }
}
