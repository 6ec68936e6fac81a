//! `bkp run`.

use super::flags::WaitArgs;
use crate::cmd::run::Options;

/// Run every job that is due, or one job now
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes: that of the run, 3 if some jobs failed and others did not; \
                        11 if JOB runs already; all of them: see bkp(1).\n\
                        Example: bkp run, every five minutes from a timer")]
pub(super) struct Args {
    /// The job to run, due or not [default: all that are due]
    #[arg(value_name = "JOB")]
    job: Option<String>,

    /// Say what would run, and run nothing
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
