//! zstd: independent frames of [`FRAME_BYTES`] of input, compressed in parallel, with the seek table
//! of the seekable format (`contrib/seekable_format` of zstd) as the last, skippable frame.
//!
//! `zstd -d` reads what [`Encoder`] writes, and [`Decoder`] reads what `zstd` writes.

use std::fmt;
use std::io::{self, Read};

use zstd::bulk::Compressor;
use zstd::stream::raw::{CParameter, DParameter, InBuffer, Operation as _, OutBuffer};

use super::parallel::{FrameCodec, FrameSizes, Parallel};
use super::{ChainStats, Sink, StageError};
use crate::domain::limits::FRAME_BYTES;
use crate::error::FirstError;

/// Largest window that the decoder allocates, as a power of two: 8 MiB. Frames of bkp need 4 MiB,
/// those of the `zstd` program up to 8 MiB at level 19.
const WINDOW_LOG_MAX: u32 = 23;

/// Magic of the skippable frame that holds the seek table.
const TABLE_FRAME_MAGIC: u32 = 0x184D_2A5E;

/// Magic at the very end of the seek table.
const TABLE_MAGIC: u32 = 0x8F92_EAB1;

/// Bytes of the table's footer: number of frames, descriptor, magic.
const TABLE_FOOTER_BYTES: usize = 4 + 1 + 4;

/// Bytes of compressed input that the decoder holds.
const INPUT_BYTES: usize = 256 << 10;

/// Bytes that zstd holds to compress one frame, as `ZSTD_estimateCCtxSize_usingCParams` of zstd 1.5
/// says for an input of [`FRAME_BYTES`], rounded up.
#[must_use]
pub fn worker_bytes(level: i32) -> usize {
    let mebibytes = match level {
        ..=4 => 3,
        5..=6 => 4,
        7..=8 => 7,
        9 => 13,
        10..=11 => 25,
        13 | 16 => 33,
        12 | 14 | 17..=19 => 50,
        _ => 66,
    };
    mebibytes << 20
}

/// A sink that compresses. Workers compress, one more thread runs everything behind this stage.
#[derive(Debug)]
pub struct Encoder(Box<Parallel>);

impl Encoder {
    /// Compresses at `level` (1 to 22) on `threads` worker threads (at least one) into `inner`.
    /// Memory: about `2 * threads + 1` times 8 MiB, and what zstd needs per thread.
    ///
    /// # Errors
    /// If the level is not one of zstd's, or the system has no thread left.
    pub fn new(level: i32, threads: usize, inner: Box<dyn Sink>) -> anyhow::Result<Self> {
        let codec = || -> anyhow::Result<Box<dyn FrameCodec>> {
            let mut compressor = Compressor::new(level)?;
            compressor.set_parameter(CParameter::ContentSizeFlag(true))?;
            compressor.set_parameter(CParameter::ChecksumFlag(true))?;
            Ok(Box::new(Codec(compressor)))
        };
        let codecs = (0..threads.max(1)).map(|_| codec()).collect::<anyhow::Result<_>>()?;
        Ok(Encoder(Box::new(Parallel::new("zstd", codecs, seek_table, inner)?)))
    }
}

impl Sink for Encoder {
    fn write(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.0.write(bytes)
    }

    fn finish(self: Box<Self>) -> anyhow::Result<ChainStats> {
        self.0.finish()
    }
}

struct Codec(Compressor<'static>);

impl FrameCodec for Codec {
    fn compress(&mut self, input: &[u8], output: &mut Vec<u8>) -> anyhow::Result<()> {
        output.clear();
        output.reserve_exact(zstd::zstd_safe::compress_bound(input.len().max(FRAME_BYTES)));
        self.0.compress_to_buffer(input, output)?;
        Ok(())
    }
}

/// The seek table as a skippable frame, without checksums of its own: the frames have theirs.
fn seek_table(frames: &[FrameSizes]) -> anyhow::Result<Vec<u8>> {
    let content_bytes = frames.len() * 8 + TABLE_FOOTER_BYTES;
    let mut table = Vec::with_capacity(8 + content_bytes);
    table.extend(TABLE_FRAME_MAGIC.to_le_bytes());
    table.extend(u32::try_from(content_bytes)?.to_le_bytes());
    for frame in frames {
        table.extend(frame.compressed.to_le_bytes());
        table.extend(frame.plain.to_le_bytes());
    }
    table.extend(u32::try_from(frames.len())?.to_le_bytes());
    table.push(0);
    table.extend(TABLE_MAGIC.to_le_bytes());
    Ok(table)
}

/// A reader that decompresses any number of frames and skips skippable ones.
///
/// A stream that is empty, ends within a frame or has anything but frames in it is an error. That
/// whole frames are missing at the end only a digest or a seal can tell.
pub struct Decoder<R> {
    inner: R,
    object: String,
    first_error: FirstError,
    raw: zstd::stream::raw::Decoder<'static>,
    input: Vec<u8>,
    taken: usize,
    filled: usize,
    state: State,
}

/// Where a [`Decoder`] stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the first byte.
    Unstarted,
    /// In a frame, or within its header.
    InFrame,
    /// Right behind a frame.
    BetweenFrames,
    /// The stream ended where a frame did.
    Ended,
    /// Something was wrong; every further read fails too.
    Failed,
}

impl<R: Read> Decoder<R> {
    /// Decompresses `inner`; failures name `object` and are noted in `first_error`.
    ///
    /// # Errors
    /// If zstd cannot allocate its state.
    pub fn new(inner: R, object: impl Into<String>, first_error: FirstError) -> io::Result<Self> {
        let mut raw = zstd::stream::raw::Decoder::new()?;
        raw.set_parameter(DParameter::WindowLogMax(WINDOW_LOG_MAX))?;
        let (object, input, state) = (object.into(), vec![0; INPUT_BYTES], State::Unstarted);
        Ok(Decoder { inner, object, first_error, raw, input, taken: 0, filled: 0, state })
    }

    fn fail(&mut self, reason: impl Into<String>) -> io::Error {
        self.state = State::Failed;
        let (object, reason) = (self.object.clone(), reason.into());
        self.first_error.note(StageError::Compressed { object, reason })
    }

    /// Reads more input; `false` at the end of the stream.
    fn refill(&mut self) -> io::Result<bool> {
        self.filled = self.inner.read(&mut self.input)?;
        self.taken = 0;
        Ok(self.filled > 0)
    }

    /// Whether the stream may end here.
    fn end(&mut self) -> io::Result<State> {
        match self.state {
            State::BetweenFrames | State::Ended => Ok(State::Ended),
            State::Unstarted => Err(self.fail("the stream is empty")),
            State::InFrame | State::Failed => Err(self.fail("the stream ends within a frame")),
        }
    }

    /// Runs zstd once; returns the bytes it wrote to `buf`.
    fn step(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut source = InBuffer::around(self.input.get(self.taken..self.filled).unwrap_or(&[]));
        let mut target = OutBuffer::around(buf);
        let result = self.raw.run(&mut source, &mut target);
        self.taken += source.pos();
        let written = target.pos();
        match result {
            Ok(0) => self.state = State::BetweenFrames,
            Ok(_hint) => self.state = State::InFrame,
            Err(error) => return Err(self.fail(error.to_string())),
        }
        Ok(written)
    }
}

impl<R: Read> Read for Decoder<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while !buf.is_empty() && self.state != State::Ended {
            if self.state == State::Failed {
                return Err(io::Error::other("an earlier read failed"));
            }
            // zstd may hold output for which the last buffer had no room, so inside a frame it is
            // asked before more input is read.
            let exhausted = self.taken == self.filled;
            let idle = exhausted && self.state != State::InFrame;
            let written = if idle { 0 } else { self.step(buf)? };
            if written > 0 {
                return Ok(written);
            }
            if exhausted && !self.refill()? {
                self.state = self.end()?;
            }
        }
        Ok(0)
    }
}

impl<R> fmt::Debug for Decoder<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shape = f.debug_struct("Decoder");
        shape.field("object", &self.object).field("state", &self.state).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Kind, diagnose};
    use crate::stage::parallel::testing::CollectingSink;

    fn encode(plain: &[u8]) -> Vec<u8> {
        let (inner, seen) = CollectingSink::new();
        let mut encoder = Box::new(Encoder::new(3, 2, Box::new(inner)).unwrap());
        encoder.write(plain).unwrap();
        let stats = encoder.finish().unwrap();
        assert_eq!(stats.get("zstd").unwrap().bytes, plain.len() as u64);
        seen.bytes()
    }

    fn decode(bytes: &[u8]) -> Result<Vec<u8>, Kind> {
        let first_error = FirstError::default();
        let mut decoder = Decoder::new(bytes, "obj", first_error.clone()).unwrap();
        let mut out = Vec::new();
        match decoder.read_to_end(&mut out) {
            Ok(_) => Ok(out),
            Err(error) => {
                assert!(decoder.read(&mut [0]).is_err(), "a failure stays one");
                Err(diagnose(&first_error.or(error)).kind)
            }
        }
    }

    #[test]
    fn streams_round_trip_and_end_with_a_seek_table() {
        for size in [0, 1, FRAME_BYTES, FRAME_BYTES + 1] {
            let plain = vec![9; size];
            let bytes = encode(&plain);
            assert!(decode(&bytes).as_deref() == Ok(&plain), "{size}");
            let frames = size.div_ceil(FRAME_BYTES).max(1);
            let (rest, footer) = bytes.split_last_chunk::<9>().unwrap();
            assert_eq!(footer[..4], u32::try_from(frames).unwrap().to_le_bytes());
            assert_eq!(footer[4..], [0, 0xB1, 0xEA, 0x92, 0x8F]);
            let entries: Vec<u32> = rest[rest.len() - frames * 8..]
                .as_chunks::<4>()
                .0
                .iter()
                .map(|word| u32::from_le_bytes(*word))
                .collect();
            let compressed: u32 = entries.iter().step_by(2).sum();
            let plain: u32 = entries.iter().skip(1).step_by(2).sum();
            assert_eq!(compressed as usize + frames * 8 + 17, bytes.len());
            assert_eq!(plain as usize, size);
        }
    }

    #[test]
    fn whatever_is_not_whole_frames_is_refused() {
        let plain: Vec<u8> = (0..3000_u32).flat_map(u32::to_le_bytes).collect();
        let bytes = encode(&plain);
        let table = 17 + 8;
        for end in 0..bytes.len() {
            // Cut exactly before the table it is a valid stream of the same content.
            let expected =
                if end == bytes.len() - table { Ok(plain.clone()) } else { Err(Kind::Integrity) };
            assert!(decode(&bytes[..end]) == expected, "cut at {end}");
        }
        for tail in [&b"x"[..], b"\0\0\0\0\0\0\0\0", b"some text"] {
            assert_eq!(decode(&[&bytes, tail].concat()), Err(Kind::Integrity));
        }
        let mut flipped = bytes.clone();
        flipped[bytes.len() / 2] ^= 1;
        assert_eq!(decode(&flipped), Err(Kind::Integrity));
    }

    #[test]
    fn a_window_beyond_the_limit_is_refused() {
        // Magic, descriptor without content size, window descriptor: 2^(10+14) = 16 MiB.
        let frame = [0x28, 0xB5, 0x2F, 0xFD, 0x00, 14 << 3, 1, 0, 0];
        assert_eq!(decode(&frame), Err(Kind::Integrity));
        let frame = [0x28, 0xB5, 0x2F, 0xFD, 0x00, 13 << 3, 1, 0, 0];
        assert_eq!(decode(&frame), Ok(vec![]));
    }
}
