//! Checks that the new cluster contains exactly what was replayed.
//!
//! The server of a replay listens on loopback, where other users of the machine may reach it. So
//! everything is read back and compared, and once the server is gone its log must say that nothing was
//! written since.

use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::voids::{is_of_expiry, void_to_compare};
use crate::ctx::Ctx;
use crate::error::{Fault, Kind};
use crate::source::device::{Buffer, Device};
use crate::source::tigerbeetle::data_file::checkpoints::PIPELINE_OPS;
use crate::source::tigerbeetle::data_file::prepare::PrepareHeader;
use crate::source::tigerbeetle::data_file::quorum::read_live_superblock;
use crate::source::tigerbeetle::data_file::rings::{HeaderRing, read_prepare};
use crate::source::tigerbeetle::data_file::zones::{MESSAGE_BYTES, SLOTS};
use crate::source::tigerbeetle::logs::client::pager::Pager;
use crate::source::tigerbeetle::logs::client::record::{
    self, Effect, QUERY_ACCOUNTS, QUERY_TRANSFERS, RECORD_BYTES, effect, query_filter,
};
use crate::source::tigerbeetle::logs::client::session::Session;
use crate::source::tigerbeetle::logs::segment::RecordKind;

/// How many accounts and transfers there are, and a sum over all their fields but balances, which
/// follow from the transfers. The order does not matter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RecordSum {
    /// So that nobody can know which records have the same sum.
    secret: [u8; 16],
    accounts: (u64, u128),
    transfers: (u64, u128),
}

impl RecordSum {
    pub(super) fn new() -> Result<RecordSum, getrandom::Error> {
        let mut secret = [0; 16];
        getrandom::fill(&mut secret)?;
        Ok(RecordSum { secret, accounts: (0, 0), transfers: (0, 0) })
    }

    /// Adds a record as it was sent or as it is answered.
    pub(super) fn add(&mut self, kind: RecordKind, record: &[u8]) {
        let Some(mut record) = record.first_chunk::<RECORD_BYTES>().copied() else { return };
        let is_account = kind == RecordKind::Accounts;
        if is_account {
            record::as_created(&mut record, false);
        } else if is_of_expiry(&record) {
            // The cluster adds what it takes from the pending transfer.
            record = void_to_compare(&record);
        }
        let digest = Sha256::new()
            .chain_update(self.secret)
            .chain_update([u8::from(is_account)])
            .chain_update(record);
        let digest: [u8; 32] = digest.finalize().into();
        let digest = digest.first_chunk().map_or(0, |first: &[u8; 16]| u128::from_le_bytes(*first));
        let sum = if is_account { &mut self.accounts } else { &mut self.transfers };
        *sum = (sum.0 + 1, sum.1.wrapping_add(digest));
    }
}

/// Reads everything back. Returns the time since which nothing was looked at.
///
/// # Errors
/// [`Kind::Refused`] if there is something else than what was sent.
pub(super) fn compare(session: &Session, expected: &RecordSum, ctx: &Ctx) -> anyhow::Result<u64> {
    let mut found = RecordSum { accounts: (0, 0), transfers: (0, 0), ..expected.clone() };
    let mut ends = [0; 2];
    let kinds = [(RecordKind::Accounts, QUERY_ACCOUNTS), (RecordKind::Transfers, QUERY_TRANSFERS)];
    for ((kind, operation), end) in kinds.into_iter().zip(&mut ends) {
        let mut pager = Pager::begin(session, operation, 1, session.now(ctx)?)?;
        while let Some(page) = pager.next(ctx)? {
            page.chunks(RECORD_BYTES).for_each(|record| found.add(kind, record));
            *end = page.rchunks(RECORD_BYTES).next().map_or(*end, record::timestamp);
        }
    }
    if found != *expected {
        return Err(foreign_records(&format!(
            "it has {} accounts and {} transfers instead of the {} and {} of the log",
            found.accounts.0, found.transfers.0, expected.accounts.0, expected.transfers.0
        )));
    }
    // Nothing can be created with a time before that of the last account, or transfer.
    let mut since = u64::MAX;
    for ((_, operation), end) in kinds.into_iter().zip(ends) {
        let later = session.ask(operation, query_filter(end + 1, 0, 1), ctx)?;
        if !later.bytes.is_empty() {
            return Err(foreign_records("records were added while it was compared with the log"));
        }
        since = since.min(later.timestamp);
    }
    Ok(since)
}

/// Makes sure that nothing is later than the moment that is being restored: whatever bkp sends is not.
///
/// # Errors
/// [`Kind::Refused`] if something is.
pub(super) fn nothing_later(session: &Session, until: u64, ctx: &Ctx) -> anyhow::Result<()> {
    for operation in [QUERY_ACCOUNTS, QUERY_TRANSFERS] {
        let later = session.ask(operation, query_filter(until + 1, 0, 1), ctx)?;
        if !later.bytes.is_empty() {
            return Err(foreign_records("it has records of today"));
        }
    }
    Ok(())
}

/// Looks at the log of the file, whose server is gone: since the comparison nothing was written.
///
/// # Errors
/// [`Kind::Refused`] if something was, or if that cannot be told.
pub(super) fn nothing_since(path: &Path, since: u64, ctx: &Ctx) -> anyhow::Result<()> {
    let superblock = read_live_superblock(path, ctx)?;
    let device = Device::open(path)?;
    let mut buffer = Buffer::new(MESSAGE_BYTES);
    let mut headers = HeaderRing::read(&device, &mut buffer, &superblock)?.0;
    // The ring of headers may lag behind the operations.
    let head = headers.iter().map(PrepareHeader::op).max().unwrap_or(0);
    for op in head + 1..=head + 2 * PIPELINE_OPS {
        let found = read_prepare(&device, &mut buffer, superblock.cluster(), op % SLOTS)?;
        headers.extend(found.filter(|found| !found.is_reserved() && found.op() == op));
    }
    let reaches_back = headers.iter().any(|header| header.timestamp() <= since);
    let changes = |header: &PrepareHeader| {
        header.timestamp() > since
            && matches!(effect(header.operation()), Effect::Records | Effect::Unknown)
    };
    if !reaches_back || headers.iter().any(changes) {
        return Err(foreign_records("its log has operations that bkp did not send"));
    }
    Ok(())
}

fn foreign_records(why: &str) -> anyhow::Error {
    let message = format!(
        "another client wrote to the server into which the log was replayed: {why}; nothing was restored"
    );
    Fault::new(Kind::Refused, message)
        .hint("find out who uses this machine; restore where nobody else can connect to loopback ports, or where the system lets this user create a network namespace (`unshare --user --net true`)")
        .into()
}
