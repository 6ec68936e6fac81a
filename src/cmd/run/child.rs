//! Runs a job in a child process of the same program: a failure in it, such as out of memory, ends only
//! that run.

use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::Value;

use crate::config::settings::jobs::{JobKind, JobSettings, VerifySelection};
use crate::domain::id::BackupId;
use crate::domain::record::weigh;
use crate::error::{Fault, Kind, diagnose};
use crate::exit;
use crate::ops::audit;
use crate::ops::jobs::state::{is_for_each, places};
use crate::ops::report::{Failure, Warning};
use crate::process;
use crate::wire::AppContext;

/// How often a run is looked at.
const POLL_EVERY: Duration = Duration::from_millis(20);
/// How long a run that is told to end may take, before it is killed. Killing does no harm.
const GRACE: Duration = Duration::from_secs(30);
/// Largest report that is read, bytes; a report of a cleanup has a line for every item.
const REPORT_BYTES_MAX: u64 = 256 << 20;

/// How a run ended.
#[derive(Debug, Clone, Default)]
pub struct RunResult {
    /// Its exit code; 1 if it was killed. Of several runs, one for each store, the worst.
    pub code: u8,
    /// Its report, null if there is none. Of several runs, one for each store, that of the last.
    pub report: Value,
    /// What it said about its failure, or what was done to it.
    pub message: Option<String>,
    /// What a program of the operator said, or the run itself in words that are no error of ours. It
    /// stays on this host: nobody knows what is in it.
    pub aside: Option<String>,
    /// How it ended in each store, by its name, if it was run for each of them.
    pub stores: Vec<(String, RunResult)>,
}

impl RunResult {
    /// A run that could not begin.
    #[must_use]
    pub fn of(error: &anyhow::Error) -> RunResult {
        let message = Some(format!("{error:#}"));
        RunResult { code: exit::code(diagnose(error).kind), message, ..RunResult::default() }
    }

    /// A run that a hook kept from beginning: the first line of its error is for everybody.
    #[must_use]
    pub fn of_hook(error: &anyhow::Error) -> RunResult {
        let said: Vec<String> = error.chain().skip(1).map(ToString::to_string).collect();
        let aside = (!said.is_empty()).then(|| said.join(": "));
        RunResult { message: Some(error.to_string()), aside, ..RunResult::of(error) }
    }

    /// How it ended in this store, if it was run for each.
    #[must_use]
    pub fn in_store(&self, store: &str) -> Option<&RunResult> {
        self.stores.iter().find(|(name, _)| name == store).map(|(_, ended)| ended)
    }

    /// All that is known of why it failed, for whoever sits at this host.
    #[must_use]
    pub fn failure_text(&self) -> Option<String> {
        let known: Vec<&str> =
            [&self.message, &self.aside].into_iter().flatten().map(String::as_str).collect();
        (!known.is_empty()).then(|| known.join(": "))
    }

    /// Takes in how a run of the same job ended in one store more.
    fn join(&mut self, store: &str, other: &RunResult) {
        // What did not run at all has done nothing well that could outweigh the first.
        let begun = !self.stores.is_empty();
        self.code = if begun { worse_code(self.code, other.code) } else { other.code };
        self.report = other.report.clone();
        append(&mut self.message, store, other.message.as_deref());
        append(&mut self.aside, store, other.aside.as_deref());
        self.stores.push((store.to_owned(), other.clone()));
    }

    /// Takes in that a run was told to end before it began in a store: it did not do all it should,
    /// and that store has nothing of it.
    fn stop(&mut self, store: &str, stopped: Fault) {
        let why = format!("not started: {stopped}");
        self.code = worse_code(self.code, RunResult::of(&stopped.into()).code);
        append(&mut self.message, store, Some(&why));
    }

    /// The backup that it made.
    #[must_use]
    pub fn backup(&self) -> Option<BackupId> {
        self.report.pointer("/manifest/id")?.as_str()?.parse().ok()
    }

    /// What its drill measured, seconds.
    #[must_use]
    pub fn rto_seconds(&self) -> Option<f64> {
        audit::rto_seconds(&self.report)
    }

    /// The backup that it verified, the last one if they were several.
    #[must_use]
    pub fn verified(&self) -> Option<BackupId> {
        let all = self.report.get("backups").and_then(Value::as_array);
        let one = all.and_then(|all| all.last()).unwrap_or(&self.report);
        one.get("id")?.as_str()?.parse().ok()
    }
}

/// The exit code that counts of two.
fn worse_code(one: u8, other: u8) -> u8 {
    weigh(one).max(weigh(other)).2
}

/// Adds what is to be said of one store.
fn append(said: &mut Option<String>, store: &str, more: Option<&str>) {
    if let Some(more) = more {
        let before = said.take().map(|said| said + "; ").unwrap_or_default();
        *said = Some(format!("{before}{store}: {more}"));
    }
}

/// What the run of a job is called with: for one store, or for those that were chosen.
#[must_use]
pub fn command_line(app: &AppContext, job: &JobSettings, store: Option<&str>) -> Vec<String> {
    let mut words = vec![job.run.word().to_owned()];
    words.extend(job.source.clone().filter(|_source| job.run != JobKind::Cleanup));
    let mut flag = |name: &str, value: Option<String>| {
        words.extend(value.into_iter().flat_map(|value| [name.to_owned(), value]));
    };
    if let Some(copies) = &job.copies {
        flag("--to", Some(copies.to.clone()));
        flag("--from", copies.from.clone());
    }
    let auto = job.auto_scope.then(|| "auto".to_owned());
    flag("--scope", job.scope.map(|scope| scope.to_string()).or(auto));
    flag("--level", job.level.map(|level| level.as_str().to_owned()));
    let file = app.settings.file.as_ref();
    flag("--config", file.map(|path| path.to_string_lossy().into_owned()));
    match store {
        Some(store) => flag("--store", Some(store.to_owned())),
        // It names its stores.
        None if job.copies.is_some() => {}
        None => {
            app.settings.store.iter().for_each(|store| flag("--store", Some(store.clone())));
        }
    }
    match job.verify_selection {
        VerifySelection::Newest => {}
        VerifySelection::NewestExport => words.push("--from-export".to_owned()),
        VerifySelection::All => words.push("--all".to_owned()),
        VerifySelection::Log => words.push("--logs".to_owned()),
    }
    words.push("--json".to_owned());
    words
}

/// Runs a job and waits for its end: once, or once for each of its stores. It is told why (`trigger`).
///
/// # Errors
/// If the program cannot be started.
pub fn run(app: &AppContext, job: &JobSettings, trigger: &str) -> anyhow::Result<RunResult> {
    let began = Instant::now();
    if !is_for_each(job) {
        return run_once(app, (job, trigger), None, began);
    }
    let run = |store: &str| {
        let ended = run_once(app, (job, trigger), Some(store), began);
        ended.unwrap_or_else(|error| RunResult::of(&error))
    };
    Ok(run_in_each_store(&places(app, job), || app.ctx.cancel.check(), run))
}

/// Runs a job in one store after the other, until it is told to end.
fn run_in_each_store(
    stores: &[String],
    check: impl Fn() -> Result<(), Fault>,
    run: impl Fn(&str) -> RunResult,
) -> RunResult {
    let mut all = RunResult::default();
    for store in stores {
        if let Err(stopped) = check() {
            all.stop(store, stopped);
            break;
        }
        all.join(store, &run(store));
    }
    all
}

fn run_once(
    app: &AppContext,
    (job, trigger): (&JobSettings, &str),
    store: Option<&str>,
    began: Instant,
) -> anyhow::Result<RunResult> {
    let program = app.settings.program.as_ref().ok_or_else(|| {
        Fault::new(Kind::Failed, "cannot determine the path of this executable")
            .hint("start bkp by its full path")
    })?;
    let mut command = Command::new(program);
    command.args(command_line(app, job, store));
    command.env("BKP_JOB", &job.name).env("BKP_TRIGGER", trigger);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // A group of its own: it is told to end by us, and what it leaves behind can be ended with it.
    command.process_group(0);
    let mut child = process::spawn_own(&mut command)
        .with_context(|| format!("cannot start {}", program.display()))?;
    // What it leaves behind in another group may hold the ends of its output open.
    let gone = AtomicBool::new(false);
    let out = child.stdout.take().map(|out| process::ChildOutput::new(out, &gone));
    let errors = child.stderr.take().map(|errors| process::ChildOutput::new(errors, &gone));
    thread::scope(|scope| {
        let report = scope.spawn(move || {
            let mut bytes = Vec::new();
            let read = out.map(|out| out.take(REPORT_BYTES_MAX).read_to_end(&mut bytes));
            let whole = matches!(read, Some(Ok(_)));
            serde_json::from_slice(&bytes).ok().filter(|_value: &Value| whole).unwrap_or_default()
        });
        let said = scope.spawn(move || {
            let lines = errors.map(BufReader::new).into_iter().flat_map(BufReader::lines);
            let heard = lines.map_while(Result::ok).filter_map(|line| relay_line(app, job, line));
            heard.fold((None, None), |(failure, stray), next| match next {
                ChildMessage::Failure(text) => (Some(text), stray),
                ChildMessage::Stray(text) => (failure, Some(text)),
            })
        });
        let waited = wait(app, job, &child, began);
        // What it started must not hold the ends of its output open; usually there is nothing. Its
        // number is nobody else's before it has been waited for, which comes after this.
        let _none_left = kill_process_group(Pid::from_child(&child), Signal::KILL);
        let status = child.wait();
        gone.store(true, Ordering::Relaxed);
        let status = status?;
        let forced = waited?;
        let code = status.code().and_then(|code| u8::try_from(code).ok());
        let code = code.unwrap_or(exit::code(Kind::Failed));
        let report = report.join().unwrap_or_default();
        let (failure, stray) = said.join().unwrap_or_default();
        if code == exit::DONE {
            return Ok(RunResult { code, report, ..RunResult::default() });
        }
        let signal = status.signal().map(|signal| format!("killed by signal {signal}"));
        // Whatever else it says, how it failed is what it says itself of that.
        let aside = stray.filter(|_stray| failure.is_none());
        Ok(RunResult {
            code,
            report,
            message: forced.or(failure).or(signal),
            aside,
            ..RunResult::default()
        })
    })
}

/// What a run said of its failure.
enum ChildMessage {
    /// In our words.
    Failure(String),
    /// In any others: what a program says that dies without an error of ours, a panic for instance.
    Stray(String),
}

/// Passes on a line that a run wrote to its standard error; returns why it failed, if it says so.
fn relay_line(app: &AppContext, job: &JobSettings, line: String) -> Option<ChildMessage> {
    let value: Value = serde_json::from_str(&line).unwrap_or_default();
    let text = |field: &str| value.get(field).and_then(Value::as_str);
    let message = text("message").unwrap_or(&line);
    match text("schema") {
        Some(Failure::SCHEMA) => {
            let causes = value.get("causes").and_then(Value::as_array).into_iter().flatten();
            let causes = causes.filter_map(Value::as_str).map(|cause| format!(": {cause}"));
            Some(ChildMessage::Failure(
                causes.fold(message.to_owned(), |text, cause| text + &cause),
            ))
        }
        Some(Warning::SCHEMA) => {
            app.ctx.monitor.warn(&format!("{}: {message}", job.name));
            None
        }
        _ => {
            app.ctx.monitor.detail(&format!("{}: {message}", job.name));
            Some(ChildMessage::Stray(line))
        }
    }
}

/// Waits until a run has ended, but leaves its number to it; ends it when its time is over, or when we
/// are to end. Returns what had to be done.
fn wait(
    app: &AppContext,
    job: &JobSettings,
    child: &Child,
    began: Instant,
) -> anyhow::Result<Option<String>> {
    let mut forced: Option<(Instant, String)> = None;
    loop {
        if process::has_ended(child)? {
            return Ok(forced.map(|(_, why)| why));
        }
        let why = if let Err(stopped) = app.ctx.cancel.check() {
            Some(stopped.to_string())
        } else if began.elapsed() > job.timeout {
            let limit = crate::table::units::spelled(job.timeout);
            Some(format!("exceeded its timeout of {limit} and was killed"))
        } else {
            None
        };
        match (&forced, why) {
            (None, Some(why)) => {
                signal(child, Signal::TERM);
                forced = Some((Instant::now(), why));
            }
            (Some((since, _)), _) if since.elapsed() > GRACE => signal(child, Signal::KILL),
            (None | Some(_), _) => {}
        }
        thread::park_timeout(POLL_EVERY);
    }
}

fn signal(child: &Child, signal: Signal) {
    // It fails if the process has ended, which is what was wanted.
    let _ended = kill_process(Pid::from_child(child), signal);
}

#[cfg(test)]
mod tests;
