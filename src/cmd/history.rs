//! `bkp list --from-ledger`: the events of the ledger, whatever the stores contain.

use std::fmt::Write as _;

use humansize::{BINARY, format_size};
use schemars::JsonSchema;
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::list::Window;
use crate::cmd::ledger_diff;
use crate::domain::event::{Event, Status};
use crate::domain::id::BackupId;
use crate::domain::names::{BackupType, Scope};
use crate::ledger::Entry;
use crate::ops::report::Report;
use crate::wire::AppContext;

/// What `bkp list --from-ledger` was asked for.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Only ids that begin so.
    pub id: Option<String>,
    /// Only this type.
    pub backup_type: Option<BackupType>,
    /// Only this scope.
    pub scope: Option<Scope>,
    /// Only events of this status.
    pub status: Option<Status>,
    /// Only runs that began then, and how many.
    pub window: Window,
}

/// The stable shape `bkp.list-ledger/1`.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Listing {
    /// Where the ledger is.
    ledger: String,
    /// Oldest first; with `--limit` newest first.
    events: Vec<LedgerRow>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct LedgerRow {
    id: BackupId,
    status: Status,
    #[serde(rename = "type")]
    backup_type: BackupType,
    /// Null where the run did not get so far.
    scope: Option<Scope>,
    stored_bytes: u64,
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String", extend("format" = "date-time"))]
    started: OffsetDateTime,
    seconds: u32,
    retention_days: u16,
    /// The first 72 bits of the manifest's SHA-256, hex.
    digest: String,
    /// When the ledger took it, by its own clock.
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String", extend("format" = "date-time"))]
    recorded: OffsetDateTime,
}

/// Lists the events of the ledger, oldest first. Events do not know their source's name.
///
/// # Errors
/// [`crate::error::Kind::Config`] if no ledger is configured; what it fails with.
pub fn run(app: &AppContext, options: &Options) -> anyhow::Result<Report> {
    let ledger = ledger_diff::ledger_of(app)?;
    let entries = ledger.entries()?;
    let wanted = |row: &LedgerRow| {
        options.backup_type.is_none_or(|only| only == row.backup_type)
            && options.scope.is_none_or(|only| row.scope == Some(only))
            && options.status.is_none_or(|only| only == row.status)
            && options.window.holds(row.started)
            && options.id.as_ref().is_none_or(|id| row.id.to_string().starts_with(id.as_str()))
    };
    let events: Vec<LedgerRow> = entries.iter().filter_map(row).filter(wanted).collect();
    let events = options.window.newest(events);
    let text = render(&events)?;
    let listing = Listing { ledger: ledger.name().to_owned(), events };
    Report::done("bkp.list-ledger/1", &listing, text)
}

fn row(entry: &Entry) -> Option<LedgerRow> {
    let event: Event = entry.event?;
    Some(LedgerRow {
        id: event.backup,
        status: event.status,
        backup_type: event.backup_type,
        scope: event.scope,
        stored_bytes: event.stored_bytes,
        started: event.backup.created(),
        seconds: event.seconds,
        retention_days: event.retention_days,
        digest: event.digest.to_string(),
        recorded: entry.recorded,
    })
}

fn render(rows: &[LedgerRow]) -> anyhow::Result<String> {
    if rows.is_empty() {
        return Ok("no events\n".to_owned());
    }
    let mut text = String::new();
    writeln!(
        text,
        "{:<20}  {:<9}  {:<11}  {:<12}  {:>10}  ID",
        "STARTED", "STATUS", "TYPE", "SCOPE", "STORED"
    )?;
    for row in rows {
        let started = row.started.replace_nanosecond(0)?.format(&Rfc3339)?;
        let status = row.status.as_str();
        let scope = row.scope.map_or("", Scope::as_str);
        let stored = format_size(row.stored_bytes, BINARY);
        let LedgerRow { backup_type, id, .. } = row;
        writeln!(
            text,
            "{started:<20}  {status:<9}  {backup_type:<11}  {scope:<12}  {stored:>10}  {id}"
        )?;
    }
    Ok(text)
}
