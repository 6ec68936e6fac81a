//! How a backup is made.

/// How a backup is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackupKind {
    /// A capture of the source as it is.
    Snapshot,
    /// Its tables as files that other programs read.
    Export,
}

impl BackupKind {
    /// The word in the names of backups and reports.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            BackupKind::Snapshot => "snapshot",
            BackupKind::Export => "export",
        }
    }
}
