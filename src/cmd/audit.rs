//! What the store keeps of what was done to it and with it: small objects that are only ever added.
//!
//! ```text
//! audit/<YYYY>/<MM>/<DD>/<what>-<backup id>-<hhmmss>.json
//! ```

use serde::Serialize;
use time::{Date, OffsetDateTime};

use super::Report;
use super::journal;
use crate::ctx::host;
use crate::domain::id::BackupId;
use crate::error::{Kind, diagnose};
use crate::exit;
use crate::store::{AppendStore, Role};
use crate::wire::House;

/// Where it is.
pub const FOLDER: &str = "audit";

/// What such an object says, schema `bkp.audit/1`.
#[derive(Debug, Serialize)]
struct Line<'a, T> {
    schema: &'static str,
    what: &'a str,
    #[serde(with = "time::serde::rfc3339")]
    at: OffsetDateTime,
    backup: BackupId,
    host: String,
    process: u32,
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

/// Adds what was done to a backup; `more` is what else there is to say.
///
/// # Errors
/// What the store fails with.
pub fn add(
    house: &House,
    store: &dyn AppendStore,
    (what, backup): (&str, BackupId),
    more: &impl Serialize,
) -> anyhow::Result<()> {
    let at = house.ctx.now();
    let (schema, process) = ("bkp.audit/1", std::process::id());
    let line = Line { schema, what, at, backup, host: host(), process, more };
    journal::add(store, (&key(what, backup, at), Role::Index), &line)
}

/// What is kept of a restore, a verification, or a run that did not begin.
#[derive(Debug, Serialize)]
struct Ended<'a> {
    source: Option<&'a str>,
    exit_code: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

/// Adds that something was done with a backup, or that it failed, to the store that it was read from, as
/// far as this host may write there. A report says which backup, or it was about many.
pub fn ended(house: &House, what: &str, source: Option<&str>, ended: &anyhow::Result<Report>) {
    match ended {
        Ok(report) => {
            let text = |name: &str| report.value.get(name).and_then(serde_json::Value::as_str);
            let Some(store) = text("store") else { return };
            let id = text("id").and_then(|id| id.parse().ok());
            line(house, store, (what, id), source, report.outcome);
        }
        Err(error) => {
            // What never came to a backup says nothing of any.
            let kind = diagnose(error).kind;
            if !matches!(kind, Kind::Integrity | Kind::Failed | Kind::Source | Kind::Key) {
                return;
            }
            let settings = source.and_then(|name| house.settings.sources.get(name));
            let Ok(store) = house.store_read(settings) else { return };
            line(house, store.url(), (what, None), source, Some(kind));
        }
    }
}

/// Adds that a run of `source` did not begin, since another one was at it.
pub fn gave_way(house: &House, source: &str, error: &anyhow::Error) {
    let settings = house.settings.sources.get(source);
    if let Ok(store) = house.stores_append(settings) {
        let (id, kind) = (BackupId::new(house.ctx.now()), diagnose(error).kind);
        let (source, exit_code, why) = (Some(source), exit::code(kind), Some(format!("{error:#}")));
        let ended = Ended { source, exit_code, why };
        add_or_say(house, &store, ("skipped", id), &ended);
    }
}

fn line(
    house: &House,
    store: &str,
    (what, id): (&str, Option<BackupId>),
    source: Option<&str>,
    outcome: Option<Kind>,
) {
    let id = id.unwrap_or_else(|| BackupId::new(house.ctx.now()));
    let ended = Ended { source, exit_code: outcome.map_or(0, exit::code), why: None };
    match house.store_append(store) {
        Ok(store) => add_or_say(house, &*store, (what, id), &ended),
        Err(error) => not_on_record(house, store, &error),
    }
}

fn add_or_say(house: &House, store: &dyn AppendStore, of: (&str, BackupId), ended: &Ended<'_>) {
    if let Err(error) = add(house, store, of, ended) {
        not_on_record(house, store.url(), &error);
    }
}

fn not_on_record(house: &House, store: &str, error: &anyhow::Error) {
    house.ctx.monitor.detail(&format!("not on record in {store}: {error:#}"));
}
