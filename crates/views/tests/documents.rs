// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tests of the generated documents: the schemas of what the views write as JSON, and the pictures of `top` and
//! of a waterfall. `make docs` writes them.

#![allow(clippy::unwrap_used)]

use std::env;
use std::fs;
use std::path::Path;
use std::time::Duration;

use ngx_bpf_record::Record;
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
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Color;
use ratatui::style::Style;
use ratatui::text::Line;
use ratatui::text::Span;
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

/// The look of pictures.
const LOOK: Look = Look {
    colour: true,
    ascii: false,
    width: 80,
};

/// The id of the request in the picture of a waterfall: an upstream closed its kept connection, and another try took long.
const ID: (u32, u64, u64) = (7955, 1, 19);

/// Returns recorded requests.
fn recorded() -> Vec<Record<'static>> {
    let file = Path::new(ROOT).join("tests/data/incidents.jsonl");
    let mut records = Records::new(read::open(&file).unwrap());
    std::iter::from_fn(|| records.next_record().unwrap()).collect()
}

/// Check the picture of `top` in the README: recorded requests, of which one came every 300 ms.
#[test]
fn picture_of_top() {
    let mut top = Top::new(top::Settings {
        title: "incidents.jsonl".to_owned(),
        group: None,
        look: LOOK,
        zone: jiff::tz::TimeZone::UTC,
        has_inflight: true,
        waterfall: waterfall::terminal,
    });
    let mut at = BEGIN;
    for record in recorded() {
        top.record(&record, at);
        at += Duration::from_millis(300);
    }
    let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
    terminal.draw(|frame| top.draw(frame)).unwrap();
    let picture = top::svg(terminal.backend().buffer());
    assert!(picture.contains("/reports/"), "{picture}");
    assert_committed("top.svg", &picture);
}

/// Check the picture of a waterfall in the README.
#[test]
fn picture_of_waterfall() {
    let (pid, connection, number) = ID;
    let is_it = |record: &Record<'_>| {
        matches!(record, Record::Request(request) if request.pid == pid
            && request.connection == Some(connection)
            && request.connection_requests == Some(number))
    };
    let Some(Record::Request(request)) = recorded().into_iter().find(is_it) else {
        panic!("the request is not in the file");
    };
    let text = waterfall::terminal(&request, LOOK);
    let lines: Vec<_> = text.lines().map(styled).collect();
    let area = Rect::new(0, 0, 80, u16::try_from(lines.len()).unwrap());
    let mut buffer = Buffer::empty(area);
    for (y, line) in (0..).zip(&lines) {
        assert!(line.width() <= LOOK.width, "{line}");
        buffer.set_line(0, y, line, area.width);
    }
    let picture = top::svg(&buffer);
    assert!(picture.contains("try 2"), "{picture}");
    assert_committed("waterfall.svg", &picture);
}

/// Returns a line with the styles that its escape sequences ask for.
fn styled(line: &str) -> Line<'_> {
    let mut style = Style::new();
    let mut spans = Vec::new();
    for (n, part) in line.split("\x1b[").enumerate() {
        let text = match part.split_once('m') {
            Some((code, text)) if n > 0 => {
                style = match code {
                    "0" => Style::new(),
                    "1" => style.bold(),
                    "31" => style.fg(Color::Red),
                    "33" => style.fg(Color::Yellow),
                    "34" => style.fg(Color::Blue),
                    "35" => style.fg(Color::Magenta),
                    "36" => style.fg(Color::Cyan),
                    _ => panic!("{code} is no code of a look"),
                };
                text
            }
            _ => part,
        };
        spans.push(Span::styled(text, style));
    }
    Line::from(spans)
}
