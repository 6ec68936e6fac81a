//! Differences between two mostly equal sequences of rows, in one pass over both.
//!
//! Rows are known by a key and a hash. Tables keep their order: what was deleted is missing in the one
//! sequence, what was inserted is mostly at its end. So both are walked side by side, and where they part
//! each is searched a little ahead for the other. What is not found there waits until it turns up; in the
//! end nobody waits but what is gone, and what is new. A hash join holds every row of one side; this holds
//! what waits.

use std::collections::HashMap;

use crate::ctx::Cancel;

/// How far each sequence is searched for the other one, rows.
const AHEAD: usize = 1024;

/// The key of a row: two hashes of which no two keys share both, but for chance.
pub(crate) type Key = (u64, u64);

/// By keys. They are hashes already, but some have no secret: whoever writes the database could choose them so
/// that they meet in a simpler map.
pub(crate) type Map<T> = HashMap<Key, T>;

/// A row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KeyedRow {
    pub(crate) key: Key,
    /// Of its content.
    pub(crate) hash: u64,
    /// Where it is; of no meaning in the earlier sequence.
    pub(crate) place: u64,
}

impl From<[u64; 4]> for KeyedRow {
    fn from([one, other, hash, place]: [u64; 4]) -> KeyedRow {
        KeyedRow { key: (one, other), hash, place }
    }
}

/// More rows of a sequence, added to those given; false once there are none.
pub(crate) type More<'a> = &'a mut dyn FnMut(&mut Vec<KeyedRow>) -> anyhow::Result<bool>;

/// How many rows there were, and the sum of their hashes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Total {
    pub(crate) rows: u64,
    pub(crate) sum: u128,
}

/// What differs.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Differences {
    /// The places of the rows that are new or have another content.
    pub(crate) rows: Vec<u64>,
    /// The keys of the rows that are gone.
    pub(crate) gone: Vec<Key>,
    /// Of the earlier sequence.
    pub(crate) before: Total,
    /// Of the later one.
    pub(crate) now: Total,
}

/// One of the sequences.
struct Sequence<'a> {
    more: More<'a>,
    rows: Vec<KeyedRow>,
    /// How many of `rows` are done with.
    done: usize,
    ended: bool,
    total: Total,
}

impl<'a> Sequence<'a> {
    fn new(more: More<'a>) -> Self {
        Sequence { more, rows: Vec::new(), done: 0, ended: false, total: Total::default() }
    }

    /// Sees to it that there are rows to search, if there are any.
    fn fill(&mut self) -> anyhow::Result<()> {
        if self.ended || self.ahead().len() >= AHEAD {
            return Ok(());
        }
        self.rows.drain(..self.done);
        self.done = 0;
        while !self.ended && self.rows.len() < 4 * AHEAD {
            let before = self.rows.len();
            self.ended = !(self.more)(&mut self.rows)?;
            for row in self.rows.iter().skip(before) {
                self.total.rows += 1;
                self.total.sum += u128::from(row.hash);
            }
        }
        Ok(())
    }

    fn ahead(&self) -> &[KeyedRow] {
        self.rows.get(self.done..).unwrap_or_default()
    }

    /// Where a key is among the next rows.
    fn find(&self, key: Key, window: usize) -> Option<usize> {
        self.ahead().iter().take(window).position(|row| row.key == key)
    }

    /// The next rows, which are done with now.
    fn take(&mut self, count: usize) -> &[KeyedRow] {
        let begin = self.done;
        self.done = self.rows.len().min(begin + count);
        self.rows.get(begin..self.done).unwrap_or_default()
    }
}

/// Rows that have not met their like.
#[derive(Default)]
struct Waiting {
    /// Of the earlier sequence: their hashes.
    old: Map<u64>,
    /// Of the later one.
    new: Map<KeyedRow>,
    found: Vec<u64>,
    /// Two rows of one sequence have the same key.
    twice: bool,
}

impl Waiting {
    fn meet(&mut self, hash: u64, row: &KeyedRow) {
        if row.hash != hash {
            self.found.push(row.place);
        }
    }

    fn left(&mut self, row: &KeyedRow) {
        match self.new.remove(&row.key) {
            Some(new) => self.meet(row.hash, &new),
            None => self.twice |= self.old.insert(row.key, row.hash).is_some(),
        }
    }

    fn came(&mut self, row: &KeyedRow, others_ended: bool) {
        match self.old.remove(&row.key) {
            Some(hash) => self.meet(hash, row),
            None if others_ended => self.found.push(row.place),
            None => self.twice |= self.new.insert(row.key, *row).is_some(),
        }
    }

    fn count(&self) -> usize {
        self.old.len() + self.new.len() + self.found.len()
    }
}

/// What differs between the rows of `old` and those of `new`, in which every key comes once. Nothing if
/// that would be more than `most` rows, or if as many have to wait for others: then the sequences have
/// little in common but their keys. Nothing either if a key comes twice.
///
/// # Errors
/// What the sequences fail with; that the run is to stop.
pub(crate) fn differences(
    old: More<'_>,
    new: More<'_>,
    most: usize,
    cancel: &Cancel,
) -> anyhow::Result<Option<Differences>> {
    let (mut old, mut new) = (Sequence::new(old), Sequence::new(new));
    let mut waiting = Waiting::default();
    let mut window = AHEAD;
    loop {
        cancel.check()?;
        old.fill()?;
        new.fill()?;
        let pairs = old.ahead().iter().zip(new.ahead());
        let mut alike = 0;
        for (old, new) in pairs.take_while(|(old, new)| old.key == new.key) {
            alike += 1;
            waiting.meet(old.hash, new);
        }
        let (_, _) = (old.take(alike), new.take(alike));
        match (old.ahead().first().copied(), new.ahead().first().copied()) {
            (None, None) if old.ended && new.ended => break,
            // One of them is to be filled again.
            _ if alike > 0 => {}
            (None, None) => {}
            (Some(row), None) => {
                waiting.left(&row);
                old.take(1);
            }
            (None, Some(row)) => {
                waiting.came(&row, true);
                new.take(1);
            }
            (Some(first), Some(other)) => {
                let in_old = old.find(other.key, window);
                // Only what is nearer matters.
                let in_new = new.find(first.key, in_old.unwrap_or(window));
                let (olds, news) = match (in_old, in_new) {
                    (None, None) => (1, 1),
                    (Some(olds), news) if news.is_none_or(|news| olds <= news) => (olds, 0),
                    (_, news) => (0, news.unwrap_or(1)),
                };
                // Where searching is of no use, less is searched.
                let is_lost = in_old.is_none() && in_new.is_none();
                window = if is_lost { (window / 2).max(1) } else { AHEAD };
                old.take(olds).iter().for_each(|row| waiting.left(row));
                new.take(news).iter().for_each(|row| waiting.came(row, false));
            }
        }
        if waiting.twice || waiting.count() > most {
            return Ok(None);
        }
    }
    let Waiting { old: gone, new: fresh, found: mut rows, .. } = waiting;
    rows.extend(fresh.values().map(|row| row.place));
    rows.sort_unstable();
    let mut gone: Vec<Key> = gone.into_keys().collect();
    gone.sort_unstable();
    Ok(Some(Differences { rows, gone, before: old.total, now: new.total }))
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// A sequence in pieces of some length.
    pub(crate) fn pieces(
        rows: &[KeyedRow],
        length: usize,
    ) -> impl FnMut(&mut Vec<KeyedRow>) -> anyhow::Result<bool> {
        let mut left = rows.iter().copied();
        move |into| {
            into.extend(left.by_ref().take(length));
            Ok(left.len() > 0)
        }
    }

    fn compare(
        old: &[KeyedRow],
        new: &[KeyedRow],
        length: usize,
        most: usize,
    ) -> Option<Differences> {
        let (mut old, mut new) = (pieces(old, length), pieces(new, length));
        differences(&mut old, &mut new, most, &Cancel::default()).expect("no failure")
    }

    fn total(rows: &[KeyedRow]) -> Total {
        let sum = rows.iter().map(|row| u128::from(row.hash)).sum();
        Total { rows: rows.len() as u64, sum }
    }

    /// The same by a map of each.
    fn expected(old: &[KeyedRow], new: &[KeyedRow]) -> Differences {
        let hashes = |rows: &[KeyedRow]| -> BTreeMap<Key, u64> {
            rows.iter().map(|row| (row.key, row.hash)).collect()
        };
        let (before, now) = (hashes(old), hashes(new));
        let differs = |row: &&KeyedRow| before.get(&row.key) != Some(&row.hash);
        let mut rows: Vec<u64> = new.iter().filter(differs).map(|row| row.place).collect();
        rows.sort_unstable();
        let gone = before.keys().filter(|key| !now.contains_key(key)).copied().collect();
        Differences { rows, gone, before: total(old), now: total(new) }
    }

    pub(crate) fn row(key: u64, hash: u64, place: u64) -> KeyedRow {
        KeyedRow { key: (key, key / 3), hash, place }
    }

    /// What happens to a sequence: a row is changed, removed, moved to the end; rows are inserted.
    #[derive(Debug, Clone)]
    enum Step {
        Change(usize),
        Remove(usize),
        Move(usize),
        Insert(usize, usize),
        Reverse,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let at = 0_usize..10_000;
        let step = prop_oneof![
            10 => at.clone().prop_map(Step::Change),
            10 => at.clone().prop_map(Step::Remove),
            5 => at.clone().prop_map(Step::Move),
            5 => (at, 1_usize..2500).prop_map(|(at, count)| Step::Insert(at, count)),
            1 => Just(Step::Reverse),
        ];
        prop::collection::vec(step, 0..40)
    }

    fn apply(old: &[KeyedRow], steps: &[Step]) -> Vec<KeyedRow> {
        let mut rows = old.to_vec();
        let mut next = old.len() as u64;
        for step in steps {
            let within = |at: usize| at.checked_rem(rows.len());
            match step {
                Step::Change(at) => {
                    if let Some(row) = within(*at).and_then(|at| rows.get_mut(at)) {
                        row.hash ^= 1 << 40;
                    }
                }
                Step::Remove(at) => {
                    within(*at).map(|at| rows.remove(at));
                }
                Step::Move(at) => {
                    if let Some(at) = within(*at) {
                        let row = rows.remove(at);
                        rows.push(row);
                    }
                }
                Step::Insert(at, count) => {
                    let at = within(*at).unwrap_or(0);
                    let end = next + *count as u64;
                    rows.splice(at..at, (next..end).map(|key| row(key, key, 0)));
                    next = end;
                }
                Step::Reverse => rows.reverse(),
            }
        }
        rows.iter().zip(0..).map(|(row, place)| KeyedRow { place, ..*row }).collect()
    }

    proptest! {
        #[test]
        fn it_finds_what_two_maps_find(
            count in 0_u64..6000,
            steps in steps(),
            length in 1_usize..5000,
        ) {
            let old: Vec<KeyedRow> = (0..count).map(|key| row(key, key * 7, 0)).collect();
            let new = apply(&old, &steps);
            let found = compare(&old, &new, length, usize::MAX);
            prop_assert_eq!(found, Some(expected(&old, &new)));
        }
    }

    #[test]
    fn rows_in_another_order_are_given_up_and_a_few_differences_are_not() {
        let old: Vec<KeyedRow> = (0..100_000).map(|key| row(key, key, key)).collect();
        let mut other = old.clone();
        other.reverse();
        assert_eq!(compare(&old, &other, 2048, 10_000), None);
        let fewer: Vec<KeyedRow> = old.iter().filter(|row| row.hash % 100 != 7).copied().collect();
        let found = compare(&old, &fewer, 2048, 1000).expect("few enough");
        assert_eq!((found.rows.len(), found.gone.len()), (0, 1000));
        assert_eq!(compare(&old, &fewer, 2048, 999), None);
    }

    #[test]
    fn a_key_that_comes_twice_is_noticed() {
        let old = [row(1, 1, 0), row(2, 2, 1), row(5, 5, 2), row(5, 6, 3)];
        let new = [row(3, 1, 0), row(4, 2, 1), row(6, 6, 2), row(7, 7, 3)];
        assert_eq!(compare(&old, &new, 10, 100), None);
        assert_eq!(compare(&new, &old, 10, 100), None);
    }
}
