// SPDX-License-Identifier: MIT OR Apache-2.0
//! The JSON Schemas of the record, its names in OpenTelemetry's conventions, and the longest
//! possible record. All of them are derived from the definition of the record.

use std::collections::HashMap;

use schemars::generate::SchemaSettings;
use serde::de::DeserializeOwned;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use crate::Record;
use crate::inflight::Inflight;
use crate::limits;
use crate::request::Request;

mod otel;

pub use otel::otel;

/// The form of a time of day: RFC 3339, UTC, nine decimals.
pub(crate) const TIME_PATTERN: &str = r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{9}Z$";

/// An example of a time in that form.
const TIME: &str = "2026-11-22T17:17:57.972980760Z";

/// Returns the definition of a record as JSON Schema, with the attributes of its fields (`x-source`
/// and others), and the integer types as `format`. `$defs` has the types of records by their names.
pub fn definition() -> Value {
    let generator = SchemaSettings::draft2020_12()
        .for_serialize()
        .into_generator();
    let mut schema = generator.into_root_schema_for::<Record<'_>>().to_value();
    normalize(&mut schema);
    schema["type"] = "object".into();
    let mut references = Vec::new();
    if let Value::Array(records) = schema["oneOf"].take() {
        for record in records {
            if let Value::String(name) = record["properties"]["type"]["const"].clone() {
                references.push(json!({ "$ref": format!("#/$defs/{name}") }));
                schema["$defs"][name] = record;
            }
        }
    }
    schema["oneOf"] = references.into();
    schema
}

/// Returns the definition of a line of `ngx-bpf inflight --json` in the same form.
pub fn inflight_definition() -> Value {
    let generator = SchemaSettings::draft2020_12()
        .for_serialize()
        .into_generator();
    let mut schema = generator.into_root_schema_for::<Inflight<'_>>().to_value();
    schema["properties"]["type"] = json!({ "type": "string", "const": "inflight" });
    normalize(&mut schema);
    let mut types = schema["$defs"].take();
    types["inflight"] = schema;
    json!({ "$defs": types })
}

/// Returns a request in flight with every key.
pub fn longest_inflight() -> Inflight<'static> {
    let definition = inflight_definition();
    let value = longest_value(&definition, &definition["$defs"]["inflight"]);
    serde_json::from_value(value).unwrap_or_default()
}

/// Returns the JSON Schema of a line of `--format json`.
pub fn record() -> Value {
    let mut schema = definition();
    publish(&mut schema);
    schema["title"] = "A record of ngx-bpf --json: one line".into();
    schema["description"] =
        "docs/fields.md describes every key. Keys are only added within a major version.".into();
    schema
}

/// The name of a key in OpenTelemetry's conventions.
pub(crate) enum Name {
    /// The key becomes one attribute of this name.
    Is(String),
    /// The key becomes several attributes.
    Parts,
}

/// Returns the keys of records that have a name in OpenTelemetry's conventions.
pub(crate) fn otel_names() -> HashMap<String, Name> {
    let definition = definition();
    let records = otel::RECORDS.map(|name| &definition["$defs"][name]["properties"]);
    let keys = records.into_iter().filter_map(Value::as_object).flatten();
    let named = keys.filter_map(|(key, property)| {
        let name = match property.get("x-otel")? {
            Value::String(name) => Name::Is(name.clone()),
            _ => Name::Parts,
        };
        Some((key.clone(), name))
    });
    named.collect()
}

/// Returns a request with every key, each with its longest value.
pub fn longest() -> Request<'static> {
    let mut request: Request<'static> = longest_of("request");
    /* In these forms the values have the most names in OpenTelemetry. */
    let begin_with = |text: &mut Option<std::borrow::Cow<'_, str>>, start: &str| {
        if let Some(text) = text {
            text.to_mut().replace_range(..start.len(), start);
        }
    };
    begin_with(&mut request.server_protocol, "HTTP/");
    begin_with(&mut request.request_uri, "?");
    request
}

/// Returns a record of a type with every key, each with its longest value.
pub fn longest_of<T: Default + DeserializeOwned>(name: &str) -> T {
    let definition = definition();
    let value = longest_value(&definition, &definition["$defs"][name]);
    serde_json::from_value(value).unwrap_or_default()
}

/// Returns the longest value that a schema allows.
fn longest_value(definition: &Value, schema: &Value) -> Value {
    let schema = resolve(definition, schema);
    if let Some(value) = schema.get("const") {
        return value.clone();
    }
    if let Some(values) = schema["oneOf"].as_array() {
        let values = values.iter().map(|value| &value["const"]);
        let longest = values.max_by_key(|value| value.as_str().map(str::len));
        return longest.cloned().unwrap_or_default();
    }
    match schema["type"].as_str() {
        Some("object") if schema["additionalProperties"].is_object() => {
            let value = longest_value(definition, &schema["additionalProperties"]);
            let count = schema["maxProperties"].as_u64().unwrap_or_default();
            let name = |n| format!("{}{n}", "x".repeat(limits::ASKED_NAME_MAX - 1));
            let members = (0..count).map(|n| (name(n), value.clone()));
            Value::Object(members.collect())
        }
        Some("object") => {
            let properties = schema["properties"].as_object().into_iter().flatten();
            let members = properties.map(|(key, property)| {
                let value = longest_value(definition, property);
                (key.clone(), value)
            });
            Value::Object(members.collect())
        }
        Some("array") => {
            let items = resolve(definition, &schema["items"]);
            if let Some(values) = items["oneOf"].as_array() {
                return values.iter().map(|value| value["const"].clone()).collect();
            }
            let count = schema["maxItems"].as_u64().unwrap_or_default();
            (0..count)
                .map(|_| longest_value(definition, items))
                .collect()
        }
        Some("string") => longest_text(schema).into(),
        Some("integer") => greatest(schema).into(),
        _ => false.into(),
    }
}

/// Returns a text of the greatest length. A text that clients choose takes the most bytes when
/// every character has to be escaped.
fn longest_text(schema: &Value) -> String {
    let len = schema["maxLength"].as_u64().unwrap_or_default();
    let character = match (schema["pattern"].as_str(), schema.get("x-cut")) {
        (Some(TIME_PATTERN), _) => return TIME.to_owned(),
        (Some(_), _) => "f",
        (None, Some(_)) => "\u{1b}",
        (None, None) => "x",
    };
    character.repeat(usize::try_from(len).unwrap_or_default())
}

/// Returns the greatest number that the schema of an integer allows.
pub fn greatest(schema: &Value) -> u64 {
    match (schema["maximum"].as_u64(), schema["format"].as_str()) {
        (Some(maximum), _) => maximum,
        (None, Some("uint32")) => u32::MAX.into(),
        (None, Some("uint64")) => u64::MAX,
        (None, _) => i64::MAX.unsigned_abs(),
    }
}

/// Returns the schema that a reference refers to, or the schema itself. Keywords beside the
/// reference are ignored.
pub fn resolve<'s>(definition: &'s Value, schema: &'s Value) -> &'s Value {
    let name = schema["$ref"]
        .as_str()
        .and_then(|reference| reference.strip_prefix("#/$defs/"));
    name.map_or(schema, |name| &definition["$defs"][name])
}

/// Changes a generated schema in two ways. A key is absent, and never null: it is required unless
/// its field says when it is absent. And a description becomes one line.
fn normalize(schema: &mut Value) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(normalize),
        Value::Object(object) => {
            if let Some(Value::Array(types)) = object.get("type") {
                let kept = types.iter().find(|name| *name != "null").cloned();
                object.insert("type".to_owned(), kept.unwrap_or_default());
            }
            if let Some(Value::Array(mut options)) = object.remove("anyOf") {
                options.retain(|option| option["type"] != "null");
                for option in options {
                    object.extend(option.as_object().cloned().unwrap_or_default());
                }
            }
            if let Some(Value::String(text)) = object.get_mut("description") {
                let words: Vec<&str> = text.split_whitespace().collect();
                *text = words.join(" ");
            }
            if let Some(Value::Object(properties)) = object.get("properties") {
                let required = properties
                    .iter()
                    .filter(|(_, property)| property.get("x-absent").is_none());
                let required = required.map(|(key, _)| key.as_str()).collect();
                object.insert("required".to_owned(), required);
            }
            object.values_mut().for_each(normalize);
        }
        _ => {}
    }
}

/// Removes the keywords that JSON Schema does not have. Unit, source and absence become a part of
/// the description.
fn publish(schema: &mut Value) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(publish),
        Value::Object(object) => {
            describe(object);
            /* The names of properties are not keywords. */
            if let Some(Value::Object(properties)) = object.get_mut("properties") {
                properties.values_mut().for_each(publish);
            }
            let others = object.iter_mut().filter(|(key, _)| *key != "properties");
            others.for_each(|(_, value)| publish(value));
        }
        _ => {}
    }
}

/// Joins the description, unit, source and absence of a field to one description.
fn describe(object: &mut Map<String, Value>) {
    object.remove("format");
    let text = |key: &str| object.get(key).and_then(Value::as_str);
    let mut description = text("description").unwrap_or_default().to_owned();
    for (key, name) in [
        ("x-unit", "Unit"),
        ("x-source", "Source"),
        ("x-absent", "Absent"),
    ] {
        if let Some(text) = text(key) {
            if !description.ends_with(['.', ')']) {
                description.push('.');
            }
            description.push_str(&format!(" {name}: {text}."));
        }
    }
    object.retain(|key, _| !key.starts_with("x-"));
    if !description.is_empty() {
        object.insert("description".to_owned(), description.into());
    }
}

#[cfg(test)]
mod tests {
    use super::definition;
    use super::longest;
    use super::record;
    use super::resolve;
    use crate::Record;

    /// Check that the longest request is valid, and has every key.
    #[test]
    fn longest_request() {
        let line = Record::Request(Box::new(longest()));
        let value = serde_json::to_value(line).unwrap();
        let schema = jsonschema::validator_for(&record()).unwrap();
        if let Some(error) = schema.iter_errors(&value).next() {
            panic!("{error}, at {}", error.instance_path());
        }
        let definition = definition();
        let properties = &definition["$defs"]["request"]["properties"];
        let properties = properties.as_object().unwrap();
        assert!(properties.keys().eq(value.as_object().unwrap().keys()));
    }

    /// Check that each key is documented, with its source (except in a loss, which ngx-bpf itself
    /// counts), that texts have a greatest length, and that no key is null.
    #[test]
    fn complete() {
        let definition = definition();
        let objects = definition["$defs"].as_object().unwrap().values();
        for object in objects.filter(|object| object["type"] == "object") {
            assert_eq!(object["additionalProperties"], false);
            for (key, property) in object["properties"].as_object().unwrap() {
                if key == "type" {
                    continue;
                }
                assert!(property["description"].is_string(), "{key}");
                let has_source = property["x-source"].is_string();
                assert!(
                    has_source || object["properties"]["cause"].is_object(),
                    "{key}"
                );
                let kind = resolve(&definition, property);
                let is_bounded = ["maxLength", "pattern"]
                    .iter()
                    .any(|k| kind.get(k).is_some());
                assert!(kind["type"] != "string" || is_bounded, "{key}");
            }
        }
        assert!(!definition.to_string().contains("\"null\""));
    }
}
