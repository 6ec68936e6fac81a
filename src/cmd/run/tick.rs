//! One tick of the scheduler: runs what is due, and keeps checking while anything runs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use time::OffsetDateTime;

use super::options::Options;
use super::pool::{JobEnd, Pool, StartDecision};
use super::report::{JobOutcome, JobRunRow, NextRun, RunReport};
use super::{job_run, notifications};
use crate::config::settings::jobs::JobSettings;
use crate::domain::schedule::Due;
use crate::error::Kind;
use crate::ops::jobs::state::JobStates;
use crate::ops::report::Report;
use crate::wire::AppContext;

/// How long the end of a run may go unnoticed by the others.
const POLL_EVERY: Duration = Duration::from_millis(200);
/// How often it is looked what is due while something runs.
const TICK: Duration = Duration::from_secs(30);
/// For how long a job is left alone whose source, or which itself, another run is at.
const BUSY_PAUSE: Duration = Duration::from_mins(1);
/// How often the status is checked and notified while jobs run and succeed.
const NOTIFY_EVERY: Duration = Duration::from_mins(5);

/// One tick of the scheduler.
pub(super) struct Tick<'h> {
    app: &'h AppContext,
    options: &'h Options,
    states: JobStates,
    pool: Pool,
    rows: Vec<JobRunRow>,
    /// Jobs that are left alone until then.
    paused: BTreeMap<String, Instant>,
    /// What people have not been told yet.
    unreported: UnreportedRuns,
}

/// What has happened since the status was last checked.
struct UnreportedRuns {
    since: Instant,
    /// Some run has ended.
    ended: bool,
    /// Something that somebody should see at once.
    bad: bool,
}

impl UnreportedRuns {
    fn none() -> UnreportedRuns {
        UnreportedRuns { since: Instant::now(), ended: false, bad: false }
    }

    /// Whether it is time to tell it, which is then taken as done.
    fn is_due(&mut self) -> bool {
        let due = self.bad || (self.ended && self.since.elapsed() > NOTIFY_EVERY);
        if due {
            *self = UnreportedRuns::none();
        }
        due
    }
}

impl<'h> Tick<'h> {
    pub(super) fn new(app: &'h AppContext, options: &'h Options) -> Tick<'h> {
        Tick {
            app,
            options,
            states: JobStates::load(app),
            pool: Pool::default(),
            rows: Vec::new(),
            paused: BTreeMap::new(),
            unreported: UnreportedRuns::none(),
        }
    }

    /// Lets a job run whether it is due or not.
    pub(super) fn enqueue(&mut self, name: &str) {
        self.pool.waiting.insert(name.to_owned());
    }

    /// Looks which jobs are due; of those that seem to be, the stores are asked.
    pub(super) fn enqueue_due(&mut self, now: OffsetDateTime) {
        let Tick { app, states, pool, paused, .. } = self;
        let (mut asked, mut due) = (false, BTreeSet::new());
        paused.retain(|_, until| Instant::now() < *until);
        for job in app.settings.jobs.values() {
            let is_due = |states: &JobStates| matches!(states.due(app, job, now), Due::Since(_));
            let known = pool.is_taken(&job.name) || paused.contains_key(&job.name);
            if !job.enabled || known || !is_due(states) {
                continue;
            }
            states.note_first_seen(app, job, now);
            states.refresh(app, job, now);
            asked = true;
            if is_due(states) {
                due.insert(job.name.clone());
            }
        }
        let held = self.held_back(&due);
        for name in due {
            let job = self.app.settings.jobs.get(&name);
            if let Some((first, failed)) = held.get(&name) {
                self.report_waiting(&name, first, Some(*failed));
                continue;
            }
            // What the jobs before it did in this tick is over: none of them is failing now.
            for known in job.map(|job| job.after.iter()).into_iter().flatten().chain([&name]) {
                self.pool.finished.remove(known);
            }
            self.pool.waiting.insert(name);
        }
        if asked {
            self.states.save(self.app);
        }
    }

    /// Which of the jobs that are due wait because one that goes first failed and is not about to run
    /// again, or because that one waits itself; and when the run began that failed.
    fn held_back(&self, due: &BTreeSet<String>) -> BTreeMap<String, (String, OffsetDateTime)> {
        let jobs = &self.app.settings.jobs;
        let mut held = BTreeMap::<String, (String, OffsetDateTime)>::new();
        loop {
            let before = held.len();
            for job in due.iter().filter_map(|name| jobs.get(name)) {
                let keeps = |first: &String| {
                    let waits = held.get(first).map(|(_, failed)| *failed);
                    let comes = due.contains(first) || self.pool.is_taken(first);
                    let failed = || self.failed_since(first).filter(|_failed| !comes);
                    Some((first.clone(), waits.or_else(failed)?))
                };
                let found = job.after.iter().find_map(keeps);
                held.extend(found.map(|found| (job.name.clone(), found)));
            }
            if held.len() == before {
                return held;
            }
        }
    }

    /// When the last run of a job began, if it failed.
    fn failed_since(&self, name: &str) -> Option<OffsetDateTime> {
        let job = self.app.settings.jobs.get(name).filter(|job| job.enabled)?;
        let past = self.states.past(self.app, job);
        past.tried.filter(|_tried| past.failures > 0)
    }

    /// Says that a job waits, once for each failure of the one that goes first.
    fn report_waiting(&mut self, name: &str, first: &str, failed: Option<OffsetDateTime>) {
        let Some(job) = self.app.settings.jobs.get(name) else { return };
        if self.options.dry_run || self.states.waits(self.app, job, failed) {
            let why = format!("waiting for `{first}`, whose last run failed");
            self.push(JobRunRow::new(name.to_owned(), JobOutcome::Waits, Some(why)));
        }
    }

    /// Runs what waits, and what becomes due meanwhile, until nothing runs any more.
    pub(super) fn run_until_idle(&mut self) {
        let (sender, receiver) = mpsc::channel();
        let app = self.app;
        thread::scope(|scope| {
            let mut last_check = Instant::now();
            let mut notifier: Option<thread::ScopedJoinHandle<'_, ()>> = None;
            loop {
                for job in self.ready() {
                    let (sender, options): (Sender<_>, _) = (sender.clone(), self.options);
                    scope.spawn(move || {
                        // It is heard as long as anything runs.
                        let _heard = sender.send(job_run::run(app, job, options));
                    });
                }
                if self.pool.running.is_empty() {
                    break;
                }
                match receiver.recv_timeout(POLL_EVERY) {
                    Ok(end) => self.job_ended(end),
                    Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
                }
                if self.options.job.is_some() || last_check.elapsed() < TICK {
                    continue;
                }
                self.enqueue_due(app.ctx.now());
                last_check = Instant::now();
                // Telling people may take long, and holds nothing back.
                if notifier.as_ref().is_none_or(thread::ScopedJoinHandle::is_finished) {
                    let due = self.unreported.is_due();
                    notifier = Some(scope.spawn(move || {
                        // Whoever could not be told is told again, at the latest at the end.
                        let _unreported = notifications::notify_if_changed(app, due);
                    }));
                }
            }
        });
    }

    /// Takes the jobs that may start now.
    fn ready(&mut self) -> Vec<&'h JobSettings> {
        let app = self.app;
        let jobs = &app.settings.jobs;
        let mut ready = Vec::new();
        // Whoever ran longest ago comes first, so that nobody waits for ever.
        let mut waiting: Vec<String> = self.pool.waiting.iter().cloned().collect();
        let tried = |name: &String| jobs.get(name).and_then(|job| self.states.past(app, job).tried);
        waiting.sort_by_cached_key(tried);
        for name in waiting {
            let Some(job) = jobs.get(&name) else { continue };
            if app.ctx.cancel.check().is_err() {
                self.pool.waiting.clear();
                break;
            }
            let too_early = self.options.job.is_none() && self.states.too_early(app, job);
            match self.pool.start_decision(job, jobs, app.settings.upkeep.parallel) {
                StartDecision::Later => {}
                StartDecision::Now if too_early => {
                    let makes = |other: &&JobSettings| other.makes_for(job);
                    if !jobs.values().filter(makes).any(|other| self.pool.is_taken(&other.name)) {
                        // There is no first backup yet, and none is on its way.
                        self.pool.waiting.remove(&name);
                        self.pause(name);
                    }
                }
                StartDecision::Now => {
                    self.pool.waiting.remove(&name);
                    self.pool.running.insert(name);
                    ready.push(job);
                }
                StartDecision::Not(first, why) => {
                    self.pool.waiting.remove(&name);
                    self.pool.finished.insert(name.clone(), why);
                    match why {
                        JobEnd::Failed(failed) => self.report_waiting(&name, &first, failed),
                        JobEnd::Done | JobEnd::Busy => self.pause(name),
                    }
                }
            }
        }
        ready
    }

    fn pause(&mut self, name: String) {
        self.paused.insert(name, Instant::now() + BUSY_PAUSE);
    }

    fn job_ended(&mut self, end: job_run::FinishedRun) {
        let job_run::FinishedRun { row, record, on_record } = end;
        self.pool.running.remove(&row.job);
        let finished = match row.outcome {
            JobOutcome::Busy => JobEnd::Busy,
            JobOutcome::Failed => JobEnd::Failed(record.as_ref().map(|record| record.id.created())),
            JobOutcome::Due
            | JobOutcome::Done
            | JobOutcome::Partial
            | JobOutcome::Elsewhere
            | JobOutcome::Waits => JobEnd::Done,
        };
        self.pool.finished.insert(row.job.clone(), finished);
        if finished == JobEnd::Busy {
            self.pause(row.job.clone());
        }
        if let (Some(record), Some(job)) = (record, self.app.settings.jobs.get(&row.job)) {
            self.states.add(self.app, job, &record, &on_record);
            self.states.save(self.app);
        }
        self.push(row);
    }

    /// Adds to the report; what somebody should see is said at once.
    fn push(&mut self, row: JobRunRow) {
        if row.is_bad() && !self.options.dry_run {
            self.app.ctx.monitor.warn(&row.line());
        }
        self.unreported.ended = true;
        self.unreported.bad |= row.is_bad();
        self.rows.retain(|old| old.job != row.job || !old.is_passing());
        self.rows.push(row);
    }

    /// Reports what would run.
    pub(super) fn report_plan(mut self) -> anyhow::Result<Report> {
        let due = std::mem::take(&mut self.pool.waiting).into_iter();
        self.rows.extend(due.map(|name| JobRunRow::new(name, JobOutcome::Due, None)));
        self.report(None)
    }

    /// Tells people, and reports.
    pub(super) fn finish(self) -> anyhow::Result<Report> {
        let unreported = notifications::notify_if_changed(self.app, !self.rows.is_empty());
        self.report(unreported.then_some(Kind::Pending))
    }

    fn report(self, outcome: Option<Kind>) -> anyhow::Result<Report> {
        let now = self.app.ctx.now();
        let enabled = self.app.settings.jobs.values().filter(|job| job.enabled);
        let next = enabled.filter_map(|job| match self.states.due(self.app, job, now) {
            Due::At(at) => Some(NextRun { job: job.name.clone(), at }),
            Due::Since(at) => Some(NextRun { job: job.name.clone(), at: at.max(now) }),
            Due::Never => None,
        });
        let mut next: Vec<NextRun> = next.collect();
        next.sort_by_key(|next| next.at);
        let ran = RunReport { dry_run: self.options.dry_run, jobs: self.rows, next };
        let of_runs = ran.outcome(self.options.job.is_some()).filter(|_kind| !ran.dry_run);
        let report = Report::done("bkp.run/1", &ran, ran.render()?)?;
        Ok(report.with_outcome(of_runs.or(outcome)).routine())
    }
}
