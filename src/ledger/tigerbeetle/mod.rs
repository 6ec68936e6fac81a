//! The ledger in a `TigerBeetle` cluster. What it accepts and refuses was measured: an event is a plain
//! transfer from the operator to the vault of its type, a lease a pending transfer of the single unit
//! of the job's account, which the cluster's own clock ends.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tigerbeetle_unofficial::QueryFilter;

use self::lease::LedgerLease;
use self::link::Verdict;
use self::shared::Shared;
use super::{Entry, Holder, Lease, Ledger, LedgerError};
use crate::ctx::Ctx;
use crate::domain::event::{CODE, Event};
use crate::domain::id::BackupId;
use crate::domain::limits::LEDGER_EVENTS_MAX;
use crate::domain::names::BackupType;
use crate::ledger::LedgerSettings;

mod accounts;
mod lease;
mod link;
mod shared;

/// Transfers per page: what one message of 1 MiB holds. A cluster with smaller messages returns
/// fewer.
const PAGE: u32 = 8189;

/// The job whose lease a probe takes; no source can have this name.
const PROBE_JOB: &str = "(probe)";
/// A probe gives its lease back at once.
const PROBE_SECONDS: u32 = 1;

/// A ledger. Cheap to make: it connects when it is first asked something.
pub struct TigerBeetle {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for TigerBeetle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TigerBeetle").field("name", &self.shared.link.name).finish_non_exhaustive()
    }
}

impl TigerBeetle {
    /// The ledger that the settings name.
    #[must_use]
    pub fn new(settings: &LedgerSettings, ctx: &Ctx) -> TigerBeetle {
        TigerBeetle { shared: Arc::new(Shared::new(settings, ctx)) }
    }
}

impl Ledger for TigerBeetle {
    fn name(&self) -> &str {
        &self.shared.link.name
    }

    fn acquire(&self, holder: &Holder, length: Duration) -> Result<Box<dyn Lease>, LedgerError> {
        self.shared.open()?;
        let account = self.shared.accounts.lease_account(&holder.job);
        self.shared.link.create_accounts(&[account])?;
        Ok(Box::new(LedgerLease::acquire(&self.shared, holder, length)?))
    }

    fn probe(&self) -> Result<(), LedgerError> {
        self.shared.open()?;
        let Shared { link, accounts, ctx, .. } = &*self.shared;
        link.create_accounts(&[accounts.lease_account(PROBE_JOB)])?;
        let new_id = || BackupId::new(ctx.now()).as_u128();
        let lease = new_id();
        let batch = [
            accounts.funding(PROBE_JOB),
            accounts.pending(lease, PROBE_JOB, PROBE_SECONDS),
            accounts.void(new_id(), lease),
        ];
        let verdicts = link.create_transfers(&batch)?;
        match verdicts.iter().find(|(_, verdict)| *verdict != Verdict::Exists) {
            None => Ok(()),
            Some((_, verdict)) => Err(link.refused("a lease", verdict.reason())),
        }
    }

    fn record(&self, event: &Event) -> Result<(), LedgerError> {
        self.shared.record(event)
    }

    fn entries(&self) -> Result<Vec<Entry>, LedgerError> {
        let Shared { link, accounts, .. } = &*self.shared;
        let mut entries = Vec::new();
        let mut after = 0;
        loop {
            let mut filter = QueryFilter::new(PAGE).with_ledger(accounts.number()).with_code(CODE);
            filter.as_raw_mut().timestamp_min = after + 1;
            let page = link.ask(&async |client| client.query_transfers(Box::new(filter)).await)?;
            let Some(last) = page.last() else {
                return Ok(entries);
            };
            after = last.as_raw().timestamp;
            entries.extend(page.iter().map(|transfer| accounts.entry(transfer)));
            if entries.len() > LEDGER_EVENTS_MAX {
                let reason = format!("it has more than {LEDGER_EVENTS_MAX} events");
                return Err(link.refused("to be read", reason));
            }
        }
    }

    fn balances(&self) -> Result<BTreeMap<BackupType, i128>, LedgerError> {
        let Shared { link, accounts, .. } = &*self.shared;
        let ids: Vec<u128> = accounts.vaults().values().copied().collect();
        let found = link.ask(&async |client| client.lookup_accounts(ids.clone()).await)?;
        let signed = |amount: u128| i128::try_from(amount).unwrap_or(i128::MAX);
        let balance = |(kind, id): (&BackupType, &u128)| {
            let vault = found.iter().find(|account| account.id() == *id)?;
            Some((*kind, signed(vault.credits_posted()) - signed(vault.debits_posted())))
        };
        Ok(accounts.vaults().iter().filter_map(balance).collect())
    }
}
