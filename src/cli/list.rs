//! `bkp list`.

use clap::builder::{PossibleValuesParser, TypedValueParser};

use time::OffsetDateTime;

use super::flags::{StoreAtArgs, time_of};
use crate::cmd::list::{Options, Window};
use crate::cmd::{history, runs};
use crate::domain::event::Status;
use crate::domain::names::{BackupType, Scope};

/// List the backups of a store
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: see bkp(1).\nExample: bkp list books --since 2026-11-01T00:00:00Z --limit 50"
)]
#[expect(clippy::struct_excessive_bools, reason = "flags")]
pub(super) struct Args {
    /// Only backups of this source
    #[arg(value_name = "SOURCE")]
    source: Option<String>,

    /// Only backups of this type
    #[arg(
        long = "type",
        value_name = "TYPE",
        value_parser = PossibleValuesParser::new(BackupType::ALL.map(BackupType::as_str))
            .try_map(|text| text.parse::<BackupType>())
    )]
    backup_type: Option<BackupType>,

    /// Only backups whose id has this prefix
    #[arg(long, value_name = "PREFIX")]
    id: Option<String>,

    /// Only backups of this scope
    #[arg(
        long,
        value_name = "SCOPE",
        value_parser = PossibleValuesParser::new(Scope::ALL.map(Scope::as_str))
            .try_map(|text| text.parse::<Scope>())
    )]
    scope: Option<Scope>,

    /// Only backups that started at or after this time, such as 2026-11-21T02:00:00Z
    #[arg(long, value_name = "TIME", value_parser = time_of)]
    since: Option<OffsetDateTime>,

    /// Only backups that started before this time
    #[arg(long, value_name = "TIME", value_parser = time_of)]
    until: Option<OffsetDateTime>,

    /// Only the newest COUNT, newest first [default: all, oldest first]
    #[arg(long, value_name = "COUNT")]
    limit: Option<usize>,

    /// Show the last full listing of this host without accessing the store
    #[arg(long, conflicts_with_all = ["from_ledger", "long", "store_at"])]
    cached: bool,

    #[command(flatten)]
    pub(super) store_at: StoreAtArgs,

    /// Only pinned backups
    #[arg(long, conflicts_with = "from_ledger")]
    pinned: bool,

    /// Show details from the manifests (sizes, positions, parents) and notes
    #[arg(long)]
    long: bool,

    /// Show the windows to which SOURCE can be restored, and the gaps in its log
    #[arg(long, requires = "source", conflicts_with_all = ["backup_type", "id", "scope", "since", "until", "limit", "cached", "pinned", "long", "from_ledger"])]
    windows: bool,

    // A plain attribute, because the name of the table would need quotes in a doc comment.
    #[arg(long, value_name = "QUERY",
        help = "Show the result of a query over the table backup_metadata, for example \"SELECT source, max(end_time) FROM backup_metadata WHERE status = 'completed' GROUP BY ALL\"", conflicts_with_all = ["id", "backup_type", "scope", "since", "until", "limit", "cached", "pinned", "long", "from_ledger", "windows"])]
    sql: Option<String>,

    /// Show the events of the ledger, whatever the stores contain: started, completed, failed, deleted,
    /// restored, verified
    #[arg(long, conflicts_with_all = ["source", "long", "store_at"])]
    from_ledger: bool,

    /// Show recorded runs: started, completed, partial, failed, skipped, restored, verified; the newest
    /// 100 unless --limit is given
    #[arg(long, conflicts_with_all = ["backup_type", "id", "scope", "cached", "pinned", "long", "windows", "sql", "from_ledger"])]
    runs: bool,

    /// Only failed runs
    #[arg(long, requires = "runs")]
    failed: bool,

    /// Only backups that this job made, or with --runs its runs
    #[arg(long, value_name = "JOB", conflicts_with_all = ["from_ledger", "cached", "windows", "sql"])]
    job: Option<String>,

    /// Only backups of sources with this tenant, as their manifests say
    #[arg(long, value_name = "TENANT", conflicts_with_all = ["from_ledger", "cached", "windows", "sql", "runs"])]
    tenant: Option<String>,

    /// Only ledger events with this status
    #[arg(
        long,
        value_name = "STATUS",
        requires = "from_ledger",
        value_parser = PossibleValuesParser::new(Status::ALL.map(Status::as_str))
    )]
    status: Option<String>,
}

impl Args {
    /// The query, and the source whose backups it sees.
    pub(super) fn query(&self) -> Option<(&str, Option<&str>)> {
        Some((self.sql.as_deref()?, self.source.as_deref()))
    }

    fn status(&self) -> Option<Status> {
        let word = self.status.as_deref()?;
        Status::ALL.into_iter().find(|status| status.as_str() == word)
    }

    fn window(&self) -> Window {
        Window { since: self.since, until: self.until, limit: self.limit }
    }

    /// What is to be listed of the ledger, if it is not the backups of a store.
    pub(super) fn events(&self) -> Option<history::Options> {
        let options = history::Options {
            id: self.id.clone(),
            backup_type: self.backup_type,
            scope: self.scope,
            status: self.status(),
            window: self.window(),
        };
        self.from_ledger.then_some(options)
    }

    /// What is to be listed of the runs, if it is not the backups of a store.
    pub(super) fn runs(&self) -> Option<runs::Options> {
        let options = runs::Options {
            source: self.source.clone(),
            job: self.job.clone(),
            failed: self.failed,
            window: self.window(),
        };
        self.runs.then_some(options)
    }

    /// The source whose windows are to be listed.
    pub(super) fn windows(&self) -> Option<&str> {
        self.source.as_deref().filter(|_source| self.windows)
    }
}

impl From<Args> for Options {
    fn from(args: Args) -> Options {
        let window = args.window();
        let Args { source, backup_type, id, scope, job, tenant, pinned, cached, long, .. } = args;
        Options { source, id, backup_type, scope, job, tenant, pinned, cached, window, long }
    }
}
