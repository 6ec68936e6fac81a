//! `bkp list`.

use clap::builder::{PossibleValuesParser, TypedValueParser};

use crate::cmd::history;
use crate::cmd::list::Options;
use crate::domain::names::BackupType;

/// List the backups of a store
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes: see bkp(1).\nExample: bkp list books --long")]
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

    /// Read the manifests too: sizes, positions, parents
    #[arg(long)]
    long: bool,

    /// From when to when SOURCE restores, and where its log has gaps, instead
    #[arg(long, requires = "source", conflicts_with_all = ["backup_type", "id", "long", "from_ledger"])]
    windows: bool,

    // A plain attribute, because the name of the table would need quotes in a doc comment.
    #[arg(long, value_name = "QUERY",
        help = "The result of a query over the table backup_metadata instead, for instance \"SELECT source, max(end_time) FROM backup_metadata GROUP BY ALL\"", conflicts_with_all = ["id", "backup_type", "long", "from_ledger", "windows"])]
    sql: Option<String>,

    /// The events of the ledger instead, whatever the stores hold: started, completed, failed, deleted
    #[arg(long, conflicts_with_all = ["source", "long"])]
    from_ledger: bool,
}

impl Args {
    /// The query, and the source whose backups it sees.
    pub(super) fn query(&self) -> Option<(&str, Option<&str>)> {
        Some((self.sql.as_deref()?, self.source.as_deref()))
    }

    /// What is to be listed of the ledger, if it is not the backups of a store.
    pub(super) fn events(&self) -> Option<history::Options> {
        let options = history::Options { id: self.id.clone(), backup_type: self.backup_type };
        self.from_ledger.then_some(options)
    }

    /// The source whose windows are to be listed.
    pub(super) fn windows(&self) -> Option<&str> {
        self.source.as_deref().filter(|_source| self.windows)
    }
}

impl From<Args> for Options {
    fn from(args: Args) -> Options {
        let Args { source, backup_type, id, long, .. } = args;
        Options { source, id, backup_type, long }
    }
}
