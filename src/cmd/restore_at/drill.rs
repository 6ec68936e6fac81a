//! A drill of a log: restores a moment of it, starts the real engine on the result, and compares.

use std::path::Path;

use schemars::JsonSchema;
use serde::Serialize;
use time::OffsetDateTime;

use crate::catalog::{Catalog, FoundBackup};
use crate::domain::id::BackupId;
use crate::domain::segment::{Link, Mode, Totals, Window};
use crate::domain::timestamp::rfc3339;
use crate::error::{Fault, Kind};
use crate::ops::log_history::{History, is_segment};
use crate::ops::pitr_plan::{self, Moment, OpenedPlan, PitrRequest};
use crate::pipeline::BackupReader;
use crate::source::logs::{LogDrill, LogKind, RestoreAtRequest};
use crate::source::{Check, DrillTools, ResourceLimits, RestoreRequest, kinds};
use crate::wire::AppContext;

/// What a drill of a log found.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct LogDrillResult {
    mode: Mode,
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
    let Some((window, _)) = windows.last() else {
        let message = format!("no moment in the log of `{source}` can be restored");
        return Err(Fault::new(Kind::NotFound, message)
            .hint(format!(
                "see `bkp list {source} --windows`; take a snapshot, and ship the log after it"
            ))
            .into());
    };
    let (time, moment) = moment(window, random)?;
    let to = folder.join("drill.tigerbeetle");
    let request = PitrRequest { source, moment: Moment::At(time), base: None };
    let way = pitr_plan::find(history, &request)?;
    let OpenedPlan { base, segments, backup_type } = way.open(catalog, found, &app.ctx)?;
    let kind = kinds::log_kind_of(backup_type)?;
    let tools =
        DrillTools { tigerbeetle: app.settings.tigerbeetle.clone(), ..DrillTools::default() };
    let request = RestoreRequest {
        target: to.clone(),
        replica: None,
        table: None,
        files: Vec::new(),
        addresses: Vec::new(),
        force: false,
        share: ResourceLimits::default(),
    };
    base.iter().chain(&segments).try_for_each(|link| link.check_data(&app.ctx))?;
    let restore_at = RestoreAtRequest {
        base: &base,
        segments: &segments,
        target: way.target,
        restore: &request,
        tools: &tools,
        alone: true,
    };
    (kind.restore_at)(&restore_at, &app.ctx)?;
    let last = way.run.last().map(|link| &link.segment);
    let last = last.ok_or_else(|| Fault::new(Kind::NotFound, "no segment"))?;
    let bounds = on_record(kind, catalog, (history, found), &way, moment, &base);
    let drill = LogDrill { file: &to, last, least: bounds.0, most: bounds.1, tools: &tools };
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

/// What the books must have had at a moment, by what was recorded before and after it: with segments in
/// query mode, with snapshots in wal mode.
fn on_record(
    kind: &LogKind,
    catalog: &Catalog<'_>,
    (history, found): (&History, &[FoundBackup]),
    way: &pitr_plan::PitrPlan<'_>,
    moment: u64,
    base: &[BackupReader<'_>],
) -> (Option<Totals>, Option<Totals>) {
    if way.mode == Mode::Query {
        let totals = |link: &Link| link.segment.totals;
        let ends = |link: &&Link| link.segment.position.last_timestamp;
        let before = way.run.iter().rfind(|link| ends(link) <= moment);
        let after = way.run.iter().find(|link| ends(link) >= moment);
        return (before.and_then(totals), after.and_then(totals));
    }
    let of = |reader: &BackupReader<'_>| (kind.bracket)(&reader.manifest().capture);
    let least = base.last().and_then(of).map(|(before, _)| before);
    let later = history.bases.iter().find(|base| base.timestamp >= moment && base.is_of(way.run));
    let of_id = |id| found.iter().filter(move |found| found.name.id == id && !is_segment(found));
    // Something else may have its id; that is not authentic.
    let mut opened = later
        .into_iter()
        .flat_map(|later| of_id(later.id))
        .filter_map(|found| catalog.open(&found.name).ok());
    let most = opened.find_map(|(reader, _)| of(&reader)).map(|(_, after)| after);
    (least, most)
}
