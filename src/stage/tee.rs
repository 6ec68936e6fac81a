//! A reader that also writes what it reads into a sink, for a copy whose content is checked on the way.
//!
//! The sink is finished by whoever knows that every byte was right. Dropped before, it is abandoned, and nothing of
//! the copy becomes visible.

use std::fmt;
use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};

use super::{ChainStats, Sink, StageError};
use crate::error::FirstError;

/// A reader that also writes into the sink of its [`TeeSink`].
pub struct Tee<R> {
    inner: R,
    copy: Arc<Mutex<Copy>>,
    first_error: FirstError,
}

/// What was read so far, on its way.
struct Copy {
    sink: Box<dyn Sink>,
    /// The reader was read to its end.
    is_whole: bool,
}

/// The other end of a [`Tee`].
pub struct TeeSink(Arc<Mutex<Copy>>);

impl<R: Read> Tee<R> {
    /// Reads `inner`, and writes the same to `sink`. Failures are noted in `first_error`.
    pub fn new(inner: R, sink: Box<dyn Sink>, first_error: FirstError) -> (Tee<R>, TeeSink) {
        let copy = Arc::new(Mutex::new(Copy { sink, is_whole: false }));
        (Tee { inner, copy: Arc::clone(&copy), first_error }, TeeSink(copy))
    }
}

impl<R: Read> Read for Tee<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        let mut copy = self.copy.lock().unwrap_or_else(PoisonError::into_inner);
        copy.is_whole |= count == 0 && !buffer.is_empty();
        let read = buffer.get(..count).unwrap_or_default();
        copy.sink.write(read).map_err(|error| self.first_error.note(error))?;
        Ok(count)
    }
}

impl TeeSink {
    /// Finishes the sink, once the reader has been read to its end and dropped.
    ///
    /// # Errors
    /// [`StageError::Stopped`] if it was not; what the sink fails with.
    pub fn finish(self) -> anyhow::Result<ChainStats> {
        let copy = Arc::into_inner(self.0).and_then(|copy| copy.into_inner().ok());
        let whole = copy.filter(|copy| copy.is_whole);
        whole.ok_or(StageError::Stopped { stage: "copy" })?.sink.finish()
    }
}

impl<R> fmt::Debug for Tee<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tee").finish_non_exhaustive()
    }
}

impl fmt::Debug for TeeSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TeeSink").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::digest::drain;
    use crate::stage::parallel::testing::CollectingSink;

    #[test]
    fn a_copy_is_finished_only_if_all_of_it_was_read() {
        let copied = |read: usize| {
            let (sink, seen) = CollectingSink::new();
            let inner = [7; 10];
            let (mut tee, copy) = Tee::new(&inner[..], Box::new(sink), FirstError::default());
            tee.read_exact(&mut vec![0; read]).unwrap();
            if read == 10 {
                drain(&mut tee).unwrap();
            }
            drop(tee);
            copy.finish().map(|_stats| seen.bytes())
        };
        assert_eq!(copied(10).unwrap(), [7; 10]);
        assert!(copied(9).is_err());
        let (sink, _seen) = CollectingSink::new();
        let (mut tee, copy) = Tee::new(&b"abc"[..], Box::new(sink), FirstError::default());
        drain(&mut tee).unwrap();
        assert!(copy.finish().is_err(), "somebody may read on");
    }
}
