//! The JSON Schema of the configuration: that of the document, with the kinds of sources and
//! stores merged in.

use serde_json::{Map, Value, json};

use super::file::{Document, SourceTable, StoreTable};
use crate::source::kinds::SOURCES;
use crate::store::kinds::STORES;

/// The JSON Schema (draft 2020-12) of `bkp.toml`.
#[must_use]
pub fn schema() -> Value {
    let mut schema = schemars::schema_for!(Document).to_value();
    let source = schemars::schema_for!(SourceTable).to_value();
    let store = schemars::schema_for!(StoreTable).to_value();
    let mut defs = Map::new();
    let sources = SOURCES.iter().map(|entry| {
        let kind = &entry.kind;
        let name = kind.backup_type.source_kind();
        let told = [("kind", json!({ "const": name }))];
        of_kind(&source, (kind.schema)(), &format!("{name} source"), &told, &mut defs)
    });
    let sources: Vec<Value> = sources.collect();
    let stores = STORES.iter().map(|kind| {
        let url = store.pointer("/properties/url").and_then(Value::as_object);
        let mut url = url.cloned().unwrap_or_default();
        url.insert("pattern".into(), format!("^{}://", kind.scheme).into());
        let told = [("url", url.into())];
        of_kind(&store, (kind.schema)(), &format!("{} store", kind.scheme), &told, &mut defs)
    });
    let stores: Vec<Value> = stores.collect();
    for (key, kinds) in [("source", sources), ("store", stores)] {
        let at = format!("/properties/{key}/additionalProperties");
        if let Some(any) = schema.pointer_mut(&at) {
            *any = json!({ "oneOf": kinds });
        }
    }
    for common in [&source, &store] {
        defs.extend(common.get("$defs").and_then(Value::as_object).cloned().unwrap_or_default());
    }
    if let Some(root) = schema.as_object_mut() {
        let known = root.entry("$defs").or_insert_with(|| json!({}));
        if let Value::Object(known) = known {
            known.remove("SourceTable");
            known.remove("StoreTable");
            known.extend(defs);
        }
    }
    schema
}

/// The keys that every table has and those that only this kind has, as one closed object; `told`
/// are the keys that tell the kind. What the kind defines goes to `defs`, under the kind's name, since
/// a reference can only point into the root.
fn of_kind(
    common: &Value,
    own: Value,
    kind: &str,
    told: &[(&str, Value)],
    defs: &mut Map<String, Value>,
) -> Value {
    let name = |def: &str| format!("{}-{def}", kind.replace(' ', "-"));
    let own = match renamed(own, &name) {
        Value::Object(own) => own,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Map::new()
        }
    };
    if let Some(Value::Object(more)) = own.get("$defs") {
        defs.extend(more.iter().map(|(def, schema)| (name(def), schema.clone())));
    }
    let mut properties = Map::new();
    let mut required = Vec::new();
    let parts = [common.get("properties"), own.get("properties")];
    for part in parts.into_iter().flatten().filter_map(Value::as_object) {
        properties.extend(part.clone());
    }
    let parts = [common.get("required"), own.get("required")];
    for part in parts.into_iter().flatten().filter_map(Value::as_array) {
        required.extend(part.iter().cloned());
    }
    properties.extend(told.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
    json!({
        "title": format!("a {kind}"),
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

/// The same schema with references to definitions of these new names.
fn renamed(schema: Value, name: &dyn Fn(&str) -> String) -> Value {
    match schema {
        Value::Object(object) => {
            let entry = |(key, value): (String, Value)| {
                let def = value.as_str().and_then(|text| text.strip_prefix("#/$defs/"));
                let value = match def.filter(|_def| key == "$ref") {
                    Some(def) => format!("#/$defs/{}", name(def)).into(),
                    None => renamed(value, name),
                };
                (key, value)
            };
            Value::Object(object.into_iter().map(entry).collect())
        }
        Value::Array(values) => {
            Value::Array(values.into_iter().map(|value| renamed(value, name)).collect())
        }
        plain @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) => plain,
    }
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
            assert_eq!(kind["properties"]["kind"]["const"], source.kind.backup_type.source_kind());
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
        // Inside of another resource the same pointers would lead elsewhere.
        assert!(!text.contains("\"$id\""), "{text}");
        assert!(!text.contains("SourceTable") && !text.contains("StoreTable"), "{text}");
    }
}
