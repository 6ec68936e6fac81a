//! Capturing a data file while a replica writes it.
//!
//! One attempt: read the superblock, read the log at once, walk the live blocks. Everything kept is
//! proven by a hash chain or by the checksum in its reference, so a finished attempt is exactly the
//! state after the log's head, whatever was written meanwhile; no second look is needed. An attempt
//! that meets a recycled block ends, and the next one reuses what was pushed.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use time::OffsetDateTime;

use super::format::{
    BLOCK_BYTES, GRID_AT, MESSAGE_BYTES, PrepareHeader, REPLIES_AT, REPLY_SLOTS, Release,
    SECTOR_BYTES, SUPERBLOCK_BYTES, SUPERBLOCK_COPIES, SUPERBLOCK_QUORUM, SUPERBLOCK_STRIDE,
    SUPERBLOCK_VERSION, Superblock, reply_bytes,
};
use super::layout::{
    Counter, HEADERS_MEMBER, Hex, LAYOUT_MEMBER, Layout, SCHEMA, SUPERBLOCK_MEMBER, Zones,
    reply_member,
};
use super::wal::{Run, WalReader, header_ring};
use super::walk::Walk;
use super::{Setback, moved};
use crate::blockfile::device::{Buffer, Device};
use crate::blockfile::map::{BlockMap, Checksum};
use crate::ctx::Ctx;
use crate::domain::limits::TIGERBEETLE_FILE_BYTES_MAX;
use crate::source::{EntrySink, Held, SourceError};

/// Reads of the superblock before an attempt gives up: the four copies are rewritten one by one,
/// which takes a few milliseconds.
const SUPERBLOCK_TRIES: u32 = 200;

/// How long an attempt waits that follows one without progress.
const IDLE_PAUSE: Duration = Duration::from_millis(100);

/// What a finished capture knows.
#[derive(Debug)]
pub(super) struct Capture {
    pub(super) layout: Layout,
    pub(super) record: Value,
}

/// Everything that stays the same over the attempts of one capture.
pub(super) struct Capturing<'a> {
    pub(super) device: &'a Device,
    pub(super) out: &'a mut dyn EntrySink,
    pub(super) parent: Option<&'a Held>,
    pub(super) attempts_max: u32,
    pub(super) ctx: &'a Ctx,
}

/// What a finished attempt found.
struct Found {
    superblock: Superblock,
    run: Run,
    live: BlockMap,
}

impl Capturing<'_> {
    /// Captures the file; `check_identity` sees each superblock before anything is pushed.
    pub(super) fn run(
        mut self,
        check_identity: &dyn Fn(&Superblock) -> Result<(), SourceError>,
    ) -> anyhow::Result<Capture> {
        let mut sent = (BTreeMap::new(), BlockMap::default());
        let mut last = String::new();
        for attempt in 1..=self.attempts_max {
            self.ctx.cancel.check()?;
            let sent_before = (sent.0.len(), sent.1.len());
            match self.attempt(&mut sent, check_identity) {
                Ok(found) => return self.finish(found, attempt, sent.1.len()),
                Err(Setback::Moved(why)) => {
                    self.ctx.monitor.detail(&format!("attempt {attempt}: {why}"));
                    last = why;
                    // Without progress the file has to move on before it is worth looking again.
                    if sent_before == (sent.0.len(), sent.1.len()) {
                        self.ctx.pause(IDLE_PAUSE)?;
                    }
                }
                Err(Setback::Fatal(error)) => return Err(error),
            }
        }
        let what = self.device.path().display().to_string();
        Err(SourceError::TooFast { what, attempts: self.attempts_max, last }.into())
    }

    fn attempt(
        &mut self,
        sent: &mut (BTreeMap<u64, Checksum>, BlockMap),
        check_identity: &dyn Fn(&Superblock) -> Result<(), SourceError>,
    ) -> Result<Found, Setback> {
        let superblock = read_superblock(self.device)?;
        check_supported(self.device, &superblock)?;
        check_identity(&superblock)?;
        let mut buffer = Buffer::new(MESSAGE_BYTES);
        let (device, parent, ctx) = (self.device, self.parent, self.ctx);
        let mut wal = WalReader {
            device,
            out: &mut *self.out,
            parent,
            sent: &mut sent.0,
            buffer: &mut buffer,
        };
        let run = wal.capture(&superblock)?;
        let mut walk = Walk { device, out: &mut *self.out, parent, sent: &mut sent.1, ctx };
        let live = walk.run(&superblock)?;
        Ok(Found { superblock, run, live })
    }

    /// Pushes what can wait until the walk is done, `layout.json` last.
    fn finish(mut self, found: Found, attempts: u32, pushed: usize) -> anyhow::Result<Capture> {
        let Found { superblock, run, live } = found;
        let replies = self.replies()?;
        let ring = header_ring(superblock.cluster(), &run.ops);
        let ring: Vec<u8> = ring.iter().flat_map(PrepareHeader::bytes).copied().collect();
        self.out.entry(HEADERS_MEMBER, &ring)?;
        self.out.entry(SUPERBLOCK_MEMBER, superblock.bytes())?;
        let record = record(&superblock, &run, &live, attempts, pushed);
        let layout = Layout {
            schema: SCHEMA.into(),
            cluster: superblock.cluster().to_string(),
            file_bytes: superblock.storage_bytes().max(GRID_AT),
            zones: Zones::KNOWN,
            superblock: Hex(superblock.checksum()),
            wal: run.ops.iter().map(|(op, header)| (*op, Hex(header.checksum()))).collect(),
            replies,
            grid: live,
        };
        let mut size = Counter::default();
        layout.write(&mut size)?;
        self.out.stream(LAYOUT_MEMBER, size.0, &mut |out| layout.write(out))?;
        Ok(Capture { layout, record })
    }

    /// Pushes the client replies that are whole. A replica does not need them to open: it only
    /// answers a client's repeated request from them.
    fn replies(&mut self) -> anyhow::Result<Vec<(u64, Hex)>> {
        let mut buffer = Buffer::new(MESSAGE_BYTES);
        let mut replies = Vec::new();
        for slot in 0..REPLY_SLOTS {
            let offset = REPLIES_AT + slot * MESSAGE_BYTES as u64;
            let first = self.device.read(&mut buffer, offset, SECTOR_BYTES)?;
            // The header is the first thing written; a slot never used holds zeros.
            if first.iter().take(16).all(|byte| *byte == 0) {
                continue;
            }
            let message = self.device.read(&mut buffer, offset, MESSAGE_BYTES)?;
            if let Some((checksum, bytes)) = reply_bytes(message) {
                let reply = message.get(..bytes).unwrap_or_default();
                let name = reply_member(slot);
                if !self.parent.is_some_and(|parent| parent.has_entry(&name, checksum)) {
                    self.out.entry(&name, reply)?;
                }
                replies.push((slot, Hex(checksum)));
            }
        }
        Ok(replies)
    }
}

/// The newest superblock that a quorum of copies agrees on.
///
/// # Errors
/// [`Setback::Moved`] while the copies are being rewritten; [`SourceError::Unsupported`] if none of
/// them is a superblock at all.
pub(super) fn read_superblock(device: &Device) -> Result<Superblock, Setback> {
    let mut buffer = Buffer::new(SUPERBLOCK_BYTES);
    let mut any = false;
    for _try in 0..SUPERBLOCK_TRIES {
        let mut copies: Vec<Superblock> = Vec::new();
        for copy in 0..SUPERBLOCK_COPIES {
            let offset = u64::from(copy) * SUPERBLOCK_STRIDE;
            let bytes = device.read(&mut buffer, offset, SUPERBLOCK_BYTES)?;
            // A copy in another copy's place is a misdirected write and does not count.
            copies.extend(Superblock::parse(bytes).filter(|found| found.copy() == copy));
        }
        any |= !copies.is_empty();
        let agree = |one: &Superblock| {
            copies.iter().filter(|other| other.checksum() == one.checksum()).count()
        };
        let newest = copies.iter().max_by_key(|superblock| superblock.sequence());
        if let Some(newest) = newest.filter(|newest| agree(newest) >= SUPERBLOCK_QUORUM) {
            return Ok(newest.clone());
        }
        if !any {
            break;
        }
        std::thread::yield_now();
    }
    if any {
        return Err(moved("the superblock copies do not agree"));
    }
    Err(Setback::Fatal(
        SourceError::Unsupported {
            what: device.path().display().to_string(),
            reason: "not a TigerBeetle data file: it has no superblock".into(),
        }
        .into(),
    ))
}

/// Refuses files whose layout is not the known one.
pub(super) fn check_supported(device: &Device, superblock: &Superblock) -> Result<(), Setback> {
    let unsupported = |reason: String| {
        let what = device.path().display().to_string();
        Err(Setback::Fatal(SourceError::Unsupported { what, reason }.into()))
    };
    let storage_bytes = superblock.storage_bytes();
    if superblock.version() != SUPERBLOCK_VERSION {
        let version = superblock.version();
        return unsupported(format!(
            "superblock version {version}; this bkp knows version {SUPERBLOCK_VERSION}"
        ));
    }
    if !superblock.release().is_known() {
        return unsupported(format!(
            "TigerBeetle release {}; this bkp knows {} and later releases of 0.16 and 0.17",
            superblock.release(),
            Release::OLDEST,
        ));
    }
    let whole =
        storage_bytes >= GRID_AT && (storage_bytes - GRID_AT).is_multiple_of(BLOCK_BYTES as u64);
    if !whole || storage_bytes > TIGERBEETLE_FILE_BYTES_MAX || superblock.replica().is_none() {
        return unsupported(
            "the superblock's numbers do not fit the layout that this bkp knows".into(),
        );
    }
    if superblock.sync_op_max() != 0 {
        return Err(moved("the replica is catching up with its cluster (state sync)"));
    }
    Ok(())
}

/// The manifest's `capture`.
fn record(
    superblock: &Superblock,
    run: &Run,
    live: &BlockMap,
    attempts: u32,
    pushed: usize,
) -> Value {
    let head = run.head(superblock);
    let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(head.timestamp()));
    let at = at.ok().and_then(|at| at.format(&time::format_description::well_known::Rfc3339).ok());
    json!({
        "consistency": "transaction-consistent",
        "position": {
            "checkpoint_op": superblock.checkpoint().op(),
            "head_op": head.op(),
            "head_timestamp": head.timestamp(),
            "head_time": at,
        },
        "cluster": superblock.cluster().to_string(),
        "replica": superblock.replica(),
        "replica_id": format!("{:032x}", superblock.replica_id()),
        "replica_count": superblock.replica_count(),
        "release": superblock.release().to_string(),
        "view": superblock.view(),
        "storage_bytes": superblock.storage_bytes(),
        "blocks": live.len(),
        "blocks_pushed": pushed,
        "attempts": attempts,
    })
}
