//! Holds JSON against a JSON Schema, as far as the schemas of reports go.
#![expect(clippy::panic, reason = "a test fails by panicking")]

use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Says what is wrong with `value`. Knows the keywords that the schemas use and panics at any
/// other; a field that a schema does not mention is wrong, unless it says that there may be more.
pub(crate) fn wrong(root: &Value, schema: &Value, value: &Value, place: &str) -> Vec<String> {
    let Some(keywords) = schema.as_object() else {
        return if schema == true { vec![] } else { vec![format!("{place}: nothing is allowed")] };
    };
    let here = |what: &str| vec![format!("{place}: {what}: {value}")];
    let unless = |fine: bool, what: &str| if fine { vec![] } else { here(what) };
    let alternatives = |options: &Value| {
        let fine = |option: &&Value| wrong(root, option, value, place).is_empty();
        options.as_array().unwrap().iter().filter(fine).count()
    };
    let check = |(keyword, argument): (&String, &Value)| match keyword.as_str() {
        "description" | "title" | "default" | "$schema" | "$defs" => vec![],
        "$ref" => {
            let target = root.pointer(argument.as_str().unwrap().strip_prefix('#').unwrap());
            wrong(root, target.unwrap(), value, place)
        }
        "type" => unless(is_of_type(argument, value), &format!("not of type {argument}")),
        "const" => unless(value == argument, "not the constant"),
        "oneOf" => unless(alternatives(argument) == 1, "not one of the alternatives"),
        "anyOf" => unless(alternatives(argument) > 0, "none of the alternatives"),
        "uniqueItems" => unless(!repeats(value), "an item is there twice"),
        "minimum" => unless(value.is_null() || value.as_f64() >= argument.as_f64(), "too small"),
        "maximum" => unless(value.is_null() || value.as_f64() <= argument.as_f64(), "too large"),
        "format" => unless(has_format(argument.as_str().unwrap(), value), "not of the format"),
        "items" => {
            let items = value.as_array().into_iter().flatten().enumerate();
            items
                .flat_map(|(i, item)| wrong(root, argument, item, &format!("{place}/{i}")))
                .collect()
        }
        "required" => {
            let names = argument.as_array().unwrap().iter().map(|name| name.as_str().unwrap());
            let missing = names.filter(|name| value.get(name).is_none());
            missing.map(|name| format!("{place}: `{name}` is missing")).collect()
        }
        // Both speak of the same fields.
        "properties" | "additionalProperties" => fields(root, schema, value, place),
        unknown => panic!("{place}: the test does not know `{unknown}`"),
    };
    keywords.iter().flat_map(check).collect()
}

fn fields(root: &Value, schema: &Value, value: &Value, place: &str) -> Vec<String> {
    let closed = Value::Bool(false);
    let more = schema.get("additionalProperties").unwrap_or(&closed);
    let fields = value.as_object().into_iter().flatten();
    fields
        .flat_map(|(name, field)| {
            let own = schema.get("properties").and_then(|properties| properties.get(name));
            wrong(root, own.unwrap_or(more), field, &format!("{place}/{name}"))
        })
        .collect()
}

/// Whether an array has an item twice.
fn repeats(value: &Value) -> bool {
    let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
    items.iter().enumerate().any(|(at, item)| items[..at].contains(item))
}

fn is_of_type(types: &Value, value: &Value) -> bool {
    let is = |name: &Value| match name.as_str().unwrap() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "number" => value.is_number(),
        "integer" => value.is_u64() || value.is_i64(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        unknown => panic!("the test does not know the type `{unknown}`"),
    };
    types.as_array().map_or_else(|| is(types), |types| types.iter().any(is))
}

fn has_format(format: &str, value: &Value) -> bool {
    let is_time = |text: &str| OffsetDateTime::parse(text, &Rfc3339).is_ok();
    match format {
        // That it may be absent is the business of its type.
        _ if value.is_null() => true,
        "date-time" => value.as_str().is_none_or(is_time),
        "uint" | "uint64" => value.as_u64().is_some(),
        "int64" => value.as_i64().is_some(),
        "uint32" => value.as_u64().is_some_and(|number| u32::try_from(number).is_ok()),
        "uint16" => value.as_u64().is_some_and(|number| u16::try_from(number).is_ok()),
        "uint8" => value.as_u64().is_some_and(|number| number < 256),
        "double" => value.is_number(),
        unknown => panic!("the test does not know the format `{unknown}`"),
    }
}
