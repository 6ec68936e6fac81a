//! The settings of a replica.

use std::path::PathBuf;

use super::capture::mode::CaptureMode;
use super::data_file::superblock::Superblock;
use super::logs::settings::LogSettings;
use crate::source::SourceError;

/// A configured TigerBeetle replica.
#[derive(Debug, Clone)]
pub(crate) struct Replica {
    pub(crate) data_file: PathBuf,
    pub(crate) cluster: Option<u128>,
    pub(crate) addresses: Vec<String>,
    pub(crate) mode: CaptureMode,
    pub(crate) attempts: u32,
    pub(crate) logs: LogSettings,
}

impl Replica {
    /// A file that is not what the configuration says it is.
    pub(crate) fn unsupported(&self, reason: String) -> SourceError {
        SourceError::Unsupported { what: self.data_file.display().to_string(), reason }
    }

    /// Refuses a file of another cluster than the configured one.
    pub(crate) fn check_cluster(&self, superblock: &Superblock) -> Result<(), SourceError> {
        let found = superblock.cluster();
        match self.cluster.filter(|wanted| *wanted != found) {
            None => Ok(()),
            Some(wanted) => Err(self.unsupported(format!(
                "the file belongs to cluster {found}, but {wanted} is configured"
            ))),
        }
    }
}
