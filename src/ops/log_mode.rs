//! Modes of logs in the schemas of reports.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

use crate::source::kinds;

/// What a report says that a log consists of: the word of one of the [modes](kinds::log_modes) that there are.
#[derive(Debug)]
pub(crate) struct LogModeName;

impl JsonSchema for LogModeName {
    fn schema_name() -> Cow<'static, str> {
        "Mode".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let mut modes: Vec<Value> = Vec::new();
        for (_, mode) in kinds::log_modes() {
            // The logs of two kinds of sources may consist of what has the same name.
            if !modes.iter().any(|known| known.get("const") == Some(&mode.name.into())) {
                modes.push(
                    json!({ "type": "string", "const": mode.name, "description": mode.about }),
                );
            }
        }
        json_schema!({ "oneOf": modes, "description": "What a log consists of." })
    }
}
