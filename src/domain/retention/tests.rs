//! The rules against a naive model, over random histories; and what must be true whatever they are.

use std::collections::BTreeSet;

use proptest::prelude::*;
use time::macros::datetime;
use time::{Date, Month, Weekday};

use super::*;

fn berlin() -> TimeZone {
    TimeZone::get("Europe/Berlin").expect("bundled")
}

fn backup(at: OffsetDateTime, parent: Option<Backup>) -> Backup {
    let id = BackupId::new(at);
    Backup {
        id,
        parent: parent.map(|parent| parent.id),
        base: parent.map_or(id, |parent| parent.base),
        whole: true,
        pinned: false,
        held_until: None,
    }
}

fn kept(policy: &Policy, backups: &[Backup], now: OffsetDateTime) -> BTreeSet<BackupId> {
    let members = (0..backups.len()).collect();
    let whys = decide(&[Group { policy, members, frozen: None }], backups, now);
    let kept = backups.iter().zip(&whys).filter(|(_, whys)| !whys.is_empty());
    kept.map(|(backup, _)| backup.id).collect()
}

/// Central European time by the law of the European Union, without any database: summer time from
/// 01:00 UTC of the last Sunday of March to 01:00 UTC of that of October.
fn local(at: OffsetDateTime) -> OffsetDateTime {
    let change = |month: Month| {
        let mut day = Date::from_calendar_date(at.year(), month, 31).expect("31 days");
        while day.weekday() != Weekday::Sunday {
            day = day.previous_day().expect("in range");
        }
        day.midnight().assume_utc() + Duration::hours(1)
    };
    let summer = change(Month::March) <= at && at < change(Month::October);
    at + Duration::hours(if summer { 2 } else { 1 })
}

/// The name of a period, as text.
fn named(period: Period, at: OffsetDateTime) -> String {
    let there = local(at);
    let offset = there - at;
    match period {
        Period::Hour => format!("{:?} {} {offset}", there.date(), there.hour()),
        Period::Day => format!("{:?}", there.date()),
        Period::Week => {
            let (year, week, _) = there.date().to_iso_week_date();
            format!("{year} {week}")
        }
        Period::Month => format!("{} {}", there.year(), there.month()),
        Period::Year => format!("{}", there.year()),
    }
}

/// The rules again, as they would be told: slow, and one backup at a time.
fn model(policy: &Policy, backups: &[Backup], now: OffsetDateTime) -> BTreeSet<BackupId> {
    let find = |id: BackupId| backups.iter().find(|backup| backup.id == id);
    let chain = |backup: &Backup| {
        let mut links = vec![*backup];
        while let Some(parent) = links.last().expect("one").parent {
            links.push(*find(parent)?);
        }
        Some(links)
    };
    let whole =
        |backup: &Backup| chain(backup).is_some_and(|links| links.iter().all(|link| link.whole));
    let past = |backup: &Backup| backup.id.created() <= now;
    let counted: Vec<&Backup> = backups.iter().filter(|b| whole(b) && past(b)).collect();
    let newer = |backup: &Backup| counted.iter().filter(|other| other.id > backup.id).count();
    let frozen = policy.frozen_after.is_some_and(|after| {
        let newest = counted.iter().map(|backup| backup.id.created()).max();
        newest.is_some_and(|newest| now - newest > after)
    });
    let wanted = |backup: &Backup| {
        if frozen || backup.pinned || !whole(backup) || !past(backup) {
            return true;
        }
        if backup.held_until.is_some_and(|until| until > now) {
            return true;
        }
        let position = newer(backup);
        let full = |other: &&&Backup| other.parent.is_none();
        let newest_full = counted.iter().filter(full).map(|full| full.id).max();
        let most = policy.last.max(policy.min_keep).max(1);
        if position < most as usize || newest_full == Some(backup.id) {
            return true;
        }
        if policy.within.is_some_and(|within| now - backup.id.created() <= within) {
            return true;
        }
        policy.periods.iter().any(|(period, count)| {
            let own = named(*period, backup.id.created());
            let later = counted.iter().filter(|other| other.id > backup.id);
            let later: BTreeSet<String> =
                later.map(|other| named(*period, other.id.created())).collect();
            !later.contains(&own) && later.len() < *count as usize
        })
    };
    let wanted = backups.iter().filter(|backup| wanted(backup));
    let with_chain = wanted.flat_map(|backup| {
        let mut links = vec![*backup];
        while let Some(parent) = links.last().and_then(|link| link.parent).and_then(find) {
            links.push(*parent);
        }
        links
    });
    with_chain.map(|link| link.id).collect()
}

/// Times that cluster around changes of the clock, ends of years and a leap day.
fn times() -> impl Strategy<Value = OffsetDateTime> {
    let edges = proptest::sample::select(vec![
        datetime!(2023-10-29 00:00 UTC),
        datetime!(2023-12-31 12:00 UTC),
        datetime!(2024-02-28 12:00 UTC),
        datetime!(2024-03-31 00:00 UTC),
        datetime!(2024-10-27 00:00 UTC),
        datetime!(2024-12-30 00:00 UTC),
    ]);
    let near = (edges, 0_i64..172_800).prop_map(|(edge, s)| edge + Duration::seconds(s));
    let any = (0_i64..86_400 * 800)
        .prop_map(|seconds| datetime!(2023-01-01 00:00 UTC) + Duration::seconds(seconds));
    prop_oneof![near, any]
}

#[derive(Debug, Clone, Copy)]
#[expect(clippy::struct_excessive_bools, reason = "four things that are drawn by themselves")]
struct Made {
    full: bool,
    whole: bool,
    pinned: bool,
    held: bool,
}

/// A history: backups in order of time, each full or on top of the one before.
fn histories() -> impl Strategy<Value = Vec<Backup>> {
    let made = (0_u8..4, 0_u8..20, 0_u8..25, 0_u8..25).prop_map(|(full, whole, pinned, held)| {
        Made { full: full == 0, whole: whole > 0, pinned: pinned == 0, held: held == 0 }
    });
    proptest::collection::vec((times(), made), 0..60).prop_map(|mut items| {
        items.sort_by_key(|(at, _)| *at);
        let mut backups: Vec<Backup> = Vec::new();
        for (at, made) in items {
            let at = backups
                .last()
                .map_or(at, |last| at.max(last.id.created() + Duration::milliseconds(1)));
            let parent = backups.last().copied().filter(|_last| !made.full);
            let held_until = made.held.then(|| at + Duration::days(200));
            let Made { whole, pinned, .. } = made;
            backups.push(Backup { whole, pinned, held_until, ..backup(at, parent) });
        }
        backups
    })
}

fn policies() -> impl Strategy<Value = Policy> {
    let within = proptest::option::of((1_i64..400).prop_map(Duration::days));
    let count = || 0_u32..6;
    (within, count(), count(), count(), count(), count(), (count(), count(), any::<bool>()))
        .prop_map(|(within, last, hourly, daily, weekly, monthly, (yearly, min_keep, frozen))| {
            Policy {
                zone: berlin(),
                within,
                last,
                periods: vec![
                    (Period::Hour, hourly),
                    (Period::Day, daily),
                    (Period::Week, weekly),
                    (Period::Month, monthly),
                    (Period::Year, yearly),
                ],
                min_keep,
                removed_percent_max: 100,
                frozen_after: frozen.then_some(Duration::days(30)),
            }
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn the_rules_are_those_of_the_model(
        policy in policies(), backups in histories(), now in times(),
    ) {
        prop_assert_eq!(kept(&policy, &backups, now), model(&policy, &backups, now));
    }

    #[test]
    fn what_must_stay_stays(
        policy in policies(), backups in histories(), now in times(), percent in 0_u8..=100,
    ) {
        let policy = Policy { removed_percent_max: percent, ..policy };
        let left = kept(&policy, &backups, now);
        for backup in backups.iter().filter(|backup| left.contains(&backup.id)) {
            let parent = backup.parent.filter(|parent| backups.iter().any(|b| b.id == *parent));
            prop_assert!(parent.is_none_or(|parent| left.contains(&parent)), "a parent is gone");
        }
        for backup in &backups {
            let free = !backup.pinned && backup.whole && backup.id.created() <= now;
            prop_assert!(free || left.contains(&backup.id));
        }
        let most = (backups.len() * usize::from(percent)).div_ceil(100);
        prop_assert!(backups.len() - left.len() <= most);
    }

    #[test]
    fn again_changes_nothing_and_nothing_comes_back(
        policy in policies(), backups in histories(), now in times(), later in 0_i64..400,
    ) {
        // Ends of periods of rest, which would only keep more, are left out.
        let policy = Policy { frozen_after: None, ..policy };
        let first = kept(&policy, &backups, now);
        let rest: Vec<Backup> =
            backups.iter().copied().filter(|backup| first.contains(&backup.id)).collect();
        prop_assert_eq!(&kept(&policy, &rest, now), &first, "idempotent");
        // What is removed today would not have been wanted at any later time either: the policy
        // keeps the same whether cleanup ran every day or only at the end.
        let then = now + Duration::days(later);
        let once = kept(&policy, &backups, then);
        let twice = kept(&policy, &rest, then);
        prop_assert_eq!(once, twice, "monotone");
    }

    #[test]
    fn removals_never_strand_a_child(policy in policies(), backups in histories(), now in times()) {
        let members = (0..backups.len()).collect();
        let whys = decide(&[Group { policy: &policy, members, frozen: None }], &backups, now);
        let mut left = backups.clone();
        for at in removals(&backups, &whys) {
            left.retain(|backup| backup.id != backups[at].id);
            let parent = Some(backups[at].id);
            prop_assert!(left.iter().all(|child| child.parent != parent), "a child is stranded");
        }
    }
}

/// What the sources ask for, with the numbers that follow from them.
#[test]
fn the_policies_of_the_sources_keep_what_they_say() {
    let begin = datetime!(2020-01-01 00:30 UTC);
    let now = begin + Duration::days(6 * 365);
    let six_hourly: Vec<Backup> =
        (0..4 * 6 * 365).map(|n| backup(begin + Duration::hours(6 * n), None)).collect();
    let gfs = Policy {
        periods: vec![(Period::Day, 7), (Period::Week, 4), (Period::Month, 12), (Period::Year, 5)],
        ..Policy::empty()
    };
    // Seven days, in which two of the four weeks end, and so on.
    assert_eq!(kept(&gfs, &six_hourly, now).len(), 7 + 2 + 11 + 4);
    let counts = Policy {
        periods: vec![(Period::Hour, 24), (Period::Day, 30), (Period::Month, 12)],
        ..Policy::empty()
    };
    // 24 hours with a backup are six days, and in 30 days two months end.
    assert_eq!(kept(&counts, &six_hourly, now).len(), 24 + (30 - 6) + (12 - 2));
    let year = Policy { within: Some(Duration::days(365)), ..Policy::empty() };
    assert_eq!(kept(&year, &six_hourly, now).len(), 365 * 4);
}

#[test]
fn a_failing_job_and_a_wrong_clock_remove_nothing() {
    let begin = datetime!(2026-01-01 00:00 UTC);
    let daily: Vec<Backup> = (0..90).map(|n| backup(begin + Duration::days(n), None)).collect();
    let policy = Policy {
        within: Some(Duration::days(30)),
        frozen_after: Some(Duration::days(2)),
        ..Policy::empty()
    };
    let end = begin + Duration::days(90);
    assert_eq!(kept(&policy, &daily, end).len(), 30);
    assert_eq!(kept(&policy, &daily, end + Duration::days(2)).len(), 90);
    assert_eq!(kept(&policy, &daily, end + Duration::days(3650)).len(), 90);
    // A clock that is behind sees only the future.
    assert_eq!(kept(&policy, &daily, begin - Duration::days(1)).len(), 90);
}

#[test]
fn of_two_policies_the_more_generous_one_counts_and_of_none_nothing_is_removed() {
    let begin = datetime!(2026-01-01 00:00 UTC);
    let backups: Vec<Backup> = (0..20).map(|n| backup(begin + Duration::days(n), None)).collect();
    let (one, five) =
        (Policy { last: 1, ..Policy::empty() }, Policy { last: 5, ..Policy::empty() });
    let now = begin + Duration::days(20);
    let group = |policy, members: std::ops::Range<usize>| Group {
        policy,
        members: members.collect(),
        frozen: None,
    };
    let whys = decide(&[group(&one, 5..20), group(&five, 5..20)], &backups, now);
    let gone: Vec<usize> = (0..20).filter(|at| whys[*at].is_empty()).collect();
    assert_eq!(gone, (5..15).collect::<Vec<_>>());
    assert_eq!(whys[0], [Why::Ungoverned]);
    let frozen = Group { frozen: Some("x".into()), ..group(&one, 0..20) };
    assert!(decide(&[frozen], &backups, now).iter().all(|whys| !whys.is_empty()));
}

/// Whoever can write to a store can plant a second backup of an id: neither takes the other's place.
#[test]
fn a_planted_backup_does_not_take_the_place_of_a_base() {
    let begin = datetime!(2026-01-01 00:00 UTC);
    let base = backup(begin, None);
    let child = backup(begin + Duration::days(1), Some(base));
    let later = backup(begin + Duration::days(2), None);
    let planted = Backup { whole: false, ..base };
    let policy = Policy { last: 2, ..Policy::empty() };
    for backups in [[base, child, later, planted], [planted, base, child, later]] {
        let group = Group { policy: &policy, members: vec![0, 1, 2, 3], frozen: None };
        let whys = decide(&[group], &backups, begin + Duration::days(3));
        assert!(whys.iter().all(|whys| !whys.is_empty()), "{whys:?}");
    }
}
