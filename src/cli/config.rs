//! `bkp config`.

use clap::Subcommand;

use crate::cmd::config::Options;

/// Check, show or describe the configuration
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 78 if the configuration is not valid; all of them: see bkp(1).\n\
                        Example: bkp config check"
)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Say whether the configuration is valid
    #[command(after_help = "Exit codes: 78 if it is not valid; all of them: see bkp(1).\n\
                            Example: bkp config check --config ./bkp.toml")]
    Check,
    /// Show the resolved settings as TOML; secrets stay references
    #[command(after_help = "Exit codes: see bkp(1).\nExample: bkp config show --origin")]
    Show {
        /// Say where each value came from: file, environment, flag, default
        #[arg(long)]
        origin: bool,
    },
    /// Print the JSON Schema of the configuration file
    #[command(after_help = "Exit codes: see bkp(1).\nExample: bkp config schema > bkp.schema.json")]
    Schema,
}

impl Args {
    pub(super) fn is_schema(&self) -> bool {
        matches!(self.command, Command::Schema)
    }
}

impl From<Args> for Options {
    fn from(args: Args) -> Options {
        match args.command {
            Command::Check => Options::Check,
            Command::Show { origin } => Options::Show { origin },
            Command::Schema => Options::Schema,
        }
    }
}
