//! The order of transfers and expiries in a segment: one in which they can be replayed.
//!
//! A cluster numbers what it takes with its time, so that the order of timestamps is the order in which
//! things happened, but for transfers that are imported: those bring a time of the past. Between two
//! ordinary transfers it is not known which of the imported ones came before an expiry that is later
//! than their time. An expiry only ever lifts limits. So it goes before those that have an account in
//! common with it, and the cluster takes them in any case.

use std::collections::{BTreeSet, VecDeque};

use crate::source::tigerbeetle::logs::client::record::{
    self, Expiry, LINKED, RECORD_BYTES, TRANSFER_IMPORTED,
};

/// Imported transfers that are held back until the next ordinary one comes.
const HELD_MAX: usize = 1 << 16;
/// Accounts of those that were let go before, as far as they are remembered.
const PASSED_MAX: usize = 1 << 20;

/// What a segment consists of, besides accounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum OrderedItem {
    Transfer([u8; RECORD_BYTES]),
    Expiry(Expiry),
}

/// Puts transfers and expiries in order; both come in the order of their timestamps.
#[derive(Debug, Default)]
pub(super) struct ReplayOrder {
    /// In order, to be shipped.
    ready: VecDeque<OrderedItem>,
    /// Imported transfers since the last ordinary one, and expiries between them.
    held: VecDeque<OrderedItem>,
    /// Accounts of imported transfers that could not be held.
    passed: BTreeSet<u128>,
    /// There were too many even of those.
    overrun: bool,
    /// An expiry that came too late for its place.
    pub(super) misplaced: Option<Expiry>,
}

impl ReplayOrder {
    pub(super) fn transfer(&mut self, transfer: &[u8; RECORD_BYTES]) {
        if record::flags(transfer) & TRANSFER_IMPORTED == 0 {
            self.finish();
            self.ready.push_back(OrderedItem::Transfer(*transfer));
            return;
        }
        if self.held.len() >= HELD_MAX {
            self.release_held();
        }
        self.held.push_back(OrderedItem::Transfer(*transfer));
    }

    pub(super) fn expiry(&mut self, expiry: Expiry) {
        let in_common = |item: &OrderedItem| match item {
            OrderedItem::Transfer(transfer) => {
                record::accounts(transfer).iter().any(|account| expiry.accounts.contains(account))
            }
            OrderedItem::Expiry(_) => false,
        };
        if self.overrun || expiry.accounts.iter().any(|account| self.passed.contains(account)) {
            self.misplaced = Some(expiry);
        }
        let mut place = self.held.iter().position(in_common).unwrap_or(self.held.len());
        // Nothing comes between the links of a chain.
        while place > 0 && self.held.get(place - 1).is_some_and(OrderedItem::is_linked) {
            place -= 1;
        }
        self.held.insert(place, OrderedItem::Expiry(expiry));
    }

    /// Nothing that comes later belongs before what is held.
    pub(super) fn finish(&mut self) {
        self.ready.append(&mut self.held);
        self.passed.clear();
        self.overrun = false;
    }

    /// Ships what is held, and remembers what it was about.
    fn release_held(&mut self) {
        for item in &self.held {
            if let OrderedItem::Transfer(transfer) = item {
                self.passed.extend(record::accounts(transfer));
            }
        }
        self.overrun |= self.passed.len() > PASSED_MAX;
        if self.overrun {
            self.passed.clear();
        }
        self.ready.append(&mut self.held);
    }

    /// The next one to be shipped, if it is known.
    pub(super) fn next(&mut self) -> Option<OrderedItem> {
        self.ready.pop_front()
    }
}

impl OrderedItem {
    fn is_linked(&self) -> bool {
        matches!(self, OrderedItem::Transfer(transfer) if record::flags(transfer) & LINKED != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transfer(timestamp: u64, debit: u128, flags: u16) -> [u8; RECORD_BYTES] {
        let mut record = [0; RECORD_BYTES];
        for (at, bytes) in [
            (16, debit.to_le_bytes().as_slice()),
            (118, &flags.to_le_bytes()),
            (120, &timestamp.to_le_bytes()),
        ] {
            for (place, byte) in record.iter_mut().skip(at).zip(bytes) {
                *place = *byte;
            }
        }
        record
    }

    fn expiry(timestamp: u64, account: u128) -> Expiry {
        Expiry { pending: 1, timestamp, ledger: 1, accounts: [account, 99] }
    }

    /// The timestamps in the order in which they are shipped.
    fn order(order: &mut ReplayOrder) -> Vec<u64> {
        let items = std::iter::from_fn(|| order.next());
        items
            .map(|item| match item {
                OrderedItem::Transfer(transfer) => record::timestamp(&transfer),
                OrderedItem::Expiry(expiry) => expiry.timestamp,
            })
            .collect()
    }

    #[test]
    fn an_expiry_goes_before_imports_of_its_accounts() {
        let mut books = ReplayOrder::default();
        books.transfer(&transfer(1, 5, 0));
        books.transfer(&transfer(2, 7, TRANSFER_IMPORTED));
        books.transfer(&transfer(3, 5, TRANSFER_IMPORTED));
        books.transfer(&transfer(4, 7, TRANSFER_IMPORTED));
        books.expiry(expiry(6, 5));
        books.expiry(expiry(7, 8));
        assert_eq!(order(&mut books), [1]);
        books.transfer(&transfer(8, 5, 0));
        books.expiry(expiry(9, 5));
        books.finish();
        assert_eq!(order(&mut books), [2, 6, 3, 4, 7, 8, 9]);
        assert_eq!(books.misplaced, None);
    }

    #[test]
    fn a_chain_stays_whole() {
        let mut books = ReplayOrder::default();
        books.transfer(&transfer(2, 5, TRANSFER_IMPORTED | LINKED));
        books.transfer(&transfer(3, 7, TRANSFER_IMPORTED | LINKED));
        books.expiry(expiry(4, 7));
        books.transfer(&transfer(5, 7, TRANSFER_IMPORTED));
        books.finish();
        assert_eq!(order(&mut books), [4, 2, 3, 5]);
    }

    #[test]
    fn what_could_not_be_held_is_remembered() {
        let mut books = ReplayOrder::default();
        for number in 0..=HELD_MAX as u64 {
            books.transfer(&transfer(number, 5 + u128::from(number % 2), TRANSFER_IMPORTED));
        }
        books.expiry(expiry(1 << 20, 8));
        assert_eq!(books.misplaced, None);
        books.expiry(expiry(1 << 21, 6));
        assert_eq!(books.misplaced.map(|one| one.timestamp), Some(1 << 21));
    }
}
