//! `bkp status`.

/// Show the health of jobs, backups and stores
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes: 18 if a finding is critical; all of them: see bkp(1).\n\
                        Example: bkp status --json")]
pub(super) struct Args;
