//! Books with everything that a ledger can do: pending, posted (full, partial, zero), voided, expired,
//! balancing, closing, reopened, linked, imported and refused transfers, accounts without any, and those that
//! were created closed; and what
//! they are at a moment, as the cluster answers it.
#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests fail as tests do; clippy sees tests only in marked functions"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bkp::rt;
use tigerbeetle_unofficial::error::{CreateTransferErrorKind, CreateTransfersError};
use tigerbeetle_unofficial::{Account, Client, QueryFilter, Transfer};

use super::tb::CLUSTER;
use super::wait::pause;

/// The ledger of these books.
pub(crate) const LEDGER: u32 = 77;
/// What the ids of accounts begin after: the load has accounts of its own.
const FIRST: u128 = 1 << 40;
/// Accounts that moments are marked on; they are not compared.
const MARKERS: u128 = FIRST + 900;
/// Accounts of the books.
const ACCOUNTS: u128 = 24;
/// How long a cluster may take for an answer.
const ANSWER: Duration = Duration::from_mins(2);
/// A timeout that is over before anybody compares, seconds, and one that is not.
const SHORT: u32 = 1;
const LONG: u32 = 100_000;

const LINKED: u16 = 1;
const PENDING: u16 = 2;
const POST: u16 = 4;
const VOID: u16 = 8;
const BALANCING_DEBIT: u16 = 16;
const BALANCING_CREDIT: u16 = 32;
const CLOSING_DEBIT: u16 = 64;
const CLOSING_CREDIT: u16 = 128;
pub(crate) const IMPORTED: u16 = 256;
const REVERSED: u32 = 1;
const ACCOUNT_IMPORTED: u16 = 16;
const ACCOUNT_CLOSED: u16 = 32;

/// An account as it is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Balance {
    debits_pending: u128,
    debits_posted: u128,
    credits_pending: u128,
    credits_posted: u128,
    user_data: (u128, u64, u32),
    code: u16,
    flags: u16,
    timestamp: u64,
}

/// A transfer as it is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    id: u128,
    sides: (u128, u128),
    amount: u128,
    pending_id: u128,
    user_data: (u128, u64, u32),
    timeout: u32,
    code: u16,
    flags: u16,
    pub(crate) timestamp: u64,
}

/// What the cluster answered at a moment.
#[derive(Debug, Clone)]
pub(crate) struct Moment {
    /// Nanoseconds since 1970, by the cluster's clock.
    pub(crate) at: u64,
    accounts: BTreeMap<u128, Balance>,
}

/// A client that keeps books.
pub(crate) struct Books {
    client: Client,
    random: u64,
    next: u128,
    /// Pending transfers that were taken.
    pending: Vec<u128>,
    /// A transfer that was refused for a reason that may pass.
    pub(crate) refused: Option<Transfer>,
}

fn ask<T>(work: impl Future<Output = T>) -> T {
    rt::within(ANSWER, work).unwrap().unwrap()
}

/// The id of an account of the books.
pub(crate) fn account_id(number: u128) -> u128 {
    FIRST + number
}

/// A transfer between accounts of the books.
pub(crate) fn transfer(id: u128, debit: u128, credit: u128, amount: u128, flags: u16) -> Transfer {
    let shift =
        |account: u128| if account == 0 || account > FIRST { account } else { FIRST + account };
    let (debit, credit) = (shift(debit), shift(credit));
    let mut transfer = Transfer::new(id)
        .with_debit_account_id(debit)
        .with_credit_account_id(credit)
        .with_amount(amount)
        .with_ledger(LEDGER)
        .with_code(3)
        .with_user_data_64(7);
    transfer.as_raw_mut().flags = flags;
    transfer
}

/// A client of the books that are there already.
pub(crate) fn open(addresses: &str) -> Books {
    let client = Client::new(CLUSTER, addresses).unwrap();
    Books { client, random: 1, next: 0, pending: Vec::new(), refused: None }
}

impl Books {
    /// Creates the accounts, with every limit that there is.
    pub(crate) fn begin(addresses: &str, seed: u64) -> Books {
        let mut books = open(addresses);
        (books.random, books.next) = (seed, u128::from(seed) << 64);
        let account = |id: u128| {
            let mut account = Account::new(FIRST + id, LEDGER, 5).with_user_data_128(id << 70);
            // None, debits may not exceed credits, credits may not exceed debits, history.
            let flags = [0, 2, 4, 8].into_iter().cycle().nth(usize::try_from(id).unwrap());
            account.as_raw_mut().flags = flags.unwrap();
            account
        };
        let markers = [MARKERS, MARKERS + 1].map(|id| Account::new(id, LEDGER, 5));
        let accounts: Vec<Account> = (1..=ACCOUNTS).map(account).chain(markers).collect();
        ask(books.client.create_accounts(accounts)).unwrap();
        // What the limits are about.
        let fund = (1..=ACCOUNTS).map(|id| {
            let (debit, credit) = if id % 4 == 2 { (id, 4) } else { (4, id) };
            (debit, credit, 100_000)
        });
        for (debit, credit, amount) in fund.filter(|(debit, credit, _)| debit != credit) {
            books.send(&[(debit, credit, amount, 0, 0, 0)]);
        }
        books
    }

    /// Creates these accounts, and those that moments are marked on.
    pub(crate) fn create(&self, mut accounts: Vec<Account>) {
        let markers = [MARKERS, MARKERS + 1].map(|id| Account::new(id, LEDGER, 5));
        accounts.extend(markers);
        // The markers may be there.
        let _exists = ask(self.client.create_accounts(accounts));
    }

    /// Sends one batch; what was refused is said.
    pub(crate) fn post(&self, batch: &[Transfer]) -> Result<(), String> {
        ask(self.client.create_transfers(batch.to_vec())).map_err(|error| format!("{error:?}"))
    }

    /// Goes on with ids of its own.
    pub(crate) fn go_on(&mut self, seed: u64) {
        (self.random, self.next) = (seed, u128::from(seed) << 64);
    }

    fn below(&mut self, end: u128) -> u128 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        u128::from(self.random) % end
    }

    /// Sends one batch of (debit, credit, amount, flags, timeout, pending id).
    fn send(&mut self, rows: &[(u128, u128, u128, u16, u32, u128)]) {
        let mut batch = Vec::new();
        for (debit, credit, amount, flags, timeout, pending_id) in rows {
            self.next += 1;
            let made = transfer(self.next, *debit, *credit, *amount, *flags)
                .with_timeout(*timeout)
                .with_pending_id(*pending_id);
            batch.push(made);
        }
        let refused: Vec<usize> = match ask(self.client.create_transfers(batch.clone())) {
            Ok(()) => vec![],
            Err(CreateTransfersError::Api(errors)) => {
                let passing = |kind| {
                    matches!(
                        kind,
                        CreateTransferErrorKind::ExceedsCredits
                            | CreateTransferErrorKind::ExceedsDebits
                            | CreateTransferErrorKind::DebitAccountAlreadyClosed
                            | CreateTransferErrorKind::CreditAccountAlreadyClosed
                    )
                };
                let errors = errors.as_slice();
                let one = errors.iter().find(|error| passing(error.kind()));
                self.refused = one.map(|one| batch[one.index() as usize]).or(self.refused);
                errors.iter().map(|error| error.index() as usize).collect()
            }
            Err(other) => panic!("{other}"),
        };
        let taken = batch.iter().enumerate().filter(|(index, _)| !refused.contains(index));
        let pending = taken.filter(|(_, transfer)| transfer.as_raw().flags & PENDING != 0);
        self.pending.extend(pending.map(|(_, transfer)| transfer.id()));
    }

    /// Does something, chosen by the seed; much of it is refused.
    pub(crate) fn step(&mut self) {
        let debit = 1 + self.below(ACCOUNTS - 4);
        let credit = 1 + (debit + self.below(ACCOUNTS - 6)) % (ACCOUNTS - 4);
        let amount = 1 + self.below(500);
        let last = self.pending.len();
        let chosen = self.below(u128::try_from(last.max(1)).unwrap());
        let some = self.pending.get(usize::try_from(chosen).unwrap()).copied().unwrap_or(1);
        let resolve = |amount, flags| vec![(0, 0, amount, flags, 0, some)];
        let one = |amount, flags, timeout| vec![(debit, credit, amount, flags, timeout, 0)];
        let batch = match self.below(20) {
            18 => return self.import(debit, credit, amount),
            19 => return self.create_closed(),
            0..3 => one(amount, 0, 0),
            3..5 => one(amount, PENDING, 0),
            5..7 => one(amount, PENDING, SHORT),
            7 => one(amount, PENDING, LONG),
            8 => resolve(u128::MAX, POST),
            9 => resolve(1, POST),
            10 => resolve(0, POST),
            11 => resolve(0, VOID),
            12 => one(u128::MAX, BALANCING_DEBIT, 0),
            13 => one(amount, BALANCING_CREDIT | PENDING, 0),
            14 => one(0, PENDING | CLOSING_DEBIT, 0),
            15 => one(amount, PENDING | CLOSING_CREDIT, SHORT),
            // Refused for good: an account that does not exist takes the chain with it.
            16 => vec![(debit, credit, 1, LINKED, 0, 0), (debit, 500, 1, 0, 0, 0)],
            _ => vec![
                (debit, credit, 1, LINKED, 0, 0),
                (credit, debit, 1, LINKED | PENDING, SHORT, 0),
                (debit, credit, 1, 0, 0, 0),
            ],
        };
        self.send(&batch);
    }

    /// Imports a transfer with a time shortly after that of the last one, whatever happened since.
    fn import(&mut self, debit: u128, credit: u128, amount: u128) {
        let mut filter = QueryFilter::new(1);
        filter.as_raw_mut().flags = REVERSED;
        let last = ask(self.client.query_transfers(Box::new(filter))).unwrap();
        self.next += 1;
        let mut imported = transfer(self.next, debit, credit, amount, IMPORTED);
        imported.as_raw_mut().timestamp =
            last[0].as_raw().timestamp + 1000 + u64::try_from(self.below(100_000)).unwrap();
        // Refused if it is not of the past, or like any other.
        let _refused = self.post(&[imported]);
    }

    /// Creates an account that is closed from the beginning.
    fn create_closed(&mut self) {
        self.next += 1;
        let number = u128::from(u64::try_from(self.next & 0xffff_ffff).unwrap() % 600);
        let mut account = Account::new(FIRST + 100 + number, LEDGER, 5);
        account.as_raw_mut().flags = ACCOUNT_CLOSED;
        // It may be there.
        let _exists = ask(self.client.create_accounts(vec![account]));
    }

    /// A moment: what the cluster answers before and after it, which is the same.
    pub(crate) fn moment(&mut self) -> Moment {
        loop {
            let before = self.accounts();
            self.send(&[(MARKERS, MARKERS + 1, 1, 0, 0, 0)]);
            let after = self.accounts();
            // Unless something expired meanwhile.
            if before == after {
                let marks = self.transfers();
                let mark = marks.iter().rev().find(|row| row.sides.0 == MARKERS).unwrap();
                return Moment { at: mark.timestamp, accounts: after };
            }
        }
    }

    /// Waits until nothing with a short timeout is pending.
    pub(crate) fn let_expire(&self) {
        let transfers = self.transfers();
        let began = Instant::now();
        while self
            .accounts()
            .iter()
            .any(|(id, balance)| balance.debits_pending != pending_at(&transfers, u64::MAX, *id).0)
        {
            assert!(began.elapsed() < ANSWER, "pending transfers do not expire");
            pause();
        }
        // The server looks at those that were posted or voided in time, too, once their time is over.
        let last = transfers.iter().map(|row| row.timestamp).max().unwrap_or_default();
        let over = UNIX_EPOCH + Duration::from_nanos(last) + Duration::from_secs(SHORT.into());
        while SystemTime::now() <= over {
            pause();
        }
    }

    pub(crate) fn accounts(&self) -> BTreeMap<u128, Balance> {
        let mut filter = QueryFilter::new(8000);
        filter.as_raw_mut().ledger = LEDGER;
        let found = ask(self.client.query_accounts(Box::new(filter))).unwrap();
        let books = found.iter().filter(|account| account.id() < MARKERS);
        let balance = |account: &Account| {
            let raw = account.as_raw();
            let balance = Balance {
                debits_pending: account.debits_pending(),
                debits_posted: account.debits_posted(),
                credits_pending: account.credits_pending(),
                credits_posted: account.credits_posted(),
                user_data: (
                    account.user_data_128(),
                    account.user_data_64(),
                    account.user_data_32(),
                ),
                code: raw.code,
                flags: raw.flags,
                timestamp: raw.timestamp,
            };
            (account.id(), balance)
        };
        books.map(balance).collect()
    }

    /// Every transfer of the books, oldest first.
    pub(crate) fn transfers(&self) -> Vec<Row> {
        let mut rows: Vec<Row> = Vec::new();
        loop {
            let mut filter = QueryFilter::new(8000);
            filter.as_raw_mut().ledger = LEDGER;
            filter.as_raw_mut().timestamp_min = rows.last().map_or(0, |row| row.timestamp + 1);
            let page = ask(self.client.query_transfers(Box::new(filter))).unwrap();
            if page.is_empty() {
                return rows;
            }
            rows.extend(page.iter().map(|transfer| Row {
                id: transfer.id(),
                sides: (transfer.debit_account_id(), transfer.credit_account_id()),
                amount: transfer.amount(),
                pending_id: transfer.pending_id(),
                user_data: (
                    transfer.user_data_128(),
                    transfer.user_data_64(),
                    transfer.user_data_32(),
                ),
                timeout: transfer.timeout(),
                code: transfer.code(),
                flags: transfer.as_raw().flags,
                timestamp: transfer.as_raw().timestamp,
            }));
        }
    }

    /// What the cluster says to a transfer by itself that it has refused before: it remembers the id, unless the transfer
    /// was one of a chain.
    pub(crate) fn says_to(&self, refused: Transfer) -> String {
        match ask(self.client.create_transfers(vec![refused])) {
            Err(CreateTransfersError::Api(errors)) => format!("{:?}", errors.as_slice()[0].kind()),
            other => format!("{other:?}"),
        }
    }
}

/// What is pending on an account after everything with a short timeout has expired, and whether it is
/// closed: follows from the transfers alone.
fn pending_at(rows: &[Row], at: u64, account: u128) -> (u128, u128, bool) {
    let known: Vec<&Row> = rows.iter().filter(|row| row.timestamp <= at).collect();
    let resolved: BTreeSet<u128> = known.iter().map(|row| row.pending_id).collect();
    let open = known.iter().filter(|row| {
        row.flags & PENDING != 0 && row.timeout != SHORT && !resolved.contains(&row.id)
    });
    open.fold((0, 0, false), |(debits, credits, closed), row| {
        let (debit, credit) = (row.sides.0 == account, row.sides.1 == account);
        let closes =
            debit && row.flags & CLOSING_DEBIT != 0 || credit && row.flags & CLOSING_CREDIT != 0;
        (
            debits + if debit { row.amount } else { 0 },
            credits + if credit { row.amount } else { 0 },
            closed || closes,
        )
    })
}

/// Compares restored books with the original at a moment, byte for byte. A server expires what is over
/// by today's clock as soon as it starts, so what is pending is compared after that.
#[track_caller]
pub(crate) fn assert_same(restored: &Books, original: &[Row], moment: &Moment) {
    assert_same_transfers(restored, original, moment.at);
    let mut expected = moment.accounts.clone();
    for (id, balance) in &mut expected {
        let (debits, credits, closed) = pending_at(original, moment.at, *id);
        (balance.debits_pending, balance.credits_pending) = (debits, credits);
        // One of those that were created closed stays so.
        if *id <= FIRST + ACCOUNTS {
            balance.flags &= !ACCOUNT_CLOSED;
            balance.flags |= if closed { ACCOUNT_CLOSED } else { 0 };
        }
    }
    let began = Instant::now();
    while restored.accounts() != expected && began.elapsed() < Duration::from_secs(20) {
        pause();
    }
    assert_eq!(restored.accounts(), expected, "at {}", moment.at);
}

/// Compares all transfers up to the time of an operation, byte for byte. What was imported by a later one, with
/// a time before that, is not there yet.
#[track_caller]
pub(crate) fn assert_same_transfers(restored: &Books, original: &[Row], at: u64) {
    let expected: Vec<&Row> = original.iter().filter(|row| row.timestamp <= at).collect();
    let found = restored.transfers();
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!(found, *expected);
    }
    assert!(found.len() <= expected.len(), "transfers at {at}");
    for later in &expected[found.len()..] {
        assert_eq!(later.flags & IMPORTED, IMPORTED, "a transfer at {at} is missing: {later:?}");
    }
}

/// Compares books that were replayed: what an import cannot have is left out, and nothing else.
#[track_caller]
pub(crate) fn assert_replayed(restored: &Books, original: &[Row], moment: &Moment) {
    let mut found = restored.accounts();
    for balance in found.values_mut() {
        assert_eq!(balance.flags & ACCOUNT_IMPORTED, ACCOUNT_IMPORTED);
        balance.flags &= !ACCOUNT_IMPORTED;
    }
    assert_eq!(found, moment.accounts, "at {}", moment.at);
    let expected = original.iter().filter(|row| row.timestamp <= moment.at);
    let expected: BTreeMap<u128, Row> = expected
        .map(|row| {
            let timeout = 0;
            (row.id, Row { timeout, flags: row.flags | IMPORTED, ..row.clone() })
        })
        .collect();
    let mut voids = 0;
    let mut seen = 0;
    for row in restored.transfers() {
        if let Some(expected) = expected.get(&row.id) {
            assert_eq!(row, *expected);
            seen += 1;
        } else {
            assert_eq!(row.flags, VOID | IMPORTED, "{row:?}");
            voids += 1;
        }
    }
    assert_eq!(seen, expected.len());
    assert!(voids < expected.len());
}
