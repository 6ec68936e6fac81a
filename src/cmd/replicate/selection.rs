//! Which backups the retention of the other store would keep.

use std::collections::{BTreeMap, HashSet};

use super::progress::StoredBackup;
use super::replication::Replication;
use crate::catalog::{Authenticity, BackupFacts, Entry};
use crate::domain::backup_kind::BackupKind;
use crate::domain::manifest::Identity;
use crate::domain::names::{BackupName, BackupType, Mark};
use crate::domain::retention::{Backup, Group, Policy, decide};

impl Replication<'_> {
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
            if self.app.own_retention(self.destination.name()).is_some() {
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
