//! `bkp status`.

/// Say how jobs, backups and stores fare, and what is wrong
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes: 18 if a finding is critical; all of them: see bkp(1).\n\
                        Example: bkp status --json")]
pub(super) struct Args;
