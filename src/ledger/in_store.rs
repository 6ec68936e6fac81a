//! Leases as objects of a store. Every run that makes a backup takes them, also beside the lease of a
//! ledger: another run may find that ledger away, and relies on them.
//!
//! A store can only create objects, and of several writers of one key exactly one succeeds. So a
//! lease is a row of *terms*, `leases/<job>/<number>`, each of which says until when it lasts, and
//! whoever creates the next number has the job: to take it after the last term was given back or
//! has ended, to renew it before, or to give it back. A holder whose next number is taken has been
//! fenced.
//!
//! What that guarantees: of any number of runs that begin at once exactly one goes on; a run that
//! died frees its job when its term ends; a run that was overtaken learns it before it writes its
//! manifest. Terms are compared with the clocks of the hosts: if those differ by more than a term, a
//! run may be overtaken while it works, and then it is the one that is fenced. Two backups are
//! never mixed, whatever the clocks say: their objects have different names.
//!
//! A run that makes its backup in several stores takes a lease in each, in the order of their names, so
//! that it keeps apart from every run that it shares a store with.
//!
//! A run leaves three small objects, and one more per renewal. Only the newest of a job means anything;
//! `cleanup`, which alone can remove objects, takes the others.

use std::sync::Arc;
use std::time::Duration;

use sha2::Digest as _;

use super::{Holder, Lease, LedgerError, MonotonicTime};
use crate::ctx::Ctx;
use crate::domain::event::Event;
use crate::store::{AppendStore, Declared, ObjectLabels, Role, StoreError};

mod abandoned;
mod held;
mod stale;
mod term;

use self::term::{JobTerms, SCHEMA, Term};
pub use held::{held, running, strange};
pub use stale::stale;

/// How many numbers are passed over because something stands there that is no object.
const BLOCKED_MAX: usize = 64;
/// Further attempts after another run took the next number; after that, that run counts as working.
const TRIES: usize = 3;

/// A lease that is held.
struct StoreLease {
    store: Arc<dyn AppendStore>,
    holder: Holder,
    length: Duration,
    ctx: Ctx,
    number: u64,
    renewed: MonotonicTime,
}

/// Takes the lease of a job for `length` in one store.
///
/// # Errors
/// [`LedgerError::Busy`] names who holds it; what the store fails with.
pub fn acquire(
    store: Arc<dyn AppendStore>,
    holder: &Holder,
    length: Duration,
    ctx: &Ctx,
) -> Result<Box<dyn Lease>, LedgerError> {
    let (holder, ctx) = (holder.clone(), ctx.clone());
    let mut lease =
        StoreLease { store, holder, length, ctx, number: 0, renewed: MonotonicTime::now() };
    let mut busy = None;
    for attempt in 0..TRIES {
        let JobTerms { number, newest, strange } = lease.row()?;
        if attempt == 0 {
            lease.name(&strange);
        }
        if let Some((at, term)) = &newest
            && lease.is_taken(*at, term)
        {
            return Err(lease.busy(term));
        }
        match lease.next(number, length) {
            Ok(()) => return Ok(Box::new(lease)),
            Err(LedgerError::Fenced { .. }) => busy = newest.map(|(_, term)| term),
            Err(other) => return Err(other),
        }
    }
    // Somebody is quicker each time; who it was at first is as good a name as any.
    let holder = busy.map_or_else(|| "another run".to_owned(), |term| term.holder(lease.ctx.now()));
    Err(LedgerError::Busy { job: lease.holder.job, holder })
}

impl Lease for StoreLease {
    fn id(&self) -> String {
        self.key(self.number)
    }

    fn holds(&self) -> bool {
        self.renewed.elapsed() < self.length / 2
    }

    fn renew(&mut self) -> Result<(), LedgerError> {
        self.next(self.number, self.length)
    }

    fn release(&mut self, _event: &Event) -> Result<bool, LedgerError> {
        self.free().map(|()| false)
    }

    fn free(&mut self) -> Result<(), LedgerError> {
        match self.next(self.number, Duration::ZERO) {
            // It has ended before: so be it.
            Ok(()) | Err(LedgerError::Fenced { .. }) => Ok(()),
            Err(other) => Err(other),
        }
    }
}

impl StoreLease {
    fn key(&self, number: u64) -> String {
        term::key(&self.holder.job, number)
    }

    /// The terms of the job.
    fn row(&self) -> Result<JobTerms, StoreError> {
        term::row(&*self.store, &self.holder.job, self.ctx.now())
    }

    /// Says what is passed over.
    fn name(&self, strange: &[(String, String)]) {
        let Some((key, why)) = strange.first() else { return };
        let more = match strange.len() {
            1 => String::new(),
            all => format!(", and {} more like it", all - 1),
        };
        let what = format!("skipping the lease `{key}`{more}: no run can have written it");
        self.ctx.monitor.warn(&format!("{what}: {why}; find out who wrote it, and remove it"));
    }

    /// Whether a run works under this term. A holder from our own place cannot: it would hold the
    /// kernel's lock, and we do. One whose clock is ahead of ours does as long as it renews the lease.
    fn is_taken(&self, number: u64, term: &Term) -> bool {
        let now = self.ctx.now();
        if term.is_given_back() || now >= term.until || term.place == place(&self.holder) {
            return false;
        }
        let place = format!("{} {}", self.store.url(), self.key(number));
        term.ahead(now).is_none()
            || !abandoned::is_abandoned(&self.holder.state_dir, &place, term, &self.ctx)
    }

    fn busy(&self, term: &Term) -> LedgerError {
        LedgerError::Busy { job: self.holder.job.clone(), holder: term.holder(self.ctx.now()) }
    }

    /// Creates the term after `number`, which lasts for `length`.
    fn next(&mut self, mut number: u64, length: Duration) -> Result<(), LedgerError> {
        let mut blocked = 0;
        loop {
            let began = MonotonicTime::now();
            let now = self.ctx.now();
            let term = Term {
                schema: SCHEMA.to_owned(),
                job: self.holder.job.clone(),
                run: self.holder.run,
                host: self.holder.host.clone(),
                process: self.holder.process,
                place: place(&self.holder),
                begun: now,
                until: now + length,
            };
            number = number.checked_add(1).ok_or_else(|| LedgerError::Strange {
                key: self.key(number),
                reason: "lease numbers are exhausted".into(),
            })?;
            match self.create(&self.key(number), &term) {
                Ok(()) => {
                    (self.number, self.renewed) = (number, began);
                    return Ok(());
                }
                Err(LedgerError::Store(StoreError::Exists { .. })) => {}
                Err(other) => return Err(other),
            }
            // A store may have kept what it said it did not, in this call or in an earlier one. Then
            // nobody else has come in between, and we go on from there.
            let fenced = |number| LedgerError::Fenced {
                job: self.holder.job.clone(),
                reason: format!("another run has created `{}`", self.key(number)),
            };
            match term::read(&*self.store, &self.holder.job, number, now)? {
                Ok(Some(found)) if found == term => {
                    (self.number, self.renewed) = (number, began);
                    return Ok(());
                }
                Ok(Some(found)) if self.is_own(&found) => {}
                // A folder or a pipe, which nobody sees in a listing: it takes the place of no run.
                Ok(None) if blocked < BLOCKED_MAX && self.is_blocked(number)? => {
                    blocked += 1;
                    self.name(&[(self.key(number), "not a regular object".to_owned())]);
                }
                // What was there and is not any more was nobody's but another's.
                Ok(_) => return Err(fenced(number)),
                // No run has written that: it takes the place of none.
                Err(_strange) => {
                    let row = self.row()?;
                    let other = row.newest.filter(|(at, term)| *at > number && !self.is_own(term));
                    if let Some((at, _)) = other {
                        return Err(fenced(at));
                    }
                    number = number.max(row.number);
                }
            }
        }
    }

    /// Whether something has the name of a term that is no object, and can be neither read nor replaced.
    fn is_blocked(&self, number: u64) -> Result<bool, StoreError> {
        match self.store.create(&self.key(number), &ObjectLabels::default()) {
            Err(StoreError::Exists { .. }) => Ok(true),
            // Nothing of it is visible before it is committed.
            Ok(_upload) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn is_own(&self, term: &Term) -> bool {
        term.run == self.holder.run && term.place == place(&self.holder)
    }

    fn create(&self, key: &str, term: &Term) -> Result<(), LedgerError> {
        let text = serde_json::to_vec(term).map_err(|error| LedgerError::Strange {
            key: key.to_owned(),
            reason: error.to_string(),
        })?;
        let labels = ObjectLabels { role: Role::Lease, ..ObjectLabels::default() };
        let mut upload = self.store.create(key, &labels)?;
        upload.write(&text)?;
        let sha256 = sha2::Sha256::digest(&text).into();
        Ok(upload.commit(Declared { bytes: text.len() as u64, sha256 })?)
    }
}

fn place(holder: &Holder) -> String {
    format!("{:016x}", holder.place)
}
