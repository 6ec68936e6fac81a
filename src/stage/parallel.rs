//! The machinery that zstd and gzip share: a stream cut into frames that are compressed in
//! parallel and leave in order.
//!
//! A fixed number of [`Frame`]s circulates: the caller fills one, a worker compresses it, the
//! collector writes it to the inner sink and puts it back. The frames are the permits, so memory is
//! theirs and never more. The collector owns the inner sink; what stands behind runs on its thread.

use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::{ChainStats, Sink, StageError, StageStats};
use crate::domain::limits::FRAME_BYTES;

/// Compresses whole frames. One per worker, so it may keep state that is expensive to make.
pub(crate) trait FrameCodec: Send {
    /// Replaces the content of `output` by a frame that holds `input`.
    fn compress(&mut self, input: &[u8], output: &mut Vec<u8>) -> anyhow::Result<()>;
}

/// Sizes of one written frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameSizes {
    /// Bytes as compressed.
    pub(crate) compressed: u32,
    /// Bytes of input.
    pub(crate) plain: u32,
}

/// What a format writes after its last frame.
pub(crate) type Footer = fn(&[FrameSizes]) -> anyhow::Result<Vec<u8>>;

/// What a thread ends with: `None` if it was abandoned.
type Outcome = anyhow::Result<Option<ChainStats>>;

/// One frame on its round.
#[derive(Default)]
struct Frame {
    index: u64,
    input: Vec<u8>,
    output: Vec<u8>,
    busy: Duration,
}

/// The caller's side: fills frames and hands them to the workers.
///
/// An error of a worker or of the inner sink surfaces, unchanged, at the next write or at the end.
/// Dropping it abandons the inner sink and waits for the threads.
pub(crate) struct Parallel {
    stage: &'static str,
    filling: Option<Frame>,
    submitted: u64,
    free: Receiver<Frame>,
    jobs: Option<Sender<Frame>>,
    /// Tells the collector that the stream is whole, and how many frames it has.
    total: Sender<u64>,
    abandoned: Arc<AtomicBool>,
    workers: Vec<JoinHandle<()>>,
    collector: Option<JoinHandle<Outcome>>,
}

impl Parallel {
    /// Starts a worker per codec and a collector that owns `inner`.
    pub(crate) fn new(
        stage: &'static str,
        codecs: Vec<Box<dyn FrameCodec>>,
        footer: Footer,
        inner: Box<dyn Sink>,
    ) -> anyhow::Result<Self> {
        // One frame per worker at work, one waiting for it, and one being filled.
        let frames = 2 * codecs.len() + 1;
        let (give_back, free) = bounded(frames);
        let (jobs, queue) = bounded(frames);
        let (finished, done) = bounded(frames);
        let (total, whole) = bounded(1);
        for _ in 0..frames {
            give_back.send(Frame::default())?;
        }
        let abandoned = Arc::new(AtomicBool::new(false));
        // From here on, dropping `parallel` ends whatever was started.
        let (jobs, workers, collector) = (Some(jobs), Vec::new(), None);
        let (filling, submitted) = (None, 0);
        let mut parallel = Parallel {
            stage,
            filling,
            submitted,
            free,
            jobs,
            total,
            abandoned,
            workers,
            collector,
        };
        for (number, codec) in codecs.into_iter().enumerate() {
            let (queue, finished) = (queue.clone(), finished.clone());
            let abandoned = Arc::clone(&parallel.abandoned);
            let worker = thread::Builder::new()
                .name(format!("{stage}-{number}"))
                .spawn(move || work(stage, codec, &queue, &finished, &abandoned))?;
            parallel.workers.push(worker);
        }
        let collector =
            Collector { stage, done, give_back, whole, footer, inner, written: Vec::new() };
        let abandoned = Arc::clone(&parallel.abandoned);
        let thread = thread::Builder::new()
            .name(format!("{stage}-out"))
            .spawn(move || collector.run(&abandoned))?;
        parallel.collector = Some(thread);
        Ok(parallel)
    }

    /// Hands a full frame, or the last one, to the workers.
    fn submit(&mut self, mut frame: Frame) -> anyhow::Result<()> {
        frame.index = self.submitted;
        self.submitted += 1;
        let sent = self.jobs.as_ref().is_some_and(|jobs| jobs.send(frame).is_ok());
        if sent { Ok(()) } else { Err(self.failure()) }
    }

    /// An empty frame; waits until the collector has put one back.
    fn free_frame(&mut self) -> anyhow::Result<Frame> {
        if self.collector.is_none() {
            return Err(self.stopped());
        }
        let Ok(mut frame) = self.free.recv() else {
            return Err(self.failure());
        };
        frame.input.clear();
        frame.input.reserve_exact(FRAME_BYTES);
        Ok(frame)
    }

    fn stopped(&self) -> anyhow::Error {
        StageError::Stopped { stage: self.stage }.into()
    }

    /// Why the threads no longer take frames.
    fn failure(&mut self) -> anyhow::Error {
        self.join().err().unwrap_or_else(|| self.stopped())
    }

    fn join(&mut self) -> Outcome {
        self.jobs = None;
        for worker in self.workers.drain(..) {
            // A panic over there was sent on as an error.
            let _ended = worker.join();
        }
        let ended = self.collector.take().and_then(|thread| thread.join().ok());
        ended.unwrap_or_else(|| Err(self.stopped()))
    }
}

impl Sink for Parallel {
    fn write(&mut self, mut bytes: &[u8]) -> anyhow::Result<()> {
        while !bytes.is_empty() {
            let mut frame = match self.filling.take() {
                Some(frame) => frame,
                None => self.free_frame()?,
            };
            let room = FRAME_BYTES - frame.input.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            frame.input.extend_from_slice(now);
            bytes = later;
            if frame.input.len() == FRAME_BYTES {
                self.submit(frame)?;
            } else {
                self.filling = Some(frame);
            }
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> anyhow::Result<ChainStats> {
        match self.filling.take() {
            Some(frame) => self.submit(frame)?,
            // An empty stream is one empty frame.
            None if self.submitted == 0 => {
                let frame = self.free_frame()?;
                self.submit(frame)?;
            }
            None => {}
        }
        // If the collector is gone, joining it tells why.
        let _heard = self.total.send(self.submitted);
        let stats = self.join()?;
        stats.ok_or_else(|| self.stopped())
    }
}

impl Drop for Parallel {
    fn drop(&mut self) {
        self.abandoned.store(true, Ordering::Relaxed);
        // Whoever drops a stage has an error already, or wants none.
        let _abandoned = self.join();
    }
}

impl fmt::Debug for Parallel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parallel").field("stage", &self.stage).finish_non_exhaustive()
    }
}

/// A worker: compresses frames until there are no more, or nobody wants them.
fn work(
    stage: &'static str,
    mut codec: Box<dyn FrameCodec>,
    queue: &Receiver<Frame>,
    finished: &Sender<anyhow::Result<Frame>>,
    abandoned: &AtomicBool,
) {
    for mut frame in queue {
        if abandoned.load(Ordering::Relaxed) {
            return;
        }
        let began = Instant::now();
        // A lost frame would keep the collector waiting for ever, so a panic becomes an error.
        let result =
            catch_unwind(AssertUnwindSafe(|| codec.compress(&frame.input, &mut frame.output)));
        frame.busy = began.elapsed();
        let result = result.unwrap_or_else(|_panic| Err(StageError::Stopped { stage }.into()));
        if finished.send(result.map(|()| frame)).is_err() {
            return;
        }
    }
}

/// Writes frames in order and puts them back.
struct Collector {
    stage: &'static str,
    done: Receiver<anyhow::Result<Frame>>,
    give_back: Sender<Frame>,
    whole: Receiver<u64>,
    footer: Footer,
    inner: Box<dyn Sink>,
    /// 8 bytes per 4 MiB of input: 2 MiB of memory for 1 TiB.
    written: Vec<FrameSizes>,
}

impl Collector {
    fn run(mut self, abandoned: &AtomicBool) -> Outcome {
        let mut early = BTreeMap::new();
        let (mut next, mut bytes, mut busy) = (0, 0, Duration::ZERO);
        while let Ok(frame) = self.done.recv() {
            if abandoned.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let frame = frame?;
            early.insert(frame.index, frame);
            while let Some(frame) = early.remove(&next) {
                next += 1;
                bytes += frame.input.len() as u64;
                busy += frame.busy;
                self.put(frame)?;
            }
        }
        match self.whole.try_recv() {
            Ok(total) if total == next => self.end(bytes, busy).map(Some),
            Ok(_frames_were_lost) => Err(StageError::Stopped { stage: self.stage }.into()),
            Err(_abandoned) => Ok(None),
        }
    }

    fn put(&mut self, frame: Frame) -> anyhow::Result<()> {
        self.inner.write(&frame.output)?;
        let compressed = u32::try_from(frame.output.len())?;
        self.written.push(FrameSizes { compressed, plain: u32::try_from(frame.input.len())? });
        // Nobody takes frames back once the last one is on its way.
        let _unwanted = self.give_back.try_send(frame);
        Ok(())
    }

    fn end(mut self, bytes: u64, busy: Duration) -> anyhow::Result<ChainStats> {
        let footer = (self.footer)(&self.written)?;
        if !footer.is_empty() {
            self.inner.write(&footer)?;
        }
        let stats = self.inner.finish()?;
        Ok(stats.preceded_by(StageStats { stage: self.stage, bytes, sha256: None, busy }))
    }
}

/// Sinks that unit tests of this folder put at the end of a chain.
#[cfg(test)]
pub(crate) mod testing {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::error::{Fault, Kind};

    /// What happened to a [`CollectingSink`].
    #[derive(Clone, Default)]
    pub(crate) struct CollectedBytes(Arc<Mutex<(Vec<u8>, bool, bool)>>);

    impl CollectedBytes {
        pub(crate) fn bytes(&self) -> Vec<u8> {
            self.0.lock().unwrap().0.clone()
        }

        pub(crate) fn finished(&self) -> bool {
            self.0.lock().unwrap().1
        }

        pub(crate) fn dropped(&self) -> bool {
            self.0.lock().unwrap().2
        }
    }

    /// Keeps what it is given.
    pub(crate) struct CollectingSink(CollectedBytes);

    impl CollectingSink {
        pub(crate) fn new() -> (Self, CollectedBytes) {
            let seen = CollectedBytes::default();
            (CollectingSink(seen.clone()), seen)
        }
    }

    impl Sink for CollectingSink {
        fn write(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
            self.0.0.lock().unwrap().0.extend_from_slice(bytes);
            Ok(())
        }

        fn finish(self: Box<Self>) -> anyhow::Result<ChainStats> {
            let bytes = self.0.bytes().len() as u64;
            self.0.0.lock().unwrap().1 = true;
            let measure =
                StageStats { stage: "collect", bytes, sha256: None, busy: Duration::ZERO };
            Ok(ChainStats(vec![measure]))
        }
    }

    impl Drop for CollectingSink {
        fn drop(&mut self) {
            self.0.0.lock().unwrap().2 = true;
        }
    }

    /// Fails at everything with an error of this kind.
    pub(crate) struct FailingSink(pub(crate) Kind);

    impl Sink for FailingSink {
        fn write(&mut self, _bytes: &[u8]) -> anyhow::Result<()> {
            Err(Fault::new(self.0, "write failed").into())
        }

        fn finish(self: Box<Self>) -> anyhow::Result<ChainStats> {
            Err(Fault::new(self.0, "finish failed").into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{CollectingSink, FailingSink};
    use super::*;
    use crate::error::{Fault, Kind, diagnose};

    /// A "compression" whose frames are their input; panics or fails when told to.
    struct IdentityCodec(Option<Kind>);

    impl FrameCodec for IdentityCodec {
        fn compress(&mut self, input: &[u8], output: &mut Vec<u8>) -> anyhow::Result<()> {
            if input.first() == Some(&255) {
                match self.0 {
                    Some(kind) => return Err(Fault::new(kind, "asked to").into()),
                    None => panic!("expected in this test"),
                }
            }
            output.clear();
            output.extend_from_slice(input);
            Ok(())
        }
    }

    fn stage(inner: Box<dyn Sink>, kind: Option<Kind>) -> Box<Parallel> {
        let codecs = (0..3).map(|_| Box::new(IdentityCodec(kind)) as Box<dyn FrameCodec>).collect();
        Box::new(Parallel::new("copy", codecs, |_| Ok(b"end".to_vec()), inner).unwrap())
    }

    #[test]
    fn frames_leave_in_order() {
        let (inner, seen) = CollectingSink::new();
        let mut sink = stage(Box::new(inner), None);
        let plain: Vec<u8> = (0..40_000_000_u32).map(|i| (i % 251) as u8).collect();
        for piece in plain.chunks(1_234_567) {
            sink.write(piece).unwrap();
        }
        let stats = sink.finish().unwrap();
        assert_eq!(stats.get("copy").unwrap().bytes, 40_000_000);
        let mut expected = plain;
        expected.extend_from_slice(b"end");
        assert!(seen.bytes() == expected && seen.finished());
    }

    #[test]
    fn failures_of_either_side_arrive_with_their_type() {
        let piece = vec![255; FRAME_BYTES];
        for (inner_fails, codec, kind) in [
            (false, Some(Kind::Busy), Kind::Busy),
            (false, None, Kind::Failed),
            (true, None, Kind::Store),
        ] {
            let inner: Box<dyn Sink> = if inner_fails {
                Box::new(FailingSink(Kind::Store))
            } else {
                Box::new(CollectingSink::new().0)
            };
            let mut sink = stage(inner, codec);
            let first = if inner_fails { vec![1; FRAME_BYTES] } else { piece.clone() };
            let error = (0..30).find_map(|_| sink.write(&first).err()).expect("surfaces");
            assert_eq!(diagnose(&error).kind, kind);
            assert!(sink.write(&first).is_err());
            assert!(sink.finish().is_err());
        }
    }

    #[test]
    fn a_failure_at_the_end_arrives_too() {
        let mut sink = stage(Box::new(FailingSink(Kind::Store)), None);
        sink.write(b"little").unwrap();
        assert_eq!(diagnose(&sink.finish().unwrap_err()).kind, Kind::Store);
    }

    #[test]
    fn a_dropped_stage_abandons() {
        let (inner, seen) = CollectingSink::new();
        let mut sink = stage(Box::new(inner), None);
        sink.write(&vec![1; 3 * FRAME_BYTES]).unwrap();
        drop(sink);
        assert!(!seen.finished() && seen.dropped());
    }
}
