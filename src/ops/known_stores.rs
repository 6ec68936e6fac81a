//! Detects that a store has turned up empty: an unmounted disk is an empty folder, and a backup in it
//! would vanish under the next mount.

use std::fs::DirBuilder;
use std::io::Write as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::domain::manifest::hex;
use crate::domain::names::BackupType;
use crate::error::{Fault, Kind};
use crate::fs::staged_file::StagedFile;
use crate::store::ReadStore;
use crate::wire::AppContext;

/// A note in the state directory that a store has backups of a source. Losing it loses nothing but
/// this check.
pub(crate) struct KnownStores {
    path: PathBuf,
    store: String,
    /// The part of the store that holds them.
    folder: String,
}

impl KnownStores {
    pub(crate) fn of(
        app: &AppContext,
        store: &dyn ReadStore,
        backup_type: BackupType,
        source: &str,
    ) -> KnownStores {
        let digest = hex(&Sha256::digest(store.url()));
        let digest = digest.get(..16).unwrap_or_default();
        KnownStores {
            path: app.settings.state_dir.join("stores").join(format!("{source}-{digest}")),
            store: store.url().to_owned(),
            folder: format!("{backup_type}/{source}"),
        }
    }

    /// Whether this host has made backups there.
    pub(crate) fn is_noted(&self) -> bool {
        self.path.exists()
    }

    /// # Errors
    /// [`Kind::Refused`] if the store had backups of the source and has nothing of it now; what a
    /// listing fails with.
    pub(crate) fn check(&self, store: &dyn ReadStore) -> anyhow::Result<()> {
        if !self.path.exists() || store.list(&self.folder)?.next().transpose()?.is_some() {
            return Ok(());
        }
        let message = format!(
            "{} is empty in {}, although this host has made backups there: is the disk mounted?",
            self.store, self.folder
        );
        let hint =
            format!("mount it; or, if it was emptied on purpose: rm {}", self.path.display());
        Err(Fault::new(Kind::Refused, message).hint(hint).into())
    }

    /// Notes that there is a backup now.
    ///
    /// # Errors
    /// If the state directory cannot be written.
    pub(crate) fn note(&self) -> anyhow::Result<()> {
        if self.path.exists() {
            return Ok(());
        }
        let folder = self.path.parent().unwrap_or(Path::new("."));
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let staged = StagedFile::beside(&self.path)?;
        let mut file = staged.file();
        writeln!(file, "{}", self.store)?;
        file.sync_all()?;
        staged.publish_at(&self.path, false)?;
        Ok(())
    }
}
