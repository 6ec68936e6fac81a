//! `bkp status`: how jobs, backups and stores fare, for people, for monitoring and for Prometheus.

use std::fmt::Write as _;

use humansize::{BINARY, format_size};
use schemars::JsonSchema;
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

mod facts;
mod gaps;
mod look;
mod metrics;
mod words;

use self::look::Look;
use crate::cache;
use crate::domain::health::{Finding, Level, Space};
use crate::error::Kind;
use crate::ops::report::Report;
use crate::wire::House;

/// Who reads it may: the exporter runs as somebody else.
const METRICS_MODE: u32 = 0o644;

/// The stable shape `bkp.status/1`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Status {
    /// When this was found.
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub(super) at: OffsetDateTime,
    /// The worst of the findings; null if there is none.
    pub(super) health: Option<Level>,
    pub(super) findings: Vec<Finding>,
    pub(super) jobs: Vec<JobRow>,
    pub(super) sources: Vec<SourceRow>,
    pub(super) stores: Vec<StoreRow>,
    /// Events that wait for the ledger.
    pub(super) outbox: usize,
}

/// How a job fares.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct JobRow {
    job: String,
    command: String,
    source: Option<String>,
    /// When it runs: `every 6h`, or `daily at 03:00 UTC`.
    schedule: String,
    /// The level of a verification.
    #[serde(skip_serializing_if = "Option::is_none")]
    level: Option<String>,
    enabled: bool,
    /// When its last good run began.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    last_success: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339::option")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    last_run: Option<OffsetDateTime>,
    last_exit_code: Option<u8>,
    last_seconds: Option<u32>,
    /// Runs in a row that failed.
    failures: u32,
    #[serde(with = "time::serde::rfc3339::option")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    next: Option<OffsetDateTime>,
    /// Age of the last good run.
    age_seconds: Option<i64>,
    /// The age that is a warning.
    warning_seconds: i64,
    /// The age that breaks the promise.
    critical_seconds: i64,
    /// The worst that is wrong with it.
    health: Option<Level>,
}

/// The backups of a source in a store.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct SourceRow {
    source: String,
    store: String,
    backups: usize,
    full: usize,
    pinned: usize,
    #[serde(with = "time::serde::rfc3339::option")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    oldest: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339::option")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    newest: Option<OffsetDateTime>,
    stored_bytes: u64,
    /// When a job verified its backups here last, at any level, and found them well.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    last_verify: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339::option")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    last_drill: Option<OffsetDateTime>,
    /// What that drill measured: from the store to the restored engine's first answer.
    last_drill_rto_seconds: Option<f64>,
    /// What keeping them costs, in the currency of the prices.
    cost_per_month: f64,
    /// The same for what the retention of its jobs will hold a year from now.
    cost_per_month_in_a_year: f64,
}

/// How a store fares.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct StoreRow {
    store: String,
    /// Why it does not answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
    backups: usize,
    stored_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    quota_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    space: Option<Space>,
    storage_class: String,
    cost_per_month: f64,
}

impl Status {
    /// What is wrong, the worst first.
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// Names of the stores that do not answer: nothing is known of what is in them.
    pub fn away(&self) -> impl Iterator<Item = &str> + Clone {
        let away = self.stores.iter().filter(|row| row.problem.is_some());
        away.map(|row| row.store.as_str())
    }
}

impl StoreRow {
    fn away(store: String, why: String) -> StoreRow {
        StoreRow {
            store,
            problem: Some(why),
            backups: 0,
            stored_bytes: 0,
            quota_bytes: None,
            space: None,
            storage_class: String::new(),
            cost_per_month: 0.0,
        }
    }
}

/// Looks how everything fares, and writes the file for Prometheus if one is configured.
///
/// # Errors
/// [`Kind::Config`] if no store is configured. A store that does not answer is a finding; if any
/// finding is critical the outcome is [`Kind::Stale`].
pub fn run(house: &House) -> anyhow::Result<Report> {
    let status = look(house)?;
    write_metrics(house, &status);
    let outcome = (status.health == Some(Level::Critical)).then_some(Kind::Stale);
    let text = render(&status)?;
    Ok(Report::done("bkp.status/1", &status, text)?.with_outcome(outcome))
}

/// Looks how everything fares.
///
/// # Errors
/// As [`run`].
pub fn look(house: &House) -> anyhow::Result<Status> {
    let at = house.ctx.now();
    let Look { jobs, sources, stores, findings, outbox } = Look::take(house, at)?;
    let health = findings.iter().map(|finding| finding.level).max();
    Ok(Status { at, health, findings, jobs, sources, stores, outbox })
}

/// Writes the file for Prometheus, if one is configured; what fails is a warning.
pub fn write_metrics(house: &House, status: &Status) {
    let Some(path) = &house.settings.status.metrics_file else { return };
    if let Err(error) = cache::replace(path, metrics::text(status).as_bytes(), METRICS_MODE) {
        let why = format!("cannot write the metrics to {}: {error}", path.display());
        house.ctx.monitor.warn(&why);
    }
}

fn time(at: Option<OffsetDateTime>) -> anyhow::Result<String> {
    let text = at.map(|at| anyhow::Ok(at.replace_nanosecond(0)?.format(&Rfc3339)?)).transpose()?;
    Ok(text.unwrap_or_else(|| "never".to_owned()))
}

fn render(status: &Status) -> anyhow::Result<String> {
    let mut text = String::new();
    let width = |names: &mut dyn Iterator<Item = usize>| names.max().unwrap_or(0).max(8);
    let wide = width(&mut status.jobs.iter().map(|row| row.job.len()));
    if !status.jobs.is_empty() {
        writeln!(
            text,
            "{:<wide$}  {:<8}  {:<20}  {:<20}  SCHEDULE",
            "JOB", "HEALTH", "LAST GOOD", "NEXT"
        )?;
    }
    for row in &status.jobs {
        let health = match (row.enabled, row.health) {
            (false, _) => "off",
            (true, None | Some(Level::Info)) => "ok",
            (true, Some(level)) => level.as_str(),
        };
        let (last, next) = (time(row.last_success)?, time(row.next)?);
        let JobRow { job, schedule, .. } = row;
        writeln!(text, "{job:<wide$}  {health:<8}  {last:<20}  {next:<20}  {schedule}")?;
    }
    let wide = width(&mut status.sources.iter().map(|row| row.source.len()));
    if !status.sources.is_empty() {
        writeln!(
            text,
            "{:<wide$}  {:<8}  {:>7}  {:>10}  {:<20}  {:<20}  {:>8}  COST/MONTH, IN A YEAR",
            "SOURCE", "STORE", "BACKUPS", "STORED", "NEWEST", "LAST DRILL", "RTO"
        )?;
    }
    for row in &status.sources {
        let SourceRow { source, store, backups, .. } = row;
        let stored = format_size(row.stored_bytes, BINARY);
        let (newest, drill) = (time(row.newest)?, time(row.last_drill)?);
        let rto = row.last_drill_rto_seconds.map_or("-".to_owned(), |rto| format!("{rto:.1} s"));
        let (now, later) = (row.cost_per_month, row.cost_per_month_in_a_year);
        writeln!(
            text,
            "{source:<wide$}  {store:<8}  {backups:>7}  {stored:>10}  {newest:<20}  {drill:<20}  {rto:>8}  {now:.2}, {later:.2}"
        )?;
    }
    for finding in &status.findings {
        let Finding { level, rule, message, .. } = finding;
        writeln!(text, "{}: {}: {message} ({rule})", level.as_str(), finding.about())?;
    }
    if status.findings.iter().all(|finding| finding.level == Level::Info) {
        text.push_str("all is well\n");
    }
    Ok(text)
}
