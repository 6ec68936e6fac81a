//! JSON Schemas of everything that `--json` prints, derived from the printed types. A test holds the
//! real program's output against them.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::Serialize;
use serde_json::{Value, json};

use crate::cmd::{
    catalog_file, cleanup, config, doctor, history, init, key_inventory, keys, ledger_diff, list,
    log_files, logs, pin, replicate, restore, restore_at, restore_tenant, rewrap, run, runs,
    snapshot, status, verify, verify_logs, windows,
};
use crate::ops::report::{Failure, Warning};
use crate::ops::thaw::ThawReport;

/// A report's name and its schema: one line of [`REPORTS`].
#[derive(Debug, Clone, Copy)]
pub struct ReportSchema {
    /// The value of the field `schema`, for instance `bkp.list/1`.
    pub schema: &'static str,
    body: fn() -> Value,
}

/// Everything that can be printed with `--json`: reports, then what goes to standard error.
pub const REPORTS: &[ReportSchema] = &[
    ReportSchema::of::<snapshot::SnapshotReport<'_>>("bkp.snapshot/1"),
    ReportSchema::of::<snapshot::SnapshotPlanReport<'_>>("bkp.snapshot-plan/1"),
    ReportSchema::of::<snapshot::SnapshotReport<'_>>("bkp.export/1"),
    ReportSchema::of::<snapshot::SnapshotPlanReport<'_>>("bkp.export-plan/1"),
    ReportSchema::of::<snapshot::SnapshotReport<'_>>("bkp.replica/1"),
    ReportSchema::of::<snapshot::SnapshotPlanReport<'_>>("bkp.replica-plan/1"),
    ReportSchema::of::<replicate::CopiesReport>("bkp.copies/1"),
    ReportSchema::of::<catalog_file::CatalogReport<'_>>("bkp.catalog/1"),
    ReportSchema::of::<catalog_file::QueryReport>("bkp.query/1"),
    ReportSchema::of::<logs::LogsReport<'_>>("bkp.logs/1"),
    ReportSchema::of::<log_files::push::PushReport<'_>>("bkp.log-push/1"),
    ReportSchema::of::<log_files::fetch::FetchReport<'_>>("bkp.log-fetch/1"),
    ReportSchema::of::<list::Listing>("bkp.list/1"),
    ReportSchema::of::<windows::Listing>("bkp.list-windows/1"),
    ReportSchema::of::<verify::VerifyReport>("bkp.verify/1"),
    ReportSchema::of::<verify::VerifyAllReport>("bkp.verify-all/1"),
    ReportSchema::of::<verify_logs::VerifyLogsReport>("bkp.verify-logs/1"),
    ReportSchema::of::<ledger_diff::LedgerDiffReport>("bkp.verify-ledger/1"),
    ReportSchema::of::<history::Listing>("bkp.list-ledger/1"),
    ReportSchema::of::<runs::Listing>("bkp.list-runs/1"),
    ReportSchema::of::<restore::RestoreReport>("bkp.restore/1"),
    ReportSchema::of::<restore::Plan>("bkp.restore-plan/1"),
    ReportSchema::of::<restore_at::RestoreAtReport>("bkp.restore-at/1"),
    ReportSchema::of::<restore_at::Plan>("bkp.restore-at-plan/1"),
    ReportSchema::of::<restore_tenant::TenantReport>("bkp.restore-tenant/1"),
    ReportSchema::of::<restore_tenant::TenantReport>("bkp.restore-tenant-plan/1"),
    ReportSchema::of::<ThawReport>("bkp.thaw/1"),
    ReportSchema::of::<run::RunReport>("bkp.run/1"),
    ReportSchema::of::<status::Status>("bkp.status/1"),
    ReportSchema::of::<cleanup::CleanupReport>("bkp.cleanup/1"),
    ReportSchema::of::<pin::PinReport>("bkp.pin/1"),
    ReportSchema::of::<init::InitReport>("bkp.init/1"),
    ReportSchema::of::<init::InitPlanReport>("bkp.init-plan/1"),
    ReportSchema::of::<keys::Keys>("bkp.keys/1"),
    ReportSchema::of::<key_inventory::KeysList>("bkp.keys-list/1"),
    ReportSchema::of::<key_inventory::KeysStatus>("bkp.keys-status/1"),
    ReportSchema::of::<rewrap::RewrapReport>("bkp.rewrap/1"),
    ReportSchema::of::<config::ConfigCheckReport>("bkp.config-check/1"),
    ReportSchema::of::<config::ConfigReport>("bkp.config/1"),
    ReportSchema::of::<config::LifecycleReport>("bkp.config-lifecycle/1"),
    ReportSchema::of::<config::ConfigTenantsReport>("bkp.config-tenants/1"),
    ReportSchema::of::<config::ConfigSchemaReport>("bkp.config-schema/1"),
    ReportSchema::of::<doctor::DoctorReport<'_>>("bkp.doctor/1"),
    ReportSchema::of::<Completions>("bkp.completions/1"),
    ReportSchema::of::<Failure<'_>>(Failure::SCHEMA),
    ReportSchema::of::<Warning<'_>>(Warning::SCHEMA),
];

/// The stable shape `bkp.completions/1`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Completions {
    /// The shell.
    pub shell: String,
    /// Its script.
    pub script: String,
}

impl ReportSchema {
    const fn of<Body: JsonSchema>(schema: &'static str) -> ReportSchema {
        ReportSchema { schema, body: body::<Body> }
    }

    /// The shape with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static ReportSchema> {
        REPORTS.iter().find(|shape| shape.name() == name)
    }

    /// The name without what all of them have: `list` of `bkp.list/1`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        let name = self.schema.strip_prefix("bkp.").unwrap_or(self.schema);
        name.split('/').next().unwrap_or(name)
    }

    /// The JSON Schema (draft 2020-12) of the whole object.
    #[must_use]
    pub fn json_schema(&self) -> Value {
        let mut schema = (self.body)();
        if let Some(root) = schema.as_object_mut() {
            root.insert("title".into(), self.schema.into());
            let properties = root.entry("properties").or_insert_with(|| json!({}));
            if let Some(properties) = properties.as_object_mut() {
                properties.insert("schema".into(), json!({ "const": self.schema }));
            }
            let required = root.entry("required").or_insert_with(|| json!([]));
            if let Some(required) = required.as_array_mut() {
                required.insert(0, "schema".into());
            }
        }
        schema
    }
}

/// What is printed of a type, which is not always what could be read back into it.
fn body<Body: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft2020_12().for_serialize();
    settings.into_generator().into_root_schema_for::<Body>().to_value()
}
