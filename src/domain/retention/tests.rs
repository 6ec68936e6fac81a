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
    let base = parent.map_or(id, |parent| parent.base);
    Backup { parent: parent.map(|parent| parent.id), base, ..Backup::full(id) }
}

fn kept(policy: &Policy, backups: &[Backup], now: OffsetDateTime) -> BTreeSet<BackupId> {
    let members = (0..backups.len()).collect();
    let reasons = decide(&[Group { policy, members, frozen: None }], backups, now);
    let kept = backups.iter().zip(&reasons).filter(|(_, reasons)| !reasons.is_empty());
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

/// A group of the model: a policy, the positions of its members, and whether its job failed.
type ModelGroup<'a> = (&'a Policy, BTreeSet<usize>, bool);

/// The positions of what a backup builds on: more than one only if an id comes twice.
fn parents(backups: &[Backup], at: usize) -> Vec<usize> {
    let of = backups[at].parent;
    (0..backups.len()).filter(|other| Some(backups[*other].id) == of).collect()
}

/// Whether it can be restored, as far as anybody knows.
fn restores(backups: &[Backup], at: usize) -> bool {
    let Backup { whole, proven, parent, .. } = backups[at];
    let parents = parents(backups, at);
    let stands = parents.iter().all(|parent| restores(backups, *parent));
    whole && proven && (parent.is_none() || (!parents.is_empty() && stands))
}

/// The rules again, as they would be told: slow, and one backup at a time.
fn model_of(groups: &[ModelGroup<'_>], backups: &[Backup], now: OffsetDateTime) -> BTreeSet<usize> {
    let past = |at: usize| backups[at].id.created() <= now;
    let counts: Vec<bool> =
        (0..backups.len()).map(|at| restores(backups, at) && past(at)).collect();
    let stays = |at: usize| {
        let Backup { pinned, replayed, held_until, .. } = backups[at];
        let held = held_until.is_some_and(|until| until > now);
        let of: Vec<&ModelGroup<'_>> =
            groups.iter().filter(|group| group.1.contains(&at)).collect();
        let wanted = of.iter().any(|group| is_wanted(group, backups, &counts, at, now));
        pinned || replayed || held || !restores(backups, at) || !past(at) || of.is_empty() || wanted
    };
    let mut kept: BTreeSet<usize> = (0..backups.len()).filter(|at| stays(*at)).collect();
    with_parents(backups, &mut kept);
    // What is too much for one time: of each group only so many go, in the order of removals.
    for (policy, members, _) in groups {
        let mut gone: Vec<usize> =
            members.iter().copied().filter(|at| !kept.contains(at)).collect();
        gone.sort_by_key(|at| (backups[*at].base, std::cmp::Reverse(backups[*at].id)));
        let proven = members.iter().filter(|at| backups[**at].proven).count();
        let most = (proven * usize::from(policy.removed_percent_max)).div_ceil(100);
        kept.extend(gone.into_iter().skip(most));
    }
    with_parents(backups, &mut kept);
    kept
}

fn with_parents(backups: &[Backup], kept: &mut BTreeSet<usize>) {
    loop {
        let more: BTreeSet<usize> = kept.iter().flat_map(|at| parents(backups, *at)).collect();
        if more.is_subset(kept) {
            return;
        }
        kept.extend(more);
    }
}

/// Whether a group wants a backup that counts.
fn is_wanted(
    (policy, members, failed): &ModelGroup<'_>,
    backups: &[Backup],
    counts: &[bool],
    at: usize,
    now: OffsetDateTime,
) -> bool {
    let counted: Vec<usize> = members.iter().copied().filter(|at| counts[*at]).collect();
    // Whether one of the newest few, or now, comes too long after the one before it.
    let late = policy.frozen_after.is_some_and(|after| {
        let mut times: Vec<OffsetDateTime> =
            counted.iter().map(|at| backups[*at].id.created()).collect();
        times.push(now);
        times.sort_unstable();
        let newest: Vec<_> = times.iter().rev().take(1 + policy.min_keep.max(3) as usize).collect();
        newest.windows(2).any(|pair| *pair[0] - *pair[1] > after)
    });
    if *failed || late {
        return true;
    }
    let age = |at: usize| (backups[at].id, at);
    let later: Vec<usize> = counted.iter().copied().filter(|other| age(*other) > age(at)).collect();
    let full = counted.iter().filter(|at| backups[**at].parent.is_none());
    let most = policy.last.max(policy.min_keep).max(1);
    let newest_full = full.max_by_key(|at| age(**at));
    if later.len() < most as usize || newest_full == Some(&at) {
        return true;
    }
    let own = backups[at].id.created();
    policy.within.is_some_and(|within| now - own <= within)
        || policy.periods.iter().any(|(period, count)| {
            let named = |at: &usize| named(*period, backups[*at].id.created());
            let later: BTreeSet<String> = later.iter().map(named).collect();
            !later.contains(&named(&at)) && later.len() < *count as usize
        })
}

/// The same for one policy that is about everything.
fn model(policy: &Policy, backups: &[Backup], now: OffsetDateTime) -> BTreeSet<BackupId> {
    let kept = model_of(&[(policy, (0..backups.len()).collect(), false)], backups, now);
    kept.into_iter().map(|at| backups[at].id).collect()
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

/// A history in which some ids come twice, some manifests are not proven, and some backups are needed by
/// a log.
fn odd_histories() -> impl Strategy<Value = Vec<Backup>> {
    let odd = proptest::collection::vec((any::<proptest::sample::Index>(), 0_u8..6), 0..6);
    (histories(), odd).prop_map(|(mut backups, odd)| {
        for (at, what) in odd.into_iter().filter(|_| !backups.is_empty()).collect::<Vec<_>>() {
            let at = at.index(backups.len());
            match what {
                0 => backups[at].proven = false,
                1 => backups[at].replayed = true,
                2 => backups.push(Backup { whole: false, ..backups[at] }),
                3 => backups.push(Backup { proven: false, ..backups[at] }),
                4 => backups.push(Backup { parent: None, base: backups[at].id, ..backups[at] }),
                _ => backups.insert(0, backups[at]),
            }
        }
        backups
    })
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

    /// Groups that share members, as two jobs of one source do; limits; jobs that failed; ids that come
    /// twice.
    #[test]
    fn the_rules_of_several_groups_are_those_of_the_model(
        drawn in proptest::collection::vec(
            (policies(), 1_u8..=100, 0_usize..4, 0_usize..4, 0_u8..8), 1..4,
        ),
        backups in odd_histories(),
        now in times(),
    ) {
        let drawn: Vec<(Policy, Vec<usize>, bool)> = drawn.into_iter().map(
            |(policy, removed_percent_max, first, step, failed)| {
                // All, every second one, …; some backups are in no group and some in several.
                let members = (first..backups.len()).step_by(step.max(1)).collect();
                (Policy { removed_percent_max, ..policy }, members, failed == 0)
            },
        ).collect();
        let groups: Vec<Group<'_>> = drawn.iter().map(|(policy, members, failed)| {
            let frozen = failed.then(|| "it failed".to_owned());
            Group { policy, members: members.clone(), frozen }
        }).collect();
        let reasons = decide(&groups, &backups, now);
        let kept: BTreeSet<usize> = (0..backups.len()).filter(|at| !reasons[*at].is_empty()).collect();
        let told: Vec<ModelGroup<'_>> = drawn.iter().map(|(policy, members, failed)| {
            (policy, members.iter().copied().collect(), *failed)
        }).collect();
        prop_assert_eq!(kept, model_of(&told, &backups, now));
    }

    /// A clock that steps forward, and with it the next backups: as long as they are few, nothing goes.
    #[test]
    fn a_clock_that_jumps_removes_nothing(
        policy in policies(), backups in histories(), jump in 31_i64..4000, made in 0_usize..3,
    ) {
        let policy = Policy { frozen_after: Some(Duration::days(30)), ..policy };
        prop_assume!(!backups.is_empty());
        let last = backups.iter().map(|backup| backup.id.created()).max().expect("one");
        let now = last + Duration::days(jump);
        let mut later = backups.clone();
        for hour in 0..made {
            let at = now + Duration::hours(6 * i64::try_from(hour).expect("small"));
            let parent = later.last().copied().filter(|_| hour > 0);
            later.push(backup(at, parent));
        }
        let then = now + Duration::hours(6 * 3);
        prop_assert_eq!(kept(&policy, &later, then).len(), later.len());
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
        let proven = backups.iter().filter(|backup| backup.proven).count();
        let most = (proven * usize::from(percent)).div_ceil(100);
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
        let reasons = decide(&[Group { policy: &policy, members, frozen: None }], &backups, now);
        let mut left = backups.clone();
        for at in removals(&backups, &reasons) {
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
    let reasons = decide(&[group(&one, 5..20), group(&five, 5..20)], &backups, now);
    let gone: Vec<usize> = (0..20).filter(|at| reasons[*at].is_empty()).collect();
    assert_eq!(gone, (5..15).collect::<Vec<_>>());
    assert_eq!(reasons[0], [KeepReason::Ungoverned]);
    let frozen = Group { frozen: Some("x".into()), ..group(&one, 0..20) };
    assert!(decide(&[frozen], &backups, now).iter().all(|reasons| !reasons.is_empty()));
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
        let reasons = decide(&[group], &backups, begin + Duration::days(3));
        assert!(reasons.iter().all(|reasons| !reasons.is_empty()), "{reasons:?}");
    }
}
