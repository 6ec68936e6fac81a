//! Stopping a statement of the engine when the run should stop.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use crate::ctx::Cancel;

/// How often the wish to stop is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// A thread that interrupts an engine once the run should stop, again and again until it is dropped: an
/// interrupt that comes between two statements, or while one is prepared, is lost.
pub(super) struct Watch {
    thread: Option<JoinHandle<()>>,
    end: Option<Sender<()>>,
}

impl Watch {
    /// # Errors
    /// What the system says to another thread.
    pub(super) fn begin(
        cancel: Cancel,
        interrupt: impl Fn() + Send + 'static,
    ) -> std::io::Result<Watch> {
        let (end, ended) = channel();
        let watch = move || {
            while ended.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
                if cancel.check().is_err() {
                    interrupt();
                }
            }
        };
        let thread = Builder::new().name("watch".into()).spawn(watch)?;
        Ok(Watch { thread: Some(thread), end: Some(end) })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        drop(self.end.take());
        // A thread that panicked has nothing more to stop.
        let _ended = self.thread.take().map(JoinHandle::join);
    }
}
