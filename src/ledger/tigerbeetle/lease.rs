//! A lease as a pending transfer: at most one can hold the single unit of a job's account, and the
//! cluster itself expires it.
//!
//! The transfer says who holds it: `user_data_128` is the beginning of the host's name,
//! `user_data_64` the place of the kernel lock, `user_data_32` the process id; the time in its id is
//! that of the run's beginning. Every renewal is a new transfer, because a timeout cannot be changed.

use std::sync::Arc;
use std::time::Duration;

use tigerbeetle_unofficial::{Transfer, account, transfer};

use super::accounts::linked;
use super::link::Verdict;
use super::shared::Shared;
use crate::domain::event::Event;
use crate::domain::id::BackupId;
use crate::ledger::{Holder, Lease, LedgerError, MonotonicTime};

/// Tries to take a lease whose holder changes each time one looks; then somebody is working.
const TRIES: usize = 3;
/// Newest transfers of a lease account among which the holder is found: renewals and returns
/// alternate.
const RECENT: u32 = 8;

/// A lease that is held.
pub(super) struct LedgerLease {
    shared: Arc<Shared>,
    holder: Holder,
    length: Duration,
    /// The pending transfer.
    lease: u128,
    /// Before the cluster was asked for it: it ends no earlier than `length` after that.
    asked: MonotonicTime,
    /// A renewal of which it is not known whether it took effect.
    unsure: Option<Renewal>,
}

/// The transfers of a renewal. Asked for again, they have the same ids.
#[derive(Clone, Copy)]
struct Renewal {
    void: u128,
    lease: u128,
    asked: MonotonicTime,
}

impl LedgerLease {
    /// Takes the lease of a job whose account exists, and records that the run began.
    pub(super) fn acquire(
        shared: &Arc<Shared>,
        holder: &Holder,
        length: Duration,
    ) -> Result<LedgerLease, LedgerError> {
        let mut held = LedgerLease {
            shared: Arc::clone(shared),
            holder: holder.clone(),
            length,
            lease: 0,
            asked: MonotonicTime::now(),
            unsure: None,
        };
        let mut other = None;
        for _ in 0..TRIES {
            match held.take(other.as_ref())? {
                None => return Ok(held),
                // It ended by itself while we looked.
                Some(Verdict::Ended) => other = None,
                Some(_) => other = held.other()?,
            }
            // A holder from our own place is gone: it would hold the kernel's lock, and we do.
            if let Some(other) = &other
                && other.user_data_64() != holder.place
            {
                break;
            }
        }
        Err(held.busy(other.as_ref()))
    }

    /// Tries once, under a new id; returns why not, if not. With `gone`, in the place of that lease.
    fn take(&mut self, gone: Option<&Transfer>) -> Result<Option<Verdict>, LedgerError> {
        let Shared { link, accounts, .. } = &*self.shared;
        (self.lease, self.asked) = (self.new_id(), MonotonicTime::now());
        let begun = |backup_type| Event::started(self.holder.run, backup_type);
        let started = self.holder.backup_type.map(begun);
        let mut batch = vec![accounts.funding(&self.holder.job)];
        batch.extend(gone.map(|gone| linked(accounts.void(self.new_id(), gone.id()))));
        batch.extend(match started {
            Some(started) => vec![linked(self.pending(self.lease)), accounts.event(&started)],
            None => vec![self.pending(self.lease)],
        });
        let mut verdicts = link.create_transfers(&batch)?;
        // The unit was given before; the rest is one chain, so one failure is told apart.
        verdicts.retain(|(index, verdict)| (*index, verdict) != (0, &Verdict::Exists));
        let real = verdicts.iter().find(|(_, verdict)| *verdict != Verdict::Linked);
        match real.map(|(_, verdict)| verdict.clone()) {
            // The chain was taken when it was sent for the first time.
            None | Some(Verdict::Exists) => Ok(None),
            Some(Verdict::Other(reason)) => Err(link.refused("the lease", reason)),
            refused => Ok(refused),
        }
    }

    fn pending(&self, id: u128) -> Transfer {
        let seconds = u32::try_from(self.length.as_secs()).unwrap_or(u32::MAX);
        self.shared
            .accounts
            .pending(id, &self.holder.job, seconds)
            .with_user_data_128(packed_host(&self.holder.host))
            .with_user_data_64(self.holder.place)
            .with_user_data_32(self.holder.process)
    }

    /// A new id that carries the time of the run's beginning.
    fn new_id(&self) -> u128 {
        BackupId::new(self.holder.run.created()).as_u128()
    }

    /// The newest lease of the job, which is the one that is held if any is.
    fn other(&self) -> Result<Option<Transfer>, LedgerError> {
        let Shared { link, accounts, .. } = &*self.shared;
        let flags = account::FilterFlags::DEBITS | account::FilterFlags::REVERSED;
        let filter =
            account::Filter::new(accounts.lease(&self.holder.job), RECENT).with_flags(flags);
        let found =
            link.ask(&async |client| client.get_account_transfers(Box::new(filter)).await)?;
        let pending = |found: &Transfer| found.flags().contains(transfer::Flags::PENDING);
        Ok(found.into_iter().find(pending))
    }

    fn busy(&self, other: Option<&Transfer>) -> LedgerError {
        let describe = |other: &Transfer| {
            let since =
                BackupId::from_u128(other.id()).map_or(other.timestamp().into(), BackupId::created);
            let host = unpacked_host(other.user_data_128());
            Holder::describe(&host, other.user_data_32(), since, self.shared.ctx.now())
        };
        let holder = other.map_or_else(|| "another run".to_owned(), describe);
        LedgerError::Busy { job: self.holder.job.clone(), holder }
    }

    fn fenced(&self) -> LedgerError {
        let job = self.holder.job.clone();
        LedgerError::Fenced { job, reason: "the ledger has expired it".into() }
    }

    /// Gives back `lease` and records `event`, both or none.
    fn finish(&self, lease: u128, event: &Event) -> Result<bool, LedgerError> {
        let Shared { link, accounts, .. } = &*self.shared;
        let batch = [linked(accounts.void(self.new_id(), lease)), accounts.event(event)];
        let verdicts = link.create_transfers(&batch)?;
        let real = verdicts.iter().find(|(_, verdict)| *verdict != Verdict::Linked);
        match real {
            None | Some((0, Verdict::Exists)) => Ok(true),
            Some((0, Verdict::Ended)) => Ok(false),
            Some((_, Verdict::Exists)) => {
                // Recorded before; then only the lease is left.
                link.create_transfers(&[accounts.void(self.new_id(), lease)])?;
                Ok(true)
            }
            Some((_, verdict)) => Err(self.shared.unrecorded(event, verdict)),
        }
    }
}

impl Lease for LedgerLease {
    fn id(&self) -> String {
        self.lease.to_string()
    }

    fn holds(&self) -> bool {
        self.asked.elapsed() < self.length / 2
    }

    fn renew(&mut self) -> Result<(), LedgerError> {
        let new =
            || Renewal { void: self.new_id(), lease: self.new_id(), asked: MonotonicTime::now() };
        let renewal = self.unsure.unwrap_or_else(new);
        self.unsure = Some(renewal);
        let void = self.shared.accounts.void(renewal.void, self.lease);
        let batch = [linked(void), self.pending(renewal.lease)];
        let verdicts = self.shared.link.create_transfers(&batch)?;
        self.unsure = None;
        let real = verdicts.into_iter().find(|(_, verdict)| *verdict != Verdict::Linked);
        match real.map(|(_, verdict)| verdict) {
            None | Some(Verdict::Exists) => {
                (self.lease, self.asked) = (renewal.lease, renewal.asked);
                // What took effect long ago may have ended by now.
                if self.asked.elapsed() < self.length { Ok(()) } else { Err(self.fenced()) }
            }
            Some(Verdict::Ended) => Err(self.fenced()),
            Some(verdict) => Err(self.shared.link.refused("the lease", verdict.reason())),
        }
    }

    fn release(&mut self, event: &Event) -> Result<bool, LedgerError> {
        self.shared.open()?;
        let unsure = self.unsure.map(|renewal| renewal.lease);
        for lease in [Some(self.lease), unsure].into_iter().flatten() {
            if self.finish(lease, event)? {
                return Ok(true);
            }
        }
        // It has ended by itself. What is to be recorded has happened all the same.
        self.shared.record(event)?;
        Ok(true)
    }

    fn free(&mut self) -> Result<(), LedgerError> {
        self.shared.open()?;
        let unsure = self.unsure.map(|renewal| renewal.lease);
        for lease in [Some(self.lease), unsure].into_iter().flatten() {
            // One that is refused has ended, or was never taken.
            let Shared { link, accounts, .. } = &*self.shared;
            link.create_transfers(&[accounts.void(self.new_id(), lease)])?;
        }
        Ok(())
    }
}

/// The first 16 bytes of a host's name, as a number.
fn packed_host(host: &str) -> u128 {
    let mut bytes = [0; 16];
    for (place, byte) in bytes.iter_mut().zip(host.bytes()) {
        *place = byte;
    }
    u128::from_be_bytes(bytes)
}

/// Only what can be part of a host's name: others may write to the ledger.
fn unpacked_host(packed: u128) -> String {
    let bytes = packed.to_be_bytes().into_iter().map(char::from);
    bytes.filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_recognized() {
        assert_eq!(unpacked_host(packed_host("ledger-1")), "ledger-1");
        assert_eq!(unpacked_host(packed_host("ledger-1.example.org")), "ledger-1.example");
        assert_eq!(unpacked_host(packed_host("a\u{1b}[2Jb")), "a2Jb");
    }
}
