//! Frames on the pipe between bkp and the bkp in a private network.

use std::io::{self, Read, Write};

/// The word with which bkp starts itself in there.
pub(super) const WORD: &str = "serve-replay";
/// What it says first: the network is private.
pub(super) const HELLO: u8 = b'h';
/// How a frame that answers begins.
pub(super) const ANSWER: u8 = 0;
pub(super) const FAILURE: u8 = 1;
/// Largest frame, bytes: a message of the cluster.
const FRAME_BYTES_MAX: u32 = 1 << 20;
/// A frame: a byte, a number, and bytes with their length before them.
pub(super) fn write_frame(
    out: &mut dyn Write,
    kind: u8,
    number: u64,
    bytes: &[u8],
) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    out.write_all(&[kind])?;
    out.write_all(&number.to_le_bytes())?;
    out.write_all(&length.to_le_bytes())?;
    out.write_all(bytes)?;
    out.flush()
}

pub(super) fn read_frame(input: &mut dyn Read) -> io::Result<(u8, u64, Vec<u8>)> {
    let (mut kind, mut number, mut length) = ([0], [0; 8], [0; 4]);
    input.read_exact(&mut kind)?;
    input.read_exact(&mut number)?;
    input.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length);
    if length > FRAME_BYTES_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = vec![0; length as usize];
    input.read_exact(&mut bytes)?;
    Ok((kind[0], u64::from_le_bytes(number), bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_reads_back() {
        let mut pipe = Vec::new();
        write_frame(&mut pipe, 7, 1 << 40, b"bytes").expect("written");
        assert_eq!(
            read_frame(&mut pipe.as_slice()).expect("read"),
            (7, 1 << 40, b"bytes".to_vec())
        );
        pipe.pop();
        assert!(read_frame(&mut pipe.as_slice()).is_err());
    }
}
