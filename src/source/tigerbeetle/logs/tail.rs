//! Mode `wal`: operations read from the live ring of a data file.
//!
//! The ring holds the last 1024 operations. Each names the checksum of the one before it, so what is
//! whole and continues the last one shipped is what the cluster wrote. Of a cluster of several only
//! what is known to be committed is shipped: the rest may still be taken back.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::look::{Fate, Look};
use super::record::{Effect, effect, expire, is_own};
use super::segment::{close, op_member, spelled};
use super::session::Session;
use super::{OnGap, Shipping};
use crate::archive::EntrySink;
use crate::ctx::Ctx;
use crate::domain::segment::{self, Mode, Ops, Position, Segment};
use crate::source::SourceError;
use crate::source::logs::LogSource;
use crate::source::tigerbeetle::format::{HEADER_BYTES, PrepareHeader, SLOTS};
use crate::source::tigerbeetle::wal::read_prepare;

/// Operations that change nothing are shipped when there are so many: before they leave the ring.
const QUIET_OPS_MAX: u64 = SLOTS / 2;
/// Operations between the oldest one in the ring and the one that a new log begins with: the cluster
/// goes on writing meanwhile.
const MARGIN_OPS: u64 = 64;
/// Looks at an operation that is being written, and the pause between two of them.
const LOOKS_MAX: u32 = 40;
const LOOK_PAUSE: Duration = Duration::from_millis(25);
/// While a log is followed and nothing happens, the cluster is asked once in this time: a question is
/// an operation, too.
const ASK_AGAIN: Duration = Duration::from_mins(1);

/// A data file whose ring is shipped.
pub(super) struct Tail {
    source: Shipping,
    /// For replicas of several; made when it is first needed, and kept.
    session: Option<Session>,
    /// When the cluster was last asked.
    asked: Option<Instant>,
}

/// Where shipping begins.
#[derive(Debug, PartialEq, Eq)]
struct Begin {
    op: u64,
    gap: Option<String>,
}

impl Tail {
    pub(super) fn new(source: Shipping) -> Tail {
        Tail { source, session: None, asked: None }
    }

    fn look(&self, ctx: &Ctx) -> anyhow::Result<Look> {
        Look::at(&self.source.replica, ctx)
    }

    /// Where to begin after `after`; `None` if there is nothing.
    ///
    /// # Errors
    /// [`SourceError::Engine`] if that cannot be told before the replica has repaired its log.
    fn begin(&self, look: &mut Look, after: Option<&Segment>) -> anyhow::Result<Option<Begin>> {
        Shipping::check_continues(after, look.cluster())?;
        let Some((newest, header)) = look.chain.last_key_value() else { return Ok(None) };
        let (newest, newest_timestamp) = (*newest, header.timestamp());
        let Some(shipped) = after.and_then(|after| after.position.ops.as_ref()) else {
            let op = if look.is_several() { self.oldest(look)? } else { oldest(look) };
            return Ok(Some(Begin { op, gap: None }));
        };
        let (last, wanted) = (shipped.last_op, shipped.last_op + 1);
        if newest < last {
            // Another replica was ahead when it was shipped from. But what is later than all that was
            // shipped, and has a smaller number, is of another history.
            let shipped = after.map_or(0, |after| after.position.last_timestamp);
            if look.is_several() && newest_timestamp <= shipped {
                return Ok(None);
            }
            if look.reaches(last)? {
                return Err(self.repairing(last).into());
            }
            let op = self.oldest(look)?;
            return Ok(Some(Begin {
                op,
                gap: Some(format!(
                    "the log of the file ends with op {newest}, and op {last} was shipped: it is an older state of the cluster"
                )),
            }));
        }
        let before = match (look.chain.get(&last), look.chain.get(&wanted)) {
            (Some(header), _) => Some(header.checksum()),
            (None, Some(header)) => Some(header.parent()),
            (None, None) => None,
        };
        match before {
            None => self.beyond_a_hole(look, shipped).map(Some),
            Some(checksum) if spelled(checksum) != shipped.last_checksum => {
                let op = self.oldest(look)?;
                Ok(Some(Begin {
                    op,
                    gap: Some(format!(
                        "op {last} of the file is not the one that was shipped: it is another history of the cluster"
                    )),
                }))
            }
            Some(_) if newest == last => Ok(None),
            Some(_) => Ok(Some(Begin { op: wanted, gap: None })),
        }
    }

    /// Where to begin if what is newest does not lead back to what was shipped: with what follows that,
    /// if it is there; after a gap, if that is proven.
    fn beyond_a_hole(&self, look: &mut Look, shipped: &Ops) -> anyhow::Result<Begin> {
        let wanted = shipped.last_op + 1;
        let follows =
            look.after(shipped.last_op, |next| spelled(next.parent()) == shipped.last_checksum)?;
        if !follows.is_empty() {
            look.chain = follows;
            return Ok(Begin { op: wanted, gap: None });
        }
        if look.fate(wanted)? == Fate::Open {
            return Err(self.repairing(wanted).into());
        }
        let op = self.oldest(look)?;
        let count = op.saturating_sub(wanted);
        Ok(Begin {
            op,
            gap: Some(format!(
                "{count} operations from op {wanted} on were overwritten before they were shipped"
            )),
        })
    }

    /// The operation that a log begins with that continues none: the oldest one that the ring holds for a
    /// while. What is older must be lost, or the replica may still repair it.
    fn oldest(&self, look: &mut Look) -> anyhow::Result<u64> {
        let first = look.chain.keys().next().copied().unwrap_or(0);
        let oldest = oldest(look);
        match first.checked_sub(1).filter(|_before| oldest == first) {
            Some(before) if look.fate(before)? == Fate::Open => Err(self.repairing(before).into()),
            Some(_) | None => Ok(oldest),
        }
    }

    /// The replica lacks something that it may still get from its cluster.
    fn repairing(&self, op: u64) -> SourceError {
        SourceError::Engine {
            what: self.source.replica.data_file.display().to_string(),
            reason: format!("op {op} of the log is not in its place yet: the replica repairs its log"),
            hint: "run `bkp logs` again in a moment; if this stays, look after the replica, or ship from the data file of another one".into(),
        }
    }

    /// Whether something from `begin` on changed the books, or the ring is about to lose it.
    fn is_busy(
        &self,
        look: &mut Look,
        begin: &Begin,
        after: Option<&Segment>,
    ) -> anyhow::Result<bool> {
        let headers: Vec<PrepareHeader> =
            look.chain.range(begin.op..).map(|(_, header)| *header).collect();
        if begin.gap.is_some() || headers.len() as u64 > QUIET_OPS_MAX {
            return Ok(true);
        }
        self.any_busy(look, &headers, after)
    }

    fn any_busy(
        &self,
        look: &mut Look,
        headers: &[PrepareHeader],
        after: Option<&Segment>,
    ) -> anyhow::Result<bool> {
        let own = self.source.own_ledger(look.cluster());
        let expiries = after.and_then(|after| after.position.ops.as_ref()).map(|ops| &ops.expiries);
        for header in headers {
            let busy = match effect(header.operation()) {
                Effect::None => false,
                // The leases of bkp's own runs make a cluster look for what has expired, too.
                Effect::Expiries => {
                    expiries.is_some_and(|expiries| expiries.touch(header.timestamp()))
                }
                Effect::Unknown => true,
                Effect::Records => match (own, look.read(header)?) {
                    (Some(own), Some(bytes)) => !is_own(
                        own,
                        header.operation(),
                        bytes.get(HEADER_BYTES..).unwrap_or_default(),
                    ),
                    // Without a ledger here, or overwritten by now: there is something.
                    (None, _) | (_, None) => true,
                },
            };
            if busy {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// One of several replicas may lag behind its cluster, and learns that an operation is committed
    /// from the next one. So the cluster is asked something, which is an operation itself: once that has
    /// arrived here, so has everything that was acknowledged before.
    fn catch_up(&mut self, ctx: &Ctx) -> anyhow::Result<Look> {
        let addresses = self.source.replica.addresses.clone();
        let deadline = self.source.settings.deadline;
        let session = match self.session.take() {
            Some(session) => session,
            None => Session::open(self.look(ctx)?.cluster(), &addresses, deadline, ctx)?,
        };
        // One that fails is not used again.
        let asked = session.now(ctx)?;
        self.session = Some(session);
        let began = Instant::now();
        loop {
            let look = self.look(ctx)?;
            // It repairs its log from the end: that the end is here is not enough.
            let arrived = look.chain.values().chain(&look.beyond);
            let question =
                arrived.filter(|one| one.timestamp() >= asked).min_by_key(|one| one.op());
            let reached = look.chain.keys().next_back();
            if question
                .zip(reached)
                .is_some_and(|(question, reached)| *reached >= question.commit())
            {
                self.asked = Some(Instant::now());
                return Ok(look);
            }
            if began.elapsed() > deadline {
                let path = self.source.replica.data_file.display();
                return Err(SourceError::Engine {
                    what: path.to_string(),
                    reason: "the replica lags behind its cluster, or does not run".into(),
                    hint: "look after it, or ship from the data file of another replica".into(),
                }
                .into());
            }
            ctx.pause(LOOK_PAUSE)?;
        }
    }

    /// Whether the cluster is to be asked how far it is.
    fn is_due(&self, look: &mut Look, after: Option<&Segment>) -> anyhow::Result<bool> {
        if !look.is_several() || self.source.replica.addresses.is_empty() {
            return Ok(false);
        }
        let beyond = std::mem::take(&mut look.beyond);
        let recently = self.asked.is_some_and(|asked| asked.elapsed() < ASK_AGAIN);
        Ok(!recently || self.any_busy(look, &beyond, after)?)
    }

    /// Pushes one operation; false if it has left the ring, or another one took its place.
    fn push(
        look: &mut Look,
        header: &PrepareHeader,
        out: &mut dyn EntrySink,
        ctx: &Ctx,
    ) -> anyhow::Result<bool> {
        for _ in 0..LOOKS_MAX {
            if let Some(bytes) = look.read(header)? {
                out.entry(&op_member(header.op()), bytes)?;
                return Ok(true);
            }
            let slot = header.op() % SLOTS;
            let found =
                read_prepare(&look.device, &mut look.buffer, look.superblock.cluster(), slot)?;
            if found.is_some_and(|found| !found.is_reserved()) {
                return Ok(false);
            }
            ctx.pause(LOOK_PAUSE)?;
        }
        Ok(false)
    }
}

/// The operation that a new log begins with: the cluster goes on writing meanwhile.
fn oldest(look: &Look) -> u64 {
    let ends = look.chain.first_key_value().zip(look.chain.last_key_value());
    let (first, newest) = ends.map_or((0, 0), |((first, _), (newest, _))| (*first, *newest));
    first.max((newest + MARGIN_OPS + 1).saturating_sub(SLOTS))
}

impl LogSource for Tail {
    fn mode(&self) -> Mode {
        Mode::Wal
    }

    fn on_gap(&self) -> OnGap {
        self.source.settings.on_gap
    }

    fn every(&self) -> Duration {
        self.source.settings.every
    }

    fn news(&mut self, after: Option<&Segment>, ctx: &Ctx) -> anyhow::Result<bool> {
        let mut look = self.look(ctx)?;
        let mut behind = None;
        if self.is_due(&mut look, after)? {
            match self.catch_up(ctx) {
                Ok(caught_up) => look = caught_up,
                Err(error) => behind = Some(error),
            }
            ctx.cancel.check()?;
        }
        let news = match self.begin(&mut look, after)? {
            None => false,
            Some(begin) => self.is_busy(&mut look, &begin, after)?,
        };
        match behind {
            None => Ok(news),
            // What is here is safe to ship; that there is nothing more, nobody knows.
            Some(error) if news => {
                ctx.monitor.warn(&format!("only what this replica knows is shipped: {error:#}"));
                Ok(true)
            }
            Some(error) => Err(error),
        }
    }

    fn ship(
        &mut self,
        after: Option<&Segment>,
        out: &mut dyn EntrySink,
        ctx: &Ctx,
    ) -> anyhow::Result<Segment> {
        let mut look = self.look(ctx)?;
        let nothing = || SourceError::TooFast {
            what: self.source.replica.data_file.display().to_string(),
            attempts: 1,
            last: "what was to be shipped has left the log".into(),
        };
        let begin = self.begin(&mut look, after)?.ok_or_else(nothing)?;
        let own = self.source.own_ledger(look.cluster());
        let headers: Vec<PrepareHeader> =
            look.chain.range(begin.op..).map(|(_, header)| *header).collect();
        let mut ends: Option<(PrepareHeader, PrepareHeader)> = None;
        let mut expired = 0;
        let earlier = after.and_then(|after| after.position.ops.as_ref());
        let mut expiries = earlier.map(|ops| ops.expiries.clone()).unwrap_or_default();
        for header in headers {
            ctx.cancel.check()?;
            if !Tail::push(&mut look, &header, out, ctx)? {
                break;
            }
            let body = look.buffer.slice(header.size());
            let body = body.get(HEADER_BYTES..).unwrap_or_default();
            expire(own, &header, body, &mut expiries);
            if effect(header.operation()) == Effect::Expiries {
                expired = header.timestamp();
            }
            ends = Some((ends.map_or(header, |(first, _)| first), header));
        }
        let (first, last) = ends.ok_or_else(nothing)?;
        // What is over has expired only when the cluster came to it.
        expiries.pass(expired);
        let segment = Segment {
            mode: Mode::Wal,
            consistency: "transaction-consistent".into(),
            cluster: look.cluster().to_string(),
            parent_sha256: None,
            gap: begin.gap,
            unreplayable: None,
            position: Position {
                first_timestamp: first.timestamp(),
                last_timestamp: last.timestamp(),
                last_time: segment::spelled(last.timestamp()),
                ops: Some(Ops {
                    first_op: first.op(),
                    last_op: last.op(),
                    before_checksum: spelled(first.parent()),
                    last_checksum: spelled(last.checksum()),
                    expiries,
                }),
                marks: None,
            },
            records: BTreeMap::from([("ops".to_owned(), last.op() - first.op() + 1)]),
            totals: None,
        };
        close(&segment, out)?;
        Ok(segment)
    }
}
