//! Which backups the retention of the other store would keep.

use std::collections::{BTreeMap, HashSet};

use super::progress::StoredBackup;
use super::replication::Replication;
use crate::catalog::{Authenticity, BackupFacts, Entry, FactsCache};
use crate::domain::backup_kind::BackupKind;
use crate::domain::manifest::Identity;
use crate::domain::names::{BackupName, BackupType, Mark};
use crate::domain::retention::{Backup, Group, Policy, decide};
use crate::store::ReadStore;

/// Manifests that are read at a time; of these, one that cannot be read costs the others a second look.
const BATCH: usize = 256;

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

    /// The names of the backups that no rule of the other store would keep, if it had them beside what it has: what
    /// its cleanup would remove at once is not copied.
    pub(super) fn unwanted(
        &self,
        here: &[StoredBackup],
        only_there: &[&StoredBackup],
    ) -> HashSet<BackupName> {
        let logged = here.iter().map(|backup| &backup.entry.name);
        let logged = logged.filter(|name| name.kind == BackupKind::Log);
        let logged: HashSet<(BackupType, &str)> =
            logged.map(|name| (name.backup_type, name.source.as_str())).collect();
        let all = here.iter().chain(only_there.iter().copied());
        let read: Vec<(&Entry, &BackupFacts)> =
            all.filter_map(|backup| Some((&backup.entry, backup.facts.as_ref()?))).collect();
        let backup = |(entry, facts): &(&Entry, &BackupFacts)| {
            let mut backup = facts.backup;
            backup.proven = facts.proof == Authenticity::Authentic;
            backup.whole &= !entry.is_damaged();
            // Whether it was rightly taken back shows in the other store.
            backup.pinned |= entry.marks.iter().any(|mark| matches!(mark, Mark::Pin(_)));
            // The promise of the job is about the stores that it writes to.
            if self.has_own_retention() {
                backup.held_until = None;
            }
            if entry.name.kind == BackupKind::Log {
                (backup.parent, backup.base) = (None, backup.id);
            } else {
                // A log goes along as a whole, so what it can begin at does, too.
                let name = &entry.name;
                backup.replayed |= logged.contains(&(name.backup_type, name.source.as_str()));
            }
            backup
        };
        let backups: Vec<Backup> = read.iter().map(backup).collect();
        let rules = self.rules(&read);
        let groups = rules.iter().map(|(policy, members)| {
            let (members, frozen) = (members.clone(), None);
            Group { policy, members, frozen }
        });
        let reasons = decide(&groups.collect::<Vec<_>>(), &backups, self.app.ctx.now());
        let unwanted = read.iter().zip(reasons).filter(|(_, reasons)| reasons.is_empty());
        unwanted.map(|((entry, _), _)| entry.name.clone()).collect()
    }

    fn has_own_retention(&self) -> bool {
        let store = self.app.settings.stores.get(self.destination.name());
        store.is_some_and(|store| store.retention.is_some())
    }

    /// The policies of the other store, and the positions of what each is about.
    fn rules(&self, read: &[(&Entry, &BackupFacts)]) -> Vec<(Policy, Vec<usize>)> {
        let mut rules = Vec::new();
        for job in self.app.settings.jobs.values() {
            let Some(policy) = self.app.retention(self.destination.name(), job) else { continue };
            // How much goes at once says nothing of what goes there.
            let policy = Policy { removed_percent_max: 100, frozen_after: None, ..policy };
            let mut members: BTreeMap<&Identity, Vec<usize>> = BTreeMap::new();
            for (at, (entry, facts)) in read.iter().enumerate() {
                if job.is_maker_of(&entry.name) {
                    members.entry(&facts.identity).or_default().push(at);
                }
            }
            rules.extend(members.into_values().map(|members| (policy.clone(), members)));
        }
        rules
    }
}
