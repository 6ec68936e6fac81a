//! The accounts of a ledger: one operator, one vault per backup type, one lease account per job.
//!
//! Their ids follow from the ledger number, so every host knows them without asking, and creating
//! them again is harmless. Account ids are one space per cluster whatever the ledger: hashing keeps
//! them away from everybody else's.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};
use tigerbeetle_unofficial::{Account, Transfer, account, transfer};

use crate::domain::event::{CODE, Event, Numbers, Status};
use crate::domain::names::BackupType;
use crate::ledger::Entry;
use crate::ledger::LedgerSettings;

/// The code of the transfers that leases are made of; events have [`CODE`] to themselves.
pub(super) const LEASE_CODE: u16 = 13;

/// What every id is hashed with.
const DOMAIN: &[u8] = b"bkp ledger 1";

/// The ledger number and the ids.
#[derive(Debug, Clone)]
pub(super) struct Accounts {
    number: u32,
    operator: u128,
    vaults: BTreeMap<BackupType, u128>,
}

impl Accounts {
    /// Those of the configuration, and for the rest those that follow from the number.
    pub(super) fn of(settings: &LedgerSettings) -> Accounts {
        let number = settings.number;
        let id = |name: &str| {
            let chosen = settings.accounts.get(name).copied();
            chosen.unwrap_or_else(|| derived(number, "account", name))
        };
        let vaults = BackupType::ALL.into_iter().map(|kind| (kind, id(kind.as_str()))).collect();
        Accounts { number, operator: id("operator"), vaults }
    }

    /// The account whose single unit is the lease of `job`.
    pub(super) fn lease(&self, job: &str) -> u128 {
        derived(self.number, "lease", job)
    }

    /// The ledger number.
    pub(super) fn number(&self) -> u32 {
        self.number
    }

    /// The vaults by type.
    pub(super) fn vaults(&self) -> &BTreeMap<BackupType, u128> {
        &self.vaults
    }

    fn vault(&self, backup_type: BackupType) -> u128 {
        self.vaults.get(&backup_type).copied().unwrap_or_default()
    }

    /// The operator and every vault.
    pub(super) fn common(&self) -> Vec<Account> {
        let ids = [self.operator].into_iter().chain(self.vaults.values().copied());
        ids.map(|id| Account::new(id, self.number, CODE)).collect()
    }

    /// The lease account of `job`: no more can be taken from it than it was given.
    pub(super) fn lease_account(&self, job: &str) -> Account {
        Account::new(self.lease(job), self.number, LEASE_CODE)
            .with_flags(account::Flags::DEBITS_MUST_NOT_EXCEED_CREDITS)
    }

    /// Gives the lease account its single unit. The id is fixed, so that it happens once.
    pub(super) fn funding(&self, job: &str) -> Transfer {
        Transfer::new(derived(self.number, "funding", job))
            .with_debit_account_id(self.operator)
            .with_credit_account_id(self.lease(job))
            .with_amount(1)
            .with_ledger(self.number)
            .with_code(LEASE_CODE)
    }

    /// Takes the unit of `job` for `seconds`.
    pub(super) fn pending(&self, id: u128, job: &str, seconds: u32) -> Transfer {
        Transfer::new(id)
            .with_debit_account_id(self.lease(job))
            .with_credit_account_id(self.operator)
            .with_amount(1)
            .with_timeout(seconds)
            .with_ledger(self.number)
            .with_code(LEASE_CODE)
            .with_flags(transfer::Flags::PENDING)
    }

    /// The transfer of an event.
    pub(super) fn event(&self, event: &Event) -> Transfer {
        let numbers = Numbers::from(event);
        let (debit, credit) = self.sides(event);
        Transfer::new(numbers.id)
            .with_debit_account_id(debit)
            .with_credit_account_id(credit)
            .with_amount(numbers.amount)
            .with_user_data_128(numbers.user_data_128)
            .with_user_data_64(numbers.user_data_64)
            .with_user_data_32(numbers.user_data_32)
            .with_ledger(self.number)
            .with_code(CODE)
    }

    /// What a transfer of code [`CODE`] says.
    pub(super) fn entry(&self, transfer: &Transfer) -> Entry {
        let numbers = Numbers {
            id: transfer.id(),
            user_data_128: transfer.user_data_128(),
            amount: transfer.amount(),
            user_data_64: transfer.user_data_64(),
            user_data_32: transfer.user_data_32(),
        };
        let sides = (transfer.debit_account_id(), transfer.credit_account_id());
        let event = Event::unpack(&numbers)
            .filter(|event| self.sides(event) == sides && transfer.flags().is_empty());
        Entry { id: transfer.id(), recorded: transfer.timestamp().into(), event }
    }

    /// From where to where an event moves its bytes.
    fn sides(&self, event: &Event) -> (u128, u128) {
        let vault = self.vault(event.backup_type);
        if event.status == Status::Deleted {
            (vault, self.operator)
        } else {
            (self.operator, vault)
        }
    }

    /// Gives a lease back. The ledger number could be left out; with it, whoever reads the cluster's log
    /// sees whose transfer it is.
    pub(super) fn void(&self, id: u128, lease: u128) -> Transfer {
        Transfer::new(id)
            .with_pending_id(lease)
            .with_ledger(self.number)
            .with_flags(transfer::Flags::VOID_PENDING_TRANSFER)
    }
}

/// Ties a transfer to the next one: both are taken, or none.
pub(super) fn linked(transfer: Transfer) -> Transfer {
    transfer.with_flags(transfer.flags() | transfer::Flags::LINKED)
}

fn derived(number: u32, what: &str, name: &str) -> u128 {
    let mut hasher = Sha256::new();
    for part in [DOMAIN, &number.to_be_bytes(), what.as_bytes(), name.as_bytes()] {
        hasher.update(part);
        hasher.update([0]);
    }
    let hash: [u8; 32] = hasher.finalize().into();
    u128::from_be_bytes(*hash.first_chunk().unwrap_or(&[1; 16]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(number: u32, accounts: &[(&str, u128)]) -> LedgerSettings {
        LedgerSettings {
            cluster: 0,
            addresses: vec!["127.0.0.1:3001".into()],
            required: false,
            number,
            accounts: accounts.iter().map(|(name, id)| ((*name).to_owned(), *id)).collect(),
            deadline: std::time::Duration::from_secs(1),
        }
    }

    /// Computed beside this program: hosts of different versions must agree for ever.
    #[test]
    fn ids_are_fixed() {
        let accounts = Accounts::of(&settings(12, &[]));
        assert_eq!(accounts.operator, 0x1355_fb4a_60a5_48ff_23ee_e3ee_c3e6_ca7a);
        assert_eq!(
            accounts.vault(BackupType::Tigerbeetle),
            0x207f_534f_aafc_1cbc_a384_1f2f_27bc_a620
        );
        assert_eq!(accounts.lease("books"), 0x08d8_e579_08fe_426e_b152_46f3_16ae_6218);
        assert_eq!(accounts.funding("books").id(), 0xb220_3705_8f7b_88e3_d1a3_9626_10fe_0853);
    }

    #[test]
    fn ledgers_and_jobs_share_no_account() {
        let (a, b) = (Accounts::of(&settings(12, &[])), Accounts::of(&settings(13, &[])));
        let ids = |accounts: &Accounts| {
            let mut ids: Vec<u128> = accounts.common().iter().map(Account::id).collect();
            ids.extend(["a", "b"].map(|job| accounts.lease(job)));
            ids
        };
        let mut all = [ids(&a), ids(&b)].concat();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 2 * (1 + BackupType::ALL.len() + 2));
    }

    #[test]
    fn the_configuration_chooses_ids() {
        let accounts = Accounts::of(&settings(12, &[("operator", 1), ("duckdb", 2)]));
        assert_eq!((accounts.operator, accounts.vault(BackupType::Duckdb)), (1, 2));
    }
}
