//! What stands around the work of a run: the locks that keep it alone, and the record of how it
//! went.
//!
//! Two locks, because each sees what the other cannot: the kernel's, which ends with the process, and
//! a lease, which other hosts see. The lease is kept by the ledger, or without one by the store. If
//! the ledger is away and not required, the run goes on with a lease of the store, and its events
//! wait in the outbox.

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::{Value, json};

use crate::ctx::{Ctx, Monitor};
use crate::domain::event::Event;
use crate::domain::id::BackupId;
use crate::domain::manifest::Manifest;
use crate::domain::names::BackupType;
use crate::error::Kind;
use crate::ledger::outbox::Outbox;
use crate::ledger::{Holder, Lease, Ledger, LedgerError, in_store};
use crate::lock::Lock;
use crate::store::layer::fan::Fan;
use crate::wire::House;

/// A lease is renewed when this part of its time is over: two renewals may fail without harm.
const RENEWALS_PER_LEASE: u32 = 3;

/// A run that is alone with its job. Dropping it before [`Recorded::finish`] records that it failed.
pub struct Recorded<'h> {
    house: &'h House,
    fan: &'h Fan,
    holder: Holder,
    ledger: Option<Box<dyn Ledger>>,
    outbox: Outbox,
    lease: Arc<Mutex<Box<dyn Lease>>>,
    renewal: Option<Renewal>,
    finished: bool,
    _lock: Lock,
}

impl std::fmt::Debug for Recorded<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recorded").field("holder", &self.holder).finish_non_exhaustive()
    }
}

impl<'h> Recorded<'h> {
    /// Takes the locks of `job`, which makes a backup in the stores of `fan`, without waiting, delivers what waits in the outbox, and records that
    /// the run began.
    ///
    /// # Errors
    /// [`Kind::Busy`] names who runs already. [`Kind::Store`] if the ledger is required and does not
    /// answer, or the store does not.
    pub fn begin(
        house: &'h House,
        job: &str,
        backup_type: BackupType,
        fan: &'h Fan,
    ) -> anyhow::Result<Recorded<'h>> {
        let lock = Lock::take(&house.settings.state_dir, job, &house.ctx)?;
        let holder = Holder {
            job: job.to_owned(),
            run: BackupId::new(house.ctx.now()),
            backup_type,
            host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            process: std::process::id(),
            place: lock.place(),
        };
        let (ledger, outbox) = (house.ledger(), Outbox::of(&house.settings.state_dir));
        let kept = ledger.as_deref().map(|ledger| {
            flush(&outbox, ledger, &*house.ctx.monitor)?;
            ledger.acquire(&holder, house.settings.lease)
        });
        let lease = match kept {
            Some(Ok(lease)) => lease,
            Some(Err(error @ LedgerError::Away { .. })) if !required(house) => {
                let why = format!("{error}; the run goes on and its event will wait in the outbox");
                house.ctx.monitor.warn(&why);
                in_store(house, fan, &holder)?
            }
            Some(Err(error)) => return Err(error.into()),
            None => in_store(house, fan, &holder)?,
        };
        let lease = Arc::new(Mutex::new(lease));
        let renewal = Renewal::start(&lease, house.settings.lease, &house.ctx)?;
        Ok(Recorded {
            house,
            fan,
            holder,
            ledger,
            outbox,
            lease,
            renewal: Some(renewal),
            finished: false,
            _lock: lock,
        })
    }

    /// The id of the backup that the run is to make. Its time is the run's beginning.
    #[must_use]
    pub fn id(&self) -> BackupId {
        self.holder.run
    }

    /// Makes sure that the run is still alone, right before its manifest is written. Returns what the
    /// manifest says of the ledger; nothing if none is configured.
    ///
    /// # Errors
    /// [`LedgerError::Fenced`] if the lease has ended: then no manifest may be written.
    pub fn fence(&self) -> anyhow::Result<Option<Value>> {
        let mut lease = locked(&self.lease);
        match lease.renew() {
            Ok(()) => {}
            // Nobody can have taken it yet.
            Err(LedgerError::Away { .. } | LedgerError::Store(_)) if lease.holds() => {}
            Err(LedgerError::Away { .. }) if !required(self.house) => {
                *lease = in_store(self.house, self.fan, &self.holder)?;
            }
            Err(error) => return Err(error.into()),
        }
        Ok(self.ledger.as_ref().map(
            |_| json!({ "transfer": self.holder.run.as_u128().to_string(), "lease": lease.id() }),
        ))
    }

    /// Records that the backup exists and lets the job go; `sha256` is that of the manifest as
    /// stored. Returns [`Kind::Pending`] if the event has to wait.
    #[must_use]
    pub fn finish(mut self, manifest: &Manifest, sha256: &[u8; 32]) -> Option<Kind> {
        self.finished = true;
        self.close(&Event::completed(manifest, sha256))
    }

    /// Ends the lease with `event`. Nothing in here can undo what was done: what fails is said.
    fn close(&mut self, event: &Event) -> Option<Kind> {
        drop(self.renewal.take());
        let recorded = locked(&self.lease).release(event);
        let Some(ledger) = self.ledger.as_deref() else {
            if let Err(error) = recorded {
                let why = format!("{error}; the lease of the job ends by itself");
                self.house.ctx.monitor.warn(&why);
            }
            return None;
        };
        let recorded = match recorded {
            Ok(true) => Ok(()),
            Ok(false) | Err(LedgerError::Store(_)) => ledger.record(event),
            Err(error) => Err(error),
        };
        let error = recorded.err()?;
        let waits = self.outbox.put(event).err();
        let waits = waits.map_or("the event waits in the outbox".to_owned(), |lost| {
            format!("{lost}; `bkp verify --ledger --record` can make the event again")
        });
        self.house.ctx.monitor.warn(&format!("{error}; {waits}"));
        Some(Kind::Pending)
    }
}

impl Drop for Recorded<'_> {
    fn drop(&mut self) {
        if !self.finished {
            let seconds = (self.house.ctx.now() - self.holder.run.created()).whole_seconds();
            let seconds = u32::try_from(seconds.max(0)).unwrap_or(u32::MAX);
            // Why the run failed is what its exit code says.
            self.close(&Event::failed(self.holder.run, self.holder.backup_type, seconds));
        }
    }
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

fn required(house: &House) -> bool {
    house.settings.ledger.as_ref().is_some_and(|ledger| ledger.required)
}

fn in_store(house: &House, fan: &Fan, holder: &Holder) -> anyhow::Result<Box<dyn Lease>> {
    Ok(in_store::acquire(fan, holder, house.settings.lease, &house.ctx)?)
}

fn locked(lease: &Mutex<Box<dyn Lease>>) -> std::sync::MutexGuard<'_, Box<dyn Lease>> {
    lease.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The thread that renews a lease. Dropping this ends it.
struct Renewal {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Renewal {
    fn start(
        lease: &Arc<Mutex<Box<dyn Lease>>>,
        length: Duration,
        ctx: &Ctx,
    ) -> std::io::Result<Renewal> {
        let (stop, stopped) = mpsc::channel();
        let (lease, ctx) = (Arc::clone(lease), ctx.clone());
        let work = move || {
            let pause = length / RENEWALS_PER_LEASE;
            while stopped.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
                match locked(&lease).renew() {
                    Ok(()) => {}
                    // The run learns it when it asks; going on here would only say it again.
                    Err(error @ (LedgerError::Fenced { .. } | LedgerError::Refused { .. })) => {
                        ctx.monitor.warn(&error.to_string());
                        return;
                    }
                    Err(error) => ctx.monitor.detail(&format!("renewing the lease: {error}")),
                }
            }
        };
        let thread = thread::Builder::new().name("lease".into()).spawn(work)?;
        Ok(Renewal { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Renewal {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It fails only if the thread panicked; then there is nothing to end.
            let _ended = thread.join();
        }
    }
}
