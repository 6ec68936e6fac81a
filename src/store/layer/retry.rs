//! Retries transient failures: a decorator for any store.
//!
//! What is tried again is what can be: beginning a listing, looking at an object, opening one,
//! beginning one, removing one, and a read that breaks off in the middle, which goes on at the byte
//! it had reached. Writing and committing are not: this layer keeps no copy of the bytes that went
//! into an upload, so it could only replay a part of it, and a commit whose answer was lost may
//! have taken effect. A store that can send a piece twice does that below this layer, and otherwise
//! the whole backup is run again.
//!
//! Pauses double from 100 ms to 10 s, jittered, within 60 s in total; the wish to stop ends them
//! within 100 ms, with the last error of the store.

use std::fmt;
use std::io::{self, Read};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use time::OffsetDateTime;

use crate::ctx::Ctx;
use crate::domain::health::Space;
use crate::domain::protection::Protection;
use crate::domain::thaw::{Availability, ThawSpeed};
use crate::domain::tier::{StorageClass, Tiers};
use crate::store::{
    AppendStore, Declared, Listing, ObjectInfo, ObjectLabels, PruneStore, ReadStore, StoreError,
    Unfinished, Upload,
};

/// Longest time that passes without asking whether the run should stop.
const SLICE: Duration = Duration::from_millis(100);

/// How long to wait before trying again, and when to give up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The first pause; each one after that is twice as long.
    pub first: Duration,
    /// No pause is longer.
    pub longest: Duration,
    /// From the first try on, or from the last byte that arrived; no try begins after that.
    pub total: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Backoff {
            first: Duration::from_millis(100),
            longest: Duration::from_secs(10),
            total: Duration::from_mins(1),
        }
    }
}

impl Backoff {
    /// The pause after `failures` failures (1 or more), between half and all of what doubling
    /// gives: `jitter` 0 is half, `u32::MAX` is all. Many clients that failed at the same moment
    /// must not come back at the same moment.
    #[must_use]
    pub fn pause(&self, failures: u32, jitter: u32) -> Duration {
        let doubled = 2_u32.saturating_pow(failures.saturating_sub(1));
        let half = self.first.saturating_mul(doubled).min(self.longest) / 2;
        half + half.mul_f64(f64::from(jitter) / f64::from(u32::MAX))
    }
}

/// Passes time. Tests inject one that only counts.
pub trait Pause: Send + Sync {
    /// Time since some fixed moment; never goes backwards.
    fn elapsed(&self) -> Duration;
    /// Returns after `length`, which is at most 100 ms.
    fn wait(&self, length: Duration);
}

/// Passes time on the system's monotonic clock.
#[derive(Debug, Clone, Copy)]
pub struct SystemPause(Instant);

impl Default for SystemPause {
    fn default() -> Self {
        SystemPause(Instant::now())
    }
}

impl Pause for SystemPause {
    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }

    #[expect(clippy::disallowed_methods, reason = "a slice; the wish to stop is asked after it")]
    fn wait(&self, length: Duration) {
        std::thread::sleep(length);
    }
}

/// A store whose transient failures are tried again.
pub struct Retry<S: ?Sized> {
    inner: Arc<S>,
    name: Option<String>,
    policy: RetryPolicy,
}

impl<S: ReadStore + ?Sized> Retry<S> {
    /// Wraps `inner`, with the default [`Backoff`] and the system's clock.
    #[must_use]
    pub fn new(inner: Box<S>, ctx: Ctx) -> Self {
        Retry::with_pause(inner, ctx, Backoff::default(), Arc::new(SystemPause::default()))
    }

    /// Wraps `inner`, with this schedule and this way to pass time.
    #[must_use]
    pub fn with_pause(inner: Box<S>, ctx: Ctx, backoff: Backoff, pause: Arc<dyn Pause>) -> Self {
        let policy = RetryPolicy { ctx, backoff, pause };
        Retry { inner: Arc::from(inner), name: None, policy }
    }

    /// The same, with the [name](ReadStore::name) that the configuration gives it.
    #[must_use]
    pub fn called(self, name: &str) -> Self {
        Retry { name: Some(name.to_owned()), ..self }
    }
}

impl<S: ReadStore + ?Sized> fmt::Debug for Retry<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Retry");
        shown.field("url", &self.inner.url()).field("backoff", &self.policy.backoff);
        shown.finish_non_exhaustive()
    }
}

impl<S: ReadStore + ?Sized + 'static> ReadStore for Retry<S> {
    fn space(&self) -> Option<Space> {
        self.inner.space()
    }

    fn url(&self) -> &str {
        self.inner.url()
    }

    fn name(&self) -> &str {
        self.name.as_deref().unwrap_or_else(|| self.inner.name())
    }

    fn contains(&self, path: &Path) -> bool {
        self.inner.contains(path)
    }

    fn can_archive(&self) -> bool {
        self.inner.can_archive()
    }

    fn availability(&self, key: &str) -> Result<Availability, StoreError> {
        self.policy.send_with_retries(|| self.inner.availability(key))
    }

    fn thaw(&self, key: &str, speed: ThawSpeed, days: u32) -> Result<(), StoreError> {
        self.policy.send_with_retries(|| self.inner.thaw(key, speed, days))
    }

    fn list(&self, prefix: &str) -> Result<Listing<'_>, StoreError> {
        self.policy.send_with_retries(|| self.inner.list(prefix))
    }

    fn folders(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        self.policy.send_with_retries(|| self.inner.folders(prefix))
    }

    fn head(&self, key: &str) -> Result<ObjectInfo, StoreError> {
        self.policy.send_with_retries(|| self.inner.head(key))
    }

    fn open(
        &self,
        key: &str,
        range: Option<Range<u64>>,
    ) -> Result<Box<dyn Read + Send>, StoreError> {
        let reader = self.policy.send_with_retries(|| self.inner.open(key, range.clone()))?;
        let range = range.unwrap_or(0..u64::MAX);
        let (store, policy) = (Arc::clone(&self.inner), self.policy.clone());
        Ok(Box::new(ResumingReader {
            store,
            key: key.to_owned(),
            range,
            reader: Some(reader),
            policy,
        }))
    }
}

impl<S: AppendStore + ?Sized + 'static> AppendStore for Retry<S> {
    fn create(&self, key: &str, labels: &ObjectLabels) -> Result<Box<dyn Upload>, StoreError> {
        self.policy.send_with_retries(|| self.inner.create(key, labels))
    }

    fn sse(&self) -> Option<&'static str> {
        self.inner.sse()
    }

    fn copy_from(
        &self,
        origin: &str,
        key: &str,
        labels: &ObjectLabels,
        declared: Declared,
    ) -> Result<bool, StoreError> {
        self.policy.send_with_retries(|| self.inner.copy_from(origin, key, labels, declared))
    }

    fn locks(&self) -> bool {
        self.inner.locks()
    }

    fn lock_longer(
        &self,
        keys: &[String],
        until: Option<OffsetDateTime>,
    ) -> Result<(), StoreError> {
        self.policy.send_with_retries(|| self.inner.lock_longer(keys, until))
    }

    fn protection(&self) -> Result<Option<Protection>, StoreError> {
        self.policy.send_with_retries(|| self.inner.protection())
    }

    fn self_test(&self) -> Result<Option<String>, StoreError> {
        self.policy.send_with_retries(|| self.inner.self_test())
    }
}

impl<S: PruneStore + ?Sized + 'static> PruneStore for Retry<S> {
    fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.policy.send_with_retries(|| self.inner.delete(key))
    }

    fn retained(&self, key: &str) -> Result<Option<OffsetDateTime>, StoreError> {
        self.policy.send_with_retries(|| self.inner.retained(key))
    }

    fn tiers(&self) -> Option<&Tiers> {
        self.inner.tiers()
    }

    fn set_class(
        &self,
        key: &str,
        declared: Declared,
        class: StorageClass,
    ) -> Result<(), StoreError> {
        self.policy.send_with_retries(|| self.inner.set_class(key, declared, class))
    }

    fn unfinished(&self, before: OffsetDateTime) -> Result<Vec<Unfinished>, StoreError> {
        self.policy.send_with_retries(|| self.inner.unfinished(before))
    }

    fn abort(&self, upload: &Unfinished) -> Result<(), StoreError> {
        self.policy.send_with_retries(|| self.inner.abort(upload))
    }
}

/// When to try again, and how to wait until then.
#[derive(Clone)]
struct RetryPolicy {
    ctx: Ctx,
    backoff: Backoff,
    pause: Arc<dyn Pause>,
}

impl RetryPolicy {
    /// Calls until it works, fails for good, or there is no time left.
    fn send_with_retries<T>(
        &self,
        mut call: impl FnMut() -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut streak = self.streak();
        loop {
            match call() {
                Err(error)
                    if error.is_transient() && self.wait_before_retry(&mut streak, &error) => {}
                done => return done,
            }
        }
    }

    fn streak(&self) -> FailureStreak {
        FailureStreak { since: self.pause.elapsed(), failures: 0 }
    }

    /// Waits after a failure. False if the run should stop, or if the pause would outlast the
    /// total: then the failure stands.
    fn wait_before_retry(&self, streak: &mut FailureStreak, error: &dyn fmt::Display) -> bool {
        streak.failures = streak.failures.saturating_add(1);
        let pause = self.backoff.pause(streak.failures, jitter());
        let wake = self.pause.elapsed().saturating_add(pause);
        if wake > streak.since.saturating_add(self.backoff.total) {
            return false;
        }
        let tenths = pause.as_secs_f32();
        self.ctx.monitor.detail(&format!("{error}; retrying in {tenths:.1} s"));
        while self.ctx.cancel.check().is_ok() {
            let left = wake.saturating_sub(self.pause.elapsed());
            if left.is_zero() {
                return true;
            }
            self.pause.wait(left.min(SLICE));
        }
        false
    }
}

/// Failures in a row.
struct FailureStreak {
    since: Duration,
    failures: u32,
}

/// Any 32 bits. A system without random numbers spreads nothing.
pub(in crate::store) fn jitter() -> u32 {
    getrandom::u32().unwrap_or(u32::MAX)
}

/// A reader that opens its object again where the connection broke off. Objects never change once
/// they are visible, so what it returns is what one unbroken read would have returned.
struct ResumingReader<S: ?Sized> {
    store: Arc<S>,
    key: String,
    /// What is still to be read; begins at the next byte.
    range: Range<u64>,
    /// `None` between a failure and the next time it opens.
    reader: Option<Box<dyn Read + Send>>,
    policy: RetryPolicy,
}

impl<S: ReadStore + ?Sized> ResumingReader<S> {
    fn attempt(&mut self, buffer: &mut [u8]) -> Result<usize, ReadFailure> {
        let reader = match &mut self.reader {
            Some(reader) => reader,
            none => {
                let opened = self.store.open(&self.key, Some(self.range.clone()));
                none.insert(opened.map_err(ReadFailure::opening)?)
            }
        };
        reader.read(buffer).map_err(ReadFailure::reading)
    }
}

impl<S: ReadStore + ?Sized> Read for ResumingReader<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut streak = self.policy.streak();
        loop {
            let failure = match self.attempt(buffer) {
                Ok(count) => {
                    self.range.start = self.range.start.saturating_add(count as u64);
                    return Ok(count);
                }
                Err(failure) => failure,
            };
            self.reader = None;
            if !failure.transient || !self.policy.wait_before_retry(&mut streak, &failure.error) {
                // `Interrupted` would invite whoever reads the whole of it to go on for ever.
                let for_good = failure.error.kind() != io::ErrorKind::Interrupted;
                return Err(if for_good { failure.error } else { io::Error::other(failure.error) });
            }
        }
    }
}

/// Why a read got no further.
struct ReadFailure {
    transient: bool,
    error: io::Error,
}

impl ReadFailure {
    fn opening(error: StoreError) -> ReadFailure {
        ReadFailure { transient: error.is_transient(), error: io::Error::other(error) }
    }

    fn reading(error: io::Error) -> ReadFailure {
        ReadFailure { transient: can_pass(error.kind()), error }
    }
}

/// Whether a failure of this kind is one of the way to the store rather than of the object.
fn can_pass(kind: io::ErrorKind) -> bool {
    matches!(
        kind,
        io::ErrorKind::TimedOut
            | io::ErrorKind::Interrupted
            | io::ErrorKind::WouldBlock
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::NotConnected
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown
            | io::ErrorKind::StaleNetworkFileHandle
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let backoff = Backoff::default();
        let all = |failures| backoff.pause(failures, u32::MAX).as_millis();
        assert_eq!([1, 2, 3, 7, 8, u32::MAX].map(all), [100, 200, 400, 6_400, 10_000, 10_000]);
        assert_eq!(backoff.pause(1, 0).as_millis(), 50);
    }

    #[test]
    fn jitter_differs_from_call_to_call() {
        let first = jitter();
        assert!((0..10).any(|_| jitter() != first));
    }
}
