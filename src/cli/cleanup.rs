//! `bkp cleanup`.

use super::flags::WaitArgs;
use crate::cmd::cleanup::Options;

/// Remove the backups that no job's retention keeps, and what belongs to no backup
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes: 11 if another cleanup is at it; all of them: see bkp(1).\n\
                        Example: bkp cleanup --dry-run")]
pub(super) struct Args {
    /// Say what would be removed and why, and remove nothing
    #[arg(long)]
    dry_run: bool,

    #[command(flatten)]
    wait: WaitArgs,
}

impl From<Args> for Options {
    fn from(args: Args) -> Options {
        Options { dry_run: args.dry_run, patience: args.wait.patience() }
    }
}
