//! `bkp replicate`.

use clap::ValueEnum;

use super::flags::WaitArgs;
use crate::cmd::snapshot::Options;
use crate::domain::backup_kind::BackupKind;
use crate::domain::names::Scope;

/// Copy the new and changed files of a folder
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes: 3 if a file could not be copied; all of them: see bkp(1).\n\
                        Example: bkp replicate tier")]
pub(super) struct Args {
    /// Name of the source in the configuration
    #[arg(value_name = "SOURCE")]
    source: String,

    /// Scope of the replica
    #[arg(long, value_enum, default_value_t = ReplicaScope::Auto)]
    scope: ReplicaScope,

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

impl From<Args> for Options {
    fn from(args: Args) -> Options {
        let Args { source, scope, dry_run, wait: _ } = args;
        Options { kind: BackupKind::Replica, source, scope: scope.scope(), mode: None, dry_run }
    }
}
