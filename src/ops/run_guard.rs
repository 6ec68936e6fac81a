//! Guards a run: the locks that make it exclusive, and the record of how it ended.
//!
//! Three kinds of locks, because each sees what the others cannot: the kernel's, which ends with the
//! process; a lease of the ledger, if there is one, which other hosts see; and a lease of every store
//! that the backup goes to. The last are taken also beside a ledger, so that a run that finds the
//! ledger away, and goes on because the ledger is not required, meets the run that did not. The event
//! of such a run waits in the outbox.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Value, json};
use sha2::Digest as _;

use crate::ctx::Monitor;
use crate::domain::backup_kind::BackupKind;
use crate::domain::event::Event;
use crate::domain::id::BackupId;
use crate::domain::limits::MANIFEST_BYTES_MAX;
use crate::domain::manifest::Manifest;
use crate::domain::names::{BackupName, BackupType};
use crate::error::{Fault, Kind};
use crate::fs::lock::Lock;
use crate::keys::signature::Signer;
use crate::keys::{DataKey, manifest_mac};
use crate::ledger::outbox::Outbox;
use crate::ledger::{Holder, Ledger, LedgerError};
use crate::ops::manifest_builder::locked_until;
use crate::ops::run_guard::lease_renewer::LeaseRenewer;
use crate::store::layer::mirrored::MirroredStore;
use crate::store::{AppendStore as _, Declared, ObjectLabels};
use crate::wire::AppContext;

pub(crate) mod lease_renewer;
mod visibility;

/// For how long a run that should stop goes on once its objects are stored: a manifest in one of two
/// stores, or one that is not recorded, would be found by `verify` only.
const PUBLISHING: Duration = Duration::from_mins(2);
/// What to think of a manifest of which it is not known whether it was written.
const PERHAPS: &str = "the backup may exist anyway: check with `bkp list`; `bkp verify --ledger --record` recreates its event";
/// For how long a run that should stop goes on to give back its leases and to record how it ended.
const CLOSING: Duration = Duration::from_secs(10);

/// The name of the lock and the lease under which a run makes a backup of this kind, or builds on one. Alone
/// among the shippers of a log; a snapshot may be taken at the same time. No source can have the name of a log's.
#[must_use]
pub fn lease_name(source: &str, kind: &str) -> String {
    if kind == BackupKind::Log.as_str() { format!("{source}.{kind}") } else { source.to_owned() }
}

/// A run that is alone with its job. Dropping it before it [published](RunGuard::publish) a
/// backup records that it failed.
pub struct RunGuard<'h> {
    app: &'h AppContext,
    mirrored: &'h MirroredStore,
    holder: Holder,
    ledger: Option<Arc<dyn Ledger>>,
    outbox: Outbox,
    /// The ledger's lease; `None` if there is no ledger, or if it was away.
    in_ledger: Option<LeaseRenewer>,
    /// The leases of the stores, by their places in the mirrored store.
    in_stores: Vec<(usize, LeaseRenewer)>,
    /// The run began and has not ended.
    begun: bool,
    _lock: Lock,
}

impl std::fmt::Debug for RunGuard<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RunGuard").field("holder", &self.holder).finish_non_exhaustive()
    }
}

impl<'h> RunGuard<'h> {
    /// Takes the locks of `job`, which makes a backup in the stores of `mirrored`, without waiting, delivers
    /// what waits in the outbox, and records that the run began.
    ///
    /// # Errors
    /// [`Kind::Busy`] names who runs already. [`Kind::Store`] if the ledger is required and does not
    /// answer, or the last store does not.
    pub fn begin(
        app: &'h AppContext,
        job: &str,
        backup_type: BackupType,
        mirrored: &'h MirroredStore,
    ) -> anyhow::Result<RunGuard<'h>> {
        RunGuard::begin_with(app, job, backup_type, mirrored, app.ledger().map(Arc::from))
    }

    /// The same with a ledger that is connected already: whoever makes many runs keeps one session.
    ///
    /// # Errors
    /// As [`RunGuard::begin`].
    pub fn begin_with(
        app: &'h AppContext,
        job: &str,
        backup_type: BackupType,
        mirrored: &'h MirroredStore,
        ledger: Option<Arc<dyn Ledger>>,
    ) -> anyhow::Result<RunGuard<'h>> {
        let lock = Lock::take(&app.settings.state_dir, job, &app.ctx)?;
        super::scratch::sweep(app);
        let holder = Holder {
            job: job.to_owned(),
            run: BackupId::new(app.ctx.now()),
            backup_type: Some(backup_type),
            host: crate::ctx::host(),
            process: std::process::id(),
            place: lock.place(),
            state_dir: app.settings.state_dir.clone(),
        };
        let outbox = Outbox::of(&app.settings.state_dir);
        let (in_ledger, in_stores) = (None, Vec::new());
        let mut run = RunGuard {
            app,
            mirrored,
            holder,
            ledger,
            outbox,
            in_ledger,
            in_stores,
            begun: false,
            _lock: lock,
        };
        // The ledger comes last: whoever is refused leaves nothing in it.
        run.take_stores()?;
        run.take_ledger()?;
        run.begun = true;
        Ok(run)
    }

    /// Takes the lease of every store.
    fn take_stores(&mut self) -> anyhow::Result<()> {
        let (ctx, length) = (&self.app.ctx, self.app.settings.lease);
        let taken = &mut self.in_stores;
        lease_renewer::of_stores(self.mirrored, &self.holder, length, ctx, &mut |index, kept| {
            taken.push((index, kept));
        })
    }

    /// Takes the ledger's lease, which records that the run began; none if the ledger is away and may
    /// be.
    fn take_ledger(&mut self) -> anyhow::Result<()> {
        let Some(ledger) = self.ledger.as_deref() else { return Ok(()) };
        let (ctx, length) = (&self.app.ctx, self.app.settings.lease);
        let taken = flush(&self.outbox, ledger, &*ctx.monitor);
        match taken.and_then(|_delivered| ledger.acquire(&self.holder, length)) {
            Ok(lease) => self.in_ledger = Some(LeaseRenewer::new(lease, length, ctx)?),
            Err(error @ LedgerError::Away { .. }) if !required(self.app) => {
                let why = format!("{error}; continuing, the event will wait in the outbox");
                ctx.monitor.warn(&why);
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// The id of the backup that the run is to make. Its time is the run's beginning.
    #[must_use]
    pub fn id(&self) -> BackupId {
        self.holder.run
    }

    /// Makes sure that the run is still alone, writes its manifest, from when on the backup exists,
    /// records that, and lets the job go. `manifest` lacks what only the run knows: the ledger, the
    /// copies, the authentication with `key`, and the signature of the host, if it signs. `chain` is what it builds on: a store that has lost any of
    /// that, or an object of the backup itself, drops out. Returns it complete, and [`Kind::Pending`] if
    /// its event has to wait.
    ///
    /// # Errors
    /// [`LedgerError::Fenced`] if the run is not alone any more; what the last store fails with. Then
    /// the backup does not exist, unless the error says that it may.
    pub fn publish(
        mut self,
        mut manifest: Manifest,
        key: (&DataKey, Option<&Signer>),
        chain: &[BackupName],
    ) -> anyhow::Result<(Manifest, Option<Kind>)> {
        self.app.ctx.cancel.check()?;
        let _in_peace = self.app.ctx.cancel.defer(PUBLISHING);
        // Afterwards it would not be true: then there is a backup.
        manifest.ledger = self.fence().context("not making a backup")?;
        visibility::before(self.mirrored, chain, &manifest)?;
        manifest.copies =
            Some(self.mirrored.urls()).filter(|urls| urls.len() > 1).unwrap_or_default();
        let (manifest, sha256) = write(self.mirrored, manifest, key)?;
        visibility::after(self.mirrored, chain, &manifest)?;
        self.begun = false;
        let pending = self.close(&Event::completed(&manifest, &sha256));
        Ok((manifest, pending))
    }

    /// A store whose lease was lost drops out. Returns what the manifest says of the ledger; nothing if
    /// none is configured.
    fn fence(&self) -> anyhow::Result<Option<Value>> {
        for (index, kept) in self.in_stores.iter().filter(|(index, _)| self.mirrored.is_in(*index))
        {
            match kept.confirm() {
                Ok(()) => {}
                Err(LedgerError::Store(error)) => self.mirrored.failed(*index, error)?,
                Err(error) => self.mirrored.drop_out(*index, error)?,
            }
        }
        match self.in_ledger.as_ref().map(LeaseRenewer::confirm) {
            None | Some(Ok(())) => {}
            Some(Err(error @ LedgerError::Away { .. })) if !required(self.app) => {
                let why = format!("{error}; continuing with the leases of the stores alone");
                self.app.ctx.monitor.warn(&why);
            }
            Some(Err(error)) => return Err(error.into()),
        }
        let first = self.in_stores.first().map(|(_, kept)| kept);
        let lease = self.in_ledger.as_ref().or(first).map(LeaseRenewer::id);
        Ok(self
            .ledger
            .as_ref()
            .map(|_| json!({ "transfer": self.holder.run.as_u128().to_string(), "lease": lease })))
    }

    /// Ends the leases and records `event`. Nothing in here can undo what was done: what fails is
    /// said.
    fn close(&mut self, event: &Event) -> Option<Kind> {
        let _in_peace = self.app.ctx.cancel.defer(CLOSING);
        let recorded = self.in_ledger.take().map(|kept| kept.release(event));
        let recorded = match (recorded, self.ledger.as_deref()) {
            (None | Some(Ok(false)), Some(ledger)) => ledger.record(event),
            (Some(Err(error)), _) => Err(error),
            (Some(Ok(_)), _) | (None, None) => Ok(()),
        };
        self.leave_stores(event);
        let error = recorded.err()?;
        let waits = self.outbox.put(event).err();
        let waits = waits.map_or("the event waits in the outbox".to_owned(), |lost| {
            format!("{lost}; `bkp verify --ledger --record` can recreate the event")
        });
        self.app.ctx.monitor.warn(&format!("{error}; {waits}"));
        Some(Kind::Pending)
    }

    /// Gives back the leases of the stores. One that dropped out is not asked again.
    fn leave_stores(&mut self, event: &Event) {
        for (index, kept) in self.in_stores.drain(..) {
            if !self.mirrored.is_in(index) {
                continue;
            }
            if let Err(error) = kept.release(event) {
                let why = format!("{error}; the lease of the job will expire");
                self.app.ctx.monitor.warn(&why);
            }
        }
    }
}

impl Drop for RunGuard<'_> {
    fn drop(&mut self) {
        let seconds = (self.app.ctx.now() - self.holder.run.created()).whole_seconds();
        let seconds = u32::try_from(seconds.max(0)).unwrap_or(u32::MAX);
        // Why the run failed is what its exit code says.
        let failed = |backup_type| Event::failed(self.holder.run, backup_type, seconds);
        let Some(failed) = self.holder.backup_type.map(failed) else { return };
        if self.begun {
            self.close(&failed);
        } else {
            let _in_peace = self.app.ctx.cancel.defer(CLOSING);
            self.leave_stores(&failed);
        }
    }
}

/// Writes the manifest, create-only. Returns it, and the SHA-256 of its file.
fn write(
    store: &MirroredStore,
    manifest: Manifest,
    (key, signer): (&DataKey, Option<&Signer>),
) -> anyhow::Result<(Manifest, [u8; 32])> {
    let at = manifest.name().manifest_key();
    let bytes = manifest_mac::encode_signed(manifest, key, signer)?;
    // Before it is visible: what a reader would refuse must not become a backup.
    let manifest = Manifest::parse(&bytes, &at)?;
    if bytes.len() as u64 > MANIFEST_BYTES_MAX {
        let size = bytes.len();
        let message = format!("the manifest would have {size} bytes, more than bkp can read");
        return Err(Fault::new(Kind::Failed, message)
            .hint("make the backup smaller, for example by exporting fewer tables")
            .into());
    }
    let retain_until = locked_until(&manifest.kind, manifest.retention.until);
    let labels = ObjectLabels { retain_until, ..ObjectLabels::default() };
    let mut upload = store.create(&at, &labels)?;
    upload.write(&bytes)?;
    let sha256 = sha2::Sha256::digest(&bytes).into();
    upload.commit(Declared { bytes: bytes.len() as u64, sha256 }).context(PERHAPS)?;
    Ok((manifest, sha256))
}

/// Delivers what waits in the outbox.
///
/// # Errors
/// [`LedgerError::Away`].
pub fn flush(
    outbox: &Outbox,
    ledger: &dyn Ledger,
    monitor: &dyn Monitor,
) -> Result<usize, LedgerError> {
    let delivered = outbox.flush(ledger, &mut |error| {
        let source = std::error::Error::source(error);
        let cause = source.map(|source| format!(": {source}")).unwrap_or_default();
        monitor.warn(&format!("an event stays in the outbox: {error}{cause}"));
    })?;
    if delivered > 0 {
        monitor.detail(&format!("{delivered} event(s) of earlier runs delivered to the ledger"));
    }
    Ok(delivered)
}

pub(crate) fn required(app: &AppContext) -> bool {
    app.settings.ledger.as_ref().is_some_and(|ledger| ledger.required)
}
