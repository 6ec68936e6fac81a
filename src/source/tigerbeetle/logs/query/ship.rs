//! Mode `query`: ships what the cluster answers, page by page.
//!
//! A segment covers the time from the end of the one before it to the moment at which the cluster is
//! first asked. Everything that it had taken until then has an earlier timestamp. Accounts and
//! transfers each go on from the last one shipped, because imported ones have timestamps of the past;
//! expiries are only told by change events, and only asked for once a timeout was seen.

use std::time::Duration;

use serde_json::Value;

use super::shipment::{Shipment, Shipped};
use crate::archive::EntrySink;
use crate::ctx::Ctx;
use crate::domain::timestamp;
use crate::error::{Fault, Kind};
use crate::pipeline::log_files::LogFiles;
use crate::source::logs::{LogSource, OnGap};
use crate::source::tigerbeetle::cluster::totals::Totals;
use crate::source::tigerbeetle::data_file::quorum::read_live_superblock;
use crate::source::tigerbeetle::logs::capture_record::{Marks, Mode, Position, SegmentRecord};
use crate::source::tigerbeetle::logs::client::pager::Pager;
use crate::source::tigerbeetle::logs::client::record::{
    self, EVENT_BYTES, Expiry, GET_CHANGE_EVENTS, QUERY_ACCOUNTS, QUERY_TRANSFERS, RECORD_BYTES,
    events_filter, query_filter,
};
use crate::source::tigerbeetle::logs::client::session::Session;
use crate::source::tigerbeetle::logs::segment::close_segment;
use crate::source::tigerbeetle::logs::shipping::Shipping;

/// A cluster that is asked.
pub(crate) struct QueryLog {
    source: Shipping,
    session: Option<(Session, u128)>,
}

impl QueryLog {
    pub(crate) fn new(source: Shipping) -> QueryLog {
        QueryLog { source, session: None }
    }

    /// The session, made when it is first needed or after one that failed, and the cluster's id.
    fn session(&mut self, ctx: &Ctx) -> anyhow::Result<(&Session, u128)> {
        if self.session.is_none() {
            let replica = &self.source.replica;
            let cluster = match replica.cluster {
                Some(cluster) => cluster,
                // The only thing that this mode needs the file for.
                None => read_live_superblock(&replica.data_file, ctx)
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
        Ok(session.ok_or_else(|| Fault::new(Kind::Failed, "no session"))?)
    }

    /// Does something in the session; one that failed is not used again.
    fn in_session<T>(
        &mut self,
        after: Option<&SegmentRecord>,
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
    fn ask(session: &Session, after: Option<&SegmentRecord>, ctx: &Ctx) -> anyhow::Result<Span> {
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
                let at = timestamp::spelled(mark).unwrap_or_default();
                gap = Some(format!(
                    "the cluster has no {what} of {at}, which was shipped: it has a different history, which is shipped from its beginning"
                ));
            }
        }
        let until = session.now(ctx)?;
        if gap.is_none() && until <= covered {
            gap = Some(format!(
                "the cluster's clock went back behind {}: it has a different history, which is shipped from its beginning",
                timestamp::spelled(covered).unwrap_or_default()
            ));
        }
        Ok(match gap {
            None => Span { marks, covered, until, gap },
            Some(_) => Span { marks: Marks::default(), covered: 0, until, gap },
        })
    }
}

impl LogSource for QueryLog {
    fn mode(&self) -> &'static str {
        Mode::Query.as_str()
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
        self.in_session(after, ctx, |session, _, own| {
            let Span { marks, covered, until, gap } = Span::ask(session, after, ctx)?;
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
        after: Option<&Value>,
        _files: &LogFiles<'_>,
        out: &mut dyn EntrySink,
        ctx: &Ctx,
    ) -> anyhow::Result<Value> {
        let after = Shipping::segment_before(after)?;
        let after = after.as_ref();
        self.in_session(after, ctx, |session, cluster, _own| {
            let Span { marks, covered, until, gap } = Span::ask(session, after, ctx)?;
            // From the beginning on, or from where the segment before has them.
            let totals = match after.filter(|_after| gap.is_none()) {
                None => Some(Totals::default()),
                Some(after) => after.totals,
            };
            let shipment = Shipment::new(session, out, ctx, covered..until, marks, totals);
            let Shipped { marks, first, counts, unreplayable, totals } = shipment.ship()?;
            let begin = if covered > 0 { covered + 1 } else { first.min(until) };
            let segment = SegmentRecord {
                mode: Mode::Query,
                consistency: "transaction-consistent".into(),
                cluster: cluster.to_string(),
                parent_sha256: None,
                gap,
                unreplayable,
                position: Position {
                    first_timestamp: begin,
                    last_timestamp: until,
                    last_time: timestamp::spelled(until),
                    ops: None,
                    marks: Some(marks),
                },
                records: counts,
                totals,
            };
            close_segment(&segment, out)?;
            Ok(serde_json::to_value(&segment)?)
        })
    }
}
