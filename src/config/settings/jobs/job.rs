//! The settings of a job.

use std::time::Duration;

use time::OffsetDateTime;

use crate::domain::backup_kind::BackupKind;
use crate::domain::health::Ages;
use crate::domain::names::{BackupName, BackupType, Scope};
use crate::domain::retention::Policy;
use crate::domain::schedule::{Retries, When};
use crate::domain::verify_level::VerifyLevel;

pub(super) const HOUR: u64 = 3600;
pub(super) const DAY: u64 = 24 * HOUR;
/// The longest time that a configuration may name, seconds: a hundred years.
pub(super) const LONGEST: u64 = 36_525 * DAY;

/// Which backups of a source a verification checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VerifySelection {
    /// The backup that a restore would use.
    Newest,
    /// The newest export.
    NewestExport,
    /// Every backup of the source.
    All,
    /// The log instead of backups.
    Log,
}

/// The resolved settings of a job.
#[derive(Debug, Clone)]
pub struct JobSettings {
    /// Its name.
    pub name: String,
    /// What it does.
    pub run: JobKind,
    /// Between which stores it copies, if it does.
    pub copies: Option<CopySettings>,
    /// The source it is about.
    pub source: Option<String>,
    /// The type of that source.
    pub backup_type: Option<BackupType>,
    /// The scope of its backups; `None` if it is left to bkp, or if it makes none.
    pub scope: Option<Scope>,
    /// Whether it says that the scope is left to bkp, which for an export is not the default.
    pub auto_scope: bool,
    /// The level of its verification, if it is one.
    pub level: Option<VerifyLevel>,
    /// What a verification is about.
    pub verify_selection: VerifySelection,
    /// When the next run is due.
    pub when: When,
    /// Whether the job is enabled.
    pub enabled: bool,
    /// Up to how much later than its time it begins.
    pub jitter: Duration,
    /// What happens after a failure.
    pub retries: Retries,
    /// How long a run may take before it is killed.
    pub timeout: Duration,
    /// Jobs that run before it if they are due at the same time.
    pub after: Vec<String>,
    /// Age of the last success from which on it is a warning; `None` follows from the interval.
    pub warn_after: Option<Duration>,
    /// Age of the last success from which on it is critical; `None` follows from the interval.
    pub critical_after: Option<Duration>,
    /// Which of its backups are kept; `None` for all.
    pub retention: Option<Policy>,
    /// From how long ago on any moment is to be restorable from its log; `None` for ever.
    pub keep_log: Option<Duration>,
    /// A URL, or a reference to one, that is told how its runs go.
    pub ping: Option<String>,
    /// Hooks that run around its runs.
    pub hooks: Hooks,
}

impl JobSettings {
    /// From which age of its last good run on it is late.
    #[must_use]
    pub fn ages(&self, now: OffsetDateTime) -> Ages {
        Ages::of(self.when.interval(now), self.warn_after, self.critical_after)
    }

    /// Whether a backup of this name is one that this job makes.
    #[must_use]
    pub fn is_maker_of(&self, name: &BackupName) -> bool {
        self.source.as_ref() == Some(&name.source)
            && self.backup_type.is_none_or(|of_job| of_job == name.backup_type)
            && self.run.makes().is_some_and(|made| name.kind == made)
            && self.scope.is_none_or(|scope| scope == name.scope)
    }

    /// Whether this job makes the backups that `other` looks at, and does not wait for it.
    #[must_use]
    pub fn makes_for(&self, other: &JobSettings) -> bool {
        self.run.makes().is_some()
            && self.source == other.source
            && !self.after.contains(&other.name)
    }
}

/// Between which stores a job copies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopySettings {
    /// The name of the store that gets the copies.
    pub to: String,
    /// The name of the store that has the backups; `None` leaves it to bkp.
    pub from: Option<String>,
}

/// Programs around a run; none where there are no words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hooks {
    /// Before the run; if it fails, the run is not started.
    pub before: Vec<String>,
    /// After a successful run.
    pub after: Vec<String>,
    /// After a failed run.
    pub failed: Vec<String>,
    /// At the end of every run, whatever its outcome.
    pub finally: Vec<String>,
    /// How long each may take.
    pub timeout: Duration,
}

/// A command that a job can run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobKind {
    /// `bkp snapshot`.
    Snapshot,
    /// `bkp export`.
    Export,
    /// `bkp replicate`.
    Replicate,
    /// `bkp logs`.
    Logs,
    /// `bkp verify`.
    Verify,
    /// `bkp cleanup`.
    Cleanup,
    /// `bkp replicate --to`.
    Copy,
}

impl JobKind {
    /// Those that a word alone names; [`JobKind::Copy`] is `replicate` with a store.
    pub const ALL: [JobKind; 6] = [
        JobKind::Snapshot,
        JobKind::Export,
        JobKind::Replicate,
        JobKind::Logs,
        JobKind::Verify,
        JobKind::Cleanup,
    ];

    /// The command.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            JobKind::Snapshot => "snapshot",
            JobKind::Export => "export",
            JobKind::Replicate | JobKind::Copy => "replicate",
            JobKind::Logs => "logs",
            JobKind::Verify => "verify",
            JobKind::Cleanup => "cleanup",
        }
    }

    /// The kind of the backups that a retention may remove; `None` if it makes none. A log is kept by its age:
    /// a policy that keeps the newest segment of a day would leave gaps.
    #[must_use]
    pub const fn makes(self) -> Option<BackupKind> {
        match self {
            JobKind::Snapshot => Some(BackupKind::Snapshot),
            JobKind::Export => Some(BackupKind::Export),
            JobKind::Replicate => Some(BackupKind::Replica),
            JobKind::Logs | JobKind::Verify | JobKind::Cleanup | JobKind::Copy => None,
        }
    }

    /// The kind of the backups that it makes, segments of a log included.
    #[must_use]
    pub const fn kind(self) -> Option<BackupKind> {
        match self {
            JobKind::Logs => Some(BackupKind::Log),
            JobKind::Snapshot
            | JobKind::Export
            | JobKind::Replicate
            | JobKind::Verify
            | JobKind::Cleanup
            | JobKind::Copy => self.makes(),
        }
    }

    /// The commands that make backups of these kinds.
    #[must_use]
    pub fn making(kinds: &[BackupKind]) -> Vec<&'static str> {
        let made = |job: &JobKind| job.kind().is_some_and(|kind| kinds.contains(&kind));
        JobKind::ALL.into_iter().filter(made).map(JobKind::word).collect()
    }

    /// Whether it is about one source.
    #[must_use]
    pub const fn of_source(self) -> bool {
        !matches!(self, JobKind::Cleanup | JobKind::Copy)
    }

    /// Commands that may run at the same time on the same source.
    #[must_use]
    pub const fn compatible_commands(self) -> &'static [JobKind] {
        match self {
            JobKind::Snapshot => &[JobKind::Copy, JobKind::Logs, JobKind::Verify],
            JobKind::Export | JobKind::Replicate => &[JobKind::Copy, JobKind::Verify],
            JobKind::Logs => &[JobKind::Copy, JobKind::Snapshot, JobKind::Verify],
            JobKind::Verify => &[
                JobKind::Copy,
                JobKind::Export,
                JobKind::Logs,
                JobKind::Replicate,
                JobKind::Snapshot,
            ],
            // Into several stores at a time, and beside everything that removes nothing.
            JobKind::Copy => &[
                JobKind::Copy,
                JobKind::Export,
                JobKind::Logs,
                JobKind::Replicate,
                JobKind::Snapshot,
                JobKind::Verify,
            ],
            JobKind::Cleanup => &[],
        }
    }

    /// The scope of its backups where a job names none; `None` leaves it to bkp.
    #[must_use]
    pub const fn scope(self) -> Option<Scope> {
        match self {
            JobKind::Export => Some(Scope::Full),
            JobKind::Snapshot
            | JobKind::Replicate
            | JobKind::Logs
            | JobKind::Verify
            | JobKind::Cleanup
            | JobKind::Copy => None,
        }
    }

    /// The level where a job names none, as on the command line; `None` if it has no levels.
    #[must_use]
    pub const fn level(self) -> Option<VerifyLevel> {
        match self {
            JobKind::Verify => Some(VerifyLevel::Digest),
            JobKind::Snapshot
            | JobKind::Export
            | JobKind::Replicate
            | JobKind::Logs
            | JobKind::Cleanup
            | JobKind::Copy => None,
        }
    }
}
