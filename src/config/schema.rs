//! The JSON Schema of the configuration: that of the document, with the kinds of sources and
//! stores merged in.

use serde_json::{Map, Value, json};

use super::file::{Document, SourceTable, StoreTable};
use crate::source::SOURCES;
use crate::store::STORES;

/// The JSON Schema (draft 2020-12) of `bkp.toml`.
#[must_use]
pub fn schema() -> Value {
    let mut schema = schemars::schema_for!(Document).to_value();
    let source = schemars::schema_for!(SourceTable).to_value();
    let sources = SOURCES.iter().map(|kind| {
        let name = kind.backup_type.as_str();
        let told = [("kind", json!({ "const": name }))];
        of_kind(&source, &(kind.schema)(), ("source", name), &told)
    });
    let store = schemars::schema_for!(StoreTable).to_value();
    let stores = STORES.iter().map(|kind| {
        let url = store.pointer("/properties/url").and_then(Value::as_object);
        let mut url = url.cloned().unwrap_or_default();
        url.insert("pattern".into(), format!("^{}://", kind.scheme).into());
        of_kind(&store, &(kind.schema)(), ("store", kind.scheme), &[("url", url.into())])
    });
    let merged: [(&str, Vec<Value>); 2] =
        [("source", sources.collect()), ("store", stores.collect())];
    for (key, kinds) in merged {
        let at = format!("/properties/{key}/additionalProperties");
        if let Some(any) = schema.pointer_mut(&at) {
            *any = json!({ "oneOf": kinds });
        }
    }
    // Definitions of a kind stay inside it; those of the common keys must be reachable from the
    // root, where their references point.
    if let (Some(root), Some(Value::Object(common))) = (schema.as_object_mut(), source.get("$defs"))
    {
        let defs = root.entry("$defs").or_insert_with(|| json!({}));
        if let Value::Object(defs) = defs {
            defs.remove("SourceTable");
            defs.remove("StoreTable");
            defs.extend(common.clone());
        }
    }
    schema
}

/// The keys that every table of the kind `room` has and those that only `name` has, as one closed
/// object; `told` are the keys that tell the kind.
fn of_kind(
    common: &Value,
    own: &Value,
    (room, name): (&str, &str),
    told: &[(&str, Value)],
) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for part in [common, own] {
        if let Some(Value::Object(more)) = part.get("properties") {
            properties.extend(more.clone());
        }
        if let Some(Value::Array(more)) = part.get("required") {
            required.extend(more.iter().cloned());
        }
    }
    properties.extend(told.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
    let mut schema = json!({
        "title": format!("a {name} {room}"),
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    });
    if let (Some(defs), Some(object)) = (own.get("$defs"), schema.as_object_mut()) {
        // An identifier makes the kind's own definitions resolvable from inside it.
        object.insert("$id".into(), format!("bkp:{room}:{name}").into());
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
    fn every_kind_of_store_has_its_keys_in_the_schema() {
        let schema = schema();
        let kinds = schema.pointer("/properties/store/additionalProperties/oneOf");
        let kinds = kinds.and_then(Value::as_array).expect("kinds");
        assert_eq!(kinds.len(), STORES.len());
        for (kind, store) in kinds.iter().zip(STORES) {
            assert_eq!(kind["properties"]["url"]["pattern"], format!("^{}://", store.scheme));
            assert!(kind["properties"]["url"]["description"].is_string());
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
        assert!(!text.contains("SourceTable") && !text.contains("StoreTable"), "{text}");
    }
}
