//! The sealed object, format 1: segments of AES-256-GCM behind a JSON header.
//!
//! ```text
//! magic "BKPSEAL1" | header length, u32 little-endian | header, JSON | segments
//! ```
//!
//! The object's key is HKDF-SHA256(data key, salt, "bkp seal 1" || SHA-256(magic..header)), so an
//! edited header opens nothing. Segment `i` has the nonce `i` (88 bits, big-endian) || last (0 or
//! 1). All segments hold [`SEGMENT_BYTES`] of plaintext; the last one holds 1 to [`SEGMENT_BYTES`],
//! or nothing if it is the only one. Nothing follows it. Swapped, spliced, cut and appended
//! segments do not authenticate.

use std::fmt;
use std::io::{self, Read};
use std::ops::Range;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom as _, SystemRandom};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{ChainStats, Sink, StageError, StageStats};
use crate::domain::limits::{RECIPIENTS_MAX, SEAL_HEADER_BYTES_MAX, SEGMENT_BYTES};
use crate::domain::recipient::Recipient;
use crate::error::FirstError;
use crate::keys::object_keys::ObjectKey;
use crate::keys::{DataKey, KeyError};

pub mod segments;

const MAGIC: &[u8; 8] = b"BKPSEAL1";
const VERSION: u32 = 1;
const ALGORITHM: &str = "aes256-gcm";
const KEY_INFO: &[u8] = b"bkp seal 1";
const SALT_BYTES: usize = 32;
const TAG_BYTES: usize = 16;
const PREFIX_BYTES: usize = MAGIC.len() + 4;

/// Bytes of a whole segment as stored.
const SEALED_SEGMENT_BYTES: usize = SEGMENT_BYTES + TAG_BYTES;

mod object_name;

pub use self::object_name::ObjectName;

/// What a sealed object says of itself. Authenticated as soon as one segment was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Version of the format: 1.
    pub v: u32,
    /// `aes256-gcm`.
    pub alg: String,
    /// Bytes of plaintext in each segment but the last: [`SEGMENT_BYTES`].
    pub segment_bytes: u64,
    /// 32 random bytes, base64.
    pub salt: String,
    /// `<backup id>/<object name>`.
    pub object: String,
    /// The wrapped data key, once per recipient.
    pub recipients: Vec<Recipient>,
    /// What is said of an object that has no manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub about: Option<About>,
}

/// What the header of an object without a manifest says of it, as authentic as a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// JSON.
    pub text: String,
    /// Who signed it, as `trust` of a configuration names him, if anybody did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signer: Option<String>,
    /// Ed25519 over `bkp log file 1`, a zero byte, and, with zero bytes between them, the object's name, the text and
    /// the digits of the MAC; hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
    /// HMAC-SHA256 of the object's name, a zero byte and the text, under a key derived from the data key, hex.
    pub mac: String,
}

/// The beginning of a sealed object, read and checked but not yet authenticated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prelude {
    /// The header.
    pub header: Header,
    /// Bytes from the start of the object to its first segment.
    pub bytes: u64,
    hash: [u8; 32],
    salt: [u8; SALT_BYTES],
}

impl Prelude {
    /// Magic, length and header as they are stored, and what they amount to.
    fn new(header: Header, salt: [u8; SALT_BYTES]) -> anyhow::Result<(Vec<u8>, Self)> {
        let json = serde_json::to_vec(&header)?;
        if json.len() > SEAL_HEADER_BYTES_MAX {
            anyhow::bail!(
                "the recipients need a header of {} bytes, which is too long",
                json.len()
            );
        }
        let length = u32::try_from(json.len())?.to_le_bytes();
        let raw = [MAGIC.as_slice(), &length, &json].concat();
        let hash = Sha256::digest(&raw).into();
        let prelude = Prelude { header, bytes: raw.len() as u64, hash, salt };
        Ok((raw, prelude))
    }

    /// The key of this object, derived from the data key of its backup.
    #[must_use]
    pub fn object_key(&self, data_key: &DataKey) -> ObjectKey {
        ObjectKey(*data_key.derive(&self.salt, &[KEY_INFO, &self.hash]))
    }
}

fn cipher(key: &ObjectKey) -> LessSafeKey {
    #[expect(clippy::expect_used, reason = "32 bytes are a key of AES-256: cannot fail")]
    let key = UnboundKey::new(&AES_256_GCM, &key.0).expect("32 bytes");
    LessSafeKey::new(key)
}

/// Reads the beginning of a sealed object of this name.
///
/// # Errors
/// [`StageError::NotSealed`] if it is not the beginning of a sealed object of that name; an
/// [`io::Error`] of the reader, for which the chain's [`FirstError`] may know better.
pub fn open_header(reader: &mut impl Read, object: ObjectName<'_>) -> anyhow::Result<Prelude> {
    let refuse =
        |reason: String| StageError::NotSealed { object: object.shown().to_owned(), reason };
    let mut raw = Vec::with_capacity(4 << 10);
    reader.by_ref().take(PREFIX_BYTES as u64).read_to_end(&mut raw)?;
    let (magic, length) = raw.split_first_chunk().unwrap_or((&[0; 8], &[]));
    if magic != MAGIC {
        return Err(refuse("it does not begin with the magic bytes".into()).into());
    }
    let length = length.try_into().map(u32::from_le_bytes);
    let length = length.map_err(|_short| refuse("it ends before its header".into()))?;
    if length as usize > SEAL_HEADER_BYTES_MAX {
        return Err(refuse(format!("a header of {length} bytes is too long")).into());
    }
    let header_bytes = reader.by_ref().take(length.into()).read_to_end(&mut raw)?;
    if header_bytes < length as usize {
        return Err(refuse("it ends within its header".into()).into());
    }
    let json = raw.get(PREFIX_BYTES..).unwrap_or_default();
    let (header, salt) = parse(json, object).map_err(refuse)?;
    Ok(Prelude { header, bytes: raw.len() as u64, hash: Sha256::digest(&raw).into(), salt })
}

/// Reads a header and checks everything that needs no key; says what is wrong.
fn parse(json: &[u8], object: ObjectName<'_>) -> Result<(Header, [u8; SALT_BYTES]), String> {
    #[derive(Deserialize)]
    struct Version {
        v: u32,
    }
    let unreadable = |error: serde_json::Error| format!("its header cannot be read: {error}");
    // The version first: the rest of a later header may look different.
    let Version { v } = serde_json::from_slice(json).map_err(unreadable)?;
    if v != VERSION {
        return Err(format!("it has format version {v}"));
    }
    let header: Header = serde_json::from_slice(json).map_err(unreadable)?;
    if header.alg != ALGORITHM {
        return Err(format!("unknown algorithm `{}`", header.alg));
    }
    if header.segment_bytes != SEGMENT_BYTES as u64 {
        return Err(format!("segments of {} bytes are not part of format 1", header.segment_bytes));
    }
    if !object.is(&header.object) {
        return Err(format!("it was sealed as `{}`", header.object));
    }
    if header.recipients.len() > RECIPIENTS_MAX {
        return Err(format!(
            "{} recipients are more than {RECIPIENTS_MAX}",
            header.recipients.len()
        ));
    }
    let salt = BASE64.decode(&header.salt).ok().and_then(|salt| salt.try_into().ok());
    let salt = salt.ok_or("its salt is not 32 bytes in base64")?;
    Ok((header, salt))
}

/// The nonce of a segment.
fn nonce(segment: u64, last: bool) -> Nonce {
    let mut bytes = [0; NONCE_LEN];
    // An index of 64 bits stands right-aligned in the 88 bits before the flag.
    if let Some(cell) = bytes.get_mut(3..11) {
        cell.copy_from_slice(&segment.to_be_bytes());
    }
    if let Some(flag) = bytes.last_mut() {
        *flag = u8::from(last);
    }
    Nonce::assume_unique_for_key(bytes)
}

/// A sink that seals.
pub struct Sealer {
    key: LessSafeKey,
    object_key: ObjectKey,
    segment: u64,
    buffer: Vec<u8>,
    bytes: u64,
    busy: Duration,
    inner: Box<dyn Sink>,
}

impl Sealer {
    /// Begins the sealed object `object` (`<backup id>/<object name>`) in `inner`. The header goes
    /// out at once.
    ///
    /// # Errors
    /// [`KeyError::Random`], a header that would be too long, or what `inner` fails with.
    pub fn new(
        data_key: &DataKey,
        object: &str,
        recipients: Vec<Recipient>,
        about: Option<About>,
        mut inner: Box<dyn Sink>,
    ) -> anyhow::Result<Self> {
        let mut salt = [0; SALT_BYTES];
        SystemRandom::new().fill(&mut salt).map_err(|_unspecified| KeyError::Random)?;
        let header = Header {
            v: VERSION,
            alg: ALGORITHM.to_owned(),
            segment_bytes: SEGMENT_BYTES as u64,
            salt: BASE64.encode(salt),
            object: object.to_owned(),
            recipients,
            about,
        };
        let (raw, prelude) = Prelude::new(header, salt)?;
        inner.write(&raw)?;
        let buffer = Vec::with_capacity(SEALED_SEGMENT_BYTES);
        let object_key = prelude.object_key(data_key);
        let key = cipher(&object_key);
        Ok(Sealer { key, object_key, segment: 0, buffer, bytes: 0, busy: Duration::ZERO, inner })
    }

    /// The key of this object alone.
    #[must_use]
    pub fn object_key(&self) -> &ObjectKey {
        &self.object_key
    }

    /// Seals what the buffer holds, in place, and passes it on.
    fn seal(&mut self, last: bool) -> anyhow::Result<()> {
        let began = Instant::now();
        self.key
            .seal_in_place_append_tag(nonce(self.segment, last), Aad::empty(), &mut self.buffer)
            .map_err(|_unspecified| StageError::Stopped { stage: "seal" })?;
        self.busy += began.elapsed();
        self.segment += 1;
        self.inner.write(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }
}

impl Sink for Sealer {
    fn write(&mut self, mut bytes: &[u8]) -> anyhow::Result<()> {
        self.bytes += bytes.len() as u64;
        while !bytes.is_empty() {
            // A full segment waits until it is known not to be the last one.
            if self.buffer.len() == SEGMENT_BYTES {
                self.seal(false)?;
            }
            let room = SEGMENT_BYTES - self.buffer.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.buffer.extend_from_slice(now);
            bytes = later;
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> anyhow::Result<ChainStats> {
        self.seal(true)?;
        let stats = self.inner.finish()?;
        let (bytes, busy) = (self.bytes, self.busy);
        Ok(stats.preceded_by(StageStats { stage: "seal", bytes, sha256: None, busy }))
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer").field("segment", &self.segment).finish_non_exhaustive()
    }
}

/// Where an [`Opener`] stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Reading,
    /// The last segment was opened; what is left of it is in the buffer.
    Last,
    /// Something was wrong; every further read fails too.
    Failed,
}

/// A reader that opens what [`Sealer`] sealed. It hands out no byte of a segment that was not
/// authenticated, and ends cleanly only after the last segment.
pub struct Opener<R> {
    inner: R,
    key: LessSafeKey,
    object: String,
    first_error: FirstError,
    /// Index of the next segment.
    segment: u64,
    /// One segment, and one byte more: only that tells whether the segment is the last one.
    buffer: Vec<u8>,
    /// That one byte, if there was one.
    carried: Option<u8>,
    /// What of the buffer is plaintext that nobody has read yet.
    ready: Range<usize>,
    state: State,
}

impl<R: Read> Opener<R> {
    /// Opens the segments in `inner`, which stands right behind `prelude`. Failures are noted in
    /// `first_error`.
    pub fn new(inner: R, prelude: &Prelude, data_key: &DataKey, first_error: FirstError) -> Self {
        Opener::with_key(inner, prelude, &prelude.object_key(data_key), first_error)
    }

    /// The same with the key of the object alone.
    pub fn with_key(inner: R, prelude: &Prelude, key: &ObjectKey, first_error: FirstError) -> Self {
        Opener {
            inner,
            key: cipher(key),
            object: prelude.header.object.clone(),
            first_error,
            segment: 0,
            buffer: vec![0; SEALED_SEGMENT_BYTES + 1],
            carried: None,
            ready: 0..0,
            state: State::Reading,
        }
    }

    /// The same if `inner` stands at the beginning of this segment, and not of the first. Whoever reads no further
    /// than [`segments::Segments::plain`] needs no more of the object than [`segments::Segments::stored`].
    #[must_use]
    pub fn from_segment(self, segment: u64) -> Self {
        Opener { segment, ..self }
    }

    /// Reads up to a segment and a byte; returns how much there was.
    fn fill(&mut self) -> io::Result<usize> {
        let mut filled = 0;
        if let (Some(byte), Some(first)) = (self.carried.take(), self.buffer.first_mut()) {
            *first = byte;
            filled = 1;
        }
        while let Some(room) = self.buffer.get_mut(filled..).filter(|room| !room.is_empty()) {
            match self.inner.read(room) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    /// Opens the next segment in place.
    fn next_segment(&mut self) -> io::Result<()> {
        // Whatever happens below, until the segment is open nothing may be read.
        self.state = State::Failed;
        let filled = self.fill()?;
        let last = filled <= SEALED_SEGMENT_BYTES;
        self.carried = if last { None } else { self.buffer.last().copied() };
        let sealed = self.buffer.get_mut(..filled.min(SEALED_SEGMENT_BYTES)).unwrap_or_default();
        let (object, segment) = (self.object.clone(), self.segment);
        if sealed.len() < TAG_BYTES || (sealed.len() == TAG_BYTES && segment > 0) {
            let reason = format!("it ends within segment {segment}");
            return Err(self.first_error.note(StageError::Cut { object, reason }));
        }
        let opened = self.key.open_in_place(nonce(segment, last), Aad::empty(), sealed);
        match opened.map(|plain| plain.len()) {
            Ok(length) => {
                self.segment += 1;
                self.ready = 0..length;
                self.state = if last { State::Last } else { State::Reading };
                Ok(())
            }
            Err(_unspecified) => Err(self.first_error.note(StageError::Forged { object, segment })),
        }
    }
}

impl<R: Read> Read for Opener<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        while self.ready.is_empty() {
            match self.state {
                State::Reading => self.next_segment()?,
                State::Last => return Ok(0),
                State::Failed => return Err(io::Error::other("an earlier read failed")),
            }
        }
        let mut plain = self.buffer.get(self.ready.clone()).unwrap_or_default();
        let count = plain.read(buf)?;
        self.ready.start += count;
        Ok(count)
    }
}

impl<R> fmt::Debug for Opener<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shape = f.debug_struct("Opener");
        shape.field("object", &self.object).field("segment", &self.segment).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::segments::Segments;
    use super::*;
    use crate::error::{Kind, diagnose};
    use crate::stage::parallel::testing::CollectingSink;

    const OBJECT: &str = "id/data";

    fn seal(key: &DataKey, plain: &[u8]) -> Vec<u8> {
        let (inner, seen) = CollectingSink::new();
        let mut sealer = Box::new(Sealer::new(key, OBJECT, vec![], None, Box::new(inner)).unwrap());
        sealer.write(plain).unwrap();
        assert_eq!(sealer.finish().unwrap().get("seal").unwrap().bytes, plain.len() as u64);
        seen.bytes()
    }

    fn open(key: &DataKey, mut sealed: &[u8]) -> (Vec<u8>, Option<Kind>) {
        let first_error = FirstError::default();
        let prelude = match open_header(&mut sealed, ObjectName::Whole(OBJECT)) {
            Ok(prelude) => prelude,
            Err(error) => return (vec![], Some(diagnose(&error).kind)),
        };
        let mut opener = Opener::new(sealed, &prelude, key, first_error.clone());
        let mut out = Vec::new();
        let error = opener.read_to_end(&mut out).err();
        (out, error.map(|error| diagnose(&first_error.or(error)).kind))
    }

    #[test]
    fn sizes_around_a_segment_round_trip() {
        let key = DataKey([7; 32]);
        for size in [0, 1, SEGMENT_BYTES - 1, SEGMENT_BYTES, SEGMENT_BYTES + 1, 2 * SEGMENT_BYTES] {
            let plain = vec![3; size];
            let sealed = seal(&key, &plain);
            assert!(open(&key, &sealed) == (plain, None), "{size}");
            let prelude = open_header(&mut sealed.as_slice(), ObjectName::Whole(OBJECT)).unwrap();
            // Where a segment stands can be computed: for readers of a part of an object.
            let tags = TAG_BYTES * size.div_ceil(SEGMENT_BYTES).max(1);
            assert_eq!(sealed.len() as u64, prelude.bytes + (size + tags) as u64);
        }
    }

    #[test]
    fn any_part_is_read_without_the_rest() {
        let key = DataKey([7; 32]);
        let size = SEGMENT_BYTES as u64;
        let part_of = |plain: &[u8], sealed: &[u8], part: Range<u64>| {
            let prelude = open_header(&mut &*sealed, ObjectName::Whole(OBJECT)).unwrap();
            let total = plain.len() as u64;
            assert_eq!(prelude.object_bytes(total), sealed.len() as u64);
            let Segments { first, stored, plain } = prelude.segments(&part, total);
            assert!(plain.start <= part.start && plain.end >= part.end.min(total), "{part:?}");
            let at = |offset: u64| usize::try_from(offset).unwrap();
            let inner = &sealed[at(stored.start)..at(stored.end)];
            let opener = Opener::new(inner, &prelude, &key, FirstError::default());
            let mut out = Vec::new();
            let length = plain.end - plain.start;
            opener.from_segment(first).take(length).read_to_end(&mut out).map(|_| (plain, out))
        };
        for bytes in [1, size - 1, size, size + 1, 3 * size, 3 * size + 9] {
            let whole: Vec<u8> = (0..bytes).map(|at| (at / 1000 % 251) as u8).collect();
            let sealed = seal(&key, &whole);
            for start in [0, 5, size - 1, size, 2 * size, bytes - 1] {
                for end in [start + 1, size, size + 1, 2 * size, bytes, bytes + 9] {
                    if start >= bytes || end <= start {
                        continue;
                    }
                    let (plain, found) = part_of(&whole, &sealed, start..end).unwrap();
                    let at = |offset: u64| usize::try_from(offset).unwrap();
                    assert!(
                        found == whole[at(plain.start)..at(plain.end)],
                        "{bytes} {start} {end}"
                    );
                }
            }
            // Another segment in its place opens nothing.
            if bytes > 2 * size {
                let prelude = open_header(&mut &*sealed, ObjectName::Whole(OBJECT)).unwrap();
                let begin = usize::try_from(prelude.bytes).unwrap();
                let mut swapped = sealed.clone();
                swapped
                    .copy_within(begin..begin + SEALED_SEGMENT_BYTES, begin + SEALED_SEGMENT_BYTES);
                assert!(part_of(&whole, &swapped, size..size + 1).is_err());
                assert!(part_of(&whole, &swapped, 0..1).is_ok());
            }
        }
    }

    #[test]
    fn every_flip_and_every_cut_of_a_small_object_is_refused() {
        let key = DataKey([7; 32]);
        let sealed = seal(&key, b"some words");
        for at in 0..sealed.len() {
            let mut flipped = sealed.clone();
            flipped[at] ^= 0x01;
            assert_eq!(open(&key, &flipped), (vec![], Some(Kind::Integrity)), "flip at {at}");
            assert_eq!(open(&key, &sealed[..at]), (vec![], Some(Kind::Integrity)), "cut at {at}");
        }
        assert_eq!(open(&DataKey([8; 32]), &sealed), (vec![], Some(Kind::Integrity)));
    }

    #[test]
    fn only_whole_authentic_segments_are_released() {
        let key = DataKey([7; 32]);
        let plain = vec![3; 2 * SEGMENT_BYTES];
        let sealed = seal(&key, &plain);
        let boundary = sealed.len() - SEALED_SEGMENT_BYTES;
        let (out, error) = open(&key, &sealed[..boundary]);
        assert_eq!((out.len(), error), (0, Some(Kind::Integrity)), "the flag tells the last one");
        let (out, error) = open(&key, &sealed[..boundary + 5]);
        assert_eq!((out.len(), error), (SEGMENT_BYTES, Some(Kind::Integrity)));
        let (out, error) = open(&key, &[&sealed[..], &[0; 20]].concat());
        assert_eq!((out.len(), error), (SEGMENT_BYTES, Some(Kind::Integrity)));
    }
}
