//! `bkp doctor`.

/// Check everything a backup needs, without making one
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: that of the first check that failed; all of them: see bkp(1).\n\
                        Example: bkp doctor --json"
)]
pub(super) struct Args {}
