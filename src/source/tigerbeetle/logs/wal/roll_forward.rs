//! From a snapshot and operations of the log to a data file at exactly one operation.
//!
//! What a data file holds beyond its checkpoint is only its log. So operations are written into the
//! log of a restored file, and a server is needed only where they are more than a log may hold: it
//! is started on the file alone until it has made the next checkpoint, and killed. Whatever it added by
//! itself, for instance expiries by today's clock, is in its log and not in that checkpoint, and is
//! written over. The last operations are never run here: the file is as it would be after a crash of
//! the original cluster at that operation, and whoever starts it next runs them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::ctx::Ctx;
use crate::error::{Fault, Kind};
use crate::fs::scratch_dir::ScratchDir;
use crate::source::Restored;
use crate::source::device::{Buffer, Device};
use crate::source::logs::{RestoreAtRequest, RestoredAt};
use crate::source::tigerbeetle::data_file::checkpoints::{DURABLE_OPS, prepare_max};
use crate::source::tigerbeetle::data_file::prepare::PrepareHeader;
use crate::source::tigerbeetle::data_file::quorum::{
    SUPERBLOCK_QUORUM, read_live_superblock, read_superblock,
};
use crate::source::tigerbeetle::data_file::rings::{
    HeaderRing, read_prepare, restored_header_ring,
};
use crate::source::tigerbeetle::data_file::superblock::{Superblock, VIEW_SUFFIX_OPS};
use crate::source::tigerbeetle::data_file::zones::{
    HEADER_BYTES, MESSAGE_BYTES, SECTOR_BYTES, SLOTS, SUPERBLOCK_COPIES, SUPERBLOCK_STRIDE,
    WAL_HEADERS_AT, WAL_PREPARES_AT,
};
use crate::source::tigerbeetle::logs::segment::{broken, each_op};
use crate::source::tigerbeetle::restore::assemble::write_file;
use crate::source::tigerbeetle::restore::guard;
use crate::source::tigerbeetle::server::{CLEAN_UP, ENDED, PORT_TRIES, Server};
use crate::source::watchdog::Watchdog;

/// What a failing server was started for.
const WORK: &str = "restore to a moment";
/// How long a server may take for one checkpoint.
const CHECKPOINT_DEADLINE: Duration = Duration::from_mins(10);
/// The pause between two looks at its progress.
const LOOK_PAUSE: Duration = Duration::from_millis(50);

/// Brings a cluster back to one operation.
pub(crate) fn restore_at(request: &RestoreAtRequest<'_>, ctx: &Ctx) -> anyhow::Result<RestoredAt> {
    let target = &request.restore.target;
    // A server makes files of its own beside its data file.
    let scratch = ScratchDir::beside(target)?;
    let watchdog = Watchdog::begin("", CLEAN_UP, &[scratch.folder().as_os_str()])?;
    let path = scratch.path("restored.tigerbeetle");
    let mut options = File::options();
    let made = options.read(true).write(true).create_new(true).mode(0o600).open(&path);
    let file = made.map_err(|error| {
        Fault::new(Kind::Failed, format!("cannot create {}: {error}", path.display()))
            .hint("create the folder, or make it writable for this user")
    })?;
    let finished = write_file(request.base, &file, target, ctx, &|superblock| superblock)?;
    let count = finished.superblock.replica_count();
    let program = request.tools.tigerbeetle.as_deref().unwrap_or(Path::new("tigerbeetle"));
    let mut roll = RollForward::begin(&path, &file, finished.superblock, ctx)?;
    for segment in request.segments {
        ctx.cancel.check()?;
        each_op(segment, ctx, &mut |header, bytes| {
            if request.target.is_before(header.op(), header.timestamp()) {
                return Ok(());
            }
            if !roll.has_room(header) {
                roll.next_checkpoint(program, &watchdog, ctx)?;
            }
            let taken = roll.append(header, bytes);
            taken.map_err(|error| error.context(broken(segment, "it does not match its snapshot")))
        })?;
    }
    let replica = request.restore.replica.unwrap_or(0);
    let (replica, count) = if request.alone { (0, 1) } else { (replica, count) };
    let (head, superblock) = roll.finish(replica, count, request.alone)?;
    let bytes = file.metadata()?.len();
    let (bytes_written, server_starts) = (finished.bytes_written + roll.bytes_written, roll.starts);
    // From here to the end no server can start on what is moved aside.
    let _lock = if request.restore.force { guard::lock_data_file(target)? } else { None };
    let moved_aside = scratch.publish(&path, target, &[], request.restore.force)?;
    drop(watchdog);
    let id = request.base.last().map(|newest| newest.manifest().id);
    Ok(RestoredAt {
        restored: Restored {
            target: target.clone(),
            bytes,
            bytes_written,
            moved_aside,
            next: id.map_or_else(String::new, |id| guard::next_steps(&superblock, request.restore, id)),
            lost: Vec::new(),
        },
        position: Some(head.op()),
        timestamp: head.timestamp(),
        server_starts,
        differences: Vec::new(),
        notes: vec![
            "pending transfers whose timeout has run out by today's clock expire as soon as a server starts".into(),
        ],
    })
}

/// A data file that is rolled forward.
struct RollForward<'f> {
    path: PathBuf,
    file: &'f File,
    superblock: Superblock,
    /// The log: what lies beyond the checkpoint, and what the file may need of the time before it.
    log: BTreeMap<u64, PrepareHeader>,
    /// The log is not the one that the file was restored with.
    changed: bool,
    starts: u32,
    bytes_written: u64,
}

impl<'f> RollForward<'f> {
    /// Begins with a file that is whole.
    fn begin(
        path: &Path,
        file: &'f File,
        superblock: Superblock,
        ctx: &Ctx,
    ) -> anyhow::Result<Self> {
        ctx.cancel.check()?;
        let device = Device::open(path)?;
        let ring = HeaderRing::read(&device, &mut Buffer::new(MESSAGE_BYTES), &superblock)?;
        let log = ring.0.into_iter().map(|header| (header.op(), header)).collect();
        let path = path.to_owned();
        Ok(RollForward { path, file, superblock, log, changed: false, starts: 0, bytes_written: 0 })
    }

    fn head(&self) -> PrepareHeader {
        let newest = self.log.last_key_value().map(|(_, header)| *header);
        newest
            .filter(|newest| newest.op() > self.checkpoint())
            .unwrap_or(self.superblock.checkpoint())
    }

    fn checkpoint(&self) -> u64 {
        self.superblock.checkpoint().op()
    }

    /// Whether the log may hold this operation, as long as the checkpoint is the newest one.
    fn has_room(&self, header: &PrepareHeader) -> bool {
        header.op() <= prepare_max(self.checkpoint())
    }

    /// Takes one operation into the log. What the file has already is compared; an end of the log that
    /// the cluster took back after the snapshot gives way.
    fn append(&mut self, header: &PrepareHeader, bytes: &[u8]) -> anyhow::Result<()> {
        let op = header.op();
        if op <= self.checkpoint() {
            return Ok(());
        }
        match self.log.get(&op) {
            Some(known) if known == header => return Ok(()),
            Some(_) => drop(self.log.split_off(&op)),
            None => {}
        }
        let head = self.log.get(&(op - 1)).copied().unwrap_or(self.superblock.checkpoint());
        if head.op() + 1 != op || head.checksum() != header.parent() {
            let message = format!("op {op} does not follow op {}", head.op());
            return Err(Fault::new(Kind::Integrity, message).into());
        }
        let slot = op % SLOTS;
        let mut padded = bytes.to_vec();
        padded.resize(bytes.len().next_multiple_of(SECTOR_BYTES), 0);
        self.put(WAL_PREPARES_AT + slot * MESSAGE_BYTES as u64, &padded)?;
        if let Some(before) = op.checked_sub(SLOTS) {
            self.log.remove(&before);
        }
        self.log.insert(op, *header);
        self.changed = true;
        Ok(())
    }

    fn put(&mut self, offset: u64, bytes: &[u8]) -> anyhow::Result<()> {
        let written = self.file.write_all_at(bytes, offset);
        written.map_err(|error| {
            let message = format!("cannot write {}: {error}", self.path.display());
            let full = [ErrorKind::StorageFull, ErrorKind::QuotaExceeded].contains(&error.kind());
            let kind = if full { Kind::Refused } else { Kind::Failed };
            Fault::new(kind, message).hint("free space there, or choose another --to")
        })?;
        self.bytes_written += bytes.len() as u64;
        Ok(())
    }

    /// Makes the file one whose log is exactly `log`.
    fn write_log(&mut self, identity: impl Fn(Superblock) -> Superblock) -> anyhow::Result<()> {
        let (head, checkpoint) = (self.head(), self.checkpoint());
        let ends: Vec<PrepareHeader> =
            self.log.values().rev().take(VIEW_SUFFIX_OPS).copied().collect();
        // Before the checkpoint nothing is needed once it counts as durable.
        if checkpoint > 0 && head.op() > checkpoint + DURABLE_OPS {
            self.log = self.log.split_off(&(checkpoint + 1));
        }
        let ring = restored_header_ring(self.superblock.cluster(), &self.log);
        let mut bytes = Vec::with_capacity(HEADER_BYTES * ring.len());
        for (slot, header) in (0..SLOTS).zip(&ring) {
            bytes.extend_from_slice(header.bytes());
            if header.is_reserved() {
                let mut sector = [0; SECTOR_BYTES];
                if let Some(place) = sector.first_chunk_mut() {
                    *place = *header.bytes();
                }
                self.put(WAL_PREPARES_AT + slot * MESSAGE_BYTES as u64, &sector)?;
            }
        }
        self.put(WAL_HEADERS_AT, &bytes)?;
        self.file.sync_data()?;
        self.superblock = identity(self.superblock.clone().with_head(&ends));
        for copy in 0..SUPERBLOCK_COPIES {
            let bytes = self.superblock.clone().with_copy(copy);
            self.put(u64::from(copy) * SUPERBLOCK_STRIDE, bytes.bytes())?;
        }
        Ok(self.file.sync_all()?)
    }

    /// Lets a server make the next checkpoint from the log.
    fn next_checkpoint(
        &mut self,
        program: &Path,
        watchdog: &Watchdog,
        ctx: &Ctx,
    ) -> anyhow::Result<()> {
        // One replica of several does not run alone.
        self.write_log(|superblock| superblock.with_replica(0, 1))?;
        let before = self.checkpoint();
        for attempt in 1.. {
            self.starts += 1;
            let mut server = Server::start(program, &self.path, watchdog)?;
            match self.await_checkpoint(&mut server, before, ctx) {
                Ok(()) => break,
                Err(_) if server.lost_its_port() && attempt < PORT_TRIES => {}
                Err(error) => return Err(error),
            }
        }
        self.superblock = read_live_superblock(&self.path, ctx)?;
        let checkpoint = self.superblock.checkpoint();
        if self.log.get(&checkpoint.op()) != Some(&checkpoint) {
            let message =
                format!("{WORK}: the checkpoint at op {} is not of this log", checkpoint.op());
            return Err(Fault::new(Kind::Integrity, message).into());
        }
        self.log = self.log.split_off(&(checkpoint.op() + 1));
        ctx.monitor.detail(&format!("rolled forward to op {}", checkpoint.op()));
        Ok(())
    }

    fn await_checkpoint(&self, server: &mut Server, before: u64, ctx: &Ctx) -> anyhow::Result<()> {
        let device = Device::open(&self.path)?;
        let began = Instant::now();
        loop {
            if let Ok(superblock) = read_superblock(&device, SUPERBLOCK_QUORUM)
                && superblock.checkpoint().op() > before
            {
                return Ok(());
            }
            if server.child.try_wait()?.is_some() {
                return Err(server.failed(WORK, ENDED));
            }
            if began.elapsed() > CHECKPOINT_DEADLINE {
                return Err(server.failed(WORK, "no checkpoint in time"));
            }
            ctx.pause(LOOK_PAUSE)?;
        }
    }

    /// Puts the last operations in place, for the replica that the file is to be. Returns the last one
    /// and the superblock.
    fn finish(
        &mut self,
        replica: u8,
        count: u8,
        alone: bool,
    ) -> anyhow::Result<(PrepareHeader, Superblock)> {
        if self.changed {
            self.write_log(|superblock| superblock.with_replica(replica, count))?;
        } else if count > 1 || alone {
            self.superblock = self.superblock.clone().with_replica(replica, count);
            for copy in 0..SUPERBLOCK_COPIES {
                let bytes = self.superblock.clone().with_copy(copy);
                self.put(u64::from(copy) * SUPERBLOCK_STRIDE, bytes.bytes())?;
            }
            self.file.sync_all()?;
        }
        // A server ran on this file: what it will be started from is looked at once more.
        let device = Device::open(&self.path)?;
        let mut buffer = Buffer::new(MESSAGE_BYTES);
        for header in self.log.values() {
            let slot = header.op() % SLOTS;
            let found = read_prepare(&device, &mut buffer, self.superblock.cluster(), slot)?;
            if found.as_ref() != Some(header) {
                let message = format!("{WORK}: op {} is not in its place", header.op());
                return Err(Fault::new(Kind::Integrity, message).into());
            }
        }
        Ok((self.head(), self.superblock.clone()))
    }
}
