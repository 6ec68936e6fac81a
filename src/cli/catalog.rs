//! `bkp catalog`.

use std::path::PathBuf;

use crate::cmd::catalog_file::Options;

/// Write the catalog of backups to a DuckDB database
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes: see bkp(1).\nExample: bkp catalog --to catalog.duckdb")]
pub(super) struct Args {
    /// Path of the database
    #[arg(long, value_name = "PATH")]
    to: PathBuf,

    /// Replace the file at PATH
    #[arg(long)]
    force: bool,

    /// Only backups of this source
    #[arg(value_name = "SOURCE")]
    source: Option<String>,

    /// Show what would be done, without doing it
    #[arg(long)]
    dry_run: bool,
}

impl From<Args> for Options {
    fn from(args: Args) -> Options {
        let Args { to, force, source, dry_run } = args;
        Options { to, force, source, dry_run }
    }
}
