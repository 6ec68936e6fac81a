//! One run of one job: alone, on record, and told of.

use std::time::Duration;

use serde::Serialize;
use time::OffsetDateTime;

use super::around::Around;
use super::child::{self, Ended};
use super::state::{States, places};
use super::{Options, Outcome, Row};
use crate::cmd::alone::{Alone, host, patiently};
use crate::cmd::journal;
use crate::config::settings::jobs::JobSettings;
use crate::domain::id::BackupId;
use crate::domain::record::{self, Record};
use crate::domain::schedule::Due;
use crate::error::{Kind, diagnose};
use crate::exit;
use crate::store::Role;
use crate::store::layer::fan::Fan;
use crate::wire::House;

/// For how long a run that should stop goes on to put itself on record.
const CLOSING: Duration = Duration::from_secs(10);

/// What came of it.
pub(super) struct End {
    pub(super) row: Row,
    /// What is recorded of it; nothing if it did not run.
    pub(super) record: Option<Record>,
}

/// What is kept of a run in the stores, schema `bkp.run-record/1`.
#[derive(Debug, Serialize)]
struct Body<'a> {
    schema: &'static str,
    job: &'a str,
    command: Vec<String>,
    host: String,
    process: u32,
    #[serde(with = "time::serde::rfc3339")]
    started: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    ended: OffsetDateTime,
    exit_code: u8,
    backup: Option<BackupId>,
    message: Option<&'a str>,
}

/// Runs a job, unless it is running or another host has just run it.
pub(super) fn run(house: &House, job: &JobSettings, options: &Options) -> End {
    let began = house.ctx.now();
    match alone(house, job, options) {
        Ok(end) => end,
        Err(error) => {
            let kind = diagnose(&error).kind;
            let outcome = if kind == Kind::Busy { Outcome::Busy } else { Outcome::Failed };
            let mut row = Row::new(job.name.clone(), outcome, Some(format!("{error:#}")));
            row.exit_code = Some(exit::code(kind));
            // A tick that finds its job at work is no run. One that was asked for and could not is.
            let tried = kind != Kind::Busy || options.job.is_some();
            let record = Record {
                id: BackupId::new(began),
                job: job.name.clone(),
                code: exit::code(kind),
                seconds: 0,
            };
            End { row, record: tried.then_some(record) }
        }
    }
}

/// The stores of a job, as one.
fn fan(house: &House, job: &JobSettings) -> anyhow::Result<Fan> {
    let mut house = house.clone();
    house.settings.store = places(&house, job);
    house.stores_append(None)
}

fn alone(house: &House, job: &JobSettings, options: &Options) -> anyhow::Result<End> {
    let fan = fan(house, job)?;
    // No source can have this name, so it is nobody else's lease.
    let lease = format!("{}.job", job.name);
    let taken = patiently(house, options.patience, || Alone::take(house, &lease, &fan, None));
    let _alone = match taken {
        Ok(alone) => alone,
        Err(error) if options.job.is_some() && diagnose(&error).kind == Kind::Busy => {
            let ended = Ended {
                code: exit::code(Kind::Busy),
                message: Some(format!("{error:#}")),
                ..Ended::default()
            };
            return Ok(close(house, job, &fan, house.ctx.now(), &ended));
        }
        Err(error) => return Err(error),
    };
    let began = house.ctx.now();
    if options.job.is_none() {
        // Another host may have run it since we looked.
        let mut states = States::kept(house);
        states.refresh(house, job, began);
        if !matches!(states.due(house, job, began), Due::Since(_)) {
            let row = Row::new(job.name.clone(), Outcome::Elsewhere, None);
            return Ok(End { row, record: None });
        }
    }
    house.ctx.monitor.detail(&format!("{}: begins", job.name));
    let around = Around { house, job, began };
    let ended = around.before().and_then(|()| child::run(house, job));
    let ended = ended.unwrap_or_else(|error| Ended {
        code: exit::code(diagnose(&error).kind),
        message: Some(format!("{error:#}")),
        ..Ended::default()
    });
    let end = close(house, job, &fan, began, &ended);
    around.after(&ended);
    Ok(end)
}

/// Puts a run on record.
fn close(house: &House, job: &JobSettings, fan: &Fan, began: OffsetDateTime, ended: &Ended) -> End {
    // Also of a run that was told to end.
    let _in_peace = house.ctx.cancel.defer(CLOSING);
    let now = house.ctx.now();
    let took = now - began;
    let backup = ended.backup();
    let record = Record {
        id: BackupId::new(began),
        job: job.name.clone(),
        code: ended.code,
        seconds: u32::try_from(took.whole_seconds().max(0)).unwrap_or(u32::MAX),
    };
    let body = Body {
        schema: "bkp.run-record/1",
        job: &job.name,
        command: child::words(house, job),
        host: host(),
        process: std::process::id(),
        started: began,
        ended: now,
        exit_code: ended.code,
        backup,
        message: ended.message.as_deref(),
    };
    if let Err(error) = journal::add(fan, (&record.key(), Role::Index), &body) {
        house.ctx.monitor.warn(&format!("{}: its run is not on record: {error:#}", job.name));
    }
    let outcome = match record.outcome() {
        record::Outcome::Good => Outcome::Done,
        record::Outcome::Partial => Outcome::Partial,
        record::Outcome::Skipped => Outcome::Busy,
        record::Outcome::Failed => Outcome::Failed,
    };
    let row = Row {
        job: job.name.clone(),
        outcome,
        exit_code: Some(ended.code),
        seconds: took.as_seconds_f64(),
        backup,
        message: ended.message.clone().filter(|_message| ended.code != exit::DONE),
    };
    End { row, record: Some(record) }
}
