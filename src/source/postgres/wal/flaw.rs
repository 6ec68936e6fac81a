//! What can be wrong with a segment.

use std::io;

use crate::error::{Classify, Kind, diagnosed};

/// What is wrong at some place of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// There are fewer bytes than a segment has.
    #[error("it is cut off")]
    CutOff,
    /// There are more bytes than a segment has.
    #[error("it is longer than a segment")]
    TooLong,
    /// A page that PostgreSQL 15 to 18 did not write, on a machine that has the lowest byte first; or another version
    /// than the pages before.
    #[error(
        "its page begins with {0:#06X}: none of PostgreSQL 15 to 18 does, or the pages before do not"
    )]
    Magic(u16),
    /// The header of a page has flags that it cannot have there.
    #[error("the header of its page has the flags {0:#06X}, which it cannot have there")]
    PageFlags(u16),
    /// The page belongs elsewhere: a segment that was used before has such pages behind its end.
    #[error("its page says that it is the one at {}", super::lsn::text(*.0))]
    Address(u64),
    /// The page is of a timeline that has no part in the segment.
    #[error("its page is of timeline {0}")]
    PageTimeline(u32),
    /// Segments cannot have this size, or those of the cluster have another one.
    #[error("it says that segments have {0} bytes")]
    SegmentSize(u32),
    /// Pages of another size than PostgreSQL has unless it is built otherwise.
    #[error("it says that pages have {0} bytes; bkp reads pages of 8192")]
    PageSize(u32),
    /// Two segments of two clusters.
    #[error("it is of the cluster {0}, what is before it is not")]
    System(u64),
    /// The name is none that a segment of this size has.
    #[error("segments of its size have no such name")]
    Name,
    /// A record does not go on as it began.
    #[error("its page goes on with {0} bytes of a record that is not the one before")]
    Rest(u32),
    /// The length of a record; 0 where nothing was written yet.
    #[error("no record has {0} bytes")]
    RecordLength(u32),
    /// The record follows another one than the one before it.
    #[error("its record follows the one at {}, which is not the one before", super::lsn::text(*.0))]
    Previous(u64),
    /// The checksum of a record is wrong.
    #[error("the checksum of its record is wrong")]
    Checksum,
    /// The checksum is right, but the record is not as PostgreSQL 15 to 18 write it.
    #[error("its record is not understood")]
    Record,
}

/// Why a segment cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum WalError {
    /// It is damaged, and goes on behind the damage.
    #[error("damaged at byte {offset}: {flaw}")]
    Damaged {
        /// Where, bytes from the beginning of what was read.
        offset: u64,
        /// What is wrong there.
        flaw: Flaw,
    },
    /// It cannot be read.
    #[error("cannot be read at byte {offset}: {source}")]
    Unreadable {
        /// Where, bytes from the beginning of what was read.
        offset: u64,
        /// What the system says.
        source: io::Error,
    },
}

diagnosed!(WalError);

impl Classify for WalError {
    fn kind(&self) -> Kind {
        match self {
            WalError::Damaged { .. } => Kind::Integrity,
            WalError::Unreadable { .. } => Kind::Failed,
        }
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            WalError::Damaged { flaw: Flaw::Magic(_), .. } => {
                "use a bkp that knows this version of PostgreSQL"
            }
            WalError::Damaged { flaw: Flaw::PageSize(_), .. } => {
                "use a PostgreSQL that is built with pages of 8192 bytes"
            }
            WalError::Damaged { .. } => {
                "look whether the server or another archive has the file undamaged; a recovery does not get beyond it, so make a new base backup"
            }
            WalError::Unreadable { .. } => "check the disk",
        };
        Some(hint.to_owned())
    }
}

/// What ends the reading of pages.
#[derive(Debug)]
pub(super) enum Stop {
    /// Something is wrong, at this offset.
    Flaw(u64, Flaw),
    /// It cannot be read, at this offset.
    Unreadable(u64, io::Error),
}
