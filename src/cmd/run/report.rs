//! The report of `bkp run`: the outcome of every job, and what is due next.

use std::fmt::Write as _;

use schemars::JsonSchema;
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::domain::id::BackupId;
use crate::error::Kind;
use crate::exit;

/// The stable shape `bkp.run/1`.
#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::cmd) struct RunReport {
    /// Nothing was run, only decided.
    pub(super) dry_run: bool,
    /// What ran or should have, in the order in which it ended.
    pub(super) jobs: Vec<JobRunRow>,
    /// What comes next.
    pub(super) next: Vec<NextRun>,
}

/// What became of one job.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(in crate::cmd) struct JobRunRow {
    pub(super) job: String,
    pub(super) outcome: JobOutcome,
    /// The exit code of its run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) exit_code: Option<u8>,
    pub(super) seconds: f64,
    /// The backup that it made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) backup: Option<BackupId>,
    /// Why it failed or did not run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) message: Option<String>,
}

/// The outcome of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::cmd) enum JobOutcome {
    /// It is due and would run.
    Due,
    /// It did what it should.
    Done,
    /// It did a part of it.
    Partial,
    /// It failed.
    Failed,
    /// Another run of it is going on.
    Busy,
    /// Another host has just run it.
    Elsewhere,
    /// A job that goes first failed. Said once for each such failure.
    Waits,
}

/// When a job is due next.
#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::cmd) struct NextRun {
    pub(super) job: String,
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub(super) at: OffsetDateTime,
}

impl JobRunRow {
    pub(super) fn new(job: String, outcome: JobOutcome, message: Option<String>) -> JobRunRow {
        JobRunRow { job, outcome, exit_code: None, seconds: 0.0, backup: None, message }
    }

    /// What its run ended with; `None` if that was well.
    fn kind(&self) -> Option<Kind> {
        if self.outcome == JobOutcome::Waits {
            return Some(Kind::Partial);
        }
        let code = self.exit_code?;
        let found = Kind::ALL.into_iter().find(|kind| exit::code(*kind) == code);
        if code == exit::DONE { None } else { found.or(Some(Kind::Failed)) }
    }

    /// Whether somebody should see it.
    pub(super) fn is_bad(&self) -> bool {
        matches!(self.outcome, JobOutcome::Failed | JobOutcome::Partial | JobOutcome::Waits)
    }

    /// Whether the job did not run, which is over as soon as it does.
    pub(super) fn is_passing(&self) -> bool {
        matches!(self.outcome, JobOutcome::Busy | JobOutcome::Elsewhere | JobOutcome::Waits)
    }

    /// The same in a line.
    pub(super) fn line(&self) -> String {
        let verb = match self.outcome {
            JobOutcome::Due => "is due",
            JobOutcome::Done => "done",
            JobOutcome::Partial => "partly done",
            JobOutcome::Failed => "FAILED",
            JobOutcome::Busy if self.exit_code == Some(exit::code(Kind::Thawing)) => "waiting",
            JobOutcome::Busy => "already running",
            JobOutcome::Elsewhere => "was run by another host",
            JobOutcome::Waits => "did not run",
        };
        let ended = self.exit_code.map(|code| format!(", exit code {code}, {:.1} s", self.seconds));
        let why = self.message.as_ref().map(|message| format!(": {message}"));
        format!("{}: {verb}{}{}", self.job, ended.unwrap_or_default(), why.unwrap_or_default())
    }
}

impl RunReport {
    /// What the tick ends with. That a job runs already is well, unless it was asked for by name.
    pub(super) fn outcome(&self, by_name: bool) -> Option<Kind> {
        let counts = |row: &&JobRunRow| by_name || row.outcome != JobOutcome::Busy;
        let kinds: Vec<Option<Kind>> =
            self.jobs.iter().filter(counts).map(JobRunRow::kind).collect();
        let bad = kinds.iter().flatten().next().copied();
        if kinds.contains(&None) && bad.is_some() { Some(Kind::Partial) } else { bad }
    }

    pub(super) fn render(&self) -> anyhow::Result<String> {
        let mut text = String::new();
        for row in &self.jobs {
            writeln!(text, "{}", row.line())?;
        }
        if self.jobs.is_empty() {
            text.push_str("nothing is due");
            match self.next.first() {
                Some(NextRun { job, at }) => {
                    writeln!(text, "; next is {job} at {}", at.format(&Rfc3339)?)?;
                }
                None => text.push('\n'),
            }
        }
        Ok(text)
    }
}
