//! What is wrong with backups and jobs, as rules over what is known of them: pure, so that every
//! rule can be tested at its edges.

use std::time::Duration as StdDuration;

use schemars::JsonSchema;
use serde::Serialize;
use time::{Duration, OffsetDateTime};

use super::record::{DAMAGE, PARTIAL};
use super::schedule::Past;

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

/// What is known of a job.
#[derive(Debug, Clone, Default)]
pub struct JobFacts {
    /// Its name.
    pub name: String,
    /// What its runs were like, by its records and its backups.
    pub past: Past,
    /// Since when it should have done what it should, if it never did and that is known.
    pub since: Option<OffsetDateTime>,
    /// The exit code of its last run that was not skipped, if one is on record.
    pub code: Option<u8>,
    /// How often a failure is tried again before the next regular time.
    pub retries: u32,
    /// How long its good runs took, seconds, oldest first.
    pub seconds: Vec<u32>,
    /// Since when none of its runs did all that it should, if the last one did not.
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
    /// How many records of its runs, and how many backups newer than its last success, carry no proof.
    pub unproven: (usize, usize),
}

/// How often the median a run may take before it counts as slow.
const SLOW: u32 = 3;
/// Runs of less than this are never slow, seconds.
const SLOW_SECONDS_MIN: u32 = 60;

/// What is wrong with a job that runs by itself.
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
            say(level, "late", "it has never done what it should".to_owned());
        }
        Some(last) => {
            let age = now - last;
            if let Some(level) = ages.level(age) {
                say(level, "late", format!("its last good run began {} ago", spelled(age)));
            }
        }
    }
    if job.code == Some(DAMAGE) {
        say(Level::Critical, "damage", "its last run found damage".to_owned());
    } else if job.past.failures > 0 {
        let (failures, code) = (job.past.failures, job.code.unwrap_or(1));
        let level = if failures > job.retries { Level::Critical } else { Level::Warning };
        let how = if job.past.away {
            "and reached no store".to_owned()
        } else {
            format!("exit code {code}")
        };
        say(level, "failing", format!("{failures} run(s) in a row failed, {how}"));
    }
    if let Some(since) = job.unwell {
        let age = now - since;
        if job.code == Some(PARTIAL) {
            let level = if age > ages.critical { Level::Critical } else { Level::Warning };
            let message = "a store gets nothing, or a part of the source is left out: for";
            say(level, "partial", format!("{message} {} now", spelled(age)));
        }
        if job.removed && age > ages.critical {
            let message = "since its runs do not do what they should, cleanup removes nothing: for";
            say(Level::Warning, "frozen", format!("{message} {} now", spelled(age)));
        }
    }
    if let Some((first, since)) = &job.waits
        && now - *since > job.interval
    {
        let message = format!("it was due {} ago, and waits for `{first}`", spelled(now - *since));
        say(Level::Warning, "waits", message);
    }
    if let Some((last, before)) = job.seconds.split_last()
        && before.len() >= SIZES_MIN
    {
        let mut sorted = before.to_vec();
        sorted.sort_unstable();
        let median = sorted.get(sorted.len() / 2).copied().unwrap_or(0);
        if *last > SLOW_SECONDS_MIN && *last > median.saturating_mul(SLOW) {
            let message = format!("its last run took {last} s, usual are {median} s");
            say(Level::Warning, "slow", message);
        }
    }
    found.extend(unproven(job));
    found.extend(of_copies(job, ages, now));
    found
}

/// What no key here proves.
fn unproven(job: &JobFacts) -> Option<Finding> {
    let what = match job.unproven {
        (0, 0) => return None,
        (records, 0) => format!("{records} record(s) of its runs"),
        (0, backups) => format!("{backups} backup(s) that are newer than its last success"),
        (records, backups) => format!(
            "{records} record(s) of its runs, and {backups} backup(s) that are newer than its last success,"
        ),
    };
    let message = format!(
        "{what} carry no proof by a key of this host and count for nothing: whoever can write to the store may have planted them"
    );
    Some(Finding::new(Level::Warning, "unproven", &job.name, message))
}

/// Stores that lack what others have. That all of them lack it is another rule's.
fn of_copies(job: &JobFacts, ages: Ages, now: OffsetDateTime) -> Vec<Finding> {
    let best = job.copies.iter().filter_map(|(_, newest)| *newest).max();
    let lacking = job.copies.iter().filter_map(|(store, newest)| {
        let age = newest.map_or(Duration::MAX, |newest| now - newest);
        let level = ages.level(age).filter(|_level| *newest < best)?;
        let message = match newest {
            Some(_) => {
                format!("what `{store}` has of it is {} old, others have more", spelled(age))
            }
            None => format!("`{store}` has nothing of it, others have"),
        };
        Some(Finding::new(level, "copy", &job.name, message).of_store(store))
    });
    lacking.collect()
}

/// What is known of the backups of a source in one store.
#[derive(Debug, Clone, Default)]
#[expect(clippy::struct_excessive_bools, reason = "things that are true or not by themselves")]
pub struct SourceFacts {
    /// Its name.
    pub name: String,
    /// The store.
    pub store: String,
    /// When its full backups began and their sizes in bytes, oldest first.
    pub full: Vec<(OffsetDateTime, u64)>,
    /// How many backups it has.
    pub backups: usize,
    /// How many of the newest were tried, if no key at hand opens any of them.
    pub unopened: Option<usize>,
    /// How many of those are dated in the future.
    pub future: usize,
    /// How many of those have no object at all.
    pub empty: usize,
    /// How many of those a verification has found damaged.
    pub damaged: usize,
    /// Whether that is so of the newest.
    pub newest_damaged: bool,
    /// Whether a job that is enabled makes backups of it, and whether one verifies them.
    pub made: bool,
    /// Whether a job that is enabled verifies them.
    pub verified: bool,
    /// Whether the jobs that make them were seen for the first time such a short while ago that the first
    /// one need not be late.
    pub young: bool,
    /// How many of its newest backups are full ones although each could have built on the one before.
    pub begun_anew: usize,
    /// Places where its log is broken, of those that are recent.
    pub gaps: Vec<GapFacts>,
    /// Segments of its log that others continue and that are not there, in words.
    pub lost: Vec<String>,
}

/// A place where a log is broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GapFacts {
    /// When what is missing should have been shipped.
    pub at: OffsetDateTime,
    /// Why it is missing.
    pub why: String,
    /// Whether what comes after it restores again.
    pub mended: bool,
}

/// From how many full backups in a row on it is said that there are no increments.
const ANEW_MIN: usize = 3;

/// What is wrong with the backups of a source.
#[must_use]
pub fn of_source(source: &SourceFacts, now: OffsetDateTime) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut say = |level, rule, message: String| {
        let finding = Finding::new(level, rule, &source.name, message);
        // What nobody does is so wherever nothing is.
        let nobody = ["unscheduled", "unverified"].contains(&rule);
        found.push(if nobody { finding } else { finding.of_store(&source.store) });
    };
    if source.backups == 0 {
        let level = if source.young { Level::Info } else { Level::Critical };
        say(level, "missing", "it has no backup".to_owned());
    }
    if source.begun_anew >= ANEW_MIN {
        let count = source.begun_anew;
        let message = format!(
            "its last {count} backups are full ones, although a job makes increments: what runs warn of says why; most likely this host cannot open what it makes (no kms:Decrypt, or a passphrase that was typed wrong: then nobody else can either)"
        );
        say(Level::Warning, "anew", message);
    }
    if !source.made {
        say(Level::Warning, "unscheduled", "no enabled job makes backups of it".to_owned());
    } else if !source.verified {
        say(Level::Info, "unverified", "no enabled job verifies its backups".to_owned());
    }
    if let Some(tried) = source.unopened {
        let message = format!(
            "no key of this host opens any of its newest {tried} backup(s): every new one is a full one, and it is not known whether one restores; give this host a key that may open them, under [keys]"
        );
        say(Level::Warning, "unopened", message);
    }
    if source.future > 0 {
        let count = source.future;
        say(Level::Warning, "future", format!("{count} backup(s) are dated in the future"));
    }
    if source.empty > 0 {
        let count = source.empty;
        say(Level::Critical, "damage", format!("{count} backup(s) have lost their objects"));
    }
    if source.damaged > 0 {
        let level = if source.newest_damaged { Level::Critical } else { Level::Warning };
        let count = source.damaged;
        let message = format!(
            "{count} backup(s) were found damaged: `bkp list --long` says which; cleanup neither counts nor removes them"
        );
        say(level, "damage", message);
    }
    let sizes: Vec<u64> = source.full.iter().map(|(_, bytes)| *bytes).collect();
    if is_odd(&sizes) {
        let message = "the newest full backup has a size far from those before it; cleanup removes none of them";
        say(Level::Warning, "size", message.to_owned());
    }
    let before = source.full.iter().rev().find(|(at, _)| now - *at > DAY * 30);
    if let Some(((_, old), (_, new))) = before.zip(source.full.last())
        && *new / 2 > *old
    {
        say(Level::Warning, "growth", format!("it grew from {old} to {new} bytes in a month"));
    }
    for lost in &source.lost {
        let message = format!(
            "its log lacks {lost}: moments after it do not restore before the next snapshot; see `bkp verify {} --logs`",
            source.name
        );
        say(Level::Critical, "damage", message);
    }
    for gap in &source.gaps {
        let (level, message) = gap.told(now);
        say(level, "gap", message);
    }
    found
}

impl GapFacts {
    /// How bad it is, and what is said of it.
    fn told(&self, now: OffsetDateTime) -> (Level, String) {
        let GapFacts { at, why, mended } = self;
        let (level, then) = if *mended {
            (Level::Warning, "")
        } else {
            (Level::Critical, "; nothing after it restores until the next snapshot")
        };
        (level, format!("its log has a gap of {} ago: {why}{then}", spelled(now - *at)))
    }
}

/// Space of a store, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Space {
    /// What can still be written.
    pub free_bytes: u64,
    /// All there is.
    pub total_bytes: u64,
}

/// What is wrong with the space of a store that holds `stored` bytes and of which that many percent
/// should be free.
#[must_use]
pub fn of_space(
    name: &str,
    stored: u64,
    quota: Option<u64>,
    space: Option<Space>,
    free_percent_min: u8,
) -> Vec<Finding> {
    let mut found = Vec::new();
    let percent = |part: u64, whole: u64| u128::from(part) * 100 / u128::from(whole.max(1));
    if let Some(quota) = quota {
        let used = percent(stored, quota);
        let level = match used {
            95.. => Some(Level::Critical),
            80.. => Some(Level::Warning),
            _ => None,
        };
        if let Some(level) = level {
            let message = format!("{used} % of its quota is used");
            found.push(Finding::new(level, "quota", name, message).of_store(name));
        }
    }
    if let Some(Space { free_bytes, total_bytes }) = space {
        let free = percent(free_bytes, total_bytes);
        let least = u128::from(free_percent_min);
        let level = match free {
            // A quarter of what should be free is next to nothing.
            free if free < least / 4 => Some(Level::Critical),
            free if free < least => Some(Level::Warning),
            _ => None,
        };
        if let Some(level) = level {
            let message = format!("only {free} % of it is free");
            found.push(Finding::new(level, "space", name, message).of_store(name));
        }
    }
    found
}

/// What is wrong if so many events wait for the ledger, the oldest since then.
#[must_use]
pub fn of_outbox(
    waiting: usize,
    oldest: Option<OffsetDateTime>,
    now: OffsetDateTime,
) -> Option<Finding> {
    let old = oldest.is_some_and(|oldest| now - oldest > DAY);
    let level = if old { Level::Critical } else { Level::Warning };
    let message = format!("{waiting} event(s) wait for the ledger");
    (waiting > 0).then(|| Finding::new(level, "outbox", "ledger", message))
}

/// The rule of a store that does not answer.
pub const UNREACHABLE: &str = "store";

/// A store that does not answer.
#[must_use]
pub fn unreachable(name: &str, why: &str) -> Finding {
    Finding::new(Level::Critical, UNREACHABLE, name, format!("it does not answer: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;
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
