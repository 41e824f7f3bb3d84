// SPDX-License-Identifier: MIT OR Apache-2.0
//! Streams of HTTP/2: nginx waits for all of them on one socket.

use std::collections::BTreeSet;

use ngx_bpf_record::values::State;
use rustls::version::TLS13;

use super::HTTP;
use super::inflight;
use super::wait_states;
use crate::suite::common::build::LIMIT_REQ;
use crate::suite::common::build::is_built_without;
use crate::suite::common::http2;
use crate::suite::common::http2::Http2;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::tls;
use crate::suite::common::tls::Tls;
use crate::suite::common::upstream::Upstream;

/// Check streams of HTTP/2 that wait for an upstream.
#[test]
fn of_upstreams() {
    let upstream = Upstream::start();
    let (http, port) = tls::with_port(HTTP);
    let nginx = Nginx::prepared(&http, upstream.port, tls::certificate);
    let stream = Tls::begin(port, &TLS13, &["h2"]).finish().into_stream();
    let mut client = Http2::start(stream, 65535);
    client.send(&[http2::get(1, "/up/hang"), http2::get(3, "/up/hang")].concat());
    let hanging = (Some("/up/hang"), Some(State::Waiting));
    let found = wait_states(&nginx, &[hanging, hanging]);
    let numbers = found.iter().map(|request| request.connection_requests);
    assert_eq!(BTreeSet::from_iter(numbers), BTreeSet::from([1, 2]));
    assert!(
        found
            .iter()
            .all(|request| request.server_protocol.as_deref() == Some("HTTP/2.0"))
    );
    drop(client);
    wait_states(&nginx, &[]);
}

/// Starts nginx with the server, and connects to it: with a window of `window` bytes for each stream.
fn start(http: &str, upstream: &Upstream, window: u32) -> (Nginx, Http2) {
    let (http, port) = tls::with_port(http);
    let nginx = Nginx::prepared(&http, upstream.port, tls::certificate);
    nginx.file("file", b"file");
    let stream = Tls::begin(port, &TLS13, &["h2"]).finish().into_stream();
    (nginx, Http2::start(stream, window))
}

/// Check streams that have no upstream: one whose header or body is not whole, one that may send no more, and one
/// that limit_req delays; each also below another one in the tree of priorities. A stream that has ended is not
/// listed.
#[test]
fn without_upstream() {
    if is_built_without(LIMIT_REQ) {
        return;
    }
    let upstream = Upstream::start();
    let http = [
        "limit_req_zone $server_port zone=one:64k rate=1r/m;",
        &HTTP.replacen(
            "location / {",
            "location /file { root {prefix}/html; }
             location /limited { root {prefix}/html; limit_req zone=one burst=9; }
             location / {",
            1,
        ),
    ];
    let (nginx, mut client) = start(&http.concat(), &upstream, 3);
    let [half, rest] = http2::get_in_two(13, "/half");
    let frames = [
        http2::get(1, "/limited?first"),
        http2::window_update(1, 1 << 20),
        http2::post(3, "/up/body"),
        http2::piece(3, b"abc"),
        http2::get(5, "/file"),
        http2::get_after(7, 5, "/file"),
        http2::get_after(9, 7, "/limited"),
        http2::get(11, "/limited"),
        half,
    ];
    client.send(&frames.concat());
    let [sending, limited, reading] = [
        (Some("/file"), Some(State::Sending)),
        (Some("/limited"), Some(State::LimitReqDelay)),
        (Some("/up/body"), Some(State::ReadingBody)),
    ];
    let header = (None, Some(State::ReadingHeader));
    let expected = [header, sending, sending, limited, limited, reading];
    let found = wait_states(&nginx, &expected);
    let number = found[0].connection;
    for request in found {
        assert_eq!(request.connection, number, "{request:#?}");
        let is_sending = request.state == Some(State::Sending);
        assert_eq!(request.status, is_sending.then_some(200), "{request:#?}");
        assert_eq!(request.upstream_addr, None, "{request:#?}");
    }
    client.send(&[rest, http2::window_update(13, 1 << 20)].concat());
    client.receive([13]);
    wait_states(&nginx, &expected[1..]);
    for stream in [5, 7] {
        client.send(&http2::window_update(stream, 1 << 20));
        client.receive([stream]);
    }
    wait_states(&nginx, &expected[3..]);
    client.send(&http2::reset(9));
    wait_states(&nginx, &expected[4..]);
    drop(client);
    wait_states(&nginx, &[]);
}

/// Check that as many streams as nginx allows are listed, each below the one before it in the tree.
#[test]
fn many() {
    let upstream = Upstream::start();
    let http = HTTP.replacen(
        "location / {",
        "location /file { root {prefix}/html; } location / {",
        1,
    );
    let (nginx, mut client) = start(&http, &upstream, 0);
    let mut frames = http2::get(1, "/file");
    for stream in http2::streams(0).skip(1) {
        frames.extend(http2::get_after(stream, stream - 2, "/file"));
    }
    client.send(&frames);
    client.ping();
    let sending = (Some("/file"), Some(State::Sending));
    wait_states(&nginx, &vec![sending; http2::STREAMS as usize]);
    drop(client);
    wait_states(&nginx, &[]);
    assert_eq!(inflight(&nginx), []);
}
