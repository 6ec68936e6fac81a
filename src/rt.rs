//! The only place where asynchronous clients meet the synchronous core.
//!
//! One named thread drives the connections and timers of every client of the process; it is
//! started by whoever needs it first. The caller's thread waits, and looks at the wish to stop
//! while it does.

use std::io;
use std::pin::pin;
use std::sync::{Mutex, Once, PoisonError};
use std::thread;
use std::time::Duration;

use tigerbeetle_unofficial_sys::{TB_LOG_LEVEL, tb_client_register_log_callback};
use tokio::runtime::{Builder, Handle};
use tokio::task::JoinHandle;

use crate::ctx::Cancel;
use crate::error::Fault;

/// The longest time for which a waiting run does not look at the wish to stop.
const POLL_EVERY: Duration = Duration::from_millis(50);

/// The runtime of the thread that drives; `None` until somebody needs it.
static DRIVER: Mutex<Option<Handle>> = Mutex::new(None);

/// The deadline of [`within`] or [`limit`] passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no answer within {} s", .0.as_secs_f32())]
pub struct Elapsed(pub Duration);

/// Why [`wait`] returned nothing.
#[derive(Debug, thiserror::Error)]
pub enum Stopped {
    /// The run is to stop.
    #[error(transparent)]
    Cancelled(#[from] Fault),
    /// No runtime can be made: out of threads or file descriptors.
    #[error("cannot start the thread that drives connections")]
    Runtime(#[from] io::Error),
}

/// Keeps TigerBeetle's client library from writing to our standard error whatever it thinks of its
/// connections, which is nobody's report: what fails is said with the question that it fails.
pub fn silence_clients() {
    static ONCE: Once = Once::new();
    extern "C" fn nothing(_level: TB_LOG_LEVEL::Type, _text: *const u8, _length: u32) {}
    ONCE.call_once(|| {
        #[expect(unsafe_code, reason = "the safe client has no way to be silenced")]
        // SAFETY: the callback touches none of its arguments, and stays valid for ever.
        let _registered = unsafe { tb_client_register_log_callback(Some(nothing), false) };
    });
}

/// Runs `work` on this thread until it ends or `deadline` has passed; then it is dropped.
///
/// # Errors
/// [`Elapsed`]; the outer error if no runtime can be made (out of file descriptors).
pub fn within<F: Future>(deadline: Duration, work: F) -> io::Result<Result<F::Output, Elapsed>> {
    let runtime = Builder::new_current_thread().enable_time().build()?;
    Ok(runtime.block_on(limit(deadline, work)))
}

/// Runs `work` until it ends, with connections and timers, or until the run should stop; then it
/// is dropped.
///
/// # Errors
/// [`Stopped`].
pub fn wait<F: Future>(cancel: &Cancel, work: F) -> Result<F::Output, Stopped> {
    let driver = driver()?;
    driver.block_on(async {
        let mut work = pin!(work);
        loop {
            match tokio::time::timeout(POLL_EVERY, work.as_mut()).await {
                Ok(output) => return Ok(output),
                Err(_elapsed) => cancel.check()?,
            }
        }
    })
}

/// Runs `work` to its end, whether or not the run should stop: for tidying up. Give it a
/// [`limit`].
///
/// # Errors
/// If no runtime can be made.
pub fn finish<F: Future>(work: F) -> io::Result<F::Output> {
    Ok(driver()?.block_on(work))
}

/// Something that runs beside the caller. Dropping it ends it.
#[derive(Debug)]
pub struct Task<T>(JoinHandle<T>);

impl<T: Send + 'static> Task<T> {
    /// Starts `work`.
    ///
    /// # Errors
    /// If no runtime can be made.
    pub fn start(work: impl Future<Output = T> + Send + 'static) -> io::Result<Task<T>> {
        Ok(Task(driver()?.spawn(work)))
    }

    /// Whether it has ended.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.0.is_finished()
    }

    /// Waits for its end and returns what it returned.
    ///
    /// # Errors
    /// [`Stopped`].
    pub fn join(&mut self, cancel: &Cancel) -> Result<T, Stopped> {
        wait(cancel, &mut self.0)?.map_err(|error| Stopped::Runtime(io::Error::other(error)))
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Waits for `work`, but no longer than `deadline`.
///
/// # Errors
/// [`Elapsed`]; `work` is dropped then.
pub async fn limit<F: Future>(deadline: Duration, work: F) -> Result<F::Output, Elapsed> {
    tokio::time::timeout(deadline, work).await.map_err(|_elapsed| Elapsed(deadline))
}

/// Sleeps for `length`.
pub async fn sleep(length: Duration) {
    tokio::time::sleep(length).await;
}

fn driver() -> io::Result<Handle> {
    let mut driver = DRIVER.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(handle) = &*driver {
        return Ok(handle.clone());
    }
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    let drive = move || runtime.block_on(std::future::pending::<()>());
    thread::Builder::new().name("connections".into()).spawn(drive)?;
    Ok(driver.insert(handle).clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_ends_with_the_wish_to_stop() {
        let cancel = Cancel::default();
        assert_eq!(wait(&cancel, async { 7 }).expect("done"), 7);
        cancel.cell().store(2, std::sync::atomic::Ordering::Relaxed);
        let stopped = wait(&cancel, std::future::pending::<()>());
        assert!(matches!(stopped, Err(Stopped::Cancelled(_))));
    }

    #[test]
    fn tasks_run_beside_the_caller() {
        let cancel = Cancel::default();
        let mut tasks: Vec<_> =
            (0..3).map(|number| Task::start(async move { number }).expect("started")).collect();
        let joined = tasks.iter_mut().map(|task| task.join(&cancel).expect("joined"));
        assert_eq!(joined.sum::<i32>(), 3);
        assert!(finish(limit(Duration::ZERO, std::future::pending::<()>())).expect("ran").is_err());
    }
}
