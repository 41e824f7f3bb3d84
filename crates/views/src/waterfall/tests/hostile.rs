// SPDX-License-Identifier: MIT OR Apache-2.0
//! Requests whose texts are made to break a screen or a page.

use ngx_bpf_record::Request;
use ngx_bpf_record::Shares;
use ngx_bpf_record::values::CacheStatus;

use super::slow;
use super::tunnel;
use crate::cell;
use crate::look::Look;
use crate::waterfall::har;
use crate::waterfall::html;
use crate::waterfall::terminal;
use crate::waterfall::trace;

/// What a terminal or a browser must not obey.
const HOSTILE: [&str; 7] = [
    "\x1b[2J\x1b]0;title\x07\x1b[31m",
    "\u{202e}evil\u{2066}\u{200b}\u{feff}",
    "漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字",
    "<script>alert(1)</script>",
    "\"'><img src=x onerror=alert(1)>&lt;",
    "a\u{301}\u{301}\u{301}\r\n\t\0\u{9b}31m",
    "]]></style></svg><svg onload=alert(1)>",
];

/// Returns a request whose texts are all this one.
fn hostile(text: &'static str) -> Request<'static> {
    let mut request = slow();
    let long = format!("/{}", text.repeat(4_096 / text.len()));
    request.request_uri = Some(long.into());
    for value in [
        &mut request.remote_addr,
        &mut request.server_protocol,
        &mut request.request_method,
        &mut request.http_host,
        &mut request.upstream_addr,
        &mut request.place.location,
        &mut request.place.server_name,
        &mut request.place.upstream_name,
        &mut request.trace.trace_id,
        &mut request.container.pod,
        &mut request.subrequests[0].uri,
    ] {
        *value = Some(text.into());
    }
    let of_subrequest = &mut request.subrequests[0].upstreams;
    for attempt in request.upstreams.iter_mut().chain(of_subrequest) {
        attempt.addr = Some(text.into());
    }
    request.place.variables.insert(text.into(), text.into());
    request.place.headers.insert(text.into(), text.into());
    request.upstream_cache_status = Some(CacheStatus::Miss);
    request
}

/// Check that no line is wider than the terminal, and that no control byte is printed but those of colours.
#[test]
fn at_a_terminal() {
    for text in HOSTILE {
        for width in [1, 20, 40, 41, 59, 60, 80, 120, 300] {
            for (colour, ascii) in [(false, false), (false, true), (true, false)] {
                let look = Look {
                    colour,
                    ascii,
                    width,
                };
                check(&terminal(&hostile(text), look), look);
            }
        }
    }
}

/// Checks the lines of a screen.
fn check(screen: &str, look: Look) {
    let codes = [
        "\x1b[0m", "\x1b[1m", "\x1b[31m", "\x1b[33m", "\x1b[34m", "\x1b[35m", "\x1b[36m",
    ];
    let screen = match look.colour {
        true => codes
            .iter()
            .fold(screen.to_owned(), |screen, code| screen.replace(code, "")),
        false => screen.to_owned(),
    };
    for line in screen.lines() {
        assert!(!line.chars().any(char::is_control), "{line:?}");
        assert!(cell::width(line, look) <= look.width, "{line:?}");
        assert!(!look.ascii || line.is_ascii(), "{line:?}");
        assert!(
            !line.contains(['\u{202e}', '\u{2066}', '\u{200b}']),
            "{line:?}"
        );
    }
}

/// Check that a page has no element, attribute or address that a request brought, and that it loads nothing.
#[test]
fn in_a_page() {
    let plain = html(&[slow(), slow()]);
    let tags = |page: &str, name: &str| page.matches(name).count();
    for text in HOSTILE {
        let page = html(&[hostile(text), hostile(text)]);
        for name in [
            "<script",
            "<img",
            "onerror=alert(1)>",
            "<svg onload",
            "\u{202e}",
            "\x1b",
        ] {
            assert!(!page.contains(name), "{text:?} {name:?}");
        }
        for name in [
            "<section", "<style", "</style", "<h2", "</svg", "<table", "</td",
        ] {
            assert_eq!(tags(&page, name), tags(&plain, name), "{text:?} {name}");
        }
        for control in page.chars().filter(|c| c.is_control()) {
            assert_eq!(control, '\n');
        }
    }
    for name in [
        " src=", "http://", "@import", "url(h", "<link", "<script", "href=\"h",
    ] {
        assert!(!plain.contains(name), "{name}");
    }
    assert_eq!(tags(&plain, "url("), tags(&plain, "url(#"));
}

/// Check that names in a trace, and the URL of an archive, have nothing that a terminal or a browser obeys.
#[test]
fn in_files() {
    for text in HOSTILE {
        let requests = [hostile(text)];
        let trace = trace(&requests).to_string();
        let archive = har(&requests);
        let url = archive["log"]["entries"][0]["request"]["url"]
            .as_str()
            .unwrap();
        for c in trace.chars().chain(url.chars()) {
            assert!(!c.is_control() && c != '\u{202e}', "{text:?} {c:?}");
        }
        assert!(
            url.is_ascii() && !url.contains(['<', '>', '"', ' ']),
            "{url}"
        );
    }
}

/// Check that no number is too large, and that times may be in any order.
#[test]
fn numbers() {
    for request in [slow(), tunnel()] {
        for (large, small) in [(u64::MAX, 0), (0, u64::MAX)] {
            let mut request = request.clone();
            request.pid = u32::MAX;
            request.connection = Some(large);
            request.response_size = Some(i64::MIN);
            request.duration_ns = request.duration_ns.map(|_| large);
            request.elapsed_ns = Some(u64::MAX);
            request.waits.auth_ns = Some(large);
            request.waits.limit_req_delay_ns = Some(u64::MAX);
            request.waits.time_ns = Some(Shares {
                client: large,
                upstream: u64::MAX,
                nginx: small,
                wait: large,
            });
            let p = &mut request.phases;
            p.downstream_request_last_byte_time = Some(large);
            p.downstream_response_first_byte_time = Some(small);
            for attempt in &mut request.upstreams {
                attempt.upstream_connect_time = Some(large);
                attempt.upstream_request_first_byte_time = Some(small);
                attempt.upstream_response_last_byte_time = Some(large);
            }
            let look = Look {
                colour: false,
                ascii: false,
                width: 80,
            };
            check(&terminal(&request, look), look);
            let mut others = [request.clone(), request.clone(), request];
            others[1].time = Some("9999-12-30T22:00:00.999999999Z".to_owned());
            others[2].waits.time_ns = None;
            assert!(html(&others).ends_with("</html>\n"));
            assert_eq!(har(&others)["log"]["entries"].as_array().unwrap().len(), 3);
            assert!(trace(&others)["traceEvents"].is_array());
        }
    }
}
