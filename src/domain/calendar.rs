//! Calendar periods: hours, days, weeks, months and years of a time zone.

use jiff::Timestamp;
pub use jiff::tz::TimeZone;
use time::OffsetDateTime;

/// A length of calendar time, of which retention keeps one backup each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Period {
    /// From one full hour to the next, by the clock on the wall; an hour that a change of the clock
    /// repeats is two.
    Hour,
    /// A day of the zone, of 23 to 25 hours.
    Day,
    /// A week from Monday on (ISO 8601).
    Week,
    /// A month.
    Month,
    /// A year.
    Year,
}

/// The instant of `time` with the precision of seconds; times that no calendar has become its ends.
#[must_use]
pub fn timestamp(time: OffsetDateTime) -> Timestamp {
    let seconds = time.unix_timestamp();
    let end = if seconds < 0 { Timestamp::MIN } else { Timestamp::MAX };
    Timestamp::from_second(seconds).unwrap_or(end)
}

/// The time of an instant, UTC.
#[must_use]
pub fn time_of(instant: Timestamp) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(instant.as_second()).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// Which period `time` is in: equal for two times of one period, and greater for a later one.
#[must_use]
pub fn number(period: Period, time: OffsetDateTime, zone: &TimeZone) -> (i64, i64) {
    let local = timestamp(time).to_zoned(zone.clone());
    match period {
        Period::Hour => {
            let offset = i64::from(local.offset().seconds());
            // The second of the two hours of that name has the smaller offset.
            ((local.timestamp().as_second() + offset).div_euclid(3600), -offset)
        }
        Period::Day => (local.year().into(), local.day_of_year().into()),
        Period::Week => {
            let week = local.date().iso_week_date();
            (week.year().into(), week.week().into())
        }
        Period::Month => (local.year().into(), local.month().into()),
        Period::Year => (local.year().into(), 0),
    }
}
