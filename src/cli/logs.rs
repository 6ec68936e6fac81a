//! `bkp logs`.

use super::flags::WaitArgs;
use crate::cmd::logs::Options;

/// Ship what a source did since the last shipped position: the change log between two snapshots
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 3 if a part of the log was lost before it was shipped; all of them: see bkp(1).\n\
                        Example: bkp logs books, every 15 minutes; or as a service: bkp logs books --follow"
)]
pub(super) struct Args {
    /// Source, by its name in the configuration
    #[arg(value_name = "SOURCE")]
    source: String,

    /// What to ship: wal (from the data file) or query (what the cluster answers) [default: the source's own]
    #[arg(long, value_name = "MODE")]
    mode: Option<String>,

    /// Go on until a signal comes, a look every few seconds
    #[arg(long, conflicts_with = "dry_run")]
    follow: bool,

    /// Say what would be done, and do nothing
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
