// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a request waited for: each delay that a test makes is in the key that names it.

use std::io::Write as _;
use std::net::TcpStream;
use std::time::Duration;

use rustls::version::TLS13;

use crate::suite::common::client::Client;
use crate::suite::common::delay;
use crate::suite::common::listener::listen;
use crate::suite::common::listener::read_head;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::protocol::Protocol::Http;
use crate::suite::common::record::assert_equal;
use crate::suite::common::tls;
use crate::suite::common::tls::Tls;
use crate::suite::common::tool::Tool;
use crate::suite::common::upstream::Upstream;
use crate::suite::root::requests::traced;
use crate::suite::root::times::post_slowly;
use crate::suite::root::times::slack;

mod busy;
mod delays;
mod stalls;

/// A delay that a test makes, in milliseconds.
const DELAY_MS: u64 = 100;
/// The same.
const DELAY: Duration = Duration::from_millis(DELAY_MS);

/// Asserts that a time is this delay, as far as a busy machine keeps to it.
fn assert_about(ns: Option<u64>, ms: u64) {
    let around = ms * 500_000..(ms + slack()) * 1_000_000;
    let ns = ns.unwrap_or_else(|| panic!("no time instead of {ms} ms"));
    assert!(around.contains(&ns), "{ns} ns instead of {ms} ms");
}

/// Check that the time of a request is the share of whom it waited for: a client that sends its header and
/// its body late, an upstream that answers late, and a pipelined request that waits for its turn.
#[test]
fn shares() {
    let upstream = Upstream::start();
    let (http, tls) = tls::with_port(
        "server {
             listen 127.0.0.1:{port};
             listen 127.0.0.1:{tls} ssl;
             location / { proxy_pass http://127.0.0.1:{upstream}; }
         }",
    );
    let nginx = Nginx::prepared(&http, upstream.port, tls::certificate);
    let records = traced(nginx, |nginx| {
        let uri = format!("/wait-{DELAY_MS}");
        post_slowly(&mut Client::connect(nginx.port), &uri);
        let session = Tls::begin(tls, &TLS13, &[]).finish();
        post_slowly(&mut session.into_client(), &uri);
        let mut client = Client::connect(nginx.port);
        client.send(format!("GET {uri} HTTP/1.1\r\nHost: test\r\n\r\n").repeat(2));
        client.receive();
        client.receive();
    });
    for (record, client, wait) in [
        (&records[0], 70, 0),
        (&records[1], 70, 0),
        (&records[2], 0, 0),
        (&records[3], 0, DELAY_MS),
    ] {
        let shares = record.waits.time_ns.as_ref().unwrap();
        let of = [shares.client, shares.upstream, shares.nginx, shares.wait];
        for (share, ms) in of.into_iter().zip([client, DELAY_MS, 0, wait]) {
            assert_about(Some(share), ms);
        }
    }
}

/// Check an upstream's connection that is kept: how many requests it has had, and how long it was idle
/// before each, in plain and over TLS.
#[test]
fn kept_connections() {
    for (upstream, scheme) in [
        (Upstream::start(), "http"),
        (Upstream::speaking_tls(Http), "https"),
    ] {
        let http = format!(
            "upstream kept {{ server 127.0.0.1:{{upstream}}; keepalive 1; }}
             server {{
                 listen 127.0.0.1:{{port}};
                 proxy_http_version 1.1;
                 proxy_set_header Connection '';
                 location / {{ proxy_pass {scheme}://kept; }}
             }}"
        );
        let records = traced(Nginx::with(&http, upstream.port), |nginx| {
            let mut client = Client::connect(nginx.port);
            client.get("/");
            delay(DELAY);
            client.get("/wait-200/body-10000");
            client.get("/");
        });
        let attempts: Vec<_> = records.iter().map(|record| &record.upstreams[0]).collect();
        let reused: Vec<_> = attempts.iter().map(|attempt| attempt.reused).collect();
        assert_eq!(reused, [Some(false), Some(true), Some(true)]);
        let requests = attempts.iter().map(|attempt| attempt.connection_requests);
        assert!(requests.eq([Some(1), Some(2), Some(3)]), "{attempts:#?}");
        assert_eq!(attempts[0].reused_idle_ns, None);
        assert_about(attempts[1].reused_idle_ns, DELAY_MS);
        assert!(attempts[2].reused_idle_ns.unwrap() < (DELAY_MS + slack()) * 1_000_000);
    }
}

/// Answers one request with a header that comes in two parts, and a body that comes after it.
fn answer_slowly(mut stream: TcpStream) {
    let parts = ["HTTP/1.1 200 OK\r\nContent-Length: ", "3\r\n\r\n", "abc"];
    if read_head(&mut stream).is_err() {
        return;
    }
    for (n, part) in parts.into_iter().enumerate() {
        if n > 0 {
            delay(DELAY);
        }
        let _ = stream.write_all(part.as_bytes());
    }
}

/// Check that the time of a response's header ends with its last byte, and neither with its first one
/// nor with the body's; and that nginx says the same.
#[test]
fn response_header() {
    let upstream = listen(|stream| {
        stream.set_nodelay(true).unwrap();
        answer_slowly(stream);
    });
    let nginx = Nginx::with(
        "server { listen 127.0.0.1:{port}; location / { proxy_pass http://127.0.0.1:{upstream}; } }",
        upstream,
    );
    let tool = Tool::trace(nginx.pid());
    assert_eq!(Client::connect(nginx.port).get("/").body, b"abc");
    let logged = nginx.quit();
    let records = tool.wait().records();
    assert_equal(&records, &logged);
    let attempt = &records[0].upstreams[0];
    let since_connect = |ns: Option<u64>| Some(ns? - attempt.upstream_connect_time?);
    let first = since_connect(attempt.upstream_response_first_byte_time);
    let last = since_connect(attempt.upstream_response_last_byte_time);
    assert_about(first, 0);
    assert_about(attempt.response_header_ns, DELAY_MS);
    assert!(attempt.response_header_ns < last, "{attempt:#?}");
    let theirs: f64 = logged[0].upstream_header_time.parse().unwrap();
    assert_about(Some((theirs * 1e9) as u64), DELAY_MS);
}
