//! One run of one job: exclusive, recorded and reported.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use serde::Serialize;
use time::OffsetDateTime;

use super::child::{self, RunResult};
use super::options::Options;
use super::report::{JobOutcome, JobRunRow};
use super::run_hooks::RunHooks;
use crate::config::settings::jobs::JobSettings;
use crate::ctx::{host, user};
use crate::domain::id::BackupId;
use crate::domain::record::{self, Record};
use crate::domain::schedule::Due;
use crate::error::{Fault, Kind, diagnose};
use crate::exit;
use crate::ops::authenticity;
use crate::ops::authenticity::{ProofChecker, RECORD};
use crate::ops::exclusive_run::{ExclusiveRun, retry_while_busy};
use crate::ops::jobs::state::{JobStates, is_for_each, places};
use crate::ops::jobs::witness::witnesses;
use crate::ops::records;
use crate::store::Role;
use crate::store::layer::mirrored::MirroredStore;
use crate::wire::AppContext;

/// For how long a run that should stop goes on to put itself on record.
const CLOSING: Duration = Duration::from_secs(10);

/// What came of it.
pub(super) struct FinishedRun {
    pub(super) row: JobRunRow,
    /// What is to be known of it; nothing if it did not run.
    pub(super) record: Option<Record>,
    /// Keys of that in the stores that have it on record.
    pub(super) on_record: Vec<String>,
}

/// What is kept of a run in the stores, schema `bkp.run-record/1`.
#[derive(Debug, Serialize)]
struct RunRecordBody<'a> {
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
    /// Why it was started: `scheduled` or `manual`.
    trigger: &'a str,
    user: String,
    message: Option<&'a str>,
    /// What a drill measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    rto_seconds: Option<f64>,
}

/// Runs a job, unless it is running or another host has just run it. Whoever is to be told of its runs
/// is also told of one that could not begin.
pub(super) fn run(app: &AppContext, job: &JobSettings, options: &Options) -> FinishedRun {
    let trigger = if options.job.is_some() { "manual" } else { "scheduled" };
    let run_hooks = RunHooks { app, job, began: app.ctx.now(), trigger };
    // Whoever waits for the end would wait for ever for that of a run that panicked. No store is asked
    // to keep it: what asks them may be what panicked.
    catch_panic(|| begin(&run_hooks, options))
        .unwrap_or_else(|error| put_on_record(&run_hooks, None, &RunResult::of(&error)))
}

/// What `work` comes to, a panic as an error.
fn catch_panic<T>(work: impl FnOnce() -> T) -> anyhow::Result<T> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic: Box<dyn Any + Send>| {
        let said = panic.downcast_ref::<String>().map(String::as_str);
        let said = said.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("panicked");
        let fault = Fault::new(Kind::Failed, format!("internal error: {said}"));
        fault.hint("report it, with the preceding line that names a source location").into()
    })
}

/// The run itself.
fn begin(run_hooks: &RunHooks<'_>, options: &Options) -> FinishedRun {
    let RunHooks { app, job, trigger, .. } = *run_hooks;
    let mirrored = match job_stores(app, job) {
        Ok(mirrored) => mirrored,
        Err(error) => return failed(run_hooks, None, &error),
    };
    // No source can have this name, so it is nobody else's lease.
    let lease = format!("{}.job", job.name);
    let taken = retry_while_busy(app, options.patience, || {
        ExclusiveRun::take(app, &lease, &mirrored, None)
    });
    let error = match taken {
        Ok(_exclusive_run) => return run_exclusively(app, (job, trigger), options, &mirrored),
        Err(error) => error,
    };
    let kind = diagnose(&error).kind;
    if kind != Kind::Busy {
        // What could not take a lease in any store takes no record either.
        return failed(run_hooks, Some(&mirrored).filter(|_mirrored| kind != Kind::Store), &error);
    }
    if options.job.is_some() {
        // One that was asked for and could not is a run, if one that did nothing.
        return put_on_record(run_hooks, Some(&mirrored), &RunResult::of(&error));
    }
    let mut row = JobRunRow::new(job.name.clone(), JobOutcome::Busy, Some(format!("{error:#}")));
    row.exit_code = Some(exit::code(kind));
    FinishedRun { row, record: None, on_record: Vec::new() }
}

/// Ends a run that could not begin.
fn failed(
    run_hooks: &RunHooks<'_>,
    mirrored: Option<&MirroredStore>,
    error: &anyhow::Error,
) -> FinishedRun {
    let ended = RunResult::of(error);
    let end = put_on_record(run_hooks, mirrored, &ended);
    run_hooks.after(&ended);
    end
}

/// The stores of a job, as one.
fn job_stores(app: &AppContext, job: &JobSettings) -> anyhow::Result<MirroredStore> {
    let mut app = app.clone();
    app.settings.store = places(&app, job);
    app.stores_append(None)
}

/// Runs a job whose lease is held.
fn run_exclusively(
    app: &AppContext,
    (job, trigger): (&JobSettings, &'static str),
    options: &Options,
    mirrored: &MirroredStore,
) -> FinishedRun {
    let began = app.ctx.now();
    if options.job.is_none() {
        // Another host may have run it since we looked.
        let mut states = JobStates::load(app);
        states.refresh(app, job, began);
        if !matches!(states.due(app, job, began), Due::Since(_)) {
            let row = JobRunRow::new(job.name.clone(), JobOutcome::Elsewhere, None);
            return FinishedRun { row, record: None, on_record: Vec::new() };
        }
    }
    app.ctx.monitor.detail(&format!("{}: begins", job.name));
    let run_hooks = RunHooks { app, job, began, trigger };
    let ended = match run_hooks.before() {
        Ok(()) => child::run(app, job, trigger).unwrap_or_else(|error| RunResult::of(&error)),
        Err(error) => RunResult::of_hook(&error),
    };
    let end = put_on_record(&run_hooks, Some(mirrored), &ended);
    run_hooks.after(&ended);
    end
}

/// Puts a run on record: in every store how it went, if it went differently in each, and only where it
/// went at all.
fn put_on_record(
    run_hooks: &RunHooks<'_>,
    mirrored: Option<&MirroredStore>,
    ended: &RunResult,
) -> FinishedRun {
    let RunHooks { app, job, began, .. } = *run_hooks;
    // Also of a run that was told to end.
    let _in_peace = app.ctx.cancel.defer(CLOSING);
    let now = app.ctx.now();
    let took = now - began;
    let backup = ended.backup();
    let record = Record {
        id: BackupId::new(began),
        job: job.name.clone(),
        code: ended.code,
        seconds: u32::try_from(took.whole_seconds().max(0)).unwrap_or(u32::MAX),
    };
    let (names, mut on_record) = (places(app, job), Vec::new());
    let keys = authenticity::keys(app);
    for (index, store) in mirrored.iter().flat_map(|mirrored| mirrored.stores()) {
        let name = names.get(index).map(String::as_str);
        let here = match name.and_then(|name| ended.in_store(name)) {
            Some(here) => here,
            None if ended.stores.is_empty() => ended,
            // It was told to end before it came to this store, which can say nothing of it.
            None => continue,
        };
        let body = RunRecordBody {
            schema: "bkp.run-record/1",
            job: &job.name,
            command: child::command_line(app, job, name.filter(|_name| is_for_each(job))),
            host: host(),
            process: std::process::id(),
            started: began,
            ended: now,
            exit_code: here.code,
            backup: backup.or(here.verified()),
            trigger: run_hooks.trigger,
            user: user(),
            message: ended.message.as_deref(),
            rto_seconds: here.rto_seconds(),
        };
        let key = Record { code: here.code, ..record.clone() }.key();
        let by = witnesses(app, &**store, job.source.as_deref(), body.backup);
        let object = ProofChecker::new(&**store, &keys, &app.ctx).object(RECORD, &key, &body, by);
        let added = object
            .map_err(anyhow::Error::from)
            .and_then(|object| Ok(records::add_bytes(&**store, (&key, Role::Index), &object)?));
        match added {
            Ok(()) => on_record.push(key),
            Err(error) => {
                let why = format!("{}: the run was not recorded: {error:#}", job.name);
                app.ctx.monitor.warn(&why);
            }
        }
    }
    let outcome = match record.outcome() {
        record::RunOutcome::Good => JobOutcome::Done,
        record::RunOutcome::Partial => JobOutcome::Partial,
        record::RunOutcome::Skipped => JobOutcome::Busy,
        record::RunOutcome::Failed => JobOutcome::Failed,
    };
    let row = JobRunRow {
        job: job.name.clone(),
        outcome,
        exit_code: Some(ended.code),
        seconds: took.as_seconds_f64(),
        backup,
        message: ended.failure_text().filter(|_words| ended.code != exit::DONE),
    };
    FinishedRun { row, record: Some(record), on_record }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_that_says_what_happened() {
        assert_eq!(catch_panic(|| 7).expect("no panic"), 7);
        let place = "here";
        for (error, said) in [
            (catch_panic(|| panic!("out of luck")).map(|()| 0), "out of luck"),
            (catch_panic(|| panic!("out of luck {place}")).map(|()| 0), "out of luck here"),
            (catch_panic(|| std::panic::panic_any(7)).map(|()| 0), "panicked"),
        ] {
            let error = error.expect_err("a panic");
            assert_eq!(error.to_string(), format!("internal error: {said}"));
            assert_eq!(RunResult::of(&error).code, exit::code(Kind::Failed));
        }
    }
}
