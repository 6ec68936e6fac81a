//! Decides about everything in a store; changes nothing.

use std::collections::HashSet;

use time::{Duration, OffsetDateTime};

use super::{Action, Item, What};
use crate::catalog::{self, Entry, Filter, Known};
use crate::cmd::journal;
use crate::config::settings::jobs::JobSettings;
use crate::domain::health::{Ages, is_odd};
use crate::domain::names::Scope;
use crate::domain::record::{self, Outcome};
use crate::domain::retention::{Backup, Group, Policy, Why, decide, removals};
use crate::ledger::in_store;
use crate::store::{PruneStore, Unfinished};
use crate::wire::House;

/// What is removed for an item.
#[derive(Debug)]
pub(super) enum Target {
    /// A backup, or objects without a manifest.
    Entry(Box<Entry>),
    /// An upload.
    Upload(Unfinished),
    /// One object, by its key.
    Object(String),
}

/// Every item, in the order in which those that go have to, and what it stands for.
pub(super) struct Plan {
    pub(super) items: Vec<Item>,
    pub(super) targets: Vec<Target>,
}

/// Decides about everything in `store`.
pub(super) fn plan(
    house: &House,
    store: &dyn PruneStore,
    now: OffsetDateTime,
) -> anyhow::Result<Plan> {
    let mut plan = Plan { items: Vec::new(), targets: Vec::new() };
    let entries = catalog::contents(store, &Filter::default())?;
    let mut known = Known::of(&house.settings.state_dir, store.url());
    let (whole, rest): (Vec<Entry>, Vec<Entry>) =
        entries.into_iter().partition(|entry| entry.manifest.is_some());
    plan.backups(house, store, &mut known, whole, now)?;
    plan.orphans(house, rest, now);
    plan.upkeep(house, store, now)?;
    Ok(plan)
}

impl Plan {
    fn add(&mut self, item: Item, target: Target) {
        self.items.push(item);
        self.targets.push(target);
    }

    fn backups(
        &mut self,
        house: &House,
        store: &dyn PruneStore,
        known: &mut Known,
        entries: Vec<Entry>,
        now: OffsetDateTime,
    ) -> anyhow::Result<()> {
        let mut backups = Vec::new();
        for entry in &entries {
            house.ctx.cancel.check()?;
            backups.push(known.backup(store, entry)?);
        }
        known.save(&entries, &house.ctx);
        let policies = policies(house, store, &entries, now)?;
        let groups: Vec<Group<'_>> = policies
            .iter()
            .map(|(policy, members, frozen)| Group {
                policy,
                members: members.clone(),
                frozen: frozen.clone(),
            })
            .collect();
        let (whys, locked) = settle(store, &groups, &entries, &mut backups, now)?;
        let gone = removals(&backups, &whys);
        let stay = (0..entries.len()).filter(|at| whys.get(*at).is_some_and(|w| !w.is_empty()));
        let order: Vec<usize> = gone.into_iter().chain(stay).collect();
        let mut entries: Vec<Option<Entry>> = entries.into_iter().map(Some).collect();
        for at in order {
            let (Some(entry), Some(whys)) =
                (entries.get_mut(at).and_then(Option::take), whys.get(at))
            else {
                continue;
            };
            let action = match whys.as_slice() {
                [] => Action::Remove,
                [..] if locked.contains(&at) => Action::Retain,
                [..] => Action::Keep,
            };
            let reasons: Vec<String> = whys.iter().map(Why::to_string).collect();
            let reason = match action {
                Action::Remove => "no rule keeps it".to_owned(),
                Action::Keep | Action::Retain => reasons.join(", "),
            };
            self.add(item(What::Backup, action, &entry, reason), Target::Entry(Box::new(entry)));
        }
        Ok(())
    }

    fn orphans(&mut self, house: &House, entries: Vec<Entry>, now: OffsetDateTime) {
        let limit = signed(house.settings.upkeep.orphan_age);
        for entry in entries {
            let age = now - entry.name.id.created();
            let days = age.whole_days();
            let (action, reason) = if entry.is_going() {
                (Action::Remove, "the rest of a backup that was removed".to_owned())
            } else if age > limit {
                (Action::Remove, format!("belongs to no backup, {days} days old"))
            } else {
                (Action::Keep, "has no manifest yet, a run may be at it".to_owned())
            };
            self.add(item(What::Orphan, action, &entry, reason), Target::Entry(Box::new(entry)));
        }
    }

    /// Uploads, leases and records that are old.
    fn upkeep(
        &mut self,
        house: &House,
        store: &dyn PruneStore,
        now: OffsetDateTime,
    ) -> anyhow::Result<()> {
        let upkeep = house.settings.upkeep;
        let before = now - signed(upkeep.orphan_age);
        let mut plain = |what, key: &str, bytes, reason: String, target| {
            let (action, key) = (Action::Remove, key.to_owned());
            self.add(Item { what, action, id: None, source: None, key, bytes, reason }, target);
        };
        for upload in store.unfinished(before)? {
            let reason =
                format!("an upload that began on {} and was not finished", upload.begun.date());
            plain(What::Upload, &upload.key.clone(), 0, reason, Target::Upload(upload));
        }
        for term in in_store::stale(store, before)? {
            let target = Target::Object(term.key.clone());
            plain(What::Lease, &term.key, term.bytes, "a lease that has ended".into(), target);
        }
        let before = now - signed(upkeep.records);
        for record in journal::below(store, record::FOLDER)? {
            if record.id.created() < before {
                let target = Target::Object(record.key());
                plain(What::Record, &record.key(), 0, "the record of an old run".into(), target);
            }
        }
        Ok(())
    }
}

fn item(what: What, action: Action, entry: &Entry, reason: String) -> Item {
    Item {
        what,
        action,
        id: Some(entry.name.id),
        source: Some(entry.name.source.clone()),
        key: entry.name.manifest_key(),
        bytes: entry.stored_bytes(),
        reason,
    }
}

/// Decides, asks the store whether it locks what would go, and decides again until nothing that
/// would go is locked. Returns the decision and the positions of what is locked.
fn settle(
    store: &dyn PruneStore,
    groups: &[Group<'_>],
    entries: &[Entry],
    backups: &mut [Backup],
    now: OffsetDateTime,
) -> anyhow::Result<(Vec<Vec<Why>>, HashSet<usize>)> {
    let (mut asked, mut locked) = (HashSet::new(), HashSet::new());
    loop {
        let whys = decide(groups, backups, now);
        let mut again = false;
        for at in removals(backups, &whys) {
            let (Some(entry), Some(backup)) = (entries.get(at), backups.get_mut(at)) else {
                continue;
            };
            if !asked.insert(at) {
                continue;
            }
            if let Some(until) = lock(store, entry)?.filter(|until| *until > now) {
                backup.held_until = backup.held_until.max(Some(until));
                again |= locked.insert(at);
            }
        }
        if !again {
            return Ok((whys, locked));
        }
    }
}

/// Until when the store locks any part of a backup.
fn lock(store: &dyn PruneStore, entry: &Entry) -> anyhow::Result<Option<OffsetDateTime>> {
    let mut until = store.retained(&entry.name.manifest_key())?;
    for object in &entry.objects {
        until = until.max(store.retained(&object.key)?);
    }
    Ok(until)
}

/// A policy, the positions of the backups that it is about, and why it removes nothing today.
type Ruled = (Policy, Vec<usize>, Option<String>);

/// The policies of all jobs that have one.
fn policies(
    house: &House,
    store: &dyn PruneStore,
    entries: &[Entry],
    now: OffsetDateTime,
) -> anyhow::Result<Vec<Ruled>> {
    let mut found = Vec::new();
    for job in house.settings.jobs.values() {
        let Some((policy, made)) = job.retention.clone().zip(job.run.makes) else { continue };
        let is_member = |entry: &Entry| {
            job.source.as_ref() == Some(&entry.name.source)
                && job.backup_type.is_none_or(|of_job| of_job == entry.name.backup_type)
                && entry.name.kind == made
                && job.scope.is_none_or(|scope| scope == entry.name.scope)
        };
        let members = entries.iter().enumerate().filter(|(_, entry)| is_member(entry));
        let members: Vec<usize> = members.map(|(at, _)| at).collect();
        let ages = Ages::of(job.when.interval(now), job.warn_after, job.critical_after);
        let policy = Policy { frozen_after: Some(ages.critical), ..policy };
        let frozen = frozen(store, job, entries, &members, now)?;
        found.push((policy, members, frozen));
    }
    Ok(found)
}

/// Why nothing of a job is to be removed: retention never follows a run that failed or that looks as
/// if the source was emptied.
fn frozen(
    store: &dyn PruneStore,
    job: &JobSettings,
    entries: &[Entry],
    members: &[usize],
    now: OffsetDateTime,
) -> anyhow::Result<Option<String>> {
    let records = journal::recent(store, &job.name, now)?;
    let counted = records.iter().rev().find(|record| record.outcome() != Outcome::Skipped);
    if let Some(last) = counted.filter(|last| last.outcome() != Outcome::Good) {
        let code = last.code;
        return Ok(Some(format!("the last run of `{}` ended with exit code {code}", job.name)));
    }
    let members = members.iter().filter_map(|at| entries.get(*at));
    let full = members.filter(|entry| entry.name.scope == Scope::Full);
    let sizes: Vec<u64> = full.map(Entry::stored_bytes).collect();
    let odd = "the size of the newest full backup is far from those before it";
    Ok(is_odd(&sizes).then(|| odd.to_owned()))
}

fn signed(length: std::time::Duration) -> Duration {
    Duration::try_from(length).unwrap_or(Duration::MAX)
}
