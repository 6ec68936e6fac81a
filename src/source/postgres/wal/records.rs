//! The records of some segments, one after the other.

use std::fmt;
use std::io::Read;

use super::body::{Body, Halt};
use super::event::{Event, event};
use super::flaw::{Flaw, Stop, WalError};
use super::name::{SegmentName, Timeline};
use super::page::{PAGE_BYTES, Pages};

pub use super::page::Origin;

/// Where a record begins: a multiple of this.
const ALIGNMENT: usize = 8;
/// The length of what each record begins with.
const HEAD_BYTES: u32 = 24;
/// The longest record: PostgreSQL writes none of more than 1020 MiB.
const RECORD_BYTES_MAX: u32 = 1020 << 20;

/// A record whose checksum is right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its position.
    pub lsn: u64,
    /// The position of the next one.
    pub end: u64,
    /// What it says.
    pub event: Event,
}

/// How the records end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// With a switch to the next segment.
    Switch,
    /// With the last byte of the segment.
    Full {
        /// Whether a record goes on in the next one.
        goes_on: bool,
    },
    /// The segment is not full: nothing was written yet behind this, or the server ended here. One that was
    /// archived under the name of a segment never is: then the rest of it is lost.
    Unfinished {
        /// Where no more records are, bytes from the beginning of what was read.
        offset: u64,
        /// What is there instead.
        flaw: Flaw,
    },
}

/// The records of one segment or of several that follow each other.
pub struct Records<'n, R> {
    pages: Pages<'n, R>,
    origin: Origin,
    /// The place on the page.
    at: usize,
    /// Bytes of a record that began before the first segment.
    began_before: u32,
    /// How much of those is still to be read over.
    skip: u32,
    /// The position of the record before.
    previous: Option<u64>,
    /// The position after the last record that is whole.
    end: u64,
    /// Whether that was a switch.
    is_switched: bool,
    ending: Option<Ending>,
}

impl<R> fmt::Debug for Records<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Records").field("origin", &self.origin).finish_non_exhaustive()
    }
}

impl<'n, R: Read> Records<'n, R> {
    /// Reads the first page of `input`, which has the contents of the files `names`, one after the other.
    ///
    /// # Errors
    /// [`WalError`] if that page is not as it should be, or cannot be read.
    pub fn open(names: &'n [SegmentName], input: R) -> Result<Self, WalError> {
        let mut pages = Pages::new(names, input);
        let header = pages.next().map_err(error)?;
        let (Some(header), Some(origin)) = (header, pages.origin()) else {
            return Err(error(Stop::Flaw(0, Flaw::CutOff)));
        };
        let end = pages.start();
        let (at, skip) = (header.bytes(), header.rest);
        Ok(Records {
            pages,
            origin,
            at,
            began_before: skip,
            skip,
            previous: None,
            end,
            is_switched: false,
            ending: None,
        })
    }

    /// Who wrote it.
    #[must_use]
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// The position of its first byte.
    #[must_use]
    pub fn start(&self) -> u64 {
        self.pages.start()
    }

    /// The bytes at its beginning that are of a record which began before it, and is not among these.
    #[must_use]
    pub fn began_before(&self) -> u32 {
        self.began_before
    }

    /// The position after the last whole record so far; that of the first byte while there is none.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.end
    }

    /// The timeline of the last page so far.
    #[must_use]
    pub fn timeline(&self) -> Option<Timeline> {
        self.pages.timeline()
    }

    /// How it ended, once [`Records::next`] has given the last one.
    #[must_use]
    pub fn ending(&self) -> Option<Ending> {
        self.ending
    }

    /// The next record: none after the last one.
    ///
    /// # Errors
    /// [`WalError`] if it cannot be read, or is damaged: a page behind the damage is as it should be. What is amiss
    /// behind all such pages is no damage, but the end: [`Ending::Unfinished`].
    #[expect(
        clippy::should_implement_trait,
        reason = "an iterator over results does not end by itself"
    )]
    pub fn next(&mut self) -> Result<Option<Record>, WalError> {
        while self.ending.is_none() {
            match self.step() {
                Ok(Some(record)) => return Ok(Some(record)),
                Ok(None) => {}
                Err(Halt::GoesOn) => self.ending = Some(Ending::Full { goes_on: true }),
                // It begins with a record, which the next step reads.
                Err(Halt::GivenUp(header)) => self.at = header.bytes(),
                Err(Halt::Stop(Stop::Flaw(offset, flaw))) => {
                    if flaw == Flaw::TooLong || self.pages.is_followed().map_err(error)? {
                        return Err(error(Stop::Flaw(offset, flaw)));
                    }
                    self.ending = Some(Ending::Unfinished { offset, flaw });
                }
                Err(Halt::Stop(stop)) => return Err(error(stop)),
                Err(Halt::Short) => {
                    return Err(error(Stop::Flaw(self.offset(), Flaw::Record)));
                }
            }
        }
        Ok(None)
    }

    /// The place, bytes from the beginning of what is read.
    fn offset(&self) -> u64 {
        self.pages.offset() + self.at as u64
    }

    /// The place in the log.
    fn position(&self) -> u64 {
        self.start().saturating_add(self.offset())
    }

    /// Reads a record, or what is to be read over before it.
    fn step(&mut self) -> Result<Option<Record>, Halt> {
        let skip = std::mem::take(&mut self.skip);
        if skip > 0 {
            Body::new(&mut self.pages, &mut self.at, skip).skip(skip.into())?;
            self.at = self.at.next_multiple_of(ALIGNMENT);
            self.end = self.position();
            return Ok(None);
        }
        if self.at >= PAGE_BYTES {
            let Some(header) = self.pages.next()? else {
                let full = Ending::Full { goes_on: false };
                self.ending = Some(if self.is_switched { Ending::Switch } else { full });
                return Ok(None);
            };
            self.at = header.bytes();
            if header.goes_on() {
                return Err(Stop::Flaw(self.pages.offset(), Flaw::Rest(header.rest)).into());
            }
        }
        self.is_switched = false;
        let record = self.record()?;
        self.previous = Some(record.lsn);
        self.end = record.end;
        Ok(Some(record))
    }

    fn record(&mut self) -> Result<Record, Halt> {
        let offset = self.offset();
        let lsn = self.position();
        let flaw = |flaw| Halt::Stop(Stop::Flaw(offset, flaw));
        let mut body = Body::new(&mut self.pages, &mut self.at, HEAD_BYTES);
        // The page has the length at least: it begins at a multiple of eight.
        let length_bytes: [u8; 4] = body.bytes()?;
        let length = u32::from_le_bytes(length_bytes);
        if !(HEAD_BYTES..=RECORD_BYTES_MAX).contains(&length) {
            return Err(flaw(Flaw::RecordLength(length)));
        }
        body.begin(length - 4);
        let xid_bytes: [u8; 4] = body.bytes()?;
        let previous_bytes: [u8; 8] = body.bytes()?;
        // The last two are not used.
        let kind_bytes @ [info, rmgr, ..]: [u8; 4] = body.bytes()?;
        let checksum = u32::from_le_bytes(body.bytes()?);
        let previous = u64::from_le_bytes(previous_bytes);
        if self.previous.map_or(previous >= lsn, |expected| previous != expected) {
            return Err(flaw(Flaw::Previous(previous)));
        }
        body.begin(length - HEAD_BYTES);
        let xid = u32::from_le_bytes(xid_bytes);
        let event = match event(&mut body, rmgr, info, xid, self.origin.major) {
            Err(Halt::Short) => None,
            event => Some(event?),
        };
        body.skip(body.left().into())?;
        // Of the head, the checksum covers all that is before itself.
        let head = [&length_bytes[..], &xid_bytes, &previous_bytes, &kind_bytes].concat();
        if body.checksum_with(&head) != checksum {
            return Err(flaw(Flaw::Checksum));
        }
        let event = event.ok_or_else(|| flaw(Flaw::Record))?;
        if event == Event::Switch {
            return self.switch(lsn);
        }
        self.at = self.at.next_multiple_of(ALIGNMENT);
        Ok(Record { lsn, end: self.position(), event })
    }

    /// Reads over what is behind a switch.
    fn switch(&mut self, lsn: u64) -> Result<Record, Halt> {
        self.pages.skip_segment()?;
        self.at = PAGE_BYTES;
        self.is_switched = true;
        let end = self.position();
        Ok(Record { lsn, end, event: Event::Switch })
    }
}

fn error(stop: Stop) -> WalError {
    match stop {
        Stop::Flaw(offset, flaw) => WalError::Damaged { offset, flaw },
        Stop::Unreadable(offset, source) => WalError::Unreadable { offset, source },
    }
}
