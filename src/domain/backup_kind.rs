//! What kind of backup it is.

use std::fmt;

/// What a backup holds, as its name and its manifest say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackupKind {
    /// A capture of the source as it is.
    Snapshot,
    /// The source's tables as files that other programs read.
    Export,
    /// Files as they are, each an object of its own.
    Replica,
    /// A segment of the source's log.
    Log,
}

impl BackupKind {
    /// The word in names, manifests and reports.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            BackupKind::Snapshot => "snapshot",
            BackupKind::Export => "export",
            BackupKind::Replica => "replica",
            BackupKind::Log => "log",
        }
    }
}

impl fmt::Display for BackupKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Names keep the word as it was read: a later version may write another one.
impl PartialEq<BackupKind> for String {
    fn eq(&self, kind: &BackupKind) -> bool {
        self == kind.as_str()
    }
}
