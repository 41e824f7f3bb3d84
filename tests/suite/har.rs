// SPDX-License-Identifier: MIT OR Apache-2.0
//! The archives of `ngx-bpf waterfall --har`, against the JSON Schema that HAR's own validators use.

use std::fs;
use std::path::Path;
use std::process::Command;

use jsonschema::Validator;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use super::common::recorded::fetched;
use super::common::sources::project;
use super::common::tool::PROGRAM;

/// Returns the validator of all files of har-schema, as Debian packages it, each of which is a part of the schema.
fn validator() -> Validator {
    let mut parts = Map::new();
    for file in fs::read_dir(fetched("har-schema/usr/share/nodejs/har-schema/lib")).unwrap() {
        let path = file.unwrap().path();
        let Some(name) = path
            .file_name()
            .and_then(|name| name.to_str()?.strip_suffix(".json"))
        else {
            continue;
        };
        /* They refer to each other by the names of their files. */
        let text = fs::read_to_string(&path).unwrap();
        let text = text.replace("\"$ref\": \"", "\"$ref\": \"#/definitions/");
        let mut part: Value = serde_json::from_str(&text.replace(".json#", "")).unwrap();
        part.as_object_mut().unwrap().remove("$id");
        parts.insert(name.to_owned(), part);
    }
    assert!(parts.contains_key("har") && parts.len() > 15, "{parts:?}");
    let schema = json!({
        "$schema": "http://json-schema.org/draft-06/schema#",
        "definitions": parts,
        "allOf": [{ "$ref": "#/definitions/har" }],
    });
    let options = jsonschema::options().should_validate_formats(true);
    options.build(&schema).unwrap()
}

/// Returns the archive of the slowest requests of a recorded file.
fn archive(name: &str, folder: &Path) -> Value {
    let (from, to) = (
        project().join("tests/data").join(name),
        folder.join("a.har"),
    );
    let mut command = Command::new(PROGRAM);
    command
        .args(["waterfall", "--slowest=100", "--har"])
        .arg(&to);
    let output = command.arg(from).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    serde_json::from_str(&fs::read_to_string(to).unwrap()).unwrap()
}

/// Check that the archives of recorded requests are valid, and that the schema refuses what is not.
#[test]
#[ignore = "needs a program that make test installs or fetches"]
fn schema() {
    let folder = tempfile::tempdir().unwrap();
    let validator = validator();
    for (name, entries) in [("records.jsonl", 100), ("incidents.jsonl", 75)] {
        let archive = archive(name, folder.path());
        let errors = validator
            .iter_errors(&archive)
            .map(|error| error.to_string());
        assert_eq!(errors.collect::<Vec<_>>(), [""; 0], "{name}");
        assert_eq!(archive["log"]["entries"].as_array().unwrap().len(), entries);
        for (pointer, wrong) in [
            ("/startedDateTime", json!("yesterday")),
            ("/serverIPAddress", json!("somewhere")),
            ("/timings/wait", json!("long")),
            ("/request/headers/0", json!({ "name": "host" })),
        ] {
            let mut broken = archive.clone();
            let entries = broken["log"]["entries"].as_array_mut().unwrap();
            let mut known = entries
                .iter_mut()
                .filter_map(|entry| entry.pointer_mut(pointer));
            *known.next().unwrap() = wrong;
            assert!(!validator.is_valid(&broken), "{pointer}");
        }
    }
}
