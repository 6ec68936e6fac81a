//! What a record says, as far as bkp wants to know it.

use std::io::Read;

use super::body::{Body, Halt};
use super::name::Timeline;

/// Resource managers whose records are understood.
const RMGR_XLOG: u8 = 0;
const RMGR_XACT: u8 = 1;

/// Headers of the parts of a record: what they begin with.
const ORIGIN: u8 = 253;
const TOP_XID: u8 = 252;
const LONG_MAIN_DATA: u8 = 254;
const SHORT_MAIN_DATA: u8 = 255;
/// The highest number of a block.
const BLOCK_MAX: u8 = 32;

/// Microseconds from 1970 to 2000, from where PostgreSQL counts.
const EPOCH_MICROSECONDS: i64 = 946_684_800_000_000;

/// The end of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransactionEnd {
    /// The number of the transaction; 0 if it had none. Of its parts, none is known.
    pub xid: u32,
    /// When, nanoseconds since 1970. Of a time before that, 0; of one after 2554, the last number.
    pub time: u64,
}

/// A point to which the server writes everything out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checkpoint {
    /// The position that a recovery from it begins at.
    pub redo: u64,
    /// When it began, nanoseconds since 1970.
    pub time: u64,
    /// The timeline that goes on from it.
    pub timeline: Timeline,
    /// The timeline before that: the same one, unless this is the first of a new one.
    pub previous: Timeline,
    /// Whether the server was being stopped, or ended a recovery.
    pub is_shutdown: bool,
}

/// What a record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A transaction was committed, at once or after it was prepared.
    Commit(TransactionEnd),
    /// A transaction was rolled back.
    Abort(TransactionEnd),
    /// Somebody gave this position a name.
    RestorePoint {
        /// The name; signs that are no UTF-8 are replaced.
        name: String,
        /// When, nanoseconds since 1970.
        time: u64,
    },
    /// A checkpoint.
    Checkpoint(Checkpoint),
    /// A server was promoted.
    EndOfRecovery {
        /// The timeline that begins.
        timeline: Timeline,
        /// The one that was left.
        previous: Timeline,
        /// When, nanoseconds since 1970.
        time: u64,
    },
    /// The segment ends here; the rest of it is not used.
    Switch,
    /// Anything else.
    Other,
}

/// Reads the body of a record. What it says may not be believed before its checksum is found right.
pub(super) fn event<R: Read>(
    body: &mut Body<'_, '_, R>,
    rmgr: u8,
    info: u8,
    xid: u32,
    major: u8,
) -> Result<Event, Halt> {
    match (rmgr, info & 0xf0) {
        (RMGR_XLOG, 0x40) => Ok(Event::Switch),
        (RMGR_XLOG, 0x00 | 0x10 | 0x70 | 0x90) => {
            main_data(body)?;
            log_event(body, info)
        }
        (RMGR_XACT, _) => {
            main_data(body)?;
            transaction_event(body, info, xid, major)
        }
        _ => Ok(Event::Other),
    }
}

/// Reads up to the part that each kind of record has of its own.
fn main_data<R: Read>(body: &mut Body<'_, '_, R>) -> Result<(), Halt> {
    let mut blocks = 0_u64;
    // What comes before that part: the headers of all parts, then the data of the blocks. Its header is
    // the last one.
    let length = loop {
        match byte(body)? {
            SHORT_MAIN_DATA => break u32::from(byte(body)?),
            LONG_MAIN_DATA => break number(body)?,
            ORIGIN => body.skip(2)?,
            TOP_XID => body.skip(4)?,
            0..=BLOCK_MAX => blocks += block_header(body)?,
            _ => return Err(Halt::Short),
        }
    };
    body.skip(blocks)?;
    if body.left() == length { Ok(()) } else { Err(Halt::Short) }
}

/// Reads the header of a block: how many bytes of data it has.
fn block_header<R: Read>(body: &mut Body<'_, '_, R>) -> Result<u64, Halt> {
    const HAS_IMAGE: u8 = 0x10;
    const SAME_RELATION: u8 = 0x80;
    const HAS_HOLE: u8 = 0x01;
    const COMPRESSED: u8 = 0x04 | 0x08 | 0x10;
    let flags = byte(body)?;
    let mut bytes = u64::from(u16::from_le_bytes(body.bytes()?));
    if flags & HAS_IMAGE != 0 {
        bytes += u64::from(u16::from_le_bytes(body.bytes()?));
        body.skip(2)?;
        let image = byte(body)?;
        if image & HAS_HOLE != 0 && image & COMPRESSED != 0 {
            body.skip(2)?;
        }
    }
    body.skip(if flags & SAME_RELATION == 0 { 12 + 4 } else { 4 })?;
    Ok(bytes)
}

fn log_event<R: Read>(body: &mut Body<'_, '_, R>, info: u8) -> Result<Event, Halt> {
    let first: [u8; 8] = body.bytes()?;
    match info & 0xf0 {
        0x70 => {
            let mut name = [0; 64];
            body.fill(&mut name)?;
            let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
            let name = String::from_utf8_lossy(name).into_owned();
            Ok(Event::RestorePoint { name, time: nanoseconds(i64::from_le_bytes(first)) })
        }
        0x90 => {
            let (timeline, previous) = (timeline(body)?, timeline(body)?);
            let time = nanoseconds(i64::from_le_bytes(first));
            Ok(Event::EndOfRecovery { timeline, previous, time })
        }
        kind => {
            let (timeline, previous) = (timeline(body)?, timeline(body)?);
            // Numbers of the next transaction, object and so on.
            body.skip(48)?;
            let seconds = i64::from_le_bytes(body.bytes()?);
            let time = u64::try_from(seconds).unwrap_or(0).saturating_mul(1_000_000_000);
            let redo = u64::from_le_bytes(first);
            let is_shutdown = kind == 0;
            Ok(Event::Checkpoint(Checkpoint { redo, time, timeline, previous, is_shutdown }))
        }
    }
}

fn transaction_event<R: Read>(
    body: &mut Body<'_, '_, R>,
    info: u8,
    xid: u32,
    major: u8,
) -> Result<Event, Halt> {
    const HAS_PARTS: u8 = 0x80;
    let kind = info & 0x70;
    if ![0x00, 0x20, 0x30, 0x40].contains(&kind) {
        return Ok(Event::Other);
    }
    let time = nanoseconds(i64::from_le_bytes(body.bytes()?));
    // Whoever ends a prepared one has another number than it had, or none.
    let parts = if info & HAS_PARTS == 0 { 0 } else { number(body)? };
    let is_prepared = kind >= 0x30;
    let xid = if is_prepared { prepared_xid(body, parts, major)? } else { xid };
    let end = TransactionEnd { xid, time };
    Ok(if kind == 0x00 || kind == 0x30 { Event::Commit(end) } else { Event::Abort(end) })
}

/// Reads up to the number that a prepared transaction had.
fn prepared_xid<R: Read>(body: &mut Body<'_, '_, R>, parts: u32, major: u8) -> Result<u32, Halt> {
    const DATABASE: u32 = 1;
    const PREPARED: u32 = 1 << 4;
    // Lists, each with the size of an element: of subtransactions, of files to be removed, of statistics to be
    // removed, of messages to other servers' caches.
    let lists =
        [(1 << 1, 4), (1 << 2, 12), (1 << 8, if major < 18 { 12 } else { 16 }), (1 << 3, 16)];
    if parts & PREPARED == 0 {
        return Err(Halt::Short);
    }
    if parts & DATABASE != 0 {
        body.skip(8)?;
    }
    for (list, size) in lists {
        if parts & list != 0 {
            let count = number(body)?;
            body.skip(u64::from(count) * size)?;
        }
    }
    number(body)
}

fn byte<R: Read>(body: &mut Body<'_, '_, R>) -> Result<u8, Halt> {
    body.bytes().map(u8::from_le_bytes)
}

fn number<R: Read>(body: &mut Body<'_, '_, R>) -> Result<u32, Halt> {
    body.bytes().map(u32::from_le_bytes)
}

fn timeline<R: Read>(body: &mut Body<'_, '_, R>) -> Result<Timeline, Halt> {
    Timeline::new(number(body)?).ok_or(Halt::Short)
}

/// Nanoseconds since 1970, of microseconds since 2000.
fn nanoseconds(microseconds: i64) -> u64 {
    let since_1970 = microseconds.saturating_add(EPOCH_MICROSECONDS);
    u64::try_from(since_1970).unwrap_or(0).saturating_mul(1000)
}
