//! Thread boundaries: what stands behind a thread boundary runs on a named thread of its own.
//!
//! Forwards a [`ThreadBoundary`] pushes into its thread, backwards [`read_ahead`] pulls from one. Both carry
//! chunks over a bounded channel and give the buffers back over a second one, so memory is
//! `depth + 2` chunks whatever passes. A thread never outlives the value that started it.

use std::fmt;
use std::io::{self, Read};
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::stage::{ChainStats, Sink, StageError};

/// Bytes in one chunk: large enough that the channel costs nothing, small enough to wait for.
const CHUNK_BYTES: usize = 1 << 20;

/// What goes through a thread boundary.
enum Message {
    Chunk(Vec<u8>),
    Finish,
}

/// What the thread of a thread boundary ends with: `None` if it was abandoned.
type Outcome = anyhow::Result<Option<ChainStats>>;

/// A sink whose inner sink runs on a thread of its own.
///
/// An error of the inner sink surfaces, unchanged, at the next [`Sink::write`] or at
/// [`Sink::finish`]. Dropping a thread boundary abandons the inner sink and waits for the thread.
pub struct ThreadBoundary {
    name: &'static str,
    pending: Vec<u8>,
    data: Option<Sender<Message>>,
    spare: Receiver<Vec<u8>>,
    thread: Option<JoinHandle<Outcome>>,
}

impl ThreadBoundary {
    /// Moves `inner` to a thread called `name`; up to `depth` chunks wait for it.
    ///
    /// # Errors
    /// If the system has no thread left.
    pub fn new(name: &'static str, depth: usize, inner: Box<dyn Sink>) -> anyhow::Result<Self> {
        let (data, incoming) = bounded(depth);
        let (give_back, spare) = bounded(depth + 2);
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || push(inner, &incoming, &give_back))?;
        let (data, thread) = (Some(data), Some(thread));
        Ok(ThreadBoundary { name, pending: Vec::new(), data, spare, thread })
    }

    fn send(&mut self, message: Message) -> anyhow::Result<()> {
        let sent = self.data.as_ref().is_some_and(|data| data.send(message).is_ok());
        if sent { Ok(()) } else { Err(self.failure()) }
    }

    /// The chunk collected so far goes; an empty buffer takes its place.
    fn flush(&mut self) -> anyhow::Result<()> {
        let next = self.spare.try_recv().unwrap_or_default();
        let full = std::mem::replace(&mut self.pending, next);
        self.send(Message::Chunk(full))
    }

    /// Why the thread no longer listens.
    fn failure(&mut self) -> anyhow::Error {
        self.join().err().unwrap_or_else(|| StageError::Stopped { stage: self.name }.into())
    }

    fn join(&mut self) -> Outcome {
        self.data = None;
        let ended = self.thread.take().and_then(|thread| thread.join().ok());
        ended.unwrap_or_else(|| Err(StageError::Stopped { stage: self.name }.into()))
    }
}

impl Sink for ThreadBoundary {
    fn write(&mut self, mut bytes: &[u8]) -> anyhow::Result<()> {
        while !bytes.is_empty() {
            if self.pending.capacity() < CHUNK_BYTES {
                self.pending.reserve_exact(CHUNK_BYTES);
            }
            let room = CHUNK_BYTES - self.pending.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.pending.extend_from_slice(now);
            bytes = later;
            if self.pending.len() == CHUNK_BYTES {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> anyhow::Result<ChainStats> {
        if !self.pending.is_empty() {
            self.flush()?;
        }
        self.send(Message::Finish)?;
        let stopped = StageError::Stopped { stage: self.name };
        self.join()?.ok_or_else(|| stopped.into())
    }
}

impl Drop for ThreadBoundary {
    fn drop(&mut self) {
        // Whoever drops a thread boundary has an error already, or wants none.
        let _abandoned = self.join();
    }
}

impl fmt::Debug for ThreadBoundary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThreadBoundary").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The thread of a [`ThreadBoundary`]: a channel that closes without [`Message::Finish`] was abandoned.
fn push(
    mut inner: Box<dyn Sink>,
    incoming: &Receiver<Message>,
    give_back: &Sender<Vec<u8>>,
) -> Outcome {
    for message in incoming {
        match message {
            Message::Chunk(mut chunk) => {
                inner.write(&chunk)?;
                chunk.clear();
                // Nobody takes buffers back while the boundary ends.
                let _unwanted = give_back.try_send(chunk);
            }
            Message::Finish => return inner.finish().map(Some),
        }
    }
    Ok(None)
}

/// What comes out of a read-ahead thread.
enum Ahead {
    /// A buffer and how much of it is filled.
    Data(Vec<u8>, usize),
    Failed(io::Error),
    End,
}

/// A reader whose upstream runs on a thread of its own; see [`read_ahead`].
pub struct ReadAhead {
    name: &'static str,
    chunk: Vec<u8>,
    filled: usize,
    taken: usize,
    ended: bool,
    channels: Option<(Receiver<Ahead>, Sender<Vec<u8>>)>,
    thread: Option<JoinHandle<()>>,
    unstarted: Option<io::Error>,
}

/// Lets a thread called `name` read `reader`, up to `depth` chunks ahead.
///
/// Errors come in their place in the stream, after the bytes before them; typed ones are in the
/// chain's [`crate::error::FirstError`]. If no thread can be started the first read says so. Dropping
/// the result ends the thread after the read it is in.
#[must_use]
pub fn read_ahead(name: &'static str, reader: Box<dyn Read + Send>, depth: usize) -> ReadAhead {
    let (data, incoming) = bounded(depth);
    let (give_back, spare) = bounded(depth + 2);
    let spawned =
        thread::Builder::new().name(name.to_owned()).spawn(move || pull(reader, &data, &spare));
    let (thread, unstarted) = match spawned {
        Ok(thread) => (Some(thread), None),
        Err(error) => (None, Some(error)),
    };
    let (chunk, channels) = (Vec::new(), Some((incoming, give_back)));
    ReadAhead { name, chunk, filled: 0, taken: 0, ended: false, channels, thread, unstarted }
}

impl ReadAhead {
    /// Waits for the next chunk; `false` at the end.
    fn refill(&mut self) -> io::Result<bool> {
        if let Some(error) = self.unstarted.take() {
            return Err(error);
        }
        let stopped = || io::Error::other(StageError::Stopped { stage: self.name }.to_string());
        let Some((incoming, give_back)) = &self.channels else {
            return Err(stopped());
        };
        // A thread that ended without saying so is not the end of the stream.
        match incoming.recv().unwrap_or_else(|_closed| Ahead::Failed(stopped())) {
            Ahead::Data(chunk, filled) => {
                let used = std::mem::replace(&mut self.chunk, chunk);
                // Nobody takes buffers back once everything is read.
                let _unwanted = give_back.try_send(used);
                (self.filled, self.taken) = (filled, 0);
                Ok(true)
            }
            Ahead::Failed(error) => {
                self.channels = None;
                Err(error)
            }
            Ahead::End => {
                self.ended = true;
                Ok(false)
            }
        }
    }
}

impl Read for ReadAhead {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.taken == self.filled {
            if buf.is_empty() || self.ended || !self.refill()? {
                return Ok(0);
            }
        }
        let mut rest = self.chunk.get(self.taken..self.filled).unwrap_or_default();
        let count = rest.read(buf)?;
        self.taken += count;
        Ok(count)
    }
}

impl Drop for ReadAhead {
    fn drop(&mut self) {
        self.channels = None;
        if let Some(thread) = self.thread.take() {
            // A panic over there was reported as a stream that did not end.
            let _ended = thread.join();
        }
    }
}

impl fmt::Debug for ReadAhead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadAhead").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The thread of a [`ReadAhead`]: ends when everything is read or nobody listens any more.
fn pull(mut reader: Box<dyn Read + Send>, data: &Sender<Ahead>, spare: &Receiver<Vec<u8>>) {
    loop {
        let mut chunk = spare.try_recv().unwrap_or_default();
        chunk.resize(CHUNK_BYTES, 0);
        let (filled, last) = fill(&mut reader, &mut chunk);
        if filled > 0 && data.send(Ahead::Data(chunk, filled)).is_err() {
            return;
        }
        if let Some(last) = last {
            // Nobody may be listening: then nobody misses it.
            let _unheard = data.send(last);
            return;
        }
    }
}

/// Fills `chunk` as far as the stream goes; says how it ended if it did.
fn fill(reader: &mut dyn Read, chunk: &mut [u8]) -> (usize, Option<Ahead>) {
    let mut filled = 0;
    while let Some(room) = chunk.get_mut(filled..).filter(|room| !room.is_empty()) {
        match reader.read(room) {
            Ok(0) => return (filled, Some(Ahead::End)),
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (filled, Some(Ahead::Failed(error))),
        }
    }
    (filled, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Kind, diagnose};
    use crate::stage::parallel::testing::{CollectingSink, FailingSink};

    #[test]
    fn a_thread_boundary_carries_everything_and_the_stats() {
        let (inner, seen) = CollectingSink::new();
        let mut hop = ThreadBoundary::new("hop", 2, Box::new(inner)).unwrap();
        let piece = vec![7; 700_001];
        for _ in 0..9 {
            hop.write(&piece).unwrap();
        }
        let stats = Box::new(hop).finish().unwrap();
        assert_eq!(stats.get("collect").unwrap().bytes, 9 * 700_001);
        assert!(seen.finished());
    }

    #[test]
    fn an_inner_error_arrives_with_its_type() {
        let mut hop = ThreadBoundary::new("hop", 1, Box::new(FailingSink(Kind::Store))).unwrap();
        let piece = vec![0; CHUNK_BYTES];
        let error = (0..9).find_map(|_| hop.write(&piece).err()).expect("surfaces");
        assert_eq!(diagnose(&error).kind, Kind::Store);
        assert!(hop.write(&piece).is_err());

        let mut hop = ThreadBoundary::new("hop", 1, Box::new(FailingSink(Kind::Store))).unwrap();
        hop.write(b"little").unwrap();
        let error = Box::new(hop).finish().unwrap_err();
        assert_eq!(diagnose(&error).kind, Kind::Store);
    }

    #[test]
    fn a_dropped_thread_boundary_abandons() {
        let (inner, seen) = CollectingSink::new();
        let mut hop = ThreadBoundary::new("hop", 2, Box::new(inner)).unwrap();
        hop.write(&[1; 10]).unwrap();
        drop(hop);
        assert!(!seen.finished() && seen.dropped());
    }

    /// Gives so many bytes and then fails.
    struct Broken(usize);

    impl Read for Broken {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            let count = self.0.min(buf.len());
            self.0 -= count;
            buf[..count].fill(5);
            if count == 0 { Err(io::Error::other("gone")) } else { Ok(count) }
        }
    }

    struct Panics;

    impl Read for Panics {
        fn read(&mut self, _buf: &mut [u8]) -> io::Result<usize> {
            panic!("expected in this test")
        }
    }

    #[test]
    fn reading_ahead_keeps_bytes_and_errors_in_order() {
        let mut reader = read_ahead("ahead", Box::new(Broken(3_000_000)), 2);
        let mut out = Vec::new();
        assert_eq!(reader.read_to_end(&mut out).unwrap_err().to_string(), "gone");
        assert_eq!(out.len(), 3_000_000);
        assert!(reader.read(&mut [0]).is_err(), "a failure is no end");

        let mut reader = read_ahead("ahead", Box::new(io::repeat(3).take(2_500_000)), 2);
        assert_eq!(io::copy(&mut reader, &mut io::sink()).unwrap(), 2_500_000);
        assert_eq!(reader.read(&mut [0]).unwrap(), 0);
    }

    #[test]
    fn a_dropped_reader_ends_its_thread() {
        drop(read_ahead("ahead", Box::new(io::repeat(0)), 1));
    }

    #[test]
    fn a_panic_is_not_a_clean_end() {
        assert!(read_ahead("ahead", Box::new(Panics), 1).read(&mut [0]).is_err());
    }
}
