//! `bkp list --windows`: the windows to which a source can be restored, and its gaps.

use std::fmt::Write as _;

use schemars::JsonSchema;
use serde::Serialize;

use crate::domain::id::BackupId;
use crate::domain::timestamp::spelled;
use crate::error::{Fault, Kind};
use crate::ops::log_history::{History, LogBreak, LogWindow, find};
use crate::ops::log_mode::LogModeName;
use crate::ops::report::Report;
use crate::wire::AppContext;

/// The stable shape `bkp.list-windows/1`.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Listing {
    store: String,
    source: String,
    windows: Vec<WindowRow>,
    /// Where segments do not follow each other.
    gaps: Vec<Gap>,
    /// Manifests that cannot be read.
    problems: Vec<String>,
}

/// A time within which every moment restores.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct WindowRow {
    #[schemars(with = "LogModeName")]
    mode: String,
    /// RFC 3339, by the cluster's clock.
    from: Option<String>,
    until: Option<String>,
    from_nanoseconds: u64,
    until_nanoseconds: u64,
    /// First and last op, in wal mode.
    #[serde(skip_serializing_if = "Option::is_none")]
    first_op: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_op: Option<u64>,
    /// Both for people.
    #[serde(skip)]
    positions: Option<String>,
    /// Segments that make it up.
    segments: usize,
}

/// A place where a log is broken.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Gap {
    #[schemars(with = "LogModeName")]
    mode: &'static str,
    /// The segment that does not follow the one before it.
    segment: BackupId,
    why: String,
    /// A segment is missing or was changed; otherwise it was known when it was shipped.
    pub(super) damage: bool,
}

impl WindowRow {
    /// The windows of a source.
    pub(super) fn all(history: &History) -> Vec<WindowRow> {
        history.windows().iter().map(WindowRow::of).collect()
    }

    fn of(LogWindow { kind, window, run }: &LogWindow<'_>) -> WindowRow {
        WindowRow {
            mode: window.mode.clone(),
            from: spelled(window.from),
            until: spelled(window.until),
            from_nanoseconds: window.from,
            until_nanoseconds: window.until,
            first_op: window.positions.map(|(first, _)| first),
            last_op: window.positions.map(|(_, last)| last),
            positions: window.positions.map(|(first, last)| kind.positions(first, last)),
            segments: run.len(),
        }
    }

    pub(super) fn text(&self) -> String {
        let time = |time: &Option<String>| time.clone().unwrap_or_default();
        let positions = self.positions.as_ref();
        let positions = positions.map(|positions| format!(", {positions}")).unwrap_or_default();
        format!(
            "{} to {} ({}{positions}, {} segments)",
            time(&self.from),
            time(&self.until),
            self.mode,
            self.segments
        )
    }
}

impl Gap {
    pub(super) fn all(history: &History) -> Vec<Gap> {
        let breaks = history.breaks().into_iter();
        let gap =
            |LogBreak { mode, segment, why, is_damage: damage }| Gap { mode, segment, why, damage };
        breaks.map(gap).collect()
    }

    pub(super) fn text(&self) -> String {
        let what = if self.damage { "DAMAGE" } else { "gap" };
        format!("{what} before segment {} ({}): {}", self.segment, self.mode, self.why)
    }
}

/// Lists the windows of a source. Needs no key; reads every manifest of the source.
///
/// # Errors
/// What the store fails with; [`Kind::NotFound`] if the source has no backups.
pub fn run(app: &AppContext, source: &str) -> anyhow::Result<Report> {
    let store = app.store_read(app.settings.sources.get(source))?;
    let found = find(store.as_ref(), source, &app.ctx)?;
    if found.is_empty() {
        let message = format!("{}: no backup of `{source}`", store.url());
        return Err(Fault::new(Kind::NotFound, message).hint("see `bkp list`").into());
    }
    let history = History::read(store.as_ref(), &found, &app.ctx)?;
    let windows = WindowRow::all(&history);
    let gaps = Gap::all(&history);
    let mut text = String::new();
    if windows.is_empty() {
        writeln!(text, "no window: no log continues a snapshot; snapshots can still be restored")?;
    }
    windows.iter().try_for_each(|row| writeln!(text, "{}", row.text()))?;
    gaps.iter().try_for_each(|gap| writeln!(text, "{}", gap.text()))?;
    history.problems.iter().try_for_each(|problem| writeln!(text, "PROBLEM {problem}"))?;
    let damaged = gaps.iter().any(|gap| gap.damage) || !history.problems.is_empty();
    let body = Listing {
        store: store.url().to_owned(),
        source: source.to_owned(),
        windows,
        gaps,
        problems: history.problems,
    };
    let outcome = damaged.then_some(Kind::Integrity);
    Ok(Report::done("bkp.list-windows/1", &body, text)?.with_outcome(outcome))
}
