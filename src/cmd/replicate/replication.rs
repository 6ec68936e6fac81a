//! What every part of a replication works with.

use crate::catalog::Catalog;
use crate::domain::event::Event;
use crate::error::Kind;
use crate::keys::KeyProvider;
use crate::ledger::Ledger;
use crate::ledger::outbox::Outbox;
use crate::ops::exclusive_run::ExclusiveRun;
use crate::ops::run_guard;
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
    pub(super) keys: &'a [Box<dyn KeyProvider>],
    /// Of the origin.
    pub(super) catalog: Catalog<'a>,
    /// Nothing in a dry run.
    pub(super) exclusive_run: Option<&'a ExclusiveRun<'a>>,
    pub(super) ledger: Option<Box<dyn Ledger>>,
    pub(super) outbox: Outbox,
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
        let monitor = &*self.app.ctx.monitor;
        let told = run_guard::flush(&self.outbox, ledger, monitor);
        let error = told.and_then(|_delivered| ledger.record(event)).err()?;
        let waits = self.outbox.put(event).err();
        let waits =
            waits.map_or("the event waits in the outbox".to_owned(), |lost| lost.to_string());
        monitor.warn(&format!("{error}; {waits}"));
        Some(Kind::Pending)
    }

    /// Whether both stores answer.
    pub(super) fn is_answering(&self) -> bool {
        self.check_answering().is_ok()
    }

    /// That both stores answer.
    pub(super) fn check_answering(&self) -> Result<(), StoreError> {
        self.origin.folders("")?;
        self.destination.folders("").map(drop)
    }
}
