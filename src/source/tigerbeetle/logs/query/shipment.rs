//! The records of a segment of mode `query`: asked for page by page, put in the order in which they can
//! be replayed, and pushed member by member.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use super::order::{OrderedItem, ReplayOrder};
use crate::archive::EntrySink;
use crate::ctx::Ctx;
use crate::domain::timestamp;
use crate::source::tigerbeetle::cluster::totals::Totals;
use crate::source::tigerbeetle::logs::capture_record::Marks;
use crate::source::tigerbeetle::logs::client::pager::Pager;
use crate::source::tigerbeetle::logs::client::record::{
    self, EVENT_BYTES, Expiry, GET_ACCOUNT_TRANSFERS, GET_CHANGE_EVENTS, QUERY_ACCOUNTS,
    QUERY_TRANSFERS, RECORD_BYTES, RECORDS_PER_PAGE,
};
use crate::source::tigerbeetle::logs::client::session::Session;
use crate::source::tigerbeetle::logs::segment::RecordKind;

/// What to do where a log of this mode cannot be replayed.
const ONLY_WAL: &str =
    "from here on, a log in mode query cannot be restored: ship this cluster's log in mode wal";

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

/// One segment of mode `query` being made.
pub(super) struct Shipment<'s, 'o> {
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
    order: ReplayOrder,
    /// The member that is being made, its kind and its first timestamp.
    page: Vec<u8>,
    page_kind: RecordKind,
    page_first: u64,
    /// Why a restore cannot go on over this segment.
    unreplayable: Option<String>,
    /// What was shipped so far comes to.
    totals: Option<Totals>,
}

/// What a shipment came to.
pub(super) struct Shipped {
    /// How far the log has come.
    pub(super) marks: Marks,
    /// The timestamp of the first record; `u64::MAX` if there is none.
    pub(super) first: u64,
    /// How many records of each kind there are.
    pub(super) counts: BTreeMap<String, u64>,
    /// Why a restore cannot go on over this segment.
    pub(super) unreplayable: Option<String>,
    /// What all that was shipped comes to, from the beginning on, if that is known.
    pub(super) totals: Option<Totals>,
}

impl<'s, 'o> Shipment<'s, 'o> {
    /// A shipment of what the cluster took in this time, behind `marks`, into `out`.
    pub(super) fn new(
        session: &'s Session,
        out: &'o mut dyn EntrySink,
        ctx: &'o Ctx,
        time: Range<u64>,
        marks: Marks,
        totals: Option<Totals>,
    ) -> Shipment<'s, 'o> {
        Shipment {
            session,
            out,
            ctx,
            until: time.end,
            covered: time.start,
            marks,
            first: u64::MAX,
            counts: BTreeMap::new(),
            expiries: Expiries { pager: None, found: VecDeque::new() },
            order: ReplayOrder::default(),
            page: Vec::new(),
            page_kind: RecordKind::Transfers,
            page_first: 0,
            unreplayable: None,
            totals,
        }
    }

    /// Ships it.
    pub(super) fn ship(mut self) -> anyhow::Result<Shipped> {
        self.accounts()?;
        self.transfers()?;
        let Shipment { marks, first, counts, unreplayable, totals, .. } = self;
        Ok(Shipped { marks, first, counts, unreplayable, totals })
    }

    fn push(&mut self, kind: RecordKind, timestamp: u64, bytes: &[u8]) -> anyhow::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.first = self.first.min(timestamp);
        let count = (bytes.len() / kind.bytes()) as u64;
        *self.counts.entry(kind.word().to_owned()).or_default() += count;
        self.ctx.monitor.advance(bytes.len() as u64);
        self.out.entry(&kind.member(timestamp), bytes)
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
            self.push(RecordKind::Accounts, record::timestamp(&page), &page)?;
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
                OrderedItem::Transfer(transfer) => {
                    let timestamp = record::timestamp(&transfer);
                    self.check_room(timestamp);
                    self.marks.transfers_mark = timestamp;
                    self.marks.expiries_since = 0;
                    if let Some(totals) = &mut self.totals {
                        let posted = record::posted(&transfer);
                        totals.debits_posted = totals.debits_posted.saturating_add(posted);
                        totals.credits_posted = totals.credits_posted.saturating_add(posted);
                    }
                    self.put(RecordKind::Transfers, timestamp, &transfer)?;
                }
                OrderedItem::Expiry(expiry) => {
                    self.marks.expiries_mark = self.marks.expiries_mark.max(expiry.timestamp);
                    self.marks.expiries_since += 1;
                    self.put(RecordKind::Expiries, expiry.timestamp, &expiry.bytes())?;
                }
            }
        }
        if let Some(expiry) = self.order.misplaced.take() {
            let at = timestamp::spelled(expiry.timestamp).unwrap_or_default();
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
            let at = timestamp::spelled(timestamp).unwrap_or_default();
            self.unreplayable.get_or_insert_with(|| format!(
                "a transfer was imported with the time {at}, after {expiries_since} pending transfer(s) had expired, and there is no room for them before that time; {ONLY_WAL}"
            ));
        }
    }

    /// Adds a record to the page, and pushes the page when it is full or of another kind.
    fn put(&mut self, kind: RecordKind, timestamp: u64, record: &[u8]) -> anyhow::Result<()> {
        let full = self.page.len() + record.len() > RECORDS_PER_PAGE as usize * RECORD_BYTES;
        if full || self.page_kind != kind {
            self.put_page()?;
        }
        if self.page.is_empty() {
            (self.page_kind, self.page_first) = (kind, timestamp);
        }
        self.page.extend_from_slice(record);
        Ok(())
    }

    fn put_page(&mut self) -> anyhow::Result<()> {
        let page = std::mem::take(&mut self.page);
        self.push(self.page_kind, self.page_first, &page)?;
        self.page = page;
        self.page.clear();
        Ok(())
    }
}
