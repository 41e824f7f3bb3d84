// SPDX-License-Identifier: MIT OR Apache-2.0
//! The `traceparent` header joins records and traces.

use crate::suite::common::client::Client;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::record::Record;
use crate::suite::common::tool::Tool;

/// Valid values.
pub const FIRST: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
pub const SECOND: &str = "00-11111111111111111111111111111111-2222222222222222-00";

/// Returns the records of requests with these headers, on one connection.
fn records(headers: &[String]) -> Vec<Record> {
    let nginx = Nginx::simple();
    let tool = Tool::trace(nginx.pid());
    let mut client = Client::connect(nginx.port);
    for headers in headers {
        client.send(format!("GET / HTTP/1.1\r\nHost: test\r\n{headers}\r\n"));
        client.receive();
    }
    drop(nginx);
    let ended = tool.wait();
    ended.assert_clean();
    ended.records()
}

/// Check the header among others, few and many, in upper and lower case.
#[test]
fn as_sent() {
    let many = |count: usize| "X-Other: value\r\n".repeat(count);
    let headers = [
        format!("traceparent: {FIRST}\r\n"),
        format!("TraceParent: {SECOND}\r\nAccept: */*\r\n"),
        format!("{}traceparent: {FIRST}\r\n", many(18)),
        format!("{}traceparent: {SECOND}\r\n", many(19)),
        format!("{}traceparent: {FIRST}\r\n{}", many(70), many(5)),
    ];
    let records = records(&headers);
    assert_eq!(records.len(), headers.len());
    for (record, headers) in records.iter().zip(&headers) {
        let sent = [FIRST, SECOND]
            .into_iter()
            .find(|sent| headers.contains(sent));
        assert_tells(record, sent);
    }
}

/// Asserts that a record has the header's ids, or none without a header.
pub fn assert_tells(record: &Record, header: Option<&str>) {
    let found = (
        record.trace.trace_id.as_deref(),
        record.trace.parent_span_id.as_deref(),
    );
    let sent = header.map(|header| (&header[3..35], &header[36..52]));
    assert_eq!(found, sent.unzip());
}

/// Check that the ids are absent without the header, with an invalid one, and with two.
#[test]
fn absent() {
    let headers = [
        String::new(),
        "traceparent: 1\r\n".to_owned(),
        "tracepartner: x\r\ntrace_parent: x\r\n".to_owned(),
        format!("tracepa\u{52}ent2: {FIRST}\r\n"),
        format!("traceparent: {}\r\n", FIRST.to_uppercase()),
        format!("traceparent: {FIRST}{}\r\n", "0".repeat(500)),
        format!("traceparent: {FIRST}\r\ntraceparent: {SECOND}\r\n"),
        /* As long as a valid one, with a character of three bytes where each part begins and ends. */
        format!("traceparent: \u{20ac}{}\r\n", &FIRST[3..]),
        format!("traceparent: {}\u{20ac}{}\r\n", &FIRST[..34], &FIRST[37..]),
        format!("traceparent: {}\u{20ac}\r\n", &FIRST[..52]),
        String::new(),
    ];
    let records = records(&headers);
    assert_eq!(records.len(), headers.len());
    for record in records {
        assert_tells(&record, None);
    }
}
