//! `bkp cleanup`.

use super::flags::WaitArgs;
use crate::cmd::cleanup::Options;

/// Remove backups that no retention policy keeps, and orphaned objects
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes: 11 if another cleanup is running; all of them: see bkp(1).\n\
                        Example: bkp cleanup --dry-run")]
pub(super) struct Args {
    /// Show what would be removed and why, without removing it
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
