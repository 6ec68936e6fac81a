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

use std::io::Read as _;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::Digest as _;
use time::OffsetDateTime;

use super::{Holder, Lease, LedgerError, Moment};
use crate::ctx::Ctx;
use crate::domain::event::Event;
use crate::domain::id::BackupId;
use crate::store::{AppendStore, Declared, ObjectLabels, Role, StoreError};

mod held;
mod stale;

pub use held::held;
pub use stale::stale;

/// Where the terms of a store are.
const FOLDER: &str = "leases";
const SCHEMA: &str = "bkp.lease/1";
/// Largest term that is read, bytes. One needs about 400.
const TERM_BYTES_MAX: u64 = 4096;
/// No term lasts longer, whatever it says of itself: who can write to the store shall not be able to
/// block a job for ever.
const TERM_LONGEST: time::Duration = time::Duration::days(1);
/// Further tries after somebody else took the next number; then he is working.
const TRIES: usize = 3;

/// One term, as stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Term {
    schema: String,
    job: String,
    run: BackupId,
    host: String,
    process: u32,
    /// In hex: it is as long as a number of JSON must not be.
    place: String,
    #[serde(with = "time::serde::rfc3339")]
    begun: OffsetDateTime,
    /// The end; the beginning itself if the job is given back.
    #[serde(with = "time::serde::rfc3339")]
    until: OffsetDateTime,
}

/// A lease that is held.
struct InStore {
    store: Arc<dyn AppendStore>,
    holder: Holder,
    length: Duration,
    ctx: Ctx,
    number: u64,
    renewed: Moment,
}

/// Takes the lease of a job for `length` in one store.
///
/// # Errors
/// [`LedgerError::Busy`] names who holds it; [`LedgerError::Strange`] if the newest term is not one of
/// ours; what the store fails with.
pub fn acquire(
    store: Arc<dyn AppendStore>,
    holder: &Holder,
    length: Duration,
    ctx: &Ctx,
) -> Result<Box<dyn Lease>, LedgerError> {
    let (holder, ctx) = (holder.clone(), ctx.clone());
    let mut lease = InStore { store, holder, length, ctx, number: 0, renewed: Moment::now() };
    let mut busy = None;
    for _ in 0..TRIES {
        let last = lease.last()?;
        if let Some((_, term)) = last.as_ref().filter(|(_, term)| lease.is_taken(term)) {
            return Err(lease.busy(term));
        }
        let number = last.as_ref().map_or(0, |(number, _)| *number);
        match lease.next(number, length) {
            Ok(()) => return Ok(Box::new(lease)),
            Err(LedgerError::Fenced { .. }) => busy = last.map(|(_, term)| term),
            Err(other) => return Err(other),
        }
    }
    // Somebody is quicker each time; who it was at first is as good a name as any.
    let holder = busy.map_or_else(|| "another run".to_owned(), |term| lease.describe(&term));
    Err(LedgerError::Busy { job: lease.holder.job, holder })
}

impl Lease for InStore {
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

impl InStore {
    fn folder(&self) -> String {
        format!("{FOLDER}/{}", self.holder.job)
    }

    /// The key of a term. Numbers have as many digits as the largest, so that they sort.
    fn key(&self, number: u64) -> String {
        format!("{}/{number:020}", self.folder())
    }

    /// The newest term of the job.
    fn last(&self) -> Result<Option<(u64, Term)>, LedgerError> {
        let mut last = None;
        for object in self.store.list(&self.folder())? {
            let object = object?;
            let number = object.key.rsplit('/').next().and_then(|name| name.parse().ok());
            last = last.max(number.filter(|number| self.key(*number) == object.key));
        }
        last.map(|number| Ok((number, self.read(number)?))).transpose()
    }

    fn read(&self, number: u64) -> Result<Term, LedgerError> {
        let key = self.key(number);
        let strange = |reason: String| LedgerError::Strange { key: key.clone(), reason };
        let mut bytes = Vec::new();
        let input = self.store.open(&key, None)?;
        let read = input.take(TERM_BYTES_MAX).read_to_end(&mut bytes);
        read.map_err(|source| StoreError::Unavailable {
            store: self.store.url().to_owned(),
            operation: "read",
            key: key.clone(),
            transient: true,
            source: source.into(),
        })?;
        let term: Term =
            serde_json::from_slice(&bytes).map_err(|error| strange(error.to_string()))?;
        let ours = term.schema == SCHEMA && term.job == self.holder.job;
        if !ours || term.until < term.begun || term.until > self.ctx.now() + TERM_LONGEST {
            let reason = "it is not a lease of this job, or ends later than in a day";
            return Err(strange(reason.into()));
        }
        Ok(term)
    }

    /// Whether somebody works under this term. A holder from our own place cannot: he would hold the
    /// kernel's lock, and we do.
    fn is_taken(&self, term: &Term) -> bool {
        let given_back = term.until == term.begun;
        !given_back && self.ctx.now() < term.until && term.place != place(&self.holder)
    }

    fn busy(&self, term: &Term) -> LedgerError {
        LedgerError::Busy { job: self.holder.job.clone(), holder: self.describe(term) }
    }

    fn describe(&self, term: &Term) -> String {
        // What is read from a store is shown only if it could be a name.
        let plain = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        let host: String = term.host.chars().filter(plain).take(64).collect();
        Holder::describe(&host, term.process, term.run.created(), self.ctx.now())
    }

    /// Creates the term after `number`, which lasts for `length`.
    fn next(&mut self, mut number: u64, length: Duration) -> Result<(), LedgerError> {
        loop {
            let began = Moment::now();
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
                reason: "there is no number after it".into(),
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
            match self.read(number) {
                Ok(found) if found == term => {
                    (self.number, self.renewed) = (number, began);
                    return Ok(());
                }
                Ok(found) if (found.run, &found.place) == (term.run, &term.place) => {}
                // What was there and is not any more was nobody's but another's.
                Ok(_) | Err(LedgerError::Store(StoreError::Missing { .. })) => {
                    let reason = format!("another run has created `{}`", self.key(number));
                    return Err(LedgerError::Fenced { job: self.holder.job.clone(), reason });
                }
                Err(other) => return Err(other),
            }
        }
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
