//! Two years of schedule, failures, outages and retention on a clock that the test sets, in a real
//! store: every tick is due exactly when a naive scheduler says so, and in the end exactly the backups
//! are there that a naive retention keeps.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};

use bkp::catalog::{self, Filter};
use bkp::cmd::cleanup;
use bkp::ctx::{Cancel, Ctx};
use bkp::domain::id::BackupId;
use bkp::domain::manifest::Manifest;
use bkp::domain::schedule::Due;
use bkp::ops::jobs::state::JobStates;
use time::macros::datetime;
use time::{Date, Duration, Month, OffsetDateTime, Weekday};

use crate::support::bed::Bed;
use crate::support::planted::{self, Seed, plant};

static CLOCK: AtomicI64 = AtomicI64::new(0);

fn clock() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(CLOCK.load(Ordering::Relaxed)).unwrap()
}

const JOBS: &str = r#"
[job.full]
run = "snapshot"
source = "books"
scope = "full"
retry_after = "1h"
at = "weekly on sunday at 02:30 Europe/Berlin"
retention = { keep_weekly = 4, keep_monthly = 12, keep_yearly = 5, max_removed_percent = 100 }
[job.step]
run = "snapshot"
source = "books"
scope = "incremental"
every = "6h"
retry_after = "1h"
retention = { keep_daily = 7, keep_weekly = 4, max_removed_percent = 100 }
"#;

/// What a naive scheduler knows of a job.
#[derive(Debug, Default, Clone, Copy)]
struct Naive {
    tried: Option<OffsetDateTime>,
    failures: u32,
}

impl Naive {
    /// Retries after one and two hours, and then only at the regular time.
    fn again(self, now: OffsetDateTime) -> bool {
        let pause = match self.failures {
            1 => Duration::hours(1),
            2 => Duration::hours(2),
            _ => return false,
        };
        self.tried.is_some_and(|tried| now >= tried + pause)
    }

    fn step_is_due(self, now: OffsetDateTime) -> bool {
        self.tried.is_none_or(|tried| now >= tried + Duration::hours(6)) || self.again(now)
    }

    fn full_is_due(self, now: OffsetDateTime) -> bool {
        self.tried.is_none_or(|tried| last_sunday(now) > tried) || self.again(now)
    }
}

/// The last Sunday, 02:30 in Berlin, that is not after `now`; on the day on which that hour is skipped
/// the moment of the change.
fn last_sunday(now: OffsetDateTime) -> OffsetDateTime {
    let mut day = now.date().next_day().unwrap();
    loop {
        if day.weekday() == Weekday::Sunday {
            let change = |month: Month| {
                let mut last = Date::from_calendar_date(day.year(), month, 31).unwrap();
                while last.weekday() != Weekday::Sunday {
                    last = last.previous_day().unwrap();
                }
                last
            };
            let (spring, autumn) = (change(Month::March), change(Month::October));
            let at = day.midnight().assume_utc()
                + if day == spring {
                    Duration::hours(1)
                } else if spring < day && day <= autumn {
                    // On the day in autumn the hour comes twice, and the first one counts.
                    Duration::minutes(30)
                } else {
                    Duration::minutes(90)
                };
            if at <= now {
                return at;
            }
        }
        day = day.previous_day().unwrap();
    }
}

/// The newest of the last `count` periods that have one, told apart by `name`.
fn newest_of(
    made: &[&Manifest],
    count: usize,
    name: impl Fn(OffsetDateTime) -> (i32, u16),
) -> BTreeSet<BackupId> {
    let mut seen: Vec<(i32, u16)> = Vec::new();
    let mut kept = BTreeSet::new();
    for one in made.iter().rev() {
        let period = name(one.id.created());
        if !seen.contains(&period) {
            seen.push(period);
            if seen.len() > count {
                break;
            }
            kept.insert(one.id);
        }
    }
    kept
}

/// What is there in the end, told as simply as possible.
fn expected(made: &[Manifest]) -> BTreeSet<BackupId> {
    let of = |is_full: bool| made.iter().filter(move |one| one.parent.is_none() == is_full);
    let (full, step): (Vec<&Manifest>, Vec<&Manifest>) = (of(true).collect(), of(false).collect());
    let day = |at: OffsetDateTime| (at.year(), at.ordinal());
    let week = |at: OffsetDateTime| {
        let (year, week, _) = at.to_iso_week_date();
        (year, u16::from(week))
    };
    let month = |at: OffsetDateTime| (at.year(), u16::from(u8::from(at.month())));
    let mut kept = newest_of(&full, 4, week);
    kept.extend(newest_of(&full, 12, month));
    kept.extend(newest_of(&full, 5, |at| (at.year(), 0)));
    kept.extend(newest_of(&step, 7, day));
    kept.extend(newest_of(&step, 4, week));
    for group in [&full, &step] {
        kept.extend(group.iter().rev().take(3).map(|one| one.id));
    }
    // And everything that those build on.
    for one in made.iter().rev() {
        if kept.contains(&one.id) {
            kept.extend(one.parent);
        }
    }
    kept
}

#[test]
#[expect(clippy::too_many_lines, reason = "one story, told in the order in which it happens")]
fn two_years_end_with_exactly_the_backups_of_the_model() {
    let bed = Bed::in_memory(Path::new("/nowhere/0_0.tigerbeetle"));
    let config = fs::read_to_string(bed.path("bkp.toml")).unwrap();
    fs::write(bed.path("bkp.toml"), config + JOBS).unwrap();
    let mut app = bed.app(None);
    app.ctx = Ctx::fixed(clock);
    let jobs = &app.settings.jobs;
    let (mut naive_full, mut naive_step) = (Naive::default(), Naive::default());
    let mut made: Vec<Manifest> = Vec::new();
    let mut states = JobStates::load(&app);
    let mut random = 7_u64;
    let begin = datetime!(2024-01-01 00:00 UTC);
    let patience = std::time::Duration::from_mins(1);
    let options = cleanup::Options { dry_run: false, patience };
    let (mut failed, mut removed) = (0, 0);
    for hour in 0..731 * 24 {
        let now = begin + Duration::hours(hour);
        CLOCK.store(now.unix_timestamp(), Ordering::Relaxed);
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // Every few weeks the host is off for two days; now and then its state is lost.
        if hour % 600 < 48 && hour > 600 {
            continue;
        }
        if hour % 777 == 0 {
            let _there_or_not = fs::remove_dir_all(bed.path("state/cache"));
            states = JobStates::load(&app);
        }
        for (name, naive) in [("full", &mut naive_full), ("step", &mut naive_step)] {
            let job = &jobs[name];
            if matches!(states.due(&app, job, now), Due::Since(_)) {
                states.refresh(&app, job, now);
            }
            let is_due = matches!(states.due(&app, job, now), Due::Since(_));
            let should =
                if name == "full" { naive.full_is_due(now) } else { naive.step_is_due(now) };
            assert_eq!(is_due, should, "{name} at {now}: {naive:?}");
            if !is_due {
                continue;
            }
            // A run of the incremental job needs something to build on, and one in eight fails; in
            // one month all do.
            let month = now.year() == 2024 && now.month() == Month::August;
            let fails =
                (random >> 40).is_multiple_of(8) || month || (name == "step" && made.is_empty());
            naive.tried = Some(now);
            naive.failures = if fails { naive.failures + 1 } else { 0 };
            failed += u32::from(fails);
            let run = (name, now, if fails { 16 } else { 0 });
            let by = made.last().map(Manifest::name);
            let record = planted::record_by(&bed, "store", run, by.as_ref());
            states.add(&app, job, &record, &[record.key()]);
            if !fails {
                // Two jobs of one hour come one after the other.
                let seed = Seed::at(now - Duration::seconds(if name == "full" { 2 } else { 1 }));
                let seed = match made.last() {
                    Some(last) if name == "step" => seed.built_on(last),
                    _ => seed,
                };
                made.push(plant(&bed, &app, &seed));
            }
        }
        if hour % (24 * 5) == 23 {
            CLOCK.store((now + Duration::minutes(30)).unix_timestamp(), Ordering::Relaxed);
            let report = cleanup::run(&app, &options).unwrap();
            assert_eq!(report.outcome, None, "{}", report.text);
            removed += report.value["stores"][0]["removed"].as_u64().unwrap();
        }
    }
    assert!(
        failed > 300 && made.len() > 2000 && removed > 2000,
        "{failed} {} {removed}",
        made.len()
    );
    // One more good run of each, so that nothing is frozen, and the last cleanup.
    let end = begin + Duration::days(732);
    for (name, minutes) in [("full", 0), ("step", 1)] {
        let seed = Seed::at(end + Duration::minutes(minutes));
        let seed =
            made.last().filter(|_| name == "step").map_or(seed.clone(), |last| seed.built_on(last));
        made.push(plant(&bed, &app, &seed));
        planted::record(&bed, name, end + Duration::minutes(minutes), 0);
    }
    CLOCK.store((end + Duration::hours(1)).unix_timestamp(), Ordering::Relaxed);
    cleanup::run(&app, &options).unwrap();
    let store = app.store_named("main").unwrap();
    let left = catalog::find(&*store, &Filter::default(), &Cancel::default()).unwrap();
    let left: BTreeSet<BackupId> = left.iter().map(|found| found.name.id).collect();
    let expected = expected(&made);
    assert_eq!(left, expected, "{} left, {} expected", left.len(), expected.len());
}
