//! The context of a run: clock, cancellation and progress monitor.
//!
//! Library code never prints, never asks the system for the time and never installs a signal
//! handler; it uses the [`Ctx`] it was given. That keeps runs reproducible in tests.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use time::OffsetDateTime;

use crate::error::{Fault, Kind, diagnose};

/// The longest time for which a waiting run does not look at the wish to stop.
const POLL_EVERY: Duration = Duration::from_millis(50);

/// Told about progress; called from any thread, must not block.
pub trait Monitor: Send + Sync {
    /// A named piece of work began; `total` is its size in bytes if it is known.
    fn begin(&self, what: &str, total: Option<u64>);
    /// `bytes` more of the current piece of work are done.
    fn advance(&self, bytes: u64);
    /// Something an operator should see although the run goes on.
    fn warn(&self, message: &str);
    /// Something that `-v` shows.
    fn detail(&self, message: &str);
    /// The current piece of work ended.
    fn end(&self);
}

/// A monitor that says nothing.
#[derive(Debug, Default, Clone, Copy)]
pub struct NullMonitor;

impl Monitor for NullMonitor {
    fn begin(&self, _what: &str, _total: Option<u64>) {}
    fn advance(&self, _bytes: u64) {}
    fn warn(&self, _message: &str) {}
    fn detail(&self, _message: &str) {}
    fn end(&self) {}
}

/// The name of the host that this runs on, as people know it.
#[must_use]
pub fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// The user that this process belongs to, by name, or by number where the system knows no name.
#[must_use]
pub fn user() -> String {
    let uid = rustix::process::geteuid().as_raw();
    let name = uzers::get_user_by_uid(uid).map(|user| user.name().to_string_lossy().into_owned());
    name.unwrap_or_else(|| uid.to_string())
}

/// The wish to stop, raised by a signal and asked between two pieces of work.
///
/// Clones share it. Work that must not be cut in two [puts it off](Cancel::defer).
#[derive(Debug, Clone, Default)]
pub struct Cancel {
    /// The number of the signal that came first, 0 while there is none.
    signal: Arc<AtomicUsize>,
    /// Until when nobody is told of it.
    deferred: Arc<Mutex<Option<Instant>>>,
    /// When this piece of work is given up, and how long it had.
    deadline: Option<(Instant, Duration)>,
}

/// While this lives the wish to stop is not heard, up to a time limit.
#[derive(Debug)]
pub struct Deferral {
    cancel: Cancel,
    before: Option<Instant>,
}

impl Drop for Deferral {
    fn drop(&mut self) {
        *self.cancel.deferred() = self.before;
    }
}

impl Cancel {
    /// The cell that a signal handler stores its signal number in.
    #[must_use]
    pub fn cell(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.signal)
    }

    /// Lets what follows go on for `longest` although the run should stop, until the guard is dropped:
    /// for the few steps that have to happen together.
    #[must_use]
    pub fn defer(&self, longest: Duration) -> Deferral {
        let before = self.deferred().replace(Instant::now() + longest);
        Deferral { cancel: self.clone(), before }
    }

    fn deferred(&self) -> MutexGuard<'_, Option<Instant>> {
        self.deferred.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same wish, for a piece of work that is given up after `longest`.
    #[must_use]
    pub fn within(&self, longest: Duration) -> Cancel {
        Cancel { deadline: Some((Instant::now() + longest, longest)), ..self.clone() }
    }

    /// # Errors
    /// [`Kind::Interrupted`] or [`Kind::Terminated`] once a signal was received; [`Kind::Failed`] after the deadline
    /// of [`Cancel::within`].
    pub fn check(&self) -> Result<(), Fault> {
        if let Some((until, longest)) = self.deadline
            && Instant::now() >= until
        {
            return Err(Fault::new(Kind::Failed, format!("no answer within {longest:?}")));
        }
        let signal = self.signal.load(Ordering::Relaxed);
        if signal == 0 || self.deferred().is_some_and(|until| Instant::now() < until) {
            return Ok(());
        }
        match signal {
            signal if signal == signal_hook::consts::SIGINT as usize => {
                Err(Fault::new(Kind::Interrupted, "interrupted by SIGINT"))
            }
            _ => Err(Fault::new(Kind::Terminated, "terminated by a signal")),
        }
    }
}

/// What a run carries with it. Cheap to clone; clones share the wish to stop and the monitor.
#[derive(Clone)]
pub struct Ctx {
    /// Raised when the run should stop.
    pub cancel: Cancel,
    /// Told about progress.
    pub monitor: Arc<dyn Monitor>,
    clock: fn() -> OffsetDateTime,
}

impl Ctx {
    /// A context on the system's clock.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the one place that asks the system's clock")]
    pub fn new(cancel: Cancel, monitor: Arc<dyn Monitor>) -> Self {
        Ctx { cancel, monitor, clock: OffsetDateTime::now_utc }
    }

    /// A context for tests: no signals, no output, the given clock.
    #[must_use]
    pub fn fixed(clock: fn() -> OffsetDateTime) -> Self {
        Ctx { cancel: Cancel::default(), monitor: Arc::new(NullMonitor), clock }
    }

    /// The same for a piece of work that is given up after `longest`.
    #[must_use]
    pub fn within(&self, longest: Duration) -> Self {
        Ctx { cancel: self.cancel.within(longest), ..self.clone() }
    }

    /// What `error` is called: what fails once the run should stop fails because of that.
    #[must_use]
    pub fn attributed(&self, error: anyhow::Error) -> anyhow::Error {
        let Err(fault) = self.cancel.check() else { return error };
        let known = [Kind::Interrupted, Kind::Terminated].contains(&diagnose(&error).kind);
        if known { error } else { error.context(fault) }
    }

    /// Waits for `length`, or until the run should stop.
    ///
    /// # Errors
    /// As [`Cancel::check`].
    pub fn pause(&self, length: Duration) -> Result<(), Fault> {
        let began = Instant::now();
        while let Some(rest) = length.checked_sub(began.elapsed()).filter(|rest| !rest.is_zero()) {
            self.cancel.check()?;
            std::thread::park_timeout(rest.min(POLL_EVERY));
        }
        self.cancel.check()
    }

    /// The time, UTC.
    #[must_use]
    pub fn now(&self) -> OffsetDateTime {
        (self.clock)()
    }
}

impl fmt::Debug for Ctx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ctx").field("cancel", &self.cancel).finish_non_exhaustive()
    }
}
