//! Renews a lease while a run works, on a thread of its own, so that an unresponsive store does not
//! delay the others.

use std::io;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::ctx::Ctx;
use crate::domain::event::Event;
use crate::ledger::{Holder, Lease, LedgerError, in_store};
use crate::store::layer::mirrored::MirroredStore;

/// A lease is renewed when this part of its time is over: two renewals may fail without harm.
const RENEWALS_PER_LEASE: u32 = 3;

type Shared = Arc<Mutex<Box<dyn Lease>>>;

/// A lease that is renewed. Dropping it ends the renewals, and gives nothing back.
pub(crate) struct LeaseRenewer {
    lease: Shared,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl LeaseRenewer {
    /// Keeps a lease that was taken for `length`.
    ///
    /// # Errors
    /// If no thread can be started.
    pub(crate) fn new(
        lease: Box<dyn Lease>,
        length: Duration,
        ctx: &Ctx,
    ) -> io::Result<LeaseRenewer> {
        let lease = Arc::new(Mutex::new(lease));
        let (stop, stopped) = mpsc::channel();
        let (shared, ctx) = (Arc::clone(&lease), ctx.clone());
        let work = move || {
            let pause = length / RENEWALS_PER_LEASE;
            while stopped.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
                match locked(&shared).renew() {
                    Ok(()) => {}
                    // The run learns it when it asks; going on here would only say it again.
                    Err(error @ (LedgerError::Fenced { .. } | LedgerError::Refused { .. })) => {
                        ctx.monitor.warn(&error.to_string());
                        return;
                    }
                    Err(error) => ctx.monitor.detail(&format!("cannot renew a lease: {error}")),
                }
            }
        };
        let thread = thread::Builder::new().name("lease".into()).spawn(work)?;
        Ok(LeaseRenewer { lease, stop: Some(stop), thread: Some(thread) })
    }

    /// What the manifest says of it.
    pub(crate) fn id(&self) -> String {
        locked(&self.lease).id()
    }

    /// Makes sure that it lasts for long enough to do what is to be done under it.
    ///
    /// # Errors
    /// As [`Lease::renew`].
    pub(crate) fn confirm(&self) -> Result<(), LedgerError> {
        let mut lease = locked(&self.lease);
        match lease.renew() {
            // Whoever keeps it does not answer, and nobody can have taken it yet.
            Err(LedgerError::Away { .. } | LedgerError::Store(_)) if lease.holds() => Ok(()),
            other => other,
        }
    }

    /// Makes sure that it still holds, without a word to anybody if it was renewed a short while ago.
    ///
    /// # Errors
    /// As [`Lease::renew`].
    pub(crate) fn assure(&self) -> Result<(), LedgerError> {
        if locked(&self.lease).holds() { Ok(()) } else { self.confirm() }
    }

    /// Ends it with `event`, see [`Lease::release`].
    ///
    /// # Errors
    /// As [`Lease::release`].
    pub(crate) fn release(mut self, event: &Event) -> Result<bool, LedgerError> {
        self.stop();
        locked(&self.lease).release(event)
    }

    /// Ends it, see [`Lease::free`].
    ///
    /// # Errors
    /// As [`Lease::free`].
    pub(crate) fn free(&mut self) -> Result<(), LedgerError> {
        self.stop();
        locked(&self.lease).free()
    }

    fn stop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It fails only if the thread panicked; then there is nothing to end.
            let _ended = thread.join();
        }
    }
}

impl Drop for LeaseRenewer {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Takes the lease of every store for `holder`, in the order of their names: two runs that want the same
/// ones in different orders would each keep the other from all of them. `keep` gets each with its place in
/// the mirrored store, at once, so that a failure of the next one gives it back.
///
/// # Errors
/// Who has one; what the last store fails with.
pub(crate) fn of_stores(
    mirrored: &MirroredStore,
    holder: &Holder,
    length: Duration,
    ctx: &Ctx,
    keep: &mut dyn FnMut(usize, LeaseRenewer),
) -> anyhow::Result<()> {
    let mut stores: Vec<_> = mirrored.stores().collect();
    stores.sort_by_key(|(_, store)| store.url().to_owned());
    for (index, store) in stores {
        match in_store::acquire(Arc::clone(store), holder, length, ctx) {
            Ok(lease) => keep(index, LeaseRenewer::new(lease, length, ctx)?),
            Err(LedgerError::Store(error)) => mirrored.failed(index, error)?,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn locked(lease: &Shared) -> MutexGuard<'_, Box<dyn Lease>> {
    lease.lock().unwrap_or_else(PoisonError::into_inner)
}
