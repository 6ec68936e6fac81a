//! `bkp keys`.

use std::path::PathBuf;

use clap::Subcommand;

use crate::cmd::keys::Options;

/// Manage key files
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes: see bkp(1).\nExample: bkp keys generate /etc/bkp/key")]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Generate a key file; never overwrites an existing one
    #[command(after_help = "Exit codes: 12 if the file exists; all of them: see bkp(1).\n\
                            Example: bkp keys generate /etc/bkp/key")]
    Generate {
        /// Where to write it [default: every configured `file:` recipient that does not exist]
        #[arg(value_name = "PATH")]
        path: Option<PathBuf>,

        /// Show what would be done, without doing it
        #[arg(long)]
        dry_run: bool,
    },
}

impl From<Args> for Options {
    fn from(args: Args) -> Options {
        let Command::Generate { path, dry_run } = args.command;
        Options { path, dry_run }
    }
}
