//! Plans which data moves to a colder storage class. Objects that every run reads stay: only what a manifest
//! that is shown to be bkp's own calls data moves, and only whole chains at a time.

use std::collections::{HashMap, HashSet};

use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;

use super::decide::CleanupDecision;
use super::item::{Action, Item, ItemKind};
use super::logs::is_segment;
use crate::catalog::{self, Entry};
use crate::ctx::Ctx;
use crate::domain::backup_kind::BackupKind;
use crate::domain::chain_age::{Aging, unneeded_since};
use crate::domain::id::BackupId;
use crate::domain::manifest::Manifest;
use crate::domain::names::BackupType;
use crate::domain::tier::{SMALL_BYTES, StorageClass, Tier, Tiers};
use crate::pipeline;
use crate::pipeline::copies::{declared, role_of};
use crate::store::{Declared, PruneStore, Role};

/// An object that moves.
#[derive(Debug)]
pub(super) struct Moving {
    pub(super) key: String,
    /// What it is, as its manifest says.
    pub(super) declared: Declared,
}

/// What moves of one backup.
#[derive(Debug)]
pub(super) struct PlannedMove {
    pub(super) item: Item,
    /// The first of its chain.
    pub(super) base: BackupId,
    pub(super) moving: Vec<Moving>,
    /// Where to.
    pub(super) class: StorageClass,
}

/// Plans moves in one store.
pub(super) struct TierPlanner<'a> {
    pub(super) store: &'a dyn PruneStore,
    pub(super) entries: &'a [Entry],
    pub(super) decision: &'a CleanupDecision,
    pub(super) now: OffsetDateTime,
    pub(super) ctx: &'a Ctx,
}

impl TierPlanner<'_> {
    /// What moves, in the order in which it has to. Of each chain the youngest backup comes first, so that wherever this
    /// ends none is colder than one that builds on it.
    pub(super) fn plan(&self, tiers: &Tiers) -> anyhow::Result<Vec<PlannedMove>> {
        let gone: HashSet<usize> = self.decision.gone.iter().copied().collect();
        let aging = self.aging();
        let since = unneeded_since(&aging);
        let mut due: Vec<(usize, BackupId, OffsetDateTime, Tier)> = Vec::new();
        for (at, (aging, since)) in aging.iter().zip(since).enumerate() {
            let rule = since.and_then(|since| Some((since, tiers.at(self.now - since)?)));
            if let Some((since, tier)) = rule
                && aging.is_proven
                && !gone.contains(&at)
            {
                due.push((at, aging.base, since, tier));
            }
        }
        due.sort_by_key(|(at, base, ..)| (*base, std::cmp::Reverse(*at)));
        let mut found = Vec::new();
        for (at, base, since, tier) in due {
            self.ctx.cancel.check()?;
            if let Some(entry) = self.entries.get(at) {
                found.extend(self.entry(entry, (at, base), (since, tier))?);
            }
        }
        Ok(found)
    }

    /// The backups in the order of the entries.
    fn aging(&self) -> Vec<Aging> {
        let CleanupDecision { backups, links, .. } = self.decision;
        let logged: HashSet<(BackupType, &str)> = self
            .entries
            .iter()
            .filter(|entry| is_segment(entry))
            .map(|entry| (entry.name.backup_type, entry.name.source.as_str()))
            .collect();
        let mut series: HashMap<(BackupType, &str, &str), usize> = HashMap::new();
        // Segments that need no snapshot restore from the first one on: the whole log is one chain.
        let mut first: HashMap<(BackupType, &str, &str), BackupId> = HashMap::new();
        let mut found = Vec::new();
        for ((entry, backup), link) in self.entries.iter().zip(backups).zip(links) {
            let name = &entry.name;
            let of_source = (name.backup_type, name.source.as_str());
            let next = series.len();
            let number = *series.entry((of_source.0, of_source.1, &name.kind)).or_insert(next);
            let base = match link {
                Some(link) if !link.segment.needs_base => {
                    let log = (of_source.0, of_source.1, link.segment.mode.as_str());
                    *first.entry(log).or_insert(name.id)
                }
                _ => backup.base,
            };
            let is_logged = name.kind == BackupKind::Snapshot && logged.contains(&of_source);
            let is_proven = backup.proven && backup.whole;
            found.push(Aging { id: name.id, base, series: number, is_logged, is_proven });
        }
        found
    }

    /// What moves of one backup.
    fn entry(
        &self,
        entry: &Entry,
        (at, base): (usize, BackupId),
        (since, tier): (OffsetDateTime, Tier),
    ) -> anyhow::Result<Option<PlannedMove>> {
        let classes: HashMap<&str, StorageClass> =
            entry.objects.iter().map(|object| (object.key.as_str(), object.class)).collect();
        // What bkp does not know, somebody else looks after.
        let is_due = |class: &StorageClass| *class != StorageClass::Other && *class < tier.class;
        let sha256 = self.decision.ours.get(at).and_then(|(sha256, _)| *sha256);
        let Some(sha256) = sha256.filter(|_| classes.values().any(&is_due)) else {
            return Ok(None);
        };
        let (mut moving, mut locked) = (Vec::new(), None);
        for (key, declared) in self.data(entry, sha256)? {
            if declared.bytes < SMALL_BYTES || !classes.get(key.as_str()).is_some_and(is_due) {
                continue;
            }
            locked = locked.max(self.store.retained(&key)?);
            moving.push(Moving { key, declared });
        }
        if moving.is_empty() {
            return Ok(None);
        }
        let days = (self.now - since).whole_days();
        let class = tier.class;
        let (action, reason) = if let Some(until) = locked {
            let until = until.date();
            (Action::Retain, format!("due for {class}, but locked by the store until {until}"))
        } else {
            let least = tier.after_days;
            let why = format!("not needed by newer backups for {days} days, at least {least}");
            (Action::Move, format!("to {class}: {why}"))
        };
        let bytes = moving.iter().map(|object| object.declared.bytes);
        let item = Item {
            what: ItemKind::Backup,
            action,
            id: Some(entry.name.id),
            source: Some(entry.name.source.clone()),
            key: entry.name.manifest_key(),
            bytes: bytes.fold(0, u64::saturating_add),
            reason,
        };
        Ok(Some(PlannedMove { item, base, moving, class }))
    }

    /// The objects of a backup that only a restore reads, as its manifest says; none if that has changed.
    fn data(&self, entry: &Entry, sha256: [u8; 32]) -> anyhow::Result<Vec<(String, Declared)>> {
        let key = entry.name.manifest_key();
        let bytes = catalog::read_manifest(self.store, &key)?;
        if <[u8; 32]>::from(Sha256::digest(&bytes)) != sha256 {
            return Ok(Vec::new());
        }
        let manifest = Manifest::parse(&bytes, &key)?;
        let listed = pipeline::listed(self.store, &manifest, self.ctx)?;
        let mut found = Vec::new();
        for object in manifest.objects.iter().chain(&listed) {
            if role_of(&manifest, object) == Role::Data {
                found.push((object.key.clone(), declared(object)?));
            }
        }
        Ok(found)
    }
}
