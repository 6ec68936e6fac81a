//! One term of a lease, and the check whether a run can have written it.

use std::io::Read as _;

use serde::{Deserialize, Serialize};
use time::macros::datetime;
use time::{Duration, OffsetDateTime};

use crate::domain::id::BackupId;
use crate::domain::schedule::SKEW;
use crate::domain::timestamp::rfc3339;
use crate::ledger::Holder;
use crate::store::{ReadStore, StoreError};

/// Where the terms of a store are.
pub(super) const FOLDER: &str = "leases";
pub(super) const SCHEMA: &str = "bkp.lease/1";
/// What every version's schema begins with.
const SCHEMAS: &str = "bkp.lease/";
/// Largest term that is read, bytes. One needs about 400.
pub(super) const BYTES_MAX: u64 = 4096;
/// No lease lasts longer: the longest that a configuration may ask for.
const LONGEST: Duration = Duration::DAY;
/// How far a number may be from the one before it. Those of runs follow one another; some may be removed.
const GAP_MAX: u64 = 1000;
/// No lease was written before.
const EPOCH: OffsetDateTime = datetime!(2026-01-01 00:00 UTC);
/// Terms that runs may write in a second, and then some: no job has a higher number.
const PER_SECOND: u64 = 10;
const NUMBERS_MIN: u64 = 1_000_000;
/// How many terms are read to find one that a run can have written.
const READ_MAX: usize = 64;

/// One term, as stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Term {
    pub(super) schema: String,
    pub(super) job: String,
    pub(super) run: BackupId,
    pub(super) host: String,
    pub(super) process: u32,
    /// In hex: it is as long as a number of JSON must not be.
    pub(super) place: String,
    #[serde(with = "time::serde::rfc3339")]
    pub(super) begun: OffsetDateTime,
    /// The end; the beginning itself if the job is given back.
    #[serde(with = "time::serde::rfc3339")]
    pub(super) until: OffsetDateTime,
}

/// What a store has of the terms of a job, as far as runs can have written them.
#[derive(Debug, Default)]
pub(super) struct JobTerms {
    /// The highest number; the next run takes the one after it.
    pub(super) number: u64,
    /// The newest term and its number.
    pub(super) newest: Option<(u64, Term)>,
    /// Of each that no run can have written: its key, and why.
    pub(super) strange: Vec<(String, String)>,
}

impl Term {
    pub(super) fn is_given_back(&self) -> bool {
        self.until == self.begun
    }

    /// By how much its holder's clock is ahead of ours, if by more than clocks may differ.
    pub(super) fn ahead(&self, now: OffsetDateTime) -> Option<Duration> {
        Some(self.begun - now).filter(|ahead| *ahead > SKEW)
    }

    pub(super) fn length(&self) -> Duration {
        self.until - self.begun
    }

    /// Who holds it, for messages.
    pub(super) fn holder(&self, now: OffsetDateTime) -> String {
        // What is read from a store is shown only if it could be a name.
        let plain = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        let host: String = self.host.chars().filter(plain).take(64).collect();
        let holder = Holder::describe(&host, self.process, self.run.created(), now);
        let Some(ahead) = self.ahead(now) else { return holder };
        let (theirs, ahead) = (rfc3339(self.begun), ahead.whole_seconds());
        let now = rfc3339(now);
        format!(
            "{holder}; its clock said {theirs}, ours says {now}: {ahead} s ahead, check the clocks of both hosts"
        )
    }
}

/// The key of a term. Numbers have as many digits as the largest, so that they sort.
pub(super) fn key(job: &str, number: u64) -> String {
    format!("{FOLDER}/{job}/{number:020}")
}

/// The number of a term of `job`, if that is its key.
pub(super) fn number(job: &str, at: &str) -> Option<u64> {
    let number = at.rsplit('/').next()?.parse().ok()?;
    (key(job, number) == at).then_some(number)
}

/// Those of `numbers`, in order, that follow one another up to the highest that runs can have reached.
pub(super) fn chain(numbers: &[u64], now: OffsetDateTime) -> &[u64] {
    let seconds = u64::try_from((now - EPOCH).whole_seconds()).unwrap_or(0);
    let most = seconds.saturating_mul(PER_SECOND).saturating_add(NUMBERS_MIN);
    let (mut begin, mut end) = (0_usize, 0_usize);
    for (at, number) in numbers.iter().enumerate() {
        let before = end.checked_sub(1).and_then(|last| numbers.get(last));
        if before.is_some_and(|before| end == at && number - before <= GAP_MAX) {
            end = at + 1;
        } else if *number <= most {
            (begin, end) = (at, at + 1);
        }
    }
    numbers.get(begin..end).unwrap_or_default()
}

/// What a store has of the terms of `job`.
pub(super) fn row(
    store: &dyn ReadStore,
    job: &str,
    now: OffsetDateTime,
) -> Result<JobTerms, StoreError> {
    let mut numbers = Vec::new();
    for object in store.list(&format!("{FOLDER}/{job}"))? {
        numbers.extend(number(job, &object?.key));
    }
    numbers.sort_unstable();
    let chain = chain(&numbers, now);
    let mut row = JobTerms { number: chain.last().copied().unwrap_or(0), ..JobTerms::default() };
    let beyond = numbers.iter().filter(|number| **number > row.number);
    let why = "its number is out of sequence";
    row.strange.extend(beyond.map(|number| (key(job, *number), why.to_owned())));
    for number in chain.iter().rev().take(READ_MAX) {
        match read(store, job, *number, now)? {
            Ok(Some(term)) => {
                row.newest = Some((*number, term));
                break;
            }
            Ok(None) => {}
            Err(why) => row.strange.push((key(job, *number), why)),
        }
    }
    Ok(row)
}

/// A term; nothing if it has gone, and why no run can have written it.
pub(super) fn read(
    store: &dyn ReadStore,
    job: &str,
    number: u64,
    now: OffsetDateTime,
) -> Result<Result<Option<Term>, String>, StoreError> {
    let key = key(job, number);
    let mut bytes = Vec::new();
    let input = match store.open(&key, None) {
        Err(StoreError::Missing { .. }) => return Ok(Ok(None)),
        opened => opened?,
    };
    let read = input.take(BYTES_MAX).read_to_end(&mut bytes);
    read.map_err(|source| StoreError::Unavailable {
        store: store.url().to_owned(),
        operation: "read",
        key,
        transient: true,
        source: source.into(),
    })?;
    Ok(parse_term(&bytes, job, now).map(Some))
}

/// The term that these bytes are, if a run of `job` can have written it.
fn parse_term(bytes: &[u8], job: &str, now: OffsetDateTime) -> Result<Term, String> {
    let term: Term = serde_json::from_slice(bytes).map_err(|error| match bytes {
        [] => "it is empty".to_owned(),
        _ => format!("it cannot be parsed: {error}"),
    })?;
    if !term.schema.starts_with(SCHEMAS) || term.job != job {
        return Err("it is not a lease of this job".into());
    }
    let latest = now.saturating_add(LONGEST).saturating_add(SKEW);
    let is_long = term.until < term.begun || term.length() > LONGEST;
    if is_long || (!term.is_given_back() && term.until > latest) {
        let (until, now) = (rfc3339(term.until), rfc3339(now));
        return Err(format!(
            "it expires at {until}, our clock says {now}: no lease lasts that long"
        ));
    }
    Ok(term)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_no_run_can_have_reached_do_not_count() {
        let now = datetime!(2026-11-21 12:00 UTC);
        for (numbers, expected) in [
            (&[][..], &[][..]),
            (&[1, 2, 3], &[1, 2, 3]),
            (&[1, 2, u64::MAX], &[1, 2]),
            (&[u64::MAX], &[]),
            // Cleanup took the first ones; somebody planted one of their numbers.
            (&[1, 35_000, 35_001], &[35_000, 35_001]),
            (&[7, 900], &[7, 900]),
            (&[2, 3, 10_u64.pow(15), 10_u64.pow(15) + 1], &[2, 3]),
        ] {
            assert_eq!(chain(numbers, now), expected, "{numbers:?}");
        }
    }

    #[test]
    fn what_no_run_can_have_written_is_told_from_a_lease() {
        let now = datetime!(2026-11-21 12:00 UTC);
        let term = |begun: i64, minutes: i64| {
            let begun = now + Duration::minutes(begun);
            let term = Term {
                schema: SCHEMA.into(),
                job: "books".into(),
                run: BackupId::new(now),
                host: "h".into(),
                process: 1,
                place: "0".into(),
                begun,
                until: begun + Duration::minutes(minutes),
            };
            serde_json::to_vec(&term).unwrap()
        };
        for (bytes, is_honest) in [
            (term(0, 2), true),
            (term(0, 24 * 60), true),
            (term(0, 24 * 60 + 1), false),
            // Of a clock that ran ahead; given back by one that ran ahead by years.
            (term(600, 2), true),
            (term(3000, 2), false),
            (term(5_000_000, 0), true),
            (term(5, -1), false),
            (Vec::new(), false),
            (b"{}".to_vec(), false),
        ] {
            assert_eq!(parse_term(&bytes, "books", now).is_ok(), is_honest);
        }
        assert!(parse_term(&term(0, 2), "other", now).is_err());
    }
}
