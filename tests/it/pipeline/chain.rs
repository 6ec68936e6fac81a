//! The whole chain, forwards into an upload in memory and backwards out of it: what goes in comes
//! out, and whatever was altered in between is refused before it can do harm.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests fail by panicking"
)]

use std::io::{Read, Write as _};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use bkp::ctx::Cancel;
use bkp::domain::id::BackupId;
use bkp::domain::recipient::Recipient;
use bkp::error::{FirstError, Kind, diagnose};
use bkp::keys::keyring::{self, Keyring};
use bkp::keys::{self, DataKey};
use bkp::stage::digest::{Digest, DigestReader, UploadSink, drain};
use bkp::stage::seal::{ObjectName, Opener, Sealer, open_header};
use bkp::stage::thread_boundary::{ThreadBoundary, read_ahead};
use bkp::stage::{ChainStats, Sink, gzip, zstd};
use bkp::store::{Declared, StoreError, Upload};
use proptest::prelude::*;
use sha2::{Digest as _, Sha256};

const MIB: usize = 1 << 20;
const SEALED_SEGMENT_BYTES: usize = MIB + 16;
const ID: &str = "019aa3f2-5c00-7a11-8b22-0123456789ab";

/// Where an upload in memory ends up: nothing until it was committed.
type Slot = Arc<Mutex<Option<Vec<u8>>>>;

struct Memory {
    bytes: Vec<u8>,
    slot: Slot,
}

impl Upload for Memory {
    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn commit(self: Box<Self>, declared: Declared) -> Result<(), StoreError> {
        let sha256 = Sha256::digest(&self.bytes).into();
        assert_eq!(declared, Declared { bytes: self.bytes.len() as u64, sha256 });
        *self.slot.lock().unwrap() = Some(self.bytes);
        Ok(())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Codec {
    None,
    Gzip,
    Zstd,
}

/// Which stages a chain has, and how it is cut into threads and writes.
#[derive(Debug, Clone)]
struct ChainShape {
    codec: Codec,
    sealed: bool,
    threads: usize,
    hops: bool,
    piece_bytes: usize,
}

impl ChainShape {
    fn new(codec: Codec, sealed: bool) -> Self {
        ChainShape { codec, sealed, threads: 2, hops: false, piece_bytes: 100_000 }
    }
}

/// What one backup's chains share.
struct Keys {
    _folder: tempfile::TempDir,
    keyring: Keyring,
    data: DataKey,
    recipients: Vec<Recipient>,
}

impl Keys {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        keys::file::generate(&path).unwrap();
        let provider =
            keys::kinds::open(&format!("file:{}", path.display()), &Cancel::default()).unwrap();
        let data = DataKey::generate().unwrap();
        let recipients = vec![provider.wrap(&data, id(), "books").unwrap()];
        Keys { _folder: folder, keyring: Keyring::new(vec![provider]), data, recipients }
    }
}

fn id() -> BackupId {
    ID.parse().unwrap()
}

fn object(name: &str) -> String {
    format!("{ID}/{name}")
}

/// The forward chain of the pipeline in front of `slot`.
fn chain(shape: &ChainShape, name: &str, keys: &Keys, slot: &Slot) -> Box<dyn Sink> {
    let upload = Memory { bytes: Vec::new(), slot: Arc::clone(slot) };
    let mut sink: Box<dyn Sink> = Box::new(UploadSink::new("stored", Box::new(upload)));
    if shape.sealed {
        let recipients = keys.recipients.clone();
        sink = Box::new(Sealer::new(&keys.data, &object(name), recipients, None, sink).unwrap());
    }
    if shape.hops {
        sink = Box::new(ThreadBoundary::new("seal", 2, sink).unwrap());
    }
    sink = match shape.codec {
        Codec::None => sink,
        Codec::Gzip => Box::new(gzip::Encoder::new(1, shape.threads, sink).unwrap()),
        Codec::Zstd => Box::new(zstd::Encoder::new(1, shape.threads, sink).unwrap()),
    };
    if shape.hops {
        sink = Box::new(ThreadBoundary::new("compress", 1, sink).unwrap());
    }
    Box::new(Digest::new("plaintext", sink))
}

fn forward(shape: &ChainShape, name: &str, keys: &Keys, plain: &[u8]) -> (Vec<u8>, ChainStats) {
    let slot = Slot::default();
    let mut sink = chain(shape, name, keys, &slot);
    for piece in plain.chunks(shape.piece_bytes) {
        sink.write(piece).unwrap();
    }
    let stats = sink.finish().unwrap();
    let stored = slot.lock().unwrap().take().expect("committed");
    (stored, stats)
}

/// What the manifest would say of an object; `None` leaves that check out.
#[derive(Default)]
struct Expected {
    stored: Option<Declared>,
    plain: Option<Declared>,
}

fn expected(stats: &ChainStats) -> Expected {
    let declared = |stage: &str| {
        let measure = stats.get(stage).unwrap();
        Declared { bytes: measure.bytes, sha256: measure.sha256.unwrap() }
    };
    Expected { stored: Some(declared("stored")), plain: Some(declared("plaintext")) }
}

/// The backward chain of the pipeline; what it released goes to `out`, whatever happens.
fn backward(
    shape: &ChainShape,
    stored: &[u8],
    keys: &Keys,
    expected: &Expected,
    out: &mut Vec<u8>,
) -> anyhow::Result<()> {
    let first_error = FirstError::default();
    let mut reader: Box<dyn Read + Send> = Box::new(std::io::Cursor::new(stored.to_vec()));
    if let Some(Declared { bytes, sha256 }) = expected.stored {
        reader = Box::new(DigestReader::new(reader, "stored", bytes, sha256, first_error.clone()));
    }
    if shape.sealed {
        let prelude = open_header(&mut reader, ObjectName::Whole(&object("data")))
            .map_err(|e| first_error.or(e))?;
        let key = keyring::unwrap_any(
            &keys.keyring,
            &prelude.header.recipients,
            id(),
            &Cancel::default(),
        )?;
        reader = Box::new(Opener::new(reader, &prelude, &key, first_error.clone()));
    }
    if shape.hops {
        reader = Box::new(read_ahead("open", reader, 2));
    }
    reader = match shape.codec {
        Codec::None => reader,
        Codec::Gzip => Box::new(gzip::Decoder::new(reader, "data", first_error.clone())),
        Codec::Zstd => Box::new(zstd::Decoder::new(reader, "data", first_error.clone())?),
    };
    if shape.hops {
        reader = Box::new(read_ahead("decompress", reader, 2));
    }
    if let Some(Declared { bytes, sha256 }) = expected.plain {
        reader =
            Box::new(DigestReader::new(reader, "plaintext", bytes, sha256, first_error.clone()));
    }
    reader.read_to_end(out).map_err(|error| first_error.or(error))?;
    drain(&mut reader).map_err(|error| first_error.or(error))?;
    Ok(())
}

/// Bytes that look like neither text nor noise: compressible, and different everywhere.
fn sample(bytes: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_u32;
    let mut out = Vec::with_capacity(bytes + 8);
    while out.len() < bytes {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        out.extend_from_slice(&(state >> 20).to_le_bytes());
        out.extend_from_slice(&[out.len().to_le_bytes()[2]; 4]);
    }
    out.truncate(bytes);
    out
}

fn shapes() -> impl Strategy<Value = ChainShape> {
    let codec = prop_oneof![Just(Codec::None), Just(Codec::Gzip), Just(Codec::Zstd)];
    let parts = (codec, any::<bool>(), 1..4_usize, any::<bool>(), 1..3 * MIB);
    parts.prop_map(|(codec, sealed, threads, hops, piece_bytes)| {
        // One byte at a time is slow over megabytes and tells nothing that a thousand does not.
        ChainShape { codec, sealed, threads, hops, piece_bytes: piece_bytes.max(1000) }
    })
}

fn sizes() -> impl Strategy<Value = usize> {
    let edges = [0, 1, MIB - 1, MIB, MIB + 1, 4 * MIB - 1, 4 * MIB, 4 * MIB + 1, 9 * MIB];
    prop_oneof![proptest::sample::select(edges.to_vec()), 0..5 * MIB]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_goes_in_comes_out(shape in shapes(), size in sizes()) {
        let (keys, plain) = (Keys::new(), sample(size));
        let (stored, stats) = forward(&shape, "data", &keys, &plain);
        prop_assert_eq!(stats.get("plaintext").unwrap().bytes, size as u64);
        prop_assert_eq!(stats.0.first().unwrap().stage, "plaintext");
        prop_assert_eq!(stats.0.last().unwrap().stage, "stored");
        let mut out = Vec::new();
        backward(&shape, &stored, &keys, &expected(&stats), &mut out).unwrap();
        prop_assert!(out == plain);
    }

    #[test]
    fn an_abandoned_chain_leaves_nothing(shape in shapes(), size in sizes()) {
        let (keys, slot) = (Keys::new(), Slot::default());
        let mut sink = chain(&shape, "data", &keys, &slot);
        sink.write(&sample(size)).unwrap();
        drop(sink);
        prop_assert!(slot.lock().unwrap().is_none());
        prop_assert_eq!(Arc::strong_count(&slot), 1, "every thread has ended");
    }

    /// Neither the digest of the manifest nor the compression helps here: the seal alone must tell.
    #[test]
    fn damage_is_refused_by_the_seal_alone(at in any::<prop::sample::Index>(), bit in 0..8_u32, cut in any::<bool>()) {
        let (keys, plain) = (Keys::new(), sample(2 * MIB + 5));
        let shape = ChainShape::new(Codec::None, true);
        let (mut stored, _) = forward(&shape, "data", &keys, &plain);
        let at = at.index(stored.len());
        if cut { stored.truncate(at) } else { stored[at] ^= 1 << bit }
        let mut out = Vec::new();
        let error = backward(&shape, &stored, &keys, &Expected::default(), &mut out).unwrap_err();
        // An altered recipient looks like one of somebody else.
        let kind = diagnose(&error).kind;
        prop_assert!(kind == Kind::Integrity || (kind == Kind::Key && !cut && at < 2000), "{error:#}");
        prop_assert!(plain.starts_with(&out) && out.len() % MIB == 0, "released {}", out.len());
    }

    #[test]
    fn damage_is_refused_by_the_digest_alone(at in any::<prop::sample::Index>(), bit in 0..8_u32, cut in any::<bool>()) {
        let (keys, plain) = (Keys::new(), sample(300_000));
        let shape = ChainShape::new(Codec::None, false);
        let (mut stored, stats) = forward(&shape, "data", &keys, &plain);
        let at = at.index(stored.len());
        if cut { stored.truncate(at) } else { stored[at] ^= 1 << bit }
        let error = backward(&shape, &stored, &keys, &expected(&stats), &mut Vec::new());
        prop_assert_eq!(diagnose(&error.unwrap_err()).kind, Kind::Integrity);
    }
}

/// Opens `stored` without the manifest's digests and returns what was released, and the kind.
fn tampered(keys: &Keys, plain: &[u8], stored: &[u8]) -> (usize, Kind) {
    let (mut out, shape) = (Vec::new(), ChainShape::new(Codec::None, true));
    let error = backward(&shape, stored, keys, &Expected::default(), &mut out).unwrap_err();
    assert!(plain.starts_with(&out), "unauthenticated bytes were released");
    (out.len(), diagnose(&error).kind)
}

#[test]
fn segments_cannot_be_moved_between_places_or_objects() {
    let (keys, plain) = (Keys::new(), sample(3 * MIB));
    let shape = ChainShape::new(Codec::None, true);
    let (stored, _) = forward(&shape, "data", &keys, &plain);
    let (other, _) = forward(&shape, "map", &keys, &plain);
    let (same_name, _) = forward(&shape, "data", &keys, &plain);
    let segment = |object: &[u8], index: usize| {
        let first = object.len() - 3 * SEALED_SEGMENT_BYTES;
        let start = first + index * SEALED_SEGMENT_BYTES;
        start..start + SEALED_SEGMENT_BYTES
    };
    let prelude = &stored[..stored.len() - 3 * SEALED_SEGMENT_BYTES];
    let pick = |parts: &[(&[u8], usize)]| {
        let parts = parts.iter().flat_map(|(object, index)| &object[segment(object, *index)]);
        prelude.iter().chain(parts).copied().collect::<Vec<u8>>()
    };
    let own: &[u8] = &stored;
    for (parts, released) in [
        (vec![(own, 1), (own, 0), (own, 2)], 0),
        (vec![(own, 0), (own, 2), (own, 1)], MIB),
        (vec![(own, 0), (own, 1)], MIB),
        (vec![(own, 0), (own, 2)], MIB),
        (vec![(own, 0), (own, 0), (own, 2)], MIB),
        (vec![(own, 0), (own, 1), (own, 2), (own, 2)], 2 * MIB),
        (vec![(own, 0), (&other, 1), (own, 2)], MIB),
        (vec![(own, 0), (&same_name, 1), (own, 2)], MIB),
        (vec![], 0),
    ] {
        let indexes: Vec<_> = parts.iter().map(|part| part.1).collect();
        let found = tampered(&keys, &plain, &pick(&parts));
        assert_eq!(found, (released, Kind::Integrity), "{indexes:?}");
    }
    assert_eq!(tampered(&keys, &plain, &other), (0, Kind::Integrity), "another object's bytes");
}

#[test]
fn no_byte_of_a_small_object_can_be_flipped_or_cut_off() {
    let (keys, plain) = (Keys::new(), sample(40));
    let (stored, _) = forward(&ChainShape::new(Codec::None, true), "data", &keys, &plain);
    let text = String::from_utf8_lossy(&stored).into_owned();
    let recipients = text.find("\"recipients\"").unwrap()..stored.len() - 40 - 16;
    for at in 0..stored.len() {
        for bit in 0..8 {
            let mut flipped = stored.clone();
            flipped[at] ^= 1 << bit;
            let (released, kind) = tampered(&keys, &plain, &flipped);
            let key_edit = kind == Kind::Key && recipients.contains(&at);
            assert!(released == 0 && (kind == Kind::Integrity || key_edit), "bit {bit} of {at}");
        }
        assert_eq!(tampered(&keys, &plain, &stored[..at]), (0, Kind::Integrity), "cut at {at}");
    }
}

#[test]
fn an_unsealed_stream_with_frames_missing_is_refused() {
    for codec in [Codec::Gzip, Codec::Zstd] {
        let (keys, plain, shape) = (Keys::new(), sample(5 * MIB), ChainShape::new(codec, false));
        let (stored, stats) = forward(&shape, "data", &keys, &plain);
        let (first, _) = forward(&shape, "data", &keys, &plain[..4 * MIB]);
        for expected in [Expected { stored: None, ..expected(&stats) }, expected(&stats)] {
            for damaged in [&first[..], &stored[..stored.len() - 1], &[]] {
                let error = backward(&shape, damaged, &keys, &expected, &mut Vec::new());
                assert_eq!(diagnose(&error.unwrap_err()).kind, Kind::Integrity, "{codec:?}");
            }
        }
    }
}

/// Runs a program with `input` and returns what it printed.
fn filter(program: &str, arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{program}: {error}"));
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let feeder = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().unwrap();
    feeder.join().unwrap().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}");
    output.stdout
}

#[test]
fn the_programs_zstd_and_gzip_agree() {
    let keys = Keys::new();
    let programs = [
        (Codec::Zstd, "zstd", &["-c", "-19"][..]),
        (Codec::Zstd, "zstd", &["-c", "-1", "--no-check"]),
        (Codec::Gzip, "gzip", &["-c", "-9"]),
    ];
    for size in [0, 1, 4 * MIB, 4 * MIB + 1, 9 * MIB] {
        let plain = sample(size);
        let declared = Declared { bytes: size as u64, sha256: Sha256::digest(&plain).into() };
        for (codec, program, arguments) in programs {
            let shape = ChainShape::new(codec, false);
            let (stored, _) = forward(&shape, "data", &keys, &plain);
            assert!(filter(program, &["-d", "-c"], &stored) == plain, "{program} -d, {size} bytes");
            let theirs = filter(program, arguments, &plain);
            let expected = Expected { stored: None, plain: Some(declared) };
            let mut out = Vec::new();
            backward(&shape, &theirs, &keys, &expected, &mut out).unwrap();
            assert!(out == plain, "{program}, {size} bytes");
        }
    }
}
