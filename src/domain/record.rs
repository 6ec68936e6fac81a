//! Records of the runs of a job in a store: one small object each, whose key contains everything a
//! schedule needs, so that one listing shows the state of a job.
//!
//! ```text
//! runs/<job>/<YYYY>/<MM>/<id>-<exit code>-<seconds>.json
//! ```
//!
//! The id is a UUID version 7: its time is when the run began.

use time::{Date, OffsetDateTime};

use super::id::BackupId;
use super::schedule::{JobHistory, SKEW};
use crate::error::Kind;
use crate::exit;

/// What a damaged backup makes `bkp verify` end with.
pub const DAMAGE: u8 = exit::code(Kind::Integrity);
/// What a run ends with that did its work in part.
pub const PARTIAL: u8 = exit::code(Kind::Partial);
/// What a run ends with that did its work, and somebody has yet to be told.
const PENDING: u8 = exit::code(Kind::Pending);
/// What a run ends with that another one was in the way of.
const BUSY: u8 = exit::code(Kind::Busy);
/// What a run ends with that has to wait for cold objects.
const THAWING: u8 = exit::code(Kind::Thawing);

/// Where the records are.
pub const FOLDER: &str = "runs";

/// One run of a job, as its key says.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Record {
    /// Which run; its time is the beginning.
    pub id: BackupId,
    /// The job.
    pub job: String,
    /// Its exit code.
    pub code: u8,
    /// How long it took, seconds.
    pub seconds: u32,
}

/// What a run means for the schedule of its job; what weighs more comes later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RunOutcome {
    /// It did nothing, because another run was at it.
    Skipped,
    /// It did what it should; an event may still wait for the ledger.
    Good,
    /// It did its work in part: one of several stores has no copy, for instance.
    Partial,
    /// It failed.
    Failed,
}

impl Record {
    /// The folder of the records of a job that began in the month of `day`.
    #[must_use]
    pub fn folder(job: &str, day: Date) -> String {
        format!("{FOLDER}/{job}/{:04}/{:02}", day.year(), u8::from(day.month()))
    }

    /// Its key.
    #[must_use]
    pub fn key(&self) -> String {
        let Record { id, job, code, seconds } = self;
        format!("{}/{id}-{code}-{seconds}.json", Record::folder(job, id.created().date()))
    }

    /// Reads a key; `None` if it is not exactly that of a record.
    #[must_use]
    pub fn parse(key: &str) -> Option<Record> {
        let mut parts = key.split('/');
        let (_, job) = (parts.next()?, parts.next()?.to_owned());
        let mut fields = parts.next_back()?.strip_suffix(".json")?.rsplitn(3, '-');
        let seconds = fields.next()?.parse().ok()?;
        let code = fields.next()?.parse().ok()?;
        let record = Record { id: fields.next()?.parse().ok()?, job, code, seconds };
        (record.key() == key).then_some(record)
    }

    /// What it means.
    #[must_use]
    pub fn outcome(&self) -> RunOutcome {
        outcome(self.code)
    }
}

/// What an exit code means.
fn outcome(code: u8) -> RunOutcome {
    match code {
        exit::DONE | PENDING => RunOutcome::Good,
        PARTIAL => RunOutcome::Partial,
        BUSY | THAWING => RunOutcome::Skipped,
        _ => RunOutcome::Failed,
    }
}

/// How much an exit code weighs against another one: damage more than anything else.
#[must_use]
pub fn weigh(code: u8) -> (RunOutcome, bool, u8) {
    (outcome(code), code == DAMAGE, code)
}

/// One record for each run, oldest first, from those of several stores: a record may say how the run
/// went in its store alone, and of those the worst counts.
#[must_use]
pub fn merged(mut records: Vec<Record>) -> Vec<Record> {
    records.sort_by_key(|record| (record.id, std::cmp::Reverse(weigh(record.code))));
    records.dedup_by_key(|record| record.id);
    records
}

/// What the records of a job, in any order, say about its past at `now`. What is dated in the future
/// by more than clocks may differ was dated by a wrong clock and does not count.
#[must_use]
pub fn past(records: &[Record], now: OffsetDateTime) -> JobHistory {
    let real = |record: &&Record| {
        record.outcome() != RunOutcome::Skipped && record.id.created() - now <= SKEW
    };
    let mut counted: Vec<&Record> = records.iter().filter(real).collect();
    counted.sort();
    let good =
        |record: &&&Record| matches!(record.outcome(), RunOutcome::Good | RunOutcome::Partial);
    let failures = counted.iter().rev().take_while(|record| !good(record)).count();
    let succeeded = counted.iter().rev().find(good);
    JobHistory {
        succeeded: succeeded.map(|record| record.id.created()),
        tried: counted.last().map(|record| record.id.created()),
        failures: u32::try_from(failures).unwrap_or(u32::MAX),
        away: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use time::macros::datetime;

    fn record(minute: i64, code: u8) -> Record {
        let at = datetime!(2026-11-21 12:00 UTC) + time::Duration::minutes(minute);
        Record { id: BackupId::new(at), job: "nightly".into(), code, seconds: 3 }
    }

    proptest! {
        #[test]
        fn keys_are_read_as_they_are_written(
            seconds in 0_i64..4_000_000_000, job in "[a-z0-9][a-z0-9_-]{0,20}", code: u8, took: u32,
        ) {
            let at = OffsetDateTime::from_unix_timestamp(seconds).expect("in range");
            let record = Record { id: BackupId::new(at), job, code, seconds: took };
            prop_assert_eq!(Record::parse(&record.key()), Some(record));
        }
    }

    #[test]
    fn other_keys_are_no_records() {
        let key = record(0, 0).key();
        for wrong in [
            key.replace("2026/11", "2026/12"),
            key.replace("-0-3.json", "-00-3.json"),
            key.replace("runs/", "run/"),
            key.replace("nightly/", ""),
            format!("{key}x"),
            String::new(),
        ] {
            assert_eq!(Record::parse(&wrong), None, "{wrong}");
        }
    }

    #[test]
    fn of_one_run_in_several_stores_the_worst_counts() {
        let of = |id: &Record, code| Record { code, ..id.clone() };
        let (first, second) = (record(0, 0), record(5, 0));
        let all = vec![
            of(&second, 0),
            first.clone(),
            of(&second, 13),
            of(&second, 16),
            of(&first, 3),
            of(&first, 11),
        ];
        assert_eq!(merged(all), [of(&first, 3), of(&second, 13)]);
    }

    #[test]
    fn the_past_counts_failures_since_the_last_success_and_no_skipped_runs() {
        let now = datetime!(2026-11-21 13:00 UTC);
        let runs = [record(9, 11), record(0, 0), record(5, 16), record(7, 1), record(300, 0)];
        let found = past(&runs, now);
        assert_eq!(found.succeeded, Some(datetime!(2026-11-21 12:00 UTC)));
        assert_eq!(found.tried, Some(datetime!(2026-11-21 12:07 UTC)));
        assert_eq!(found.failures, 2);
        assert_eq!(past(&[], now), JobHistory::default());
        let of_another_clock = past(&[record(0, 0), record(69, 1)], now);
        assert_eq!(of_another_clock.failures, 1, "{of_another_clock:?}");
        assert_eq!(past(&[record(1, 3), record(2, 17)], now).failures, 0);
    }
}
