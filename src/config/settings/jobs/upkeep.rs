//! Settings of `run` and `cleanup`, checked against the jobs.

use std::collections::BTreeMap;
use std::time::Duration;

use super::job::{DAY, HOUR, JobKind, JobSettings, LONGEST};
use crate::config::file::jobs::{CleanupTable, RunTable};
use crate::table::ConfigError;
use crate::table::units::duration;

/// What `run` and `cleanup` do besides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Upkeep {
    /// How many jobs run at the same time.
    pub parallel: usize,
    /// Age from which on what belongs to nothing is removed.
    pub orphan_age: Duration,
    /// Age from which on records of runs are removed.
    pub records: Duration,
    /// After how long what is still wrong is told again.
    pub remind_after: Duration,
}

impl Default for Upkeep {
    fn default() -> Upkeep {
        let days = |days| Duration::from_secs(days * DAY);
        Upkeep { parallel: 2, orphan_age: days(7), records: days(400), remind_after: days(1) }
    }
}

/// Checks the `[run]` and `[cleanup]` tables.
pub(in crate::config) fn upkeep(
    run: &RunTable,
    cleanup: &CleanupTable,
) -> Result<Upkeep, ConfigError> {
    let default = Upkeep::default();
    let of = |place: &str, text: &Option<String>, least, otherwise| {
        text.as_ref().map_or(Ok(otherwise), |text| duration(place, text, least, LONGEST))
    };
    let parallel = run.parallel.unwrap_or(2);
    if !(1..=64).contains(&parallel) {
        let problem = format!("{parallel} is not between 1 and 64");
        return Err(ConfigError::invalid("run.parallel", problem));
    }
    Ok(Upkeep {
        parallel: usize::try_from(parallel).unwrap_or(default.parallel),
        orphan_age: of("cleanup.orphan_age", &cleanup.orphan_age, DAY, default.orphan_age)?,
        records: of("cleanup.records", &cleanup.records, DAY, default.records)?,
        remind_after: of("run.remind_after", &run.remind_after, 60, default.remind_after)?,
    })
}

/// Makes sure that what belongs to no backup gets older than any run of bkp's own can last: it may be
/// what such a run has stored so far.
pub(in crate::config) fn check_ages(
    upkeep: &Upkeep,
    jobs: &BTreeMap<String, JobSettings>,
) -> Result<(), ConfigError> {
    let makes = |job: &&JobSettings| job.run.makes().is_some() || job.run == JobKind::Logs;
    let longest = jobs.values().filter(makes).max_by_key(|job| job.timeout);
    let Some(job) = longest.filter(|job| job.timeout >= upkeep.orphan_age) else { return Ok(()) };
    let (name, hours) = (&job.name, job.timeout.as_secs().div_ceil(HOUR));
    let problem = format!("not longer than the timeout of `{name}`, {hours}h");
    let error = ConfigError::invalid("cleanup.orphan_age", problem);
    Err(error.suggest(format!("increase it, or set job.{name}.timeout")))
}
