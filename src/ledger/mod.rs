//! The contract of the ledger, in which every run is recorded, and of leases, which keep two runs of
//! one job apart.
//!
//! - [`tigerbeetle`]: the ledger, and leases that its clock ends.
//! - [`in_store`]: leases as objects of a store, whether or not there is a ledger.
//! - [`outbox`]: events that wait for the ledger.
//!
//! A lease is held for a time and renewed while its run works. A run that dies stops renewing, and
//! the job is free when the time is over; nothing has to be cleared by hand. A run that was paused
//! for longer finds its lease ended when it renews it before the manifest is written: it has been
//! *fenced*, and writes none.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::domain::event::Event;
use crate::domain::id::BackupId;
use crate::domain::names::BackupType;
use crate::error::{Classify, Fault, Kind, diagnosed};
use crate::store::StoreError;

pub mod in_store;
pub mod outbox;
pub mod tigerbeetle;

/// Which ledger, and how it is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerSettings {
    /// The cluster id.
    pub cluster: u128,
    /// Every replica.
    pub addresses: Vec<String>,
    /// Whether a run needs it to answer.
    pub required: bool,
    /// The ledger number; never 0.
    pub number: u32,
    /// Account ids that do not follow from the ledger number: `operator`, or a backup type's word.
    pub accounts: BTreeMap<String, u128>,
    /// How long a question may take.
    pub deadline: Duration,
}

/// A run that wants a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// What it wants to run; no other run of the same name may go on at the same time.
    pub job: String,
    /// The backup it is going to make. Its time is when the run began.
    pub run: BackupId,
    /// The type of that backup; `None` if it makes none, and its beginning is no event.
    pub backup_type: Option<BackupType>,
    /// The name of its host, for messages.
    pub host: String,
    /// Its process id, for messages.
    pub process: u32,
    /// Where its kernel lock is, see [`crate::fs::lock::Lock::place`]: whoever holds that lock knows
    /// that earlier holders from the same place are gone.
    pub place: u64,
    /// The state directory, where it remembers what it saw of leases.
    pub state_dir: PathBuf,
}

impl Holder {
    /// How a message names the run that holds a lease, as of `now`.
    #[must_use]
    pub fn describe(
        host: &str,
        process: u32,
        since: OffsetDateTime,
        now: OffsetDateTime,
    ) -> String {
        let age = (now - since).whole_seconds().max(0);
        let since = since.replace_nanosecond(0).unwrap_or(since).format(&Rfc3339);
        let since = since.map_or(String::new(), |since| format!(", since {since}"));
        format!("process {process} on {host}, for {age} s{since}")
    }
}

/// A moment, by a clock of this host that nobody sets and that goes on while the host sleeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct MonotonicTime(Duration);

impl MonotonicTime {
    fn now() -> MonotonicTime {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        MonotonicTime(now.try_into().unwrap_or_default())
    }

    fn elapsed(self) -> Duration {
        MonotonicTime::now().0.saturating_sub(self.0)
    }
}

/// A lease that is held. Dropping it does nothing: it ends by itself.
pub trait Lease: Send {
    /// What the manifest says of it.
    fn id(&self) -> String;

    /// Whether less than half of its time is over, by this host's own count: then there is time for
    /// what has to be done under it, even if it cannot be renewed now.
    fn holds(&self) -> bool;

    /// Begins its time anew.
    ///
    /// # Errors
    /// [`LedgerError::Fenced`] if it has ended, and then for good. [`LedgerError::Away`] and store
    /// errors say nothing about it: it may be tried again.
    fn renew(&mut self) -> Result<(), LedgerError>;

    /// Ends it. Where a ledger keeps the lease, `event` is recorded in the same stroke, and also if
    /// the lease has ended before. Returns whether `event` is recorded.
    ///
    /// # Errors
    /// As [`Ledger::record`].
    fn release(&mut self, event: &Event) -> Result<bool, LedgerError>;

    /// Ends it, and there is nothing to record. One that has ended by itself is success.
    ///
    /// # Errors
    /// As [`Ledger::record`], and store errors.
    fn free(&mut self) -> Result<(), LedgerError>;
}

/// One transfer of code [`crate::domain::event::CODE`] in the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Its id.
    pub id: u128,
    /// When the ledger took it, by its own clock.
    pub recorded: OffsetDateTime,
    /// What it says; `None` if bkp would not have written it so.
    pub event: Option<Event>,
}

/// Where runs are recorded. Append-only: nothing that was recorded can be changed.
pub trait Ledger: Send + Sync {
    /// What messages call it.
    fn name(&self) -> &str;

    /// Takes the lease of a job for `length` and records that its run began.
    ///
    /// # Errors
    /// [`LedgerError::Busy`] names who holds it; else as [`Ledger::record`].
    fn acquire(&self, holder: &Holder, length: Duration) -> Result<Box<dyn Lease>, LedgerError>;

    /// Makes sure that it answers, that its accounts can be used, and that a lease can be taken and
    /// given back. Records no event.
    ///
    /// # Errors
    /// As [`Ledger::record`].
    fn probe(&self) -> Result<(), LedgerError>;

    /// Records an event. One that is there already is success.
    ///
    /// # Errors
    /// [`LedgerError::Away`] if it does not answer in time; then the event may be recorded or not.
    /// [`LedgerError::Refused`] if it does not take the event, for instance because another one has
    /// its id.
    fn record(&self, event: &Event) -> Result<(), LedgerError>;

    /// Every event, oldest first.
    ///
    /// # Errors
    /// As [`Ledger::record`]; [`LedgerError::Refused`] if there are more than
    /// [`crate::domain::limits::LEDGER_EVENTS_MAX`].
    fn entries(&self) -> Result<Vec<Entry>, LedgerError>;

    /// What the vault of each type holds, bytes. Types without a vault are left out. Negative only
    /// if somebody else writes to the vaults.
    ///
    /// # Errors
    /// As [`Ledger::record`].
    fn balances(&self) -> Result<BTreeMap<BackupType, i128>, LedgerError>;
}

/// What ledger, lease or outbox can fail with.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// It does not answer.
    #[error("ledger {ledger}: {reason}")]
    Away {
        /// The ledger.
        ledger: String,
        /// What happened instead.
        reason: String,
    },
    /// It answers, and does not take what it was given.
    #[error("ledger {ledger} refuses {what}: {reason}")]
    Refused {
        /// The ledger.
        ledger: String,
        /// What it was given.
        what: String,
        /// What it said.
        reason: String,
    },
    /// Another run holds the lease.
    #[error("`{job}` is already running: {holder}")]
    Busy {
        /// The job.
        job: String,
        /// Who, and for how long.
        holder: String,
    },
    /// The lease ended before the run did.
    #[error("the lease of `{job}` expired during its run: {reason}")]
    Fenced {
        /// The job.
        job: String,
        /// How that was found.
        reason: String,
    },
    /// A lease in the store is not one that bkp would write.
    #[error("the lease `{key}` cannot be parsed: {reason}")]
    Strange {
        /// Its key.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The store that keeps a lease failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The run was to stop while it waited for the ledger.
    #[error(transparent)]
    Stopped(#[from] Fault),
    /// The outbox cannot be read or written.
    #[error("cannot use the outbox {path}")]
    Outbox {
        /// The file or folder.
        path: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

diagnosed!(LedgerError);

impl Classify for LedgerError {
    fn kind(&self) -> Kind {
        match self {
            LedgerError::Away { .. } => Kind::Store,
            LedgerError::Refused { .. } => Kind::Config,
            LedgerError::Busy { .. } | LedgerError::Fenced { .. } => Kind::Busy,
            LedgerError::Strange { .. } => Kind::Refused,
            LedgerError::Store(error) => error.kind(),
            LedgerError::Stopped(fault) => fault.kind(),
            LedgerError::Outbox { .. } => Kind::Failed,
        }
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            LedgerError::Away { .. } => {
                "start the cluster, or set `cluster` and `addresses` under [ledger] to what it was started with; check with `bkp doctor`"
            }
            LedgerError::Refused { .. } => {
                "set an unused ledger `number` and account ids under [ledger]; if the client is refused, use a bkp built for the cluster's release"
            }
            LedgerError::Busy { .. } => {
                "wait for it to end; if it died, its lease expires, no manual cleanup is needed"
            }
            LedgerError::Fenced { .. } => {
                "run the job again; if the host may be suspended for long, set a longer `lease` in the configuration"
            }
            LedgerError::Strange { .. } => {
                "find out who wrote it; if no run of this job is in progress, remove it from the store"
            }
            LedgerError::Outbox { .. } => "make `state_dir` writable for the user who runs bkp",
            LedgerError::Store(error) => return error.hint(),
            LedgerError::Stopped(fault) => return fault.hint(),
        };
        Some(hint.to_owned())
    }
}
