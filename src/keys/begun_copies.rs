//! What a host keeps of a copy that it seals anew for a public key: it may not be able to open what it wrote, and
//! nobody can tell by its header that it did. So until the copy has a manifest its data key is kept, wrapped under a
//! key that is derived from the data key of the original, which has to be at hand to continue, too.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{DataKey, KeyError, wrap};
use crate::cache;
use crate::domain::hex::hex;
use crate::domain::id::BackupId;
use crate::domain::recipient::Recipient;

/// What the wrapping key is derived with.
const INFO: &[u8] = b"bkp resealing 1";

/// What is kept.
#[derive(Serialize, Deserialize)]
struct KeptKey {
    wrapped: String,
    recipients: Vec<Recipient>,
}

/// A copy that was begun.
#[derive(Debug)]
pub struct BegunCopy {
    path: PathBuf,
    id: BackupId,
}

impl BegunCopy {
    /// That of the backup `id` in the store at `url`.
    #[must_use]
    pub fn of(state_dir: &Path, url: &str, id: BackupId) -> BegunCopy {
        let place = hex(&Sha256::digest(url));
        let place = place.get(..16).unwrap_or_default();
        BegunCopy { path: state_dir.join("resealing").join(format!("{place}-{id}.json")), id }
    }

    /// Keeps its data key and its recipients. `original` is the data key of what it is a copy of.
    ///
    /// # Errors
    /// What the system says.
    pub fn keep(
        &self,
        original: &DataKey,
        key: &DataKey,
        recipients: &[Recipient],
    ) -> anyhow::Result<()> {
        let wrapped = wrap::wrap(&original.derive(&[], &[INFO]), key, self.id)?;
        let kept = KeptKey { wrapped, recipients: recipients.to_vec() };
        cache::replace(&self.path, &serde_json::to_vec(&kept)?, 0o600)?;
        Ok(())
    }

    /// What was kept; nothing if nothing was, or it is of another original.
    #[must_use]
    pub fn load(&self, original: &DataKey) -> Option<(DataKey, Vec<Recipient>)> {
        let KeptKey { wrapped, recipients } = cache::load(&self.path)?;
        let origin = self.path.display().to_string();
        let key: Result<DataKey, KeyError> =
            wrap::unwrap(&original.derive(&[], &[INFO]), &wrapped, self.id, &origin);
        Some((key.ok()?, recipients))
    }

    /// Keeps nothing any more: the copy is whole.
    ///
    /// # Errors
    /// What the system says.
    pub fn forget(&self) -> io::Result<()> {
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use time::macros::datetime;

    use super::*;

    #[test]
    fn only_the_key_of_the_original_gives_the_key_of_the_copy() {
        let home = tempfile::tempdir().expect("a folder");
        let id = BackupId::new(datetime!(2026-11-21 02:00:00 UTC));
        let begun = BegunCopy::of(home.path(), "file:///off", id);
        let (original, key) = (DataKey([7; 32]), DataKey([8; 32]));
        assert!(begun.load(&original).is_none());
        begun.keep(&original, &key, &[]).expect("kept");
        assert_eq!(begun.load(&original).map(|(key, _)| key.0), Some([8; 32]));
        assert!(begun.load(&DataKey([9; 32])).is_none());
        assert!(BegunCopy::of(home.path(), "file:///other", id).load(&original).is_none());
        let mode = begun.path.metadata().expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        begun.forget().expect("removed");
        begun.forget().expect("it is gone");
        assert!(begun.load(&original).is_none());
    }
}
