//! `bkp list`.

use clap::builder::{PossibleValuesParser, TypedValueParser};

use time::OffsetDateTime;

use super::flags::time_of;
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

    /// Only backups whose id begins so
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

    /// Only backups that began at this time or later, as 2026-11-21T02:00:00Z
    #[arg(long, value_name = "TIME", value_parser = time_of)]
    since: Option<OffsetDateTime>,

    /// Only backups that began before this time
    #[arg(long, value_name = "TIME", value_parser = time_of)]
    until: Option<OffsetDateTime>,

    /// Only this many, the newest, newest first [default: all, oldest first]
    #[arg(long, value_name = "COUNT")]
    limit: Option<usize>,

    /// What this host saw when it last listed the whole store, without listing it again
    #[arg(long, conflicts_with_all = ["from_ledger", "long"])]
    cached: bool,

    /// Only backups that are pinned
    #[arg(long, conflicts_with = "from_ledger")]
    pinned: bool,

    /// Read the manifests too: sizes, positions, parents; and notes
    #[arg(long)]
    long: bool,

    /// From when to when SOURCE restores, and where its log has gaps, instead
    #[arg(long, requires = "source", conflicts_with_all = ["backup_type", "id", "scope", "since", "until", "limit", "cached", "pinned", "long", "from_ledger"])]
    windows: bool,

    // A plain attribute, because the name of the table would need quotes in a doc comment.
    #[arg(long, value_name = "QUERY",
        help = "The result of a query over the table backup_metadata instead, for instance \"SELECT source, max(end_time) FROM backup_metadata WHERE status = 'completed' GROUP BY ALL\"", conflicts_with_all = ["id", "backup_type", "scope", "since", "until", "limit", "cached", "pinned", "long", "from_ledger", "windows"])]
    sql: Option<String>,

    /// The events of the ledger instead, whatever the stores hold: started, completed, failed, deleted,
    /// restored, verified
    #[arg(long, conflicts_with_all = ["source", "long"])]
    from_ledger: bool,

    /// The runs that are on record instead: started, completed, partial, failed, skipped, restored,
    /// verified; the newest 100, or as --limit says
    #[arg(long, conflicts_with_all = ["backup_type", "id", "scope", "cached", "pinned", "long", "windows", "sql", "from_ledger"])]
    runs: bool,

    /// Of the runs, only those that failed
    #[arg(long, requires = "runs")]
    failed: bool,

    /// Of the runs, only those of this job
    #[arg(long, value_name = "JOB", requires = "runs")]
    job: Option<String>,

    /// Of the ledger's events, only those of this status
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
        let Args { source, backup_type, id, scope, pinned, cached, long, .. } = args;
        Options { source, id, backup_type, scope, pinned, cached, window, long }
    }
}
