use std::collections::BTreeMap;

use super::*;
use crate::domain::id::BackupId;
use proptest::prelude::*;

fn id(number: usize) -> BackupId {
    format!("01935a3c-7a00-7000-8000-{number:012x}").parse().expect("valid")
}

fn sum(position: u64) -> String {
    format!("{position:032x}")
}

/// A link with these positions, after the link with that number.
fn link(number: usize, parent: Option<usize>, first: u64, last: u64) -> Link {
    let digest = |number: usize| format!("sha of {number}");
    Link {
        id: id(number),
        parent: parent.map(id),
        sha256: digest(number),
        segment: Segment {
            mode: "wal".into(),
            stream: "7".into(),
            needs_base: true,
            parent_sha256: parent.map(digest),
            gap: None,
            unreplayable: None,
            first_timestamp: first * 10,
            last_timestamp: last * 10,
            range: Some(Range { first, last, before: sum(first - 1), after: sum(last) }),
        },
    }
}

fn base(position: u64) -> Base {
    Base {
        id: id(0),
        stream: "7".into(),
        position,
        timestamp: position * 10,
        slack: 16,
        branch: None,
    }
}

/// A log of segments with these numbers of positions, the first one 1.
fn log(lengths: &[u64]) -> Vec<Link> {
    let mut next = 1;
    let number = |(index, length): (usize, &u64)| {
        let first = next;
        next += length;
        link(index, index.checked_sub(1), first, next - 1)
    };
    lengths.iter().enumerate().map(number).collect()
}

#[test]
fn a_gap_that_is_known_is_no_damage() {
    let mut links = log(&[5, 5, 5]);
    links[2] = Link {
        segment: Segment { gap: Some("slow".into()), ..link(2, Some(1), 20, 30).segment },
        ..links[2].clone()
    };
    let log = Log::of(links);
    assert_eq!(log.breaks, BTreeMap::from([(2, Break::Gap("slow".into()))]));
    assert!(!log.is_damaged());
    assert_eq!(log.runs().iter().map(|run| run.len()).collect::<Vec<_>>(), [2, 1]);
    let windows = |bases: &[Base]| -> Vec<Option<(u64, u64)>> {
        log.runs()
            .iter()
            .map(|run| window(run, bases).and_then(|window| window.positions))
            .collect()
    };
    assert_eq!(windows(&[base(3), base(7), base(22)]), [Some((3, 10)), Some((22, 30))]);
    assert_eq!(windows(&[base(0), base(10)]), [Some((0, 10)), None]);
    assert_eq!(windows(&[base(11), base(31)]), [None, None]);
}

#[test]
fn a_branch_that_nobody_continued_is_named() {
    let mut links = log(&[5, 5, 5]);
    links.insert(1, Link { id: id(0x100), ..link(0x100, Some(0), 6, 8) });
    // The branch is the newest by id, and what came before it is not.
    let found = Log::of(links);
    assert_eq!(found.strays, [id(1), id(2)]);
    assert!(!found.is_damaged());
}

/// With several stores, what one of them missed is shipped again: what the other one has of it goes on
/// to restore.
#[test]
fn a_branch_restores_too() {
    let mut links = log(&[5, 5, 5]);
    // Another store lacked 1 and 2, and part of them had left the ring.
    let gap = Some("overwritten".to_owned());
    let segment = Segment { gap, ..link(0x100, Some(0), 13, 30).segment };
    links.push(Link { segment, ..link(0x100, Some(0), 13, 30) });
    let logs = Log::all(&links);
    let ids: Vec<Vec<BackupId>> =
        logs.iter().map(|log| log.links.iter().map(|link| link.id).collect()).collect();
    assert_eq!(ids, [vec![id(0), id(1), id(2)], vec![id(0), id(0x100)]]);
    let bases = [base(3), base(20)];
    let windows: Vec<_> =
        logs.iter().flat_map(Log::runs).filter_map(|run| window(run, &bases)).collect();
    let positions: Vec<_> = windows.iter().map(|window| window.positions).collect();
    assert_eq!(positions, [Some((3, 15)), Some((3, 5)), Some((20, 30))]);
    assert!(windows[0].covers(&windows[1]) && !windows[1].covers(&windows[0]));
    assert!(!windows[0].covers(&windows[2]));
}

/// A store that came later has nothing to go on from; the log that was there before still restores.
#[test]
fn a_log_that_begins_anew_keeps_the_old_one() {
    let mut links = log(&[5, 5]);
    links.push(link(5, None, 8, 30));
    links.push(link(6, Some(5), 31, 40));
    let logs = Log::all(&links);
    assert_eq!(logs.len(), 2);
    assert_eq!(logs[0].links.len(), 2);
    assert_eq!(logs[1].breaks.keys().collect::<Vec<_>>(), [&0]);
    assert!(!logs[1].is_damaged());
    assert_eq!(window(logs[0].runs()[0], &[base(3)]).and_then(|w| w.positions), Some((3, 10)));
    assert_eq!(logs[1].runs().len(), 1);
}

/// Positions come twice where a source goes on from an earlier state.
#[test]
fn a_snapshot_of_another_history_is_no_base() {
    let links = log(&[5, 5, 5]);
    let late = Base { timestamp: 1000, ..base(7) };
    let other = Base { stream: "8".into(), ..base(7) };
    assert!(base(7).is_of(&links) && base(0).is_of(&links) && base(15).is_of(&links));
    assert!(!late.is_of(&links) && !other.is_of(&links) && !base(16).is_of(&links));
    assert!(!Base { timestamp: 10, ..base(0) }.is_of(&links));
}

/// A source that has lost what was shipped is shipped from its beginning.
#[test]
fn a_log_without_snapshots_begins_again_after_a_gap() {
    let mut links = log(&[5, 5, 5]);
    for link in &mut links {
        link.segment.mode = "query".into();
        link.segment.needs_base = false;
        link.segment.range = None;
    }
    links[2].segment.gap = Some("restored".into());
    links[2].segment.first_timestamp = 1;
    let log = Log::of(links);
    let windows: Vec<_> = log.runs().into_iter().filter_map(|run| window(run, &[])).collect();
    let times: Vec<_> = windows.iter().map(|window| (window.from, window.until)).collect();
    assert_eq!(times, [(10, 100), (1, 150)]);
}

proptest! {
    #[test]
    fn a_whole_log_is_one_run(lengths in prop::collection::vec(1_u64..50, 1..20), seed: u64) {
        let mut links = log(&lengths);
        let ordered = links.clone();
        let turn = usize::try_from(seed % links.len() as u64).expect("small");
        links.rotate_left(turn);
        let found = Log::of(links);
        prop_assert_eq!(&found.links, &ordered);
        prop_assert!(found.breaks.is_empty() && found.strays.is_empty());
        let window = window(found.runs()[0], &[base(0)]).expect("a window");
        prop_assert_eq!(window.positions, Some((0, lengths.iter().sum())));
    }

    /// Whatever is missing, but for the newest and the oldest, is noticed.
    #[test]
    fn a_missing_segment_is_noticed(
        lengths in prop::collection::vec(1_u64..50, 3..20),
        which in any::<prop::sample::Index>(),
    ) {
        let mut links = log(&lengths);
        let index = 1 + which.index(links.len() - 2);
        links.remove(index);
        let found = Log::of(links);
        prop_assert!(found.is_damaged());
        prop_assert_eq!(found.breaks.keys().copied().collect::<Vec<_>>(), [index]);
        prop_assert_eq!(found.links.len(), lengths.len() - 1);
    }

    /// What one segment says in place of another does not pass.
    #[test]
    fn segments_in_each_others_places_are_noticed(
        lengths in prop::collection::vec(1_u64..50, 3..20),
        a in any::<prop::sample::Index>(),
        b in any::<prop::sample::Index>(),
    ) {
        let mut links = log(&lengths);
        let (a, b) = (a.index(links.len()), b.index(links.len()));
        prop_assume!(a != b);
        let (one, other) = (links[a].segment.clone(), links[b].segment.clone());
        let (one_sum, other_sum) = (links[a].sha256.clone(), links[b].sha256.clone());
        (links[a].segment, links[b].segment) = (other, one);
        (links[a].sha256, links[b].sha256) = (other_sum, one_sum);
        prop_assert!(Log::of(links).is_damaged());
    }
}

/// Runs of segments of ten positions each, with a gap before each run but the first.
fn runs(lengths: &[usize]) -> Vec<Link> {
    let mut links: Vec<Link> = Vec::new();
    for length in lengths {
        for place in 0..*length {
            let number = links.len();
            let first = u64::try_from(number).expect("small") * 10 + 1;
            let mut link = link(number, number.checked_sub(1), first, first + 9);
            link.segment.gap = (place == 0 && number > 0).then(|| "too late".into());
            links.push(link);
        }
    }
    links
}

#[test]
fn what_a_log_needs_begins_at_the_last_base_before_the_wanted_time() {
    let logs = Log::all(&runs(&[6, 6]));
    assert_eq!(logs[0].runs().len(), 2);
    let bases: Vec<Base> = [(1000, 5), (1001, 25), (1002, 45), (1003, 70), (1004, 100)]
        .map(|(number, position)| Base { id: id(number), ..base(position) })
        .into();
    let kept = |since| {
        let LogRetention { bases, spare } = keep(&logs, &bases, since);
        let known = |number: &usize| bases.contains(&id(1000 + number));
        ((0..5).filter(known).collect::<Vec<_>>(), spare.len())
    };
    // For ever: the first base of each run, and no segment goes.
    assert_eq!(kept(0), (vec![0, 3], 0));
    assert_eq!(kept(249), (vec![0, 3], 0), "not yet at the second base");
    assert_eq!(kept(250), (vec![1, 3], 0), "the 16 positions before it may be taken back");
    assert_eq!(
        kept(450),
        (vec![2, 3], 2),
        "those that end at 10 and 20, the base is sure until 29"
    );
    assert_eq!(kept(599), (vec![2, 3], 2));
    // The first run ends at 600: nothing of it is wanted any more. Of the second nothing leads to 601.
    assert_eq!(kept(601), (vec![3], 6), "and of the second all, since no base is old enough");
    assert_eq!(kept(u64::MAX), (vec![4], 8), "the newest run stays, from its last base on");
}

#[test]
fn a_run_without_a_base_goes_only_from_the_beginning_and_the_newest_never() {
    let logs = Log::all(&runs(&[2, 2, 2]));
    assert_eq!(keep(&logs, &[], 0).spare, [], "a snapshot of it may be mended");
    assert_eq!(keep(&logs, &[], u64::MAX).spare.len(), 4);
    // The first run restores, the second does not: a hole in the middle would be damage.
    let first = Base { id: id(1000), ..base(5) };
    assert_eq!(keep(&logs, &[first], 0).spare, []);
    assert_eq!(keep(&[], &[], 0), LogRetention::default());
}

/// Where the timeline 2 branches off timeline 1.
const SWITCH: u64 = 0x0300_0000;

/// WAL of a server whose log positions are LSNs: 16 MiB a segment, here `first` to `last`, on timelines.
fn wal(number: usize, parent: Option<usize>, range: (u64, u64), timelines: (u32, u32)) -> Link {
    let (first, last) = range;
    let mut link = link(number, parent, 1, 1);
    link.segment.stream = "7312489563028147712".into();
    link.segment.first_timestamp = first;
    link.segment.last_timestamp = last;
    let (before, after) = (timelines.0.to_string(), timelines.1.to_string());
    link.segment.range = Some(Range { first, last, before, after });
    link
}

/// Positions that are bytes, and timelines in place of checksums: a segment that has the switch leads from
/// one to the other, and what goes on with another timeline than that is of another history.
#[test]
fn a_log_of_bytes_on_timelines_follows_the_same_rules() {
    let links = [
        wal(0, None, (0x0100_0000, 0x01ff_ffff), (1, 1)),
        // It ends early: the server was promoted at this position.
        wal(1, Some(0), (0x0200_0000, SWITCH - 1), (1, 1)),
        wal(2, Some(1), (SWITCH, 0x03ff_ffff), (1, 2)),
        wal(3, Some(2), (0x0400_0000, 0x04ff_ffff), (2, 2)),
    ];
    let at = |position: u64, timestamp: u64| Base {
        stream: links[0].segment.stream.clone(),
        timestamp,
        slack: 0,
        ..base(position)
    };
    let log = Log::of(links.to_vec());
    assert_eq!(log.breaks, BTreeMap::new());
    let (run, bases) = (log.runs()[0], [at(0x0180_0028, 0x0180_0000), at(SWITCH, SWITCH)]);
    let found = window(run, &bases).expect("a window");
    assert_eq!(found.positions, Some((0x0180_0028, 0x04ff_ffff)));
    assert_eq!((found.from, found.until), (0x0180_0000, 0x04ff_ffff));
    assert!(
        found.admits(Target::Position(0x0400_0000)) && !found.admits(Target::Position(0x0500_0000))
    );
    // All that is in a snapshot is in it for good.
    let ids = |base: &Base, target: Target| -> Vec<BackupId> {
        needed(run, Some(base), target).iter().map(|link| link.id).collect()
    };
    assert_eq!(ids(&bases[1], Target::Position(SWITCH + 8)), [id(2)]);
    assert_eq!(ids(&at(SWITCH - 1, SWITCH - 1), Target::Position(SWITCH + 8)), [id(2)]);
    assert_eq!(ids(&bases[0], Target::Time(SWITCH)), [id(0), id(1), id(2)]);
    assert_eq!(keep(&Log::all(&links), &bases, u64::MAX).spare, [id(0), id(1)]);
    // The old server went on after the switch, until later than the new one reached the same position.
    let stranger = at(SWITCH + 0x0010_0000, 0x0480_0000);
    assert!(!stranger.is_of(run), "a snapshot of the other timeline");

    let mut astray = links.to_vec();
    astray[3].segment.range =
        Some(Range { before: "1".into(), ..links[3].segment.range.clone().expect("a range") });
    let broken = Log::of(astray);
    let damage = Damage::Position(0x0400_0000, 0x03ff_ffff);
    assert_eq!(broken.breaks, BTreeMap::from([(3, Break::Damage(damage.clone()))]));
    assert_eq!(
        damage.text("LSN"),
        "it begins with LSN 67108864, but the previous segment ends with LSN 67108863"
    );
    let other = Segment { stream: "1".into(), ..links[3].segment.clone() };
    let sha256 = &links[2].sha256;
    assert_eq!(other.contradicts(&links[2].segment, sha256), Some(Damage::Log));
}
