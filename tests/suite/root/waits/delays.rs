// SPDX-License-Identifier: MIT OR Apache-2.0
//! What nginx itself makes a request wait for: limit_req, auth_request, a name server, the lock of the cache.

use rustls::version::TLS13;

use super::DELAY;
use super::DELAY_MS;
use super::assert_about;
use crate::suite::common::build::HTTP3;
use crate::suite::common::build::LIMIT_REQ;
use crate::suite::common::build::REWRITE;
use crate::suite::common::build::is_built_with;
use crate::suite::common::build::is_built_without;
use crate::suite::common::client::Client;
use crate::suite::common::delay;
use crate::suite::common::dns;
use crate::suite::common::http2;
use crate::suite::common::http2::Http2;
use crate::suite::common::http3;
use crate::suite::common::http3::Http3;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::record::Record;
use crate::suite::common::tls;
use crate::suite::common::tls::Tls;
use crate::suite::common::upstream::Upstream;
use crate::suite::root::requests::traced;

/// How long `limit_req` delays the second of two requests that come at once, in milliseconds.
const LIMIT_MS: u64 = 200;
/// The time after which nginx looks at a locked entry of the cache again, in milliseconds.
const LOOK_MS: u64 = 500;

/// A server with a location for each wait, and one that has all of them.
const HTTP: &str = "
    limit_req_zone $pid zone=five:64k rate=5r/s;
    proxy_cache_path {prefix}/cache keys_zone=cache:1m;
    proxy_cache_valid 200 1h;
    resolver 127.0.0.1:{dns} ipv6=off;
    server {
        listen 127.0.0.1:{port};
        listen 127.0.0.1:{tls} ssl http2; {quic}
        root {prefix}/html;
        location /file { }
        location /limited { limit_req zone=five burst=9; }
        location /limited/ { limit_req zone=five burst=9; proxy_pass http://127.0.0.1:{upstream}; }
        location /auth/ { auth_request /check/wait-100; proxy_pass http://127.0.0.1:{upstream}; }
        location /denied { auth_request /check/wait-100/status-403; }
        location /named/ { set $name named.test; proxy_pass http://$name:{upstream}; }
        location /address/ { set $name 127.0.0.1; proxy_pass http://$name:{upstream}; }
        location /locked/ { proxy_cache cache; proxy_cache_lock on; proxy_pass http://127.0.0.1:{upstream}; }
        location /all/ {
            limit_req zone=five burst=9;
            auth_request /check/wait-100;
            proxy_cache cache; proxy_cache_lock on; proxy_cache_key all;
            set $name all.test; proxy_pass http://$name:{upstream};
        }
        location /again/ { error_page 502 = /limited; proxy_connect_timeout 300ms; proxy_pass http://127.0.0.1:9; }
        location /check/ { internal; proxy_pass http://127.0.0.1:{upstream}; }
    }";

/// The waits that nginx makes, in milliseconds: limit_req, auth_request, the name server, the cache's lock; 0: none.
type Waits = [u64; 4];

/// Asserts that a record has these waits, and no other, and that the time of those that are no subrequest's is in
/// `time_ns`.
fn assert_waits(record: &Record, expected: Waits) {
    let waits = &record.waits;
    let [limit, auth, resolve, lock] = expected;
    for (name, ns, ms) in [
        ("limit_req_delay_ns", waits.limit_req_delay_ns, limit),
        ("auth_ns", waits.auth_ns, auth),
        ("resolve_ns", waits.resolve_ns, resolve),
        ("cache_lock_ns", waits.cache_lock_ns, lock),
    ] {
        if ms == 0 {
            assert_eq!(ns, None, "{name}: {record:#?}");
        } else {
            assert_about(ns, ms);
        }
    }
    assert_eq!(waits.wait_ns, None, "{record:#?}");
    let sum = [
        waits.limit_req_delay_ns,
        waits.resolve_ns,
        waits.cache_lock_ns,
    ];
    let sum: u64 = sum.into_iter().flatten().sum();
    let shares = waits.time_ns.as_ref().unwrap();
    assert_eq!(shares.wait, sum, "{record:#?}");
    let first = record.upstreams.first();
    let of_first = first.and_then(|attempt| attempt.resolve_ns);
    assert_eq!(of_first, waits.resolve_ns, "{record:#?}");
}

/// Returns whether this nginx lacks one of the modules of the server, and then prints SKIP.
fn is_not_built() -> bool {
    let modules = ["http_auth_request_module", LIMIT_REQ, "http-cache", REWRITE];
    modules.into_iter().any(is_built_without)
}

/// Sends requests to the server, whose port for TLS is passed on, and returns their records.
fn run(requests: impl FnOnce(&Nginx, u16)) -> Vec<Record> {
    let upstream = Upstream::start();
    let quic = if is_built_with(HTTP3) {
        "listen 127.0.0.1:{tls} quic;"
    } else {
        ""
    };
    let http = HTTP
        .replace("{quic}", quic)
        .replace("{dns}", &dns::start_after(DELAY).to_string());
    let (http, tls) = tls::with_port(&http);
    let nginx = Nginx::prepared(&http, upstream.port, tls::certificate);
    nginx.file("file", b"file");
    nginx.file("limited", b"limited");
    traced(nginx, |nginx| requests(nginx, tls))
}

/// Check that a delay by limit_req has its key over each protocol, and no other one does; that the body which
/// comes meanwhile does not count twice; and that an attempt before it leaves its length open. A request on another
/// connection has just used up the limit each time.
#[test]
fn limit_req() {
    if is_not_built() {
        return;
    }
    let mut records = run(|nginx, tls| {
        let mut other = Client::connect(nginx.port);
        let mut fill = || drop(other.get("/limited"));
        let mut client = Client::connect(nginx.port);
        for uri in ["/limited/case", "/limited/case/wait-100"] {
            fill();
            client.get(uri);
        }
        fill();
        client.send(
            "POST /limited/case/wait-100 HTTP/1.1\r\nHost: test\r\nContent-Length: 3\r\n\r\n",
        );
        delay(DELAY);
        client.send("abc");
        client.receive();
        fill();
        client.get("/again/case");
        let mut client = Tls::begin(tls, &TLS13, &[]).finish().into_client();
        fill();
        client.get("/limited/case");
        let stream = Tls::begin(tls, &TLS13, &["h2"]).finish().into_stream();
        let mut http2 = Http2::start(stream, 1 << 20);
        fill();
        http2.send(&http2::get(1, "/limited/case"));
        http2.receive([1]);
        if !http3::is_missing() {
            let mut http3 = Http3::connect(tls);
            fill();
            http3.get(0, "/limited/case");
            http3.receive([0]);
            http3.close();
        }
    });
    assert_waits(&records[0], [0; 4]);
    let is_case = |record: &Record| record.request_uri.as_deref().unwrap().contains("case");
    records.retain(is_case);
    let shares = |n: usize| records[n].waits.time_ns.as_ref().unwrap();
    for n in [1, 2] {
        assert_about(Some(shares(n).upstream), DELAY_MS);
        assert_about(Some(shares(n).client), 0);
    }
    let again = records.remove(3);
    assert_eq!(again.waits.limit_req_delay_ns, None);
    assert!(again.elapsed_ns > Some(LIMIT_MS * 500_000));
    for record in &records {
        assert_waits(record, [LIMIT_MS, 0, 0, 0]);
    }
    assert!(records.len() >= 5);
}

/// Check that a client that leaves during the delay has no key, and that the next request on another connection is
/// not affected.
#[test]
fn left() {
    if is_not_built() {
        return;
    }
    let records = run(|nginx, _| {
        let mut client = Client::connect(nginx.port);
        client.get("/limited");
        let mut leaving = Client::connect(nginx.port);
        leaving.send("GET /limited HTTP/1.1\r\nHost: test\r\n\r\n");
        delay(DELAY / 2);
        drop(leaving);
        nginx.wait_logged(2);
        client.get("/file");
    });
    assert_eq!(records[1].status, Some(499));
    assert_eq!(records[1].waits.limit_req_delay_ns, None);
    assert_waits(&records[2], [0; 4]);
}

/// Check that the subrequest of auth_request has its key, whatever it answers, and that its attempt is still the
/// share of an upstream.
#[test]
fn auth_request() {
    if is_not_built() {
        return;
    }
    let records = run(|nginx, tls| {
        let mut client = Client::connect(nginx.port);
        assert_eq!(client.get("/auth/wait-100").status, 200);
        assert_eq!(client.get("/denied").status, 403);
        client.get("/file");
        let stream = Tls::begin(tls, &TLS13, &["h2"]).finish().into_stream();
        let mut http2 = Http2::start(stream, 1 << 20);
        http2.send(&http2::get(1, "/auth/wait-100"));
        http2.receive([1]);
    });
    for n in [0, 1, 3] {
        assert_waits(&records[n], [0, DELAY_MS, 0, 0]);
    }
    assert_waits(&records[2], [0; 4]);
    for (n, ms) in [(0, 2 * DELAY_MS), (1, DELAY_MS)] {
        let shares = records[n].waits.time_ns.as_ref().unwrap();
        assert_about(Some(shares.upstream), ms);
    }
}

/// Check that a name server that answers late has its key, of the first request that needs the name.
#[test]
fn resolver() {
    if is_not_built() {
        return;
    }
    let records = run(|nginx, _| {
        let mut client = Client::connect(nginx.port);
        for uri in ["/named/wait-100", "/named/", "/address/"] {
            assert_eq!(client.get(uri).status, 200);
        }
        client.send("POST /named/ HTTP/1.1\r\nHost: test\r\nContent-Length: 3\r\n\r\nabc");
        client.receive();
    });
    assert_waits(&records[0], [0, 0, DELAY_MS, 0]);
    for record in &records[1..] {
        assert_waits(record, [0; 4]);
    }
}

/// Check that a request that waits for another one to fill the cache has its key.
#[test]
fn cache_lock() {
    if is_not_built() {
        return;
    }
    let records = run(|nginx, _| {
        let mut clients = [(); 2].map(|()| Client::connect(nginx.port));
        for client in &mut clients {
            client.send("GET /locked/wait-100 HTTP/1.1\r\nHost: test\r\n\r\n");
        }
        for client in &mut clients {
            assert_eq!(client.receive().status, 200);
        }
        clients[0].get("/locked/wait-100");
    });
    assert_waits(&records[0], [0; 4]);
    assert_waits(&records[1], [0, 0, 0, LOOK_MS]);
    assert_waits(&records[2], [0; 4]);
}

/// Check a request that waits for one after the other: each has its own time.
#[test]
fn one_after_another() {
    if is_not_built() {
        return;
    }
    let uri = "/all/wait-700";
    let records = run(|nginx, _| {
        let mut clients = [(); 2].map(|()| Client::connect(nginx.port));
        for client in &mut clients {
            client.send(format!("GET {uri} HTTP/1.1\r\nHost: test\r\n\r\n"));
        }
        for client in &mut clients {
            assert_eq!(client.receive().status, 200);
        }
    });
    assert_waits(&records[0], [0, DELAY_MS, DELAY_MS, 0]);
    assert_waits(&records[1], [LIMIT_MS, DELAY_MS, 0, 2 * LOOK_MS]);
    let elapsed = records[1].elapsed_ns.unwrap();
    let waits = &records[1].waits;
    let waits = [waits.limit_req_delay_ns, waits.auth_ns, waits.cache_lock_ns];
    let sum: u64 = waits.into_iter().flatten().sum();
    assert!(sum < elapsed, "{:#?}", records[1]);
    assert_about(Some(elapsed - sum + DELAY_MS * 1_000_000), DELAY_MS);
}
