//! `bkp export`.

use super::flags::WaitArgs;
use super::snapshot::ScopeArg;
use crate::cmd::snapshot::Options;
use crate::domain::backup_kind::BackupKind;

/// Export the tables of a DuckDB database as Parquet, without taking its lock
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 3 if the database has something that no export has; all of them: see bkp(1).\n\
                        Example: bkp export analytics --scope incremental"
)]
pub(super) struct Args {
    /// Source, by its name in the configuration
    #[arg(value_name = "SOURCE")]
    source: String,

    /// How much of the source the export holds by itself
    #[arg(long, value_enum, default_value_t = ScopeArg::Full)]
    scope: ScopeArg,

    /// How to capture, as one of the source's modes [default: the source's own]
    #[arg(long, value_name = "MODE")]
    mode: Option<String>,

    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,

    #[command(flatten)]
    pub(super) wait: WaitArgs,
}

impl From<Args> for Options {
    fn from(args: Args) -> Options {
        let Args { source, scope, mode, dry_run, wait: _ } = args;
        Options { kind: BackupKind::Export, source, scope: scope.scope(), mode, dry_run }
    }
}
