//! Health rules for scheduled jobs.

use time::{Duration, OffsetDateTime};

use super::super::record::{DAMAGE, PARTIAL};
use super::super::schedule::JobHistory;
use super::ages::{Ages, spelled};
use super::finding::{Finding, Level};
use super::rule::Rule;
use super::sizes::SIZES_MIN;

/// Facts about a job.
#[derive(Debug, Clone, Default)]
pub struct JobFacts {
    /// Its name.
    pub name: String,
    /// What its runs were like, by its records and its backups.
    pub past: JobHistory,
    /// Since when a first successful run is overdue, if there was none and that is known.
    pub since: Option<OffsetDateTime>,
    /// The exit code of its last run that was not skipped, if one is on record.
    pub code: Option<u8>,
    /// How often a failure is tried again before the next regular time.
    pub retries: u32,
    /// How long its good runs took, seconds, oldest first.
    pub seconds: Vec<u32>,
    /// Since when no run has fully succeeded, if the last one did not.
    pub unwell: Option<OffsetDateTime>,
    /// The job that it waits for because that one failed, and since when it has been due.
    pub waits: Option<(String, OffsetDateTime)>,
    /// The time between two runs.
    pub interval: Duration,
    /// Whether a job removes what its retention does not keep.
    pub removed: bool,
    /// Of each of several stores that answer: its name, and when the newest of the job's backups there
    /// began, or the last good verification of what is there.
    pub copies: Vec<(String, Option<OffsetDateTime>)>,
    /// What it has not copied yet, if it copies from one store to another.
    pub uncopied: Vec<Uncopied>,
    /// How many records of its runs, and how many backups newer than its last success, carry no proof.
    pub unproven: (usize, usize),
}

/// Backups of a source that are newer than any that was copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uncopied {
    /// The source.
    pub source: String,
    /// The store that has them.
    pub from: String,
    /// The store that lacks them.
    pub to: String,
    /// How many there are.
    pub count: usize,
    /// When the oldest of them was made.
    pub oldest: OffsetDateTime,
}

/// How often the median a run may take before it counts as slow.
const SLOW: u32 = 3;
/// Runs of less than this are never slow, seconds.
const SLOW_SECONDS_MIN: u32 = 60;

/// Findings about a scheduled job.
#[must_use]
pub fn of_job(job: &JobFacts, ages: Ages, now: OffsetDateTime) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut say = |level, rule, message| {
        found.push(Finding::new(level, rule, &job.name, message));
    };
    match job.past.succeeded {
        None => {
            let level = match job.since {
                Some(since) => ages.level(now - since).unwrap_or(Level::Info),
                None => Level::Critical,
            };
            say(level, Rule::Late, "no successful run yet".to_owned());
        }
        Some(last) => {
            let age = now - last;
            if let Some(level) = ages.level(age) {
                say(level, Rule::Late, format!("last successful run began {} ago", spelled(age)));
            }
        }
    }
    if job.code == Some(DAMAGE) {
        say(Level::Critical, Rule::Damage, "last run found damage".to_owned());
    } else if job.past.failures > 0 {
        let (failures, code) = (job.past.failures, job.code.unwrap_or(1));
        let level = if failures > job.retries { Level::Critical } else { Level::Warning };
        let how = if job.past.away {
            "no store was reachable".to_owned()
        } else {
            format!("exit code {code}")
        };
        say(level, Rule::Failing, format!("{failures} consecutive run(s) failed, {how}"));
    }
    if let Some(since) = job.unwell {
        let age = now - since;
        if job.code == Some(PARTIAL) {
            let level = if age > ages.critical { Level::Critical } else { Level::Warning };
            let message = "a store receives nothing, or part of the source is skipped: for";
            say(level, Rule::Partial, format!("{message} {} now", spelled(age)));
        }
        if job.removed && age > ages.critical {
            let message = "cleanup removes nothing because its runs do not succeed: for";
            say(Level::Warning, Rule::Frozen, format!("{message} {} now", spelled(age)));
        }
    }
    if let Some((first, since)) = &job.waits
        && now - *since > job.interval
    {
        let message = format!("was due {} ago; waiting for `{first}`", spelled(now - *since));
        say(Level::Warning, Rule::Waits, message);
    }
    if let Some((last, before)) = job.seconds.split_last()
        && before.len() >= SIZES_MIN
    {
        let mut sorted = before.to_vec();
        sorted.sort_unstable();
        let median = sorted.get(sorted.len() / 2).copied().unwrap_or(0);
        if *last > SLOW_SECONDS_MIN && *last > median.saturating_mul(SLOW) {
            let message = format!("ran {last} s; median is {median} s");
            say(Level::Warning, Rule::Slow, message);
        }
    }
    found.extend(unproven(job));
    found.extend(of_copies(job, ages, now));
    found.extend(job.uncopied.iter().filter_map(|lacking| of_uncopied(job, lacking, ages, now)));
    found
}

/// The finding about backups that wait to be copied for too long.
fn of_uncopied(
    job: &JobFacts,
    lacking: &Uncopied,
    ages: Ages,
    now: OffsetDateTime,
) -> Option<Finding> {
    let Uncopied { source, from, to, count, oldest } = lacking;
    let age = now - *oldest;
    let message = format!(
        "`{to}` lacks the newest {count} backup(s) of {source} in `{from}`, the first of them for {}",
        spelled(age)
    );
    let finding = Finding::new(ages.level(age)?, Rule::StaleCopy, &job.name, message);
    Some(finding.of_store(to))
}

/// The finding about records and backups that no key on this host authenticates.
fn unproven(job: &JobFacts) -> Option<Finding> {
    let what = match job.unproven {
        (0, 0) => return None,
        (records, 0) => format!("{records} run record(s)"),
        (0, backups) => format!("{backups} backup(s) newer than the last success"),
        (records, backups) => {
            format!("{records} run record(s) and {backups} backup(s) newer than the last success")
        }
    };
    let message = format!(
        "{what} are not authenticated by any key on this host and are ignored: anyone who can write to the store may have planted them"
    );
    Some(Finding::new(Level::Warning, Rule::Unproven, &job.name, message))
}

/// Findings about stores where the last backup or verification is older than in others. If it
/// is old in all of them, another rule says so.
fn of_copies(job: &JobFacts, ages: Ages, now: OffsetDateTime) -> Vec<Finding> {
    let best = job.copies.iter().filter_map(|(_, newest)| *newest).max();
    let lacking = job.copies.iter().filter_map(|(store, newest)| {
        let age = newest.map_or(Duration::MAX, |newest| now - newest);
        let level = ages.level(age).filter(|_level| *newest < best)?;
        let message = match newest {
            Some(_) => {
                format!(
                    "last success in `{store}` was {} ago; other stores have more recent ones",
                    spelled(age)
                )
            }
            None => format!("no success in `{store}` yet; other stores have one"),
        };
        Some(Finding::new(level, Rule::StaleCopy, &job.name, message).of_store(store))
    });
    lacking.collect()
}
