//! Finds the parts of a table that changed, by the sums of groups of its rows.
//!
//! Rows have consecutive numbers (`rowid`), so many of them make a group, and the index has of every group
//! how many rows it had and what their hashes add up to. To find what changed, the rows of a table are all
//! hashed, in parallel and without order; then only groups that add up to something else are compared row
//! by row with what the last full export has in their place.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;

use crate::source::duckdb::export::index::{Content, RowGroup};

/// Rows of a group, as the table numbers them: as many as DuckDB stores together by default.
pub(crate) const GROUP_ROWS: u64 = 122_880;

/// Groups of all tables of an export that go into its index, which is bounded: of further tables there are none,
/// and they are compared as a whole.
pub(crate) const GROUPS_MAX: usize = 200_000;

/// Runs of groups that are skipped: each makes a query longer.
const RUNS_MAX: usize = 32;

/// The groups of a table that have rows, in their order, each with its number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Groups(Vec<(u64, Content)>);

/// What of a table, and of its last full export, is compared row by row.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Region {
    /// Rows of the full export, by their place.
    pub(crate) base: Vec<Range<u64>>,
    /// Rows of the table, by their number.
    pub(crate) now: Vec<Range<u64>>,
    /// What the rows add up to that are the same in both.
    pub(crate) alike: Content,
}

/// Groups that are the same, one after the other in both places.
#[derive(Debug)]
struct Run {
    base: Range<u64>,
    now: Range<u64>,
    alike: Content,
}

impl Groups {
    /// Groups with their numbers, in order.
    pub(crate) fn new(groups: Vec<(u64, Content)>) -> Groups {
        Groups(groups)
    }

    /// The groups, each with its number.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &Content)> {
        self.0.iter().map(|(number, content)| (*number, content))
    }

    /// What the table adds up to.
    pub(crate) fn content(&self) -> Content {
        self.0.iter().fold(Content::default(), |sum, (_, content)| sum.plus(content))
    }

    /// As the index of a full export has them.
    pub(crate) fn recorded(&self) -> Vec<RowGroup> {
        let mut at = 0;
        let recorded = self.0.iter().map(|(_, content)| {
            let base_at = Some(at);
            at += content.rows;
            RowGroup { content: *content, base_at, stored: None }
        });
        recorded.collect()
    }

    /// As the index of an increment has them: those that are in the last export are where they were.
    pub(crate) fn recorded_after(&self, last: &[RowGroup]) -> Vec<RowGroup> {
        let mut places: HashMap<Content, Vec<u64>> = HashMap::new();
        for group in last.iter().rev() {
            if let Some(at) = group.base_at {
                places.entry(group.content).or_default().push(at);
            }
        }
        let find = |(_, content): &(u64, Content)| {
            let base_at = places.get_mut(content).and_then(Vec::pop);
            RowGroup { content: *content, base_at, stored: None }
        };
        self.0.iter().map(find).collect()
    }

    /// What has to be compared, where `recorded` says which groups are as they were in the full export, of so
    /// many rows, and ever since; nothing if that is everything.
    pub(crate) fn region(&self, recorded: &[RowGroup], base_rows: u64) -> Option<Region> {
        let mut runs: Vec<Run> = Vec::new();
        for ((number, content), recorded) in self.0.iter().zip(recorded) {
            let Some(at) = recorded.base_at else { continue };
            let base = at..at.checked_add(content.rows)?;
            let now = number * GROUP_ROWS..(number + 1) * GROUP_ROWS;
            match runs.last_mut() {
                Some(run) if run.base.end == base.start && run.now.end == now.start => {
                    (run.base.end, run.now.end) = (base.end, now.end);
                    run.alike = run.alike.plus(content);
                }
                _ => runs.push(Run { base, now, alike: *content }),
            }
        }
        runs.sort_by_key(|run| std::cmp::Reverse(run.alike.rows));
        runs.truncate(RUNS_MAX);
        let alike = runs.iter().fold(Content::default(), |sum, run| sum.plus(&run.alike));
        let base = rest(runs.iter().map(|run| run.base.clone()).collect(), base_rows)?;
        let end = self.0.last().map_or(0, |(number, _)| (number + 1) * GROUP_ROWS);
        let now = rest(runs.iter().map(|run| run.now.clone()).collect(), end)?;
        (alike.rows > 0).then_some(Region { base, now, alike })
    }
}

/// The numbers of the rows of these groups, and of others between them where there would be too many parts.
pub(crate) fn ranges(groups: &BTreeSet<u64>) -> Vec<Range<u64>> {
    let mut gap = 0;
    loop {
        let mut runs: Vec<Range<u64>> = Vec::new();
        for number in groups {
            match runs.last_mut() {
                Some(run) if run.end + gap >= *number => run.end = number + 1,
                _ => runs.push(*number..number + 1),
            }
        }
        if runs.len() <= RUNS_MAX {
            return runs.iter().map(|run| run.start * GROUP_ROWS..run.end * GROUP_ROWS).collect();
        }
        gap = 2 * gap + 1;
    }
}

/// What is left of the rows up to `end`; nothing if two of these parts overlap, or go beyond it.
fn rest(mut parts: Vec<Range<u64>>, end: u64) -> Option<Vec<Range<u64>>> {
    parts.sort_by_key(|part| part.start);
    let mut left = Vec::new();
    let mut at = 0;
    for part in parts.into_iter().chain(std::iter::once(end..end)) {
        if part.start < at {
            return None;
        }
        if part.start > at {
            left.push(at..part.start);
        }
        at = part.end;
    }
    Some(left)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(rows: u64, sum: u64) -> Content {
        Content { rows, sum: u128::from(sum), xor: sum }
    }

    fn groups(of: &[(u64, u64, u64)]) -> Groups {
        Groups(of.iter().map(|(number, rows, sum)| (*number, content(*rows, *sum))).collect())
    }

    fn rows(from: u64, to: u64) -> Range<u64> {
        from * GROUP_ROWS..to * GROUP_ROWS
    }

    #[test]
    fn only_what_changed_is_compared() {
        let full = groups(&[(0, 10, 1), (1, 10, 2), (2, 7, 3), (3, 10, 4), (4, 10, 5)]);
        assert_eq!(full.content(), Content { rows: 47, sum: 15, xor: 1 });
        let last = full.recorded();
        assert_eq!(last[3].base_at, Some(27));
        let now = groups(&[(0, 10, 1), (1, 10, 6), (2, 7, 3), (3, 10, 4), (4, 9, 7)]);
        let recorded = now.recorded_after(&last);
        let region = now.region(&recorded, 47).expect("three are alike");
        assert_eq!(region.base, [10..20, 37..47]);
        assert_eq!(region.now, [rows(1, 2), rows(4, 5)]);
        assert_eq!(region.alike, Content { rows: 27, sum: 8, xor: 6 });
        // The second group is what it was in the full export, but was another one in between.
        let back = full.recorded_after(&recorded);
        assert_eq!(back[1].base_at, None);
        // The first ones are gone, their numbers too, and the others moved.
        let fewer = groups(&[(5, 10, 4), (6, 10, 5)]);
        let recorded = fewer.recorded_after(&last);
        let region = fewer.region(&recorded, 47).expect("two are alike");
        assert_eq!((region.base.first(), region.base.len()), (Some(&(0..27)), 1));
        assert_eq!((region.now.first(), region.now.len()), (Some(&rows(0, 5)), 1));
        assert_eq!(fewer.region(&fewer.recorded_after(&[]), 47), None);
        assert_eq!(fewer.region(&recorded, 40), None, "a group is beyond the end");
    }

    #[test]
    fn too_many_parts_are_joined_where_little_is_between_them() {
        let few = ranges(&BTreeSet::from([0, 1, 5]));
        assert_eq!(few, [rows(0, 2), rows(5, 6)]);
        let scattered: BTreeSet<u64> = (0..40).map(|number| 2 * number).chain([1000]).collect();
        assert_eq!(ranges(&scattered), [rows(0, 79), rows(1000, 1001)]);
        assert!(ranges(&BTreeSet::new()).is_empty());
    }

    #[test]
    fn groups_that_add_up_to_the_same_are_two() {
        let full = groups(&[(0, 10, 1), (1, 10, 1), (2, 10, 2)]);
        let last = full.recorded();
        let now = groups(&[(0, 10, 1), (1, 10, 1), (2, 10, 1)]);
        let recorded = now.recorded_after(&last);
        assert_eq!(
            recorded.iter().map(|group| group.base_at).collect::<Vec<_>>(),
            [Some(0), Some(10), None]
        );
        let region = now.region(&recorded, 30).expect("two are alike");
        assert_eq!((region.base.first(), region.base.len()), (Some(&(20..30)), 1));
        assert_eq!((region.now.first(), region.now.len()), (Some(&rows(2, 3)), 1));
    }

    #[test]
    fn only_the_longest_runs_are_skipped() {
        let every_other =
            |number: u64| (number, 10, if number.is_multiple_of(2) { number } else { 0 });
        let full = groups(&(0..100).map(|number| (number, 10, number)).collect::<Vec<_>>());
        let now = groups(&(0..100).map(every_other).collect::<Vec<_>>());
        let recorded = now.recorded_after(&full.recorded());
        let region = now.region(&recorded, 1000).expect("half of them are alike");
        assert_eq!(region.alike.rows, 320);
        let compared = region.base.iter().map(|part| part.end - part.start).sum::<u64>();
        assert_eq!(compared, 680);
    }
}
