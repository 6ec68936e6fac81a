//! `bkp list`.

use clap::builder::{PossibleValuesParser, TypedValueParser};

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
}

impl From<Args> for Options {
    fn from(args: Args) -> Options {
        let Args { source, backup_type, id, long } = args;
        Options { source, id, backup_type, long }
    }
}
