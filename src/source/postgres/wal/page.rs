//! Pages of segments, one after the other.

use std::io::{self, Read};

use super::flaw::{Flaw, Stop};
use super::name::{SegmentName, SegmentSize, Timeline};

/// The size of a page, unless PostgreSQL is built with another one.
pub(super) const PAGE_BYTES: usize = 8192;
/// Lengths of the two headers: the long one is at the beginning of each segment.
const SHORT_HEADER_BYTES: usize = 24;
const LONG_HEADER_BYTES: usize = 40;

/// Flags of a page: it begins with the rest of a record; it has the long header; what is on it may be left out of
/// an archive of compressed pages; it begins with the record that says that the one before was given up.
const GOES_ON: u16 = 1;
const LONG: u16 = 2;
const GIVEN_UP: u16 = 8;
const ALL_FLAGS: u16 = 15;

/// What a long header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// The major version of the server: 15 to 18.
    pub major: u8,
    /// The system identifier of the cluster.
    pub system: u64,
    /// The size of its segments.
    pub segment_size: SegmentSize,
}

/// What the header of a page says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Header {
    magic: u16,
    flags: u16,
    timeline: u32,
    address: u64,
    /// Bytes of a record that began before and are still to come.
    pub(super) rest: u32,
}

impl Header {
    /// Whether it goes on with a record that began before.
    pub(super) fn goes_on(self) -> bool {
        self.flags & GOES_ON != 0
    }

    /// Whether the record that began before was given up.
    pub(super) fn gives_up(self) -> bool {
        self.flags & GIVEN_UP != 0
    }

    /// Its length.
    pub(super) fn bytes(self) -> usize {
        if self.flags & LONG == 0 { SHORT_HEADER_BYTES } else { LONG_HEADER_BYTES }
    }
}

/// Takes some bytes off the front.
fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*first)
}

/// Reads a header, and the three numbers that a long one has in addition.
fn header(mut page: &[u8]) -> Option<(Header, (u64, u32, u32))> {
    let page = &mut page;
    let header = Header {
        magic: u16::from_le_bytes(take(page)?),
        flags: u16::from_le_bytes(take(page)?),
        timeline: u32::from_le_bytes(take(page)?),
        address: u64::from_le_bytes(take(page)?),
        rest: u32::from_le_bytes(take(page)?),
    };
    let _padding: [u8; 4] = take(page)?;
    let system = u64::from_le_bytes(take(page)?);
    let sizes = (u32::from_le_bytes(take(page)?), u32::from_le_bytes(take(page)?));
    Some((header, (system, sizes.0, sizes.1)))
}

/// The major version whose pages begin with this.
fn major(magic: u16) -> Option<u8> {
    match magic {
        0xd110 => Some(15),
        0xd113 => Some(16),
        0xd116 => Some(17),
        0xd118 => Some(18),
        _ => None,
    }
}

/// The pages of some segments.
pub(super) struct Pages<'n, R> {
    input: R,
    names: &'n [SegmentName],
    page: Box<[u8]>,
    /// Bytes that were read.
    read: u64,
    /// What the first page says.
    origin: Option<Origin>,
    /// Of the last page that was as it should be.
    timeline: Option<Timeline>,
}

impl<'n, R: Read> Pages<'n, R> {
    pub(super) fn new(names: &'n [SegmentName], input: R) -> Pages<'n, R> {
        let page = vec![0; PAGE_BYTES].into_boxed_slice();
        Pages { input, names, page, read: 0, origin: None, timeline: None }
    }

    /// What the first page says, once it was read.
    pub(super) fn origin(&self) -> Option<Origin> {
        self.origin
    }

    /// The timeline of the last page.
    pub(super) fn timeline(&self) -> Option<Timeline> {
        self.timeline
    }

    /// The last page that was read.
    pub(super) fn page(&self) -> &[u8] {
        &self.page
    }

    /// Where the last page begins, bytes from the beginning of the first segment.
    pub(super) fn offset(&self) -> u64 {
        self.read.saturating_sub(PAGE_BYTES as u64)
    }

    /// The position of the first page's first byte.
    pub(super) fn start(&self) -> u64 {
        let size = self.origin.map(|origin| origin.segment_size);
        let start = self.names.first().zip(size).and_then(|(name, size)| name.start(size));
        start.unwrap_or(0)
    }

    /// Reads the next page: none after the last one of the last segment.
    pub(super) fn next(&mut self) -> Result<Option<Header>, Stop> {
        let at = self.read;
        if !self.fill()? {
            return Ok(None);
        }
        match self.check(at) {
            Ok((header, origin, timeline)) => {
                self.origin.get_or_insert(origin);
                self.timeline = Some(timeline);
                Ok(Some(header))
            }
            Err(flaw) => Err(Stop::Flaw(at, flaw)),
        }
    }

    /// Reads the pages that are left of the current segment.
    pub(super) fn skip_segment(&mut self) -> Result<(), Stop> {
        let Some(origin) = self.origin else { return Ok(()) };
        while !self.read.is_multiple_of(origin.segment_size.bytes()) {
            self.fill()?;
        }
        Ok(())
    }

    /// Reads what is left, whether it is there or not: whether a page of it is as it should be.
    pub(super) fn is_followed(&mut self) -> Result<bool, Stop> {
        loop {
            let at = self.read;
            match self.fill() {
                Ok(true) if self.check(at).is_ok() => return Ok(true),
                Ok(true) => {}
                Ok(false) | Err(Stop::Flaw(..)) => return Ok(false),
                Err(stop @ Stop::Unreadable(..)) => return Err(stop),
            }
        }
    }

    /// Reads a page, whatever it has: false after the last one of the last segment.
    fn fill(&mut self) -> Result<bool, Stop> {
        let at = self.read;
        let segments = self.names.len() as u64;
        let end = self.origin.map(|origin| origin.segment_size.bytes().saturating_mul(segments));
        if end.is_some_and(|end| at >= end) {
            return match self.read_some(0, 1)? {
                0 => Ok(false),
                _ => Err(Stop::Flaw(at, Flaw::TooLong)),
            };
        }
        if self.read_some(0, PAGE_BYTES)? < PAGE_BYTES {
            return Err(Stop::Flaw(at, Flaw::CutOff));
        }
        self.read += PAGE_BYTES as u64;
        Ok(true)
    }

    /// Reads into a part of the page, until it is full or nothing comes any more.
    fn read_some(&mut self, mut from: usize, to: usize) -> Result<usize, Stop> {
        while let Some(room) = self.page.get_mut(from..to).filter(|room| !room.is_empty()) {
            match self.input.read(room) {
                Ok(0) => break,
                Ok(count) => from += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Stop::Unreadable(self.read, error)),
            }
        }
        Ok(from)
    }

    /// Whether the page that was read is the one that belongs `at` this offset.
    fn check(&self, at: u64) -> Result<(Header, Origin, Timeline), Flaw> {
        let (header, (system, segment_bytes, page_bytes)) =
            header(&self.page).ok_or(Flaw::CutOff)?;
        let major = major(header.magic).ok_or(Flaw::Magic(header.magic))?;
        let flags = header.flags;
        let is_first = self.origin.is_none_or(|one| at.is_multiple_of(one.segment_size.bytes()));
        if flags & !ALL_FLAGS != 0
            || (flags & LONG != 0) != is_first
            || (header.goes_on() && header.gives_up())
            || header.goes_on() != (header.rest != 0)
        {
            return Err(Flaw::PageFlags(flags));
        }
        let said = SegmentSize::new(segment_bytes.into()).ok_or(Flaw::SegmentSize(segment_bytes));
        let origin = match self.origin {
            Some(origin) if !is_first => origin,
            _ if page_bytes as usize != PAGE_BYTES => return Err(Flaw::PageSize(page_bytes)),
            _ => Origin { major, system, segment_size: said? },
        };
        if let Some(expected) = self.origin {
            if origin.segment_size != expected.segment_size {
                return Err(Flaw::SegmentSize(segment_bytes));
            }
            if origin.system != expected.system {
                return Err(Flaw::System(system));
            }
            if major != expected.major {
                return Err(Flaw::Magic(header.magic));
            }
        }
        let size = origin.segment_size;
        let name = usize::try_from(at / size.bytes()).ok().and_then(|nth| self.names.get(nth));
        let name = name.ok_or(Flaw::TooLong)?;
        let start = name.start(size).ok_or(Flaw::Name)?;
        if start.saturating_add(at % size.bytes()) != header.address {
            return Err(Flaw::Address(header.address));
        }
        // What a new timeline took over still is of the older one; it never goes back.
        let timeline = Timeline::new(header.timeline)
            .filter(|timeline| *timeline <= name.timeline && Some(*timeline) >= self.timeline);
        let timeline = timeline.ok_or(Flaw::PageTimeline(header.timeline))?;
        Ok((header, origin, timeline))
    }
}
