//! The audit trail of a store: small objects that are only ever added.
//!
//! ```text
//! audit/<YYYY>/<MM>/<DD>/<what>-<backup id>-<hhmmss>.json
//! ```

use serde::Serialize;
use serde_json::Value;
use time::{Date, OffsetDateTime};

use crate::ctx::{host, user};
use crate::domain::event::Status;
use crate::domain::id::BackupId;
use crate::domain::manifest::Trigger;
use crate::error::{Kind, diagnose};
use crate::exit;
use crate::ledger::LedgerError;
use crate::ops::authenticity;
use crate::ops::authenticity::{ProofChecker, RECORD};
use crate::ops::jobs::witness::witnesses;
use crate::ops::report::Report;
use crate::ops::{ledger_events, records};
use crate::store::{AppendStore, Role};
use crate::wire::AppContext;

/// The key prefix of audit records.
pub const FOLDER: &str = "audit";

/// What such an object says, schema `bkp.audit/1`.
#[derive(Debug, Serialize)]
struct AuditEntry<'a, T> {
    schema: &'static str,
    what: &'a str,
    #[serde(with = "time::serde::rfc3339")]
    at: OffsetDateTime,
    backup: BackupId,
    host: String,
    process: u32,
    user: String,
    /// Why it was done: `scheduled` or `manual`.
    trigger: Trigger,
    #[serde(skip_serializing_if = "Option::is_none")]
    job: Option<&'a str>,
    #[serde(flatten)]
    more: &'a T,
}

/// The folder of the month of a day.
#[must_use]
pub fn month(day: Date) -> String {
    format!("{FOLDER}/{:04}/{:02}", day.year(), u8::from(day.month()))
}

/// The key of what was done at a time. `what` is one word of lower-case letters.
#[must_use]
pub fn key(what: &str, backup: BackupId, at: OffsetDateTime) -> String {
    let (hour, minute, second) = at.to_hms();
    let time = format!("{hour:02}{minute:02}{second:02}");
    format!("{}/{:02}/{what}-{backup}-{time}.json", month(at.date()), at.day())
}

/// Adds what was done to a backup, or to a source; `more` is what else there is to say. It is proven by
/// that backup, or a recent one of the source, if a key at hand opens one.
///
/// # Errors
/// What the store fails with.
fn add(
    app: &AppContext,
    store: &dyn AppendStore,
    (what, backup, source): (&str, BackupId, Option<&str>),
    more: &impl Serialize,
) -> anyhow::Result<()> {
    let at = app.ctx.now();
    let settings = &app.settings;
    let line = AuditEntry {
        schema: "bkp.audit/1",
        what,
        at,
        backup,
        host: host(),
        process: std::process::id(),
        user: user(),
        trigger: settings.started_by.trigger,
        job: settings.started_by.job.as_deref(),
        more,
    };
    let (key, keys) = (key(what, backup, at), authenticity::keys(app));
    let by = witnesses(app, store, source, Some(backup));
    let object = ProofChecker::new(store, &keys, &app.ctx).object(RECORD, &key, &line, by)?;
    Ok(records::add_bytes(store, (&key, Role::Index), &object)?)
}

/// What is kept of a restore, a verification, or a run that made no backup.
#[derive(Debug, Default, Serialize)]
struct AuditDetails<'a> {
    source: Option<&'a str>,
    exit_code: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds: Option<f64>,
    /// The level of a verification.
    #[serde(skip_serializing_if = "Option::is_none")]
    level: Option<&'a str>,
    /// What a drill measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    rto_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

/// What the drill of a report measured, of the last one if it is about several: seconds from the store to
/// the restored engine's first answer.
pub(crate) fn rto_seconds(report: &Value) -> Option<f64> {
    let all = report.get("backups").and_then(Value::as_array);
    let one = all.and_then(|all| all.last()).unwrap_or(report);
    one.pointer("/drill/rto_seconds").and_then(Value::as_f64)
}

/// Adds that something was done with a backup, or that it failed, to the store that it was read from, as
/// far as this host may write there, and to the ledger. A report says which backup, or it was about many:
/// then the last of them stands for all.
pub fn record_outcome(
    app: &AppContext,
    (what, status): (&str, Status),
    source: Option<&str>,
    ended: &anyhow::Result<Report>,
) {
    match ended {
        Ok(report) => {
            let all = report.value.get("backups").and_then(Value::as_array);
            let one = all.and_then(|all| all.last()).unwrap_or(&report.value);
            let text = |name: &str| one.get(name).and_then(Value::as_str);
            if report.value.get("store").is_none() {
                return;
            }
            let id = text("id").or_else(|| text("base")).and_then(|id| id.parse().ok());
            let source = source.or_else(|| text("source"));
            let ended = AuditDetails {
                source,
                exit_code: report.outcome.map_or(0, exit::code),
                seconds: one.get("seconds").and_then(Value::as_f64),
                level: text("level"),
                rto_seconds: rto_seconds(&report.value),
                why: None,
            };
            // One about many has an id of its own: it is no line about the last of them.
            line(app, (what, id.filter(|_| all.is_none()), source), &ended);
            // What was not found as it should be is not verified.
            let is_done = report.outcome.is_none() || status == Status::Restored;
            if let (Some(id), Some(source), true) = (id, source, is_done) {
                ledger_events::record_read(app, (status, id, source), ended.seconds.unwrap_or(0.0));
            }
        }
        Err(error) => {
            // What never came to a backup says nothing of any.
            let kind = diagnose(error).kind;
            if !matches!(kind, Kind::Integrity | Kind::Failed | Kind::Source | Kind::Key) {
                return;
            }
            let (exit_code, why) = (exit::code(kind), Some(format!("{error:#}")));
            line(
                app,
                (what, None, source),
                &AuditDetails { source, exit_code, why, ..AuditDetails::default() },
            );
        }
    }
}

/// Adds that a run of `source` made no backup: it failed, or did not begin since another one was at it.
pub fn no_backup(app: &AppContext, source: &str, began: OffsetDateTime, error: &anyhow::Error) {
    let settings = app.settings.sources.get(source);
    let (id, kind) = (BackupId::new(began), diagnose(error).kind);
    // One that was fenced had begun.
    let is_fenced = matches!(error.downcast_ref(), Some(LedgerError::Fenced { .. }));
    let what = if kind == Kind::Busy && !is_fenced { "skipped" } else { "failed" };
    let ended = AuditDetails {
        source: Some(source),
        exit_code: exit::code(kind),
        seconds: Some((app.ctx.now() - began).as_seconds_f64()),
        why: Some(format!("{error:#}")),
        ..AuditDetails::default()
    };
    // Without a store in the configuration there is none to put it into.
    if settings.is_none() {
        return;
    }
    match app.stores_append(settings) {
        Ok(mirrored) => {
            for (_, store) in mirrored.stores() {
                add_or_warn(app, &**store, (what, id, Some(source)), &ended);
            }
        }
        Err(error) => not_on_record(app, what, "the store", &error),
    }
}

/// Adds a line to the store that a command on `source` reads from.
fn line(
    app: &AppContext,
    (what, id, source): (&str, Option<BackupId>, Option<&str>),
    ended: &AuditDetails<'_>,
) {
    if app.settings.store_at.is_some() {
        // The store is only read, and who overwrote it yesterday may do so again.
        app.ctx.monitor.detail(&format!("no audit record `{what}`: the store is only read"));
        return;
    }
    let id = id.unwrap_or_else(|| BackupId::new(app.ctx.now()));
    let settings = source.and_then(|name| app.settings.sources.get(name));
    match app.store_read_and_note(settings) {
        Ok(store) => add_or_warn(app, &*store, (what, id, source), ended),
        Err(error) => not_on_record(app, what, "the store", &error),
    }
}

fn add_or_warn(
    app: &AppContext,
    store: &dyn AppendStore,
    of: (&str, BackupId, Option<&str>),
    ended: &AuditDetails<'_>,
) {
    if let Err(error) = add(app, store, of, ended) {
        not_on_record(app, of.0, store.url(), &error);
    }
}

/// Says that what was done is not on record. It was done all the same.
pub(crate) fn not_on_record(app: &AppContext, what: &str, store: &str, error: &anyhow::Error) {
    let why = format!("{store}: cannot write the audit record `{what}`: {error:#}");
    app.ctx.monitor.warn(&format!("{why}; {}", diagnose(error).hint));
}
