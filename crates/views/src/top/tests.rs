// SPDX-License-Identifier: MIT OR Apache-2.0

use std::fs;
use std::io::BufReader;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use ngx_bpf_record::Inflight;
use ngx_bpf_record::Lost;
use ngx_bpf_record::Record;
use ngx_bpf_record::Request;
use ngx_bpf_record::read::Records;
use ngx_bpf_record::statistics::GroupKey;
use ngx_bpf_record::values::Cause;
use ngx_bpf_record::values::State;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::crossterm::event::KeyCode;
use ratatui::crossterm::event::KeyEvent;
use ratatui::style::Color;
use ratatui::style::Modifier;

use super::Asked;
use super::Pace;
use super::Settings;
use super::Top;
use super::replay;
use crate::look::Look;

mod model;
mod screens;

/// 2026-11-27, 06:48:00.
const BEGIN: Duration = Duration::from_secs(1_795_762_080);

/// A screen with glyphs and without colours.
const LOOK: Look = Look {
    colour: false,
    ascii: false,
    width: 80,
};

/// Stands for the waterfall that is made elsewhere.
fn waterfall(request: &Request<'_>, look: Look) -> String {
    let uri = request.request_uri.as_deref().unwrap_or("-");
    let bar = look.glyph(ngx_bpf_record::timeline::Class::Upstream);
    let bar = bar.to_string().repeat(look.width / 2);
    format!("waterfall of {uri}\n{bar}\n")
}

/// Returns a screen without records.
fn empty(look: Look, group: Option<GroupKey>) -> Top {
    Top::new(Settings {
        title: "nginx 1.26.3 pid 5874  4 workers".to_owned(),
        group,
        look,
        zone: jiff::tz::TimeZone::UTC,
        has_inflight: true,
        waterfall,
    })
}

/// Returns the records of files of tests/data.
fn recorded(names: &[&str]) -> Vec<Record<'static>> {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data");
    let mut all = Vec::new();
    for name in names {
        let file = fs::File::open(data.join(name)).unwrap();
        let mut records = Records::new(BufReader::new(file));
        while let Some(record) = records.next_record().unwrap() {
            all.push(record);
        }
    }
    all
}

/// Returns a screen of all recorded requests, which came within 28 seconds.
fn full(look: Look) -> Top {
    let mut top = empty(look, None);
    let records = recorded(&["records.jsonl", "incidents.jsonl", "blocked.jsonl"]);
    for (n, record) in records.iter().enumerate() {
        top.record(record, BEGIN + Duration::from_millis(100) * n as u32);
    }
    top
}

/// Gives keys to a screen: characters, and words in angle brackets.
fn press(top: &mut Top, keys: &str) -> Asked {
    let mut asked = Asked::Nothing;
    for word in keys.split(' ') {
        let code = match word {
            "Enter" => KeyCode::Enter,
            "Esc" => KeyCode::Esc,
            "Backspace" => KeyCode::Backspace,
            "Down" => KeyCode::Down,
            "Up" => KeyCode::Up,
            "End" => KeyCode::End,
            "Tab" => KeyCode::Tab,
            "PageDown" => KeyCode::PageDown,
            word => {
                for typed in word.chars() {
                    asked = top.key(KeyEvent::from(KeyCode::Char(typed)));
                }
                continue;
            }
        };
        asked = top.key(KeyEvent::from(code));
    }
    asked
}

/// Draws a screen.
fn drawn(top: &Top, width: u16, height: u16) -> TestBackend {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| top.draw(frame)).unwrap();
    terminal.backend().clone()
}

/// Returns the text of a line of a screen.
fn line(buffer: &Buffer, y: u16) -> String {
    let cells = (0..buffer.area.width).map(|x| buffer[(x, y)].symbol());
    cells.collect()
}

/// Check screens of a selected row.
#[test]
fn selections() {
    let mut top = full(LOOK);
    press(&mut top, "u Down Down");
    insta::assert_snapshot!("view_upstream_selected", drawn(&top, 80, 24));
    press(&mut top, "w End");
    insta::assert_snapshot!("view_worker_selected", drawn(&top, 80, 24));
}

/// Check that the services of the selected pod stand below the pods: those of its ingress, or else its upstreams.
#[test]
fn services() {
    let mut top = empty(LOOK, Some(GroupKey::Pod));
    for (n, record) in recorded(&["records.jsonl"]).into_iter().enumerate() {
        let Record::Request(mut request) = record else {
            continue;
        };
        let pods = ["ingress-6c9-x7", "ingress-6c9-x7", "shop-7d4b9-2xk"];
        request.container.pod = Some(pods[n % 3].into());
        request.container.namespace = Some("shop".into());
        request.place.upstream_name = Some("backend".into());
        let service = ["shop-orders-8080", "shop-\u{1b}users\t8080"][n % 2];
        if n % 3 < 2 {
            let variables = &mut request.place.variables;
            variables.insert("proxy_upstream_name".into(), service.into());
        }
        top.record(&Record::Request(request), BEGIN);
    }
    insta::assert_snapshot!("services", drawn(&top, 80, 24));
    press(&mut top, "Down");
    insta::assert_snapshot!("services_of_another", drawn(&top, 80, 24));
}

/// Check that the requests in flight take the place of a view until the user goes back, and that a replay has none.
#[test]
fn in_flight() {
    let mut top = full(LOOK);
    let requests = vec![Inflight {
        time: "2026-11-26T06:48:30.120000000Z".to_owned(),
        pid: 5_875,
        age_ms: Some(12_400),
        state: Some(State::Waiting),
        upstream_addr: Some("10.0.1.4:8080".into()),
        request_method: Some("GET".into()),
        request_uri: Some("/orders/\u{1b}7".into()),
        ..Default::default()
    }];
    let view = drawn(&top, 80, 24).to_string();
    top.set_inflight(Ok(requests.clone()));
    assert_eq!(drawn(&top, 80, 24).to_string(), view);
    assert_eq!(press(&mut top, "i"), Asked::Inflight);
    assert!(line(drawn(&top, 80, 24).buffer(), 1).contains("is being read"));
    top.set_inflight(Ok(requests));
    insta::assert_snapshot!("in_flight", drawn(&top, 80, 24));
    assert_eq!(press(&mut top, "Enter 3 i"), Asked::Inflight);
    top.set_inflight(Err("the memory of 8 workers could not be read".to_owned()));
    assert!(line(drawn(&top, 80, 24).buffer(), 1).contains("of 8 workers could"));
    /* The view is neither frozen nor another one meanwhile. */
    press(&mut top, "p u Esc");
    assert_eq!(drawn(&top, 80, 24).to_string(), view);
    top.settings.has_inflight = false;
    assert_eq!(press(&mut top, "i"), Asked::Nothing);
}

/// Returns the names of the rows, in their order.
fn names(top: &Top) -> Vec<String> {
    let table = top.table();
    let shown = table.shown(&top.filter);
    shown.iter().map(|(row, _)| row.id.clone()).collect()
}

/// Check that rows are sorted by a column, and reversed, and that what is not known comes last in both cases.
#[test]
fn sorted() {
    let mut top = full(LOOK);
    press(&mut top, "1");
    let ascending = names(&top);
    let mut expected = ascending.clone();
    expected.sort();
    assert_eq!(ascending, expected);
    press(&mut top, "1");
    expected.reverse();
    assert_eq!(names(&top), expected);
    press(&mut top, "8");
    insta::assert_snapshot!("sorted_by_errors", drawn(&top, 80, 24));
    let last = names(&top).last().cloned();
    press(&mut top, "8");
    assert_eq!(names(&top).last(), last.as_ref());
    press(&mut top, "s");
    assert_eq!(names(&top), ascending);
    press(&mut top, "9");
    assert_eq!(names(&top), ascending);
}

/// Check that a filter keeps the rows that contain it, that it is typed and taken back, and that servers keep their
/// group.
#[test]
fn filtered() {
    let mut top = full(LOOK);
    press(&mut top, "/ API");
    insta::assert_snapshot!("filter_typed", drawn(&top, 80, 24));
    press(&mut top, "Enter");
    assert_eq!(names(&top), ["/api/stock/", "/api/"]);
    insta::assert_snapshot!("filter_kept", drawn(&top, 80, 24));
    press(&mut top, "/ x Esc");
    assert_eq!(top.filter, "API");
    press(&mut top, "/ Backspace Backspace Backspace Enter");
    assert!(names(&top).len() > 5);
    press(&mut top, "u / 9422 Enter");
    assert_eq!(names(&top).len(), 2);
    assert_eq!(press(&mut top, "Esc"), Asked::Nothing);
    assert!(top.filter.is_empty());
    assert_eq!(press(&mut top, "Esc"), Asked::Leave);
}

/// Check that a frozen screen stands still while records are counted, and shows them afterwards.
#[test]
fn frozen() {
    let mut top = full(LOOK);
    press(&mut top, "p");
    let before = drawn(&top, 80, 24);
    insta::assert_snapshot!("frozen", before);
    top.take_changed();
    let records = recorded(&["incidents.jsonl"]);
    let later = BEGIN + Duration::from_secs(60);
    records.iter().for_each(|record| top.record(record, later));
    assert!(!top.take_changed());
    assert_eq!(top.window.totals().all.requests, 75);
    assert_eq!(before.to_string(), drawn(&top, 80, 24).to_string());
    press(&mut top, "p");
    let after = drawn(&top, 80, 24).to_string();
    assert!(after.contains("06:49:00") && !after.contains("FROZEN"));
}

/// Check the way from a row to its requests, to one waterfall, to its JSON, and back.
#[test]
fn opened() {
    let mut top = full(LOOK);
    press(&mut top, "/ reports Enter Enter");
    assert!(
        drawn(&top, 80, 24)
            .to_string()
            .contains("location /reports/: 10 requests")
    );
    press(&mut top, "Down Enter");
    assert!(
        drawn(&top, 80, 24)
            .to_string()
            .contains("waterfall of /reports/")
    );
    press(&mut top, "Enter");
    assert!(
        drawn(&top, 80, 24)
            .to_string()
            .contains("\"type\": \"request\"")
    );
    press(&mut top, "PageDown Enter");
    assert!(!drawn(&top, 80, 24).to_string().contains("\"type\""));
    press(&mut top, "Backspace Esc Backspace");
    assert!(drawn(&top, 80, 24).to_string().contains(">/reports/"));
}

/// Check that colours and modifiers are where glyphs say the same, and that there is no colour without them.
#[test]
fn styles() {
    let styles = |colour: bool| {
        let mut top = full(Look { colour, ..LOOK });
        press(&mut top, "Down");
        let backend = drawn(&top, 80, 24);
        let buffer = backend.buffer().clone();
        let at = |glyph: &str| buffer.content().iter().find(|c| c.symbol() == glyph);
        let colours = ["░", "▓", "█"].map(|glyph| at(glyph).unwrap().fg);
        let row = (0..24).find(|y| buffer[(0, *y)].symbol() == ">").unwrap();
        let is_reversed = |x: u16| buffer[(x, row)].modifier.contains(Modifier::REVERSED);
        let is_bar = |x: &u16| "░▓█▒".contains(buffer[(*x, row)].symbol());
        assert!((0..60).chain(73..80).all(is_reversed));
        assert!((0..80).filter(is_bar).all(|x| !is_reversed(x)));
        assert!(buffer[(0, 0)].modifier.contains(Modifier::BOLD));
        (colours, buffer)
    };
    assert_eq!(styles(true).0, [Color::Cyan, Color::Yellow, Color::Blue]);
    let plain = styles(false).1;
    let mut cells = plain.content().iter();
    assert!(cells.all(|cell| cell.fg == Color::Reset && cell.bg == Color::Reset));
}

/// Check that losses are on the first line, and what can't be read and the end below it.
#[test]
fn losses() {
    let mut top = empty(LOOK, None);
    let lost = |count| {
        Record::Lost(Lost {
            time: String::new(),
            count,
            cause: Cause::ALL[0],
        })
    };
    top.record(&lost(1_200), BEGIN);
    top.record(&lost(34), BEGIN);
    let pace = Pace::replay(1e9);
    let text = "{\"type\":\"request\",\"pid\":1,\"scheme\":\"http\"}\nno json\n";
    let top = Mutex::new(top);
    replay(&mut Records::new(text.as_bytes()), &top, &pace).unwrap();
    let top = top.into_inner().unwrap();
    assert_eq!(top.lost, 1_234);
    insta::assert_snapshot!("losses", drawn(&top, 80, 24));
    assert!(line(drawn(&top, 30, 3).buffer(), 0).contains("lost 1,234"));
    let mut top = top;
    top.end(Some(format!("\u{1b}[2J{}", "gone ".repeat(50))));
    let screen = drawn(&top, 80, 24);
    assert!(line(screen.buffer(), 0).contains("FAILED"));
    let failure = line(screen.buffer(), 2);
    assert!(
        failure.starts_with("tunnels 0  failed: \\x1b[2Jgone gone"),
        "{failure}"
    );
}
