//! Mode `wal`: operations read from the live ring of a data file.
//!
//! The ring holds the last 1024 operations. Each names the checksum of the one before it, so what is
//! whole and continues the last one shipped is what the cluster wrote. Of a cluster of several only
//! what is known to be committed is shipped: the rest may still be taken back.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::begin::{LogBegin, begin};
use super::ring_view::RingView;
use crate::archive::EntrySink;
use crate::ctx::Ctx;
use crate::domain::timestamp;
use crate::pipeline::log_files::LogFiles;
use crate::source::SourceError;
use crate::source::logs::{LogSource, OnGap};
use crate::source::tigerbeetle::data_file::prepare::PrepareHeader;
use crate::source::tigerbeetle::data_file::rings::read_prepare;
use crate::source::tigerbeetle::data_file::zones::{HEADER_BYTES, SLOTS};
use crate::source::tigerbeetle::logs::capture_record::{Mode, Ops, Position, SegmentRecord};
use crate::source::tigerbeetle::logs::client::record::{Effect, add_expiries, effect, is_own};
use crate::source::tigerbeetle::logs::client::session::Session;
use crate::source::tigerbeetle::logs::segment::{close_segment, op_member, spelled};
use crate::source::tigerbeetle::logs::shipping::Shipping;

/// Operations that change nothing are shipped when there are so many: before they leave the ring.
const QUIET_OPS_MAX: u64 = SLOTS / 2;
/// Looks at an operation that is being written, and the pause between two of them.
const READS_MAX: u32 = 40;
const READ_PAUSE: Duration = Duration::from_millis(25);
/// While a log is followed and nothing happens, the cluster is asked once in this time: a question is
/// an operation, too.
const RETRY_EVERY: Duration = Duration::from_mins(1);

/// A data file whose ring is shipped.
pub(crate) struct WalLog {
    source: Shipping,
    /// For replicas of several; made when it is first needed, and kept.
    session: Option<Session>,
    /// When the cluster was last asked.
    asked: Option<Instant>,
}

impl WalLog {
    pub(crate) fn new(source: Shipping) -> WalLog {
        WalLog { source, session: None, asked: None }
    }

    fn view(&self, ctx: &Ctx) -> anyhow::Result<RingView> {
        RingView::open(&self.source.replica, ctx)
    }

    /// Whether something from `begin` on changed the books, or the ring is about to lose it.
    fn is_busy(
        &self,
        view: &mut RingView,
        begin: &LogBegin,
        after: Option<&SegmentRecord>,
    ) -> anyhow::Result<bool> {
        let headers: Vec<PrepareHeader> =
            view.chain.range(begin.op..).map(|(_, header)| *header).collect();
        if begin.gap.is_some() || headers.len() as u64 > QUIET_OPS_MAX {
            return Ok(true);
        }
        self.any_busy(view, &headers, after)
    }

    fn any_busy(
        &self,
        view: &mut RingView,
        headers: &[PrepareHeader],
        after: Option<&SegmentRecord>,
    ) -> anyhow::Result<bool> {
        let own = self.source.own_ledger(view.cluster());
        let expiries = after.and_then(|after| after.position.ops.as_ref()).map(|ops| &ops.expiries);
        for header in headers {
            let busy = match effect(header.operation()) {
                Effect::None => false,
                // The leases of bkp's own runs make a cluster look for what has expired, too.
                Effect::Expiries => {
                    expiries.is_some_and(|expiries| expiries.touch(header.timestamp()))
                }
                Effect::Unknown => true,
                Effect::Records => match (own, view.read(header)?) {
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
    fn catch_up(&mut self, ctx: &Ctx) -> anyhow::Result<RingView> {
        let addresses = self.source.replica.addresses.clone();
        let deadline = self.source.settings.deadline;
        let session = match self.session.take() {
            Some(session) => session,
            None => Session::open(self.view(ctx)?.cluster(), &addresses, deadline, ctx)?,
        };
        // One that fails is not used again.
        let asked = session.now(ctx)?;
        self.session = Some(session);
        let began = Instant::now();
        loop {
            let view = self.view(ctx)?;
            // It repairs its log from the end: that the end is here is not enough.
            let arrived = view.chain.values().chain(&view.beyond);
            let question =
                arrived.filter(|one| one.timestamp() >= asked).min_by_key(|one| one.op());
            let reached = view.chain.keys().next_back();
            if question
                .zip(reached)
                .is_some_and(|(question, reached)| *reached >= question.commit())
            {
                self.asked = Some(Instant::now());
                return Ok(view);
            }
            if began.elapsed() > deadline {
                let path = self.source.replica.data_file.display();
                return Err(SourceError::Engine {
                    what: path.to_string(),
                    reason: "the replica lags behind its cluster, or is not running".into(),
                    hint: "check the replica, or ship from the data file of another one".into(),
                }
                .into());
            }
            ctx.pause(READ_PAUSE)?;
        }
    }

    /// Whether the cluster is to be asked how far it is.
    fn is_due(&self, view: &mut RingView, after: Option<&SegmentRecord>) -> anyhow::Result<bool> {
        if !view.is_several() || self.source.replica.addresses.is_empty() {
            return Ok(false);
        }
        let beyond = std::mem::take(&mut view.beyond);
        let recently = self.asked.is_some_and(|asked| asked.elapsed() < RETRY_EVERY);
        Ok(!recently || self.any_busy(view, &beyond, after)?)
    }

    /// Pushes one operation; false if it has left the ring, or another one took its place.
    fn push(
        view: &mut RingView,
        header: &PrepareHeader,
        out: &mut dyn EntrySink,
        ctx: &Ctx,
    ) -> anyhow::Result<bool> {
        for _ in 0..READS_MAX {
            if let Some(bytes) = view.read(header)? {
                out.entry(&op_member(header.op()), bytes)?;
                return Ok(true);
            }
            let slot = header.op() % SLOTS;
            let found =
                read_prepare(&view.device, &mut view.buffer, view.superblock.cluster(), slot)?;
            if found.is_some_and(|found| !found.is_reserved()) {
                return Ok(false);
            }
            ctx.pause(READ_PAUSE)?;
        }
        Ok(false)
    }
}

impl LogSource for WalLog {
    fn mode(&self) -> &'static str {
        Mode::Wal.as_str()
    }

    fn on_gap(&self) -> OnGap {
        self.source.settings.on_gap
    }

    fn every(&self) -> Duration {
        self.source.settings.every
    }

    fn news(
        &mut self,
        after: Option<&Value>,
        _files: &LogFiles<'_>,
        ctx: &Ctx,
    ) -> anyhow::Result<bool> {
        let after = Shipping::segment_before(after)?;
        let after = after.as_ref();
        let mut view = self.view(ctx)?;
        let mut behind = None;
        if self.is_due(&mut view, after)? {
            match self.catch_up(ctx) {
                Ok(caught_up) => view = caught_up,
                Err(error) => behind = Some(error),
            }
            ctx.cancel.check()?;
        }
        let news = match begin(&self.source.replica.data_file, &mut view, after)? {
            None => false,
            Some(begin) => self.is_busy(&mut view, &begin, after)?,
        };
        match behind {
            None => Ok(news),
            // What is here is safe to ship; that there is nothing more, nobody knows.
            Some(error) if news => {
                ctx.monitor.warn(&format!("shipping only what this replica has: {error:#}"));
                Ok(true)
            }
            Some(error) => Err(error),
        }
    }

    fn ship(
        &mut self,
        after: Option<&Value>,
        _files: &LogFiles<'_>,
        out: &mut dyn EntrySink,
        ctx: &Ctx,
    ) -> anyhow::Result<Value> {
        let after = Shipping::segment_before(after)?;
        let after = after.as_ref();
        let mut view = self.view(ctx)?;
        let nothing = || SourceError::TooFast {
            what: self.source.replica.data_file.display().to_string(),
            attempts: 1,
            last: "operations were overwritten before they could be shipped".into(),
        };
        let begin = begin(&self.source.replica.data_file, &mut view, after)?.ok_or_else(nothing)?;
        let own = self.source.own_ledger(view.cluster());
        let headers: Vec<PrepareHeader> =
            view.chain.range(begin.op..).map(|(_, header)| *header).collect();
        let mut ends: Option<(PrepareHeader, PrepareHeader)> = None;
        let mut expired = 0;
        let earlier = after.and_then(|after| after.position.ops.as_ref());
        let mut expiries = earlier.map(|ops| ops.expiries.clone()).unwrap_or_default();
        for header in headers {
            ctx.cancel.check()?;
            if !WalLog::push(&mut view, &header, out, ctx)? {
                break;
            }
            let body = view.buffer.slice(header.size());
            let body = body.get(HEADER_BYTES..).unwrap_or_default();
            add_expiries(own, &header, body, &mut expiries);
            if effect(header.operation()) == Effect::Expiries {
                expired = header.timestamp();
            }
            ends = Some((ends.map_or(header, |(first, _)| first), header));
        }
        let (first, last) = ends.ok_or_else(nothing)?;
        // What is over has expired only when the cluster came to it.
        expiries.pass(expired);
        let segment = SegmentRecord {
            mode: Mode::Wal,
            consistency: "transaction-consistent".into(),
            cluster: view.cluster().to_string(),
            parent_sha256: None,
            gap: begin.gap,
            unreplayable: None,
            position: Position {
                first_timestamp: first.timestamp(),
                last_timestamp: last.timestamp(),
                last_time: timestamp::spelled(last.timestamp()),
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
        close_segment(&segment, out)?;
        Ok(serde_json::to_value(&segment)?)
    }
}
