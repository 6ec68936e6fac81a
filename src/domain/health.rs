//! Health rules for backups and jobs: pure functions over facts, so that every rule can be tested at
//! its edges.

pub use ages::Ages;
pub use finding::{Finding, Level, about};
pub use job::{JobFacts, Uncopied, of_job};
pub use key::{KeyHealth, of_key, unasked};
pub use lag::{LogLag, lag_unknown, of_lag};
pub use rule::Rule;
pub use sizes::is_odd;
pub use source::{GapFacts, SourceFacts, of_source};
pub use store::{Space, of_outbox, of_space, unreachable, unusable};

mod ages;
mod finding;
mod job;
mod key;
mod lag;
mod rule;
mod sizes;
mod source;
mod store;

#[cfg(test)]
mod tests {
    use super::super::schedule::JobHistory;
    use super::ages::DAY;
    use super::*;
    use std::time::Duration as StdDuration;
    use time::macros::datetime;
    use time::{Duration, OffsetDateTime};

    const NOW: OffsetDateTime = datetime!(2026-11-21 12:00 UTC);

    fn rules(found: &[Finding]) -> Vec<(&'static str, Level)> {
        found.iter().map(|finding| (finding.rule.as_str(), finding.level)).collect()
    }

    #[test]
    fn a_job_is_late_from_its_ages_on_and_failing_until_it_succeeds() {
        let ages = Ages { warning: Duration::hours(24), critical: Duration::hours(48) };
        let of = |hours, failures, code| {
            let succeeded = Some(NOW - Duration::hours(hours));
            let past = JobHistory { succeeded, tried: succeeded, failures, away: false };
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
        let past = JobHistory { succeeded: Some(NOW), tried: Some(NOW), ..JobHistory::default() };
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
        let uncopied = |hours| {
            let (source, from, to) = ("s".into(), "a".into(), "b".into());
            let oldest = NOW - Duration::hours(hours);
            let uncopied = vec![Uncopied { source, from, to, count: 2, oldest }];
            of(JobFacts { uncopied, ..well.clone() })
        };
        assert_eq!(uncopied(24), []);
        assert_eq!(uncopied(25), [("copy", Level::Warning)]);
        assert_eq!(uncopied(49), [("copy", Level::Critical)]);
        let waits =
            |since| of(JobFacts { waits: Some(("a".into(), hours(since))), ..well.clone() });
        assert_eq!((waits(6), waits(7)), (vec![], vec![("waits", Level::Warning)]));
    }

    #[test]
    fn a_run_is_slow_against_those_before_it() {
        let of = |seconds: &[u32]| {
            let past = JobHistory { succeeded: Some(NOW), ..JobHistory::default() };
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
