//! Spans of time at which something may happen, in bounded memory.

use serde::{Deserialize, Serialize};

/// Times of something that may happen, nanoseconds since 1970: a few spans, each with its first and its
/// last moment, in order. Where there are too many the closest ones become one, so that nothing is ever
/// left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Spans(Vec<(u64, u64)>);

impl Spans {
    /// Most spans that are kept apart.
    const MAX: usize = 32;

    /// Adds one.
    pub fn add(&mut self, first: u64, last: u64) {
        self.0.push((first, last));
        self.0.sort_unstable();
        let mut apart: Vec<(u64, u64)> = Vec::with_capacity(self.0.len());
        for (first, last) in self.0.drain(..) {
            match apart.last_mut().filter(|before| before.1 >= first) {
                Some(before) => before.1 = before.1.max(last),
                None => apart.push((first, last)),
            }
        }
        while apart.len() > Spans::MAX {
            let gaps = apart.windows(2).map(|pair| match pair {
                [before, after] => after.0 - before.1,
                _ => u64::MAX,
            });
            let closest =
                gaps.enumerate().min_by_key(|(_, gap)| *gap).map_or(0, |(index, _)| index);
            let after = apart.remove(closest + 1);
            if let Some(before) = apart.get_mut(closest) {
                before.1 = after.1;
            }
        }
        self.0 = apart;
    }

    /// Forgets what has happened at `now` at the latest.
    pub fn pass(&mut self, now: u64) {
        self.0.retain(|(_, last)| *last > now);
    }

    /// Whether something of it may happen no later than `until`. What was due before may still be to
    /// come: it happens when the cluster comes to it.
    #[must_use]
    pub fn touch(&self, until: u64) -> bool {
        self.0.iter().any(|(first, _)| *first <= until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn spans_leave_nothing_out(times in prop::collection::vec(0_u64..10_000, 1..200), now in 0_u64..10_000) {
            let mut spans = Spans::default();
            for time in &times {
                spans.add(*time, time + 3);
            }
            prop_assert!(spans.0.len() <= Spans::MAX);
            prop_assert!(spans.0.windows(2).all(|pair| pair[0].1 < pair[1].0));
            spans.pass(now);
            for time in times.iter().filter(|time| **time > now) {
                prop_assert!(spans.touch(*time));
            }
            if times.len() <= Spans::MAX {
                let until = now + 50;
                let known = times.iter().any(|time| *time <= until && time + 3 > now);
                prop_assert_eq!(spans.touch(until), known);
            }
        }
    }
}
