//! When a job is due.
//!
//! A job that is due and does not run, because the host was off or another run held its source, is
//! due until it runs; however many times were missed, it runs once. Times of a calendar are those of
//! a clock on the wall: one that a change of the clock skips is taken at the moment of the change,
//! one that is repeated counts once.

use std::fmt;
use std::time::Duration as StdDuration;

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use time::{Duration, OffsetDateTime};

use super::calendar::{TimeZone, time_of, timestamp};

/// When a job is to run.
#[derive(Debug, Clone)]
pub enum When {
    /// That long after the beginning of its last run.
    Every(StdDuration),
    /// At times of a calendar.
    At(Box<Calendar>),
}

/// Times of a calendar.
#[derive(Debug, Clone)]
pub struct Calendar {
    cron: Cron,
    zone: TimeZone,
    /// As it was written, with the time zone.
    text: String,
}

impl fmt::Display for Calendar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What is wrong with a schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduleError {
    /// What is wrong.
    pub what: String,
    /// What to write instead.
    pub hint: &'static str,
}

const FORMS: &str = "write `daily at 03:00`, `weekly on sunday at 03:00`, `monthly on 1 at 03:00` or five cron fields, then a time zone if it is not `zone`: `daily at 03:00 Europe/Berlin`";

/// How far ahead of ours the clock of another host may be: what is dated that far in the future has
/// just happened, what is dated further was dated by a wrong clock.
pub const SKEW: Duration = Duration::minutes(10);
/// The longest pause before a run is tried again that reached no store, unless a longer one is wanted.
const AWAY_PAUSE_MAX: Duration = Duration::HOUR;

/// What a job's past says about its future.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct JobHistory {
    /// When its last run began that did what it should.
    pub succeeded: Option<OffsetDateTime>,
    /// When its last run began.
    pub tried: Option<OffsetDateTime>,
    /// How many runs in a row have failed since.
    pub failures: u32,
    /// Whether the last of them reached no store, so that nothing but this host knows of it.
    pub away: bool,
}

/// How failed runs are repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retries {
    /// How often a run that failed is tried again before the next regular time. One that reached no
    /// store is tried again for as long as it takes.
    pub count: u32,
    /// How long after the first failure; doubles with each further one.
    pub pause: StdDuration,
}

/// Whether a job is due, and if not, when it will be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// It is, since then.
    Since(OffsetDateTime),
    /// It will be then.
    At(OffsetDateTime),
    /// Its calendar has no further time.
    Never,
}

impl When {
    /// Reads times of a calendar: five fields of cron or a phrase, then perhaps a time zone.
    ///
    /// # Errors
    /// [`ScheduleError`] if it is neither, or there is no such zone.
    pub fn at(text: &str, zone: &TimeZone) -> Result<When, ScheduleError> {
        let wrong = |what: String| ScheduleError { what, hint: FORMS };
        let mut words: Vec<&str> = text.split_whitespace().collect();
        let named =
            words.last().filter(|word| word.contains('/') && word.starts_with(char::is_alphabetic));
        let zone = match named.or(words.last().filter(|word| **word == "UTC")) {
            Some(name) => zone_named(name)?,
            None => zone.clone(),
        };
        words.retain(|word| zone.iana_name() != Some(word));
        let fields = fields(&words).ok_or_else(|| wrong(format!("`{text}` is not a schedule")))?;
        let parser =
            CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let cron = parser.parse(&fields).map_err(|error| wrong(format!("`{text}`: {error}")))?;
        let text = format!("{} {}", words.join(" "), zone.iana_name().unwrap_or("UTC"));
        Ok(When::At(Box::new(Calendar { cron, zone, text })))
    }

    /// The longest time between two runs; what ages are measured by.
    #[must_use]
    pub fn interval(&self, now: OffsetDateTime) -> Duration {
        match self {
            When::Every(length) => signed(*length),
            When::At(calendar) => calendar.longest(now),
        }
    }

    /// Whether a job with this past is due at `now`. Every regular time is late by `delay`, so that
    /// many hosts do not begin at once.
    #[must_use]
    pub fn due(
        &self,
        past: &JobHistory,
        retries: Retries,
        delay: StdDuration,
        now: OffsetDateTime,
    ) -> Due {
        // What is dated far in the future was dated by a wrong clock, or before ours was set back.
        let skew = match self {
            When::Every(length) => SKEW.min(signed(*length)),
            When::At(_) => SKEW,
        };
        let begun = |at: Option<OffsetDateTime>| at.filter(|at| *at - now <= skew);
        let (succeeded, tried) = (begun(past.succeeded), begun(past.tried));
        let Some(last) = succeeded.max(tried) else { return Due::Since(now) };
        let failing = past.failures > 0 && tried >= succeeded;
        let regular = self.after(last, signed(delay), now);
        if !failing || (past.failures > retries.count && !past.away) {
            return regular;
        }
        let factor = 1_i32 << (past.failures - 1).min(16);
        let first = signed(retries.pause);
        let most = if past.away { AWAY_PAUSE_MAX.max(first) } else { Duration::MAX };
        let again = last.saturating_add(first.saturating_mul(factor).min(most));
        match regular {
            Due::Since(since) => Due::Since(since),
            Due::At(at) if at <= again => Due::At(at),
            Due::At(_) | Due::Never if again <= now => Due::Since(again),
            Due::At(_) | Due::Never => Due::At(again),
        }
    }

    /// The first regular time after `last`.
    fn after(&self, last: OffsetDateTime, delay: Duration, now: OffsetDateTime) -> Due {
        let at = match self {
            When::Every(length) => Some(last.saturating_add(signed(*length))),
            When::At(calendar) => calendar.next(last),
        };
        match at.map(|at| at.saturating_add(delay)) {
            None => Due::Never,
            Some(at) if at <= now => Due::Since(at),
            Some(at) => Due::At(at),
        }
    }
}

impl Calendar {
    /// The first time after `time`.
    fn next(&self, time: OffsetDateTime) -> Option<OffsetDateTime> {
        let from = timestamp(time).to_zoned(self.zone.clone());
        let next = self.cron.find_next_occurrence(&from, false).ok()?;
        Some(time_of(next.timestamp()))
    }

    /// The longest time between two times of the coming year, at least between the next two: on
    /// working days only, a weekend is no delay. Every day that has any times has the same, so that
    /// those of one day are looked at, and of the others the first and the last alone.
    fn longest(&self, now: OffsetDateTime) -> Duration {
        let year = Duration::days(366);
        let Some(mut first) = self.next(now) else { return year };
        let mut longest = None;
        while first - now <= year {
            let last = self.last_of_day(first);
            let Some(next) = self.next(last) else { break };
            longest = longest.max(Some(next - last));
            first = next;
        }
        let (mut at, last) = (first, self.last_of_day(first));
        while let Some(next) = self.next(at).filter(|next| *next <= last) {
            longest = longest.max(Some(next - at));
            at = next;
        }
        longest.unwrap_or(year)
    }

    /// The last time of the day of `time`, which is one of its times.
    fn last_of_day(&self, time: OffsetDateTime) -> OffsetDateTime {
        let local = timestamp(time).to_zoned(self.zone.clone());
        let end = local.tomorrow().and_then(|day| day.start_of_day());
        let last = end.ok().and_then(|end| self.cron.find_previous_occurrence(&end, false).ok());
        last.map_or(time, |last| time_of(last.timestamp()).max(time))
    }
}

/// The zone of this name (of the IANA database).
///
/// # Errors
/// [`ScheduleError`] if there is none.
pub fn zone_named(name: &str) -> Result<TimeZone, ScheduleError> {
    TimeZone::get(name).map_err(|_unknown| ScheduleError {
        what: format!("unknown time zone `{name}`"),
        hint: "write an IANA name: Europe/Berlin, America/New_York, UTC",
    })
}

fn signed(length: StdDuration) -> Duration {
    Duration::try_from(length).unwrap_or(Duration::MAX)
}

/// Five fields of cron for a phrase, or the fields themselves.
fn fields(words: &[&str]) -> Option<String> {
    let clock = |text: &str| {
        let (hour, minute) = text.split_once(':')?;
        let (hour, minute): (u8, u8) = (hour.parse().ok()?, minute.parse().ok()?);
        (hour < 24 && minute < 60).then(|| format!("{minute} {hour}"))
    };
    match words {
        ["hourly"] => Some("0 * * * *".to_owned()),
        ["daily", "at", time] => Some(format!("{} * * *", clock(time)?)),
        ["weekly", "on", day, "at", time] => {
            let days = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
            let short = day.to_lowercase();
            let number = days.iter().position(|name| short.starts_with(name))?;
            Some(format!("{} * * {number}", clock(time)?))
        }
        ["monthly", "on", day, "at", time] => {
            let day: u8 = day.parse().ok().filter(|day| (1..=31).contains(day))?;
            Some(format!("{} {day} * *", clock(time)?))
        }
        [_, _, _, _, _] => Some(words.join(" ")),
        _ => None,
    }
}

/// A share of `most` that is always the same for `name`, so that a host keeps its place.
#[must_use]
pub fn jitter(name: &str, most: StdDuration) -> StdDuration {
    // FNV-1a: any hash that no version of a compiler changes will do.
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let seconds = most.as_secs();
    if seconds == 0 { StdDuration::ZERO } else { StdDuration::from_secs(hash % (seconds + 1)) }
}

#[cfg(test)]
mod tests;
