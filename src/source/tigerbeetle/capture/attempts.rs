//! Capturing a data file while a replica writes it.
//!
//! One attempt: read the superblock, read the log at once, walk the live blocks. Everything kept is
//! proven by a hash chain or by the checksum in its reference, so a finished attempt is exactly the
//! state after the log's head, whatever was written meanwhile; no second look is needed. An attempt
//! that meets a recycled block ends, and the next one reuses what was pushed.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use time::OffsetDateTime;

use super::wal::{CapturedLog, WalReader};
use super::walk::Walk;
use crate::archive::EntrySink;
use crate::blockfile::map::{BlockMap, Checksum};
use crate::ctx::Ctx;
use crate::source::device::{Buffer, Device};
use crate::source::tigerbeetle::attempt_error::{AttemptError, Cause, behind};
use crate::source::tigerbeetle::data_file::prepare::{PrepareHeader, reply_bytes};
use crate::source::tigerbeetle::data_file::quorum::{
    SUPERBLOCK_QUORUM, SUPERBLOCK_QUORUM_OPEN, damaged, read_superblock,
};
use crate::source::tigerbeetle::data_file::rings::{HeaderRing, restored_header_ring};
use crate::source::tigerbeetle::data_file::superblock::Superblock;
use crate::source::tigerbeetle::data_file::zones::{
    GRID_AT, MESSAGE_BYTES, REPLIES_AT, REPLY_SLOTS, SECTOR_BYTES,
};
use crate::source::tigerbeetle::layout::{
    Counter, HEADERS_MEMBER, Hex, LAYOUT_MEMBER, Layout, LayoutFile as _, SCHEMA,
    SUPERBLOCK_MEMBER, Zones, reply_member,
};
use crate::source::{Held, SourceError};

/// Attempts in a row that find the same torn part at the same superblock before the part counts as
/// at rest.
const REPEATS_MAX: u32 = 3;

/// How long an attempt waits that follows one without progress.
const IDLE_PAUSE: Duration = Duration::from_millis(100);

/// What a finished capture knows.
#[derive(Debug)]
pub(crate) struct FinishedCapture {
    pub(crate) layout: Layout,
    pub(crate) record: Value,
}

/// Everything that stays the same over the attempts of one capture.
pub(crate) struct CaptureRun<'a> {
    pub(crate) device: &'a Device,
    pub(crate) out: &'a mut dyn EntrySink,
    pub(crate) parent: Option<&'a Held>,
    pub(crate) attempts_max: u32,
    /// Nobody writes the file.
    pub(crate) still: bool,
    /// The log must reach at least to this timestamp (nanoseconds).
    pub(crate) barrier: u64,
    pub(crate) ctx: &'a Ctx,
}

/// What a finished attempt found.
struct FinishedAttempt {
    superblock: Superblock,
    log: CapturedLog,
    live: BlockMap,
}

/// What has been pushed so far: ops of the log and blocks.
type Pushed = (BTreeMap<u64, Checksum>, BlockMap);

/// How often in a row an attempt ended in the same way at the same superblock.
#[derive(Debug, Default)]
struct Repeats {
    last: Option<(Option<Checksum>, String)>,
    count: u32,
}

impl Repeats {
    /// Counts one more.
    fn count(&mut self, at: Option<Checksum>, why: &str) -> u32 {
        let now = Some((at, why.to_owned()));
        self.count = if self.last == now { self.count + 1 } else { 1 };
        self.last = now;
        self.count
    }

    /// Whether the superblock is another one than the last time.
    fn superblock_changed(&self, at: Option<Checksum>) -> bool {
        let last = self.last.as_ref().and_then(|(last, _)| *last);
        last.is_some() && at.is_some() && last != at
    }
}

/// Waits until the log of the replica at `path` reaches `barrier`, as far as its headers tell, or
/// `patience` is over: then the capture says what is missing.
pub(crate) fn await_log(
    path: &Path,
    barrier: u64,
    patience: Duration,
    ctx: &Ctx,
) -> anyhow::Result<()> {
    let device = Device::open(path)?;
    let mut buffer = Buffer::new(MESSAGE_BYTES);
    let began = Instant::now();
    while barrier > 0 && began.elapsed() < patience {
        if let Ok(superblock) = read_superblock(&device, SUPERBLOCK_QUORUM)
            && HeaderRing::read(&device, &mut buffer, &superblock)?.reached(&superblock) >= barrier
        {
            break;
        }
        ctx.pause(IDLE_PAUSE)?;
    }
    Ok(())
}

impl CaptureRun<'_> {
    /// Captures the file; `check_identity` sees each superblock before anything is pushed.
    pub(crate) fn run(
        mut self,
        check_identity: &dyn Fn(&Superblock) -> Result<(), SourceError>,
    ) -> anyhow::Result<FinishedCapture> {
        let mut sent = Pushed::default();
        let mut repeats = Repeats::default();
        let mut last = (Cause::Moved, String::new());
        let mut several = false;
        // Nobody seems to write, although the mode does not promise it.
        let mut resting = false;
        for attempt in 1..=self.attempts_max {
            self.ctx.cancel.check()?;
            let sent_before = (sent.0.len(), sent.1.len());
            let (at, outcome) = match self.superblock(resting, check_identity) {
                Err(error) => (None, Err(error)),
                Ok(superblock) => {
                    several = superblock.replica_count() > 1;
                    (Some(superblock.checksum()), self.attempt(superblock, &mut sent))
                }
            };
            let (cause, why) = match outcome {
                Ok(found) => return self.finish(found, attempt, sent.1.len()),
                Err(AttemptError::Fatal(error)) => return Err(error),
                Err(AttemptError::Again(cause, why)) => (cause, why),
            };
            self.ctx.monitor.detail(&format!("attempt {attempt}: {why}"));
            resting &= !repeats.superblock_changed(at);
            // What stays torn while the superblock stays the same is not being written.
            if repeats.count(at, &why) >= REPEATS_MAX && cause == Cause::Torn {
                if self.still || resting {
                    return Err(damaged(self.device, &why, several).into());
                }
                // From here on the superblock is judged as TigerBeetle does when it opens a file.
                (resting, repeats) = (true, Repeats::default());
            }
            last = (cause, why);
            // Without progress the file has to move on before it is worth looking again.
            if sent_before == (sent.0.len(), sent.1.len()) {
                self.ctx.pause(IDLE_PAUSE)?;
            }
        }
        Err(self.given_up(last, several).into())
    }

    /// Why no attempt succeeded.
    fn given_up(&self, (cause, why): (Cause, String), several: bool) -> SourceError {
        let what = self.device.path().display().to_string();
        match cause {
            Cause::Behind => SourceError::Engine {
                what,
                reason: why,
                hint:
                    "let the replica catch up with its cluster, or run bkp beside another replica"
                        .into(),
            },
            Cause::Torn if self.still => damaged(self.device, &why, several),
            Cause::Moved if self.still => SourceError::Engine {
                what,
                reason: why,
                hint: "start the server and let it recover its file, then capture online".into(),
            },
            Cause::Moved | Cause::Torn => {
                SourceError::TooFast { what, attempts: self.attempts_max, last: why }
            }
        }
    }

    fn superblock(
        &self,
        resting: bool,
        check_identity: &dyn Fn(&Superblock) -> Result<(), SourceError>,
    ) -> Result<Superblock, AttemptError> {
        let still = self.still || resting;
        let quorum = if still { SUPERBLOCK_QUORUM_OPEN } else { SUPERBLOCK_QUORUM };
        let superblock = read_superblock(self.device, quorum)?;
        if superblock.sync_op_max() != 0 {
            return Err(behind("the replica is catching up with its cluster (state sync)"));
        }
        check_identity(&superblock)?;
        Ok(superblock)
    }

    fn attempt(
        &mut self,
        superblock: Superblock,
        sent: &mut Pushed,
    ) -> Result<FinishedAttempt, AttemptError> {
        let mut buffer = Buffer::new(MESSAGE_BYTES);
        let (device, parent, ctx) = (self.device, self.parent, self.ctx);
        let mut wal = WalReader {
            device,
            out: &mut *self.out,
            parent,
            sent: &mut sent.0,
            buffer: &mut buffer,
        };
        let log = wal.capture(&superblock)?;
        let head = log.head(&superblock);
        if head.timestamp() < self.barrier {
            let lag = Duration::from_nanos(self.barrier - head.timestamp());
            let why = format!(
                "the replica lags: its log ends at op {}, {:.3} s before the newest transfer of its cluster",
                head.op(),
                lag.as_secs_f64()
            );
            return Err(behind(why));
        }
        let mut walk = Walk::new(device, &mut *self.out, parent, &mut sent.1, ctx, &superblock);
        let live = walk.run(&superblock)?;
        Ok(FinishedAttempt { superblock, log, live })
    }

    /// Pushes what can wait until the walk is done, `layout.json` last.
    fn finish(
        mut self,
        found: FinishedAttempt,
        attempts: u32,
        pushed: usize,
    ) -> anyhow::Result<FinishedCapture> {
        let FinishedAttempt { superblock, log, live } = found;
        let replies = self.replies()?;
        let ring = restored_header_ring(superblock.cluster(), &log.ops);
        let ring: Vec<u8> = ring.iter().flat_map(PrepareHeader::bytes).copied().collect();
        self.out.entry(HEADERS_MEMBER, &ring)?;
        self.out.entry(SUPERBLOCK_MEMBER, superblock.bytes())?;
        let record = record(&superblock, &log, &live, attempts, pushed);
        let layout = Layout {
            schema: SCHEMA.into(),
            cluster: superblock.cluster().to_string(),
            file_bytes: superblock.storage_bytes().max(GRID_AT),
            zones: Zones::KNOWN,
            superblock: Hex(superblock.checksum()),
            wal: log.ops.iter().map(|(op, header)| (*op, Hex(header.checksum()))).collect(),
            replies,
            grid: live,
        };
        // What a restore would refuse must not become a backup.
        layout.check().map_err(|problem| {
            let what = self.device.path().display().to_string();
            SourceError::Unsupported { what, reason: format!("its block map: {problem}") }
        })?;
        let mut size = Counter::default();
        layout.write(&mut size)?;
        self.out.stream(LAYOUT_MEMBER, size.0, &mut |out| layout.write(out))?;
        Ok(FinishedCapture { layout, record })
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

/// The manifest's `capture`.
fn record(
    superblock: &Superblock,
    log: &CapturedLog,
    live: &BlockMap,
    attempts: u32,
    pushed: usize,
) -> Value {
    let head = log.head(superblock);
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
