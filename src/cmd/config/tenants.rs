//! `bkp config tenants`: whose row is whose in a database, checked or proposed.

use schemars::JsonSchema;
use serde::Serialize;

use crate::error::Kind;
use crate::ops::report::Report;
use crate::source::kinds;
use crate::source::tenants::{MapRequest, TenantMapReport};
use crate::wire::AppContext;

/// What `bkp config tenants` was asked for.
#[derive(Debug, Clone)]
pub struct TenantsOptions {
    /// The source.
    pub source: String,
    /// The table of the tenants, of which a map is proposed; else the configured one is checked.
    pub root: Option<String>,
    /// The database, if not that of the map.
    pub database: Option<String>,
}

/// The stable shape `bkp.config-tenants/1`.
#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::cmd) struct ConfigTenantsReport {
    source: String,
    #[serde(flatten)]
    report: TenantMapReport,
}

/// Checks the map of a source, or proposes one.
///
/// # Errors
/// What the source or the database fails with.
pub(super) fn run(app: &AppContext, options: &TenantsOptions) -> anyhow::Result<Report> {
    let TenantsOptions { source, root, database } = options;
    let settings = app.source_settings(source)?;
    let kind = kinds::tenant_kind_of(settings.backup_type)?;
    let request = MapRequest { root: root.as_deref(), database: database.as_deref() };
    let report = (kind.map)((source, settings.table.clone()), &request, &app.ctx)?;
    let problems = report.problems.iter();
    let remarks = problems.fold(String::new(), |text, problem| text + "# " + problem + "\n");
    let text = match (report.configured, report.problems.is_empty()) {
        (true, true) => format!("the map of {source} fits database {}\n", report.database),
        (true, false) => {
            format!("# the map of {source} does not fit database {}:\n{remarks}", report.database)
        }
        (false, _) => format!("{remarks}{}", report.map),
    };
    let outcome = (report.configured && !report.problems.is_empty()).then_some(Kind::Config);
    let body = ConfigTenantsReport { source: source.clone(), report };
    Ok(Report::done("bkp.config-tenants/1", &body, text)?.with_outcome(outcome))
}
