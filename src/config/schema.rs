//! The JSON Schema of the configuration: that of the document, with the kinds of sources merged in.

use serde_json::{Map, Value, json};

use super::file::{Document, SourceTable};
use crate::source::{SOURCES, SourceKind};

/// The JSON Schema (draft 2020-12) of `bkp.toml`.
#[must_use]
pub fn schema() -> Value {
    let mut schema = schemars::schema_for!(Document).to_value();
    let common = schemars::schema_for!(SourceTable).to_value();
    let kinds: Vec<Value> = SOURCES.iter().map(|kind| source_schema(&common, kind)).collect();
    if let Some(sources) = schema.pointer_mut("/properties/source/additionalProperties") {
        *sources = json!({ "oneOf": kinds });
    }
    // Definitions of a kind stay inside it; those of the common keys must be reachable from the
    // root, where their references point.
    if let (Some(root), Some(Value::Object(common))) = (schema.as_object_mut(), common.get("$defs"))
    {
        let defs = root.entry("$defs").or_insert_with(|| json!({}));
        if let Value::Object(defs) = defs {
            defs.remove("SourceTable");
            defs.extend(common.clone());
        }
    }
    schema
}

/// The common keys and those of one kind, as one closed object.
fn source_schema(common: &Value, kind: &SourceKind) -> Value {
    let own = (kind.schema)();
    let mut properties = Map::new();
    let mut required = Vec::new();
    for part in [common, &own] {
        if let Some(Value::Object(more)) = part.get("properties") {
            properties.extend(more.clone());
        }
        if let Some(Value::Array(more)) = part.get("required") {
            required.extend(more.iter().cloned());
        }
    }
    properties.insert("kind".into(), json!({ "const": kind.backup_type.as_str() }));
    let mut schema = json!({
        "title": format!("a {} source", kind.backup_type),
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    });
    if let (Some(defs), Some(object)) = (own.get("$defs"), schema.as_object_mut()) {
        // An identifier makes the kind's own definitions resolvable from inside it.
        object.insert("$id".into(), format!("bkp:source:{}", kind.backup_type).into());
        object.insert("$defs".into(), defs.clone());
    }
    schema
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_source_has_its_keys_in_the_schema() {
        let schema = schema();
        let kinds = schema.pointer("/properties/source/additionalProperties/oneOf");
        let kinds = kinds.and_then(Value::as_array).expect("kinds");
        assert_eq!(kinds.len(), SOURCES.len());
        for (kind, source) in kinds.iter().zip(SOURCES) {
            assert_eq!(kind["properties"]["kind"]["const"], source.backup_type.as_str());
            assert!(kind["properties"]["store"].is_object());
        }
    }

    #[test]
    fn references_of_the_common_keys_resolve() {
        let schema = schema();
        let text = schema.to_string();
        for reference in text.split("\"$ref\":\"#").skip(1) {
            let pointer = reference.split('"').next().expect("a pointer");
            assert!(schema.pointer(pointer).is_some(), "{pointer}");
        }
        assert!(!text.contains("SourceTable"), "{text}");
    }
}
