// SPDX-License-Identifier: MIT OR Apache-2.0
//! Requests whose texts are made to break a screen or a page.

use ngx_bpf_record::Request;
use ngx_bpf_record::Shares;

use super::slow;
use super::tunnel;
use crate::hostile::TEXTS;
use crate::hostile::check;
use crate::hostile::fill;
use crate::hostile::looks;
use crate::look::Look;
use crate::waterfall::har;
use crate::waterfall::html;
use crate::waterfall::terminal;
use crate::waterfall::trace;

/// Returns a request whose texts are all this one.
fn hostile(text: &'static str) -> Request<'static> {
    let mut request = slow();
    fill(&mut request, text);
    request
}

/// Check that no line is wider than the terminal, and that no control byte is printed but those of colours.
#[test]
fn at_a_terminal() {
    for text in TEXTS {
        for look in looks(&[1, 20, 40, 41, 59, 60, 80, 120, 300]) {
            check(&terminal(&hostile(text), look), look);
        }
    }
}

/// Check that a page has no element, attribute or address that a request brought, and that it loads nothing.
#[test]
fn in_a_page() {
    let plain = html(&[slow(), slow()]);
    let tags = |page: &str, name: &str| page.matches(name).count();
    for text in TEXTS {
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
    for text in TEXTS {
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
