//! `bkp restore`.

use std::path::PathBuf;

use super::flags::{AtArg, SelectArgs};
use crate::cmd::restore::Options;
use crate::ops::pitr_plan::Moment;

/// Restore a backup to a new path
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes: 14 if a safety rule refuses; all of them: see bkp(1).\n\
                        Example: bkp restore books --to /var/lib/tigerbeetle/0_0.tigerbeetle")]
#[group(id = "moment", args = ["at", "op"])]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(super) struct Args {
    #[command(flatten)]
    select: SelectArgs,

    /// Last operation of the log of SOURCE to replay, instead of a time
    #[arg(long, value_name = "OP", requires = "source", conflicts_with_all = ["latest", "id", "at"])]
    op: Option<u64>,

    /// Snapshot to start from when replaying a log, by a prefix of its id [default: the newest]
    #[arg(long, value_name = "ID", requires = "moment", conflicts_with = "from_export")]
    base: Option<String>,

    /// Path to restore to
    #[arg(long, value_name = "PATH")]
    to: PathBuf,

    /// Replica number of the restored file
    #[arg(long, value_name = "N")]
    replica: Option<u8>,

    /// Further addresses at which the original cluster might still be running
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',')]
    addresses: Vec<String>,

    /// Use the exports of SOURCE instead of its snapshots
    #[arg(long)]
    from_export: bool,

    /// Only this table of an export, and the tables it references
    #[arg(long, value_name = "SCHEMA.TABLE")]
    table: Option<String>,

    /// Only files whose path fits this pattern, such as `2026/*.parquet`; can be given several times
    #[arg(long = "file", value_name = "PATTERN", conflicts_with = "table")]
    files: Vec<String>,

    /// Rename what exists at PATH instead of refusing
    #[arg(long)]
    force: bool,

    /// Do not ask for confirmation
    #[arg(long)]
    yes: bool,

    /// Show what would be done, without doing it
    #[arg(long)]
    dry_run: bool,
}

impl Args {
    pub(super) fn yes(&self) -> bool {
        self.yes
    }

    /// The source and the moment that its log is to lead to.
    pub(super) fn moment(&self) -> Option<(String, Moment)> {
        if self.from_export {
            return None;
        }
        let at = self.select.at().map(|at| match at {
            AtArg::Time(time) => Moment::At(time),
            AtArg::Latest => Moment::Latest,
        });
        let moment = self.op.map(Moment::Op).or(at);
        Some((self.select.source_alone()?.to_owned(), moment?))
    }

    /// How the id of the snapshot to begin with begins.
    pub(super) fn base(&self) -> Option<String> {
        self.base.clone()
    }
}

impl From<Args> for Options {
    fn from(args: Args) -> Options {
        let Args { select, op: _, base: _, to, replica, addresses, .. } = args;
        let Args { from_export, table, files, force, yes, dry_run, .. } = args;
        let select = select.into();
        Options { select, to, replica, addresses, from_export, table, files, force, yes, dry_run }
    }
}
