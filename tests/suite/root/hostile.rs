// SPDX-License-Identifier: MIT OR Apache-2.0
//! Requests with hostile bytes: each record is one JSON object on one line, and safe on a terminal.

use ngx_bpf_record::values::Cut;

use crate::suite::common::build::REWRITE;
use crate::suite::common::build::is_built_without;
use crate::suite::common::client::Client;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::tool::Ended;
use crate::suite::common::tool::Tool;

/// Returns requests of which each part holds bytes that must not reach a terminal or a log.
fn hostile() -> Vec<Vec<u8>> {
    let mut requests: Vec<Vec<u8>> = Vec::new();
    let parts: [&[u8]; 12] = [
        b"\x1b]0;title\x07",
        b"%1b%5b31m%0d%0a%00%7f%22%5c",
        b"\x7f\x01\x02",
        "\u{9b}31m\u{85}".as_bytes(),
        "\u{202e}\u{2066}\u{200f}\u{2028}\u{2029}\u{feff}".as_bytes(),
        b"%e2%80%ae%c2%9b",
        b"\"\\\"},{\"type\":\"lost\"",
        b"\xff\xfe\xc0\x80\xed\xa0\x80",
        b"%ff%fe%c0%80%ed%a0%80",
        b"', \"; rm -rf $(x) `x`",
        "日本語 ü".as_bytes(),
        b"\\u0000\\n",
    ];
    for part in parts {
        let mut request = b"GET /".to_vec();
        request.extend(part.split(|byte| *byte == b' ').next().unwrap());
        request.extend(b" HTTP/1.1\r\nHost: ");
        request.extend(part);
        request.extend(b"\r\nConnection: close\r\n\r\n");
        requests.push(request);
    }
    for size in [4000, 4096, 4097, 7000] {
        let uri = "a".repeat(size - 1);
        requests.push(format!("GET /{uri} HTTP/1.0\r\nHost: long\r\n\r\n").into_bytes());
    }
    let host = "h".repeat(600);
    requests.push(format!("GET / HTTP/1.0\r\nHost: {host}\r\n\r\n").into_bytes());
    let method = "M".repeat(100);
    requests.push(format!("{method} / HTTP/1.0\r\n\r\n").into_bytes());
    requests.push(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec());
    requests.push(b"G\x1bT / HTTP/1.1\r\n\r\n".to_vec());
    requests
}

/// Sends all of them while nginx is traced.
fn trace(args: &[&str]) -> (Ended, Vec<crate::suite::common::record::Logged>) {
    let nginx = Nginx::simple();
    let pid = nginx.pid().to_string();
    let tool = Tool::start(&[&["--pid", &pid], args].concat(), 1);
    for request in hostile() {
        let mut client = Client::connect(nginx.port);
        client.send(request);
        client.rest();
    }
    let logged = nginx.quit();
    let ended = tool.wait();
    ended.assert_clean();
    (ended, logged)
}

/// Returns whether a character may control a terminal.
fn is_control(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// Check JSON without a limit: there is one line per request, no raw control character, and every
/// value equals nginx's.
#[test]
fn json() {
    let (ended, logged) = trace(&["--json", "--max-line", "none"]);
    assert_eq!(ended.stdout.len(), hostile().len());
    for line in &ended.stdout {
        assert!(!line.chars().any(is_control), "{line:?}");
    }
    crate::suite::common::record::assert_equal(&ended.records(), &logged);
}

/// Check that strings are cut at the lengths in docs/fields.md, and that `truncated` names exactly
/// those.
#[test]
fn truncated() {
    if is_built_without(REWRITE) {
        return;
    }
    let (ended, logged) = trace(&["--json", "--max-line", "none"]);
    let mut cut = 0;
    for (record, logged) in ended.records().iter().zip(&logged) {
        let expected: Vec<_> = [
            (Cut::RequestMethod, logged.request_method.len(), 64),
            (Cut::RequestUri, logged.request_uri.len(), 4096),
            (Cut::Uri, logged.uri.len(), 4096),
            (Cut::HttpHost, logged.http_host.len(), 512),
        ]
        .into_iter()
        .filter(|(_, len, limit)| len > limit)
        .map(|(cut, _, _)| cut)
        .collect();
        assert_eq!(record.truncated, expected, "{record:#?}");
        cut += expected.len();
    }
    assert_eq!(cut, 6);
}

/// Check text: there is one line per request, and no raw control character.
#[test]
fn text() {
    let (ended, _) = trace(&["--format", "text"]);
    assert_eq!(ended.stdout.len(), hostile().len());
    for line in &ended.stdout {
        assert!(!line.chars().any(is_control), "{line:?}");
    }
}

/// Check that no line is longer than allowed, that cut strings are named and are the beginning of
/// nginx's value, and that no record is missing.
#[test]
fn line_length() {
    if is_built_without(REWRITE) {
        return;
    }
    let (ended, logged) = trace(&["--json"]);
    assert_eq!(ended.stdout.len(), hostile().len());
    assert!(ended.stdout.iter().all(|line| line.len() < 4095));
    let records = ended.records();
    let long = records.iter().filter(|r| r.truncated.contains(&Cut::Uri));
    assert_eq!(long.count(), 4);
    crate::suite::common::record::assert_equal(&records, &logged);
    let (ended, _) = trace(&["--format", "text", "--max-line", "4000"]);
    assert!(ended.stdout.iter().all(|line| line.len() < 4000));
    assert!(ended.stdout.iter().any(|line| line.len() > 3500));
}
