//! Mode `query`: what the cluster answers, page by page.
//!
//! A segment covers the time from the end of the one before it to the moment at which the cluster is
//! first asked. Everything that it had taken until then has an earlier timestamp. Accounts and
//! transfers each go on from the last one shipped, because imported ones have timestamps of the past;
//! expiries are only told by change events, and only asked for once a timeout was seen.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::order::{Item, Order};
use super::pager::Pager;
use super::record::{
    self, EVENT_BYTES, Expiry, GET_ACCOUNT_TRANSFERS, GET_CHANGE_EVENTS, QUERY_ACCOUNTS,
    QUERY_TRANSFERS, RECORD_BYTES, RECORDS_PER_PAGE, events_filter, query_filter,
};
use super::segment::{Sort, close};
use super::session::Session;
use super::{OnGap, Shipping};
use crate::ctx::Ctx;
use crate::domain::segment::{self, Marks, Mode, Position, Segment, Totals};
use crate::error::{Fault, Kind};
use crate::source::EntrySink;
use crate::source::logs::LogSource;
use crate::source::tigerbeetle::quorum::look;

/// What to do where a log of this mode cannot be replayed.
const ONLY_WAL: &str =
    "from here on a log of mode query does not restore: ship this cluster's log in mode wal";

/// A cluster that is asked.
pub(super) struct Pages {
    source: Shipping,
    session: Option<(Session, u128)>,
}

impl Pages {
    pub(super) fn new(source: Shipping) -> Pages {
        Pages { source, session: None }
    }

    /// The session, made when it is first needed or after one that failed, and the cluster's id.
    fn session(&mut self, ctx: &Ctx) -> anyhow::Result<(&Session, u128)> {
        if self.session.is_none() {
            let replica = &self.source.replica;
            let cluster = match replica.cluster {
                Some(cluster) => cluster,
                // The only thing that this mode needs the file for.
                None => look(&replica.data_file, ctx)
                    .map_err(|error| {
                        error.context(
                            Fault::new(
                                Kind::Config,
                                "the cluster's id is neither configured nor in a data file here",
                            )
                            .hint("set `cluster` in the source's table"),
                        )
                    })?
                    .cluster(),
            };
            let deadline = self.source.settings.deadline;
            let session = Session::open(cluster, &replica.addresses, deadline, ctx)?;
            self.session = Some((session, cluster));
        }
        let session = self.session.as_ref().map(|(session, cluster)| (session, *cluster));
        Ok(session.ok_or_else(|| Fault::new(Kind::Failed, "there is no session"))?)
    }

    /// Does something in the session; one that failed is not used again.
    fn within<T>(
        &mut self,
        after: Option<&Segment>,
        ctx: &Ctx,
        work: impl FnOnce(&Session, u128, Option<u32>) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let own = self.source.own;
        let cluster = self.session(ctx)?.1;
        Shipping::check_continues(after, cluster)?;
        let own = own.filter(|own| own.cluster == cluster).map(|own| own.ledger);
        let done = work(self.session(ctx)?.0, cluster, own);
        if done.is_err() {
            self.session = None;
        }
        done
    }
}

/// Where to go on, and until when.
struct Span {
    /// How far the log has come.
    marks: Marks,
    /// The end of the segment before; 0 if there is none, or none that could be continued.
    covered: u64,
    /// The cluster's time; everything that it took before is committed.
    until: u64,
    /// Why the segment before cannot be continued.
    gap: Option<String>,
}

impl Span {
    /// Asks the cluster. One that has not got any more what was shipped last was restored to an earlier
    /// state, or made anew: what follows would not fit what was shipped, so everything is shipped again.
    fn of(session: &Session, after: Option<&Segment>, ctx: &Ctx) -> anyhow::Result<Span> {
        let marks = after.and_then(|after| after.position.marks.clone()).unwrap_or_default();
        let covered = after.map_or(0, |after| after.position.last_timestamp);
        let mut gap = None;
        let last = [
            (QUERY_ACCOUNTS, marks.accounts_mark, "account"),
            (QUERY_TRANSFERS, marks.transfers_mark, "transfer"),
            (GET_CHANGE_EVENTS, marks.expiries_mark, "expiry"),
        ];
        for (operation, mark, what) in last.into_iter().filter(|(_, mark, _)| *mark > 0) {
            let filter = match operation {
                GET_CHANGE_EVENTS => events_filter(mark, mark, 1),
                _ => query_filter(mark, mark, 1),
            };
            if session.ask(operation, filter, ctx)?.bytes.is_empty() {
                let at = segment::spelled(mark).unwrap_or_default();
                gap = Some(format!(
                    "the cluster has no {what} of {at}, which was shipped: it is another history of the cluster, and is shipped from its beginning"
                ));
            }
        }
        let until = session.now(ctx)?;
        if gap.is_none() && until <= covered {
            gap = Some(format!(
                "the cluster's clock went back behind {}: it is another history of the cluster, and is shipped from its beginning",
                segment::spelled(covered).unwrap_or_default()
            ));
        }
        Ok(match gap {
            None => Span { marks, covered, until, gap },
            Some(_) => Span { marks: Marks::default(), covered: 0, until, gap },
        })
    }
}

impl LogSource for Pages {
    fn mode(&self) -> Mode {
        Mode::Query
    }

    fn on_gap(&self) -> OnGap {
        self.source.settings.on_gap
    }

    fn every(&self) -> Duration {
        self.source.settings.every
    }

    fn news(&mut self, after: Option<&Segment>, ctx: &Ctx) -> anyhow::Result<bool> {
        self.within(after, ctx, |session, _, own| {
            let Span { marks, covered, until, gap } = Span::of(session, after, ctx)?;
            if gap.is_some() {
                return Ok(true);
            }
            let foreign = |ledger: u32| Some(ledger) != own;
            let questions =
                [(QUERY_ACCOUNTS, marks.accounts_mark), (QUERY_TRANSFERS, marks.transfers_mark)];
            for (operation, mark) in questions {
                let mut pager = Pager::begin(session, operation, mark + 1, until)?;
                while let Some(page) = pager.next(ctx)? {
                    if page.chunks(RECORD_BYTES).any(|record| foreign(record::ledger(record))) {
                        return Ok(true);
                    }
                }
            }
            if !marks.timeouts {
                return Ok(false);
            }
            let mut pager = Pager::begin(session, GET_CHANGE_EVENTS, covered + 1, until)?;
            while let Some(page) = pager.next(ctx)? {
                let mut expiries = page.chunks(EVENT_BYTES).filter_map(Expiry::of_event);
                if expiries.any(|expiry| foreign(expiry.ledger)) {
                    return Ok(true);
                }
            }
            Ok(false)
        })
    }

    fn ship(
        &mut self,
        after: Option<&Segment>,
        out: &mut dyn EntrySink,
        ctx: &Ctx,
    ) -> anyhow::Result<Segment> {
        self.within(after, ctx, |session, cluster, _own| {
            let Span { marks, covered, until, gap } = Span::of(session, after, ctx)?;
            let mut shipment = Shipment {
                session,
                out,
                ctx,
                until,
                covered,
                marks,
                first: u64::MAX,
                counts: BTreeMap::new(),
                expiries: Expiries { pager: None, found: VecDeque::new() },
                order: Order::default(),
                page: Vec::new(),
                page_sort: Sort::Transfers,
                page_first: 0,
                unreplayable: None,
                // From the beginning on, or from where the segment before has them.
                totals: match after.filter(|_after| gap.is_none()) {
                    None => Some(Totals::default()),
                    Some(after) => after.totals,
                },
            };
            shipment.accounts()?;
            shipment.transfers()?;
            let Shipment { marks, first, counts, unreplayable, totals, .. } = shipment;
            let begin = if covered > 0 { covered + 1 } else { first.min(until) };
            let segment = Segment {
                mode: Mode::Query,
                consistency: "transaction-consistent".into(),
                cluster: cluster.to_string(),
                parent_sha256: None,
                gap,
                unreplayable,
                position: Position {
                    first_timestamp: begin,
                    last_timestamp: until,
                    last_time: segment::spelled(until),
                    ops: None,
                    marks: Some(marks),
                },
                records: counts,
                totals,
            };
            close(&segment, out)?;
            Ok(segment)
        })
    }
}

/// The expiries to come, if there can be any.
struct Expiries<'s> {
    pager: Option<Pager<'s>>,
    found: VecDeque<Expiry>,
}

impl Expiries<'_> {
    /// The next one, left where it is.
    fn peek(&mut self, ctx: &Ctx) -> anyhow::Result<Option<Expiry>> {
        while self.found.is_empty() {
            let Some(pager) = &mut self.pager else { return Ok(None) };
            match pager.next(ctx)? {
                Some(page) => {
                    self.found.extend(page.chunks(EVENT_BYTES).filter_map(Expiry::of_event));
                }
                None => self.pager = None,
            }
        }
        Ok(self.found.front().copied())
    }
}

/// One segment being made.
struct Shipment<'s, 'o> {
    session: &'s Session,
    out: &'o mut dyn EntrySink,
    ctx: &'o Ctx,
    until: u64,
    covered: u64,
    marks: Marks,
    /// The timestamp of the first record.
    first: u64,
    counts: BTreeMap<String, u64>,
    expiries: Expiries<'s>,
    order: Order,
    /// The member that is being made, its sort and its first timestamp.
    page: Vec<u8>,
    page_sort: Sort,
    page_first: u64,
    /// Why a restore cannot go on over this segment.
    unreplayable: Option<String>,
    /// What was shipped so far comes to.
    totals: Option<Totals>,
}

impl Shipment<'_, '_> {
    fn push(&mut self, sort: Sort, timestamp: u64, bytes: &[u8]) -> anyhow::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.first = self.first.min(timestamp);
        let count = (bytes.len() / sort.bytes()) as u64;
        *self.counts.entry(sort.word().to_owned()).or_default() += count;
        self.ctx.monitor.advance(bytes.len() as u64);
        self.out.entry(&sort.member(timestamp), bytes)
    }

    fn accounts(&mut self) -> anyhow::Result<()> {
        let first = self.marks.accounts_mark + 1;
        let mut pager = Pager::begin(self.session, QUERY_ACCOUNTS, first, self.until)?;
        while let Some(mut page) = pager.next(self.ctx)? {
            for account in page.chunks_mut(RECORD_BYTES) {
                let created_closed = self.is_created_closed(account)?;
                record::as_created(account, created_closed);
            }
            self.marks.accounts_mark =
                page.rchunks(RECORD_BYTES).next().map_or(0, record::timestamp);
            if let Some(totals) = &mut self.totals {
                totals.accounts += (page.len() / RECORD_BYTES) as u64;
            }
            self.push(Sort::Accounts, record::timestamp(&page), &page)?;
        }
        Ok(())
    }

    /// Whether an account is closed since it was created: then no transfer could ever move it.
    fn is_created_closed(&self, account: &[u8]) -> anyhow::Result<bool> {
        if !record::is_closed_and_empty(account) {
            return Ok(false);
        }
        let filter = record::any_transfer_of(record::id(account));
        let moved = self.session.ask(GET_ACCOUNT_TRANSFERS, filter, self.ctx)?;
        Ok(moved.bytes.is_empty())
    }

    /// Transfers and expiries in the order in which they can be replayed.
    fn transfers(&mut self) -> anyhow::Result<()> {
        if self.marks.timeouts {
            self.expect_expiries(self.covered + 1)?;
        }
        let first = self.marks.transfers_mark + 1;
        let mut pager = Pager::begin(self.session, QUERY_TRANSFERS, first, self.until)?;
        while let Some(page) = pager.next(self.ctx)? {
            if let Some(first) =
                page.chunks(RECORD_BYTES).find(|transfer| record::timeout(transfer) > 0)
                && !self.marks.timeouts
            {
                self.marks.timeouts = true;
                self.expect_expiries(record::timestamp(first))?;
            }
            let (transfers, _rest) = page.as_chunks::<RECORD_BYTES>();
            for transfer in transfers {
                self.expired_before(record::timestamp(transfer))?;
                self.order.transfer(transfer);
                self.put_ready()?;
            }
        }
        self.expired_before(u64::MAX)?;
        self.order.finish();
        self.put_ready()?;
        self.put_page()
    }

    fn expect_expiries(&mut self, first: u64) -> anyhow::Result<()> {
        self.expiries.pager =
            Some(Pager::begin(self.session, GET_CHANGE_EVENTS, first, self.until)?);
        Ok(())
    }

    /// Puts the expiries before `end` in their places.
    fn expired_before(&mut self, end: u64) -> anyhow::Result<()> {
        while let Some(expiry) = self.expiries.peek(self.ctx)?.filter(|one| one.timestamp < end) {
            self.expiries.found.pop_front();
            self.order.expiry(expiry);
        }
        Ok(())
    }

    /// Pushes what has its place.
    fn put_ready(&mut self) -> anyhow::Result<()> {
        while let Some(item) = self.order.next() {
            match item {
                Item::Transfer(transfer) => {
                    let timestamp = record::timestamp(&transfer);
                    self.check_room(timestamp);
                    self.marks.transfers_mark = timestamp;
                    self.marks.expiries_since = 0;
                    if let Some(totals) = &mut self.totals {
                        let posted = record::posted(&transfer);
                        totals.debits_posted = totals.debits_posted.saturating_add(posted);
                        totals.credits_posted = totals.credits_posted.saturating_add(posted);
                    }
                    self.put(Sort::Transfers, timestamp, &transfer)?;
                }
                Item::Expiry(expiry) => {
                    self.marks.expiries_mark = self.marks.expiries_mark.max(expiry.timestamp);
                    self.marks.expiries_since += 1;
                    self.put(Sort::Expiries, expiry.timestamp, &expiry.bytes())?;
                }
            }
        }
        if let Some(expiry) = self.order.misplaced.take() {
            let at = segment::spelled(expiry.timestamp).unwrap_or_default();
            self.unreplayable.get_or_insert_with(|| format!(
                "more transfers were imported with times before the expiry of {at} than can be put in order with it; {ONLY_WAL}"
            ));
        }
        Ok(())
    }

    /// In a replay a transfer stands in place of each expiry, with a time of its own between those of the
    /// transfers before and after it.
    fn check_room(&mut self, timestamp: u64) {
        let Marks { transfers_mark, expiries_mark, expiries_since, .. } = self.marks;
        let needs = expiries_since > 0 && timestamp <= expiries_mark;
        if needs && timestamp.saturating_sub(expiries_since) <= transfers_mark {
            let at = segment::spelled(timestamp).unwrap_or_default();
            self.unreplayable.get_or_insert_with(|| format!(
                "a transfer was imported with the time {at}, after {expiries_since} pending transfer(s) had expired, and before that time there is no room for them; {ONLY_WAL}"
            ));
        }
    }

    /// Adds a record to the page, and pushes the page when it is full or of another sort.
    fn put(&mut self, sort: Sort, timestamp: u64, record: &[u8]) -> anyhow::Result<()> {
        let full = self.page.len() + record.len() > RECORDS_PER_PAGE as usize * RECORD_BYTES;
        if full || self.page_sort != sort {
            self.put_page()?;
        }
        if self.page.is_empty() {
            (self.page_sort, self.page_first) = (sort, timestamp);
        }
        self.page.extend_from_slice(record);
        Ok(())
    }

    fn put_page(&mut self) -> anyhow::Result<()> {
        let page = std::mem::take(&mut self.page);
        self.push(self.page_sort, self.page_first, &page)?;
        self.page = page;
        self.page.clear();
        Ok(())
    }
}
