//! The result of this host's last full listing of a store.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::Digest as _;
use time::OffsetDateTime;

use crate::cache;
use crate::catalog::found::{Filter, FoundBackup};
use crate::ctx::Ctx;
use crate::domain::manifest::hex;
use crate::domain::names::BackupName;
use crate::error::{Fault, Kind};

/// The file that keeps it.
#[derive(Debug)]
pub struct LastListing {
    path: PathBuf,
    url: String,
}

/// What is kept.
#[derive(Debug, Serialize, Deserialize)]
struct StoredListing {
    #[serde(with = "time::serde::rfc3339")]
    at: OffsetDateTime,
    /// Key of the manifest, stored bytes, whether it is pinned.
    backups: Vec<(String, u64, bool)>,
}

impl LastListing {
    /// What was seen of the store at `url`.
    #[must_use]
    pub fn of(state_dir: &Path, url: &str) -> LastListing {
        let name = hex(&sha2::Sha256::digest(url.as_bytes()));
        let path = cache::folder(state_dir).join(format!("list-{name}.json"));
        LastListing { path, url: url.to_owned() }
    }

    /// Keeps what a listing of the whole store found.
    pub fn save(&self, found: &[FoundBackup], ctx: &Ctx) {
        let backup = |one: &FoundBackup| (one.name.manifest_key(), one.stored_bytes, one.pinned);
        let kept = StoredListing { at: ctx.now(), backups: found.iter().map(backup).collect() };
        cache::save(&self.path, &kept, ctx);
    }

    /// What was found then, and when that was.
    ///
    /// # Errors
    /// [`Kind::NotFound`] if this host has never listed the whole store.
    pub fn load(
        &self,
        filter: &Filter,
    ) -> Result<(Vec<FoundBackup>, Option<OffsetDateTime>), Fault> {
        let kept: StoredListing = cache::load(&self.path).ok_or_else(|| {
            let message = format!("this host has not fully listed {} yet", self.url);
            Fault::new(Kind::NotFound, message).hint("run `bkp list` without --cached once")
        })?;
        let found = kept.backups.into_iter().filter_map(|(key, stored_bytes, pinned)| {
            let (name, _) = BackupName::parse(&key)?;
            Some(FoundBackup {
                name,
                stored_bytes,
                pinned,
                being_removed: false,
                marks: Vec::new(),
            })
        });
        let wanted = |found: &FoundBackup| {
            let FoundBackup { name, .. } = found;
            filter.backup_type.is_none_or(|only| only == name.backup_type)
                && filter.source.as_ref().is_none_or(|only| *only == name.source)
                && filter.id.as_ref().is_none_or(|id| name.id.to_string().starts_with(id.as_str()))
        };
        Ok((found.filter(wanted).collect(), Some(kept.at)))
    }
}
