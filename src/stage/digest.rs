//! Observers: stages that count and hash what passes through, without changing it.
//!
//! Forwards [`Digest`] stands anywhere in a chain and [`UploadSink`] at its end, where it tells the
//! store what it should have received. Backwards [`DigestReader`] compares with what the manifest
//! says: no reader ever sees a clean end of wrong bytes.

use std::fmt;
use std::io::{self, Read};
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

use super::{ChainStats, Sink, StageError, StageStats};
use crate::domain::manifest::hex;
use crate::error::FirstError;
use crate::store::{Declared, Upload};

/// Counts and hashes a stream.
struct Tally {
    bytes: u64,
    hasher: Sha256,
    busy: Duration,
}

impl Tally {
    fn new() -> Self {
        Tally { bytes: 0, hasher: Sha256::new(), busy: Duration::ZERO }
    }

    fn update(&mut self, bytes: &[u8]) {
        let began = Instant::now();
        self.hasher.update(bytes);
        // A slice is never longer than 64 bits can count.
        self.bytes += bytes.len() as u64;
        self.busy += began.elapsed();
    }

    fn measure(self, stage: &'static str) -> (StageStats, [u8; 32]) {
        let sha256 = self.hasher.finalize().into();
        (StageStats { stage, bytes: self.bytes, sha256: Some(sha256), busy: self.busy }, sha256)
    }
}

/// A sink that counts and hashes what passes.
pub struct Digest {
    name: &'static str,
    tally: Tally,
    inner: Box<dyn Sink>,
}

impl Digest {
    /// An observer before `inner`; its [`StageStats`] will carry `name`.
    #[must_use]
    pub fn new(name: &'static str, inner: Box<dyn Sink>) -> Self {
        Digest { name, tally: Tally::new(), inner }
    }
}

impl Sink for Digest {
    fn write(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.tally.update(bytes);
        self.inner.write(bytes)
    }

    fn finish(self: Box<Self>) -> anyhow::Result<ChainStats> {
        let stats = self.inner.finish()?;
        Ok(stats.preceded_by(self.tally.measure(self.name).0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Digest").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The last sink of a chain: hands bytes to an upload and, at the end, tells the store how many
/// there were and what their SHA-256 is. Dropping it abandons the upload.
pub struct UploadSink {
    name: &'static str,
    tally: Tally,
    upload: Box<dyn Upload>,
}

impl UploadSink {
    /// The end of a chain; its [`StageStats`] will carry `name`.
    #[must_use]
    pub fn new(name: &'static str, upload: Box<dyn Upload>) -> Self {
        UploadSink { name, tally: Tally::new(), upload }
    }
}

impl Sink for UploadSink {
    fn write(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.tally.update(bytes);
        Ok(self.upload.write(bytes)?)
    }

    fn finish(self: Box<Self>) -> anyhow::Result<ChainStats> {
        let (measure, sha256) = self.tally.measure(self.name);
        self.upload.commit(Declared { bytes: measure.bytes, sha256 })?;
        Ok(ChainStats(vec![measure]))
    }
}

impl fmt::Debug for UploadSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UploadSink").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Where a [`DigestReader`] stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Not all expected bytes have been read.
    Reading,
    /// All expected bytes were read and their digest is right; the end has not been seen.
    Matched,
    /// The end was seen where it should be.
    Ended,
    /// Something was wrong; every further read fails too.
    Failed,
}

/// A reader that compares size and SHA-256 with what is expected.
///
/// The digest is compared before the last expected byte is handed out, so even a caller that
/// stops there cannot have read wrong bytes to their end. A caller that stops earlier must
/// [`drain`] to know.
pub struct DigestReader<R> {
    inner: R,
    object: String,
    expected: Declared,
    bytes: u64,
    hasher: Sha256,
    state: State,
    first_error: FirstError,
}

impl<R: Read> DigestReader<R> {
    /// Reads `inner`, expecting exactly `bytes` bytes with this SHA-256; failures name `object` and
    /// are noted in `first_error`.
    pub fn new(
        inner: R,
        object: impl Into<String>,
        bytes: u64,
        sha256: [u8; 32],
        first_error: FirstError,
    ) -> Self {
        let expected = Declared { bytes, sha256 };
        let (object, hasher) = (object.into(), Sha256::new());
        DigestReader {
            inner,
            object,
            expected,
            bytes: 0,
            hasher,
            state: State::Reading,
            first_error,
        }
    }

    fn differs(&mut self, what: &'static str, found: String, expected: String) -> io::Error {
        self.state = State::Failed;
        let object = self.object.clone();
        self.first_error.note(StageError::Differs { object, what, found, expected })
    }

    /// Compares the digest once all expected bytes were read.
    fn compare(&mut self) -> io::Result<()> {
        let found: [u8; 32] = self.hasher.finalize_reset().into();
        if found == self.expected.sha256 {
            self.state = State::Matched;
            return Ok(());
        }
        let expected = hex(&self.expected.sha256);
        Err(self.differs("SHA-256", hex(&found), expected))
    }

    fn ended(&mut self) -> io::Result<usize> {
        if self.state == State::Reading && self.bytes == self.expected.bytes {
            // Only an object of no bytes comes here: any other was compared at its last byte.
            self.compare()?;
        }
        if self.state == State::Matched {
            self.state = State::Ended;
            return Ok(0);
        }
        self.state = State::Failed;
        let reason = format!("ends after {} of {} bytes", self.bytes, self.expected.bytes);
        Err(self.first_error.note(StageError::Cut { object: self.object.clone(), reason }))
    }
}

impl<R: Read> Read for DigestReader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self.state {
            State::Ended => return Ok(0),
            State::Failed => return Err(io::Error::other("an earlier read failed")),
            State::Reading | State::Matched if buf.is_empty() => return Ok(0),
            State::Reading | State::Matched => {}
        }
        let count = self.inner.read(buf)?;
        if count == 0 {
            return self.ended();
        }
        self.bytes = self.bytes.saturating_add(count as u64);
        if self.bytes > self.expected.bytes {
            let (found, expected) = (format!("at least {}", self.bytes), self.expected.bytes);
            return Err(self.differs("size", found, expected.to_string()));
        }
        self.hasher.update(buf.get(..count).unwrap_or_default());
        if self.bytes == self.expected.bytes {
            self.compare()?;
        }
        Ok(count)
    }
}

impl<R> fmt::Debug for DigestReader<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shape = f.debug_struct("DigestReader");
        shape.field("object", &self.object).field("state", &self.state).finish_non_exhaustive()
    }
}

/// Reads to the end, so that every check behind `reader` is made; returns the bytes that were left.
///
/// # Errors
/// What the reader fails with; ask the chain's [`FirstError`] for the typed error.
pub fn drain(reader: &mut (impl Read + ?Sized)) -> io::Result<u64> {
    let mut scratch = vec![0; 256 << 10];
    let mut total = 0;
    loop {
        match reader.read(&mut scratch) {
            Ok(0) => return Ok(total),
            Ok(count) => total += count as u64,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Kind, diagnose};

    fn check(content: &[u8], bytes: u64, of: &[u8]) -> Result<Vec<u8>, Kind> {
        let first_error = FirstError::default();
        let sha256 = Sha256::digest(of).into();
        let mut reader = DigestReader::new(content, "obj", bytes, sha256, first_error.clone());
        let mut out = Vec::new();
        match reader.read_to_end(&mut out) {
            Ok(_) => Ok(out),
            Err(error) => {
                assert!(drain(&mut reader).is_err(), "a failure stays one");
                Err(diagnose(&first_error.or(error)).kind)
            }
        }
    }

    #[test]
    fn only_the_expected_bytes_end_cleanly() {
        assert_eq!(check(b"abc", 3, b"abc"), Ok(b"abc".to_vec()));
        assert_eq!(check(b"", 0, b""), Ok(vec![]));
        for (content, bytes, of) in [
            (&b"abd"[..], 3, &b"abc"[..]),
            (b"abcd", 3, b"abc"),
            (b"ab", 3, b"abc"),
            (b"", 3, b"abc"),
            (b"a", 0, b""),
            (b"", 0, b"abc"),
        ] {
            assert_eq!(check(content, bytes, of), Err(Kind::Integrity), "{content:?}");
        }
    }

    #[test]
    fn the_last_byte_is_held_back_until_the_digest_is_right() {
        let mut reader = DigestReader::new(&b"abd"[..], "o", 3, [0; 32], FirstError::default());
        let mut out = [0; 2];
        reader.read_exact(&mut out).unwrap();
        assert!(reader.read(&mut [0]).is_err());
    }
}
