//! gzip for compatibility: members of [`FRAME_BYTES`] of input (RFC 1952), compressed in parallel.
//!
//! `gzip -d` reads what [`Encoder`] writes, and [`Decoder`] reads what `gzip` writes.

use std::fmt;
use std::io::{self, BufReader, Read};

use flate2::bufread::MultiGzDecoder;
use flate2::{Compress, Compression, Crc, FlushCompress, Status};

use super::parallel::{FrameCodec, Parallel};
use super::{ChainStats, Sink, StageError};
use crate::domain::limits::FRAME_BYTES;
use crate::error::FirstError;

/// A member's header: magic, deflate, no flags, no time, no extra flags, unknown system.
const HEADER: [u8; 10] = [0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 0, 0xFF];

/// Bytes of compressed input that the decoder holds.
const INPUT_BYTES: usize = 256 << 10;

/// Bytes that deflate holds to compress one member (zlib's `deflateInit2`: window and hash tables).
pub const WORKER_BYTES: usize = 1 << 20;

/// A sink that compresses. Workers compress, one more thread runs everything behind this stage.
#[derive(Debug)]
pub struct Encoder(Box<Parallel>);

impl Encoder {
    /// Compresses at `level` (1 to 9) on `threads` worker threads (at least one) into `inner`.
    /// Memory: about `2 * threads + 1` times 8 MiB.
    ///
    /// # Errors
    /// If the system has no thread left.
    pub fn new(level: u32, threads: usize, inner: Box<dyn Sink>) -> anyhow::Result<Self> {
        let level = Compression::new(level.clamp(1, 9));
        let codec = |_| -> Box<dyn FrameCodec> { Box::new(Codec(Compress::new(level, false))) };
        let codecs = (0..threads.max(1)).map(codec).collect();
        Ok(Encoder(Box::new(Parallel::new("gzip", codecs, |_| Ok(Vec::new()), inner)?)))
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

/// Makes members by hand around a deflate state that is used again and again.
struct Codec(Compress);

impl FrameCodec for Codec {
    fn compress(&mut self, input: &[u8], output: &mut Vec<u8>) -> anyhow::Result<()> {
        output.clear();
        // Incompressible input grows by 5 bytes per stored block; this is room for any block size.
        output.reserve_exact(FRAME_BYTES + FRAME_BYTES / 64);
        output.extend(HEADER);
        self.0.reset();
        let mut status = Status::Ok;
        while status != Status::StreamEnd {
            if output.len() == output.capacity() {
                output.reserve(FRAME_BYTES / 64);
            }
            // The state counts what it took, so each round goes on where the last one stopped.
            let taken = usize::try_from(self.0.total_in())?;
            let rest = input.get(taken..).unwrap_or_default();
            status = self.0.compress_vec(rest, output, FlushCompress::Finish)?;
        }
        let mut crc = Crc::new();
        crc.update(input);
        output.extend(crc.sum().to_le_bytes());
        output.extend(u32::try_from(input.len())?.to_le_bytes());
        Ok(())
    }
}

/// A reader that decompresses any number of members.
///
/// A stream that is empty, ends within a member or has anything but members in it is an error. That
/// whole members are missing at the end only a digest or a seal can tell.
pub struct Decoder<R> {
    inner: MultiGzDecoder<BufReader<FailureTracker<R>>>,
    object: String,
    first_error: FirstError,
    failed: bool,
}

impl<R: Read> Decoder<R> {
    /// Decompresses `inner`; failures name `object` and are noted in `first_error`.
    pub fn new(inner: R, object: impl Into<String>, first_error: FirstError) -> Self {
        let watched = FailureTracker { inner, failed: false };
        let inner = MultiGzDecoder::new(BufReader::with_capacity(INPUT_BYTES, watched));
        Decoder { inner, object: object.into(), first_error, failed: false }
    }
}

impl<R: Read> Read for Decoder<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.failed {
            return Err(io::Error::other("an earlier read failed"));
        }
        if buf.is_empty() {
            return Ok(0);
        }
        self.inner.read(buf).map_err(|error| {
            if error.kind() == io::ErrorKind::Interrupted {
                return error;
            }
            self.failed = true;
            if self.inner.get_ref().get_ref().failed {
                return error;
            }
            let (object, reason) = (self.object.clone(), error.to_string());
            self.first_error.note(StageError::Compressed { object, reason })
        })
    }
}

impl<R> fmt::Debug for Decoder<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decoder").field("object", &self.object).finish_non_exhaustive()
    }
}

/// Remembers whether a failure came from below: then it is not the compressed data that is wrong.
struct FailureTracker<R> {
    inner: R,
    failed: bool,
}

impl<R: Read> Read for FailureTracker<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let result = self.inner.read(buf);
        self.failed = result.is_err();
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Kind, diagnose};
    use crate::stage::parallel::testing::CollectingSink;

    fn encode(plain: &[u8]) -> Vec<u8> {
        let (inner, seen) = CollectingSink::new();
        let mut encoder = Box::new(Encoder::new(6, 2, Box::new(inner)).unwrap());
        encoder.write(plain).unwrap();
        let stats = encoder.finish().unwrap();
        assert_eq!(stats.get("gzip").unwrap().bytes, plain.len() as u64);
        seen.bytes()
    }

    fn decode(bytes: &[u8]) -> Result<Vec<u8>, Kind> {
        let first_error = FirstError::default();
        let mut decoder = Decoder::new(bytes, "obj", first_error.clone());
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
    fn streams_round_trip() {
        let mut noise = vec![0; FRAME_BYTES + 1];
        let mut state = 1_u32;
        for byte in &mut noise {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *byte = (state >> 24) as u8;
        }
        for size in [0, 1, FRAME_BYTES, FRAME_BYTES + 1] {
            assert!(decode(&encode(&noise[..size])).as_deref() == Ok(&noise[..size]), "{size}");
        }
    }

    #[test]
    fn whatever_is_not_whole_members_is_refused() {
        let plain: Vec<u8> = (0..3000_u32).flat_map(u32::to_le_bytes).collect();
        let bytes = encode(&plain);
        for end in 0..bytes.len() {
            assert_eq!(decode(&bytes[..end]), Err(Kind::Integrity), "cut at {end}");
        }
        for tail in [&b"x"[..], b"\0\0\0\0\0\0\0\0", b"some text", &[0x1F], &[0x1F, 0x8B]] {
            assert_eq!(decode(&[&bytes, tail].concat()), Err(Kind::Integrity), "{tail:?}");
        }
        let mut flipped = bytes.clone();
        flipped[bytes.len() / 2] ^= 1;
        assert_eq!(decode(&flipped), Err(Kind::Integrity));
    }

    #[test]
    fn a_failure_from_below_keeps_its_kind() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _buf: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("network"))
            }
        }
        let first_error = FirstError::default();
        let error = Decoder::new(Broken, "obj", first_error.clone()).read(&mut [0]).unwrap_err();
        assert_eq!(diagnose(&first_error.or(error)).kind, Kind::Failed);
    }
}
