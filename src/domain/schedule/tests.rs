use proptest::prelude::*;
use time::macros::datetime;

use super::*;

const NONE: Retries = Retries { count: 0, pause: StdDuration::from_mins(5) };

fn at(text: &str) -> When {
    When::at(text, &TimeZone::UTC).unwrap_or_else(|problem| panic!("{problem:?}"))
}

fn ran(at: OffsetDateTime) -> JobHistory {
    JobHistory { succeeded: Some(at), tried: Some(at), ..JobHistory::default() }
}

fn next(when: &When, last: OffsetDateTime) -> OffsetDateTime {
    match when.due(&ran(last), NONE, StdDuration::ZERO, last) {
        Due::At(at) => at,
        other @ (Due::Since(_) | Due::Never) => panic!("{other:?}"),
    }
}

#[test]
fn phrases_and_fields_say_the_same() {
    let from = datetime!(2026-11-21 04:00 UTC);
    for (text, fields, expected) in [
        ("hourly", "0 * * * *", datetime!(2026-11-21 05:00 UTC)),
        ("daily at 03:30", "30 3 * * *", datetime!(2026-11-22 03:30 UTC)),
        ("weekly on Sunday at 00:00", "0 0 * * 0", datetime!(2026-11-22 00:00 UTC)),
        ("monthly on 1 at 23:59 UTC", "59 23 1 * *", datetime!(2026-12-01 23:59 UTC)),
        ("daily at 03:00 Europe/Berlin", "0 2 * * *", datetime!(2026-11-22 02:00 UTC)),
    ] {
        assert_eq!(next(&at(text), from), expected, "{text}");
        assert_eq!(next(&at(fields), from), expected, "{fields}");
    }
    for wrong in [
        "",
        "daily",
        "daily at 25:00",
        "daily at 3",
        "* * * *",
        "* * * * * *",
        "61 * * * *",
        "monthly on 32 at 00:00",
        "weekly on xday at 00:00",
        "daily at 03:00 Europe/Nowhere",
    ] {
        assert!(When::at(wrong, &TimeZone::UTC).is_err(), "{wrong}");
    }
}

#[test]
fn a_day_whose_hour_is_skipped_or_repeated_has_one_run() {
    // In Berlin clocks go from 02:00 to 03:00 on 29 March 2026, and from 03:00 to 02:00 on
    // 25 October.
    let when = at("daily at 02:30 Europe/Berlin");
    let mut last = datetime!(2026-03-27 12:00 UTC);
    let mut times = Vec::new();
    for _ in 0..3 {
        last = next(&when, last);
        times.push(last);
    }
    assert_eq!(times[0], datetime!(2026-03-28 01:30 UTC));
    assert!(
        times[1] >= datetime!(2026-03-29 01:00 UTC) && times[1] < datetime!(2026-03-29 02:00 UTC)
    );
    assert_eq!(times[2], datetime!(2026-03-30 00:30 UTC));
    let first = next(&when, datetime!(2026-10-24 12:00 UTC));
    assert_eq!(first, datetime!(2026-10-25 00:30 UTC));
    assert_eq!(next(&when, first), datetime!(2026-10-26 01:30 UTC));
    // Leap days.
    let when = at("0 0 29 2 *");
    assert_eq!(next(&when, datetime!(2025-01-01 00:00 UTC)), datetime!(2028-02-29 00:00 UTC));
}

#[test]
fn what_was_missed_is_caught_up_once() {
    let when = at("daily at 03:00");
    let last = datetime!(2026-11-01 03:00 UTC);
    let now = datetime!(2026-11-21 12:00 UTC);
    let due = when.due(&ran(last), NONE, StdDuration::ZERO, now);
    assert_eq!(due, Due::Since(datetime!(2026-11-02 03:00 UTC)));
    let due = when.due(&ran(now), NONE, StdDuration::ZERO, now);
    assert_eq!(due, Due::At(datetime!(2026-11-22 03:00 UTC)));
    let never = when.due(&JobHistory::default(), NONE, StdDuration::ZERO, now);
    assert_eq!(never, Due::Since(now), "a job that never ran is due");
}

#[test]
fn a_clock_that_was_set_back_does_not_stop_a_job() {
    let when = When::Every(StdDuration::from_hours(1));
    let now = datetime!(2026-11-21 12:00 UTC);
    let ahead = ran(now + Duration::days(300));
    assert_eq!(when.due(&ahead, NONE, StdDuration::ZERO, now), Due::Since(now));
}

#[test]
fn failures_are_tried_again_with_growing_pauses_until_the_next_regular_time() {
    let when = When::Every(StdDuration::from_hours(1));
    let began = datetime!(2026-11-21 12:00 UTC);
    let retries = Retries { count: 3, pause: StdDuration::from_mins(5) };
    let due = |failures, seconds| {
        let past = JobHistory { tried: Some(began), failures, ..JobHistory::default() };
        when.due(&past, retries, StdDuration::ZERO, began + Duration::seconds(seconds))
    };
    let then = |seconds| began + Duration::seconds(seconds);
    assert_eq!(due(1, 0), Due::At(then(300)));
    assert_eq!(due(1, 300), Due::Since(then(300)));
    assert_eq!(due(2, 300), Due::At(then(600)));
    assert_eq!(due(3, 0), Due::At(then(1200)));
    assert_eq!(due(4, 1200), Due::At(then(3600)), "tried often enough");
    assert_eq!(due(4, 3600), Due::Since(then(3600)));
}

#[test]
fn a_run_that_reached_no_store_is_tried_again_for_as_long_as_it_takes() {
    let when = When::Every(StdDuration::from_hours(24));
    let began = datetime!(2026-11-21 03:00 UTC);
    let retries = Retries { count: 2, pause: StdDuration::from_mins(5) };
    let due = |failures, away| {
        let past = JobHistory { tried: Some(began), failures, away, ..JobHistory::default() };
        when.due(&past, retries, StdDuration::ZERO, began)
    };
    let then = |minutes| Due::At(began + Duration::minutes(minutes));
    assert_eq!((due(2, true), due(2, false)), (then(10), then(10)));
    assert_eq!((due(3, true), due(3, false)), (then(20), then(24 * 60)));
    assert_eq!((due(5, true), due(400, true)), (then(60), then(60)), "at least every hour");
    let slow = Retries { count: 0, pause: StdDuration::from_hours(3) };
    let past = JobHistory { tried: Some(began), failures: 9, away: true, ..JobHistory::default() };
    assert_eq!(when.due(&past, slow, StdDuration::ZERO, began), then(180));
}

#[test]
fn what_another_clock_dates_a_little_ahead_has_just_happened() {
    let now = datetime!(2026-11-21 12:00 UTC);
    let when = When::Every(StdDuration::from_hours(1));
    let due = |when: &When, seconds| {
        when.due(&ran(now + Duration::seconds(seconds)), NONE, StdDuration::ZERO, now)
    };
    assert_eq!(due(&when, 120), Due::At(now + Duration::minutes(62)));
    assert_eq!(due(&when, 601), Due::Since(now), "that is no skew");
    // Nor does a wrong clock hold back what runs more often than that.
    let often = When::Every(StdDuration::from_secs(1));
    assert_eq!(due(&often, 2), Due::Since(now));
    assert_eq!(due(&at("daily at 12:00"), 120), Due::At(now + Duration::days(1)));
}

#[test]
fn the_longest_pause_of_a_calendar_is_its_interval() {
    // A Saturday and a Tuesday: the same whenever it is asked.
    for now in [datetime!(2026-11-21 12:00 UTC), datetime!(2026-11-24 01:00 UTC)] {
        for (text, hours) in [
            ("daily at 03:00", 24),
            ("30 2 * * 1-5", 72),
            ("0 8,20 1 * *", 31 * 24 - 12),
            ("*/15 9-17 * * 1-5", 63),
            ("* 9-17 * * 1-5", 63),
            ("* 9-17 * * 1-5 Europe/Berlin", 64),
            ("* * * 1-11 *", 31 * 24),
            ("0,10 6,18 * * *", 12),
            ("weekly on sunday at 03:00", 7 * 24),
            ("0 0 1 1 *", 365 * 24),
        ] {
            let found = at(text).interval(now);
            let expected = Duration::hours(hours);
            let near = (found - expected).abs() <= Duration::minutes(15);
            assert!(near, "{text}: {found} and not {expected}");
        }
    }
    assert_eq!(at("* * * * *").interval(datetime!(2026-11-21 12:00 UTC)), Duration::MINUTE);
}

#[test]
fn a_delay_is_always_the_same_and_within_its_bound() {
    let most = StdDuration::from_mins(10);
    assert_eq!(jitter("a", most), jitter("a", most));
    assert_ne!(jitter("host-1/books", most), jitter("host-2/books", most));
    assert!(["a", "b", "c", "d"].iter().all(|name| jitter(name, most) <= most));
    assert_eq!(jitter("a", StdDuration::ZERO), StdDuration::ZERO);
    let when = When::Every(StdDuration::from_mins(1));
    let last = datetime!(2026-11-21 12:00 UTC);
    let due = when.due(&ran(last), NONE, StdDuration::from_secs(5), last);
    assert_eq!(due, Due::At(last + Duration::seconds(65)));
}

proptest! {
    /// Whatever the schedule and the past: a job is due exactly from the time on that it says.
    #[test]
    fn due_is_as_announced(
        schedule in proptest::sample::select(vec!["hourly", "daily at 02:30 Europe/Berlin",
            "weekly on sun at 03:00 America/New_York", "monthly on 31 at 00:00", "*/7 1-5 * * 1-5"]),
        last in 1_700_000_000_i64..1_800_000_000, failures in 0_u32..5, count in 0_u32..4,
    ) {
        let last = OffsetDateTime::from_unix_timestamp(last).expect("in range");
        let when = at(schedule);
        let past = JobHistory { tried: Some(last), failures, ..JobHistory::default() };
        let retries = Retries { count, pause: StdDuration::from_mins(1) };
        let Due::At(then) = when.due(&past, retries, StdDuration::ZERO, last) else {
            return Err(TestCaseError::fail("due at once"));
        };
        prop_assert!(then > last);
        let before = when.due(&past, retries, StdDuration::ZERO, then - Duration::seconds(1));
        prop_assert_eq!(before, Due::At(then));
        prop_assert_eq!(when.due(&past, retries, StdDuration::ZERO, then), Due::Since(then));
    }
}
