//! Messages in a stream of bytes: a tag, four bytes of length that count themselves, a body.

use std::ops::Range;

/// The longest message that is accepted, bytes of its body. The server's own limit for what it sends is
/// larger, but nothing that bkp asks for comes near.
const BODY_BYTES_MAX: usize = 64 << 20;

/// Bytes read at a time, unless a message is longer.
const BUFFER_BYTES: usize = 512 << 10;

/// Tag and length.
const HEAD_BYTES: usize = 5;

/// A length that no message has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BadLength(pub(super) u32);

/// A message in a buffer: its tag, and where its body is until the next one is asked for.
pub(super) type Framed = (u8, Range<usize>);

/// What was read and not yet handed out.
#[derive(Debug)]
pub(super) struct FrameBuffer {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    /// Bytes that the message at `start` has in all, as far as that is known.
    needed: usize,
}

impl FrameBuffer {
    pub(super) fn new() -> FrameBuffer {
        FrameBuffer { bytes: vec![0; BUFFER_BYTES], start: 0, end: 0, needed: HEAD_BYTES }
    }

    /// The next message, if all of it is there.
    pub(super) fn next(&mut self) -> Result<Option<Framed>, BadLength> {
        let unread = self.bytes.get(self.start..self.end).unwrap_or_default();
        let Some(([tag, length @ ..], _)) = unread.split_first_chunk::<HEAD_BYTES>() else {
            self.needed = HEAD_BYTES;
            return Ok(None);
        };
        let announced = u32::from_be_bytes(*length);
        let body = usize::try_from(announced).ok().and_then(|length| length.checked_sub(4));
        let body = body.filter(|body| *body <= BODY_BYTES_MAX).ok_or(BadLength(announced))?;
        self.needed = HEAD_BYTES + body;
        if unread.len() < self.needed {
            return Ok(None);
        }
        let range = self.start + HEAD_BYTES..self.start + self.needed;
        let tag = *tag;
        self.start = range.end;
        self.needed = HEAD_BYTES;
        Ok(Some((tag, range)))
    }

    /// Part of what was handed out last.
    pub(super) fn get(&self, range: Range<usize>) -> &[u8] {
        self.bytes.get(range).unwrap_or_default()
    }

    /// Where to read to. Grows as bytes come, so that a length alone takes no memory.
    pub(super) fn room(&mut self) -> &mut [u8] {
        let fits = self.start + self.needed <= self.bytes.len();
        if self.start == self.end || !fits || self.end == self.bytes.len() {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.end == self.bytes.len() {
            let larger = self.needed.min(self.bytes.len() * 2);
            self.bytes.resize(larger.max(self.bytes.len()), 0);
        }
        self.bytes.get_mut(self.end..).unwrap_or_default()
    }

    /// Notes that `count` bytes of the room were filled.
    pub(super) fn filled(&mut self, count: usize) {
        self.end = (self.end + count).min(self.bytes.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn encoded(messages: &[(u8, Vec<u8>)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (tag, body) in messages {
            bytes.push(*tag);
            bytes.extend(u32::try_from(body.len() + 4).unwrap().to_be_bytes());
            bytes.extend(body);
        }
        bytes
    }

    /// Feeds `bytes` in pieces of `piece`.
    fn decoded(bytes: &[u8], piece: usize) -> Result<Vec<(u8, Vec<u8>)>, BadLength> {
        let mut buffer = FrameBuffer::new();
        let mut found = Vec::new();
        let mut rest = bytes;
        loop {
            while let Some((tag, range)) = buffer.next()? {
                found.push((tag, buffer.get(range).to_vec()));
            }
            if rest.is_empty() {
                return Ok(found);
            }
            let room = buffer.room();
            assert!(!room.is_empty());
            let count = room.len().min(piece).min(rest.len());
            room[..count].copy_from_slice(&rest[..count]);
            rest = &rest[count..];
            buffer.filled(count);
        }
    }

    #[test]
    fn messages_longer_than_the_buffer_are_read_and_longer_than_the_limit_refused() {
        let messages = vec![
            (b'd', vec![1; BUFFER_BYTES * 3]),
            (b'd', vec![2; BUFFER_BYTES - 7]),
            (b'c', vec![]),
        ];
        assert_eq!(decoded(&encoded(&messages), 100_000), Ok(messages));
        for length in [0_u32, 3, 65 << 20, u32::MAX] {
            let bytes = [&b"d"[..], &length.to_be_bytes()].concat();
            assert_eq!(decoded(&bytes, 9), Err(BadLength(length)));
        }
    }

    #[test]
    fn an_announced_length_takes_no_memory() {
        let mut buffer = FrameBuffer::new();
        buffer.room()[..5].copy_from_slice(b"d\x03\xff\xff\xff");
        buffer.filled(5);
        assert_eq!(buffer.next(), Ok(None));
        assert!(buffer.room().len() <= BUFFER_BYTES);
    }

    proptest! {
        #[test]
        fn messages_come_back(
            messages in vec((any::<u8>(), vec(any::<u8>(), 0..300)), 0..20),
            piece in 1..700_usize,
        ) {
            prop_assert_eq!(decoded(&encoded(&messages), piece), Ok(messages));
        }

        #[test]
        fn no_bytes_are_too_strange(bytes in vec(any::<u8>(), 0..2000), piece in 1..50_usize) {
            let _any = decoded(&bytes, piece);
        }
    }
}
