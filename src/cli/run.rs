//! `bkp run`.

use super::flags::WaitArgs;
use crate::cmd::run::Options;

/// Run all due jobs, or one job now
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes: that of the run, 3 if some jobs failed and others did not; \
                        11 if JOB is already running; all of them: see bkp(1).\n\
                        Example: bkp run, every five minutes from a timer")]
pub(super) struct Args {
    /// Job to run, due or not [default: all due jobs]
    #[arg(value_name = "JOB")]
    job: Option<String>,

    /// Show what would run, without running it
    #[arg(long)]
    dry_run: bool,

    #[command(flatten)]
    wait: WaitArgs,
}

impl From<Args> for Options {
    fn from(args: Args) -> Options {
        Options { job: args.job, dry_run: args.dry_run, patience: args.wait.patience() }
    }
}
