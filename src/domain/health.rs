//! What is wrong with backups and jobs, as rules over what is known of them: pure, so that every
//! rule can be tested at its edges.

use std::time::Duration as StdDuration;

use schemars::JsonSchema;
use serde::Serialize;
use time::Duration;

pub use job::{JobFacts, of_job};
pub use source::{GapFacts, SourceFacts, of_source};
pub use store::{Space, UNREACHABLE, of_outbox, of_space, unreachable, unusable};

mod job;
mod source;
mod store;

/// How bad something is.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    serde::Deserialize,
    JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Worth knowing.
    Info,
    /// Worth a look today.
    Warning,
    /// A promise is broken.
    Critical,
}

impl Level {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Level::Info => "info",
            Level::Warning => "warning",
            Level::Critical => "critical",
        }
    }
}

/// Something that is wrong: what a rule found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Finding {
    /// How bad.
    pub level: Level,
    /// The rule, for instance `late`.
    pub rule: &'static str,
    /// What it is about: a job, a source, a store.
    pub subject: String,
    /// The store in which that is so, if it need not be so in others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store: Option<String>,
    /// What is wrong, in one sentence.
    pub message: String,
}

impl Finding {
    fn new(level: Level, rule: &'static str, subject: &str, message: String) -> Finding {
        Finding { level, rule, subject: subject.to_owned(), store: None, message }
    }

    /// Its subject, and the store if it is about that alone.
    #[must_use]
    pub fn about(&self) -> String {
        about(&self.subject, self.store.as_deref())
    }

    fn of_store(self, store: &str) -> Finding {
        Finding { store: Some(store.to_owned()), ..self }
    }
}

/// What something is about, in words: a subject, and perhaps one store.
#[must_use]
pub fn about(subject: &str, store: Option<&str>) -> String {
    match store.filter(|store| *store != subject) {
        Some(store) => format!("{subject} in {store}"),
        None => subject.to_owned(),
    }
}

/// From which age of the last good run on a job is late.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ages {
    /// It is worth a look.
    pub warning: Duration,
    /// The promise is broken.
    pub critical: Duration,
}

const DAY: Duration = Duration::DAY;

impl Ages {
    /// The ages for a job that runs every `interval`: as configured, else a warning after four
    /// intervals, at most a day but at least one and a half intervals; critical after twice that.
    #[must_use]
    pub fn of(
        interval: Duration,
        warning: Option<StdDuration>,
        critical: Option<StdDuration>,
    ) -> Ages {
        let given = |length: StdDuration| Duration::try_from(length).unwrap_or(Duration::MAX);
        let usual = (interval.saturating_mul(4)).min(DAY).max(interval.saturating_mul(3) / 2);
        let warning = warning.map_or(usual, given);
        let critical = critical.map_or(warning.saturating_mul(2), given);
        Ages { warning: warning.min(critical), critical }
    }

    /// How bad it is to be so old.
    fn level(&self, age: Duration) -> Option<Level> {
        match age {
            age if age > self.critical => Some(Level::Critical),
            age if age > self.warning => Some(Level::Warning),
            _ => None,
        }
    }
}

/// A length of time as people say it.
fn spelled(length: Duration) -> String {
    format!("{} h {} min", length.whole_hours(), length.whole_minutes() % 60)
}

/// How many earlier sizes a size is compared with at least.
const SIZES_MIN: usize = 3;

/// Whether the newest of `sizes` (oldest first, bytes, all of one scope) is far from those before it:
/// less than half or more than three times their median. A source that was emptied looks so, and one
/// that somebody encrypts.
#[must_use]
pub fn is_odd(sizes: &[u64]) -> bool {
    let Some((newest, before)) = sizes.split_last() else { return false };
    if before.len() < SIZES_MIN {
        return false;
    }
    // Only the recent past: sources grow.
    let mut recent: Vec<u64> = before.iter().rev().take(15).copied().collect();
    recent.sort_unstable();
    let median = recent.get(recent.len() / 2).copied().unwrap_or(0);
    *newest < median / 2 || *newest > median.saturating_mul(3)
}

#[cfg(test)]
mod tests {
    use super::super::schedule::Past;
    use super::*;
    use time::OffsetDateTime;
    use time::macros::datetime;

    const NOW: OffsetDateTime = datetime!(2026-11-21 12:00 UTC);

    fn rules(found: &[Finding]) -> Vec<(&'static str, Level)> {
        found.iter().map(|finding| (finding.rule, finding.level)).collect()
    }

    #[test]
    fn a_job_is_late_from_its_ages_on_and_failing_until_it_succeeds() {
        let ages = Ages { warning: Duration::hours(24), critical: Duration::hours(48) };
        let of = |hours, failures, code| {
            let succeeded = Some(NOW - Duration::hours(hours));
            let past = Past { succeeded, tried: succeeded, failures, away: false };
            let facts = JobFacts { past, code: Some(code), retries: 2, ..JobFacts::default() };
            rules(&of_job(&facts, ages, NOW))
        };
        assert_eq!(of(24, 0, 0), []);
        assert_eq!(of(25, 0, 0), [("late", Level::Warning)]);
        assert_eq!(of(49, 0, 0), [("late", Level::Critical)]);
        assert_eq!(of(1, 2, 16), [("failing", Level::Warning)]);
        assert_eq!(of(1, 3, 16), [("failing", Level::Critical)]);
        assert_eq!(of(1, 1, 13), [("damage", Level::Critical)]);
        let never = rules(&of_job(&JobFacts::default(), ages, NOW));
        assert_eq!(never, [("late", Level::Critical)]);
    }

    #[test]
    fn runs_that_do_a_part_stores_that_lack_and_jobs_that_wait_are_seen() {
        let ages = Ages { warning: Duration::hours(24), critical: Duration::hours(48) };
        let past = Past { succeeded: Some(NOW), tried: Some(NOW), ..Past::default() };
        let well = JobFacts { past, interval: Duration::hours(6), ..JobFacts::default() };
        let of = |facts: JobFacts| rules(&of_job(&facts, ages, NOW));
        let hours = |hours| NOW - Duration::hours(hours);
        let partial = |since, removed| {
            let unwell = Some(hours(since));
            of(JobFacts { code: Some(3), unwell, removed, ..well.clone() })
        };
        assert_eq!(partial(1, true), [("partial", Level::Warning)]);
        assert_eq!(partial(49, true), [("partial", Level::Critical), ("frozen", Level::Warning)]);
        assert_eq!(partial(49, false), [("partial", Level::Critical)]);
        let copies = |a: Option<i64>, b: Option<i64>| {
            let copies = vec![("a".into(), a.map(hours)), ("b".into(), b.map(hours))];
            let found = of_job(&JobFacts { copies, ..well.clone() }, ages, NOW);
            found.into_iter().map(|one| (one.level, one.store.unwrap())).collect::<Vec<_>>()
        };
        assert_eq!(copies(Some(1), Some(24)), []);
        assert_eq!(copies(Some(1), Some(25)), [(Level::Warning, "b".to_owned())]);
        assert_eq!(copies(Some(49), Some(1)), [(Level::Critical, "a".to_owned())]);
        assert_eq!(copies(Some(1), None), [(Level::Critical, "b".to_owned())]);
        assert_eq!(copies(Some(90), Some(90)), [], "that is `late`");
        assert_eq!(copies(None, None), [], "that is `missing`");
        let waits =
            |since| of(JobFacts { waits: Some(("a".into(), hours(since))), ..well.clone() });
        assert_eq!((waits(6), waits(7)), (vec![], vec![("waits", Level::Warning)]));
    }

    #[test]
    fn a_run_is_slow_against_those_before_it() {
        let of = |seconds: &[u32]| {
            let past = Past { succeeded: Some(NOW), ..Past::default() };
            let facts = JobFacts { past, seconds: seconds.to_vec(), ..JobFacts::default() };
            rules(&of_job(&facts, Ages::of(DAY, None, None), NOW))
        };
        assert_eq!(of(&[30, 30, 30, 91]), [("slow", Level::Warning)]);
        assert_eq!(of(&[30, 30, 30, 90]), []);
        assert_eq!(of(&[1, 1, 1, 60]), [], "too short to matter");
        assert_eq!(of(&[1, 1, 1000]), [], "nothing to compare with");
    }

    #[test]
    fn a_source_has_backups_of_a_steady_size_that_are_made_and_verified() {
        let good = SourceFacts {
            full: (0..90).rev().map(|day| (NOW - DAY * day, 1000)).collect(),
            backups: 90,
            made: true,
            verified: true,
            ..SourceFacts::default()
        };
        let of = |facts: &SourceFacts| rules(&of_source(facts, NOW));
        assert_eq!(of(&good), []);
        let grown =
            good.full.iter().map(|(at, _)| (*at, if NOW - *at > DAY * 20 { 900 } else { 2000 }));
        assert_eq!(
            of(&SourceFacts { full: grown.collect(), ..good.clone() }),
            [("growth", Level::Warning)]
        );
        let mut odd = good.clone();
        odd.full.push((NOW, 10));
        assert_eq!(of(&odd), [("size", Level::Warning)]);
        let bad = SourceFacts { backups: 0, made: false, future: 1, empty: 1, ..good.clone() };
        let found = of(&bad).into_iter().map(|(rule, _)| rule).collect::<Vec<_>>();
        assert_eq!(found, ["missing", "unscheduled", "future", "damage"]);
        let gap = |mended| {
            let gaps = vec![GapFacts { at: NOW, why: "the ring turned".into(), mended }];
            of(&SourceFacts { gaps, ..good.clone() })
        };
        assert_eq!(gap(true), [("gap", Level::Warning)]);
        assert_eq!(gap(false), [("gap", Level::Critical)]);
        assert_eq!(of(&SourceFacts { verified: false, ..good }), [("unverified", Level::Info)]);
    }

    #[test]
    fn space_and_quota_have_two_edges_each() {
        let space = |free_bytes| {
            let space = Space { free_bytes, total_bytes: 100 };
            rules(&of_space("s", 0, None, Some(space), 20))
        };
        assert_eq!((space(20), space(100)), (vec![], vec![]));
        assert_eq!(space(19), [("space", Level::Warning)]);
        assert_eq!(space(4), [("space", Level::Critical)]);
        let quota = |stored| rules(&of_space("s", stored, Some(100), None, 20));
        assert_eq!(quota(79), []);
        assert_eq!(quota(80), [("quota", Level::Warning)]);
        assert_eq!(quota(95), [("quota", Level::Critical)]);
        assert_eq!(of_outbox(0, None, NOW), None);
        let waits =
            |hours| of_outbox(1, Some(NOW - Duration::hours(hours)), NOW).map(|found| found.level);
        assert_eq!((waits(24), waits(25)), (Some(Level::Warning), Some(Level::Critical)));
    }

    #[test]
    fn ages_follow_from_the_interval() {
        let of = |interval| Ages::of(interval, None, None);
        let hours = Duration::hours;
        assert_eq!(of(hours(6)), Ages { warning: hours(24), critical: hours(48) });
        assert_eq!(of(hours(24)), Ages { warning: hours(36), critical: hours(72) });
        let minutes = Duration::minutes;
        assert_eq!(of(minutes(15)), Ages { warning: hours(1), critical: hours(2) });
        let given = Ages::of(hours(6), None, Some(StdDuration::from_hours(8)));
        assert_eq!(given, Ages { warning: hours(8), critical: hours(8) });
    }

    #[test]
    fn a_size_is_odd_only_when_there_is_something_to_compare_it_with() {
        assert!(!is_odd(&[]) && !is_odd(&[5]) && !is_odd(&[100, 100, 1]));
        assert!(is_odd(&[100, 100, 100, 49]) && !is_odd(&[100, 100, 100, 50]));
        assert!(is_odd(&[100, 100, 100, 301]) && !is_odd(&[100, 100, 100, 300]));
        let growing: Vec<u64> = (1..100).map(|n| n * 1000).collect();
        assert!(!is_odd(&growing));
    }
}
