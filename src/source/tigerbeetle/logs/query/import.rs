//! Records of a log on their way into a new cluster, with the times that they had.
//!
//! An expiry becomes a void, which is a transfer: it must be later than the transfers before it and
//! earlier than those after it, and gets another time than that of the expiry where a transfer that was
//! imported after it is dated before it.

use super::proof::{self, RecordSum};
use super::voids::void_id;
use crate::ctx::Ctx;
use crate::domain::timestamp::spelled;
use crate::error::{Fault, Kind};
use crate::source::tigerbeetle::logs::client::record::{
    self, CREATE_ACCOUNTS, CREATE_TRANSFERS, EXPIRY_BYTES, Expiry, LINKED, QUERY_ACCOUNTS,
    RECORD_BYTES, RECORDS_PER_PAGE, TRANSFER_IMPORTED, account_to_import, query_filter,
    transfer_to_import, void_to_import,
};
use crate::source::tigerbeetle::logs::client::session::{PendingAnswer, Session};
use crate::source::tigerbeetle::logs::segment::RecordKind;

/// What to do where a log does not replay.
const INSTEAD: &str =
    "restore a snapshot, or a moment before this; and ship this cluster's log in mode wal";

/// How much of what went in, and how it differs from the original.
#[derive(Debug, Clone, Copy, Default)]
struct ImportCounts {
    accounts: u64,
    transfers: u64,
    timeouts: u64,
    expiries: u64,
    /// Voids with another time than that of the expiry.
    moved: u64,
    /// Imported transfers that are dated before an expiry and stand after it.
    passed: u64,
    /// Imported accounts and transfers, the last ones, of which only their own time is known.
    dated: u64,
    /// Transfers that are dated by the moment and stand after what is later than it.
    left_out: u64,
}

/// Records on their way into the new cluster.
pub(super) struct Import<'s> {
    session: &'s Session,
    ctx: &'s Ctx,
    /// The last moment.
    until: u64,
    /// What the batch creates.
    kind: RecordKind,
    batch: Vec<u8>,
    /// A batch that is on its way, for the message if it is refused.
    asked: Option<(PendingAnswer, RecordKind, Vec<u8>)>,
    /// Expiries since the last transfer.
    waiting: Vec<Expiry>,
    /// The timestamp of the last transfer.
    last: u64,
    /// The time of the last expiry.
    expired: u64,
    /// What comes is later than the moment.
    is_over: bool,
    /// When the segment ends that is being imported.
    segment_end: u64,
    counts: ImportCounts,
    /// When the last of it happened.
    pub(super) newest: u64,
    /// What the cluster must have in the end.
    pub(super) sum: RecordSum,
}

impl<'s> Import<'s> {
    pub(super) fn new(session: &'s Session, until: u64, ctx: &'s Ctx) -> anyhow::Result<Self> {
        Ok(Import {
            session,
            ctx,
            until,
            kind: RecordKind::Accounts,
            batch: Vec::new(),
            asked: None,
            waiting: Vec::new(),
            last: 0,
            expired: 0,
            is_over: false,
            segment_end: 0,
            counts: ImportCounts::default(),
            newest: 0,
            sum: RecordSum::new()?,
        })
    }

    /// A segment begins. What those before it hold had happened by their ends.
    pub(super) fn segment(&mut self, end: u64) {
        self.counts.dated = 0;
        self.segment_end = end;
    }

    /// Takes a page of a segment.
    pub(super) fn page(&mut self, kind: RecordKind, page: &[u8]) -> anyhow::Result<()> {
        // A void is a transfer.
        let batch_of =
            if kind == RecordKind::Accounts { RecordKind::Accounts } else { RecordKind::Transfers };
        if batch_of != self.kind {
            self.flush()?;
            self.kind = batch_of;
        }
        let (records, _rest) = page.as_chunks::<RECORD_BYTES>();
        match kind {
            RecordKind::Expiries => {
                page.chunks(EXPIRY_BYTES).map(Expiry::read).for_each(|expiry| self.expiry(expiry));
                Ok(())
            }
            RecordKind::Accounts => records.iter().try_for_each(|account| self.account(*account)),
            RecordKind::Transfers => {
                records.iter().try_for_each(|transfer| self.transfer(*transfer))
            }
        }
    }

    fn account(&mut self, mut account: [u8; RECORD_BYTES]) -> anyhow::Result<()> {
        if record::timestamp(&account) > self.until {
            return Ok(());
        }
        self.counts.accounts += 1;
        self.counts.dated += u64::from(record::flags(&account) & record::ACCOUNT_IMPORTED != 0);
        account_to_import(&mut account);
        self.add(record::timestamp(&account), account)
    }

    /// What stands after something that is later than the moment happened later, too, whatever its
    /// own time is.
    fn transfer(&mut self, mut transfer: [u8; RECORD_BYTES]) -> anyhow::Result<()> {
        let at = record::timestamp(&transfer);
        if self.is_over || at > self.until {
            self.is_over = true;
            self.counts.left_out += u64::from(at <= self.until);
            return Ok(());
        }
        if record::flags(&transfer) & TRANSFER_IMPORTED == 0 {
            // Nobody can import anything that is older than this from now on.
            self.counts.dated = 0;
        } else {
            self.counts.dated += 1;
            self.counts.passed += u64::from(at < self.expired);
        }
        self.put_voids(at)?;
        self.counts.transfers += 1;
        self.counts.timeouts += u64::from(record::timeout(&transfer) > 0);
        transfer_to_import(&mut transfer);
        self.last = at;
        self.add(at, transfer)
    }

    fn expiry(&mut self, expiry: Expiry) {
        self.is_over |= expiry.timestamp > self.until;
        if !self.is_over {
            self.expired = self.expired.max(expiry.timestamp);
            self.waiting.push(expiry);
        }
    }

    /// Voids what has expired before the transfer with the time `next`.
    fn put_voids(&mut self, mut next: u64) -> anyhow::Result<()> {
        let waiting = std::mem::take(&mut self.waiting);
        let mut placed: Vec<(u64, Expiry)> = Vec::with_capacity(waiting.len());
        for expiry in waiting.into_iter().rev() {
            let mut at = expiry.timestamp.min(next.saturating_sub(1));
            if at < expiry.timestamp {
                self.counts.moved += 1;
                while at > self.last && self.is_of_an_account(at)? {
                    at -= 1;
                }
            }
            if at <= self.last {
                let time = spelled(expiry.timestamp).unwrap_or_default();
                let message = format!(
                    "the expiry of {time} cannot be replayed: transfers that were imported after it leave no time for it"
                );
                return Err(Fault::new(Kind::Integrity, message).hint(INSTEAD).into());
            }
            placed.push((at, expiry));
            next = at;
        }
        for (at, expiry) in placed.into_iter().rev() {
            self.counts.expiries += 1;
            self.last = at;
            self.newest = self.newest.max(expiry.timestamp);
            self.add(at, void_to_import(void_id(expiry.pending), expiry.pending, at))?;
        }
        Ok(())
    }

    /// Whether an account has this timestamp: then no transfer may have it.
    fn is_of_an_account(&self, at: u64) -> anyhow::Result<bool> {
        let found = self.session.ask(QUERY_ACCOUNTS, query_filter(at, at, 1), self.ctx)?;
        Ok(!found.bytes.is_empty())
    }

    fn add(&mut self, timestamp: u64, record: [u8; RECORD_BYTES]) -> anyhow::Result<()> {
        self.newest = self.newest.max(timestamp);
        self.batch.extend_from_slice(&record);
        if self.batch.len() >= RECORDS_PER_PAGE as usize * RECORD_BYTES {
            self.send()?;
        }
        Ok(())
    }

    /// Sends the batch, up to the end of its last whole chain.
    fn send(&mut self) -> anyhow::Result<()> {
        let chained = self.batch.rchunks(RECORD_BYTES);
        let open = chained.take_while(|record| record::flags(record) & LINKED != 0).count();
        let rest = self.batch.split_off(self.batch.len() - open * RECORD_BYTES);
        let batch = std::mem::replace(&mut self.batch, rest);
        self.await_batch()?;
        if !batch.is_empty() {
            batch.chunks(RECORD_BYTES).for_each(|record| self.sum.add(self.kind, record));
            let operation = operation_of(self.kind);
            let asked = self.session.submit(operation, batch.clone())?;
            self.asked = Some((asked, self.kind, batch));
        }
        Ok(())
    }

    /// Sends the batch and waits until everything was taken. A chain that is still open did not exist
    /// at this moment: the moment lies between its records, and the cluster took them as one.
    fn flush(&mut self) -> anyhow::Result<()> {
        self.send()?;
        self.await_batch()?;
        let open = (self.batch.len() / RECORD_BYTES) as u64;
        self.batch.clear();
        let ImportCounts { accounts, transfers, .. } = &mut self.counts;
        let counted = if self.kind == RecordKind::Accounts { accounts } else { transfers };
        *counted = counted.saturating_sub(open);
        Ok(())
    }

    /// Sends everything and waits until it was taken.
    pub(super) fn finish(&mut self) -> anyhow::Result<()> {
        if self.kind == RecordKind::Accounts {
            self.flush()?;
            self.kind = RecordKind::Transfers;
        }
        self.put_voids(u64::MAX)?;
        if self.segment_end <= self.until {
            self.counts.dated = 0;
        }
        self.flush()
    }

    /// Waits for the batch on its way.
    fn await_batch(&mut self) -> anyhow::Result<()> {
        let Some((asked, kind, batch)) = self.asked.take() else { return Ok(()) };
        let answer = self.session.wait(&asked, self.ctx)?.bytes;
        self.ctx.monitor.advance(batch.len() as u64);
        let Some((index, code)) = record::first_refusal(&answer) else { return Ok(()) };
        // What somebody else added makes what comes refused.
        proof::nothing_later(self.session, self.until, self.ctx)?;
        let refused = batch.chunks(RECORD_BYTES).nth(index).unwrap_or_default();
        let message = format!(
            "{} of {} {} cannot be replayed; the first has id {} and the time {}: {}",
            answer.len() / 8,
            batch.len() / RECORD_BYTES,
            kind.word(),
            record::id(refused),
            spelled(record::timestamp(refused)).unwrap_or_default(),
            record::refusal(operation_of(kind), code),
        );
        Err(Fault::new(Kind::Integrity, message).hint(INSTEAD).into())
    }

    /// In what the result differs from the original.
    pub(super) fn differences(&self) -> Vec<String> {
        let ImportCounts { accounts, transfers, timeouts, expiries, .. } = self.counts;
        let ImportCounts { moved, passed, dated, left_out, .. } = self.counts;
        let mut differences = vec![
            format!("{accounts} accounts and {transfers} transfers carry the flag `imported`"),
            "ids of rejected transfers are not preserved: such a transfer can be sent again"
                .to_owned(),
        ];
        let counted = [
            (
                timeouts,
                "pending transfers have timeout 0: those still pending do not expire by themselves",
            ),
            (
                expiries,
                "expired pending transfers are voided instead, by as many transfers that do not exist in the original",
            ),
            (
                moved,
                "of these voids are dated before the expiry, since transfers that were imported after it are; the history of balances has them at that time",
            ),
            (
                passed,
                "imported transfers are dated before an expiry that stands before them: the history of balances has the expired amount released by then, and the original may have it still pending",
            ),
            (
                dated,
                "imported accounts or transfers are dated by this moment, and the cluster may have taken them after it",
            ),
            (
                left_out,
                "imported transfers are dated by this moment and left out, since the cluster may have taken them after it",
            ),
        ];
        let counted = counted.into_iter().filter(|(count, _)| *count > 0);
        differences.extend(counted.map(|(count, what)| format!("{count} {what}")));
        differences
    }
}

fn operation_of(kind: RecordKind) -> u8 {
    if kind == RecordKind::Accounts { CREATE_ACCOUNTS } else { CREATE_TRANSFERS }
}
