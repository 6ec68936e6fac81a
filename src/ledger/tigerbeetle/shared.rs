//! Shared by the ledger and its leases.

use std::sync::atomic::{AtomicBool, Ordering};

use super::accounts::Accounts;
use super::link::{Link, Verdict};
use crate::ctx::Ctx;
use crate::domain::event::Event;
use crate::ledger::{LedgerError, LedgerSettings};

/// One session, and the names of the accounts.
pub(super) struct Shared {
    pub(super) link: Link,
    pub(super) accounts: Accounts,
    /// Whether the accounts of all jobs are known to exist.
    opened: AtomicBool,
    pub(super) ctx: Ctx,
}

impl Shared {
    /// What a ledger with these settings needs. Connects to nothing yet.
    pub(super) fn new(settings: &LedgerSettings, ctx: &Ctx) -> Shared {
        let (link, accounts) = (Link::new(settings, &ctx.cancel), Accounts::of(settings));
        Shared { link, accounts, opened: AtomicBool::new(false), ctx: ctx.clone() }
    }

    /// Makes sure that the accounts exist: an id that met a missing account could never be used again.
    pub(super) fn open(&self) -> Result<(), LedgerError> {
        if !self.opened.load(Ordering::Relaxed) {
            self.link.create_accounts(&self.accounts.common())?;
            self.opened.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    pub(super) fn record(&self, event: &Event) -> Result<(), LedgerError> {
        self.open()?;
        let verdicts = self.link.create_transfers(&[self.accounts.event(event)])?;
        match verdicts.first() {
            None | Some((_, Verdict::Exists)) => Ok(()),
            Some((_, verdict)) => Err(self.unrecorded(event, verdict)),
        }
    }

    pub(super) fn unrecorded(&self, event: &Event, verdict: &Verdict) -> LedgerError {
        let what = format!("the event of backup {}", event.backup);
        self.link.refused(&what, verdict.reason())
    }
}
