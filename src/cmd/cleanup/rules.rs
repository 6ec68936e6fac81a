//! The retention policies of the configured jobs, and the reasons why one of them is frozen.

use crate::config::settings::jobs::JobKind;
use std::cell::OnceCell;
use std::collections::BTreeMap;

use time::OffsetDateTime;

use crate::catalog::{Authenticity, BackupFacts, Entry};
use crate::config::settings::jobs::JobSettings;
use crate::domain::health::is_odd;
use crate::domain::manifest::Identity;
use crate::domain::names::Scope;
use crate::domain::record::{DAMAGE, Record, RunOutcome};
use crate::domain::recorded_manifests::RecordedManifests;
use crate::domain::retention::{Backup, Group, Policy, lateness};
use crate::keys::keyring::Keyring;
use crate::ops::jobs::evidence::GOOD_ENOUGH;
use crate::ops::jobs::state::JobStates;
use crate::store::ReadStore;
use crate::wire::AppContext;

/// Who can say whether a manifest is one that bkp wrote: the keys at hand, else the ledger.
pub(super) struct Witness<'a> {
    app: &'a AppContext,
    pub(super) keys: Keyring,
    /// The backups that the ledger knows; `None` if it does not answer.
    events: OnceCell<Option<RecordedManifests>>,
    warned: OnceCell<()>,
}

impl<'a> Witness<'a> {
    /// The witnesses of this host. It may have no key: what cleans up need not be able to restore.
    pub(super) fn of(app: &'a AppContext) -> Witness<'a> {
        let is_given = app.settings.has_witness();
        let keys = if is_given { app.keys_to_read() } else { Ok(Keyring::default()) };
        let keys = keys.unwrap_or_else(|error| {
            app.ctx.monitor.warn(&format!("continuing without a key: {error:#}"));
            Keyring::default()
        });
        Witness { app, keys, events: OnceCell::new(), warned: OnceCell::new() }
    }

    /// Whether a backup counts: otherwise whoever can write to the store could have the real ones
    /// removed by adding others.
    pub(super) fn believes(&self, facts: &BackupFacts) -> bool {
        match facts.proof {
            Authenticity::Authentic => true,
            // It cannot even be read: that is damage, as retention sees it.
            Authenticity::Forged => facts.sha256.is_none(),
            Authenticity::Unchecked if self.app.settings.ledger.is_none() => {
                // One that has lost its key is not one that was never given any.
                let is_blind = !self.app.settings.has_witness();
                if is_blind {
                    self.warned.get_or_init(|| self.warn());
                }
                is_blind
            }
            Authenticity::Unchecked => {
                let known = self.events.get_or_init(|| self.ask()).as_ref();
                let id = facts.backup.id;
                facts.sha256.is_some_and(|sha256| known.is_some_and(|known| known.had(id, &sha256)))
            }
        }
    }

    fn warn(&self) {
        self.app.ctx.monitor.warn(
            "neither a key nor a ledger is available: every manifest is taken as authentic, so anyone who can write to the store can have backups removed; give this host a key or a ledger",
        );
    }

    fn ask(&self) -> Option<RecordedManifests> {
        let entries = self.app.ledger()?.entries();
        let entries = entries.inspect_err(|error| {
            let what = "backups that no key opens are kept until the ledger answers";
            self.app.ctx.monitor.warn(&format!("{error}; {what}"));
        });
        Some(RecordedManifests::of(entries.ok()?.into_iter().filter_map(|entry| entry.event)))
    }
}

/// What one job wants.
pub(super) struct Rule {
    /// The job.
    pub(super) job: String,
    policy: Policy,
    /// Positions of the backups that it is about.
    members: Vec<usize>,
    frozen: Option<String>,
    /// Whether the job runs by itself.
    enabled: bool,
}

impl Rule {
    /// As retention sees it: a group for each source that has this name, since those of one do not make
    /// those of another superfluous. Sizes that somebody made up neither hide that a source was emptied nor
    /// look like that.
    pub(super) fn groups(
        &self,
        entries: &[Entry],
        facts: &[BackupFacts],
        backups: &[Backup],
    ) -> Vec<Group<'_>> {
        let Rule { policy, frozen, .. } = self;
        let is_proven = |at: &&usize| backups.get(**at).is_some_and(|backup| backup.proven);
        let group = |members: Vec<usize>| {
            let proven: Vec<usize> = members.iter().filter(is_proven).copied().collect();
            let frozen = frozen.clone().or_else(|| emptied(entries, &proven));
            Group { policy, members, frozen }
        };
        self.by_identity(facts).into_values().map(group).collect()
    }

    /// The members by what they are of.
    fn by_identity<'m>(&self, facts: &'m [BackupFacts]) -> BTreeMap<&'m Identity, Vec<usize>> {
        let mut found: BTreeMap<&Identity, Vec<usize>> = BTreeMap::new();
        for at in &self.members {
            if let Some(facts) = facts.get(*at) {
                found.entry(&facts.identity).or_default().push(*at);
            }
        }
        found
    }

    /// What is to be known of a name that several sources share.
    pub(super) fn shared(&self, facts: &[BackupFacts], backups: &[Backup]) -> Option<String> {
        let is_proven = |at: &usize| backups.get(*at).is_some_and(|backup| backup.proven);
        let mut found = self.by_identity(facts);
        found.retain(|_, members| members.iter().any(is_proven));
        let named = |identity: &&Identity| {
            let named: Vec<_> =
                identity.iter().map(|(key, value)| format!("{key} {value}")).collect();
            named.join(", ")
        };
        let sources: Vec<String> = found.keys().map(named).collect();
        (sources.len() > 1).then(|| sources.join("; "))
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
    app: &AppContext,
    store: &dyn ReadStore,
    entries: &[Entry],
    now: OffsetDateTime,
) -> anyhow::Result<Vec<Rule>> {
    let mut found = Vec::new();
    for job in app.settings.jobs.values() {
        let Some(policy) = app.retention(store.name(), job) else { continue };
        let members = entries.iter().enumerate().filter(|(_, entry)| job.is_maker_of(&entry.name));
        let members: Vec<usize> = members.map(|(at, _)| at).collect();
        let ages = job.ages(now);
        let critical = ages.critical + copied_after(app, store, now);
        let policy = Policy { frozen_after: Some(critical), ..policy };
        let frozen = frozen(store, app, job, now)?;
        let (job, enabled) = (job.name.clone(), job.enabled);
        found.push(Rule { job, policy, members, frozen, enabled });
    }
    Ok(found)
}

/// How much later than it is made a backup may arrive in a store that gets copies.
fn copied_after(app: &AppContext, store: &dyn ReadStore, now: OffsetDateTime) -> time::Duration {
    let is_to =
        |job: &&JobSettings| job.copies.as_ref().is_some_and(|copies| copies.to == store.name());
    let critical = app.settings.jobs.values().filter(is_to).map(|job| job.ages(now).critical);
    critical.max().unwrap_or_default()
}

/// Why nothing that a job makes is to be removed: retention never follows a run that failed, nor a
/// verification that found damage.
pub(super) fn frozen(
    store: &dyn ReadStore,
    app: &AppContext,
    job: &JobSettings,
    now: OffsetDateTime,
) -> anyhow::Result<Option<String>> {
    let mut states = JobStates::load(app);
    if let Some(last) = last_run(store, app, job, &mut states, now)?
        && last.record.outcome() != RunOutcome::Good
    {
        let LastRun { record: Record { code, .. }, more } = last;
        let what = format!("the last run of `{}` ended with exit code {code}{more}", job.name);
        return Ok(Some(what));
    }
    let verifies = |other: &&JobSettings| {
        other.run == JobKind::Verify && other.enabled && other.source == job.source
    };
    for other in app.settings.jobs.values().filter(verifies) {
        let found = last_run(store, app, other, &mut states, now)?;
        if let Some(LastRun { more, .. }) = found.filter(|last| last.record.code == DAMAGE) {
            return Ok(Some(format!("the last run of `{}` found damage{more}", other.name)));
        }
    }
    states.evidence().save(app);
    Ok(None)
}

/// Whether the newest full backup looks as if the source was emptied.
fn emptied(entries: &[Entry], members: &[usize]) -> Option<String> {
    let members = members.iter().filter_map(|at| entries.get(*at));
    let full = members.filter(|entry| entry.name.scope == Scope::Full);
    let sizes: Vec<u64> = full.map(Entry::stored_bytes).collect();
    let odd = "the newest full backup differs greatly in size from earlier ones";
    is_odd(&sizes).then(|| odd.to_owned())
}

/// The last run of a job, as far as cleaning up goes.
struct LastRun {
    record: Record,
    /// What is to be said of it.
    more: &'static str,
}

/// The last run of a job that was one. What is dated in the future was dated by a wrong clock. A record
/// that is not proven ends no freeze, but it begins one: until a later run is this host's own or proven.
fn last_run(
    store: &dyn ReadStore,
    app: &AppContext,
    job: &JobSettings,
    states: &mut JobStates,
    now: OffsetDateTime,
) -> anyhow::Result<Option<LastRun>> {
    let judged = states.judge(app, job, (store, GOOD_ENOUGH), now)?;
    let counted =
        |record: &&Record| record.outcome() != RunOutcome::Skipped && record.id.created() <= now;
    let believed = judged.believed.iter().rfind(counted);
    // Without a key and a ledger nothing can be proven: that is warned of where backups are met.
    let is_blind = !app.settings.has_witness() && app.settings.ledger.is_none();
    let weighs = |record: &&Record| {
        counted(record)
            && (is_blind || record.outcome() != RunOutcome::Good)
            && believed.is_none_or(|believed| believed.id < record.id)
    };
    let other = judged.others.iter().rfind(weighs);
    let more = "; no key on this host authenticates its record, nor any later one";
    let more = if is_blind { "" } else { more };
    let last = other.map(|record| LastRun { record: record.clone(), more });
    Ok(last.or_else(|| believed.map(|record| LastRun { record: record.clone(), more: "" })))
}
