//! What a record consists of: bytes that may lie on several pages.

use std::io::Read;

use super::flaw::{Flaw, Stop};
use super::page::{Header, PAGE_BYTES, Pages};

/// Why no more of a record is read.
#[derive(Debug)]
pub(super) enum Halt {
    /// The pages are not as they should be, or cannot be read.
    Stop(Stop),
    /// It goes on behind the last segment.
    GoesOn,
    /// The server gave it up half-way: the page that was read last does not go on with it.
    GivenUp(Header),
    /// More was asked for than it has.
    Short,
}

impl From<Stop> for Halt {
    fn from(stop: Stop) -> Halt {
        Halt::Stop(stop)
    }
}

/// A record that is being read.
pub(super) struct Body<'p, 'n, R> {
    pages: &'p mut Pages<'n, R>,
    /// The place on the page.
    at: &'p mut usize,
    /// Bytes that are still to come.
    left: u32,
    /// The checksum of those that were read.
    checksum: u32,
}

impl<'p, 'n, R: Read> Body<'p, 'n, R> {
    /// The record that goes on `at` this place of the page with so many bytes.
    pub(super) fn new(pages: &'p mut Pages<'n, R>, at: &'p mut usize, left: u32) -> Self {
        Body { pages, at, left, checksum: 0 }
    }

    /// Bytes that are still to come.
    pub(super) fn left(&self) -> u32 {
        self.left
    }

    /// Says that so many bytes are still to come, and begins a new checksum.
    pub(super) fn begin(&mut self, left: u32) {
        self.left = left;
        self.checksum = 0;
    }

    /// The checksum since [`Body::begin`], with some more bytes.
    pub(super) fn checksum_with(&self, more: &[u8]) -> u32 {
        crc32c::crc32c_append(self.checksum, more)
    }

    /// Reads the next bytes.
    pub(super) fn bytes<const N: usize>(&mut self) -> Result<[u8; N], Halt> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    /// Reads the next bytes, as many as there is room for.
    pub(super) fn fill(&mut self, mut room: &mut [u8]) -> Result<(), Halt> {
        if u32::try_from(room.len()).map_or(true, |bytes| bytes > self.left) {
            return Err(Halt::Short);
        }
        while !room.is_empty() {
            let (to, rest) = {
                let part = self.part(room.len())?;
                let (to, rest) = room.split_at_mut_checked(part.len()).ok_or(Halt::Short)?;
                to.copy_from_slice(part);
                (to.len(), rest)
            };
            self.advance(to);
            room = rest;
        }
        Ok(())
    }

    /// Reads over the next bytes.
    pub(super) fn skip(&mut self, bytes: u64) -> Result<(), Halt> {
        let mut bytes = u32::try_from(bytes).map_err(|_too_many| Halt::Short)?;
        if bytes > self.left {
            return Err(Halt::Short);
        }
        while bytes > 0 {
            let part = self.part(bytes as usize)?.len();
            self.advance(part);
            bytes = bytes.saturating_sub(u32::try_from(part).unwrap_or(u32::MAX));
        }
        Ok(())
    }

    /// What the page still has of the next bytes: one at least.
    fn part(&mut self, most: usize) -> Result<&[u8], Halt> {
        if *self.at >= PAGE_BYTES {
            self.turn()?;
        }
        let end = self.at.saturating_add(most).min(PAGE_BYTES);
        self.pages.page().get(*self.at..end).filter(|part| !part.is_empty()).ok_or(Halt::Short)
    }

    /// Takes that many bytes of the page as read.
    fn advance(&mut self, bytes: usize) {
        let end = self.at.saturating_add(bytes).min(PAGE_BYTES);
        let part = self.pages.page().get(*self.at..end).unwrap_or_default();
        self.checksum = crc32c::crc32c_append(self.checksum, part);
        *self.at = end;
        self.left = self.left.saturating_sub(u32::try_from(bytes).unwrap_or(u32::MAX));
    }

    /// Goes to the next page.
    fn turn(&mut self) -> Result<(), Halt> {
        let header = self.pages.next()?.ok_or(Halt::GoesOn)?;
        *self.at = header.bytes();
        if header.gives_up() {
            return Err(Halt::GivenUp(header));
        }
        if header.rest != self.left {
            return Err(Stop::Flaw(self.pages.offset(), Flaw::Rest(header.rest)).into());
        }
        Ok(())
    }
}
