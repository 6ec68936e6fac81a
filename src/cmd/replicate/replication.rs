//! What every part of a replication works with.

use super::reseal_keys::Reseal;
use crate::catalog::Catalog;
use crate::domain::event::Event;
use crate::error::Kind;
use crate::keys::keyring::Keyring;
use crate::ledger::Ledger;
use crate::ops::authenticity::ProofChecker;
use crate::ops::exclusive_run::ExclusiveRun;
use crate::ops::ledger_events;
use crate::store::{AppendStore, ReadStore, StoreError};
use crate::wire::AppContext;

/// Objects of one backup, or files of one log, that are copied at a time.
pub(super) const COPIES: usize = 4;

/// One run between two stores.
pub(super) struct Replication<'a> {
    pub(super) app: &'a AppContext,
    /// The source whose backups are copied; nothing for all.
    pub(super) source: Option<&'a str>,
    /// Nothing is copied, only decided.
    pub(super) dry_run: bool,
    pub(super) origin: &'a dyn ReadStore,
    pub(super) destination: &'a dyn AppendStore,
    /// To open and to prove what both stores have.
    pub(super) keys: &'a Keyring,
    /// What seals the copies anew; nothing if they are to be the same bytes.
    pub(super) reseal: Option<&'a Reseal>,
    /// Of the origin.
    pub(super) catalog: Catalog<'a>,
    /// What proves annotations in the origin.
    pub(super) proofs_here: ProofChecker<'a>,
    /// The same of the other store.
    pub(super) proofs_there: ProofChecker<'a>,
    /// Nothing in a dry run.
    pub(super) exclusive_run: Option<&'a ExclusiveRun<'a>>,
    pub(super) ledger: Option<Box<dyn Ledger>>,
}

impl Replication<'_> {
    /// Makes sure that nobody else can have begun to change what the store has.
    pub(super) fn confirm(&self) -> anyhow::Result<()> {
        self.app.ctx.cancel.check()?;
        if let Some(run) = self.exclusive_run {
            run.confirm(0)?;
        }
        Ok(())
    }

    /// Tells the ledger of a copy. What was copied is copied, whatever the ledger says.
    pub(super) fn tell(&self, event: &Event) -> Option<Kind> {
        let ledger = self.ledger.as_deref()?;
        match ledger_events::deliver(self.app, ledger, event) {
            Ok(true) => None,
            Ok(false) => Some(Kind::Pending),
            Err(error) => {
                self.app.ctx.monitor.warn(&format!("{error:#}"));
                Some(Kind::Pending)
            }
        }
    }

    /// That both stores answer.
    pub(super) fn check_answering(&self) -> Result<(), StoreError> {
        self.origin.folders("")?;
        self.destination.folders("").map(drop)
    }
}
