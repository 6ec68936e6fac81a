//! `bkp verify --logs`: checks that the chain of segments is unbroken and every segment is readable.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Serialize;

use super::windows::{Gap, WindowRow};
use crate::catalog::{Catalog, FoundBackup};
use crate::cmd::restore_at::drill::{self, LogDrillResult};
use crate::domain::id::BackupId;
use crate::error::{Fault, Kind, diagnose, worst};
use crate::ops::log_history::{History, find, is_segment};
use crate::ops::report::Report;
use crate::ops::scratch;
use crate::source::kinds;
use crate::store::ReadStore;
use crate::wire::AppContext;

/// The stable shape `bkp.verify-logs/1`.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct VerifyLogsReport {
    store: String,
    source: String,
    ok: bool,
    /// Segments that were read to their end.
    segments: usize,
    /// From when to when the source restores.
    windows: Vec<WindowRow>,
    /// Where segments do not follow each other.
    gaps: Vec<Gap>,
    /// Segments that the newest one does not lead to: of a run that was overtaken, or shipped when another
    /// store was away. They are in nobody's way, and restore where nothing else does.
    strays: Vec<BackupId>,
    /// What is wrong, beside gaps that are damage.
    problems: Vec<String>,
    /// The moment that was restored, with level drill.
    #[serde(skip_serializing_if = "Option::is_none")]
    drill: Option<LogDrillResult>,
}

/// What `bkp verify --logs` was asked for.
#[derive(Debug, Clone)]
pub struct Options {
    /// The source.
    pub source: String,
    /// Restore a moment of the log, too.
    pub drill: bool,
    /// Where a drill restores to; `None` takes a folder in the state directory.
    pub scratch: Option<PathBuf>,
}

/// Restores a random moment in a new folder that is removed again, whatever happens.
fn run_drill(
    app: &AppContext,
    catalog: &Catalog<'_>,
    history: &History,
    found: &[FoundBackup],
    options: &Options,
) -> anyhow::Result<LogDrillResult> {
    let scratch = scratch::to_drill(app, options.scratch.as_deref())?;
    let random = getrandom::u64()?;
    let of = (catalog, history, found);
    drill::drill(app, of, &options.source, scratch.folder(), random)
}

/// How the segments of a source follow each other, by their manifests.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct LogContinuity {
    source: String,
    ok: bool,
    /// From when to when the source restores.
    windows: Vec<WindowRow>,
    /// Where segments do not follow each other.
    gaps: Vec<Gap>,
    /// Manifests that cannot be read.
    problems: Vec<String>,
}

impl LogContinuity {
    fn of(source: &str, history: &History) -> LogContinuity {
        let gaps = Gap::all(history);
        LogContinuity {
            source: source.to_owned(),
            ok: history.problems.is_empty() && !gaps.iter().any(|gap| gap.damage),
            windows: WindowRow::all(history),
            gaps,
            problems: history.problems.clone(),
        }
    }

    /// What it counts for.
    pub(super) fn outcome(&self) -> Option<Kind> {
        (!self.ok).then_some(Kind::Integrity)
    }

    /// The same for people.
    pub(super) fn text(&self) -> anyhow::Result<String> {
        let mut text = String::new();
        let state = if self.ok { "no segment is missing" } else { "DAMAGED" };
        writeln!(text, "log of {}: {state}", self.source)?;
        self.gaps.iter().try_for_each(|gap| writeln!(text, "  {}", gap.text()))?;
        self.problems.iter().try_for_each(|problem| writeln!(text, "  FAILED: {problem}"))?;
        Ok(text)
    }
}

/// How the segments among `found` follow each other, source by source; nothing where there are none.
///
/// # Errors
/// That the run is to stop.
pub(super) fn chained(
    app: &AppContext,
    store: &dyn ReadStore,
    found: &[FoundBackup],
) -> anyhow::Result<Vec<LogContinuity>> {
    let segments = found.iter().filter(|found| is_segment(found));
    let sources: BTreeSet<&str> = segments.map(|found| found.name.source.as_str()).collect();
    let of = |source: &str| {
        let of_source = found.iter().filter(|found| found.name.source == source);
        let of_source: Vec<FoundBackup> = of_source.cloned().collect();
        let history = History::read(store, &of_source, &app.ctx)?;
        Ok(LogContinuity::of(source, &history))
    };
    sources.into_iter().map(of).collect()
}

/// Reads every segment of a source, oldest first. A gap that was known when it was shipped is no
/// damage.
///
/// # Errors
/// What store or keys fail with; damage is the report's outcome.
pub fn run(app: &AppContext, options: &Options) -> anyhow::Result<Report> {
    let source = options.source.as_str();
    let store = app.store_read(app.settings.sources.get(source))?;
    let keys = app.keys_to_read()?;
    let found = find(store.as_ref(), source, &app.ctx)?;
    if !found.iter().any(is_segment) {
        let message = format!("{}: no log of `{source}`", store.url());
        return Err(Fault::new(Kind::NotFound, message).hint("ship one with `bkp logs`").into());
    }
    let history = History::read(store.as_ref(), &found, &app.ctx)?;
    let catalog = Catalog::new(store.as_ref(), &keys, &app.ctx);
    let (mut segments, mut problems, mut outcome) = (0, history.problems.clone(), None);
    for found in found.iter().filter(|found| is_segment(found)) {
        app.ctx.cancel.check()?;
        let decode = kinds::log_kind_of(found.name.backup_type)?.decode;
        app.ctx.monitor.begin(&format!("verify {}", found.name.id), Some(found.stored_bytes));
        let read = catalog.open(&found.name).and_then(|(reader, _)| {
            reader.check_objects(&app.ctx)?;
            let files = catalog.log_files(found.name.backup_type, source);
            decode(&reader, &files, &app.ctx)
        });
        app.ctx.monitor.end();
        match read {
            Ok(()) => segments += 1,
            Err(error) => {
                let kind = diagnose(&error).kind;
                if matches!(kind, Kind::Interrupted | Kind::Terminated) {
                    return Err(error);
                }
                outcome = worst(outcome, Some(kind));
                problems.push(format!("{}: {error:#}", found.name.id));
            }
        }
    }
    let gaps = Gap::all(&history);
    if gaps.iter().any(|gap| gap.damage) || !history.problems.is_empty() {
        outcome = worst(outcome, Some(Kind::Integrity));
    }
    let mut drill = None;
    if options.drill && outcome.is_none() {
        match run_drill(app, &catalog, &history, &found, options) {
            Ok(done) => drill = Some(done),
            Err(error) => {
                let kind = diagnose(&error).kind;
                if kind != Kind::Integrity {
                    return Err(error);
                }
                outcome = worst(outcome, Some(kind));
                problems.push(format!("{error:#}"));
            }
        }
    }
    let windows = WindowRow::all(&history);
    let strays = history.strays();
    let body = VerifyLogsReport {
        store: store.url().to_owned(),
        source: source.to_owned(),
        ok: outcome.is_none(),
        segments,
        windows,
        gaps,
        strays,
        problems,
        drill,
    };
    let text = render(&body)?;
    Ok(Report::done("bkp.verify-logs/1", &body, text)?.with_outcome(outcome))
}

fn render(body: &VerifyLogsReport) -> anyhow::Result<String> {
    let mut text = String::new();
    let state = match body.gaps.len() {
        _ if !body.ok => "DAMAGED".to_owned(),
        0 => "unbroken".to_owned(),
        gaps => format!("complete except for {gaps} gap(s) known when it was shipped"),
    };
    writeln!(text, "log of {}: {state}, {} segments read", body.source, body.segments)?;
    body.windows.iter().try_for_each(|row| writeln!(text, "  {}", row.text()))?;
    body.gaps.iter().try_for_each(|gap| writeln!(text, "  {}", gap.text()))?;
    body.problems.iter().try_for_each(|problem| writeln!(text, "  FAILED: {problem}"))?;
    text.extend(body.drill.iter().map(LogDrillResult::text));
    Ok(text)
}
