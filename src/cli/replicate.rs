//! `bkp replicate`.

use clap::ValueEnum;

use super::flags::WaitArgs;
use crate::cmd::{replicate, snapshot};
use crate::domain::backup_kind::BackupKind;
use crate::domain::names::Scope;

/// Copy the new and changed files of a folder, or the backups of one store to another
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 3 if a file or a backup could not be copied; all of them: see bkp(1).\n\
                        Example: bkp replicate tier; bkp replicate --to offsite --from main"
)]
pub(super) struct Args {
    /// Name of the source in the configuration; with --to, copy only its backups
    #[arg(value_name = "SOURCE", required_unless_present = "to")]
    source: Option<String>,

    /// Copy to this store (name or URL) what it does not have yet: backups, pins, notes and logs, byte for byte
    #[arg(long, value_name = "STORE")]
    to: Option<String>,

    /// Store to copy from [default: another store of SOURCE, else the only other store]
    #[arg(long, value_name = "STORE", requires = "to")]
    from: Option<String>,

    /// Seal the copies anew under new data keys, for the `recipients` of the configuration alone; --key only
    /// adds keys to read with
    #[arg(long, requires = "to")]
    reseal: bool,

    /// Scope of the replica [default: auto]
    #[arg(long, value_enum, conflicts_with = "to")]
    scope: Option<ReplicaScope>,

    /// Show what would be done, without doing it
    #[arg(long)]
    dry_run: bool,

    #[command(flatten)]
    pub(super) wait: WaitArgs,
}

/// What a replica builds on it chooses itself, so it is never differential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ReplicaScope {
    /// Every file
    Full,
    /// What changed since earlier replicas
    Incremental,
    /// Incremental if a usable chain exists, otherwise full
    Auto,
}

impl ReplicaScope {
    /// The scope; `None` where bkp chooses.
    fn scope(self) -> Option<Scope> {
        match self {
            ReplicaScope::Full => Some(Scope::Full),
            ReplicaScope::Incremental => Some(Scope::Incremental),
            ReplicaScope::Auto => None,
        }
    }
}

impl Args {
    /// What is to be copied from store to store, if that is asked for.
    pub(super) fn copies(&self) -> Option<replicate::Options> {
        let Args { source, to, from, reseal, scope: _, dry_run, wait } = self;
        let (from, source) = (from.clone(), source.clone());
        let (reseal, dry_run) = (*reseal, *dry_run);
        let patience = wait.patience();
        to.clone().map(|to| replicate::Options { to, from, source, reseal, dry_run, patience })
    }
}

impl From<Args> for snapshot::Options {
    fn from(args: Args) -> snapshot::Options {
        let Args { source, scope, dry_run, .. } = args;
        snapshot::Options {
            kind: BackupKind::Replica,
            source: source.unwrap_or_default(),
            scope: scope.and_then(ReplicaScope::scope),
            mode: None,
            dry_run,
        }
    }
}
