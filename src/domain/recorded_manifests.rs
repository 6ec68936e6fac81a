//! The manifests that a ledger vouches for.

use std::collections::{HashMap, HashSet};

use super::event::{Digest, Event, Status};
use super::id::BackupId;

/// The manifests that were recorded: those of the runs that made backups, and those of copies that were sealed anew.
#[derive(Debug, Default)]
pub struct RecordedManifests {
    made: HashMap<BackupId, Digest>,
    resealed: HashSet<Digest>,
    removed: HashSet<BackupId>,
}

impl RecordedManifests {
    /// Those in `events`.
    #[must_use]
    pub fn of(events: impl IntoIterator<Item = Event>) -> RecordedManifests {
        let mut recorded = RecordedManifests::default();
        for event in events {
            match event.status {
                Status::Completed => {
                    recorded.made.insert(event.backup, event.digest);
                }
                // Whoever wrote it knew the manifest, which names the backup.
                Status::Resealed => {
                    recorded.resealed.insert(event.digest);
                }
                Status::Deleted => {
                    recorded.removed.insert(event.backup);
                }
                Status::Started
                | Status::Failed
                | Status::Restored
                | Status::Verified
                | Status::Copied => {}
            }
        }
        recorded
    }

    /// Whether a backup was recorded with a manifest of this SHA-256, at whatever time.
    #[must_use]
    pub fn had(&self, id: BackupId, sha256: &[u8; 32]) -> bool {
        let digest = Digest::of(sha256);
        self.made.get(&id).is_some_and(|made| *made == digest || self.resealed.contains(&digest))
    }

    /// Whether a backup was recorded, and not as removed since.
    #[must_use]
    pub fn knows(&self, id: BackupId) -> bool {
        self.made.contains_key(&id) && !self.removed.contains(&id)
    }

    /// Both: where nothing is there any more, nothing is vouched for.
    #[must_use]
    pub fn has(&self, id: BackupId, sha256: &[u8; 32]) -> bool {
        self.knows(id) && self.had(id, sha256)
    }
}
