//! Records of TigerBeetle's client protocol, as they travel and as segments keep them.
//!
//! The offsets are those of `src/tigerbeetle.zig` (`Account`, `Transfer`, `QueryFilter`,
//! `ChangeEvent`, `ChangeEventsFilter`) and `src/vsr/multi_batch.zig`; `tb_client.h` has the same. All
//! integers are little-endian.

use std::collections::BTreeSet;

use crate::source::tigerbeetle::data_file::prepare::PrepareHeader;
use crate::source::tigerbeetle::logs::spans::Spans;

/// Size of an account, of a transfer and of the elements of their batches, bytes.
pub(crate) const RECORD_BYTES: usize = 128;
/// Size of a change event, bytes.
pub(crate) const EVENT_BYTES: usize = 384;
/// Size of an expiry in a segment, bytes: the pending transfer's id (16), the time (8), the ledger
/// number (4), zeros (4).
pub(crate) const EXPIRY_BYTES: usize = 32;

/// Records and change events that an answer of 1 MiB holds.
pub(crate) const RECORDS_PER_PAGE: u32 = 8189;
pub(crate) const EVENTS_PER_PAGE: u32 = 2730;

/// Operations of a client.
pub(crate) const GET_CHANGE_EVENTS: u8 = 137;
pub(crate) const CREATE_ACCOUNTS: u8 = 138;
pub(crate) const CREATE_TRANSFERS: u8 = 139;
pub(crate) const GET_ACCOUNT_TRANSFERS: u8 = 142;
pub(crate) const QUERY_ACCOUNTS: u8 = 144;
pub(crate) const QUERY_TRANSFERS: u8 = 145;
/// The same operations of older clients, whose batches have no trailer.
const CREATE_ACCOUNTS_UNBATCHED: u8 = 129;
const CREATE_TRANSFERS_UNBATCHED: u8 = 130;

/// Flags of an account.
pub(crate) const ACCOUNT_IMPORTED: u16 = 1 << 4;
pub(crate) const ACCOUNT_CLOSED: u16 = 1 << 5;
/// Flags of a transfer; an account has `LINKED` too.
pub(crate) const LINKED: u16 = 1 << 0;
pub(crate) const PENDING: u16 = 1 << 1;
pub(crate) const VOID: u16 = 1 << 3;
pub(crate) const TRANSFER_IMPORTED: u16 = 1 << 8;

/// The type of a change event that tells of an expiry.
const EVENT_EXPIRED: u8 = 4;
const NANOSECONDS: u64 = 1_000_000_000;

/// Where an account has its balances.
const BALANCES: std::ops::Range<usize> = 16..80;
/// Offsets that accounts and transfers share.
const LEDGER_AT: usize = 112;
const FLAGS_AT: usize = 118;
const TIMESTAMP_AT: usize = 120;
/// Offsets in a transfer.
const DEBIT_ACCOUNT_AT: usize = 16;
const CREDIT_ACCOUNT_AT: usize = 32;
const AMOUNT_AT: usize = 48;
const PENDING_ID_AT: usize = 64;
const TIMEOUT_AT: usize = 108;

fn field<const N: usize>(record: &[u8], at: usize) -> [u8; N] {
    record.get(at..at + N).and_then(|bytes| bytes.try_into().ok()).unwrap_or([0; N])
}

fn put(record: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = record.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

/// The id of an account or transfer.
pub(crate) fn id(record: &[u8]) -> u128 {
    u128::from_le_bytes(field(record, 0))
}

/// The timestamp of an account or transfer, nanoseconds since 1970.
pub(crate) fn timestamp(record: &[u8]) -> u64 {
    u64::from_le_bytes(field(record, TIMESTAMP_AT))
}

/// The ledger number of an account or transfer.
pub(crate) fn ledger(record: &[u8]) -> u32 {
    u32::from_le_bytes(field(record, LEDGER_AT))
}

/// The flags of an account or transfer.
pub(crate) fn flags(record: &[u8]) -> u16 {
    u16::from_le_bytes(field(record, FLAGS_AT))
}

/// The accounts of a transfer.
pub(crate) fn accounts(transfer: &[u8]) -> [u128; 2] {
    [DEBIT_ACCOUNT_AT, CREDIT_ACCOUNT_AT].map(|at| u128::from_le_bytes(field(transfer, at)))
}

/// The pending transfer that a transfer posts or voids; 0 for others.
pub(crate) fn pending_id(transfer: &[u8]) -> u128 {
    u128::from_le_bytes(field(transfer, PENDING_ID_AT))
}

/// What a transfer posts to its accounts.
pub(crate) fn posted(transfer: &[u8]) -> u128 {
    let amount = u128::from_le_bytes(field(transfer, AMOUNT_AT));
    if flags(transfer) & (PENDING | VOID) == 0 { amount } else { 0 }
}

/// Whether an account is closed although no balance of it says that a transfer closed it.
pub(crate) fn is_closed_and_empty(account: &[u8]) -> bool {
    let balances = account.get(BALANCES).unwrap_or_default();
    flags(account) & ACCOUNT_CLOSED != 0 && balances.iter().all(|byte| *byte == 0)
}

/// The timeout of a pending transfer, seconds; 0 if it has none.
pub(crate) fn timeout(transfer: &[u8]) -> u32 {
    if flags(transfer) & PENDING == 0 { 0 } else { u32::from_le_bytes(field(transfer, TIMEOUT_AT)) }
}

/// Takes from an account what transfers made of it: balances, and that it is closed, unless it was so
/// from the beginning.
pub(crate) fn as_created(account: &mut [u8], created_closed: bool) {
    put(account, BALANCES.start, &[0; BALANCES.end - BALANCES.start]);
    if !created_closed {
        let flags = flags(account) & !ACCOUNT_CLOSED;
        put(account, FLAGS_AT, &flags.to_le_bytes());
    }
}

/// This account, to be imported.
pub(crate) fn account_to_import(account: &mut [u8]) {
    let flags = flags(account) | ACCOUNT_IMPORTED;
    put(account, FLAGS_AT, &flags.to_le_bytes());
}

/// This transfer, to be imported: an import takes no timeout.
pub(crate) fn transfer_to_import(transfer: &mut [u8]) {
    let flags = flags(transfer) | TRANSFER_IMPORTED;
    put(transfer, FLAGS_AT, &flags.to_le_bytes());
    put(transfer, TIMEOUT_AT, &[0; 4]);
}

/// A transfer that voids a pending one at that time, to be imported in place of its expiry.
pub(crate) fn void_to_import(id: u128, pending: u128, timestamp: u64) -> [u8; RECORD_BYTES] {
    let mut record = [0; RECORD_BYTES];
    put(&mut record, 0, &id.to_le_bytes());
    put(&mut record, PENDING_ID_AT, &pending.to_le_bytes());
    put(&mut record, FLAGS_AT, &(VOID | TRANSFER_IMPORTED).to_le_bytes());
    put(&mut record, TIMESTAMP_AT, &timestamp.to_le_bytes());
    record
}

/// An expiry of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Expiry {
    pub(crate) pending: u128,
    pub(crate) timestamp: u64,
    pub(crate) ledger: u32,
    /// Both accounts of the pending transfer; not in a segment, and zero when read from one.
    pub(crate) accounts: [u128; 2],
}

impl Expiry {
    /// The expiry that a change event tells of, if it tells of one.
    pub(crate) fn of_event(event: &[u8]) -> Option<Expiry> {
        let expired = event.get(88) == Some(&EVENT_EXPIRED);
        expired.then(|| Expiry {
            pending: id(event),
            timestamp: event_timestamp(event),
            ledger: u32::from_le_bytes(field(event, 84)),
            accounts: [128, 240].map(|at| u128::from_le_bytes(field(event, at))),
        })
    }

    pub(crate) fn bytes(self) -> [u8; EXPIRY_BYTES] {
        let mut record = [0; EXPIRY_BYTES];
        put(&mut record, 0, &self.pending.to_le_bytes());
        put(&mut record, 16, &self.timestamp.to_le_bytes());
        put(&mut record, 24, &self.ledger.to_le_bytes());
        record
    }

    pub(crate) fn read(record: &[u8]) -> Expiry {
        Expiry {
            pending: id(record),
            timestamp: u64::from_le_bytes(field(record, 16)),
            ledger: u32::from_le_bytes(field(record, 24)),
            accounts: [0; 2],
        }
    }
}

/// The first record that was refused, by its place in the batch, and the result's number; `None` if
/// everything was taken.
pub(crate) fn first_refusal(answer: &[u8]) -> Option<(usize, u32)> {
    let number = |at| u32::from_le_bytes(field(answer, at));
    (!answer.is_empty()).then(|| (number(0) as usize, number(4)))
}

/// What a cluster says of a record that it refuses (`tb_client.h`), as far as a replay can meet it.
pub(crate) fn refusal(operation: u8, code: u32) -> String {
    let words = match (operation, code) {
        (_, 1) => "another record of its chain is refused",
        (CREATE_ACCOUNTS, 15..=20) => "there is another account with this id",
        (CREATE_ACCOUNTS, 21) => "there is this account already",
        (CREATE_ACCOUNTS, 25) | (CREATE_TRANSFERS, 59) => {
            "its time is later than the server's clock"
        }
        (CREATE_ACCOUNTS, 26) | (CREATE_TRANSFERS, 60) => {
            "its time is not later than that of what was taken before"
        }
        (CREATE_TRANSFERS, 21 | 22) => "one of its accounts does not exist",
        (CREATE_TRANSFERS, 25 | 26) => "the pending transfer that it resolves does not exist",
        (CREATE_TRANSFERS, 33..=35) => "the pending transfer that it resolves is resolved already",
        (CREATE_TRANSFERS, 36..=40 | 44 | 45 | 67) => "there is another transfer with this id",
        (CREATE_TRANSFERS, 46) => "there is this transfer already",
        (CREATE_TRANSFERS, 54) => "it exceeds the credits of its debit account",
        (CREATE_TRANSFERS, 55) => "it exceeds the debits of its credit account",
        (CREATE_TRANSFERS, 61 | 62) => "it is older than one of its accounts",
        (CREATE_TRANSFERS, 65 | 66) => "one of its accounts is closed",
        _ => return format!("the cluster refuses it with result {code} of tb_client.h"),
    };
    words.to_owned()
}

/// When a change event happened.
pub(crate) fn event_timestamp(event: &[u8]) -> u64 {
    u64::from_le_bytes(field(event, 352))
}

/// The question for accounts or transfers of these times.
pub(crate) fn query_filter(first: u64, last: u64, limit: u32) -> Vec<u8> {
    let mut filter = vec![0; 64];
    put(&mut filter, 40, &first.to_le_bytes());
    put(&mut filter, 48, &last.to_le_bytes());
    put(&mut filter, 56, &limit.to_le_bytes());
    filter
}

/// The question for one transfer of an account, whatever side it is on.
pub(crate) fn any_transfer_of(account: u128) -> Vec<u8> {
    const DEBITS_AND_CREDITS: u32 = 3;
    let mut filter = vec![0; 128];
    put(&mut filter, 0, &account.to_le_bytes());
    put(&mut filter, 120, &1_u32.to_le_bytes());
    put(&mut filter, 124, &DEBITS_AND_CREDITS.to_le_bytes());
    filter
}

/// The question for change events of these times.
pub(crate) fn events_filter(first: u64, last: u64, limit: u32) -> Vec<u8> {
    let mut filter = vec![0; 64];
    put(&mut filter, 0, &first.to_le_bytes());
    put(&mut filter, 8, &last.to_le_bytes());
    put(&mut filter, 16, &limit.to_le_bytes());
    filter
}

/// What an operation of the log may change in the books.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Nothing: a question, or a client's registration.
    None,
    /// Pending transfers may expire.
    Expiries,
    /// Accounts or transfers are created, or refused.
    Records,
    /// Not known to this version.
    Unknown,
}

/// What an operation with this number may change.
pub(crate) fn effect(operation: u8) -> Effect {
    match operation {
        // root, register, noop
        1 | 2 | 6 => Effect::None,
        // pulse
        4 | 128 => Effect::Expiries,
        CREATE_ACCOUNTS
        | CREATE_TRANSFERS
        | CREATE_ACCOUNTS_UNBATCHED
        | CREATE_TRANSFERS_UNBATCHED => Effect::Records,
        // lookups and queries
        131..=137 | 140..=145 => Effect::None,
        _ => Effect::Unknown,
    }
}

/// Whether all records of an operation that creates some are of the ledger `own`.
pub(crate) fn is_own(own: u32, operation: u8, body: &[u8]) -> bool {
    created_records(operation, body).all(|record| ledger(record) == own)
}

/// Adds when the pending transfers of an operation expire. Those of the ledger `own` do not count.
pub(crate) fn add_expiries(
    own: Option<u32>,
    header: &PrepareHeader,
    body: &[u8],
    spans: &mut Spans,
) {
    if ![CREATE_TRANSFERS, CREATE_TRANSFERS_UNBATCHED].contains(&header.operation()) {
        return;
    }
    let foreign =
        created_records(header.operation(), body).filter(|record| Some(ledger(record)) != own);
    let timeouts: BTreeSet<u32> = foreign.map(timeout).filter(|timeout| *timeout > 0).collect();
    for timeout in timeouts {
        let last = header.timestamp().saturating_add(u64::from(timeout) * NANOSECONDS);
        // The transfers of a batch have times one nanosecond apart, the last one that of the operation.
        spans.add(last.saturating_sub(u64::from(RECORDS_PER_PAGE)), last);
    }
}

/// The records of the body of an operation that creates some. A batch of batches ends with a trailer
/// of 16-bit numbers, the number of batches last, padded to whole records.
fn created_records(operation: u8, body: &[u8]) -> std::slice::Chunks<'_, u8> {
    let has_trailer = [CREATE_ACCOUNTS, CREATE_TRANSFERS].contains(&operation);
    let trailer = if has_trailer {
        let at = body.len().saturating_sub(2);
        let batches = usize::from(u16::from_le_bytes(field(body, at)));
        (2 * (batches + 1)).next_multiple_of(RECORD_BYTES)
    } else {
        0
    };
    let end = body.len().saturating_sub(trailer);
    body.get(..end).unwrap_or_default().chunks(RECORD_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(ledger: u32, flags: u16, timeout: u32) -> [u8; RECORD_BYTES] {
        let mut record = [0; RECORD_BYTES];
        put(&mut record, LEDGER_AT, &ledger.to_le_bytes());
        put(&mut record, FLAGS_AT, &flags.to_le_bytes());
        put(&mut record, TIMEOUT_AT, &timeout.to_le_bytes());
        record
    }

    #[test]
    fn a_batch_of_batches_has_a_trailer() {
        let mut body = [record(12, 0, 0), record(12, 0, 0)].concat();
        assert!(is_own(12, CREATE_TRANSFERS_UNBATCHED, &body));
        body.extend([0xff; RECORD_BYTES - 6]);
        body.extend([1_u16, 1, 2].map(u16::to_le_bytes).concat());
        assert_eq!(created_records(CREATE_TRANSFERS, &body).count(), 2);
        assert!(is_own(12, CREATE_TRANSFERS, &body));
        assert!(!is_own(11, CREATE_TRANSFERS, &body));
        assert_eq!(created_records(CREATE_TRANSFERS, &[1]).count(), 0);
    }

    #[test]
    fn an_expiry_reads_back() {
        let expiry = Expiry { pending: 1 << 100, timestamp: 77, ledger: 3, accounts: [8, 9] };
        assert_eq!(Expiry::read(&expiry.bytes()), Expiry { accounts: [0; 2], ..expiry });
        let mut event = vec![0; EVENT_BYTES];
        assert_eq!(Expiry::of_event(&event), None);
        put(&mut event, 0, &expiry.pending.to_le_bytes());
        put(&mut event, 84, &3_u32.to_le_bytes());
        put(&mut event, 88, &[EVENT_EXPIRED]);
        put(&mut event, 128, &8_u128.to_le_bytes());
        put(&mut event, 240, &9_u128.to_le_bytes());
        put(&mut event, 352, &77_u64.to_le_bytes());
        assert_eq!(Expiry::of_event(&event), Some(expiry));
    }

    #[test]
    fn only_a_pending_transfer_has_a_timeout() {
        assert_eq!(timeout(&record(1, PENDING, 5)), 5);
        assert_eq!(timeout(&record(1, 0, 5)), 0);
        let mut one = record(1, PENDING, 5);
        transfer_to_import(&mut one);
        assert_eq!((timeout(&one), flags(&one)), (0, PENDING | TRANSFER_IMPORTED));
    }
}
