//! The shapes of everything that `--json` prints, as JSON Schemas made from the types that are
//! printed. A test holds the real program's output against them.

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
pub struct Shape {
    /// The value of the field `schema`, for instance `bkp.list/1`.
    pub schema: &'static str,
    body: fn() -> Value,
}

/// Everything that can be printed with `--json`: reports, then what goes to standard error.
pub const REPORTS: &[Shape] = &[
    Shape::of::<snapshot::Done<'_>>("bkp.snapshot/1"),
    Shape::of::<snapshot::Planned<'_>>("bkp.snapshot-plan/1"),
    Shape::of::<snapshot::Done<'_>>("bkp.export/1"),
    Shape::of::<snapshot::Planned<'_>>("bkp.export-plan/1"),
    Shape::of::<catalog_file::Done<'_>>("bkp.catalog/1"),
    Shape::of::<catalog_file::Found>("bkp.query/1"),
    Shape::of::<logs::Done<'_>>("bkp.logs/1"),
    Shape::of::<list::Listing>("bkp.list/1"),
    Shape::of::<windows::Listing>("bkp.list-windows/1"),
    Shape::of::<verify::Verified>("bkp.verify/1"),
    Shape::of::<verify::Everything>("bkp.verify-all/1"),
    Shape::of::<verify_logs::Verified>("bkp.verify-logs/1"),
    Shape::of::<ledger_diff::Reconciled>("bkp.verify-ledger/1"),
    Shape::of::<history::Listing>("bkp.list-ledger/1"),
    Shape::of::<runs::Listing>("bkp.list-runs/1"),
    Shape::of::<restore::Done>("bkp.restore/1"),
    Shape::of::<restore::Plan>("bkp.restore-plan/1"),
    Shape::of::<restore_at::Done>("bkp.restore-at/1"),
    Shape::of::<restore_at::Plan>("bkp.restore-at-plan/1"),
    Shape::of::<run::Ran>("bkp.run/1"),
    Shape::of::<status::Status>("bkp.status/1"),
    Shape::of::<cleanup::Cleaned>("bkp.cleanup/1"),
    Shape::of::<pin::Said>("bkp.pin/1"),
    Shape::of::<keys::Keys>("bkp.keys/1"),
    Shape::of::<config::Checked>("bkp.config-check/1"),
    Shape::of::<config::Shown>("bkp.config/1"),
    Shape::of::<config::Described>("bkp.config-schema/1"),
    Shape::of::<doctor::Examined<'_>>("bkp.doctor/1"),
    Shape::of::<Completions>("bkp.completions/1"),
    Shape::of::<Failure<'_>>(Failure::SCHEMA),
    Shape::of::<Warning<'_>>(Warning::SCHEMA),
];

/// The stable shape `bkp.completions/1`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Completions {
    /// The shell.
    pub shell: String,
    /// Its script.
    pub script: String,
}

impl Shape {
    const fn of<Body: JsonSchema>(schema: &'static str) -> Shape {
        Shape { schema, body: body::<Body> }
    }

    /// The shape with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Shape> {
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
