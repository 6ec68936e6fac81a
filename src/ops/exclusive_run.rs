//! Exclusive work that makes no backup: a cleanup, or running a job.

use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

use crate::ctx;
use crate::domain::hex::hex;
use crate::domain::id::BackupId;
use crate::error::{Kind, diagnose};
use crate::fs::lock::Lock;
use crate::ledger::{Holder, Ledger, LedgerError};
use crate::ops::audit;
use crate::ops::report::Report;
use crate::ops::run_guard::lease_renewer;
use crate::ops::run_guard::lease_renewer::LeaseRenewer;
use crate::ops::run_guard::required;
use crate::store::ReadStore as _;
use crate::store::layer::mirrored::MirroredStore;
use crate::wire::AppContext;

/// The lease of whoever changes what a store has of old backups; no source can have this name. A copy has no
/// manifest while it is made and is as old as its backup, so replications to a store and cleanups of it exclude
/// each other.
const CONTENT: &str = "content.all";
/// How long a run that waits for another one waits before it asks again.
const RETRY_EVERY: Duration = Duration::from_secs(1);
/// For how long a run that should stop goes on to give back its leases.
const CLOSING: Duration = Duration::from_secs(10);

/// The lock and the leases of a name. Dropping this gives them back.
pub struct ExclusiveRun<'h> {
    app: &'h AppContext,
    /// With the places of their stores in the mirrored store; that of the ledger has none.
    leases: Vec<(Option<usize>, LeaseRenewer)>,
    _lock: Lock,
}

impl std::fmt::Debug for ExclusiveRun<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ExclusiveRun").finish_non_exhaustive()
    }
}

impl<'h> ExclusiveRun<'h> {
    /// Takes the kernel's lock of `name`, and its leases: that of every store, in the order of their
    /// names, and that of the ledger if one is given.
    ///
    /// # Errors
    /// [`Kind::Busy`] names who has it.
    pub fn take(
        app: &'h AppContext,
        name: &str,
        mirrored: &MirroredStore,
        ledger: Option<&dyn Ledger>,
    ) -> anyhow::Result<ExclusiveRun<'h>> {
        ExclusiveRun::acquire(app, (name, name), mirrored, ledger)
    }

    /// The same with a lock and leases of different names.
    fn acquire(
        app: &'h AppContext,
        (lock, name): (&str, &str),
        mirrored: &MirroredStore,
        ledger: Option<&dyn Ledger>,
    ) -> anyhow::Result<ExclusiveRun<'h>> {
        let lock = Lock::take(&app.settings.state_dir, lock, &app.ctx)?;
        let holder = Holder {
            job: name.to_owned(),
            run: BackupId::new(app.ctx.now()),
            backup_type: None,
            host: ctx::host(),
            process: std::process::id(),
            place: lock.place(),
            state_dir: app.settings.state_dir.clone(),
        };
        let (ctx, length) = (&app.ctx, app.settings.lease);
        let mut run = ExclusiveRun { app, leases: Vec::new(), _lock: lock };
        let leases = &mut run.leases;
        lease_renewer::of_stores(mirrored, &holder, length, ctx, &mut |index, kept| {
            leases.push((Some(index), kept));
        })?;
        match ledger.map(|ledger| ledger.acquire(&holder, length)) {
            None => {}
            Some(Ok(lease)) => run.leases.push((None, LeaseRenewer::new(lease, length, ctx)?)),
            Some(Err(error @ LedgerError::Away { .. })) if !required(app) => {
                ctx.monitor.detail(&format!("{error}; continuing with the leases of the stores"));
            }
            Some(Err(error)) => return Err(error.into()),
        }
        Ok(run)
    }

    /// Takes the right to change what the only store of `mirrored` has of old backups.
    ///
    /// # Errors
    /// As [`ExclusiveRun::take`].
    pub fn of_store(
        app: &'h AppContext,
        mirrored: &MirroredStore,
    ) -> anyhow::Result<ExclusiveRun<'h>> {
        let place = hex(&Sha256::digest(mirrored.url()));
        let lock = format!("{CONTENT}.{}", place.get(..16).unwrap_or_default());
        // The lease is the store's alone: a ledger would not know which store it is about.
        ExclusiveRun::acquire(app, (&lock, CONTENT), mirrored, None)
    }

    /// Makes sure that it still is alone in the store at this place of the mirrored store. Asks nobody as long as
    /// the lease was renewed a short while ago.
    ///
    /// # Errors
    /// [`LedgerError::Fenced`] if it is not: the host slept, for instance.
    pub fn confirm(&self, index: usize) -> Result<(), LedgerError> {
        let kept = self.leases.iter().find(|(of, _)| *of == Some(index));
        kept.map_or(Ok(()), |(_, kept)| kept.assure())
    }
}

impl Drop for ExclusiveRun<'_> {
    fn drop(&mut self) {
        let _in_peace = self.app.ctx.cancel.defer(CLOSING);
        for (_, mut kept) in self.leases.drain(..) {
            if let Err(error) = kept.free() {
                self.app.ctx.monitor.warn(&format!("{error}; the lease will expire"));
            }
        }
    }
}

/// A run that makes a backup of `source`, after another one if that ends within `patience`. One that
/// is skipped is on record, and one that fails.
///
/// # Errors
/// As [`patiently`].
pub fn run_when_free(
    app: &AppContext,
    source: &str,
    patience: Duration,
    run: impl FnMut() -> anyhow::Result<Report>,
) -> anyhow::Result<Report> {
    let began = app.ctx.now();
    let ended = retry_while_busy(app, patience, run);
    if let Err(error) = &ended {
        let _in_peace = app.ctx.cancel.defer(CLOSING);
        audit::no_backup(app, source, began, error);
    }
    ended
}

/// Tries `what` again for up to `patience` as long as another run is at it.
///
/// # Errors
/// What `what` fails with at last; [`crate::ctx::Cancel::check`].
pub fn retry_while_busy<T>(
    app: &AppContext,
    patience: Duration,
    mut what: impl FnMut() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let began = Instant::now();
    let mut said = false;
    loop {
        match what() {
            Err(error) if diagnose(&error).kind == Kind::Busy && began.elapsed() < patience => {
                if !said {
                    app.ctx.monitor.detail(&format!("waiting: {error}"));
                    said = true;
                }
            }
            done => return done,
        }
        app.ctx.pause(RETRY_EVERY.min(patience.saturating_sub(began.elapsed())))?;
    }
}
