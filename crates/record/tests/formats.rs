// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tests that lines do not change: the lines of some records are compared byte for byte with those
//! that were printed once. A new key changes these files (CONTRIBUTING.md).

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use ngx_bpf_record::Format;
use ngx_bpf_record::Record;
use ngx_bpf_record::Redaction;
use ngx_bpf_record::append_line;
use ngx_bpf_record::format::json::Json;
use ngx_bpf_record::format::otel::Otel;
use ngx_bpf_record::format::text::Text;
use ngx_bpf_record::redact::DEFAULT_KEYS;

/// Records of a small shop that was traced once.
const RECORDED: &str = include_str!("../../../tests/data/records.jsonl");

/// Random records, as JSON.
const GENERATED: &str = include_str!("data/generated.json");

/// The length that the lines of `data/generated.cut.*` are cut to.
const MAX_LINE: usize = 800;

/// Returns the lines of records in a format. They are redacted when they are cut.
fn lines(format: &mut dyn Format, records: &str, max: Option<usize>) -> String {
    let redaction = Redaction::Keys(DEFAULT_KEYS.split(',').map(str::to_owned).collect());
    let mut lines = Vec::new();
    for line in records.lines() {
        match serde_json::from_str(line).unwrap() {
            Record::Request(mut request) => {
                if max.is_some() {
                    redaction.apply(&mut request);
                }
                append_line(format, &mut lines, &mut request, max).unwrap();
            }
            Record::Connection(connection) => format.connection(&mut lines, &connection).unwrap(),
            Record::Lost(lost) => format.lost(&mut lines, &lost).unwrap(),
            Record::Blocked(blocked) => format.blocked(&mut lines, &blocked).unwrap(),
        }
    }
    String::from_utf8(lines).unwrap()
}

/// Returns the text of a file of `data/`. With `UPDATE_DOCS` in the environment it is written first.
fn expected(name: &str, printed: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, printed).unwrap();
    }
    fs::read_to_string(&path).unwrap()
}

/// Check that the lines of a format are equal to the expected ones, and name the first that
/// differs.
fn assert_lines(format: &mut dyn Format, extension: &str) {
    for (max, name) in [(None, "generated"), (Some(MAX_LINE), "generated.cut")] {
        let printed = lines(format, GENERATED, max);
        let expected = expected(&format!("{name}.{extension}"), &printed);
        for (printed, expected) in printed.lines().zip(expected.lines()) {
            assert_eq!(printed, expected);
        }
        assert_eq!(printed.len(), expected.len());
    }
}

/// Check the lines of `--format json`.
#[test]
fn json() {
    assert_lines(&mut Json, "json");
    assert!(lines(&mut Json, RECORDED, None) == RECORDED);
}

/// Check the lines of `--format otel`.
#[test]
fn otel() {
    assert_lines(&mut Otel::new(None), "otel");
}

/// Check the lines of `--format text`.
#[test]
fn text() {
    assert_lines(&mut Text, "text");
}
