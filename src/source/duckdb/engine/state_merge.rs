//! Merges a sequence of rows with the changes recorded since: the state that a chain of exports adds up
//! to.

use crate::source::duckdb::engine::diff::{Key, KeyedRow, Map, More};

/// Bits of [`KeyFilter`], as a power of two: two megabytes, which stay in a processor's cache.
const SIEVE_BITS: u32 = 24;

/// Which keys a large map may have. Most rows did not change, and a look into such a map is one into memory.
struct KeyFilter(Vec<u64>);

impl Default for KeyFilter {
    fn default() -> Self {
        KeyFilter(vec![0; 1 << (SIEVE_BITS - u64::BITS.ilog2())])
    }
}

impl KeyFilter {
    fn place(key: Key) -> (usize, u64) {
        let bit = (key.0 ^ key.1) >> (u64::BITS - SIEVE_BITS);
        (
            usize::try_from(bit / u64::from(u64::BITS)).unwrap_or(0),
            1 << (bit % u64::from(u64::BITS)),
        )
    }

    fn add(&mut self, key: Key) {
        let (at, bit) = KeyFilter::place(key);
        if let Some(word) = self.0.get_mut(at) {
            *word |= bit;
        }
    }

    fn may_have(&self, key: Key) -> bool {
        let (at, bit) = KeyFilter::place(key);
        self.0.get(at).is_some_and(|word| word & bit != 0)
    }
}

/// What has changed in a sequence since it was written down.
#[derive(Default)]
pub(crate) struct Changes {
    /// The last hash of each row that changed; none if it is gone.
    last: Map<Option<u64>>,
    key_filter: KeyFilter,
    /// Their keys, as they came up.
    order: Vec<Key>,
}

impl Changes {
    /// The row has this hash from now on, or is gone.
    pub(crate) fn add(&mut self, key: Key, hash: Option<u64>) {
        if self.last.insert(key, hash).is_none() {
            self.key_filter.add(key);
            self.order.push(key);
        }
    }

    /// What became of a row of the sequence.
    fn became(&mut self, row: KeyedRow) -> Option<KeyedRow> {
        if !self.key_filter.may_have(row.key) {
            return Some(row);
        }
        match self.last.remove(&row.key) {
            None => Some(row),
            Some(hash) => hash.map(|hash| KeyedRow { hash, ..row }),
        }
    }

    /// Rows that changed.
    pub(crate) fn count(&self) -> usize {
        self.last.len()
    }

    /// The sequence `base` with these changes: rows keep their places, new ones come at the end.
    pub(crate) fn over(
        mut self,
        base: More<'_>,
    ) -> impl FnMut(&mut Vec<KeyedRow>) -> anyhow::Result<bool> {
        let mut rows = Vec::new();
        move |into| {
            rows.clear();
            let more = base(&mut rows)?;
            into.extend(rows.iter().filter_map(|row| self.became(*row)));
            if !more {
                let added = |key| Some(KeyedRow { key, hash: self.last.remove(&key)??, place: 0 });
                into.extend(self.order.drain(..).filter_map(added));
            }
            Ok(more)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::duckdb::engine::diff::tests::{pieces, row};

    /// Changes that were written down bring the sequence to where it was.
    #[test]
    fn changes_are_laid_over_a_sequence() {
        let base: Vec<KeyedRow> = (0..10).map(|key| row(key, key, 0)).collect();
        let mut changes = Changes::default();
        for (key, hash) in [(3, None), (4, Some(40)), (11, Some(11)), (12, Some(12)), (5, None)] {
            changes.add(row(key, 0, 0).key, hash);
        }
        for (key, hash) in [(3, Some(33)), (11, None), (12, Some(120)), (4, Some(44))] {
            changes.add(row(key, 0, 0).key, hash);
        }
        assert_eq!(changes.count(), 5);
        let mut base = pieces(&base, 4);
        let (mut over, mut rows) = (changes.over(&mut base), Vec::new());
        while over(&mut rows).expect("no failure") {}
        let now: Vec<_> = rows.iter().map(|row| (row.key.0, row.hash)).collect();
        let expected =
            [(0, 0), (1, 1), (2, 2), (3, 33), (4, 44), (6, 6), (7, 7), (8, 8), (9, 9), (12, 120)];
        assert_eq!(now, expected);
    }
}
