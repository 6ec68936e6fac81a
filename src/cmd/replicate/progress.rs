//! What the store that gets copies has, and how far they are.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::catalog::Entry;
use crate::domain::backup_kind::BackupKind;
use crate::domain::id::BackupId;
use crate::domain::manifest::Manifest;
use crate::domain::names::{BackupName, BackupType};
use crate::error::{Fault, Kind};

/// A log, as far as backups tell.
type LogOf<'e> = (BackupType, &'e str);

/// What the other store has, and what happened so far.
pub(super) struct Progress<'e> {
    pub(super) there: HashMap<BackupName, Entry>,
    /// Backups that are there with all that they build on, as far as a listing shows.
    pub(super) whole: HashSet<BackupId>,
    /// The first segment of each log that the other store had.
    begins: BTreeMap<LogOf<'e>, BackupId>,
    /// Logs of which a segment could not be copied: later ones wait, or it would be taken for what a cleanup
    /// removed from the beginning.
    pub(super) broken: HashSet<LogOf<'e>>,
    /// The newest backup of each chain that was copied, by the first of the chain.
    pub(super) newest: BTreeMap<BackupId, BackupName>,
    pub(super) failures_in_a_row: usize,
}

impl<'e> Progress<'e> {
    pub(super) fn of(here: &'e [Entry], there: Vec<Entry>) -> Progress<'e> {
        let mut progress = Progress {
            there: HashMap::new(),
            whole: HashSet::new(),
            begins: BTreeMap::new(),
            broken: HashSet::new(),
            newest: BTreeMap::new(),
            failures_in_a_row: 0,
        };
        let segments: Vec<&Entry> = there
            .iter()
            .filter(|entry| entry.manifest.is_some() && entry.name.kind == BackupKind::Log)
            .collect();
        for entry in here {
            let log = (entry.name.backup_type, entry.name.source.as_str());
            let of_log = |known: &&&Entry| (known.name.backup_type, &*known.name.source) == log;
            if entry.name.kind == BackupKind::Log && !progress.begins.contains_key(&log) {
                let first = segments.iter().filter(of_log).map(|known| known.name.id).min();
                progress.begins.extend(first.map(|first| (log, first)));
            }
        }
        // What only the other store has may be built on, too.
        let whole = there.iter().filter(|entry| entry.manifest.is_some());
        progress.whole = whole.map(|entry| entry.name.id).collect();
        progress.there = there.into_iter().map(|entry| (entry.name.clone(), entry)).collect();
        progress
    }

    pub(super) fn log_of(&self, name: &BackupName) -> Option<LogOf<'e>> {
        let of_log = |log: &&LogOf<'e>| (name.backup_type, name.source.as_str()) == **log;
        self.begins.keys().find(of_log).copied()
    }

    /// Whether a listing shows the same of a backup in both stores.
    pub(super) fn has(&self, entry: &Entry) -> bool {
        let Some(known) = self.there.get(&entry.name) else { return false };
        let sizes: HashMap<&str, u64> =
            known.objects.iter().map(|object| (object.key.as_str(), object.bytes)).collect();
        known.manifest == entry.manifest
            && entry
                .objects
                .iter()
                .all(|object| sizes.get(object.key.as_str()) == Some(&object.bytes))
    }

    /// Why a backup is not to be copied.
    pub(super) fn left_out(&self, entry: &Entry, wanted: bool) -> Option<String> {
        let known = self.there.get(&entry.name);
        if known.is_some_and(Entry::is_being_removed) {
            return Some("a cleanup is removing it there".to_owned());
        }
        if known.is_none_or(|known| known.manifest.is_none()) && !wanted {
            return Some("no retention rule would keep it there".to_owned());
        }
        if entry.name.kind == BackupKind::Log {
            let log = (entry.name.backup_type, entry.name.source.as_str());
            if self.broken.contains(&log) {
                return Some("an earlier segment of its log could not be copied".to_owned());
            }
            if self.begins.get(&log).is_some_and(|first| entry.name.id < *first) {
                return Some("its log begins later there".to_owned());
            }
        }
        None
    }

    /// That what a backup builds on is there.
    pub(super) fn check_parent(&self, manifest: &Manifest) -> anyhow::Result<()> {
        let parent = manifest.parent.filter(|_| BackupKind::Log.as_str() != manifest.kind);
        match parent.filter(|parent| !self.whole.contains(parent)) {
            None => Ok(()),
            Some(parent) => {
                let message = format!("it builds on {parent}, which is not there");
                let hint = "see what is said of that one";
                Err(Fault::new(Kind::Integrity, message).hint(hint).into())
            }
        }
    }
}
