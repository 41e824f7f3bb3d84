// SPDX-License-Identifier: MIT OR Apache-2.0
//! TLS of clients and of upstreams: times are those of plain bytes, and never those of the
//! handshake.

use std::io::Write as _;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use rustls::SupportedProtocolVersion;
use rustls::version::TLS12;
use rustls::version::TLS13;

use crate::suite::common::build::REWRITE;
use crate::suite::common::build::is_built_without;
use crate::suite::common::delay;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::record::Record;
use crate::suite::common::tls;
use crate::suite::common::tls::Tls;
use crate::suite::common::upstream::Upstream;
use crate::suite::root::requests::traced;
use crate::suite::root::times::assert_between;
use crate::suite::root::times::post_slowly;

mod kernel;

/// The versions that nginx speaks.
const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

/// A proxy without buffering, with TLS on both sides.
const HTTP: &str = "
    upstream kept { server 127.0.0.1:{upstream}; keepalive 8; }
    server {
        listen 127.0.0.1:{port} ssl;
        server_name test;
        proxy_buffering off;
        proxy_request_buffering off;
        proxy_http_version 1.1;
        proxy_ssl_server_name on;
        location / { proxy_pass https://127.0.0.1:{upstream}; }
        location /kept/ { proxy_pass https://kept; proxy_set_header Connection ''; }
        location /plain/ { return 200 'hello\\n'; }
        location /no_tls/ { proxy_pass https://127.0.0.1:{plain}; }
    }";

/// A server that terminates TLS and adds no time.
const BACKEND: &str = "
    server {
        listen 127.0.0.1:{port} ssl;
        proxy_buffering off;
        proxy_request_buffering off;
        proxy_http_version 1.1;
        location / { proxy_pass http://127.0.0.1:{upstream}; }
    }";

/// An nginx that speaks TLS to its clients and to its upstream, and the servers after it.
pub struct Chain {
    pub front: Nginx,
    back: Nginx,
    _upstream: Upstream,
}

impl Chain {
    /// Starts all of it.
    pub fn start() -> Self {
        Self::with(HTTP)
    }

    /// Starts it with this configuration of the first server.
    pub fn with(http: &str) -> Self {
        let upstream = Upstream::start();
        let with_tls = |http: &str| [tls::DIRECTIVES, http].concat();
        let back = Nginx::prepared(&with_tls(BACKEND), upstream.port, tls::certificate);
        let http = with_tls(http).replace("{plain}", &upstream.port.to_string());
        Self {
            front: Nginx::prepared(&http, back.port, tls::certificate),
            back,
            _upstream: upstream,
        }
    }

    /// Returns the records of these requests.
    pub fn traced(self, requests: impl FnOnce(&Nginx)) -> Vec<Record> {
        let records = traced(self.front, requests);
        drop(self.back);
        records
    }
}

/// Asserts that no time of the request is within the handshake.
fn assert_behind_handshake(record: &Record) {
    let handshake = record.tls.tls_handshake_ns.unwrap();
    let first = record.phases.downstream_request_first_byte_time.unwrap();
    assert!(handshake > 0 && first >= handshake, "{record:#?}");
}

/// Check each delay of a client and of an upstream, in both versions. A server of TLS 1.3 sends
/// session tickets long before its response.
#[test]
fn every_phase() {
    for version in VERSIONS {
        let records = Chain::start().traced(|nginx| {
            let tls = Tls::begin(nginx.port, version, &[]).finish();
            delay(Duration::from_millis(40));
            let mut client = tls.into_client();
            post_slowly(&mut client, "/wait-60/head/wait-30/body-10");
        });
        let record = &records[0];
        record.assert_complete();
        assert_behind_handshake(record);
        let p = &record.phases;
        let handshake = record.tls.tls_handshake_ns;
        assert_between(p, handshake, p.downstream_request_first_byte_time, 40);
        let (first, last) = (
            p.downstream_request_first_byte_time,
            p.downstream_request_last_byte_time,
        );
        assert_between(p, first, last, 20);
        assert_between(p, last, p.upstream_request_last_byte_time, 50);
        let (first, last) = (
            p.upstream_response_first_byte_time,
            p.upstream_response_last_byte_time,
        );
        assert_between(p, p.upstream_request_last_byte_time, first, 60);
        assert_between(p, first, last, 30);
        assert_between(
            p,
            p.downstream_response_first_byte_time,
            p.downstream_response_last_byte_time,
            30,
        );
        let attempt = &record.upstreams[0];
        let connect = attempt.upstream_connect_time.unwrap();
        let handshake = attempt.upstream_tls_ns.unwrap();
        assert!(
            handshake > 0
                && connect + handshake <= attempt.upstream_request_first_byte_time.unwrap(),
            "{record:#?}"
        );
        assert_eq!(attempt.reused, Some(false));
    }
}

/// Check handshakes that clients begin and do not end, until nginx closes them: they have no
/// record, and the next request at the same place of nginx's memory has a handshake of its own.
#[test]
fn hung_handshake() {
    let http = [
        tls::DIRECTIVES,
        "server { listen 127.0.0.1:{port} ssl; client_header_timeout 700ms;
                  location / { return 200 x; } }",
    ];
    let nginx = Nginx::prepared(&http.concat(), 9, tls::certificate);
    let records = traced(nginx, |nginx| {
        for version in VERSIONS {
            let begin = || {
                let stream = TcpStream::connect(("127.0.0.1", nginx.port)).unwrap();
                let mut tls = Tls::new(stream, tls::config(version, &[]));
                let bytes = tls.take();
                let (some, others) = bytes.split_at(bytes.len() / 2);
                tls.send_raw(some);
                (tls, others.to_vec())
            };
            let hung: Vec<_> = (0..3).map(|_| begin()).collect();
            for _ in &hung {
                /* musl has other words for the error. */
                nginx.wait_for_log(" timed out) while SSL handshaking");
            }
            drop(hung);
            for _ in 0..4 {
                let (mut tls, others) = begin();
                delay(Duration::from_millis(20));
                tls.send_raw(&others);
                let mut client = tls.shake_hands().finish().into_client();
                assert_eq!(client.get("/").status, 200);
            }
        }
    });
    assert_eq!(records.len(), 8);
    for record in &records {
        record.assert_complete();
        assert_behind_handshake(record);
        let handshake = Duration::from_nanos(record.tls.tls_handshake_ns.unwrap());
        /* A busy nginx notices the first half of the handshake late. */
        let range = Duration::from_millis(10)..Duration::from_millis(700);
        assert!(range.contains(&handshake), "{record:#?}");
    }
}

/// Check a request that comes in one read with the end of the handshake: it begins after that.
#[test]
fn with_the_handshake() {
    for version in VERSIONS {
        let records = Chain::start().traced(|nginx| {
            let mut tls = Tls::begin(nginx.port, version, &[]);
            delay(Duration::from_millis(30));
            let bytes = tls.seal("GET /plain/ HTTP/1.1\r\nHost: t\r\n\r\n");
            tls.send_raw(&bytes);
            let mut client = tls.into_client();
            assert_eq!(client.receive().status, 200);
            assert_eq!(client.get("/plain/").status, 200);
        });
        for record in &records {
            record.assert_complete();
        }
        let p = &records[0].phases;
        assert_behind_handshake(&records[0]);
        assert_between(p, Some(0), p.downstream_request_first_byte_time, 30);
        assert_eq!(records[1].tls.tls_handshake_ns, None);
    }
}

/// Check that half a TLS record is not a byte of a request, and that two requests in one TLS record
/// are two.
#[test]
fn records_and_requests() {
    let records = Chain::start().traced(|nginx| {
        let mut tls = Tls::begin(nginx.port, &TLS13, &[]).finish();
        let request = "GET /plain/ HTTP/1.1\r\nHost: t\r\n\r\n";
        let bytes = tls.seal(request);
        let (some, others) = bytes.split_at(20);
        tls.send_raw(some);
        delay(Duration::from_millis(40));
        tls.send_raw(others);
        tls.read_some();
        let bytes = tls.seal(request.repeat(2));
        tls.send_raw(&bytes);
        tls.read_some();
        let mut client = tls.into_client();
        client.send("GET /plain/ HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
        client.rest();
    });
    assert_eq!(records.len(), 4);
    for record in &records {
        record.assert_complete();
    }
    let p = &records[0].phases;
    let handshake = records[0].tls.tls_handshake_ns;
    assert_between(p, handshake, p.downstream_request_first_byte_time, 40);
    assert_eq!(
        p.downstream_request_first_byte_time,
        p.downstream_request_last_byte_time
    );
    let [second, third] = [&records[1].phases, &records[2].phases];
    assert_eq!(
        second.downstream_request_first_byte_time,
        third.downstream_request_first_byte_time
    );
    assert!(third.downstream_request_last_byte_time >= second.downstream_response_last_byte_time);
}

/// Check that a PROXY protocol header belongs neither to the handshake nor to the request, and that
/// the record has the name of the handshake.
#[test]
fn proxy_protocol() {
    let http = [
        tls::DIRECTIVES,
        "server { listen 127.0.0.1:{port} ssl proxy_protocol default_server; }
         server { listen 127.0.0.1:{port} ssl proxy_protocol; server_name test;
                  location / { return 200 x; } }",
    ];
    let nginx = Nginx::prepared(&http.concat(), 9, tls::certificate);
    let records = traced(nginx, |nginx| {
        let mut stream = TcpStream::connect(("127.0.0.1", nginx.port)).unwrap();
        stream
            .write_all(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n")
            .unwrap();
        /* The delay is long, because a busy nginx may accept late. */
        delay(Duration::from_millis(200));
        let mut tls = Tls::over(stream, &TLS13, &[]);
        let bytes = tls.seal("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
        tls.send_raw(&bytes);
        assert_eq!(tls.into_client().receive().status, 200);
    });
    let record = &records[0];
    record.assert_complete();
    assert_eq!(record.tls.ssl_server_name.as_deref(), Some("test"));
    let p = &record.phases;
    assert_between(p, Some(0), p.downstream_request_first_byte_time, 200);
    let first = p.downstream_request_first_byte_time.unwrap();
    assert!(
        record.tls.tls_handshake_ns.unwrap() < first - 100_000_000,
        "{record:#?}"
    );
}

/// Sends a request within the handshake, in two parts, and reads its answer. Ends the handshake, and
/// sends another request. Each step is delayed.
fn send_early(mut tls: Tls, uri: &str, answer: &str) {
    let bytes = tls.take();
    tls.send_raw(&bytes);
    delay(Duration::from_millis(40));
    let bytes = tls.seal_early(format!("GET {uri} HTTP/1.1\r\nHo"));
    tls.send_raw(&bytes);
    delay(Duration::from_millis(20));
    let bytes = tls.seal_early("st: t\r\n\r\n");
    tls.send_raw(&bytes);
    let mut response = Vec::new();
    while !response.ends_with(answer.as_bytes()) {
        response.extend(tls.read_some());
    }
    delay(Duration::from_millis(30));
    let tls = tls.finish();
    delay(Duration::from_millis(30));
    let mut client = tls.into_client();
    assert_eq!(client.get("/early").body, b"early=");
}

/// Check 0-RTT: a request within the handshake begins with its own bytes, and has its response
/// before the handshake ends. The bytes that end the handshake do not belong to the next request.
#[test]
fn early_data() {
    if is_built_without(REWRITE) {
        return;
    }
    let http = [
        tls::DIRECTIVES,
        "server { listen 127.0.0.1:{port} ssl; ssl_early_data on; proxy_buffering off;
                  location /early { return 200 early=$ssl_early_data; }
                  location / { proxy_pass http://127.0.0.1:{upstream}; } }",
    ];
    let upstream = Upstream::start();
    let nginx = Nginx::prepared(&http.concat(), upstream.port, tls::certificate);
    let records = traced(nginx, |nginx| {
        let config = tls::config(&TLS13, &[]);
        let connect = || {
            let stream = TcpStream::connect(("127.0.0.1", nginx.port)).unwrap();
            Tls::new(stream, Arc::clone(&config))
        };
        let mut client = connect().into_client();
        assert_eq!(client.get("/early").body, b"early=");
        for (uri, answer) in [
            ("/early", "early=1"),
            ("/wait-50/head/wait-30/body-3", "xxx"),
        ] {
            send_early(connect(), uri, answer);
        }
    });
    assert_eq!(records.len(), 5);
    for record in &records {
        record.assert_complete();
        let is_first = record.connection_requests == Some(1);
        assert_eq!(
            record.tls.tls_handshake_ns.is_some(),
            is_first,
            "{record:#?}"
        );
    }
    for pair in records[1..].chunks(2) {
        assert_behind_handshake(&pair[0]);
        let [p, next] = [&pair[0].phases, &pair[1].phases];
        let (first, last) = (
            p.downstream_request_first_byte_time,
            p.downstream_request_last_byte_time,
        );
        assert_between(p, Some(0), first, 40);
        assert_between(p, first, last, 20);
        let answered = p.downstream_response_last_byte_time;
        let first = next.downstream_request_first_byte_time;
        assert_between(p, answered, first, 60);
        assert!(first <= next.downstream_request_last_byte_time);
    }
    let p = &records[3].phases;
    let (first, last) = (
        p.downstream_response_first_byte_time,
        p.downstream_response_last_byte_time,
    );
    assert_between(p, p.downstream_request_last_byte_time, first, 50);
    assert_between(p, first, last, 30);
}
