//! The settings of one store or source.

use std::time::Duration;

use crate::domain::names::BackupType;
use crate::domain::retention::Policy;
use crate::stage::Compression;
use crate::store::StoreLocation;

/// The settings of one store.
#[derive(Debug, Clone)]
pub struct StoreSettings {
    /// Its URL, and what only the kind of store understands.
    pub place: StoreLocation,
    /// Which backups are kept there, where that is not as each job says.
    pub retention: Option<Policy>,
}

/// The settings of one source.
#[derive(Debug, Clone)]
pub struct SourceSettings {
    /// The kind.
    pub backup_type: BackupType,
    /// Names of the stores its backups go to, if it has some of its own.
    pub store: Vec<String>,
    /// Whose data it is, for multi-tenant installations.
    pub tenant: Option<String>,
    /// Within which time it is to be restorable.
    pub rto: Option<Duration>,
    /// How its backups are compressed.
    pub compression: Compression,
    /// Who opens its backups besides the recipients of all.
    pub recipients: Vec<String>,
    /// The sources that it is about, if it names them.
    pub of_sources: Vec<String>,
    /// What only the kind of source understands.
    pub table: toml::Table,
}
