//! Looks at everything that `status` speaks of: the stores, what they have on record, and the state
//! directory. Nothing of it has to be of this host: the stores alone are enough.

use std::collections::BTreeMap;

use time::OffsetDateTime;

use super::{JobRow, SourceRow, StoreRow};
use crate::catalog::{self, Entry, Filter};
use crate::cmd::journal;
use crate::cmd::run::state::{States, places};
use crate::config::settings::jobs::JobSettings;
use crate::domain::cost;
use crate::domain::health::{self, Ages, Finding, JobFacts, SourceFacts};
use crate::domain::names::{BackupName, Scope};
use crate::domain::record::{Outcome, Record};
use crate::domain::schedule::Due;
use crate::ledger::outbox::Outbox;
use crate::wire::House;

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Look {
    pub(super) jobs: Vec<JobRow>,
    pub(super) sources: Vec<SourceRow>,
    pub(super) stores: Vec<StoreRow>,
    pub(super) findings: Vec<Finding>,
    pub(super) outbox: usize,
}

/// What one store has.
struct Seen {
    name: String,
    /// Price of its storage class per GiB and month.
    price: f64,
    entries: Vec<Entry>,
}

impl Look {
    pub(super) fn take(house: &House, now: OffsetDateTime) -> anyhow::Result<Look> {
        let mut look = Look::default();
        let (mut seen, mut records) = (Vec::new(), BTreeMap::new());
        for name in house.store_names()? {
            house.ctx.cancel.check()?;
            match look.store(house, &name, &mut records, now) {
                Ok(store) => seen.push(store),
                Err(error) => {
                    let why = format!("{error:#}");
                    look.findings.push(health::unreachable(&name, &why));
                    look.stores.push(StoreRow::away(name, why));
                }
            }
        }
        let mut states = States::kept(house);
        for job in house.settings.jobs.values() {
            let records = records.remove(&job.name).unwrap_or_default();
            look.job(house, job, &mut states, records, now);
        }
        for name in house.settings.sources.keys() {
            look.source(house, name, &seen, now);
        }
        look.outbox(house, now);
        look.findings.sort_by_key(|finding| std::cmp::Reverse(finding.level));
        Ok(look)
    }

    fn store(
        &mut self,
        house: &House,
        name: &str,
        records: &mut BTreeMap<String, Vec<Record>>,
        now: OffsetDateTime,
    ) -> anyhow::Result<Seen> {
        let store = house.store_named(name)?;
        let entries = catalog::contents(&*store, &Filter::default())?;
        for job in house.settings.jobs.values() {
            if places(house, job).iter().any(|place| place == name) {
                let found = journal::recent(&*store, &job.name, now)?;
                records.entry(job.name.clone()).or_default().extend(found);
            }
        }
        let stored_bytes = entries.iter().map(Entry::stored_bytes).sum();
        let quota = house.settings.status.quota.get(name).copied();
        let (space, least) = (store.space(), house.settings.status.free_percent_min);
        self.findings.extend(health::of_space(name, stored_bytes, quota, space, least));
        let settings = house.settings.stores.get(name);
        let class = settings.and_then(|store| store.place.table.get("storage_class"));
        let class = match class.and_then(|class| class.as_str()) {
            Some(class) => class,
            None if store.url().starts_with("file:") => "LOCAL",
            None => "STANDARD",
        };
        let prices = cost::prices(&house.settings.status.prices);
        let price = prices.get(class).copied().unwrap_or(0.0);
        self.stores.push(StoreRow {
            store: name.to_owned(),
            problem: None,
            backups: entries.iter().filter(|entry| entry.manifest.is_some()).count(),
            stored_bytes,
            quota_bytes: quota,
            space,
            storage_class: class.to_owned(),
            cost_per_month: cost::monthly(stored_bytes, price),
        });
        Ok(Seen { name: name.to_owned(), price, entries })
    }

    fn job(
        &mut self,
        house: &House,
        job: &JobSettings,
        states: &mut States,
        mut records: Vec<Record>,
        now: OffsetDateTime,
    ) {
        if places(house, job).iter().all(|place| self.answers(place)) {
            states.refresh(house, job, now);
        }
        records.sort();
        records.dedup();
        records.retain(|record| record.outcome() != Outcome::Skipped);
        let past = states.past(house, job);
        let ages = Ages::of(job.when.interval(now), job.warn_after, job.critical_after);
        let good = records.iter().filter(|record| record.outcome() == Outcome::Good);
        let facts = JobFacts {
            name: job.name.clone(),
            past,
            code: records.last().map(|record| record.code),
            retries: job.retries.count,
            seconds: good.map(|record| record.seconds).collect(),
        };
        let found = if job.enabled { health::of_job(&facts, ages, now) } else { Vec::new() };
        let due = states.due(house, job, now);
        self.jobs.push(JobRow {
            job: job.name.clone(),
            command: job.run.word.to_owned(),
            source: job.source.clone(),
            level: job.level.clone(),
            enabled: job.enabled,
            last_success: past.succeeded,
            last_run: past.tried,
            last_exit_code: facts.code,
            last_seconds: records.last().map(|record| record.seconds),
            failures: past.failures,
            next: match due {
                Due::Since(at) | Due::At(at) if job.enabled => Some(at.max(now)),
                Due::Since(_) | Due::At(_) | Due::Never => None,
            },
            age_seconds: past.succeeded.map(|last| (now - last).whole_seconds()),
            warning_seconds: ages.warning.whole_seconds(),
            critical_seconds: ages.critical.whole_seconds(),
            health: found.iter().map(|finding| finding.level).max(),
        });
        self.findings.extend(found);
    }

    fn answers(&self, store: &str) -> bool {
        self.stores.iter().any(|row| row.store == store && row.problem.is_none())
    }

    fn source(&mut self, house: &House, name: &str, seen: &[Seen], now: OffsetDateTime) {
        let jobs = || {
            let jobs = house.settings.jobs.values();
            jobs.filter(|job| job.enabled && job.source.as_deref() == Some(name))
        };
        let last = |level: Option<&str>| {
            let verifies = |row: &&JobRow| {
                row.source.as_deref() == Some(name)
                    && row.command == "verify"
                    && level.is_none_or(|level| row.level.as_deref() == Some(level))
            };
            self.jobs.iter().filter(verifies).filter_map(|row| row.last_success).max()
        };
        let (last_verify, last_drill) = (last(None), last(Some("drill")));
        let of_source = |entry: &&Entry| entry.name.source == name && entry.manifest.is_some();
        for Seen { name: store, price, entries } in seen {
            let mine: Vec<&Entry> = entries.iter().filter(of_source).collect();
            let settings = house.settings.sources.get(name);
            let elsewhere = settings.is_some_and(|settings| {
                !settings.store.is_empty() && !settings.store.contains(store)
            });
            if mine.is_empty() && elsewhere {
                continue;
            }
            let full = mine.iter().filter(|entry| entry.name.scope == Scope::Full);
            let facts = SourceFacts {
                name: name.to_owned(),
                full: full.map(|entry| (entry.name.id.created(), entry.stored_bytes())).collect(),
                backups: mine.len(),
                future: mine.iter().filter(|entry| entry.name.id.created() > now).count(),
                empty: mine.iter().filter(|entry| entry.objects.is_empty()).count(),
                made: jobs().any(|job| job.run.makes.is_some()),
                verified: jobs().any(|job| job.run.word == "verify"),
            };
            self.findings.extend(health::of_source(&facts, now));
            let stored_bytes: u64 = mine.iter().map(|entry| entry.stored_bytes()).sum();
            let in_a_year = jobs().filter(|job| job.run.makes.is_some());
            let in_a_year: u64 = in_a_year.map(|job| forecast(job, &mine, now)).sum();
            self.sources.push(SourceRow {
                source: name.to_owned(),
                store: store.clone(),
                backups: mine.len(),
                full: facts.full.len(),
                pinned: mine.iter().filter(|entry| entry.is_pinned()).count(),
                oldest: mine.first().map(|entry| entry.name.id.created()),
                newest: mine.last().map(|entry| entry.name.id.created()),
                stored_bytes,
                last_verify,
                last_drill,
                cost_per_month: cost::monthly(stored_bytes, *price),
                cost_per_month_in_a_year: cost::monthly(in_a_year, *price),
            });
        }
    }

    fn outbox(&mut self, house: &House, now: OffsetDateTime) {
        let state_dir = &house.settings.state_dir;
        let folders = [state_dir.clone(), state_dir.join("cleanup")];
        let waiting = folders.iter().filter_map(|folder| Outbox::of(folder).waiting().ok());
        let waiting: Vec<_> = waiting.flatten().collect();
        let written = waiting.iter().filter_map(|path| path.metadata().ok()?.modified().ok());
        let oldest = written.min().map(OffsetDateTime::from);
        self.outbox = waiting.len();
        self.findings.extend(health::of_outbox(waiting.len(), oldest, now));
    }
}

/// How many bytes the backups of a job will take a year from now, by the size of the recent ones.
fn forecast(job: &JobSettings, entries: &[&Entry], now: OffsetDateTime) -> u64 {
    let is_of = |name: &BackupName| {
        Some(name.kind.as_str()) == job.run.makes
            && job.scope.is_none_or(|scope| scope == name.scope)
    };
    let recent = entries.iter().rev().filter(|entry| is_of(&entry.name)).take(15);
    let sizes: Vec<u64> = recent.map(|entry| entry.stored_bytes()).collect();
    let Some(mean) = sizes.iter().sum::<u64>().checked_div(sizes.len() as u64) else { return 0 };
    cost::in_a_year(job.retention.as_ref(), job.when.interval(now), mean, now)
}
