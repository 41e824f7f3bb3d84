// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tests of the generated parts of docs/: both schemas, and the tables of fields.md and otel.md.
//! `make docs` writes them; the text around the tables is written by hand.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::path::PathBuf;

use ngx_bpf_record::Blocked;
use ngx_bpf_record::Connection;
use ngx_bpf_record::Lost;
use ngx_bpf_record::schema;
use ngx_bpf_record::schema::longest;
use ngx_bpf_record::schema::longest_inflight;
use ngx_bpf_record::schema::longest_of;
use ngx_bpf_record::schema::resolve;
use ngx_bpf_record::values::Cause;
use serde::Deserializer;
use serde::Serialize;
use serde::de::IgnoredAny;
use serde::de::MapAccess;
use serde::de::Visitor;
use serde_json::Value;

/// The most values of a set that are listed beside the type of their key.
const VALUES_LISTED: usize = 7;

/// Returns the path of a file of docs/.
fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../docs")
        .join(name)
}

/// Returns the generated files, each with its right text.
fn documents() -> [(PathBuf, String); 4] {
    let read = |name| fs::read_to_string(path(name)).unwrap();
    let pretty = |schema: Value| serde_json::to_string_pretty(&schema).unwrap() + "\n";
    [
        (path("schema/record.json"), pretty(schema::record())),
        (path("schema/otel.json"), pretty(schema::otel())),
        (path("fields.md"), fields(&read("fields.md"))),
        (path("otel.md"), otel(&read("otel.md"))),
    ]
}

/// Returns docs/fields.md with newly generated tables.
fn fields(text: &str) -> String {
    let definition = schema::definition();
    let request = longest();
    let lost = Lost {
        time: String::new(),
        count: 1,
        cause: Cause::RingFull,
    };
    let connection = keys(&longest_of::<Connection<'_>>("connection"));
    let blocked = keys(&longest_of::<Blocked<'_>>("blocked"));
    let columns = [
        "key",
        "type, unit, range",
        "meaning",
        "source",
        "absent when",
    ];
    let objects = [
        ("request", "request", keys(&request)),
        ("phases", "Phases", keys(&request.phases)),
        ("time_ns", "Shares", keys(&request.waits.time_ns)),
        ("config", "Config", keys(&request.place.config)),
        ("tcp", "Tcp", keys(&request.tcp)),
        ("tcp.client", "TcpConnection", keys(&request.tcp.client)),
        ("connection", "connection", connection),
        ("blocked", "blocked", blocked),
        ("upstreams", "Attempt", keys(&request.upstreams[0])),
        ("subrequests", "Subrequest", keys(&request.subrequests[0])),
    ];
    let mut text = text.to_owned();
    for (heading, name, keys) in objects {
        let rows = rows(&definition, name, &keys);
        text = replaced(&text, heading, &columns, rows);
    }
    let mut rows = rows(&definition, "lost", &keys(&lost));
    rows.iter_mut().for_each(|row| row.truncate(3));
    text = replaced(&text, "lost", &columns[..3], rows);
    for (heading, name, column) in [
        ("upstreams", "Failure", ["`failure`", "what happened"]),
        ("end", "End", ["`end`", "what happened"]),
        ("end", "Timeout", ["`timeout`", "what happened"]),
        ("end", "Side", ["`closed_by`", "what happened"]),
        ("end", "Part", ["`last_phase`", "what happened"]),
        ("connection", "Stage", ["`stage`", "what nginx was doing"]),
        ("connection", "ConnectionEnd", ["`end`", "what happened"]),
        ("lost", "Cause", ["`cause`", "what happened"]),
        ("blocked", "BlockPart", ["`longest_part`", "what happened"]),
    ] {
        text = replaced(&text, heading, &column, values(&definition, name));
    }
    let definition = schema::inflight_definition();
    let mut keys = keys(&longest_inflight());
    keys.retain(|key| key != "type");
    let rows = self::rows(&definition, "inflight", &keys);
    text = replaced(&text, "inflight", &columns, rows);
    let states = values(&definition, "State");
    replaced(&text, "inflight", &["`state`", "what nginx does"], states)
}

/// Returns docs/otel.md with newly generated tables.
fn otel(text: &str) -> String {
    let definition = schema::definition();
    let properties = &definition["$defs"]["request"]["properties"];
    let named = keys(&longest()).into_iter().filter_map(|key| {
        let property = &properties[&key];
        let names = match property.get("x-otel")? {
            Value::Object(names) => names.keys().map(String::as_str).collect(),
            name => vec![name.as_str()?],
        };
        let note = property["x-otel-note"].as_str().unwrap_or_default();
        Some(vec![code(&[&key]), code(&names), note.to_owned()])
    });
    let columns = ["key of the JSON record", "becomes", ""];
    replaced(text, "", &columns, named.collect())
}

/// Returns the rows of the keys of an object.
fn rows(definition: &Value, name: &str, keys: &[String]) -> Vec<Vec<String>> {
    let object = &definition["$defs"][name];
    let properties = &object["properties"];
    let row = |key: &String| {
        let property = &properties[key];
        let text = |key: &str| property[key].as_str().unwrap_or_default().to_owned();
        let absent = match property.get("x-absent") {
            Some(_) => text("x-absent"),
            None => "never".to_owned(),
        };
        vec![
            code(&[key]),
            kind(definition, property),
            text("description"),
            text("x-source"),
            absent,
        ]
    };
    let mut rows: Vec<_> = keys.iter().map(row).collect();
    if let Some(record) = properties["type"]["const"].as_str() {
        let cells = ["`type`", "string", &code(&[record]), "ngx-bpf", "never"];
        rows.insert(0, cells.map(str::to_owned).into());
    }
    rows
}

/// Returns the rows of a set of values.
fn values(definition: &Value, name: &str) -> Vec<Vec<String>> {
    let values = definition["$defs"][name]["oneOf"].as_array().unwrap();
    let row = |value: &Value| {
        let text = |key: &str| value[key].as_str().unwrap().to_owned();
        vec![code(&[&text("const")]), text("description")]
    };
    values.iter().map(row).collect()
}

/// Returns the type, the unit and the range of a key.
fn kind(definition: &Value, property: &Value) -> String {
    let schema = resolve(definition, property);
    let number = |key: &str| schema[key].as_u64();
    let mut parts = vec![
        match (schema["type"].as_str(), schema["oneOf"].as_array()) {
            (_, Some(values)) if values.len() <= VALUES_LISTED => {
                let names: Vec<_> = values
                    .iter()
                    .map(|v| v["const"].as_str().unwrap())
                    .collect();
                format!("string: {}", code(&names))
            }
            (_, Some(_)) => "string".to_owned(),
            (Some("integer"), _) => "int".to_owned(),
            (Some("boolean"), _) => "bool".to_owned(),
            (Some("array"), _) => match &resolve(definition, &schema["items"])["type"] {
                Value::String(kind) if kind == "object" => "array of objects".to_owned(),
                _ => "array of strings".to_owned(),
            },
            (kind, _) => kind.unwrap().to_owned(),
        },
    ];
    parts.extend(property["x-unit"].as_str().map(str::to_owned));
    match (number("minimum"), number("maximum")) {
        (Some(1..), Some(maximum)) => parts.push(format!("1 to {maximum}")),
        (Some(minimum @ 1..), None) => parts.push(format!("from {minimum}")),
        (Some(0), Some(maximum)) => parts.push(format!("up to {maximum}")),
        _ => {}
    }
    if let (Some(len), None) = (number("maxLength"), schema.get("pattern")) {
        parts.push(format!("at most {len} bytes"));
    }
    parts.join(", ")
}

/// Returns words formatted as code, with commas between them.
fn code(words: &[&str]) -> String {
    let words: Vec<_> = words.iter().map(|word| format!("`{word}`")).collect();
    words.join(", ")
}

/// Returns the keys of an object in the order in which they are written.
fn keys(object: &impl Serialize) -> Vec<String> {
    struct Keys;
    impl<'de> Visitor<'de> for Keys {
        type Value = Vec<String>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vec<String>, A::Error> {
            let mut keys = Vec::new();
            while let Some((key, IgnoredAny)) = map.next_entry()? {
                keys.push(key);
            }
            Ok(keys)
        }
    }
    let json = serde_json::to_string(object).unwrap();
    let mut deserializer = serde_json::Deserializer::from_str(&json);
    (&mut deserializer).deserialize_map(Keys).unwrap()
}

/// Returns the text with other rows in one table, which is below a heading and whose first column
/// has the name `columns[0]`.
fn replaced(text: &str, heading: &str, columns: &[&str], rows: Vec<Vec<String>>) -> String {
    let start = match heading {
        "" => 0,
        name => text.find(&format!("\n## `{name}`")).unwrap(),
    };
    let head = format!("| {} |", columns[0]);
    let mut tables = text[start..]
        .match_indices("\n| --- |")
        .map(|(at, _)| start + at);
    let begin = tables
        .find_map(|end| {
            let begin = text[..end].rfind('\n')? + 1;
            text[begin..].starts_with(&head).then_some(begin)
        })
        .unwrap();
    let len = text[begin..]
        .find("\n\n")
        .unwrap_or(text[begin..].trim_end().len());
    let line = |cells: &[String]| {
        let cells: Vec<_> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
        format!("| {} |", cells.join(" | ").trim_end())
    };
    let columns: Vec<_> = columns.iter().map(|name| (*name).to_owned()).collect();
    let rule = "| --- ".repeat(columns.len()) + "|";
    let mut lines = vec![line(&columns), rule];
    lines.extend(rows.iter().map(|row| line(row)));
    format!(
        "{}{}{}",
        &text[..begin],
        lines.join("\n"),
        &text[begin + len..]
    )
}

/// Check that the committed files are equal to the generated ones. With `UPDATE_DOCS` in the environment
/// they are written instead.
#[test]
fn committed() {
    let is_update = std::env::var_os("UPDATE_DOCS").is_some();
    for (path, expected) in documents() {
        let text = fs::read_to_string(&path).unwrap();
        if is_update {
            fs::write(&path, &expected).unwrap();
            continue;
        }
        let differing = text
            .lines()
            .zip(expected.lines())
            .find(|(one, other)| one != other);
        assert!(
            text == expected,
            "{} is not what the record says, run `make docs`: {differing:?}",
            path.display()
        );
    }
}
