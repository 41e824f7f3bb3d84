// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a person sees at a terminal.

use insta::assert_snapshot;
use ngx_bpf_record::Attempt;
use ngx_bpf_record::Request;
use ngx_bpf_record::values::Cut;
use ngx_bpf_record::values::End;
use ngx_bpf_record::values::Failure;
use ngx_bpf_record::values::Part;
use ngx_bpf_record::values::Side;
use ngx_bpf_record::values::Timeout;

use super::all;
use super::partial;
use super::recorded;
use super::slow;
use super::tunnel;
use crate::look::Look;
use crate::waterfall::rows::Row;
use crate::waterfall::rows::rows;
use crate::waterfall::terminal;
use crate::waterfall::total;
use crate::waterfall::why::why;

/// Returns a look without colour.
fn look(width: usize, ascii: bool) -> Look {
    Look {
        colour: false,
        ascii,
        width,
    }
}

/// Returns the screens of some recorded requests.
fn screens(file: &str, places: &[usize]) -> String {
    let requests = recorded(file);
    let screens = places.iter();
    let screens = screens.map(|place| terminal(&requests[*place], look(80, false)));
    screens.collect::<Vec<_>>().join("\n")
}

/// Check one request at several widths, with glyphs and with letters.
#[test]
fn widths() {
    let request = slow();
    assert_snapshot!("slow_80", terminal(&request, look(80, false)));
    assert_snapshot!("slow_80_ascii", terminal(&request, look(80, true)));
    assert_snapshot!("slow_120", terminal(&request, look(120, false)));
    assert_snapshot!("slow_120_ascii", terminal(&request, look(120, true)));
    assert_snapshot!("slow_40", terminal(&request, look(40, false)));
    assert_snapshot!("slow_40_ascii", terminal(&request, look(40, true)));
}

/// Check that colours only repeat what is there without them.
#[test]
fn coloured() {
    let look = look(80, false);
    let colour = Look {
        colour: true,
        ..look
    };
    let screen = terminal(&slow(), colour);
    assert!(screen.contains("\x1b[31mconnect_timeout\x1b[0m"));
    let codes = [
        "\x1b[0m", "\x1b[1m", "\x1b[31m", "\x1b[33m", "\x1b[34m", "\x1b[35m", "\x1b[36m",
    ];
    let plain = codes
        .iter()
        .fold(screen, |screen, code| screen.replace(code, ""));
    assert_eq!(plain, terminal(&slow(), look));
}

/// Check recorded requests: a kept connection that the upstream closed, with another try and without one, a response
/// that was cut short, time limits of nginx, clients that left, slow bodies and slow readers.
#[test]
fn incidents() {
    assert_snapshot!(
        "incidents",
        screens(
            "incidents.jsonl",
            &[18, 19, 41, 46, 47, 50, 52, 53, 54, 56, 59]
        )
    );
}

/// Check requests without bars: those of a version without `time_ns`, and one in which tracing began. And a tunnel.
#[test]
fn without_bars() {
    assert_snapshot!("without_time_ns", screens("records.jsonl", &[70, 190, 198]));
    assert_snapshot!("partial", terminal(&partial(), look(80, false)));
    assert_snapshot!("tunnel", terminal(&tunnel(), look(80, false)));
    let nothing = terminal(&Request::default(), look(80, false));
    assert_snapshot!("nothing", nothing);
}

/// Check that the last attempt has no number where attempts before it are left out, that the address without a live
/// server has no rows, and that a `post_action` comes last.
#[test]
fn attempts() {
    let mut request = slow();
    let name = Attempt {
        addr: Some("backend".into()),
        status: Some(502),
        failure: Some(Failure::NoLiveUpstreams),
        ..Default::default()
    };
    request.upstreams.insert(1, name);
    request.upstreams.push(Attempt {
        addr: Some("10.0.9.9:80".into()),
        upstream_connect_time: Some(1_929_710_000),
        upstream_request_first_byte_time: Some(1_929_720_000),
        reused: Some(false),
        post_action: true,
        ..Default::default()
    });
    assert_snapshot!("attempts", terminal(&request, look(80, false)));
    request.upstreams.pop();
    request.truncated = vec![Cut::Upstreams];
    let screen = terminal(&request, look(80, false));
    assert!(
        screen.contains("\nlast try  10.0.1.5:8080  kept"),
        "{screen}"
    );
    assert!(screen.contains("\ntry 2  backend  "), "{screen}");
}

/// Check that the rows of each recorded request are in order, leave no gap, and add up to its time.
#[test]
fn sum() {
    let mut known = 0;
    for request in all().iter().chain([&slow(), &tunnel()]) {
        let rows = rows(request);
        let Some(end) = rows.end else {
            continue;
        };
        known += 1;
        let own = rows.rows.iter().take_while(|row| match row {
            Row::Heading(heading) => heading.title.starts_with("try"),
            Row::Span(_) => true,
        });
        let mut at = 0;
        for row in own {
            if let Row::Span(span) = row {
                assert_eq!(span.from, at, "{request:#?}");
                at = span.to.unwrap();
            }
        }
        assert_eq!(at, end, "{request:#?}");
        assert_eq!(Some(end), total(request));
    }
    assert!(known > 60, "{known}");
}

/// Check that each cause is a sentence, whatever the record says.
#[test]
fn sentences() {
    let mut request = slow();
    let statuses = [None, Some(444), Some(502)];
    for failure in Failure::ALL.map(Some).into_iter().chain([None]) {
        for end in End::ALL {
            for part in Part::ALL {
                request.upstreams[1].failure = failure;
                request.ending.end = Some(end);
                request.ending.last_phase = Some(part);
                request.ending.closed_by = Side::ALL.get(part as usize).copied();
                request.ending.timeout = Timeout::ALL.get(part as usize).copied();
                request.status = statuses[part as usize % statuses.len()];
                for text in why(&request) {
                    let first = text.chars().next().unwrap();
                    assert!(text.ends_with('.') && !text.contains("  "), "{text}");
                    assert!(
                        first.is_ascii_uppercase()
                            || text.starts_with("nginx")
                            || text.starts_with("limit_"),
                        "{text}"
                    );
                }
            }
        }
    }
}
