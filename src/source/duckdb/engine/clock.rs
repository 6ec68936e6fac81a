//! What limits the time of the engine's statements.

use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use duckdb::InterruptHandle;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// How often the engine looks whether it should go on.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };

/// How long an interrupted statement has to end by itself.
const GRACE: Duration = Duration::from_secs(10);

/// Interrupts a statement that takes too long, and ends the process when bkp is gone: nobody else would
/// end a statement that goes on for ever.
pub(crate) struct Clock(Arc<Mutex<Watched>>);

/// What a [`Clock`] watches.
#[derive(Default)]
struct Watched {
    /// When the statement is too long.
    until: Option<Instant>,
    /// The connection that runs it.
    connection: Option<Arc<InterruptHandle>>,
}

impl Clock {
    /// Begins to watch the one who asks.
    ///
    /// # Errors
    ///
    /// There is no thread or no descriptor for it.
    pub(crate) fn begin(line: &UnixStream) -> std::io::Result<Clock> {
        let clock = Clock(Arc::default());
        let watched = Arc::clone(&clock.0);
        let line = line.try_clone()?;
        let watch = move || {
            loop {
                let mut polled = [PollFd::new(&line, PollFlags::RDHUP)];
                let gone = poll(&mut polled, Some(&LOOK)).is_ok_and(|count| count > 0);
                let watched = watched.lock().unwrap_or_else(PoisonError::into_inner);
                let late =
                    watched.until.and_then(|until| Instant::now().checked_duration_since(until));
                if gone || late.is_some_and(|late| late > GRACE) {
                    std::process::abort();
                }
                if let (Some(_), Some(connection)) = (late, &watched.connection) {
                    connection.interrupt();
                }
            }
        };
        thread::Builder::new().name("clock".into()).spawn(watch)?;
        Ok(clock)
    }

    /// From now on a statement may take so long; without a length nothing runs.
    pub(crate) fn set(&self, length: Option<Duration>) {
        let until = length.and_then(|length| Instant::now().checked_add(length));
        self.0.lock().unwrap_or_else(PoisonError::into_inner).until = until;
    }

    /// The connection whose statements are watched, if one is open.
    pub(crate) fn watch(&self, connection: Option<Arc<InterruptHandle>>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).connection = connection;
    }
}
