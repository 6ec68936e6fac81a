//! Gathers everything that `status` reports: stores, their records, and the state directory. None of it
//! has to come from this host: the stores alone are enough. Servers that archive a log are asked how far; one that
//! cannot be reached from here is only mentioned.

use std::collections::BTreeMap;

use time::{Duration, OffsetDateTime};

use crate::catalog::{self, Catalog, Entry, Filter};
use crate::cmd::runs;
use crate::cmd::status::facts::{
    StoreFacts, broken, copies, uncopied, unexpected_fulls, unopenable, unproven, versioned, waits,
};
use crate::cmd::status::rows::{JobRow, LogRow, SourceRow, StoreRow};
use crate::cmd::status::{annotation_summary, gaps};
use crate::config::settings::jobs::{JobKind, JobSettings};
use crate::domain::cost::monthly;
use crate::domain::health::{self, Ages, Finding, JobFacts, SourceFacts};
use crate::domain::names::Scope;
use crate::domain::record::{DAMAGE, Record, RunOutcome, merged};
use crate::domain::schedule::{Due, SKEW, When};
use crate::domain::verify_level::VerifyLevel;
use crate::ledger::outbox::Outbox;
use crate::ops::cost::{forecast, of_entries, price, total};
use crate::ops::jobs::evidence::{Evidence, GOOD_ENOUGH};
use crate::ops::jobs::state::{JobStates, places};
use crate::ops::key_health::ConfiguredKey;
use crate::ops::known_stores::KnownStores;
use crate::table::units;
use crate::wire::AppContext;

/// How often a log is taken to be shipped that no job ships.
const LOG_INTERVAL: Duration = Duration::minutes(15);

/// The gathered status.
#[derive(Debug, Default)]
pub(crate) struct StatusFacts {
    pub(crate) jobs: Vec<JobRow>,
    pub(crate) sources: Vec<SourceRow>,
    pub(crate) logs: Vec<LogRow>,
    pub(crate) stores: Vec<StoreRow>,
    pub(crate) findings: Vec<Finding>,
    pub(crate) outbox: usize,
}

impl StatusFacts {
    pub(crate) fn collect(app: &AppContext, now: OffsetDateTime) -> anyhow::Result<StatusFacts> {
        let mut look = StatusFacts::default();
        let mut seen = Vec::new();
        let mut states = JobStates::load(app);
        for name in app.store_names()? {
            app.ctx.cancel.check()?;
            match look.store(app, &name, &mut states, now) {
                Ok(store) => seen.push(store),
                Err(error) => {
                    let why = format!("{error:#}");
                    look.findings.push(health::unreachable(&name, &why));
                    look.stores.push(StoreRow::away(name, why));
                }
            }
        }
        for job in app.settings.jobs.values() {
            look.job(app, job, &states, &seen, now);
        }
        for name in app.settings.sources.keys() {
            look.source(app, name, (&seen, &states), now);
            look.log(app, name, now)?;
        }
        look.keys(app, &seen, states.evidence());
        states.evidence().save(app);
        look.outbox(app, now);
        look.findings.sort_by_key(|finding| std::cmp::Reverse(finding.level));
        Ok(look)
    }

    fn store(
        &mut self,
        app: &AppContext,
        name: &str,
        states: &mut JobStates,
        now: OffsetDateTime,
    ) -> anyhow::Result<StoreFacts> {
        let store = app.store_named(name)?;
        let entries = catalog::contents(&*store, &Filter::default(), &app.ctx.cancel)?;
        let mut records = BTreeMap::new();
        for job in app.settings.jobs.values() {
            if places(app, job).iter().any(|place| place == name) {
                records
                    .insert(job.name.clone(), states.judge(app, job, (&*store, GOOD_ENOUGH), now)?);
            }
        }
        let stored_bytes = total(entries.iter().map(Entry::stored_bytes));
        let quota = app.settings.status.quota.get(name).copied();
        let (space, least) = (store.space(), app.settings.status.free_percent_min);
        self.findings.extend(health::of_space(name, stored_bytes, quota, space, least));
        let (storage_class, price) = price(app, &*store);
        self.stores.push(StoreRow {
            store: name.to_owned(),
            problem: None,
            backups: entries.iter().filter(|entry| entry.manifest.is_some()).count(),
            stored_bytes,
            quota_bytes: quota,
            space,
            storage_class,
            cost_per_month: of_entries(app, &*store, &entries.iter().collect::<Vec<_>>(), now)
                .per_month,
        });
        Ok(StoreFacts { name: name.to_owned(), store, price, entries, records })
    }

    fn job(
        &mut self,
        app: &AppContext,
        job: &JobSettings,
        states: &JobStates,
        seen: &[StoreFacts],
        now: OffsetDateTime,
    ) {
        let records = merged(seen.iter().flat_map(|seen| seen.records(job)).cloned().collect());
        let counted = |record: &&Record| {
            record.outcome() != RunOutcome::Skipped && record.id.created() - now <= SKEW
        };
        let records: Vec<&Record> = records.iter().filter(counted).collect();
        let past = states.past(app, job);
        let (interval, ages) = (job.when.interval(now), job.ages(now));
        let due = states.due(app, job, now);
        let is_good = |record: &&&Record| record.outcome() == RunOutcome::Good;
        let unwell = records.iter().rev().take_while(|record| !is_good(record)).last();
        // What one store has that is damaged, a later run about another one does not mend.
        let newest = seen.iter().filter_map(|seen| seen.records(job).last());
        let damaged = newest.into_iter().any(|record| record.code == DAMAGE);
        let cleanup = |other: &JobSettings| other.enabled && other.run == JobKind::Cleanup;
        let facts = JobFacts {
            name: job.name.clone(),
            past,
            since: states.since(app, job),
            code: if damaged { Some(DAMAGE) } else { records.last().map(|record| record.code) },
            retries: job.retries.count,
            seconds: records.iter().filter(is_good).map(|record| record.seconds).collect(),
            unwell: unwell.map(|record| record.id.created()),
            waits: waits(app, job, states, due),
            interval,
            removed: job.retention.is_some() && app.settings.jobs.values().any(cleanup),
            copies: copies(app, job, seen, states.evidence()),
            uncopied: uncopied(app, job, seen, states.evidence()),
            unproven: unproven(job, seen),
        };
        let found = if job.enabled { health::of_job(&facts, ages, now) } else { Vec::new() };
        self.jobs.push(JobRow {
            job: job.name.clone(),
            command: job.run.word().to_owned(),
            source: job.source.clone(),
            tenant: job.source.as_ref().and_then(|source| tenant(app, source)),
            schedule: match &job.when {
                When::Every(length) => format!("every {}", units::spelled(*length)),
                When::At(calendar) => calendar.to_string(),
            },
            level: job.level,
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

    fn source(
        &mut self,
        app: &AppContext,
        name: &str,
        (seen, states): (&[StoreFacts], &JobStates),
        now: OffsetDateTime,
    ) {
        let jobs = || {
            let jobs = app.settings.jobs.values();
            jobs.filter(|job| job.enabled && job.source.as_deref() == Some(name))
        };
        for seen in seen {
            let StoreFacts { name: store, price, .. } = seen;
            let drill = seen.verified(app, name, Some(VerifyLevel::Drill));
            let mine: Vec<&Entry> = seen.backups(name).collect();
            let settings = app.settings.sources.get(name);
            let elsewhere = settings.is_some_and(|settings| {
                !settings.store.is_empty() && !settings.store.contains(store)
            });
            if mine.is_empty() && elsewhere {
                continue;
            }
            let full = mine.iter().filter(|entry| entry.name.scope == Scope::Full);
            let said = annotation_summary::of(app, &*seen.store, &mine);
            self.findings.extend(said.finding(name, store));
            let logs = jobs().filter(|job| job.run == JobKind::Logs);
            let logs: Vec<Record> = logs.flat_map(|job| seen.records(job)).cloned().collect();
            let facts = SourceFacts {
                name: name.to_owned(),
                store: store.clone(),
                gaps: gaps::recent(&*seen.store, &mine, &logs, now),
                lost: gaps::lost(app, store, &*seen.store, &mine),
                full: full.map(|entry| (entry.name.id.created(), entry.stored_bytes())).collect(),
                backups: mine.len(),
                had: settings.is_some_and(|settings| {
                    KnownStores::of(app, &*seen.store, settings.backup_type, name).is_noted()
                }),
                unopenable: unopenable(app, seen, &mine, states.evidence()),
                future: mine.iter().filter(|entry| entry.name.id.created() > now).count(),
                empty: mine.iter().filter(|entry| entry.objects.is_empty()).count(),
                broken: broken(app, seen, &mine, states.evidence()),
                damaged: said.damaged,
                newest_damaged: said.newest_damaged,
                made: jobs().any(|job| job.run.makes().is_some()),
                verified: jobs().any(|job| job.run == JobKind::Verify),
                young: jobs().filter(|job| job.run.makes().is_some()).any(|job| {
                    let ages = job.ages(now);
                    states.since(app, job).is_some_and(|since| now - since <= ages.warning)
                }),
                unexpected_fulls: unexpected_fulls(&jobs().collect::<Vec<_>>(), &mine),
            };
            self.findings.extend(health::of_source(&facts, now));
            let stored_bytes = total(mine.iter().map(|entry| entry.stored_bytes()));
            let costs = of_entries(app, &*seen.store, &mine, now);
            let in_a_year = total(jobs().map(|job| forecast(job, &mine, now)));
            self.sources.push(SourceRow {
                source: name.to_owned(),
                tenant: tenant(app, name),
                store: store.clone(),
                backups: mine.len(),
                full: facts.full.len(),
                pinned: said.pinned,
                oldest: mine.first().map(|entry| entry.name.id.created()),
                newest: mine.last().map(|entry| entry.name.id.created()),
                stored_bytes,
                last_verify: seen.verified(app, name, None).map(|record| record.id.created()),
                last_drill: drill.map(|record| record.id.created()),
                last_drill_rto_seconds: drill
                    .and_then(|record| runs::rto_seconds(&*seen.store, &record.key())),
                cost_per_month: costs.per_month,
                cost_of_minimum_terms: costs.minimum_terms,
                cost_of_retrieval: costs.retrieval,
                cost_per_month_in_a_year: monthly(in_a_year, *price),
            });
        }
    }

    /// How far the archive of a source's log is behind, where its server says so.
    fn log(&mut self, app: &AppContext, name: &str, now: OffsetDateTime) -> anyhow::Result<()> {
        let asked = app.source(name).and_then(|source| source.log_lag(&app.ctx));
        app.ctx.cancel.check()?;
        match asked {
            Ok(Some(lag)) => {
                let mut jobs = app.settings.jobs.values();
                let job = jobs.find(|job| {
                    job.enabled && job.run == JobKind::Logs && job.source.as_deref() == Some(name)
                });
                let ages = job.map_or(Ages::of(LOG_INTERVAL, None, None), |job| job.ages(now));
                self.findings.extend(health::of_lag(name, &lag, ages));
                self.logs.push(LogRow { source: name.to_owned(), lag });
            }
            Ok(None) => {}
            Err(error) => self.findings.push(health::lag_unknown(name, &format!("{error:#}"))),
        }
        Ok(())
    }

    /// Whether every key that is configured is there: without one that opens, jobs end with 12.
    /// The configured keys, and whether each opens one of the newest backups.
    fn keys(&mut self, app: &AppContext, seen: &[StoreFacts], evidence: &Evidence) {
        let mut newest = Vec::new();
        for store in seen {
            let catalog = Catalog::new(&*store.store, evidence.keys(app), &app.ctx);
            for source in app.settings.sources.keys() {
                let latest = || store.backups(source).rev();
                let (proven, _) = evidence.newest(app, &*store.store, latest().map(versioned));
                // Where nothing at hand proves anything, there are claims only.
                let entry =
                    latest().find(|entry| proven.as_ref().is_none_or(|of| *of == entry.name));
                let openers = entry.and_then(|entry| catalog.openers(entry).ok());
                newest.extend(openers.map(|(recipients, _)| recipients));
            }
        }
        for key in ConfiguredKey::all(app) {
            self.findings.extend(key.findings(app, &newest));
        }
    }

    fn outbox(&mut self, app: &AppContext, now: OffsetDateTime) {
        let state_dir = &app.settings.state_dir;
        let folders = [state_dir.clone(), state_dir.join("cleanup")];
        let waiting = folders.iter().filter_map(|folder| Outbox::of(folder).waiting().ok());
        let waiting: Vec<_> = waiting.flatten().collect();
        let written = waiting.iter().filter_map(|path| path.metadata().ok()?.modified().ok());
        let oldest = written.min().map(OffsetDateTime::from);
        self.outbox = waiting.len();
        self.findings.extend(health::of_outbox(waiting.len(), oldest, now));
    }
}

/// Whose data a source holds, if its table says.
fn tenant(app: &AppContext, source: &str) -> Option<String> {
    app.settings.sources.get(source)?.tenant.clone()
}
