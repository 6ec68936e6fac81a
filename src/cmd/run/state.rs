//! What is known of the past of the jobs: from the stores, and kept in the state directory so that
//! looking whether something is due asks no store. What is kept may be lost or old: then a job looks
//! due that is not, and the stores are asked before it runs.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::cache;
use crate::cmd::journal;
use crate::config::settings::jobs::JobSettings;
use crate::ctx::host;
use crate::domain::names::{BackupName, MANIFEST_EXTENSION, Scope};
use crate::domain::record::{self, Record};
use crate::domain::schedule::{Due, Past, SKEW, jitter};
use crate::store::{ReadStore, StoreError};
use crate::wire::House;

/// The past of every job that is known of.
#[derive(Debug, Default)]
pub struct States {
    path: PathBuf,
    known: BTreeMap<String, Kept>,
}

/// The past of a job, as it is kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Kept {
    /// URLs of the stores that it comes from; of others it says nothing.
    stores: Vec<String>,
    #[serde(with = "time::serde::rfc3339::option")]
    succeeded: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339::option")]
    tried: Option<OffsetDateTime>,
    failures: u32,
    /// The last of them is on record nowhere else.
    #[serde(default)]
    away: bool,
    /// When the run of a job that goes first began, of whose failure it was said that this one waits.
    #[serde(default, with = "time::serde::rfc3339::option")]
    waits: Option<OffsetDateTime>,
}

impl States {
    /// What is kept in the state directory.
    #[must_use]
    pub fn kept(house: &House) -> States {
        let path = cache::folder(&house.settings.state_dir).join("jobs.json");
        States { known: cache::load(&path).unwrap_or_default(), path }
    }

    /// What is known of the past of a job, without asking anybody.
    #[must_use]
    pub fn past(&self, house: &House, job: &JobSettings) -> Past {
        self.entry(house, job).map_or_else(Past::default, |kept| Past {
            succeeded: kept.succeeded,
            tried: kept.tried,
            failures: kept.failures,
            away: kept.away,
        })
    }

    fn entry(&self, house: &House, job: &JobSettings) -> Option<&Kept> {
        self.known.get(&job.name).filter(|kept| kept.stores == urls(house, job))
    }

    /// Whether a job is due, as far as is known without asking anybody.
    #[must_use]
    pub fn due(&self, house: &House, job: &JobSettings, now: OffsetDateTime) -> Due {
        let name = format!("{}/{}", host(), job.name);
        let delay = jitter(&name, job.jitter);
        job.when.due(&self.past(house, job), job.retries, delay, now)
    }

    /// Asks the stores of a job about its past. If none of them answers, what was known stays.
    pub fn refresh(&mut self, house: &House, job: &JobSettings, now: OffsetDateTime) {
        match past_of(house, job, now) {
            Ok(mut past) => {
                // What failed before it could be put on record anywhere failed all the same.
                let known = self.past(house, job);
                if known.away && known.tried > past.tried.max(past.succeeded) {
                    past = Past { succeeded: past.succeeded, ..known };
                }
                self.set(house, job, past);
            }
            Err(error) => {
                let why = format!("{}: no store says when it ran last: {error:#}", job.name);
                house.ctx.monitor.warn(&why);
            }
        }
    }

    /// Notes that a job waits because the run of another one failed that began then. Returns whether
    /// that is new.
    pub fn waits(
        &mut self,
        house: &House,
        job: &JobSettings,
        failed: Option<OffsetDateTime>,
    ) -> bool {
        if self.entry(house, job).is_some_and(|kept| kept.waits.is_some() && kept.waits == failed) {
            return false;
        }
        self.set(house, job, self.past(house, job));
        if let Some(kept) = self.known.get_mut(&job.name) {
            kept.waits = failed;
        }
        self.save(house);
        true
    }

    /// Adds a run to what is known; `reached` says whether any store has it on record.
    pub fn add(
        &mut self,
        house: &House,
        job: &JobSettings,
        run: &Record,
        reached: bool,
        now: OffsetDateTime,
    ) {
        let mut past = self.past(house, job);
        let new = record::past(std::slice::from_ref(run), now.max(run.id.created()));
        past.tried = past.tried.max(new.tried);
        if new.succeeded.is_some() {
            (past.succeeded, past.failures) = (past.succeeded.max(new.succeeded), 0);
        } else {
            past.failures = past.failures.saturating_add(new.failures);
        }
        past.away = past.failures > 0 && !reached;
        self.set(house, job, past);
    }

    fn set(&mut self, house: &House, job: &JobSettings, past: Past) {
        let Past { succeeded, tried, failures, away } = past;
        let stores = urls(house, job);
        let waits = self.entry(house, job).and_then(|kept| kept.waits);
        let kept = Kept { stores, succeeded, tried, failures, away, waits };
        self.known.insert(job.name.clone(), kept);
    }

    /// Keeps what is known for the next time.
    pub fn save(&self, house: &House) {
        cache::save(&self.path, &self.known, &house.ctx);
    }
}

/// Names of the stores that a job is about.
#[must_use]
pub fn places(house: &House, job: &JobSettings) -> Vec<String> {
    let settings = &house.settings;
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
    job.run.word == "verify"
}

/// Their URLs: what is known of a store says nothing of another one that takes its name.
fn urls(house: &House, job: &JobSettings) -> Vec<String> {
    let stores = &house.settings.stores;
    let url = |name: String| stores.get(&name).map_or(name, |store| store.place.url.clone());
    places(house, job).into_iter().map(url).collect()
}

/// The past of a job, by all of its stores that answer.
fn past_of(house: &House, job: &JobSettings, now: OffsetDateTime) -> anyhow::Result<Past> {
    let (mut records, mut made, mut answers, mut failure) = (Vec::new(), None, 0, None);
    for name in places(house, job) {
        let asked = house.store_named(&name).and_then(|store| {
            let found = journal::recent(&*store, &job.name, now)?;
            let newest = if is_only(house, job) { newest(&*store, job, now)? } else { None };
            Ok((found, newest))
        });
        match asked {
            Ok((found, newest)) => {
                answers += 1;
                records.extend(found);
                made = made.max(newest);
            }
            Err(error) => failure = Some(error),
        }
    }
    if let Some(error) = failure.filter(|_error| answers == 0) {
        return Err(error);
    }
    let mut past = record::past(&record::merged(records), now);
    // A backup that somebody made by hand counts as well.
    if made > past.succeeded {
        past.succeeded = made;
        if past.succeeded >= past.tried {
            past.failures = 0;
        }
    }
    Ok(past)
}

/// Whether no other job makes backups that could be taken for those of this one.
fn is_only(house: &House, job: &JobSettings) -> bool {
    let apart = |a: Option<Scope>, b: Option<Scope>| a.zip(b).is_some_and(|(a, b)| a != b);
    let mut others = house
        .settings
        .jobs
        .values()
        .filter(|other| other.name != job.name && other.enabled && other.source == job.source);
    others.all(|other| other.run.makes != job.run.makes || apart(other.scope, job.scope))
}

/// When the newest backup began that this job could have made, if that was this month or the last.
fn newest(
    store: &dyn ReadStore,
    job: &JobSettings,
    now: OffsetDateTime,
) -> Result<Option<OffsetDateTime>, StoreError> {
    let (Some(made), Some(backup_type), Some(source)) =
        (job.run.makes, job.backup_type, &job.source)
    else {
        return Ok(None);
    };
    let today = now.date();
    let before = today.replace_day(1).ok().and_then(time::Date::previous_day).unwrap_or(today);
    let scopes = job.scope.map_or_else(|| Scope::ALL.to_vec(), |only| vec![only]);
    let mut newest = None;
    for day in [today, before] {
        for scope in &scopes {
            let (year, month) = (day.year(), u8::from(day.month()));
            let folder = format!("{backup_type}/{source}/{scope}/{year:04}/{month:02}");
            for object in store.list(&folder)? {
                let key = object?.key;
                let Some((name, MANIFEST_EXTENSION)) = BackupName::parse(&key) else {
                    continue;
                };
                let begun = name.id.created();
                if name.kind == made && begun - now <= SKEW {
                    newest = newest.max(Some(begun));
                }
            }
        }
        if newest.is_some() {
            break;
        }
    }
    Ok(newest)
}
