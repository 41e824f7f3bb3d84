// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is counted and kept, and what no record may do to the screen.

use std::fs;
use std::io::BufReader;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use ngx_bpf_record::Attempt;
use ngx_bpf_record::Record;
use ngx_bpf_record::Request;
use ngx_bpf_record::format::escape::is_unsafe;
use ngx_bpf_record::read::Records;
use ngx_bpf_record::statistics::GroupKey;
use ratatui::backend::TestBackend;
use ratatui::buffer::Cell;
use ratatui::crossterm::event::KeyCode;
use ratatui::crossterm::event::KeyEvent;
use ratatui::crossterm::event::KeyModifiers;
use unicode_width::UnicodeWidthChar as _;

use super::super::Asked;
use super::super::Pace;
use super::super::Top;
use super::super::replay;
use super::super::svg;
use super::BEGIN;
use super::LOOK;
use super::drawn;
use super::empty;
use super::full;
use super::line;
use super::names;
use super::press;
use super::recorded;
use crate::hostile::TEXTS;
use crate::hostile::fill;
use crate::hostile::others;
use crate::look::Look;

/// Check that a key of the caller has a view of its own, and that the others are still there.
#[test]
fn asked() {
    let mut top = empty(LOOK, Some(GroupKey::Method));
    for record in recorded(&["incidents.jsonl"]) {
        top.record(&record, BEGIN);
    }
    let heading = |top: &Top| line(drawn(top, 80, 24).buffer(), 5);
    assert!(heading(&top).starts_with(" METHOD"), "{}", heading(&top));
    press(&mut top, "l");
    assert!(heading(&top).starts_with(" LOCATION"));
    press(&mut top, "g");
    assert!(heading(&top).starts_with(" METHOD"));
    press(&mut top, "Tab");
    assert!(heading(&top).starts_with(" LOCATION"));
    let top = empty(LOOK, Some(GroupKey::Peer));
    assert!(heading(&top).starts_with(" UPSTREAM / SERVER"));
    let top = empty(LOOK, Some(GroupKey::Status));
    assert!(heading(&top).starts_with(" STATUS"));
}

/// Check that each row of each view has requests, its slowest one among them.
#[test]
fn opened_rows() {
    let mut top = full(LOOK);
    let blocked_only = "21381";
    for view in ["l", "u", "t", "w", "h", "c", "n", "d"] {
        press(&mut top, view);
        for name in names(&top) {
            press(&mut top, "Enter");
            let opened = top.opened.as_ref().unwrap();
            let has_any = opened.request().is_some();
            assert!(has_any || name == blocked_only, "{view} {name:?}");
            press(&mut top, "Backspace Down");
        }
    }
}

/// Check that a row stays selected when others overtake it.
#[test]
fn selected() {
    let mut top = full(LOOK);
    let name = names(&top)[2].clone();
    press(&mut top, "Down Down");
    press(&mut top, "1");
    let table = top.table();
    let shown = table.shown("");
    assert_eq!(shown[top.selection.place(&shown)].0.id, name);
    press(&mut top, "End Down j");
    let shown = table.shown("");
    assert_eq!(top.selection.place(&shown), shown.len() - 1);
    press(&mut top, "PageDown kkkkkkkkkkkkkkkkkkkkkkkkk Up");
    assert_eq!(top.selection.place(&table.shown("")), 0);
}

/// Check that texts of requests break no column, at any width, and never reach the terminal as they are.
#[test]
fn hostile() {
    for text in TEXTS {
        let mut tops = [text, "x"].map(|text| {
            let mut request = Request {
                elapsed_ns: Some(5),
                status: Some(200),
                upstreams: vec![Attempt::default()],
                ..Default::default()
            };
            fill(&mut request, text);
            let mut top = empty(LOOK, None);
            top.settings.waterfall = crate::waterfall::terminal;
            top.set_title(text.to_owned());
            top.record(&Record::Request(Box::new(request)), BEGIN);
            top.record(&others(text)[0], BEGIN);
            top
        });
        for keys in ["l", "u", "h", "c", "n", "d", "l", "Enter", "Enter", "Enter"] {
            for top in &mut tops {
                press(top, keys);
            }
            for width in [3, 10, 17, 40, 45, 80, 97] {
                let [shown, plain] = [&tops[0], &tops[1]].map(|top| drawn(top, width, 24));
                let cells = shown.buffer().content().iter();
                let symbols: String = cells.map(Cell::symbol).collect();
                let is_bad = |c: char| is_unsafe(c) || c.width().unwrap_or_default() == 0;
                assert_eq!(
                    symbols.chars().find(|c| is_bad(*c)),
                    None,
                    "{text:?} {width}"
                );
                if keys == "l" && width > 40 {
                    let rest = |backend: &TestBackend| {
                        let row = line(backend.buffer(), 6);
                        row.chars().rev().take(20).collect::<String>()
                    };
                    assert_eq!(rest(&shown), rest(&plain), "{text:?} {width}");
                }
            }
        }
    }
}

/// Check that no size makes it panic, whatever is shown.
#[test]
fn any_size() {
    for keys in [
        "l",
        "u",
        "w",
        "/x",
        "?",
        "Enter",
        "Enter Enter",
        "Enter Enter Enter",
    ] {
        let mut top = full(LOOK);
        press(&mut top, keys);
        let widths = [0, 1, 2, 3, 5, 8, 10, 13, 21, 34];
        for (width, height) in widths
            .into_iter()
            .flat_map(|w| (0..16).map(move |h| (w, h)))
        {
            drawn(&top, width, height);
        }
        drawn(&top, 300, 100);
    }
}

/// Check that any number of records is counted, and that what is kept of them is bounded.
#[test]
fn bounded() {
    let mut top = empty(LOOK, None);
    let mut request = Request::default();
    for n in 0..100_000_u64 {
        request.elapsed_ns = Some(n);
        request.pid = (n % 1_000) as u32;
        request.status = Some(200);
        request.place.location = Some(format!("/{n}").into());
        request.remote_addr = Some(format!("10.0.{}.{}", n / 256 % 256, n % 256).into());
        let record = Record::Request(Box::new(request.clone()));
        top.record(&record, BEGIN + Duration::from_micros(200) * n as u32);
    }
    assert_eq!(top.window.totals().all.requests, 100_000);
    for key in 0..top.window.keys().len() {
        let rows = top.window.groups(key);
        let named: u64 = rows.named().map(|(_, row)| row.what.requests).sum();
        let others = rows.other().map_or(0, |row| row.what.requests);
        assert!(rows.named().count() <= 256);
        assert_eq!(named + others, 100_000);
    }
    assert!(top.window.kept().count() <= 10 * (50 + 9 * 257));
    press(&mut top, "End Enter");
    assert!(top.opened.as_ref().unwrap().request().is_some());
    top.advance(BEGIN + Duration::from_secs(100));
    assert_eq!(top.window.totals().all.requests, 0);
    assert_eq!(top.window.kept().count(), 0);
}

/// Check that the window moves with time, is said to be as long as it is, and begins anew when the clock is set back.
#[test]
fn window() {
    let mut top = empty(LOOK, None);
    let one = Record::Request(Box::default());
    let title = |top: &Top| line(drawn(top, 80, 24).buffer(), 0);
    for second in 0..60 {
        top.record(&one, BEGIN + Duration::from_secs(second));
        let expected = if second < 30 {
            second + 1
        } else {
            28 + second % 3
        };
        assert_eq!(top.window.totals().all.requests, expected, "{second}");
        let shown = (expected - 1).max(1);
        assert!(
            title(&top).contains(&format!("window {shown} s")),
            "{second}"
        );
    }
    top.record(&one, BEGIN);
    assert_eq!(top.window.totals().all.requests, 1);
    top.record(&one, BEGIN - Duration::from_secs(2));
    assert_eq!(top.window.totals().all.requests, 2);
}

/// Check that a replay adds all records, at their own times.
#[test]
fn replayed() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/incidents.jsonl");
    let top = Mutex::new(empty(LOOK, None));
    /* Faster, and the window would move on while a busy machine lets it wait. */
    let pace = Pace::replay(100.0);
    let mut records = Records::new(BufReader::new(fs::File::open(data).unwrap()));
    replay(&mut records, &top, &pace).unwrap();
    let mut top = top.into_inner().unwrap();
    assert_eq!(top.window.totals().all.requests, 75);
    let shown = drawn(&top, 80, 24).to_string();
    assert!(
        shown.contains("06:48:") && shown.contains("no more records"),
        "{shown}"
    );
    top.advance(BEGIN + Duration::from_secs(1_000));
    assert_eq!(shown, drawn(&top, 80, 24).to_string());
}

/// Check the keys of the loop.
#[test]
fn of_the_loop() {
    let mut top = empty(LOOK, None);
    let control = |key| KeyEvent::new(KeyCode::Char(key), KeyModifiers::CONTROL);
    assert_eq!(top.key(control('c')), Asked::Leave);
    assert_eq!(top.key(control('z')), Asked::Suspend);
    assert_eq!(top.key(control('l')), Asked::Redraw);
    assert_eq!(press(&mut top, "q"), Asked::Leave);
    assert_eq!(press(&mut top, "/ q"), Asked::Nothing);
    assert_eq!(top.key(control('c')), Asked::Leave);
}

/// Check that a picture of the screen is a document of SVG without markup of requests.
#[test]
fn picture() {
    let mut top = full(Look {
        colour: true,
        ..LOOK
    });
    let mut request = Request::default();
    request.place.location = Some("/<script>&\"\u{1b}".into());
    top.record(
        &Record::Request(Box::new(request)),
        BEGIN + Duration::from_secs(28),
    );
    let picture = svg(drawn(&top, 80, 24).buffer());
    assert!(picture.starts_with("<svg ") && picture.ends_with("</svg>\n"));
    assert!(picture.contains("/&lt;script&gt;&amp;&quot;") && !picture.contains("<script"));
    assert!(picture.contains("#58a6ff") && !picture.chars().any(|c| c == '\x1b'));
}
