//! `bkp logs`.

use super::flags::WaitArgs;
use crate::cmd::logs::Options;

/// Ship the change log of a source since the last shipped position
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 3 if part of the log was lost before it was shipped; all of them: see bkp(1).\n\
                        Example: bkp logs books, every 15 minutes; or as a service: bkp logs books --follow"
)]
pub(super) struct Args {
    /// Name of the source in the configuration
    #[arg(value_name = "SOURCE")]
    source: String,

    /// What to ship: wal (from the data file) or query (from the cluster) [default: the mode of the source]
    #[arg(long, value_name = "MODE")]
    mode: Option<String>,

    /// Keep shipping until interrupted, polling every few seconds
    #[arg(long, conflicts_with = "dry_run")]
    follow: bool,

    /// Show what would be done, without doing it
    #[arg(long)]
    dry_run: bool,

    #[command(flatten)]
    pub(super) wait: WaitArgs,
}

impl From<Args> for Options {
    fn from(args: Args) -> Options {
        let Args { source, mode, follow, dry_run, wait: _ } = args;
        Options { source, mode, follow, dry_run }
    }
}
