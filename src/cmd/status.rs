//! `bkp status`: the health of jobs, backups and stores, for people, monitoring and Prometheus.

use std::fmt::Write as _;

use humansize::{BINARY, format_size};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

mod annotation_summary;
mod facts;
mod gaps;
mod gather;
mod metrics;
mod rows;

pub use self::rows::Status;
use self::rows::{JobRow, LogRow, SourceRow};
use crate::cache;
use crate::cmd::status::gather::StatusFacts;
use crate::domain::cost;
use crate::domain::health::{Finding, Level};
use crate::error::Kind;
use crate::ops::report::Report;
use crate::wire::AppContext;

/// Who reads it may: the exporter runs as somebody else.
const METRICS_MODE: u32 = 0o644;

/// Gathers the status, and writes the file for Prometheus if one is configured.
///
/// # Errors
/// [`Kind::Config`] if no store is configured. A store that does not answer is a finding; if any
/// finding is critical the outcome is [`Kind::Stale`].
pub fn run(app: &AppContext) -> anyhow::Result<Report> {
    let status = collect(app)?;
    write_metrics(app, &status);
    let outcome = (status.health == Some(Level::Critical)).then_some(Kind::Stale);
    let text = render(&status)?;
    Ok(Report::done("bkp.status/1", &status, text)?.with_outcome(outcome))
}

/// Gathers the status.
///
/// # Errors
/// As [`run`].
pub fn collect(app: &AppContext) -> anyhow::Result<Status> {
    let at = app.ctx.now();
    let StatusFacts { jobs, sources, logs, stores, findings, outbox } =
        StatusFacts::collect(app, at)?;
    let health = findings.iter().map(|finding| finding.level).max();
    let prices_of = cost::PRICES_OF;
    Ok(Status { at, health, findings, jobs, sources, logs, stores, prices_of, outbox })
}

/// Writes the file for Prometheus, if one is configured; what fails is a warning.
pub fn write_metrics(app: &AppContext, status: &Status) {
    let Some(path) = &app.settings.status.metrics_file else { return };
    if let Err(error) = cache::replace(path, metrics::text(status).as_bytes(), METRICS_MODE) {
        let why = format!("cannot write the metrics to {}: {error}", path.display());
        app.ctx.monitor.warn(&why);
    }
}

fn time(at: Option<OffsetDateTime>) -> anyhow::Result<String> {
    let text = at.map(|at| anyhow::Ok(at.replace_nanosecond(0)?.format(&Rfc3339)?)).transpose()?;
    Ok(text.unwrap_or_else(|| "never".to_owned()))
}

/// What colder classes cost besides storage.
fn fees(text: &mut String, status: &Status) -> std::fmt::Result {
    for row in &status.sources {
        let SourceRow { source, store, .. } = row;
        let (terms, retrieval) = (row.cost_of_minimum_terms, row.cost_of_retrieval);
        if terms.max(retrieval) > 0.0 {
            writeln!(
                text,
                "{source} in {store}: reading everything costs {retrieval:.2} in fees, removing it now {terms:.2} for minimum terms (prices of {})",
                status.prices_of
            )?;
        }
    }
    Ok(())
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
    fees(&mut text, status)?;
    if !status.logs.is_empty() {
        writeln!(
            text,
            "{:<wide$}  {:>10}  {:>7}  {:>8}  FAILURES",
            "LOG", "BEHIND", "WAITING", "OLDEST"
        )?;
    }
    for LogRow { source, lag } in &status.logs {
        let behind = lag.bytes.map_or("-".to_owned(), |bytes| format_size(bytes, BINARY));
        let number =
            |number: Option<u64>| number.map_or("-".to_owned(), |number| number.to_string());
        let oldest = lag.seconds.map_or("-".to_owned(), |seconds| format!("{seconds} s"));
        let (waiting, failures) = (number(lag.waiting), number(lag.failures));
        writeln!(text, "{source:<wide$}  {behind:>10}  {waiting:>7}  {oldest:>8}  {failures}")?;
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
