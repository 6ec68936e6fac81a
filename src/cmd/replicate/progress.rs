//! What both stores have, and how far the copies are.

use std::collections::{HashMap, HashSet};

use super::replication::Replication;
use crate::catalog::{Authenticity, BackupFacts, Entry, FactsCache};
use crate::domain::backup_kind::BackupKind;
use crate::domain::id::BackupId;
use crate::domain::manifest::{Manifest, ObjectRecord};
use crate::domain::names::BackupName;
use crate::error::{Fault, Kind};
use crate::store::ReadStore;

/// Manifests that are read at a time; of these, one that cannot be read costs the others a second look.
const BATCH: usize = 256;

/// A backup of one store, and what its manifest says if that can be read.
pub(super) struct StoredBackup {
    pub(super) entry: Entry,
    pub(super) facts: Option<BackupFacts>,
}

impl StoredBackup {
    /// SHA-256 of its manifest, if that can be read.
    fn sha256(&self) -> Option<[u8; 32]> {
        self.facts.as_ref().and_then(|facts| facts.sha256)
    }

    /// SHA-256 of the manifest of the run that made it, as its manifest claims.
    fn original(&self) -> Option<[u8; 32]> {
        self.facts.as_ref().and_then(|facts| facts.original)
    }

    /// Whether something proves what its manifest says of that.
    fn is_proven(&self) -> bool {
        let is_copy = self.sha256() != self.original();
        let proof = self.facts.as_ref().map(|facts| facts.proof);
        !is_copy || proof == Some(Authenticity::Authentic)
    }
}

impl Replication<'_> {
    /// The backups of a store with what their manifests say. One that cannot be read is named, and keeps no other
    /// from being copied.
    pub(super) fn stored(
        &self,
        store: &dyn ReadStore,
        entries: Vec<Entry>,
    ) -> anyhow::Result<Vec<StoredBackup>> {
        let (ctx, mut found) = (&self.app.ctx, Vec::new());
        let mut cache = FactsCache::of(&self.app.settings.state_dir, store.url());
        for batch in entries.chunks(BATCH) {
            if let Ok(facts) = cache.backups(store, batch, self.keys, ctx) {
                found.extend(facts.into_iter().map(Some));
                continue;
            }
            for entry in batch {
                ctx.cancel.check()?;
                let read = cache.backups(store, std::slice::from_ref(entry), self.keys, ctx);
                found.push(match read {
                    Ok(facts) => facts.into_iter().next(),
                    Err(error) => {
                        ctx.monitor.warn(&format!("{}: {error:#}", entry.name.manifest_key()));
                        None
                    }
                });
            }
        }
        // A part would replace what is known of all.
        if self.source.is_none() {
            cache.save(&entries, ctx);
        }
        let stored = entries.into_iter().zip(found);
        Ok(stored.map(|(entry, facts)| StoredBackup { entry, facts }).collect())
    }
}

/// How copying a backup ended.
pub(super) enum Copied {
    /// It is there now; what waits to be told to the ledger.
    Now(Option<Kind>),
    /// All of it was there.
    Before,
}

/// Whether the other store has a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Presence {
    /// It has not, or not all of it.
    None,
    /// The same bytes.
    Same,
    /// The same content, under another data key.
    Resealed,
}

/// What the store that gets copies has, and what happened so far.
pub(super) struct Progress {
    /// What is there under the name of a backup, with or without a manifest.
    pub(super) there: HashMap<BackupName, StoredBackup>,
    /// Backups of which there is a copy with everything that they build on.
    complete: HashSet<BackupId>,
    /// Backups whose copy was sealed anew.
    pub(super) resealed: HashSet<BackupId>,
    pub(super) failures_in_a_row: usize,
}

impl Progress {
    pub(super) fn of(there: HashMap<BackupName, StoredBackup>, here: &[StoredBackup]) -> Progress {
        // What only that store has may be built on, too. What both have shows when it is looked at.
        let in_both: HashSet<&BackupName> = here.iter().map(|backup| &backup.entry.name).collect();
        let only_there = there.values().filter(|backup| backup.entry.manifest.is_some());
        let only_there = only_there.filter(|backup| !in_both.contains(&backup.entry.name));
        let complete = only_there.map(|backup| backup.entry.name.id).collect();
        Progress { there, complete, resealed: HashSet::new(), failures_in_a_row: 0 }
    }

    /// Notes whether there is a whole copy of a backup.
    pub(super) fn settle(&mut self, id: BackupId, is_complete: bool) {
        if is_complete {
            self.complete.insert(id);
        } else {
            self.complete.remove(&id);
        }
    }

    pub(super) fn is_complete(&self, id: BackupId) -> bool {
        self.complete.contains(&id)
    }

    /// Whether the other store has a backup: with the same manifest and every object in the same size, or sealed anew.
    pub(super) fn presence(&self, backup: &StoredBackup) -> Presence {
        let Some(known) = self.there.get(&backup.entry.name) else { return Presence::None };
        let (entry, copy) = (&backup.entry, &known.entry);
        if copy.is_being_removed() || copy.manifest.is_none() || known.sha256().is_none() {
            return Presence::None;
        }
        if known.sha256() != backup.sha256() {
            let is_whole = known.facts.as_ref().is_some_and(|facts| facts.backup.whole);
            let is_copy = known.original() == backup.original();
            let is_proven = known.is_proven() && backup.is_proven();
            return if is_copy && is_proven && is_whole {
                Presence::Resealed
            } else {
                Presence::None
            };
        }
        let sizes = sizes(copy);
        let is_whole =
            entry.objects.iter().all(|object| sizes.get(&*object.key) == Some(&object.bytes));
        let is_same = is_whole && copy.manifest == entry.manifest;
        if is_same { Presence::Same } else { Presence::None }
    }

    /// That the other store has no copy of a backup under another data key which is not whole, or which no key at hand
    /// proves: nothing of it can be mended.
    pub(super) fn check_resealed(&self, backup: &StoredBackup, url: &str) -> Result<(), Fault> {
        let known = self.there.get(&backup.entry.name);
        let is_copy = |known: &&StoredBackup| {
            known.sha256().is_some()
                && known.sha256() != backup.sha256()
                && known.original() == backup.original()
        };
        let Some(known) = known.filter(is_copy) else { return Ok(()) };
        let key = known.entry.name.manifest_key();
        if !known.is_proven() || !backup.is_proven() {
            let message = format!(
                "{url}: `{key}` says that it was sealed anew for other keys, and no key at hand proves it"
            );
            let hint =
                "pass a key that opens that copy with --key, besides those that are configured";
            return Err(Fault::new(Kind::Key, message).hint(hint));
        }
        let message =
            format!("{url}: the copy that was sealed anew under `{key}` has lost an object");
        let hint = "only that store had those bytes: remove that copy by hand, and with it what builds on it, then seal it anew with --reseal";
        Err(Fault::new(Kind::Integrity, message).hint(hint))
    }

    /// The objects of a backup that are to be copied. What stands beside no manifest was left by a run that ended,
    /// or put there by somebody: it is read and compared.
    pub(super) fn lacking<'o>(
        &self,
        name: &BackupName,
        objects: impl Iterator<Item = &'o ObjectRecord>,
    ) -> Vec<&'o ObjectRecord> {
        let known = self.there.get(name).map(|known| &known.entry);
        let sizes = known.filter(|known| known.manifest.is_some()).map(sizes).unwrap_or_default();
        objects.filter(|object| sizes.get(&*object.key) != Some(&object.bytes)).collect()
    }

    /// That no cleanup has begun to remove the copy, and that what the backup builds on is there.
    pub(super) fn check(&self, manifest: &Manifest) -> anyhow::Result<()> {
        let known = self.there.get(&manifest.name());
        if known.is_some_and(|known| known.entry.is_being_removed()) {
            let message = "a cleanup that did not finish has begun to remove the copy";
            let hint = "run `bkp cleanup` for that store, then replicate again";
            return Err(Fault::new(Kind::Refused, message).hint(hint).into());
        }
        let parent = manifest.parent.filter(|_| BackupKind::Log.as_str() != manifest.kind);
        match parent.filter(|parent| !self.complete.contains(parent)) {
            None => Ok(()),
            Some(parent) => {
                let message = format!("its parent {parent} has no complete copy there");
                let hint = format!("see the message about {parent}");
                Err(Fault::new(Kind::Integrity, message).hint(hint).into())
            }
        }
    }
}

/// Sizes of the objects of a backup, by key.
pub(super) fn sizes(entry: &Entry) -> HashMap<&str, u64> {
    entry.objects.iter().map(|object| (object.key.as_str(), object.bytes)).collect()
}
