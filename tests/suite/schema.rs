// SPDX-License-Identifier: MIT OR Apache-2.0
//! Compares docs/schema/record.json with docs/fields.md. `Line::parse()` checks every record that a
//! test reads against the schema.

use std::collections::BTreeMap;

use serde_json::Value;
use serde_json::json;

use super::common::record::Line;

/// The document.
const FIELDS: &str = include_str!("../../docs/fields.md");

/// Returns the schema.
fn schema() -> Value {
    serde_json::from_str(include_str!("../../docs/schema/record.json")).unwrap()
}

/// A row of a table of keys: its type, and whether the key is always present.
type Row = (String, bool);

/// Returns the rows of the table below a heading, by their keys.
fn documented(heading: &str) -> BTreeMap<String, Row> {
    let section = FIELDS.split("\n## ").find(|part| part.starts_with(heading));
    let table = section
        .unwrap()
        .lines()
        .skip_while(|l| !l.starts_with("| key"));
    let rows = table.take_while(|line| line.starts_with('|')).skip(2);
    rows.map(|row| {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        /* In a loss every key is always present, so its table has no such column. */
        let is_required = cells.get(3).is_none_or(|absent| *absent == "never");
        let key = cells[0].trim_matches('`').to_owned();
        (
            key,
            (
                cells[1].split([',', ' ']).next().unwrap().to_owned(),
                is_required,
            ),
        )
    })
    .collect()
}

/// Returns the type of a property, in the words of the document.
fn type_of(schema: &Value, property: &Value) -> String {
    if let Some(name) = property["$ref"].as_str() {
        let definition = name.strip_prefix("#/$defs/").unwrap();
        return type_of(schema, &schema["$defs"][definition]);
    }
    let example = property["enum"].get(0).unwrap_or(&property["const"]);
    match (property["type"].as_str(), example) {
        (Some("integer"), _) => "int",
        (Some("boolean"), _) | (None, Value::Bool(_)) => "bool",
        (None, Value::String(_)) => "string",
        (Some(name), _) => name,
        (None, _) => panic!("{property} has no type"),
    }
    .to_owned()
}

/// Check that each object has exactly the documented keys, with the documented types, and that a
/// key is required when it is never absent.
#[test]
fn documented_keys() {
    let schema = schema();
    for (definition, heading) in [
        ("request", "`request`"),
        ("upstream", "`upstreams`"),
        ("subrequest", "`subrequests`"),
        ("lost", "`lost`"),
    ] {
        let object = &schema["$defs"][definition];
        let required = object["required"].as_array().cloned().unwrap_or_default();
        let properties = object["properties"].as_object().unwrap();
        let told: BTreeMap<String, Row> = properties
            .iter()
            .map(|(key, property)| {
                let is_required = required.contains(&Value::from(key.as_str()));
                (key.clone(), (type_of(&schema, property), is_required))
            })
            .collect();
        assert_eq!(told, documented(heading), "{definition}");
        assert_eq!(object["additionalProperties"], false, "{definition}");
    }
    let phases = schema["$defs"]["phases"]["properties"].as_object().unwrap();
    let documented = documented("`phases`");
    assert!(phases.keys().eq(documented.keys()), "{documented:?}");
}

/// Check that the schema has every documented reason.
#[test]
fn documented_reasons() {
    let schema = schema();
    let table = FIELDS.split("| `failure` | what").nth(1).unwrap();
    let rows = table
        .lines()
        .skip(2)
        .take_while(|line| line.starts_with('|'));
    let names = rows.flat_map(|row| {
        row.split(" | ")
            .next()
            .unwrap()
            .split('`')
            .skip(1)
            .step_by(2)
    });
    let known = &schema["$defs"]["upstream"]["properties"]["failure"]["enum"];
    for name in names {
        assert!(known.as_array().unwrap().contains(&name.into()), "{name}");
    }
    let causes = schema["$defs"]["lost"]["properties"]["cause"]["enum"].as_array();
    for cause in causes.unwrap() {
        assert!(
            FIELDS.contains(&format!("`{}`: ", cause.as_str().unwrap())),
            "{cause}"
        );
    }
}

/// Check that a line that is not a record, or that has an unknown key, is refused.
#[test]
fn refused() {
    let lost = json!({"type": "lost", "time": "2026-11-22T17:17:57.972980760Z", "count": 1,
                      "cause": "ring_full"});
    Line::parse(&lost.to_string());
    let changes: [(&str, Value); 5] = [
        ("type", "request".into()),
        ("time", "2026-11-22T17:17:57Z".into()),
        ("count", 0.into()),
        ("cause", "bad_luck".into()),
        ("new", 1.into()),
    ];
    for (key, value) in changes {
        let mut broken = lost.clone();
        broken[key] = value;
        let result = std::panic::catch_unwind(|| Line::parse(&broken.to_string()));
        assert!(result.is_err(), "{broken}");
    }
}
