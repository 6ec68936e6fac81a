//! `bkp init`.

use crate::cmd::init::Options;

/// Write a first configuration and a key, then check them
#[derive(Debug, clap::Args)]
#[command(
    after_help = "What is not given is asked for on a terminal, and offered as found on this machine.\n\
                  --store URL, --key and --config say where backups, key and configuration go.\n\
                  Exit codes: 14 if there is a configuration already, or that of the first check that failed; all of them: see bkp(1).\n\
                  Example: bkp init --source tigerbeetle:/var/lib/tigerbeetle/0_0.tigerbeetle --store file:///var/backups/bkp"
)]
pub(super) struct Args {
    /// Source to back up, as KIND:PLACE or NAME=KIND:PLACE, such as `duckdb:/srv/analytics.duckdb` or
    /// `postgres:host=/run/postgresql`; repeatable
    #[arg(long, value_name = "SOURCE")]
    source: Vec<String>,

    /// How often to back up, such as 6h, or when, such as "daily at 03:00" [default: what suits the source]
    #[arg(long, value_name = "WHEN")]
    schedule: Option<String>,

    /// User who is to run the backups and owns key, state and store [default: bkp if it exists and root runs
    /// this, else whoever runs this]
    #[arg(long, value_name = "NAME")]
    user: Option<String>,

    /// Print the configuration; ask nothing, and write nothing
    #[arg(long)]
    print: bool,
}

impl From<Args> for Options {
    fn from(args: Args) -> Options {
        let Args { source, schedule, user, print } = args;
        Options { sources: source, schedule, user, print }
    }
}
