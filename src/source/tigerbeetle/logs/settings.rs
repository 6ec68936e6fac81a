//! The keys of a `[source.NAME.logs]` table.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::capture_record::Mode;
use crate::source::logs::OnGap;
use crate::table::ConfigError;
use crate::table::units::duration;

/// The keys of a `[source.NAME.logs]` table.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
// The name that the published schema of the configuration and its messages have.
#[serde(rename = "Table")]
pub(crate) struct LogTable {
    /// What is shipped: wal (default; reads the data file, restores every account and transfer as it was) or query (asks at
    /// `addresses`, restores balances).
    #[serde(default)]
    mode: Option<String>,
    /// When operations were overwritten before they were shipped: report (default) says so and ends
    /// with exit code 3, snapshot does that and takes a snapshot at once.
    #[serde(default)]
    on_gap: Option<String>,
    /// How long the cluster may take for an answer: 1s to 10m. Default 30s.
    #[serde(default)]
    deadline: Option<String>,
    /// The pause between two looks of `bkp logs --follow`: 1s to 1h. Default 5s.
    #[serde(default)]
    every: Option<String>,
}

/// What the table says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LogSettings {
    pub(crate) mode: Mode,
    pub(crate) on_gap: OnGap,
    pub(crate) deadline: Duration,
    pub(crate) every: Duration,
}

/// Checks the table of the source at `place`.
pub(crate) fn log_settings(
    place: &str,
    table: Option<LogTable>,
) -> Result<LogSettings, ConfigError> {
    let LogTable { mode, on_gap, deadline, every } = table.unwrap_or_default();
    let at = |key: &str| format!("{place}.logs.{key}");
    let unknown = |key: &str, text: &str, known: &str| ConfigError::Invalid {
        place: at(key),
        problem: format!("unknown `{text}`"),
        hint: Some(format!("known: {known}")),
    };
    Ok(LogSettings {
        mode: match mode.as_deref() {
            None => Mode::Wal,
            Some(text) => Mode::parse(text).ok_or_else(|| unknown("mode", text, "wal, query"))?,
        },
        on_gap: match on_gap.as_deref() {
            None | Some("report") => OnGap::Report,
            Some("snapshot") => OnGap::Snapshot,
            Some(text) => return Err(unknown("on_gap", text, "report, snapshot")),
        },
        deadline: duration(&at("deadline"), deadline.as_deref().unwrap_or("30s"), 1, 600)?,
        every: duration(&at("every"), every.as_deref().unwrap_or("5s"), 1, 3600)?,
    })
}
