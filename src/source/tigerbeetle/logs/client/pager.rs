//! Answers of a cluster, page by page.

use super::record::{
    self, EVENT_BYTES, EVENTS_PER_PAGE, GET_CHANGE_EVENTS, RECORD_BYTES, RECORDS_PER_PAGE,
    event_timestamp, events_filter, query_filter,
};
use super::session::{PendingAnswer, Session};
use crate::ctx::Ctx;

/// Answers to one question, page after page; the next one is asked for while a page is being used.
pub(crate) struct Pager<'s> {
    session: &'s Session,
    operation: u8,
    until: u64,
    asked: Option<PendingAnswer>,
}

impl<'s> Pager<'s> {
    /// Asks for what happened from `first` to `until`.
    pub(crate) fn begin(
        session: &'s Session,
        operation: u8,
        first: u64,
        until: u64,
    ) -> anyhow::Result<Self> {
        let mut pager = Pager { session, operation, until, asked: None };
        pager.ask(first)?;
        Ok(pager)
    }

    fn ask(&mut self, first: u64) -> anyhow::Result<()> {
        self.asked = None;
        if first <= self.until {
            let filter = match self.operation {
                GET_CHANGE_EVENTS => events_filter(first, self.until, EVENTS_PER_PAGE),
                _ => query_filter(first, self.until, RECORDS_PER_PAGE),
            };
            self.asked = Some(self.session.submit(self.operation, filter)?);
        }
        Ok(())
    }

    /// The next page; `None` after the last one.
    pub(crate) fn next(&mut self, ctx: &Ctx) -> anyhow::Result<Option<Vec<u8>>> {
        let Some(asked) = self.asked.take() else { return Ok(None) };
        let page = self.session.wait(&asked, ctx)?.bytes;
        let (bytes, at): (usize, fn(&[u8]) -> u64) = match self.operation {
            GET_CHANGE_EVENTS => (EVENT_BYTES, event_timestamp),
            _ => (RECORD_BYTES, record::timestamp),
        };
        if !page.len().is_multiple_of(bytes) {
            return Err(self.session.failed("its answer is incomplete".into()).into());
        }
        // A cluster may hold fewer than a page in a message, so only an empty page is the last.
        let Some(last) = page.rchunks(bytes).next() else { return Ok(None) };
        self.ask(at(last).saturating_add(1))?;
        Ok(Some(page))
    }
}
