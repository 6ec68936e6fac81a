//! The options of `bkp run`.

use std::time::Duration;

/// What `bkp run` was asked for.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// This job, due or not; `None` for all that are due.
    pub job: Option<String>,
    /// Say what would run, and run nothing.
    pub dry_run: bool,
    /// How long to wait for another run of the same job.
    pub patience: Duration,
}
