//! `bkp config`.

use clap::Subcommand;
use clap::builder::{PossibleValuesParser, TypedValueParser};

use crate::cmd::config::{Options, TenantsOptions, describe};
use crate::cmd::schema::{REPORTS, ReportSchema};
use crate::ops::report::Report;

/// Check, show or describe the configuration
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 78 if the configuration is invalid; all of them: see bkp(1).\n\
                        Example: bkp config check"
)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check the configuration
    #[command(after_help = "Exit codes: 78 if it is invalid; all of them: see bkp(1).\n\
                            Example: bkp config check --config ./bkp.toml")]
    Check,
    /// Show the resolved settings as TOML; secrets are shown as references
    #[command(after_help = "Exit codes: see bkp(1).\nExample: bkp config show --origin")]
    Show {
        /// Show where each value comes from: file, environment, flag, default
        #[arg(long)]
        origin: bool,
    },
    /// Print the lifecycle rules of a bucket that move data as the store's `tiers` say, as JSON
    #[command(after_help = "Exit codes: 14 if no store has such rules; all of them: see bkp(1).\n\
                            Example: bkp config lifecycle --store offsite > lifecycle.json")]
    Lifecycle,
    /// Check which rows of a PostgreSQL database belong to which tenant, or propose a map of them
    #[command(
        after_help = "Exit codes: 78 if the configured map does not fit the database; all of them: see bkp(1).\n\
                            Example: bkp config tenants pg --database app --root public.tenant >> bkp.toml"
    )]
    Tenants {
        /// Source
        #[arg(value_name = "SOURCE")]
        source: String,

        /// Table with one row per tenant: propose a map by following foreign keys to it, instead of checking the configured map
        #[arg(long, value_name = "SCHEMA.TABLE")]
        root: Option<String>,

        /// Database to look at [default: that of the configured map]
        #[arg(long, value_name = "NAME")]
        database: Option<String>,
    },
    /// Print the JSON Schema of the configuration file or of a report
    #[command(after_help = "Exit codes: see bkp(1).\nExample: bkp config schema > bkp.schema.json")]
    Schema {
        /// Report to describe, by the name in its `schema` field: `list` for bkp.list/1
        #[arg(long, value_name = "NAME", value_parser = reports())]
        report: Option<&'static ReportSchema>,
    },
}

impl Args {
    /// Prints a schema, which needs no configuration; `None` if something else is wanted.
    pub(super) fn run_alone(&self) -> Option<anyhow::Result<Report>> {
        match self.command {
            Command::Schema { report } => Some(describe(report.map(ReportSchema::json_schema))),
            Command::Check
            | Command::Show { .. }
            | Command::Lifecycle
            | Command::Tenants { .. } => None,
        }
    }
}

/// Takes the names of all reports.
fn reports() -> impl TypedValueParser<Value = &'static ReportSchema> {
    let names = PossibleValuesParser::new(REPORTS.iter().map(ReportSchema::name));
    names.try_map(|name| ReportSchema::named(&name).ok_or("unknown report"))
}

impl From<Args> for Options {
    fn from(args: Args) -> Options {
        match args.command {
            Command::Check => Options::Check,
            Command::Show { origin } => Options::Show { origin },
            Command::Lifecycle => Options::Lifecycle,
            Command::Tenants { source, root, database } => {
                Options::Tenants(TenantsOptions { source, root, database })
            }
            Command::Schema { report } => {
                Options::Schema { report: report.map(ReportSchema::json_schema) }
            }
        }
    }
}
