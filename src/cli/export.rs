//! `bkp export`.

use super::flags::WaitArgs;
use super::snapshot::ScopeArg;
use crate::cmd::snapshot::Options;
use crate::domain::backup_kind::BackupKind;

/// Export the tables of a DuckDB database as Parquet, or dump the databases of a PostgreSQL server
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 3 if something in the database cannot be exported; all of them: see bkp(1).\n\
                        Example: bkp export analytics --scope incremental"
)]
pub(super) struct Args {
    /// Name of the source in the configuration
    #[arg(value_name = "SOURCE")]
    source: String,

    /// Scope of the export
    #[arg(long, value_enum, default_value_t = ScopeArg::Full)]
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

impl From<Args> for Options {
    fn from(args: Args) -> Options {
        let Args { source, scope, mode, dry_run, wait: _ } = args;
        Options { kind: BackupKind::Export, source, scope: scope.scope(), mode, dry_run }
    }
}
