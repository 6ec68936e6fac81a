//! `bkp restore`.

use std::path::PathBuf;

use super::flags::{AtArg, SelectArgs, StoreAtArgs, ThawArgs};
use crate::cmd::restore::Options;
use crate::cmd::restore_at::LogEvent;
use crate::cmd::restore_tenant::TenantMode;
use crate::error::{Fault, Kind};
use crate::ops::pitr_plan::Moment;

/// Restore a backup to a new path
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 14 if a safety rule refuses, 75 if objects are being restored from an archive; all of them: see bkp(1).\n\
                        Example: bkp restore books --to /var/lib/tigerbeetle/0_0.tigerbeetle"
)]
#[group(id = "moment", args = ["at", "op", "lsn", "xid", "name"])]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(super) struct Args {
    #[command(flatten)]
    select: SelectArgs,

    /// Last operation of the log of SOURCE to replay, instead of a time
    #[arg(long, value_name = "OP", requires = "source", conflicts_with_all = ["latest", "id", "at"])]
    op: Option<u64>,

    /// Position in the log of a PostgreSQL server to end at, instead of a time
    #[arg(long, value_name = "X/Y", requires = "source", conflicts_with_all = ["latest", "id", "at", "op"], value_parser = lsn)]
    lsn: Option<u64>,

    /// Transaction of a PostgreSQL server to end with, instead of a time
    #[arg(long, value_name = "XID", requires = "source", conflicts_with_all = ["latest", "id", "at", "op", "lsn"])]
    xid: Option<u32>,

    /// Restore point of a PostgreSQL server to end at, instead of a time
    #[arg(long, value_name = "NAME", requires = "source", conflicts_with_all = ["latest", "id", "at", "op", "lsn", "xid"])]
    name: Option<String>,

    /// End right before what --at, --lsn or --xid names
    #[arg(long, requires = "moment", conflicts_with = "op")]
    exclusive: bool,

    /// Snapshot to start from when replaying a log, by a prefix of its id [default: the newest]
    #[arg(long, value_name = "ID", requires = "moment", conflicts_with = "from_export")]
    base: Option<String>,

    #[command(flatten)]
    pub(super) store_at: StoreAtArgs,

    /// Path to restore to; of an export of PostgreSQL also `postgresql://HOST/DATABASE`
    #[arg(long, value_name = "PATH", required_unless_present_any = ["into", "tenant"], conflicts_with = "into")]
    to: Option<PathBuf>,

    /// Restore only this tenant's rows, from --at or --from-export, into the database given by --into
    #[arg(long, value_name = "NAME", requires = "into", conflicts_with_all = ["replica", "schemas", "table", "files", "tablespaces", "force"])]
    tenant: Option<String>,

    /// Live database to restore the rows of --tenant into: `postgresql://HOST/DATABASE`
    #[arg(long, value_name = "URL", requires = "tenant")]
    into: Option<String>,

    /// The tenant has been renamed since the backup
    #[arg(long, requires = "tenant")]
    renamed: bool,

    /// How to put the rows of --tenant back: `fk` has the database check foreign keys, `replica` has bkp check them
    #[arg(long, value_name = "MODE", requires = "tenant", value_parser = ["fk", "replica"], default_value = "fk")]
    mode: String,

    /// Replica number of the restored file
    #[arg(long, value_name = "N")]
    replica: Option<u8>,

    /// Further addresses at which the original cluster might still be running
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',')]
    addresses: Vec<String>,

    /// Use the exports of SOURCE instead of its snapshots
    #[arg(long)]
    from_export: bool,

    /// Only this database of an export
    #[arg(long, value_name = "NAME")]
    database: Option<String>,

    /// Only this schema of an export of PostgreSQL; can be given several times
    #[arg(long = "schema", value_name = "NAME")]
    schemas: Vec<String>,

    /// Only this table of an export, and the tables it references
    #[arg(long, value_name = "SCHEMA.TABLE")]
    table: Option<String>,

    /// Only files whose path fits this pattern, such as `2026/*.parquet`; can be given several times
    #[arg(long = "file", value_name = "PATTERN", conflicts_with = "table")]
    files: Vec<String>,

    /// Folder for a tablespace of PostgreSQL [default: PATH.tablespaces/OID]; can be given several times
    #[arg(long = "tablespace", value_name = "OID=FOLDER", value_parser = tablespace)]
    tablespaces: Vec<(u32, PathBuf)>,

    #[command(flatten)]
    thaw: ThawArgs,

    #[arg(long, help = "Wait for objects in GLACIER or DEEP_ARCHIVE instead of exiting with 75")]
    wait: bool,

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
        let event = self.event().map(|_event| Moment::Latest);
        let moment = self.op.or(self.lsn).map(Moment::Op).or(at).or(event);
        Some((self.select.source_alone()?.to_owned(), moment?))
    }

    /// The tenant whose rows are meant, the database that they are in, and how they are put back.
    ///
    /// # Errors
    /// [`Kind::Usage`] where nothing says which earlier rows are meant.
    pub(super) fn tenant(&self) -> Result<Option<(String, String, TenantMode)>, Fault> {
        let Some((tenant, into)) = self.tenant.clone().zip(self.into.clone()) else {
            return Ok(None);
        };
        if !self.from_export && self.moment().is_none() {
            let message = "--tenant: nothing says which earlier rows are meant";
            return Err(Fault::new(Kind::Usage, message).hint(
                "choose a moment of the log with --at, or the newest export with --from-export",
            ));
        }
        let mode = if self.mode == "replica" { TenantMode::Replica } else { TenantMode::Fk };
        Ok(Some((tenant, into, mode)))
    }

    /// Whether it is known that the tenant was renamed.
    pub(super) fn renamed(&self) -> bool {
        self.renamed
    }

    /// What to end at instead of a moment.
    pub(super) fn event(&self) -> Option<LogEvent> {
        let name = || self.name.clone().map(LogEvent::Name);
        self.xid.map(LogEvent::Transaction).or_else(name)
    }

    /// Whether to end right before it.
    pub(super) fn exclusive(&self) -> bool {
        self.exclusive
    }

    /// How the id of the snapshot to begin with begins.
    pub(super) fn base(&self) -> Option<String> {
        self.base.clone()
    }
}

/// A position in a log, as two numbers in hexadecimal digits.
fn lsn(text: &str) -> Result<u64, String> {
    let half = |digits: &str| {
        // The standard library would take a sign.
        let is_number = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        is_number.then(|| u32::from_str_radix(digits, 16).ok())?
    };
    let halves = text.split_once('/').and_then(|(high, low)| Some((half(high)?, half(low)?)));
    let halves = halves.map(|(high, low)| u64::from(high) << 32 | u64::from(low));
    halves.ok_or_else(|| "it is not like 16/B374D848".to_owned())
}

/// The number of a tablespace and a folder for it.
fn tablespace(text: &str) -> Result<(u32, PathBuf), String> {
    let parts = text.split_once('=').filter(|(_, folder)| !folder.is_empty());
    let parts = parts.and_then(|(oid, folder)| Some((oid.parse().ok()?, PathBuf::from(folder))));
    parts.ok_or_else(|| "it is not like 16384=/srv/tablespace".to_owned())
}

impl From<Args> for Options {
    fn from(args: Args) -> Options {
        let Args { select, op: _, base: _, to, replica, addresses, .. } = args;
        let Args {
            from_export,
            database,
            schemas,
            table,
            files,
            tablespaces,
            force,
            yes,
            dry_run,
            ..
        } = args;
        let (select, thaw) = (select.into(), args.thaw.options(args.wait));
        // The rows of a tenant go to no path.
        let to = to.unwrap_or_default();
        Options {
            select,
            to,
            replica,
            addresses,
            from_export,
            database,
            schemas,
            table,
            files,
            tablespaces,
            force,
            yes,
            dry_run,
            thaw,
        }
    }
}
