//! The sealed object: a header that is read before anything is authentic, and segments.

use std::io::Read as _;
use std::sync::LazyLock;

use bkp::domain::recipient::Recipient;
use bkp::error::{FirstError, Kind, diagnose};
use bkp::keys::DataKey;
use bkp::stage::Sink as _;
use bkp::stage::seal::{Header, ObjectName, Opener, Prelude, Sealer, open_header};

use super::bytes::Bytes;
use super::memory::Out;

const OBJECT: &str = "01935a3c-7a00-7abc-8def-0123456789ab/data.tar.zst.enc";
const SEGMENT: usize = 1 << 20;
const TAG: usize = 16;

/// Nobody knows it, so nobody can make what it opens.
static KEY: LazyLock<DataKey> = LazyLock::new(|| DataKey::generate().unwrap());

/// What is released, and whether that is all.
fn open(sealed: &[u8]) -> (Vec<u8>, bool) {
    let mut input = sealed;
    let prelude = match open_header(&mut input, ObjectName::Whole(OBJECT)) {
        Ok(prelude) => prelude,
        Err(error) => {
            assert_eq!(diagnose(&error).kind, Kind::Integrity, "{error:#}");
            return (Vec::new(), false);
        }
    };
    check(&prelude, sealed.len() - input.len());
    let first_error = FirstError::default();
    let mut opener = Opener::new(input, &prelude, &KEY, first_error.clone());
    let mut out = Vec::new();
    match opener.read_to_end(&mut out) {
        Ok(_) => (out, true),
        Err(error) => {
            let error = first_error.or(error);
            assert_eq!(diagnose(&error).kind, Kind::Integrity, "{error:#}");
            assert!(opener.read(&mut [0]).is_err(), "a failure stays one");
            (out, false)
        }
    }
}

/// A header that was accepted: within its bounds, and the same after it was printed.
fn check(prelude: &Prelude, taken: usize) {
    let header = &prelude.header;
    assert_eq!(prelude.bytes, taken as u64);
    assert!(taken <= SEGMENT + 12 && header.recipients.len() <= 32 && header.object == OBJECT);
    let printed = serde_json::to_vec(header).unwrap();
    assert_eq!(&serde_json::from_slice::<Header>(&printed).unwrap(), header);
}

fn seal(plain: &[u8], recipients: Vec<Recipient>) -> Vec<u8> {
    seal_with(&KEY, plain, recipients)
}

fn seal_with(key: &DataKey, plain: &[u8], recipients: Vec<Recipient>) -> Vec<u8> {
    let out = Out::default();
    let mut sealer = Sealer::new(key, OBJECT, recipients, None, Box::new(out.clone())).unwrap();
    sealer.write(plain).unwrap();
    Box::new(sealer).finish().unwrap();
    out.bytes()
}

/// What somebody does to a sealed object who can write to the bucket.
fn alter(mut sealed: Vec<u8>, input: &mut Bytes<'_>) -> Vec<u8> {
    let header = 12 + Bytes(&sealed[8..]).number::<4>();
    let segment = |number: usize, sealed: &[u8]| {
        let start = (header + number * (SEGMENT + TAG)).min(sealed.len());
        start..(start + SEGMENT + TAG).min(sealed.len())
    };
    for _step in 0..8 {
        if input.0.is_empty() || sealed.is_empty() {
            break;
        }
        let (what, at) = (input.number::<1>(), input.number::<3>());
        match what % 6 {
            0 => {
                let at = at % sealed.len();
                sealed[at] ^= 1 << (what >> 5);
            }
            1 => sealed.truncate(at % (sealed.len() + 1)),
            2 => sealed.extend_from_slice(input.take(at % 64)),
            3 => {
                let first = segment(at % 4, &sealed);
                let copy = sealed[first].to_vec();
                let place = segment(at / 4 % 4, &sealed).start;
                sealed.splice(place..place, copy);
            }
            4 => drop(sealed.drain(segment(at % 4, &sealed))),
            // In the header, where text matters.
            _ => {
                let at = at % header.min(sealed.len());
                let bytes = input.take(4);
                sealed.splice(at..at, bytes.iter().copied());
            }
        }
    }
    sealed
}

/// Foreign bytes open nothing. An authentic object that was altered is refused, and what was released
/// until then is its true beginning.
pub(crate) fn run(data: &[u8]) {
    let mut input = Bytes(data);
    if input.number::<1>() % 2 == 0 {
        let (out, whole) = open(input.0);
        assert!(out.is_empty() && !whole, "{} bytes that nobody sealed", out.len());
        return;
    }
    let (length, pattern) = (input.number::<3>() % (3 * SEGMENT), input.take(8));
    let plain: Vec<u8> = pattern.iter().chain(b"x").copied().cycle().take(length).collect();
    let sealed = seal(&plain, Vec::new());
    let altered = alter(sealed.clone(), &mut input);
    let (out, whole) = open(&altered);
    assert!(plain.starts_with(&out), "{} bytes of something else", out.len());
    assert_eq!(whole, altered == sealed, "of {length} bytes");
    assert!(!whole || out.len() == length, "{} of {length} bytes", out.len());
}

/// Real objects with and without recipients, and ways to alter them.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let recipient = Recipient {
        kind: "file".into(),
        id: "0123456789abcdef".into(),
        wrapped: "AAAA".into(),
        parameters: serde_json::Map::new(),
    };
    let raw = |bytes: Vec<u8>| [vec![0], bytes].concat();
    // Of somebody else: to the target no seed is authentic.
    let theirs = DataKey::generate().unwrap();
    let mut seeds = vec![
        raw(seal_with(&theirs, b"some words", vec![])),
        raw(seal_with(&theirs, b"", vec![recipient.clone(), recipient])),
        vec![1, 10, 0, 0],
    ];
    for (length, alterations) in [
        (10_u32, &[0, 200, 0, 0][..]),
        (0x10_0000, &[4, 0, 0, 0]),
        (0x20_0000, &[3, 1, 0, 0]),
        (0x10_0005, &[1, 0, 0, 0x10]),
        (0x20_0001, &[2, 8, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]),
        (100, &[5, 60, 0, 0, 32, 32, 32, 32]),
    ] {
        let head = [&[1], &length.to_le_bytes()[..3], b"pattern!"].concat();
        seeds.push([&head, alterations].concat());
    }
    seeds
}
