// SPDX-License-Identifier: MIT OR Apache-2.0
//! nginx's error log as the reference for `failure`, request by request.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;

use ngx_bpf_record::values::Failure;

use crate::suite::common::nginx::Nginx;
use crate::suite::common::record::Attempt;
use crate::suite::common::record::Record;
use crate::suite::root::requests::traced;

/// Message of the error log, what nginx was doing, and the name of the failure. The first row that
/// matches counts.
const SAID: [(&str, &str, Option<&str>); 31] = [
    (
        "upstream timed out",
        "connecting to upstream",
        Some("connect_timeout"),
    ),
    (
        "upstream timed out",
        "SSL handshaking to upstream",
        Some("tls_timeout"),
    ),
    (
        "upstream timed out",
        "sending request to upstream",
        Some("send_timeout"),
    ),
    ("upstream timed out", "", Some("timeout")),
    ("connect() failed", "", Some("connect_error")),
    ("connect() to ", "", Some("connect_error")),
    ("SSL_do_handshake() failed", "", Some("tls_error")),
    (
        "peer closed connection in SSL handshake",
        "",
        Some("tls_error"),
    ),
    ("upstream SSL certificate", "", Some("tls_error")),
    ("SSL_read() failed", "", Some("tls_error")),
    (
        "recv() failed (104",
        "SSL handshaking to upstream",
        Some("tls_error"),
    ),
    ("recv() failed (104", "", Some("reset")),
    ("readv() failed (104", "", Some("reset")),
    ("writev() failed (", "", Some("reset")),
    ("send() failed (", "", Some("reset")),
    ("SSL_write() failed (104", "", Some("reset")),
    ("upstream rejected request", "", Some("reset")),
    ("upstream sent goaway", "", Some("reset")),
    ("prematurely closed", "", Some("closed")),
    ("upstream sent no valid HTTP/1.0 header", "", None),
    (
        "upstream sent invalid chunked response",
        "",
        Some("invalid_body"),
    ),
    (
        "upstream sent unsupported FastCGI",
        "reading upstream",
        Some("invalid_body"),
    ),
    (
        "upstream sent settings frame",
        "reading upstream",
        Some("invalid_body"),
    ),
    (
        "upstream sent unsupported FastCGI",
        "",
        Some("invalid_header"),
    ),
    ("upstream sent settings frame", "", Some("invalid_header")),
    (
        "upstream sent unexpected http2 frame",
        "",
        Some("invalid_header"),
    ),
    ("upstream sent invalid header", "", Some("invalid_header")),
    (
        "upstream sent unexpected FastCGI",
        "",
        Some("invalid_header"),
    ),
    ("upstream sent too big header", "", Some("invalid_header")),
    ("memcached sent invalid", "", Some("invalid_header")),
    ("no live upstreams", "", Some("no_live_upstreams")),
];

/// Returns what the error log says about each request, by its uri, which is followed by a
/// subrequest's uri: a name, or `None` where nginx goes on.
pub fn said(nginx: &Nginx) -> BTreeMap<String, Vec<Option<&'static str>>> {
    let log = fs::read_to_string(nginx.prefix().join("error.log")).unwrap();
    let mut said: BTreeMap<String, Vec<Option<&str>>> = BTreeMap::new();
    for line in log.lines().filter(|line| line.contains(", upstream: \"")) {
        let (_, request) = line.split_once("request: \"").unwrap();
        let mut uri = request.split(' ').nth(1).unwrap().to_owned();
        if let Some((_, subrequest)) = line.split_once("subrequest: \"") {
            uri += subrequest.split('"').next().unwrap();
        }
        let name = SAID
            .iter()
            .find(|(what, when, _)| line.contains(what) && line.contains(&format!("while {when}")));
        let (.., name) = name.unwrap_or_else(|| panic!("not in the table: {line}"));
        said.entry(uri).or_default().push(*name);
    }
    said
}

/// Returns the failure that nginx's log does not show over TLS: nginx takes a reset for the end,
/// because OpenSSL reports no reset, and once session tickets have come it logs that it was reading
/// a response while it was still sending.
fn untold_by_tls(uri: &str) -> Option<&'static str> {
    let mut is_tls = ["/https/", "/uwsgis/", "/grpcs/"].into_iter();
    if !is_tls.any(|name| uri.starts_with(name)) {
        return None;
    }
    let names = [
        ("/reset", "reset"),
        ("/deaf", "send_timeout"),
        ("/half-broken", "invalid_body"),
    ];
    let name = names.iter().find(|(end, _)| uri.ends_with(end));
    name.map(|(_, name)| *name)
}

/// The servers of an upstream group whose attempts all fail before a request is sent.
pub const SERVERS: usize = 3;

/// Responses over HTTP/2 in nginx's buffers, in which the last frame can't be found.
const BUFFERED: [&str; 3] = [
    "/h2/half-broken",
    "/h2/half-long-broken",
    "/h2/half-long-rst",
];

/// Returns whether the failure of a request is not certain. docs/fields.md gives the reason: the disk
/// may have been full, or the other response was broken.
fn is_not_certain(uri: &str) -> bool {
    let mut places = [
        "/cached/",
        "/stored/",
        "/page.html?one=chunk/wait-30/broken-chunk/wait-1000&two=half",
    ]
    .into_iter();
    places.any(|place| uri.starts_with(place)) && uri.ends_with("/broken-chunk/wait-1000")
}

/// Compares the failures of each request with nginx's log. Returns the names that occurred.
pub fn compare(
    records: &[Record],
    said: &BTreeMap<String, Vec<Option<&'static str>>>,
) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for record in records {
        let uri = record.request_uri.clone().unwrap().into_owned();
        let of_subrequests = record.subrequests.iter().map(|subrequest| {
            let uri = uri.clone() + subrequest.uri.as_deref().unwrap();
            (uri, &subrequest.upstreams)
        });
        for (uri, attempts) in [(uri.clone(), &record.upstreams)]
            .into_iter()
            .chain(of_subrequests)
            .filter(|(uri, _)| !is_not_certain(uri))
        {
            let found: Vec<_> = attempts
                .iter()
                .filter_map(|attempt| Some(attempt.failure?.name()))
                .collect();
            let said = said.get(&uri).into_iter().flatten();
            let mut expected: Vec<_> = said.filter_map(|name| *name).collect();
            if let Some(name) = untold_by_tls(&uri) {
                expected = vec![name];
            }
            if BUFFERED.contains(&&*uri) {
                expected = vec!["error"];
            }
            /*
             * nginx can take an event of the attempt before for one of this connection, which has
             * its ngx_connection_t and, after two attempts, its instance bit. nginx then logs that
             * it was sending, or in a handshake, although nothing was connected and nothing was
             * sent.
             */
            if attempts.len() == SERVERS
                && attempts.iter().all(|attempt| attempt.bytes_sent == Some(0))
                && let Some(name @ &mut ("send_timeout" | "tls_timeout")) = expected.last_mut()
            {
                *name = "connect_timeout";
            }
            assert_eq!(found, expected, "{uri}: {record:#?}");
            names.extend(found.into_iter().map(str::to_owned));
            attempts.iter().for_each(assert_sent);
        }
    }
    names
}

/// Asserts that an attempt has the times of a request only when nginx has sent one.
fn assert_sent(attempt: &Attempt) {
    if attempt.bytes_sent == Some(0) {
        assert_eq!(
            attempt.upstream_request_first_byte_time, None,
            "{attempt:#?}"
        );
    }
    let is_stuck = attempt.failure == Some(Failure::SendTimeout);
    if attempt.bytes_sent == Some(0) || is_stuck {
        assert_eq!(
            attempt.upstream_request_last_byte_time, None,
            "{attempt:#?}"
        );
    }
}

/// Traces nginx while requests are sent, and compares the failures with its error log. Returns the
/// records, and the names of the failures that occurred.
pub fn compared(nginx: Nginx, send: impl FnOnce(&Nginx)) -> (Vec<Record>, BTreeSet<String>) {
    let mut logged = BTreeMap::new();
    let records = traced(nginx, |nginx| {
        send(nginx);
        logged = said(nginx);
    });
    let names = compare(&records, &logged);
    (records, names)
}
