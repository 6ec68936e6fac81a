//! The report of `bkp status`.

use schemars::JsonSchema;
use serde::Serialize;
use time::OffsetDateTime;

use crate::domain::health::{Finding, Level, LogLag, Space};
use crate::domain::verify_level::VerifyLevel;

/// The stable shape `bkp.status/1`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Status {
    /// When this was found.
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub(super) at: OffsetDateTime,
    /// The worst of the findings; null if there is none.
    pub(super) health: Option<Level>,
    pub(super) findings: Vec<Finding>,
    pub(super) jobs: Vec<JobRow>,
    pub(super) sources: Vec<SourceRow>,
    /// Logs that servers archive.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) logs: Vec<LogRow>,
    pub(super) stores: Vec<StoreRow>,
    /// The month of the public prices, which `[status] prices` replaces, and of the fees.
    pub(super) prices_of: &'static str,
    /// Events that wait for the ledger.
    pub(super) outbox: usize,
}

/// The state of a job.
#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::cmd) struct JobRow {
    pub(super) job: String,
    pub(super) command: String,
    pub(super) source: Option<String>,
    /// Whose data the source holds, if its table says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tenant: Option<String>,
    /// When it runs: `every 6h`, or `daily at 03:00 UTC`.
    pub(super) schedule: String,
    /// The level of a verification.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) level: Option<VerifyLevel>,
    pub(super) enabled: bool,
    /// When its last good run began.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub(super) last_success: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339::option")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub(super) last_run: Option<OffsetDateTime>,
    pub(super) last_exit_code: Option<u8>,
    pub(super) last_seconds: Option<u32>,
    /// Consecutive failed runs.
    pub(super) failures: u32,
    #[serde(with = "time::serde::rfc3339::option")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub(super) next: Option<OffsetDateTime>,
    /// Age of the last good run.
    pub(super) age_seconds: Option<i64>,
    /// The age that is a warning.
    pub(super) warning_seconds: i64,
    /// The age that breaks the promise.
    pub(super) critical_seconds: i64,
    /// The worst that is wrong with it.
    pub(super) health: Option<Level>,
}

/// The backups of a source in a store.
#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::cmd) struct SourceRow {
    pub(super) source: String,
    /// Whose data it holds, if its table says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tenant: Option<String>,
    pub(super) store: String,
    pub(super) backups: usize,
    pub(super) full: usize,
    pub(super) pinned: usize,
    #[serde(with = "time::serde::rfc3339::option")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub(super) oldest: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339::option")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub(super) newest: Option<OffsetDateTime>,
    pub(super) stored_bytes: u64,
    /// When a job verified its backups here last, at any level, and found them well.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub(super) last_verify: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339::option")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub(super) last_drill: Option<OffsetDateTime>,
    /// What that drill measured: from the store to the restored engine's first answer.
    pub(super) last_drill_rto_seconds: Option<f64>,
    /// What keeping them costs, in the currency of the prices.
    pub(super) cost_per_month: f64,
    /// What minimum storage terms of their classes would still cost if all were removed now.
    pub(super) cost_of_minimum_terms: f64,
    /// What reading all of them once would cost in fees, with a thaw at the standard speed where it takes one.
    pub(super) cost_of_retrieval: f64,
    /// The same for what the retention of its jobs will hold a year from now.
    pub(super) cost_per_month_in_a_year: f64,
}

/// How far the archive of a source's log is behind.
#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::cmd) struct LogRow {
    pub(super) source: String,
    #[serde(flatten)]
    pub(super) lag: LogLag,
}

/// The state of a store.
#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::cmd) struct StoreRow {
    pub(super) store: String,
    /// Why it does not answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) problem: Option<String>,
    pub(super) backups: usize,
    pub(super) stored_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) quota_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) space: Option<Space>,
    pub(super) storage_class: String,
    pub(super) cost_per_month: f64,
}

impl Status {
    /// What is wrong, the worst first.
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// Names of the stores that do not answer: nothing is known of what is in them.
    pub fn away(&self) -> impl Iterator<Item = &str> + Clone {
        let away = self.stores.iter().filter(|row| row.problem.is_some());
        away.map(|row| row.store.as_str())
    }
}

impl StoreRow {
    pub(super) fn away(store: String, why: String) -> StoreRow {
        StoreRow {
            store,
            problem: Some(why),
            backups: 0,
            stored_bytes: 0,
            quota_bytes: None,
            space: None,
            storage_class: String::new(),
            cost_per_month: 0.0,
        }
    }
}
