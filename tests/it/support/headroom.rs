//! Room in memory for the servers of tests: those that run at a time never take more than there is.
//!
//! A server takes its memory at once, those that bkp starts beside it to replay a log take theirs, and the files of
//! both may be in memory, too: whoever asks how much is left asks before the others have taken what they will. So a
//! test takes room for all that it may start, and keeps it to its end.

use std::cell::Cell;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::wait::pause;

/// What is left to tests that have none of these servers, and to the system, KiB.
const OTHERS_KIB: u64 = 4 << 20;
/// How long memory is waited for that other programs have.
const PATIENCE: Duration = Duration::from_mins(10);

/// What tests of this process have taken.
#[derive(Debug)]
struct Taken {
    /// All that there is for them, KiB; known when the first one asks.
    all: Option<u64>,
    /// What the tests have that do not wait for more, KiB.
    working: u64,
}

static TAKEN: Mutex<Taken> = Mutex::new(Taken { all: None, working: 0 });
static CHANGED: Condvar = Condvar::new();

/// What a thread has; it gives that back when it ends, and so with its test.
struct Share(Cell<u64>);

impl Drop for Share {
    fn drop(&mut self) {
        TAKEN.lock().unwrap_or_else(PoisonError::into_inner).working -= self.0.get();
        CHANGED.notify_all();
    }
}

thread_local! {
    static SHARE: Share = const { Share(Cell::new(0)) };
}

/// Waits until this test may take so much memory, KiB, all in all, and takes it until the test ends.
///
/// A test that waits for more does not keep others from what it has, or two of them could wait for each other; a
/// test that nobody works beside goes on in any case.
pub(crate) fn take(kib: u64) {
    SHARE.with(|share| {
        let had = share.0.get();
        if had >= kib {
            return;
        }
        let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        let all = *taken.all.get_or_insert_with(|| available().saturating_sub(OTHERS_KIB));
        taken.working -= had;
        CHANGED.notify_all();
        let is_full = |taken: &mut Taken| taken.working > 0 && taken.working + kib > all;
        let mut taken = CHANGED.wait_while(taken, is_full).unwrap_or_else(PoisonError::into_inner);
        taken.working += kib;
        share.0.set(kib);
        let is_alone = taken.working == kib;
        drop(taken);
        if is_alone {
            wait_for_others(kib);
        }
    });
}

/// Waits for memory that other programs have: nobody can tell when they give it back.
fn wait_for_others(kib: u64) {
    let began = Instant::now();
    while available() < kib && began.elapsed() < PATIENCE {
        pause();
    }
}

/// Memory that programs could have, KiB.
fn available() -> u64 {
    let told = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = told.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    line.and_then(|rest| rest.trim().split(' ').next()?.parse().ok()).unwrap_or(u64::MAX)
}
