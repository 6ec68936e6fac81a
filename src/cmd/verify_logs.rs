//! `bkp verify --logs`: the chain of segments is unbroken, and every segment reads.

use std::fmt::Write as _;

use schemars::JsonSchema;
use serde::Serialize;

use super::Report;
use super::segments::{History, find, is_segment};
use super::windows::{Gap, Row};
use crate::catalog::Catalog;
use crate::domain::id::BackupId;
use crate::error::{Fault, Kind, diagnose, worst};
use crate::source::logs;
use crate::wire::House;

/// The stable shape `bkp.verify-logs/1`.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Verified {
    store: String,
    source: String,
    ok: bool,
    /// Segments that were read to their end.
    segments: usize,
    /// From when to when the source restores.
    windows: Vec<Row>,
    /// Where segments do not follow each other.
    gaps: Vec<Gap>,
    /// Segments that the newest one does not lead to: of a run that was overtaken, or shipped when another
    /// store was away. They are in nobody's way, and restore where nothing else does.
    strays: Vec<BackupId>,
    /// What is wrong, beside gaps that are damage.
    problems: Vec<String>,
}

/// Reads every segment of a source, oldest first. A gap that was known when it was shipped is no
/// damage.
///
/// # Errors
/// What store or keys fail with; damage is the report's outcome.
pub fn run(house: &House, source: &str) -> anyhow::Result<Report> {
    let store = house.store_read(house.settings.sources.get(source))?;
    let keys = house.keys_to_read()?;
    let found = find(store.as_ref(), source, &house.ctx)?;
    if !found.iter().any(is_segment) {
        let message = format!("{}: no log of `{source}`", store.url());
        return Err(Fault::new(Kind::NotFound, message).hint("ship one with `bkp logs`").into());
    }
    let history = History::read(store.as_ref(), &found, &house.ctx)?;
    let catalog = Catalog::new(store.as_ref(), &keys, &house.ctx);
    let (mut segments, mut problems, mut outcome) = (0, history.problems.clone(), None);
    for found in found.iter().filter(|found| is_segment(found)) {
        house.ctx.cancel.check()?;
        let decode = logs::kind_of(found.name.backup_type)?.decode;
        house.ctx.monitor.begin(&format!("verify {}", found.name.id), Some(found.stored_bytes));
        let read = catalog.open(&found.name).and_then(|(reader, _)| {
            reader.check_objects()?;
            decode(&reader, &house.ctx)
        });
        house.ctx.monitor.end();
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
    let windows: Vec<Row> =
        history.windows().iter().map(|(window, run)| Row::of(window, run.len())).collect();
    let strays = history.strays();
    let body = Verified {
        store: store.url().to_owned(),
        source: source.to_owned(),
        ok: outcome.is_none(),
        segments,
        windows,
        gaps,
        strays,
        problems,
    };
    let text = render(&body)?;
    Ok(Report::done("bkp.verify-logs/1", &body, text)?.with_outcome(outcome))
}

fn render(body: &Verified) -> anyhow::Result<String> {
    let mut text = String::new();
    let state = match body.gaps.len() {
        _ if !body.ok => "DAMAGED".to_owned(),
        0 => "unbroken".to_owned(),
        gaps => format!("whole but for {gaps} gap(s) that were known when it was shipped"),
    };
    writeln!(text, "log of {}: {state}, {} segments read", body.source, body.segments)?;
    body.windows.iter().try_for_each(|row| writeln!(text, "  {}", row.text()))?;
    body.gaps.iter().try_for_each(|gap| writeln!(text, "  {}", gap.text()))?;
    body.problems.iter().try_for_each(|problem| writeln!(text, "  FAILED: {problem}"))?;
    Ok(text)
}
