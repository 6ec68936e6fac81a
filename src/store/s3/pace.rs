//! Rate limiting, shared by all requests to one store.
//!
//! A service that says "slow down" (429, 503) says it to everybody who asks: so every request of
//! the store waits, and fewer run at a time, until enough of them have gone well.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::rt;

/// Requests that must go well before one more runs at a time.
const GOOD_ENOUGH: u32 = 16;

/// The pace of one store.
#[derive(Debug)]
pub(super) struct Pace {
    widest: usize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    width: usize,
    good: u32,
    not_before: Option<Instant>,
}

impl Pace {
    /// At most `widest` requests at a time, which is also where it begins.
    pub(super) fn new(widest: usize) -> Pace {
        let widest = widest.max(1);
        Pace { widest, state: Mutex::new(State { width: widest, good: 0, not_before: None }) }
    }

    /// How many requests may run at a time now.
    pub(super) fn width(&self) -> usize {
        self.state().width
    }

    /// Waits until the next request may begin.
    pub(super) async fn acquire(&self) {
        loop {
            let until = self.state().not_before;
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            match left.filter(|left| !left.is_zero()) {
                Some(left) => rt::sleep(left).await,
                None => return,
            }
        }
    }

    /// A request went well.
    pub(super) fn succeeded(&self) {
        let mut state = self.state();
        state.good += 1;
        if state.good >= GOOD_ENOUGH {
            state.good = 0;
            state.width = (state.width + 1).min(self.widest);
        }
    }

    /// The service asked for less; nothing begins before `pause` has passed.
    pub(super) fn throttled(&self, pause: Duration) {
        let mut state = self.state();
        state.good = 0;
        state.width = (state.width / 2).max(1);
        let until = Instant::now() + pause;
        state.not_before = Some(state.not_before.map_or(until, |before| before.max(until)));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_that_asks_for_less_gets_less_and_then_more_again() {
        let pace = Pace::new(4);
        pace.throttled(Duration::ZERO);
        assert_eq!(pace.width(), 2);
        pace.throttled(Duration::ZERO);
        pace.throttled(Duration::ZERO);
        assert_eq!(pace.width(), 1, "never none");
        for _ in 0..GOOD_ENOUGH {
            pace.succeeded();
        }
        assert_eq!(pace.width(), 2);
        for _ in 0..10 * GOOD_ENOUGH {
            pace.succeeded();
        }
        assert_eq!(pace.width(), 4, "never more than allowed");
    }

    #[test]
    fn everybody_waits_for_the_longest_pause() {
        let pace = Pace::new(4);
        pace.throttled(Duration::from_millis(30));
        pace.throttled(Duration::ZERO);
        let began = Instant::now();
        rt::finish(pace.acquire()).expect("ran");
        assert!(began.elapsed() >= Duration::from_millis(25));
    }
}
