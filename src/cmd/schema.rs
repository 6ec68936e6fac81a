//! JSON Schemas of everything that `--json` prints, derived from the printed types. A test holds the
//! real program's output against them.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::Serialize;
use serde_json::{Value, json};

use crate::cmd::{
    catalog_file, cleanup, config, doctor, history, keys, ledger_diff, list, logs, pin, restore,
    restore_at, run, runs, snapshot, status, verify, verify_logs, windows,
};
use crate::ops::report::{Failure, Warning};

/// A report's name and its schema: one line of [`REPORTS`].
#[derive(Debug, Clone, Copy)]
pub struct ReportShape {
    /// The value of the field `schema`, for instance `bkp.list/1`.
    pub schema: &'static str,
    body: fn() -> Value,
}

/// Everything that can be printed with `--json`: reports, then what goes to standard error.
pub const REPORTS: &[ReportShape] = &[
    ReportShape::of::<snapshot::SnapshotReport<'_>>("bkp.snapshot/1"),
    ReportShape::of::<snapshot::Planned<'_>>("bkp.snapshot-plan/1"),
    ReportShape::of::<snapshot::SnapshotReport<'_>>("bkp.export/1"),
    ReportShape::of::<snapshot::Planned<'_>>("bkp.export-plan/1"),
    ReportShape::of::<snapshot::SnapshotReport<'_>>("bkp.replica/1"),
    ReportShape::of::<snapshot::Planned<'_>>("bkp.replica-plan/1"),
    ReportShape::of::<catalog_file::CatalogReport<'_>>("bkp.catalog/1"),
    ReportShape::of::<catalog_file::QueryReport>("bkp.query/1"),
    ReportShape::of::<logs::LogsReport<'_>>("bkp.logs/1"),
    ReportShape::of::<list::Listing>("bkp.list/1"),
    ReportShape::of::<windows::Listing>("bkp.list-windows/1"),
    ReportShape::of::<verify::Verified>("bkp.verify/1"),
    ReportShape::of::<verify::Everything>("bkp.verify-all/1"),
    ReportShape::of::<verify_logs::Verified>("bkp.verify-logs/1"),
    ReportShape::of::<ledger_diff::Reconciled>("bkp.verify-ledger/1"),
    ReportShape::of::<history::Listing>("bkp.list-ledger/1"),
    ReportShape::of::<runs::Listing>("bkp.list-runs/1"),
    ReportShape::of::<restore::RestoreReport>("bkp.restore/1"),
    ReportShape::of::<restore::Plan>("bkp.restore-plan/1"),
    ReportShape::of::<restore_at::RestoreAtReport>("bkp.restore-at/1"),
    ReportShape::of::<restore_at::Plan>("bkp.restore-at-plan/1"),
    ReportShape::of::<run::Ran>("bkp.run/1"),
    ReportShape::of::<status::Status>("bkp.status/1"),
    ReportShape::of::<cleanup::Cleaned>("bkp.cleanup/1"),
    ReportShape::of::<pin::Pinned>("bkp.pin/1"),
    ReportShape::of::<keys::Keys>("bkp.keys/1"),
    ReportShape::of::<config::Checked>("bkp.config-check/1"),
    ReportShape::of::<config::Shown>("bkp.config/1"),
    ReportShape::of::<config::Described>("bkp.config-schema/1"),
    ReportShape::of::<doctor::Examined<'_>>("bkp.doctor/1"),
    ReportShape::of::<Completions>("bkp.completions/1"),
    ReportShape::of::<Failure<'_>>(Failure::SCHEMA),
    ReportShape::of::<Warning<'_>>(Warning::SCHEMA),
];

/// The stable shape `bkp.completions/1`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Completions {
    /// The shell.
    pub shell: String,
    /// Its script.
    pub script: String,
}

impl ReportShape {
    const fn of<Body: JsonSchema>(schema: &'static str) -> ReportShape {
        ReportShape { schema, body: body::<Body> }
    }

    /// The shape with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static ReportShape> {
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
