//! `bkp list --runs`: the runs recorded in a store: of jobs, manual ones, and those in progress.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Read as _;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use time::format_description::well_known::Rfc3339;
use time::{Date, Duration, OffsetDateTime};

use super::list::Window;
use crate::catalog::table;
use crate::concurrent;
use crate::domain::id::BackupId;
use crate::domain::record::{self, Record, RunOutcome};
use crate::ledger::in_store;
use crate::ops::authenticity;
use crate::ops::authenticity::{ProofChecker, RECORD};
use crate::ops::jobs::state::JobStates;
use crate::ops::report::Report;
use crate::ops::{audit, records};
use crate::store::ReadStore;
use crate::wire::AppContext;

/// Largest record that is read, bytes.
const BYTES_MAX: u64 = 64 << 10;
/// How many runs are listed where nothing else is wanted, the newest.
const LIMIT: usize = 100;
/// How many failed runs the table of backups has at most, the newest.
const FAILED_MAX: usize = 1000;
/// How far back it is looked for what was done by hand, if no beginning is given.
const BACK: Duration = Duration::days(62);
/// What is done by hand is on record under these words.
const BY_HAND: [&str; 4] = ["failed", "skipped", "restored", "verified"];

/// What `bkp list --runs` was asked for.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Only runs about this source.
    pub source: Option<String>,
    /// Only runs of this job.
    pub job: Option<String>,
    /// Only runs that failed.
    pub failed: bool,
    /// Only runs that began then, and how many.
    pub window: Window,
}

/// The stable shape `bkp.list-runs/1`.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Listing {
    /// URL of the store.
    store: String,
    /// Oldest first; with `--limit` newest first.
    runs: Vec<RunRow>,
}

/// A run.
#[derive(Debug, Serialize, JsonSchema)]
struct RunRow {
    id: BackupId,
    /// `started`, `completed`, `partial`, `failed`, `skipped`, `restored` or `verified`.
    status: &'static str,
    job: Option<String>,
    source: Option<String>,
    /// The command, without its flags.
    command: Option<String>,
    host: Option<String>,
    /// Who ran it.
    user: Option<String>,
    /// `scheduled` or `manual`.
    trigger: Option<String>,
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String", extend("format" = "date-time"))]
    started: OffsetDateTime,
    seconds: Option<f64>,
    exit_code: Option<u8>,
    /// The backup that it made, verified or restored.
    backup: Option<BackupId>,
    /// Why it failed.
    message: Option<String>,
    /// What a drill measured.
    rto_seconds: Option<f64>,
    /// Whether this host ran it, or a key at hand proves the record; others do not count.
    proven: bool,
}

/// What a record says; of one that was planted perhaps nothing.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RunRecordBody {
    job: Option<String>,
    source: Option<String>,
    command: Vec<String>,
    host: Option<String>,
    user: Option<String>,
    trigger: Option<String>,
    seconds: Option<f64>,
    exit_code: Option<u8>,
    backup: Option<BackupId>,
    message: Option<String>,
    why: Option<String>,
    rto_seconds: Option<f64>,
}

/// What a key says of a run.
struct RecordedRun {
    key: String,
    id: BackupId,
    at: OffsetDateTime,
    /// Of a job's run.
    record: Option<Record>,
    what: &'static str,
}

/// Lists the runs that a store knows of.
///
/// # Errors
/// What the store fails with.
pub fn run(app: &AppContext, options: &Options) -> anyhow::Result<Report> {
    let settings = options.source.as_ref().and_then(|name| app.settings.sources.get(name));
    let store = app.store_read(settings)?;
    let mut known = of_jobs(&*store, options)?;
    known.extend(by_hand(&*store, options, app.ctx.now())?);
    known.retain(|run| options.window.holds(run.at) && (!options.failed || run.what == "failed"));
    known.sort_by_key(|run| (run.at, run.id));
    let limit = options.window.limit.unwrap_or(LIMIT);
    let (keys, states) = (authenticity::keys(app), JobStates::load(app));
    let proof_checker = ProofChecker::new(&*store, &keys, &app.ctx);
    let is_own = |run: &&RecordedRun| {
        let job = run.record.as_ref().and_then(|record| app.settings.jobs.get(&record.job));
        job.is_some_and(|job| states.is_own(app, job, &run.key))
    };
    let own: BTreeSet<String> = known.iter().filter(is_own).map(|run| run.key.clone()).collect();
    let read = |run: &RecordedRun| Ok(row(app, (&*store, &proof_checker), &own, run));
    let is_wanted = |row: &RunRow| {
        let about = |wanted: &Option<String>, found: &Option<String>| {
            wanted.as_ref().is_none_or(|wanted| found.as_ref() == Some(wanted))
        };
        about(&options.job, &row.job) && about(&options.source, &row.source)
    };
    // What the record of a job says as well is no row of its own, so more may have to be read.
    let mut rows: Vec<RunRow> = Vec::new();
    while rows.len() < limit && !known.is_empty() {
        let newest = known.split_off(known.len().saturating_sub(limit - rows.len()));
        let read = concurrent::each(&newest, &app.ctx.cancel, read)?;
        rows.splice(..0, read.into_iter().flatten().filter(is_wanted));
    }
    if !options.failed {
        rows.extend(running(&*store, app.ctx.now())?.into_iter().filter(is_wanted));
    }
    let runs = options.window.newest(rows);
    let text = render(&runs)?;
    let listing = Listing { store: store.url().to_owned(), runs };
    Report::done("bkp.list-runs/1", &listing, text)
}

/// The runs of jobs.
fn of_jobs(store: &dyn ReadStore, options: &Options) -> anyhow::Result<Vec<RecordedRun>> {
    let folder = match &options.job {
        Some(job) => format!("{}/{job}", record::FOLDER),
        None => record::FOLDER.to_owned(),
    };
    let known = records::below(store, &folder)?.into_iter().map(|record| RecordedRun {
        key: record.key(),
        id: record.id,
        at: record.id.created(),
        what: match record.outcome() {
            RunOutcome::Good => "completed",
            RunOutcome::Partial => "partial",
            RunOutcome::Skipped => "skipped",
            RunOutcome::Failed => "failed",
        },
        record: Some(record),
    });
    Ok(known.collect())
}

/// What was done without a job.
fn by_hand(
    store: &dyn ReadStore,
    options: &Options,
    now: OffsetDateTime,
) -> anyhow::Result<Vec<RecordedRun>> {
    if options.job.is_some() {
        return Ok(Vec::new());
    }
    let last = options.window.until.unwrap_or(now).min(now).date();
    let first = options.window.since.unwrap_or(now.saturating_sub(BACK)).date();
    let begins = |day: Date| day.replace_day(1).unwrap_or(day);
    let months = std::iter::successors(Some(begins(last)), |day| day.previous_day().map(begins));
    let mut found = Vec::new();
    for month in months.take_while(|month| *month >= begins(first)) {
        for object in store.list(&audit::month(month))? {
            found.extend(of_key(object?.key));
        }
    }
    Ok(found)
}

/// The runs that made no backup, of the last months, as rows of the table `backup_metadata`.
///
/// # Errors
/// What the store fails with.
pub(super) fn failed(
    app: &AppContext,
    store: &dyn ReadStore,
    source: Option<&str>,
) -> anyhow::Result<Vec<table::CatalogRow>> {
    let mut known = by_hand(store, &Options::default(), app.ctx.now())?;
    known.retain(|run| run.what == "failed");
    known.sort_by_key(|run| (run.at, run.id));
    let known = known.split_off(known.len().saturating_sub(FAILED_MAX));
    let time = |time: OffsetDateTime| time.format(&Rfc3339);
    let read = |run: &RecordedRun| -> anyhow::Result<table::CatalogRow> {
        let body = body(store, &run.key).1;
        let took = Duration::seconds_f64(body.seconds.unwrap_or(0.0).clamp(0.0, 1e9));
        let of_source = body.source.as_ref().and_then(|name| app.settings.sources.get(name));
        Ok(table::CatalogRow {
            id: run.id.to_string(),
            backup_type: of_source.map(|of| of.backup_type.to_string()).unwrap_or_default(),
            start_time: time(run.at)?,
            end_time: time(run.at.saturating_add(took))?,
            status: run.what.to_owned(),
            backup_location: crate::store::location(store.url(), &run.key),
            source: body.source.unwrap_or_default(),
            ..table::CatalogRow::default()
        })
    };
    let mut rows = concurrent::each(&known, &app.ctx.cancel, read)?;
    rows.retain(|row| source.is_none_or(|source| source == row.source));
    Ok(rows)
}

/// `audit/<YYYY>/<MM>/<DD>/<what>-<id>-<hhmmss>.json`
fn of_key(key: String) -> Option<RecordedRun> {
    let name = key.rsplit('/').next()?.strip_suffix(".json")?;
    let (what, rest) = name.split_once('-')?;
    let what = BY_HAND.into_iter().find(|word| *word == what)?;
    let (id, time) = rest.rsplit_once('-')?;
    let id: BackupId = id.parse().ok()?;
    let mut parts = key.split('/').skip(1).map(str::parse::<i32>);
    let (year, month, day) = (parts.next()?.ok()?, parts.next()?.ok()?, parts.next()?.ok()?);
    let month = time::Month::try_from(u8::try_from(month).ok()?).ok()?;
    let date = Date::from_calendar_date(year, month, u8::try_from(day).ok()?).ok()?;
    let two = |at: usize| time.get(at..at + 2)?.parse().ok();
    let at = date.with_hms(two(0)?, two(2)?, two(4)?).ok()?.assume_utc();
    // Of a run that made no backup the id is its own.
    let at = if matches!(what, "failed" | "skipped") { id.created() } else { at };
    Some(RecordedRun { key, id, at, record: None, what })
}

/// A run with what its record says; nothing if the run of a job says the same.
fn row(
    app: &AppContext,
    (store, proof_checker): (&dyn ReadStore, &ProofChecker<'_>),
    own: &BTreeSet<String>,
    run: &RecordedRun,
) -> Option<RunRow> {
    let (bytes, body) = body(store, &run.key);
    if run.record.is_none() && body.job.is_some() {
        return None;
    }
    let job = run.record.as_ref().map(|record| record.job.clone());
    let settings = job.as_ref().and_then(|job| app.settings.jobs.get(job));
    let command = body.command.first().cloned();
    let is_verify = run.what == "completed" && command.as_deref() == Some("verify");
    let seconds = run.record.as_ref().map(|record| f64::from(record.seconds)).or(body.seconds);
    let is_about = matches!(run.what, "restored" | "verified").then_some(run.id);
    // What was restored or verified is on record under the time of its end.
    let took = is_about.and(seconds).unwrap_or(0.0).clamp(0.0, 1e9);
    let took = Duration::seconds_f64(took);
    let code = run.record.as_ref().map(|record| record.code).or(body.exit_code);
    // A restore or a verification that failed is on record under what it should have been.
    let is_failed = run.record.is_none() && !matches!(code, None | Some(0 | 3 | 11 | 17 | 75));
    Some(RunRow {
        id: run.id,
        status: match (is_verify, is_failed) {
            (true, _) => "verified",
            (false, true) => "failed",
            (false, false) => run.what,
        },
        job,
        source: body.source.or_else(|| settings.and_then(|job| job.source.clone())),
        command,
        host: body.host,
        user: body.user,
        trigger: body.trigger,
        started: run.at.saturating_sub(took),
        seconds,
        exit_code: code,
        backup: is_about.or(body.backup.filter(|_id| run.record.is_some())),
        message: body.message.or(body.why),
        rto_seconds: body.rto_seconds,
        proven: own.contains(&run.key) || proof_checker.proven(RECORD, &run.key, &bytes).is_some(),
    })
}

/// What the drill of a run measured, by its record.
pub(super) fn rto_seconds(store: &dyn ReadStore, key: &str) -> Option<f64> {
    body(store, key).1.rto_seconds
}

/// The bytes of a record, and what they say.
fn body(store: &dyn ReadStore, key: &str) -> (Vec<u8>, RunRecordBody) {
    let mut bytes = Vec::new();
    let read = store.open(key, None).ok().map(|input| input.take(BYTES_MAX));
    let _whole_or_not = read.map(|mut input| input.read_to_end(&mut bytes));
    let body = serde_json::from_slice(&bytes).unwrap_or_default();
    (bytes, body)
}

/// What goes on now, by the leases.
fn running(store: &dyn ReadStore, now: OffsetDateTime) -> anyhow::Result<Vec<RunRow>> {
    let rows = in_store::running(store, now)?.into_iter().map(|(name, id, host)| {
        let job = name.strip_suffix(".job").map(str::to_owned);
        RunRow {
            id,
            status: "started",
            source: Some(name).filter(|_name| job.is_none()),
            job,
            command: None,
            host: Some(host),
            user: None,
            trigger: None,
            started: id.created(),
            seconds: None,
            exit_code: None,
            backup: None,
            message: None,
            rto_seconds: None,
            proven: false,
        }
    });
    Ok(rows.collect())
}

fn render(rows: &[RunRow]) -> anyhow::Result<String> {
    if rows.is_empty() {
        return Ok("no runs\n".to_owned());
    }
    let mut text = String::new();
    writeln!(
        text,
        "{:<20}  {:<9}  {:>4}  {:<16}  {:<16}  {:<9}  {:<8}  MESSAGE",
        "STARTED", "STATUS", "CODE", "JOB", "SOURCE", "TRIGGER", "USER"
    )?;
    let shown = |text: &Option<String>| text.clone().unwrap_or_default().replace(['\n', '\t'], " ");
    for row in rows {
        let started = row.started.replace_nanosecond(0)?.format(&Rfc3339)?;
        let code = row.exit_code.map(|code| code.to_string()).unwrap_or_default();
        let (job, source) = (shown(&row.job), shown(&row.source));
        let (trigger, user, message) = (shown(&row.trigger), shown(&row.user), shown(&row.message));
        let unproven = if row.proven || row.status == "started" { "" } else { "not proven; " };
        let status = row.status;
        let line = format!(
            "{started:<20}  {status:<9}  {code:>4}  {job:<16}  {source:<16}  {trigger:<9}  {user:<8}  {unproven}{message}"
        );
        writeln!(text, "{}", line.trim_end())?;
    }
    Ok(text)
}
