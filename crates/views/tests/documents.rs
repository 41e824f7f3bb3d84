// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tests of the generated documents: the schemas of what the views write as JSON, and the picture of `top`. `make docs`
//! writes them.

#![allow(clippy::unwrap_used)]

use std::env;
use std::fs;
use std::path::Path;
use std::time::Duration;

use ngx_bpf_record::read;
use ngx_bpf_record::read::Records;
use ngx_bpf_views::compare::Comparison;
use ngx_bpf_views::look::Look;
use ngx_bpf_views::summary::Numbers;
use ngx_bpf_views::top;
use ngx_bpf_views::top::Top;
use ngx_bpf_views::waterfall;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use schemars::Schema;
use schemars::schema_for;

/// 2026-11-27, 06:48:00.
const BEGIN: Duration = Duration::from_secs(1_795_762_080);

/// The root of the project.
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// Asserts that a committed document is that of the code.
fn assert_committed(name: &str, text: &str) {
    let path = Path::new(ROOT).join("docs").join(name);
    if env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, text).unwrap();
    }
    let known = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        known == text,
        "{name} is not what the code says, run `make docs`"
    );
}

/// Check the schemas.
#[test]
fn schemas() {
    let text = |schema: Schema| serde_json::to_string_pretty(&schema).unwrap() + "\n";
    let summary = schema_for!(Numbers<'_>);
    assert_committed("schema/summary.json", &text(summary));
    assert_committed("schema/comparison.json", &text(schema_for!(Comparison)));
}

/// Check the picture of the README: recorded requests, of which one came every 300 ms.
#[test]
fn picture() {
    let look = Look {
        colour: true,
        ascii: false,
        width: 80,
    };
    let mut top = Top::new(top::Settings {
        title: "incidents.jsonl".to_owned(),
        group: None,
        look,
        zone: jiff::tz::TimeZone::UTC,
        has_inflight: true,
        waterfall: waterfall::terminal,
    });
    let file = Path::new(ROOT).join("tests/data/incidents.jsonl");
    let mut records = Records::new(read::open(&file).unwrap());
    let mut at = BEGIN;
    while let Some(record) = records.next_record().unwrap() {
        top.record(&record, at);
        at += Duration::from_millis(300);
    }
    let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
    terminal.draw(|frame| top.draw(frame)).unwrap();
    let picture = top::svg(terminal.backend().buffer());
    assert!(picture.contains("/reports/"), "{picture}");
    assert_committed("top.svg", &picture);
}
