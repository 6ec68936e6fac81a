//! Following the log as the server writes it, by a physical slot: the server keeps what was not archived yet, so a
//! follower that is killed or away loses nothing.
//!
//! Received segments become files in a spool that looks like a server's folder, and are archived as those that a
//! server hands over. Only then is the server told that they are durable: it may forget them, and lets commits go
//! that wait for them where `synchronous_standby_names` names `bkp`.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::ctx::Ctx;
use crate::error::{Fault, Kind};
use crate::source::postgres::client::{Connection, Lsn, WalEvent, WalStatus};
use crate::source::postgres::configured::Server;
use crate::source::postgres::wal::name::{SegmentName, SegmentSize, Timeline, WalFileName};

/// How long one wait for the server is.
const RECV: Duration = Duration::from_millis(200);

/// Archives a file of the spool.
pub(super) type ArchiveFile<'a> = dyn FnMut(&Path) -> anyhow::Result<()> + 'a;

/// A follower between two looks.
pub(super) struct Follower {
    connection: Connection,
    slot: String,
    receiver: Receiver,
    /// Whether the history of the timeline has been archived, or it is the first one, which has none.
    has_history: bool,
}

/// Makes segments of what a server sends, one after the other.
struct Receiver {
    /// The folder of received segments.
    spool: PathBuf,
    size: SegmentSize,
    timeline: Timeline,
    /// What comes next.
    at: u64,
    /// The segment that this belongs to, if some of it has been received.
    segment: Option<File>,
    /// Up to where everything is archived.
    archived: u64,
    /// Since when something has been received that is not archived.
    waiting_since: Option<Instant>,
}

impl Receiver {
    /// Begins with the segment that holds a position.
    fn new(spool: PathBuf, size: SegmentSize, timeline: Timeline, position: u64) -> Receiver {
        let at = position - position % size.bytes();
        Receiver { spool, size, timeline, at, segment: None, archived: at, waiting_since: None }
    }

    /// Takes what comes next, and archives every segment that becomes full.
    fn take(
        &mut self,
        Lsn(start): Lsn,
        mut bytes: &[u8],
        archive: &mut ArchiveFile<'_>,
    ) -> anyhow::Result<()> {
        if start != self.at {
            let message = format!("the server sends {}, not {}", Lsn(start), Lsn(self.at));
            return Err(Fault::new(Kind::Source, message).into());
        }
        while !bytes.is_empty() {
            self.waiting_since.get_or_insert_with(Instant::now);
            let name = SegmentName::holding(self.timeline, self.at, self.size);
            let path = self.spool.join(name.to_string());
            let file = match self.segment.take() {
                Some(file) => file,
                None => File::create(&path)?,
            };
            let offset = self.at % self.size.bytes();
            let room = usize::try_from(self.size.bytes() - offset)?.min(bytes.len());
            let (now, later) = bytes.split_at(room);
            file.write_all_at(now, offset)?;
            let end = self.at.checked_add(now.len() as u64);
            self.at =
                end.ok_or_else(|| Fault::new(Kind::Source, "the log has no more positions"))?;
            bytes = later;
            if !self.at.is_multiple_of(self.size.bytes()) {
                self.segment = Some(file);
                continue;
            }
            archive(&path)?;
            fs::remove_file(&path)?;
            (self.archived, self.waiting_since) = (self.at, None);
        }
        Ok(())
    }

    /// What the server is told.
    fn status(&self) -> WalStatus {
        let archived = Lsn(self.archived);
        WalStatus { written: Lsn(self.at), flushed: archived, applied: archived }
    }
}

impl Follower {
    /// Connects, and makes the slot if it is not there.
    ///
    /// # Errors
    /// What the server or the spool fails with.
    pub(super) fn begin(server: &Server, spool: &Path, ctx: &Ctx) -> anyhow::Result<Follower> {
        let mut connection = server.replication(ctx)?;
        let facts = server.facts(&mut connection, ctx)?;
        let size = SegmentSize::new(facts.segment_bytes)
            .ok_or_else(|| Fault::new(Kind::Source, "the server has segments of an odd size"))?;
        let slot = server.logs.slot.clone();
        let mut known = connection.read_replication_slot(&slot)?;
        if known.is_none() {
            connection.create_replication_slot(&slot, false)?;
            ctx.monitor.detail(&format!("made the replication slot {slot}"));
            known = connection.read_replication_slot(&slot)?;
        }
        let restart = known.and_then(|slot| slot.restart).map_or(facts.lsn, |Lsn(lsn)| lsn);
        let timeline = known.and_then(|slot| slot.timeline).unwrap_or(facts.timeline);
        let timeline = Timeline::new(timeline)
            .ok_or_else(|| Fault::new(Kind::Source, "the server is on a timeline 0"))?;
        let folder = spool.join("pg_wal");
        // What another run has left there is received again.
        let _none = fs::remove_dir_all(spool);
        fs::create_dir_all(&folder)?;
        fs::create_dir_all(spool.join("global"))?;
        let system: u64 = facts.system.parse()?;
        File::create_new(spool.join("global/pg_control"))?.write_all(&system.to_le_bytes())?;
        let receiver = Receiver::new(folder, size, timeline, restart);
        Ok(Follower { connection, slot, receiver, has_history: timeline == Timeline::FIRST })
    }

    /// Receives and archives for so long.
    ///
    /// # Errors
    /// What the server, the spool or `archive` fails with; begin anew then.
    pub(super) fn follow(
        &mut self,
        server: &Server,
        time: Duration,
        archive: &mut ArchiveFile<'_>,
        ctx: &Ctx,
    ) -> anyhow::Result<()> {
        let until = Instant::now() + time;
        if !self.has_history {
            // Without it nothing tells where the timeline belongs.
            self.archive_history(self.receiver.timeline, archive)?;
            self.has_history = true;
        }
        self.switch_if_due(server, ctx);
        let Follower { connection, slot, receiver, .. } = self;
        let (at, timeline) = (Lsn(receiver.at), receiver.timeline.number());
        let mut stream = connection.start_replication(Some(slot), at, timeline)?;
        let mut next = None;
        while Instant::now() < until && next.is_none() {
            ctx.cancel.check()?;
            match stream.recv(RECV)? {
                Some(WalEvent::Xlog { start, bytes, .. }) => {
                    receiver.take(start, bytes, archive)?;
                    stream.send_status(receiver.status())?;
                }
                Some(WalEvent::TimelineEnd { next_timeline, switch }) => {
                    next = Some((next_timeline, switch));
                }
                Some(WalEvent::Closed) => {
                    return Err(Fault::new(Kind::Source, "the server ended the stream").into());
                }
                Some(WalEvent::Keepalive { .. }) | None => {}
            }
        }
        stream.stop()?;
        match next {
            Some((timeline, switch)) => self.turn(timeline, switch, archive),
            None => Ok(()),
        }
    }

    /// Goes on with another timeline, whose history is archived first.
    fn turn(
        &mut self,
        timeline: u32,
        Lsn(switch): Lsn,
        archive: &mut ArchiveFile<'_>,
    ) -> anyhow::Result<()> {
        let timeline = Timeline::new(timeline)
            .ok_or_else(|| Fault::new(Kind::Source, "the server is on a timeline 0"))?;
        self.archive_history(timeline, archive)?;
        // The first file of a timeline begins with what it took over.
        let Receiver { spool, size, .. } = &self.receiver;
        self.receiver = Receiver::new(spool.clone(), *size, timeline, switch);
        Ok(())
    }

    fn archive_history(
        &mut self,
        timeline: Timeline,
        archive: &mut ArchiveFile<'_>,
    ) -> anyhow::Result<()> {
        let (_, history) = self.connection.timeline_history(timeline.number())?;
        let path = self.receiver.spool.join(WalFileName::History(timeline).to_string());
        File::create(&path)?.write_all(&history)?;
        archive(&path)?;
        Ok(fs::remove_file(&path)?)
    }

    /// Has the server begin a new segment, where something has waited for too long in one that is not full.
    fn switch_if_due(&self, server: &Server, ctx: &Ctx) {
        let Some(after) = server.logs.switch_after else { return };
        if self.receiver.waiting_since.is_none_or(|since| since.elapsed() < after) {
            return;
        }
        let switched = server
            .sql(ctx)
            .and_then(|mut sql| Ok(sql.query("select pg_catalog.pg_switch_wal()").map(drop)?));
        if let Err(error) = switched {
            ctx.monitor.warn(&format!(
                "the last changes wait until their segment is full: {error:#}; grant execute on function pg_switch_wal() to the role, or set switch_after = \"off\""
            ));
        }
    }
}
