//! What retention has to know of a backup and its key does not say. Manifests never change, so what
//! was read once is kept in the state directory.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::Digest as _;
use time::OffsetDateTime;

use super::{Entry, read_manifest};
use crate::cache;
use crate::ctx::Ctx;
use crate::domain::id::BackupId;
use crate::domain::manifest::{Manifest, hex};
use crate::domain::retention::Backup;
use crate::store::{ReadStore, StoreError};

/// What the manifest of a backup says, as far as retention goes.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Facts {
    /// Size of its file: another one is another file.
    manifest_bytes: u64,
    parent: Option<BackupId>,
    base: BackupId,
    #[serde(with = "time::serde::rfc3339::option")]
    until: Option<OffsetDateTime>,
    pinned: bool,
    objects: Vec<(String, u64)>,
}

/// The facts of the backups of one store.
#[derive(Debug)]
pub struct Known {
    path: PathBuf,
    facts: HashMap<BackupId, Facts>,
    read: bool,
}

impl Known {
    /// What is known of the backups of the store at `url`.
    #[must_use]
    pub fn of(state_dir: &Path, url: &str) -> Known {
        let name = hex(&sha2::Sha256::digest(url.as_bytes()));
        let path = cache::folder(state_dir).join(format!("facts-{name}.json"));
        Known { facts: cache::load(&path).unwrap_or_default(), path, read: false }
    }

    /// A backup as retention sees it. Reads its manifest, unless that was read before; one that
    /// cannot be understood belongs to a backup that is not whole.
    ///
    /// # Errors
    /// What the store fails with.
    pub fn backup(&mut self, store: &dyn ReadStore, entry: &Entry) -> anyhow::Result<Backup> {
        let id = entry.name.id;
        let damaged = Backup {
            id,
            parent: None,
            base: id,
            whole: false,
            pinned: entry.is_pinned(),
            held_until: None,
        };
        let Some(manifest_bytes) = entry.manifest else { return Ok(damaged) };
        let known = self.facts.get(&id).filter(|facts| facts.manifest_bytes == manifest_bytes);
        let facts = match known {
            Some(facts) => facts.clone(),
            None => match read(store, entry, manifest_bytes)? {
                Some(facts) => {
                    self.read = true;
                    self.facts.insert(id, facts.clone());
                    facts
                }
                None => return Ok(damaged),
            },
        };
        let is_there = |(key, bytes): &(String, u64)| {
            entry.objects.iter().any(|object| object.key == *key && object.bytes == *bytes)
        };
        Ok(Backup {
            parent: facts.parent,
            base: facts.base,
            whole: facts.objects.iter().all(is_there),
            pinned: entry.is_pinned() || facts.pinned,
            held_until: facts.until,
            ..damaged
        })
    }

    /// Keeps what was read for the next time, without what is not in the store any more.
    pub fn save(&mut self, present: &[Entry], ctx: &Ctx) {
        let before = self.facts.len();
        let ids: std::collections::HashSet<BackupId> =
            present.iter().map(|entry| entry.name.id).collect();
        self.facts.retain(|id, _| ids.contains(id));
        if self.read || before != self.facts.len() {
            cache::save(&self.path, &self.facts, ctx);
        }
    }
}

/// Reads a manifest; `None` if it is not one, or has gone.
fn read(store: &dyn ReadStore, entry: &Entry, size: u64) -> anyhow::Result<Option<Facts>> {
    let key = entry.name.manifest_key();
    let bytes = match read_manifest(store, &key) {
        Ok(bytes) => bytes,
        Err(error) => {
            let missing = matches!(error.downcast_ref(), Some(StoreError::Missing { .. }));
            return if missing { Ok(None) } else { Err(error) };
        }
    };
    let Ok(manifest) = Manifest::parse(&bytes, &key) else { return Ok(None) };
    Ok(Some(Facts {
        manifest_bytes: size,
        parent: manifest.parent,
        base: manifest.base,
        until: manifest.retention.until,
        pinned: manifest.retention.pinned,
        objects: manifest.objects.into_iter().map(|object| (object.key, object.bytes)).collect(),
    }))
}
