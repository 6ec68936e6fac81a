//! `bkp logs`.

use std::path::PathBuf;

use super::flags::WaitArgs;
use crate::cmd::log_files::{self, Request};
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

    /// What to ship of TigerBeetle: wal (from the data file) or query (from the cluster) [default: the mode of the source]
    #[arg(long, value_name = "MODE")]
    mode: Option<String>,

    /// Keep shipping until interrupted, polling every few seconds
    #[arg(long, conflicts_with = "dry_run")]
    follow: bool,

    /// Archive this file of the server's log: for PostgreSQL's `archive_command`
    #[arg(long, value_name = "PATH", conflicts_with_all = ["mode", "follow", "dry_run", "fetch"])]
    push: Option<PathBuf>,

    /// Bring the file of this name to this path: for `restore_command`
    #[arg(long, value_names = ["FILE", "PATH"], num_args = 2, conflicts_with_all = ["mode", "follow", "dry_run"])]
    fetch: Option<Vec<PathBuf>>,

    /// Show what would be done, without doing it
    #[arg(long)]
    dry_run: bool,

    #[command(flatten)]
    pub(super) wait: WaitArgs,
}

impl Args {
    /// What a server asks for through a hook, if this is one.
    pub(super) fn hook(&self) -> Option<log_files::Options> {
        let fetch = || match self.fetch.as_deref()? {
            [file, target] => Some(Request::Fetch {
                file: file.to_string_lossy().into_owned(),
                target: target.clone(),
            }),
            _ => None,
        };
        let request = self.push.clone().map(Request::Push).or_else(fetch)?;
        Some(log_files::Options { source: self.source.clone(), request })
    }
}

impl From<Args> for Options {
    fn from(args: Args) -> Options {
        let Args { source, mode, follow, dry_run, push: _, fetch: _, wait: _ } = args;
        Options { source, mode, follow, dry_run }
    }
}
