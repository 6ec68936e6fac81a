//! `bkp snapshot`.

use clap::ValueEnum;

use super::flags::WaitArgs;
use crate::cmd::snapshot::Options;
use crate::domain::backup_kind::BackupKind;
use crate::domain::names::Scope;

/// Back up a consistent capture of a source
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes: see bkp(1).\nExample: bkp snapshot books --scope incremental")]
pub(super) struct Args {
    /// Name of the source in the configuration
    #[arg(value_name = "SOURCE")]
    source: String,

    /// Scope of the backup
    #[arg(long, value_enum, default_value_t = ScopeArg::Auto)]
    scope: ScopeArg,

    /// Capture mode [default: the mode of the source]
    #[arg(long, value_name = "MODE")]
    mode: Option<String>,

    /// Show what would be done, without doing it
    #[arg(long)]
    dry_run: bool,

    #[command(flatten)]
    pub(super) wait: WaitArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum ScopeArg {
    /// Everything
    Full,
    /// What changed since the previous backup
    Incremental,
    /// What changed since the last full backup
    Differential,
    /// Incremental if a usable chain exists, otherwise full
    Auto,
}

impl From<Args> for Options {
    fn from(args: Args) -> Options {
        let Args { source, scope, mode, dry_run, wait: _ } = args;
        Options { kind: BackupKind::Snapshot, source, scope: scope.scope(), mode, dry_run }
    }
}

impl ScopeArg {
    /// The scope; `None` where bkp chooses.
    pub(super) fn scope(self) -> Option<Scope> {
        match self {
            ScopeArg::Full => Some(Scope::Full),
            ScopeArg::Incremental => Some(Scope::Incremental),
            ScopeArg::Differential => Some(Scope::Differential),
            ScopeArg::Auto => None,
        }
    }
}
