//! Health rules for a log that a server has archived: how far the archive is behind it.

use schemars::JsonSchema;
use serde::Serialize;
use time::Duration;

use super::ages::{Ages, spelled};
use super::finding::{Finding, Level};
use super::rule::Rule;

/// Files that wait to be archived from which on the archive is behind, once the oldest has waited for
/// [`BACKLOG_SECONDS`]: those of a burst are archived together, and wait until then.
const BACKLOG: u64 = 10;
const BACKLOG_SECONDS: u64 = 60;
/// Bytes that are not archived from which on it is, where nobody tells how many files wait.
const BACKLOG_BYTES: u64 = 1 << 30;

/// How far the archive of a log is behind the server that writes it, by what the server says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct LogLag {
    /// Log that is written and not archived, bytes.
    pub bytes: Option<u64>,
    /// For how long the oldest of the files that wait has been waiting.
    pub seconds: Option<u64>,
    /// Files that wait to be archived.
    pub waiting: Option<u64>,
    /// Attempts to archive a file that failed, since the server's counters began.
    pub failures: Option<u64>,
    /// Why nothing is archived now.
    pub stalled: Option<String>,
    /// Why the server may remove log that is not archived, or has.
    pub at_risk: Option<String>,
}

impl LogLag {
    /// Whether more is not archived than a burst leaves.
    #[must_use]
    pub fn has_backlog(&self) -> bool {
        let is_old = self.seconds.is_none_or(|seconds| seconds > BACKLOG_SECONDS);
        self.waiting.is_some_and(|count| count >= BACKLOG && is_old)
            || self.bytes.is_some_and(|bytes| bytes >= BACKLOG_BYTES)
    }
}

/// Findings about the log of a source whose runs are late at these ages.
#[must_use]
pub fn of_lag(source: &str, lag: &LogLag, ages: Ages) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut say =
        |level, message: String| found.push(Finding::new(level, Rule::Lag, source, message));
    if let Some(why) = &lag.at_risk {
        say(Level::Critical, why.clone());
    }
    let age = Duration::seconds(lag.seconds.and_then(|age| age.try_into().ok()).unwrap_or(0));
    let is_behind = lag.stalled.is_some() || lag.has_backlog();
    let level = ages.level(age).max(is_behind.then_some(Level::Warning));
    if let Some(level) = level {
        let why = lag.stalled.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
        let waiting =
            lag.waiting.map(|count| format!("; {count} file(s) wait")).unwrap_or_default();
        let oldest = lag.seconds.filter(|seconds| *seconds > 0);
        let oldest = oldest.map(|_| format!(", the oldest for {}", spelled(age)));
        say(level, format!("the archive is behind{why}{waiting}{}", oldest.unwrap_or_default()));
    }
    found
}

/// A server that does not say how far its log is archived: it may be one that only other hosts reach.
#[must_use]
pub fn lag_unknown(source: &str, why: &str) -> Finding {
    // What a server says is not ours, and one line.
    let why: Vec<&str> = why.lines().collect();
    let message = format!("how far its log is archived is unknown: {}", why.join(" "));
    Finding::new(Level::Info, Rule::Lag, source, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_behind_by_files_by_age_and_by_failures() {
        let ages = Ages { warning: Duration::minutes(10), critical: Duration::hours(1) };
        let of = |lag: LogLag| -> Vec<Level> {
            of_lag("pg", &lag, ages).iter().map(|finding| finding.level).collect()
        };
        let waits = |count, seconds| LogLag {
            waiting: Some(count),
            seconds: Some(seconds),
            ..LogLag::default()
        };
        assert_eq!(of(LogLag::default()), []);
        assert_eq!(of(waits(BACKLOG - 1, 600)), []);
        assert_eq!(of(waits(BACKLOG, BACKLOG_SECONDS)), []);
        assert_eq!(of(waits(BACKLOG, BACKLOG_SECONDS + 1)), [Level::Warning]);
        let much = |bytes| of(LogLag { bytes: Some(bytes), ..LogLag::default() });
        assert_eq!((much(BACKLOG_BYTES - 1), much(BACKLOG_BYTES)), (vec![], vec![Level::Warning]));
        assert_eq!(of(waits(1, 601)), [Level::Warning]);
        assert_eq!(of(waits(1, 3601)), [Level::Critical]);
        let stalled = |seconds| LogLag { stalled: Some("why".into()), ..waits(1, seconds) };
        assert_eq!(
            (of(stalled(0)), of(stalled(3601))),
            (vec![Level::Warning], vec![Level::Critical])
        );
        let at_risk = LogLag { at_risk: Some("lost".into()), ..LogLag::default() };
        assert_eq!(of(at_risk), [Level::Critical]);
        let said = of_lag("pg", &stalled(7260), ages).remove(0).message;
        assert_eq!(said, "the archive is behind: why; 1 file(s) wait, the oldest for 2 h 1 min");
    }
}
