// SPDX-License-Identifier: MIT OR Apache-2.0
//! The JSON Schema of `--format otel`. It is derived from that of a record: nested keys become
//! names with dots.

use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use super::definition;
use super::publish;
use super::resolve;

/// The types of records.
pub(super) const RECORDS: [&str; 4] = ["request", "connection", "lost", "blocked"];

/// Returns the JSON Schema of a line of `--format otel`.
pub fn otel() -> Value {
    let definition = definition();
    let mut schema = json!({
        "$schema": definition["$schema"],
        "title": "A record of ngx-bpf --format otel: one line",
        "description": "docs/otel.md says which key of record.json each one is.",
        "type": "object",
        "oneOf": RECORDS.map(|name| json!({ "$ref": format!("#/$defs/{name}") })),
        "$defs": {},
    });
    for name in RECORDS {
        schema["$defs"][name] = FlatSchema::of(&definition, &definition["$defs"][name]);
    }
    let values = definition["$defs"].as_object().into_iter().flatten();
    for (name, value) in values.filter(|(_, value)| value.get("oneOf").is_some()) {
        schema["$defs"][name] = value.clone();
    }
    publish(&mut schema);
    schema
}

/// The attributes of a record.
struct FlatSchema<'d> {
    definition: &'d Value,
    properties: Map<String, Value>,
    patterns: Map<String, Value>,
    required: Vec<Value>,
}

impl<'d> FlatSchema<'d> {
    /// Returns the schema of the attributes of a record.
    fn of(definition: &'d Value, record: &'d Value) -> Value {
        let mut flat = Self {
            definition,
            properties: Map::new(),
            patterns: Map::new(),
            required: Vec::new(),
        };
        let required = record["required"].as_array();
        for (key, property) in record["properties"].as_object().into_iter().flatten() {
            let is_required = required.is_some_and(|required| required.contains(&json!(key)));
            flat.add_key(key, property, is_required);
        }
        json!({
            "type": "object",
            "properties": flat.properties,
            "patternProperties": flat.patterns,
            "required": flat.required,
            "additionalProperties": false,
        })
    }

    /// Adds the attributes of a key of the record.
    fn add_key(&mut self, key: &str, property: &'d Value, is_required: bool) {
        let name = match &property["x-otel"] {
            Value::Object(parts) => return self.properties.extend(parts.clone()),
            Value::String(name) => name.clone(),
            _ => format!("nginx.{key}"),
        };
        if is_required {
            self.required.push(json!(name));
        }
        self.add_value(&name, false, property);
    }

    /// Adds a value with this name, or the values that it contains. Below an array the name is a
    /// pattern.
    fn add_value(&mut self, name: &str, is_pattern: bool, property: &'d Value) {
        let kind = resolve(self.definition, property);
        let items = resolve(self.definition, &kind["items"]);
        match (kind["type"].as_str(), items["type"].as_str()) {
            (Some("object"), _) if kind["additionalProperties"].is_object() => {
                let name = format!(r"^{}\.[0-9a-z_-]+$", name.replace('.', r"\."));
                let mut value = kind["additionalProperties"].clone();
                value["description"] = property["description"].clone();
                self.patterns.insert(name, value);
            }
            (Some("object"), _) => {
                let dot = if is_pattern { r"\." } else { "." };
                for (key, property) in kind["properties"].as_object().into_iter().flatten() {
                    self.add_value(&format!("{name}{dot}{key}"), is_pattern, property);
                }
            }
            (Some("array"), Some("object")) => {
                let name = match is_pattern {
                    true => name.to_owned(),
                    false => name.replace('.', r"\."),
                };
                let name = format!(r"{name}\.[0-9]+");
                self.add_value(&name, true, items);
            }
            _ if is_pattern => {
                self.patterns.insert(format!("^{name}$"), property.clone());
            }
            _ => {
                self.properties.insert(name.to_owned(), property.clone());
            }
        }
    }
}
