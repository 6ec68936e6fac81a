//! A drill of a log: restores a moment of it, starts the real engine on the result, and compares.

use std::path::Path;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;

use crate::catalog::{Catalog, FoundBackup};
use crate::domain::id::BackupId;
use crate::domain::segment::{Base, Link, Window};
use crate::domain::timestamp::rfc3339;
use crate::error::{Fault, Kind};
use crate::ops::log_history::{History, LogWindow, is_segment};
use crate::ops::log_mode::LogModeName;
use crate::ops::pitr_plan::{self, Moment, OpenedPlan, PitrPlan, PitrRequest};
use crate::pipeline::BackupReader;
use crate::source::logs::{LogDrill, RestoreAtRequest};
use crate::source::{Check, ResourceLimits, RestoreRequest, kinds};
use crate::wire::AppContext;

/// What a drill of a log found.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct LogDrillResult {
    #[schemars(with = "LogModeName")]
    mode: String,
    /// The moment that was restored, RFC 3339, by the cluster's clock.
    moment: String,
    /// The snapshot that it began with; null in query mode.
    base: Option<BackupId>,
    /// Segments that were applied.
    segments: usize,
    /// How long it took from the store to the first answer.
    rto_seconds: f64,
    /// What was compared.
    checks: Vec<Check>,
}

impl LogDrillResult {
    /// The same for people.
    pub(crate) fn text(&self) -> String {
        let checks = self.checks.iter();
        let checks = checks.fold(String::new(), |text, check| {
            text + &format!("    {}: {}\n", check.what, check.found)
        });
        format!(
            "  drill: restored {} from {} segment(s)\n{checks}    measured RTO: {:.1} s\n",
            self.moment, self.segments, self.rto_seconds
        )
    }
}

/// Restores a moment of the newest window to `folder`, which is the caller's to remove. `random` chooses it.
///
/// # Errors
/// [`Kind::Integrity`] if it does not restore, or is not what is on record; [`Kind::NotFound`] if there
/// is no window.
pub(crate) fn drill(
    app: &AppContext,
    (catalog, history, found): (&Catalog<'_>, &History, &[FoundBackup]),
    source: &str,
    folder: &Path,
    random: u64,
) -> anyhow::Result<LogDrillResult> {
    let began = app.ctx.now();
    let windows = history.windows();
    let Some(LogWindow { window, .. }) = windows.last() else {
        let message = format!("no moment in the log of `{source}` can be restored");
        return Err(Fault::new(Kind::NotFound, message)
            .hint(format!(
                "see `bkp list {source} --windows`; take a snapshot, and ship the log after it"
            ))
            .into());
    };
    let (time, moment) = moment(window, random)?;
    let request = PitrRequest { source, moment: Moment::At(time), base: None };
    let way = pitr_plan::find(history, &request)?;
    let opened = way.open(catalog, found, &app.ctx)?;
    let OpenedPlan { base, segments, backup_type } = &opened;
    let kind = kinds::log_kind_of(*backup_type)?;
    let to = folder.join(format!("drill.{backup_type}"));
    let tools = app.drill_tools(ResourceLimits::default());
    let request = RestoreRequest::to(to.clone());
    base.iter().chain(segments).try_for_each(|link| link.check_data(&app.ctx))?;
    let restore_at = RestoreAtRequest {
        base,
        segments,
        files: &catalog.log_files(*backup_type, source),
        target: way.target,
        exclusive: false,
        restore: &request,
        tools: &tools,
        alone: true,
    };
    (kind.restore_at)(&restore_at, &app.ctx)?;
    let last = way.run.last().ok_or_else(|| Fault::new(Kind::NotFound, "no segment"))?;
    let (before, after) = on_record(catalog, (history, found), &way, moment, &opened);
    let drill = LogDrill {
        file: &to,
        stream: &last.segment.stream,
        before: before.as_ref(),
        after: after.as_ref(),
        tools: &tools,
    };
    let checks = (kind.drill)(&drill, &app.ctx)?;
    Ok(LogDrillResult {
        mode: way.mode,
        moment: rfc3339(time),
        base: base.last().map(|newest| newest.manifest().id),
        segments: segments.len(),
        rto_seconds: (app.ctx.now() - began).as_seconds_f64(),
        checks,
    })
}

/// A moment of a window.
fn moment(window: &Window, random: u64) -> anyhow::Result<(OffsetDateTime, u64)> {
    let length = window.until.saturating_sub(window.from).saturating_add(1);
    let moment = window.from + random % length;
    Ok((OffsetDateTime::from_unix_timestamp_nanos(i128::from(moment))?, moment))
}

/// The `capture` records of what says what there was before a moment and after it: of segments where a restore
/// needs nothing else, of snapshots where it begins with one.
fn on_record(
    catalog: &Catalog<'_>,
    (history, found): (&History, &[FoundBackup]),
    way: &PitrPlan<'_>,
    moment: u64,
    opened: &OpenedPlan<'_>,
) -> (Option<Value>, Option<Value>) {
    let capture = |reader: &BackupReader<'_>| reader.manifest().capture.clone();
    // Something else may have this id; that is not authentic.
    let of_id = |id: BackupId, of_log: bool| {
        let known = opened.segments.iter().find(|reader| of_log && reader.manifest().id == id);
        known.map(capture).or_else(|| {
            let is_it = |found: &&FoundBackup| found.name.id == id && is_segment(found) == of_log;
            let mut opened = found.iter().filter(is_it).map(|found| catalog.open(&found.name));
            opened.find_map(|opened| opened.ok().map(|(reader, _)| capture(&reader)))
        })
    };
    if way.needs_base {
        let is_later = |base: &&Base| base.timestamp >= moment && base.is_of(way.run);
        let later = history.bases.iter().find(is_later);
        return (opened.base.last().map(capture), later.and_then(|later| of_id(later.id, false)));
    }
    let ends = |link: &&Link| link.segment.last_timestamp;
    let before = way.run.iter().rfind(|link| ends(link) <= moment);
    let after = way.run.iter().find(|link| ends(link) >= moment);
    let of_link = |link: &Link| of_id(link.id, true);
    (before.and_then(of_link), after.and_then(of_link))
}
