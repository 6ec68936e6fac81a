//! What compressed objects are made of: zstd frames with a seek table, gzip members.

use std::io::Read;

use bkp::error::{FirstError, Kind, diagnose};
use bkp::stage::{Sink, gzip, zstd};

use super::bytes::{Bytes, positions};
use super::memory::Out;

/// A few bytes may stand for very many: that much of them is looked at.
const LOOKED_AT: u64 = 8 << 20;

fn decoder<'a>(format: usize, input: &'a [u8], first_error: &FirstError) -> Box<dyn Read + 'a> {
    match format {
        0 => Box::new(zstd::Decoder::new(input, "object", first_error.clone()).unwrap()),
        _ => Box::new(gzip::Decoder::new(input, "object", first_error.clone())),
    }
}

fn decode(format: usize, input: &[u8]) -> Option<Vec<u8>> {
    let first_error = FirstError::default();
    let (mut out, mut piece) = (Vec::new(), vec![0; 64 << 10]);
    let mut reader = decoder(format, input, &first_error);
    while (out.len() as u64) < LOOKED_AT {
        match reader.read(&mut piece) {
            Ok(0) => return Some(out),
            Ok(count) => out.extend_from_slice(&piece[..count]),
            Err(error) => {
                let error = first_error.or(error);
                assert_eq!(diagnose(&error).kind, Kind::Integrity, "{error:#}");
                assert!(reader.read(&mut [0]).is_err(), "a failure stays one");
                return None;
            }
        }
    }
    None
}

fn encode(format: usize, plain: &[u8]) -> Vec<u8> {
    let out = Out::default();
    let sink: Box<dyn Sink> = Box::new(out.clone());
    let mut encoder: Box<dyn Sink> = match format {
        0 => Box::new(zstd::Encoder::new(1, 1, sink).unwrap()),
        _ => Box::new(gzip::Encoder::new(1, 1, sink).unwrap()),
    };
    encoder.write(plain).unwrap();
    encoder.finish().unwrap();
    out.bytes()
}

/// The frames that the seek table at the end of `bytes` lists, compressed and plain: read as any
/// program would, without bkp's own code.
fn table(bytes: &[u8]) -> Vec<(usize, usize)> {
    let number = |at: usize| Bytes(&bytes[at..]).number::<4>();
    let footer = bytes.len() - 9;
    assert_eq!((number(footer + 5), bytes[footer + 4]), (0x8F92_EAB1, 0), "magic, descriptor");
    let frames = number(footer);
    let begin = footer - 8 * frames;
    assert_eq!((number(begin - 8), number(begin - 4)), (0x184D_2A5E, 8 * frames + 9));
    (0..frames).map(|frame| (number(begin + 8 * frame), number(begin + 8 * frame + 4))).collect()
}

/// Whatever comes, it is decoded or refused as damaged, in pieces. What bkp compressed comes back, its
/// seek table says where, and with a byte changed it is refused or comes back the same.
pub(crate) fn run(data: &[u8]) {
    let mut input = Bytes(data);
    let mode = input.number::<1>();
    let (format, plain) = (mode & 1, input.0);
    if mode & 2 == 0 {
        let decoded = decode(format, plain);
        assert!(decoded.is_none() || !plain.is_empty(), "an empty object is none");
        return;
    }
    let bytes = encode(format, plain);
    assert_eq!(decode(format, &bytes).as_deref(), Some(plain));
    if format == 0 {
        let frames = table(&bytes);
        let (compressed, whole) =
            frames.iter().fold((0, 0), |sum, frame| (sum.0 + frame.0, sum.1 + frame.1));
        assert_eq!((compressed + 8 * frames.len() + 17, whole), (bytes.len(), plain.len()));
    }
    for at in positions(data, bytes.len()) {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        let found = decode(format, &flipped);
        assert!(found.is_none_or(|found| found == plain), "changed at {at}");
    }
}

/// Streams of both formats, plain ones to compress, and a frame with a large window.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let text = b"the same words again and again, the same words again".repeat(20);
    let with = |mode: u8, bytes: &[u8]| [&[mode], bytes].concat();
    let window = [0x28, 0xB5, 0x2F, 0xFD, 0x00, 13 << 3, 1, 0, 0];
    vec![
        with(0, &encode(0, &text)),
        with(1, &encode(1, &text)),
        with(0, &[encode(0, b"one"), encode(0, b"two")].concat()),
        with(0, &window),
        with(2, &text),
        with(3, &text),
    ]
}
