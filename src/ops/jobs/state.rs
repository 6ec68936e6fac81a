//! The known past of the jobs: read from the stores, and cached in the state directory so that checking
//! what is due needs no store. What is kept may be lost or old: then a job looks due that is not, and
//! the stores are asked before it runs.
//!
//! Of what stores have only that counts which is proven (see [`super::evidence`]); this host's own runs
//! it knows itself.

use crate::config::settings::jobs::JobKind;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::cache;
use crate::config::settings::jobs::JobSettings;
use crate::ctx::host;
use crate::domain::id::BackupId;
use crate::domain::names::{BackupName, Scope};
use crate::domain::record::{self, Record, RunOutcome};
use crate::domain::schedule::{Due, JobHistory, SKEW, jitter};
use crate::ops::jobs::evidence::{Evidence, GOOD_ENOUGH, JudgedRecords};
use crate::ops::known_stores::KnownStores;
use crate::ops::records;
use crate::store::{ReadStore, Version};
use crate::wire::AppContext;

/// How many runs of a job are kept; the last good one is in any case.
const RUNS_MAX: usize = 64;

/// The past of every job that is known of.
#[derive(Debug)]
pub struct JobStates {
    path: PathBuf,
    known: BTreeMap<String, JobState>,
    evidence: Evidence,
}

/// The past of a job, as it is kept.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct JobState {
    /// URLs of the stores that it comes from; of others it says nothing.
    stores: Vec<String>,
    /// Keys of the records of its runs that count: those of this host, and of others those that are
    /// proven.
    runs: BTreeSet<String>,
    /// When the newest backup began that is proven and could be one of its.
    #[serde(default, with = "time::serde::rfc3339::option")]
    made: Option<OffsetDateTime>,
    /// The last run, if it failed and is on record nowhere else.
    #[serde(default)]
    away: Option<BackupId>,
    /// When a tick looked at it for the first time, here.
    #[serde(default, with = "time::serde::rfc3339::option")]
    since: Option<OffsetDateTime>,
    /// When the run of a job that goes first began, of whose failure it was said that this one waits.
    #[serde(default, with = "time::serde::rfc3339::option")]
    waits: Option<OffsetDateTime>,
}

impl JobStates {
    /// What is kept in the state directory.
    #[must_use]
    pub fn load(app: &AppContext) -> JobStates {
        let path = cache::folder(&app.settings.state_dir).join("jobs.json");
        let known = cache::load(&path).unwrap_or_default();
        JobStates { known, path, evidence: Evidence::of(app) }
    }

    /// What is known of the past of a job, without asking anybody.
    #[must_use]
    pub fn past(&self, app: &AppContext, job: &JobSettings) -> JobHistory {
        self.entry(app, job).map_or_else(JobHistory::default, |kept| kept.past(app.ctx.now()))
    }

    fn entry(&self, app: &AppContext, job: &JobSettings) -> Option<&JobState> {
        self.known.get(&job.name).filter(|kept| kept.stores == urls(app, job))
    }

    /// Notes when a job was seen for the first time, so that nobody is told at once that it never ran.
    pub fn note_first_seen(&mut self, app: &AppContext, job: &JobSettings, now: OffsetDateTime) {
        if self.entry(app, job).is_none() {
            self.entry_mut(app, job).since = Some(now);
        }
    }

    /// Since when ticks of this host know a job; nothing if that was before anybody noted it.
    #[must_use]
    pub fn since(&self, app: &AppContext, job: &JobSettings) -> Option<OffsetDateTime> {
        self.entry(app, job)?.since
    }

    /// Whether a verification has nothing to look at yet: jobs make backups of its source, and none of
    /// them ever did.
    #[must_use]
    pub fn too_early(&self, app: &AppContext, job: &JobSettings) -> bool {
        let jobs = app.settings.jobs.values();
        let mut makers = jobs.filter(|other| other.enabled && other.makes_for(job)).peekable();
        let never = |job: &JobSettings| self.past(app, job).succeeded.is_none();
        job.run == JobKind::Verify
            && never(job)
            && makers.peek().is_some()
            && makers.all(never)
            && !has_made(app, job)
    }

    /// The same, to be changed; what is known of other stores is forgotten.
    fn entry_mut(&mut self, app: &AppContext, job: &JobSettings) -> &mut JobState {
        let stores = urls(app, job);
        let kept = self.known.entry(job.name.clone()).or_default();
        if kept.stores != stores {
            *kept = JobState { stores, ..JobState::default() };
        }
        kept
    }

    /// Whether a job is due, as far as is known without asking anybody.
    #[must_use]
    pub fn due(&self, app: &AppContext, job: &JobSettings, now: OffsetDateTime) -> Due {
        let name = format!("{}/{}", host(), job.name);
        let delay = jitter(&name, job.jitter);
        job.when.due(&self.past(app, job), job.retries, delay, now)
    }

    /// Which of the records of a job in a store count, and the newest of its backups there, if one could
    /// be one of its and is proven. What counts is known from now on. Records that are older than so many
    /// good ones (`enough`) need not be looked at.
    ///
    /// # Errors
    /// What the store fails with.
    pub fn judge(
        &mut self,
        app: &AppContext,
        job: &JobSettings,
        (store, enough): (&dyn ReadStore, usize),
        now: OffsetDateTime,
    ) -> anyhow::Result<JudgedRecords> {
        let listed = records::recent(store, &job.name, now)?;
        let own = self.entry(app, job).map(|kept| kept.runs.clone()).unwrap_or_default();
        let mut judged = self.evidence.records(app, store, &own, (listed, enough));
        let known = self.past(app, job).succeeded;
        let newer =
            |(name, _): &(BackupName, _)| known.is_none_or(|known| name.id.created() > known);
        let made = if is_only(app, job) {
            let names = candidates(job, store, now).take_while(newer);
            let (made, unproven) = self.evidence.newest(app, store, names);
            judged.manifests = unproven;
            made
        } else {
            None
        };
        let kept = self.entry_mut(app, job);
        kept.runs.extend(judged.believed.iter().map(Record::key));
        kept.made = kept.made.max(made.map(|name| name.id.created()));
        kept.trim();
        Ok(judged)
    }

    /// Whether the record with this key counts, as far as is known without asking anybody.
    #[must_use]
    pub fn is_own(&self, app: &AppContext, job: &JobSettings, key: &str) -> bool {
        self.entry(app, job).is_some_and(|kept| kept.runs.contains(key))
    }

    /// The witnesses of this host.
    pub fn evidence(&self) -> &Evidence {
        &self.evidence
    }

    /// Asks the stores of a job about its past. If none of them answers, what was known stays.
    pub fn refresh(&mut self, app: &AppContext, job: &JobSettings, now: OffsetDateTime) {
        let (mut answers, mut failure) = (0, None);
        for name in places(app, job) {
            let asked = app.store_named(&name);
            match asked.and_then(|store| self.judge(app, job, (&*store, GOOD_ENOUGH), now)) {
                Ok(_judged) => answers += 1,
                Err(error) => failure = Some(error),
            }
        }
        if let Some(error) = failure.filter(|_error| answers == 0) {
            let why = format!("{}: cannot tell when it last ran: {error:#}", job.name);
            app.ctx.monitor.warn(&why);
        }
    }

    /// Notes that a job waits because the run of another one failed that began then. Returns whether
    /// that is new.
    pub fn waits(
        &mut self,
        app: &AppContext,
        job: &JobSettings,
        failed: Option<OffsetDateTime>,
    ) -> bool {
        if self.entry(app, job).is_some_and(|kept| kept.waits.is_some() && kept.waits == failed) {
            return false;
        }
        self.entry_mut(app, job).waits = failed;
        self.save(app);
        true
    }

    /// Adds a run of this host to what is known: what it was like as a whole, and in the stores that have
    /// it on record.
    pub fn add(&mut self, app: &AppContext, job: &JobSettings, run: &Record, on_record: &[String]) {
        let kept = self.entry_mut(app, job);
        kept.runs.insert(run.key());
        kept.runs.extend(on_record.iter().cloned());
        let is_lost = run.outcome() == RunOutcome::Failed && on_record.is_empty();
        kept.away = is_lost.then_some(run.id);
        kept.trim();
    }

    /// Keeps what is known for the next time.
    pub fn save(&self, app: &AppContext) {
        cache::save(&self.path, &self.known, &app.ctx);
        self.evidence.save(app);
    }
}

impl JobState {
    fn records(&self) -> Vec<Record> {
        record::merged(self.runs.iter().filter_map(|key| Record::parse(key)).collect())
    }

    fn past(&self, now: OffsetDateTime) -> JobHistory {
        let records = self.records();
        let mut past = record::past(&records, now);
        // A backup that somebody made by hand counts as well.
        if self.made > past.succeeded {
            past.succeeded = self.made;
            if past.succeeded >= past.tried {
                past.failures = 0;
            }
        }
        let last = records.iter().rev().find(|record| record.outcome() != RunOutcome::Skipped);
        past.away = past.failures > 0 && last.is_some_and(|last| Some(last.id) == self.away);
        past
    }

    /// Forgets what is old.
    fn trim(&mut self) {
        let is_good = |key: &&String| {
            let outcome = Record::parse(key).map(|record| record.outcome());
            matches!(outcome, Some(RunOutcome::Good | RunOutcome::Partial))
        };
        let good = self.runs.iter().rev().find(is_good).cloned();
        while self.runs.len() > RUNS_MAX {
            self.runs.pop_first();
        }
        self.runs.extend(good);
    }
}

/// Whether this host has made a backup of the source of a job, by hand for instance.
fn has_made(app: &AppContext, job: &JobSettings) -> bool {
    let source = job.source.as_deref().and_then(|name| app.settings.sources.get_key_value(name));
    let Some((name, source)) = source else { return false };
    let is_noted = |store: &String| {
        let store = app.store_named(store).ok();
        store
            .is_some_and(|store| KnownStores::of(app, &*store, source.backup_type, name).is_noted())
    };
    places(app, job).iter().any(is_noted)
}

/// Names of the stores that a job is about.
#[must_use]
pub fn places(app: &AppContext, job: &JobSettings) -> Vec<String> {
    let settings = &app.settings;
    if let Some(copies) = &job.copies {
        return vec![copies.to.clone()];
    }
    let source = job.source.as_ref().and_then(|name| settings.sources.get(name));
    let of_source = source.map(|source| source.store.clone()).unwrap_or_default();
    match (settings.store.is_empty(), of_source.is_empty()) {
        (false, _) => settings.store.clone(),
        (true, false) => of_source,
        (true, true) => settings.stores.keys().cloned().collect(),
    }
}

/// Whether a job is run once for each of its stores: what it does is about one at a time.
#[must_use]
pub fn is_for_each(job: &JobSettings) -> bool {
    job.run == JobKind::Verify
}

/// Their URLs: what is known of a store says nothing of another one that takes its name.
fn urls(app: &AppContext, job: &JobSettings) -> Vec<String> {
    let stores = &app.settings.stores;
    let url = |name: String| stores.get(&name).map_or(name, |store| store.place.url.clone());
    places(app, job).into_iter().map(url).collect()
}

/// Whether no other job makes backups that could be taken for those of this one.
fn is_only(app: &AppContext, job: &JobSettings) -> bool {
    let apart = |a: Option<Scope>, b: Option<Scope>| a.zip(b).is_some_and(|(a, b)| a != b);
    let mut others = app
        .settings
        .jobs
        .values()
        .filter(|other| other.name != job.name && other.enabled && other.source == job.source);
    others.all(|other| other.run.makes() != job.run.makes() || apart(other.scope, job.scope))
}

/// Names of the backups that this job could have made this month or the last, newest first.
fn candidates<'a>(
    job: &'a JobSettings,
    store: &'a dyn ReadStore,
    now: OffsetDateTime,
) -> impl Iterator<Item = (BackupName, Option<Version>)> + 'a {
    let about = job.run.makes().zip(job.backup_type).zip(job.source.as_deref());
    let scopes = job.scope.as_ref().map_or(Scope::ALL.as_slice(), std::slice::from_ref);
    about.into_iter().flat_map(move |((made, backup_type), source)| {
        records::backups(store, (backup_type, source), scopes, now.date())
            .filter(move |(name, _)| name.kind == made && name.id.created() - now <= SKEW)
    })
}
