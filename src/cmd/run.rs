//! `bkp run`: starts every job that is due, the scheduler's tick; or one job on demand.
//!
//! Whoever ticks, a timer or cron, may do so at any time and on any number of hosts: a job is due by
//! what the stores say of its past, and a lock and a lease keep its runs apart. As long as a job runs,
//! the tick goes on looking, so that a long run holds nothing back that may run beside it.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

mod around;
pub mod child;
mod news;
mod one;
pub mod pool;
pub mod state;

use self::pool::{Pool, Turn};
use self::state::States;
use super::Report;
use crate::config::settings::jobs::JobSettings;
use crate::domain::id::BackupId;
use crate::domain::schedule::Due;
use crate::error::{Fault, Kind};
use crate::exit;
use crate::wire::House;

/// How long the end of a run may go unnoticed by the others.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// How often it is looked what is due while something runs.
const TICK: Duration = Duration::from_secs(30);

/// What `bkp run` was asked for.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// This job, due or not; `None` for all that are due.
    pub job: Option<String>,
    /// Say what would run, and run nothing.
    pub dry_run: bool,
    /// How long to wait for another run of the same job.
    pub patience: Duration,
}

/// The stable shape `bkp.run/1`.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Ran {
    /// Nothing was run, only decided.
    dry_run: bool,
    /// What ran or should have, in the order in which it ended.
    jobs: Vec<Row>,
    /// What comes next.
    next: Vec<Next>,
}

/// What became of one job.
#[derive(Debug, Clone, Serialize, JsonSchema)]
struct Row {
    job: String,
    outcome: Outcome,
    /// The exit code of its run.
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<u8>,
    seconds: f64,
    /// The backup that it made.
    #[serde(skip_serializing_if = "Option::is_none")]
    backup: Option<BackupId>,
    /// Why it failed or did not run.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

/// How it went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    /// It would run.
    Due,
    /// It did what it should.
    Done,
    /// It did a part of it.
    Partial,
    /// It failed.
    Failed,
    /// Another run of it is going on.
    Busy,
    /// Another host has just run it.
    Elsewhere,
    /// A job that goes first failed.
    Waits,
}

/// When a job is due next.
#[derive(Debug, Serialize, JsonSchema)]
struct Next {
    job: String,
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String", extend("format" = "date-time"))]
    at: OffsetDateTime,
}

/// Runs what is due, or one job.
///
/// # Errors
/// [`Kind::NotFound`] for a job that is not configured; [`Kind::Busy`] if the one job that was asked
/// for runs already. What a run fails with is no error here: the report has it, and its outcome is that
/// of the run, or [`Kind::Partial`] if others did what they should.
pub fn run(house: &House, options: &Options) -> anyhow::Result<Report> {
    let jobs = &house.settings.jobs;
    let mut tick = Tick::new(house, options);
    if let Some(name) = &options.job {
        if !jobs.contains_key(name) {
            let known = jobs.keys().cloned().collect::<Vec<_>>().join(", ");
            let message = format!("no job `{name}` in the configuration");
            return Err(Fault::new(Kind::NotFound, message)
                .hint(format!("configured jobs: {known}"))
                .into());
        }
        tick.pool.waiting.insert(name.clone());
    } else {
        tick.look(house.ctx.now());
    }
    if options.dry_run {
        let due = |name: String| Row::new(name, Outcome::Due, None);
        tick.rows = std::mem::take(&mut tick.pool.waiting).into_iter().map(due).collect();
    } else if !tick.pool.waiting.is_empty() {
        tick.work();
    }
    house.ctx.cancel.check()?;
    let untold = !options.dry_run && news::spread(house, !tick.rows.is_empty());
    tick.report(untold)
}

/// One tick of the scheduler.
struct Tick<'h> {
    house: &'h House,
    options: &'h Options,
    states: States,
    pool: Pool,
    rows: Vec<Row>,
    /// Jobs that do not run again in this tick.
    left: BTreeSet<String>,
}

impl<'h> Tick<'h> {
    fn new(house: &'h House, options: &'h Options) -> Tick<'h> {
        Tick {
            house,
            options,
            states: States::kept(house),
            pool: Pool::default(),
            rows: Vec::new(),
            left: BTreeSet::new(),
        }
    }

    /// Looks which jobs are due; of those that seem to be, the stores are asked.
    fn look(&mut self, now: OffsetDateTime) {
        let Tick { house, states, pool, left, rows, .. } = self;
        let (mut asked, mut due) = (false, BTreeSet::new());
        for job in house.settings.jobs.values() {
            let known = [&pool.waiting, &pool.running, &*left];
            let is_due = |states: &States| matches!(states.due(house, job, now), Due::Since(_));
            if !job.enabled || known.iter().any(|set| set.contains(&job.name)) || !is_due(states) {
                continue;
            }
            states.refresh(house, job, now);
            asked = true;
            if is_due(states) {
                due.insert(job.name.clone());
            }
        }
        for name in &due {
            let failing = |other: &&String| {
                let other = house.settings.jobs.get(*other).filter(|job| job.enabled);
                other.is_some_and(|job| states.past(house, job).failures > 0)
            };
            let after = house.settings.jobs.get(name).map(|job| job.after.as_slice());
            let mut first = after.unwrap_or_default().iter().filter(|other| !due.contains(*other));
            if let Some(first) = first.find(failing) {
                let why = format!("it comes after `{first}`, whose last run failed");
                rows.push(Row::new(name.clone(), Outcome::Waits, Some(why)));
                left.insert(name.clone());
            } else {
                pool.over.remove(name);
                pool.waiting.insert(name.clone());
            }
        }
        if asked {
            states.save(house);
        }
    }

    /// Runs what waits, and what becomes due meanwhile, until nothing runs any more.
    fn work(&mut self) {
        let (tell, told) = mpsc::channel();
        let house = self.house;
        thread::scope(|scope| {
            let mut looked = Instant::now();
            loop {
                for job in self.ready() {
                    let (tell, options): (Sender<_>, _) = (tell.clone(), self.options);
                    scope.spawn(move || {
                        // It is heard as long as anything runs.
                        let _heard = tell.send(one::run(house, job, options));
                    });
                }
                if self.pool.running.is_empty() {
                    break;
                }
                match told.recv_timeout(LOOK_AGAIN) {
                    Ok(end) => self.ended(end),
                    Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
                }
                if self.options.job.is_none() && looked.elapsed() > TICK {
                    self.look(house.ctx.now());
                    looked = Instant::now();
                }
            }
        });
    }

    /// Takes the jobs that may start now.
    fn ready(&mut self) -> Vec<&'h JobSettings> {
        let jobs = &self.house.settings.jobs;
        let mut ready = Vec::new();
        // Whoever ran longest ago comes first, so that nobody waits for ever.
        let mut waiting: Vec<String> = self.pool.waiting.iter().cloned().collect();
        let tried =
            |name: &String| jobs.get(name).and_then(|job| self.states.past(self.house, job).tried);
        waiting.sort_by_cached_key(tried);
        for name in waiting {
            let Some(job) = jobs.get(&name) else { continue };
            if self.house.ctx.cancel.check().is_err() {
                self.pool.waiting.clear();
                break;
            }
            match self.pool.turn(job, jobs, self.house.settings.upkeep.parallel) {
                Turn::Later => {}
                Turn::Now => {
                    self.pool.waiting.remove(&name);
                    self.pool.running.insert(name);
                    ready.push(job);
                }
                Turn::Not(first) => {
                    self.pool.waiting.remove(&name);
                    self.pool.over.insert(name.clone(), false);
                    self.left.insert(name.clone());
                    let why = format!("it comes after `{first}`, which failed");
                    self.rows.push(Row::new(name, Outcome::Waits, Some(why)));
                }
            }
        }
        ready
    }

    fn ended(&mut self, end: one::End) {
        let one::End { row, record } = end;
        let good = matches!(row.outcome, Outcome::Done | Outcome::Partial | Outcome::Elsewhere);
        self.pool.running.remove(&row.job);
        self.pool.over.insert(row.job.clone(), good);
        if matches!(row.outcome, Outcome::Busy | Outcome::Elsewhere) {
            self.left.insert(row.job.clone());
        }
        if let (Some(record), Some(job)) = (record, self.house.settings.jobs.get(&row.job)) {
            self.states.add(self.house, job, &record, self.house.ctx.now());
            self.states.save(self.house);
        }
        self.rows.push(row);
    }

    fn report(self, untold: bool) -> anyhow::Result<Report> {
        let now = self.house.ctx.now();
        let enabled = self.house.settings.jobs.values().filter(|job| job.enabled);
        let next = enabled.filter_map(|job| match self.states.due(self.house, job, now) {
            Due::At(at) => Some(Next { job: job.name.clone(), at }),
            Due::Since(at) => Some(Next { job: job.name.clone(), at: at.max(now) }),
            Due::Never => None,
        });
        let mut next: Vec<Next> = next.collect();
        next.sort_by_key(|next| next.at);
        let outcome = outcome(&self.rows, self.options.job.is_some());
        let outcome = outcome.or(untold.then_some(Kind::Pending));
        let ran = Ran { dry_run: self.options.dry_run, jobs: self.rows, next };
        let text = render(&ran)?;
        Ok(Report::done("bkp.run/1", &ran, text)?.with_outcome(outcome))
    }
}

impl Row {
    fn new(job: String, outcome: Outcome, message: Option<String>) -> Row {
        Row { job, outcome, exit_code: None, seconds: 0.0, backup: None, message }
    }

    /// What its run ended with; `None` if that was well.
    fn kind(&self) -> Option<Kind> {
        let code = self.exit_code?;
        let found = Kind::ALL.into_iter().find(|kind| exit::code(*kind) == code);
        if code == exit::DONE { None } else { found.or(Some(Kind::Failed)) }
    }
}

/// What the tick ends with. That a job runs already is well, unless it was asked for by name.
fn outcome(rows: &[Row], by_name: bool) -> Option<Kind> {
    let counts = |row: &&Row| by_name || row.outcome != Outcome::Busy;
    let kinds: Vec<Option<Kind>> = rows.iter().filter(counts).map(Row::kind).collect();
    let bad = kinds.iter().flatten().next().copied();
    if kinds.contains(&None) && bad.is_some() && kinds.len() > 1 {
        Some(Kind::Partial)
    } else {
        bad
    }
}

fn render(ran: &Ran) -> anyhow::Result<String> {
    let mut text = String::new();
    for row in &ran.jobs {
        let verb = match row.outcome {
            Outcome::Due => "is due",
            Outcome::Done => "done",
            Outcome::Partial => "done in part",
            Outcome::Failed => "FAILED",
            Outcome::Busy => "runs already",
            Outcome::Elsewhere => "was run by another host",
            Outcome::Waits => "did not run",
        };
        write!(text, "{}: {verb}", row.job)?;
        if let Some(code) = row.exit_code {
            write!(text, ", exit code {code}, {:.1} s", row.seconds)?;
        }
        let message = row.message.as_ref().map(|message| format!(": {message}"));
        writeln!(text, "{}", message.unwrap_or_default())?;
    }
    if ran.jobs.is_empty() {
        text.push_str("nothing is due");
        match ran.next.first() {
            Some(Next { job, at }) => {
                writeln!(text, "; next is {job} at {}", at.format(&Rfc3339)?)?;
            }
            None => text.push('\n'),
        }
    }
    Ok(text)
}
