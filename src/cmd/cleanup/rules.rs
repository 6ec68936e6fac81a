//! What the jobs of the configuration want kept, and why nothing of one is removed today.

use std::cell::OnceCell;
use std::collections::HashMap;

use time::OffsetDateTime;

use crate::catalog::{Entry, Met, Proof};
use crate::cmd::journal;
use crate::config::settings::jobs::JobSettings;
use crate::domain::event::{Digest, Status};
use crate::domain::health::{Ages, is_odd};
use crate::domain::id::BackupId;
use crate::domain::names::Scope;
use crate::domain::record::{DAMAGE, Outcome, Record};
use crate::domain::retention::{Backup, Group, Policy, lateness};
use crate::keys::KeyProvider;
use crate::store::ReadStore;
use crate::wire::House;

/// Who can say whether a manifest is one that bkp wrote: the keys at hand, else the ledger.
pub(super) struct Witness<'a> {
    house: &'a House,
    pub(super) keys: Vec<Box<dyn KeyProvider>>,
    /// The backups that the ledger knows; `None` if it does not answer.
    events: OnceCell<Option<HashMap<BackupId, Digest>>>,
    warned: OnceCell<()>,
}

impl<'a> Witness<'a> {
    /// The witnesses of this host. It may have no key: what cleans up need not be able to restore.
    pub(super) fn of(house: &'a House) -> Witness<'a> {
        let is_given = !house.settings.recipients.is_empty();
        let keys = if is_given { house.keys_to_read() } else { Ok(Vec::new()) };
        let keys = keys.unwrap_or_else(|error| {
            house.ctx.monitor.warn(&format!("going on without a key: {error:#}"));
            Vec::new()
        });
        Witness { house, keys, events: OnceCell::new(), warned: OnceCell::new() }
    }

    /// Whether a backup counts: otherwise whoever can write to the store could have the real ones
    /// removed by adding some of his own.
    pub(super) fn believes(&self, met: &Met) -> bool {
        match met.proof {
            Proof::Authentic => true,
            // It cannot even be read: that is damage, as retention sees it.
            Proof::Forged => met.sha256.is_none(),
            Proof::Unchecked if self.house.settings.ledger.is_none() => {
                // One that has lost its key is not one that was never given any.
                let is_blind = self.house.settings.recipients.is_empty();
                if is_blind {
                    self.warned.get_or_init(|| self.warn());
                }
                is_blind
            }
            Proof::Unchecked => {
                let known = self.events.get_or_init(|| self.ask()).as_ref();
                let digest = known.and_then(|events| events.get(&met.backup.id));
                met.sha256.is_some_and(|sha256| digest == Some(&Digest::of(&sha256)))
            }
        }
    }

    fn warn(&self) {
        self.house.ctx.monitor.warn(
            "no key and no ledger is at hand: every manifest counts as authentic, so whoever can write to the store can have backups removed; give this host a key or the ledger",
        );
    }

    fn ask(&self) -> Option<HashMap<BackupId, Digest>> {
        let entries = self.house.ledger()?.entries();
        let entries = entries.inspect_err(|error| {
            let what = "backups whose manifests no key opens stay, until the ledger answers";
            self.house.ctx.monitor.warn(&format!("{error}; {what}"));
        });
        let events = entries.ok()?.into_iter().filter_map(|entry| entry.event);
        let made = events.filter(|event| event.status == Status::Completed);
        Some(made.map(|event| (event.backup, event.digest)).collect())
    }
}

/// What one job wants.
pub(super) struct Rule {
    policy: Policy,
    /// Positions of the backups that it is about.
    members: Vec<usize>,
    frozen: Option<String>,
    /// Whether the job runs by itself.
    enabled: bool,
}

impl Rule {
    /// As retention sees it.
    pub(super) fn group(&self) -> Group<'_> {
        let Rule { policy, members, frozen, .. } = self;
        Group { policy, members: members.clone(), frozen: frozen.clone() }
    }

    /// Why nothing at all is to be called old today: a job that should have run has not, or the clock is
    /// wrong.
    pub(super) fn late(&self, backups: &[Backup], now: OffsetDateTime) -> Option<&'static str> {
        let late = || lateness(&self.policy, &self.members, backups, now);
        self.enabled.then(late).flatten()
    }
}

/// The rules of all jobs that have one.
pub(super) fn rules(
    house: &House,
    store: &dyn ReadStore,
    entries: &[Entry],
    now: OffsetDateTime,
) -> anyhow::Result<Vec<Rule>> {
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
        let frozen = frozen(store, house, job, now)?.or_else(|| emptied(entries, &members));
        found.push(Rule { policy, members, frozen, enabled: job.enabled });
    }
    Ok(found)
}

/// Why nothing that a job makes is to be removed: retention never follows a run that failed, nor a
/// verification that found damage.
pub(super) fn frozen(
    store: &dyn ReadStore,
    house: &House,
    job: &JobSettings,
    now: OffsetDateTime,
) -> anyhow::Result<Option<String>> {
    if let Some(last) = last(store, job, now)?.filter(|last| last.outcome() != Outcome::Good) {
        let code = last.code;
        return Ok(Some(format!("the last run of `{}` ended with exit code {code}", job.name)));
    }
    let verifies = |other: &&JobSettings| {
        other.run.word == "verify" && other.enabled && other.source == job.source
    };
    for other in house.settings.jobs.values().filter(verifies) {
        let found = last(store, other, now)?;
        if found.is_some_and(|last| last.code == DAMAGE) {
            return Ok(Some(format!("the last run of `{}` found damage", other.name)));
        }
    }
    Ok(None)
}

/// Whether the newest full backup looks as if the source was emptied.
fn emptied(entries: &[Entry], members: &[usize]) -> Option<String> {
    let members = members.iter().filter_map(|at| entries.get(*at));
    let full = members.filter(|entry| entry.name.scope == Scope::Full);
    let sizes: Vec<u64> = full.map(Entry::stored_bytes).collect();
    let odd = "the size of the newest full backup is far from those before it";
    is_odd(&sizes).then(|| odd.to_owned())
}

/// The last run of a job that was one. What is dated in the future was dated by a wrong clock.
fn last(
    store: &dyn ReadStore,
    job: &JobSettings,
    now: OffsetDateTime,
) -> anyhow::Result<Option<Record>> {
    let records = journal::recent(store, &job.name, now)?.into_iter();
    let counted =
        |record: &Record| record.outcome() != Outcome::Skipped && record.id.created() <= now;
    Ok(records.rev().find(counted))
}
