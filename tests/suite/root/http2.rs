// SPDX-License-Identifier: MIT OR Apache-2.0
//! HTTP/2: one record per stream, with the times of its own frames.

use std::net::TcpStream;
use std::time::Duration;

use ngx_bpf_record::values::Alpn;
use rustls::version::TLS13;

use crate::suite::common::PATIENCE;
use crate::suite::common::client::Stream;
use crate::suite::common::delay;
use crate::suite::common::http2;
use crate::suite::common::http2::Http2;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::record::Record;
use crate::suite::common::tls;
use crate::suite::common::tls::Tls;
use crate::suite::common::upstream::Upstream;
use crate::suite::root::places::assert_location;
use crate::suite::root::requests::traced;
use crate::suite::root::times::assert_between;
use crate::suite::root::trace_context;
use crate::suite::root::trace_context::assert_tells;

/// A proxy without TLS, and one with TLS.
const HTTP: &str = "
    server {
        listen 127.0.0.1:{port} {tls} http2;
        root {prefix}/html;
        proxy_buffering off;
        location / { proxy_pass http://127.0.0.1:{upstream}; }
        location /return { return 200 'hello\\n'; }
        location /file { }
    }";

/// A window that no response fills.
const WIDE: u32 = 1 << 30;

/// Sends requests, with or without TLS, and returns their records.
fn records(with_tls: bool, window: u32, requests: impl FnOnce(&mut Http2)) -> Vec<Record> {
    let upstream = Upstream::start();
    let http = [tls::DIRECTIVES, HTTP].concat();
    let http = http.replace("{tls}", if with_tls { "ssl" } else { "" });
    let nginx = Nginx::prepared(&http, upstream.port, tls::certificate);
    nginx.file("file", &vec![b'x'; 1 << 20]);
    let records = traced(nginx, |nginx| {
        let stream: Box<dyn Stream> = if with_tls {
            let tls = Tls::begin(nginx.port, &TLS13, &["h2"]);
            tls.finish().into_stream()
        } else {
            let stream = TcpStream::connect(("127.0.0.1", nginx.port)).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.set_nodelay(true).unwrap();
            Box::new(stream)
        };
        requests(&mut Http2::start(stream, window));
    });
    for record in &records {
        assert_location(record, &["/return", "/file", "/"]);
    }
    records
}

/// Returns the record of a stream by its number on the connection.
fn nth(records: &[Record], n: u64) -> &Record {
    let record = records.iter().find(|r| r.connection_requests == Some(n));
    record.unwrap_or_else(|| panic!("no request {n}"))
}

/// Check a hundred streams at once that come in two reads, each with a delay of its own.
#[test]
fn many_streams() {
    for with_tls in [false, true] {
        let records = records(with_tls, WIDE, |http| {
            let ids: Vec<u32> = (0..100).map(|n| 2 * n + 1).collect();
            for part in ids.chunks(50) {
                let frames = part.iter().flat_map(|id| {
                    let path = match id % 3 {
                        0 => "/return".to_owned(),
                        _ => format!("/wait-{}", id % 60),
                    };
                    http2::get(*id, &path)
                });
                http.send(&frames.collect::<Vec<u8>>());
                delay(Duration::from_millis(30));
            }
            http.receive(ids);
        });
        assert_eq!(records.len(), 100);
        for record in &records {
            record.assert_complete();
            let p = &record.phases;
            assert_eq!(
                p.downstream_request_first_byte_time,
                p.downstream_request_last_byte_time
            );
            let ms = record
                .request_uri
                .as_deref()
                .unwrap()
                .strip_prefix("/wait-");
            if let Some(ms) = ms {
                let (from, to) = (
                    p.downstream_request_first_byte_time,
                    p.downstream_response_first_byte_time,
                );
                assert_between(p, from, to, ms.parse().unwrap());
            }
        }
        let first = |n| nth(&records, n).phases.downstream_request_first_byte_time;
        assert_eq!(first(1), first(50));
        assert_eq!(first(51), first(100));
        assert_between(&nth(&records, 51).phases, first(1), first(51), 30);
    }
}

/// Check a header in two frames, and a body after it, with time in between: the header ends with
/// the second frame.
#[test]
fn header_and_body() {
    for with_tls in [false, true] {
        let records = records(with_tls, WIDE, |http| {
            http.send(&http2::get(1, "/return"));
            http.receive([1]);
            let [first, second] = http2::get_in_two(3, "/");
            http.send(&first);
            delay(Duration::from_millis(30));
            http.send(&second);
            http.receive([3]);
            http.send(&http2::post(5, "/"));
            delay(Duration::from_millis(40));
            http.send(&http2::body(5, b"abc"));
            http.receive([5]);
        });
        let p = &nth(&records, 2).phases;
        let first = p.downstream_request_first_byte_time;
        assert_between(p, first, p.downstream_request_last_byte_time, 30);
        let p = &nth(&records, 3).phases;
        let header = p.downstream_request_last_byte_time;
        assert_eq!(p.downstream_request_first_byte_time, header);
        assert_between(p, header, p.upstream_request_last_byte_time, 40);
    }
}

/// Check that bytes that wait for the client's window do not count as sent while other streams go
/// on, and that a stream that the client resets has ended.
#[test]
fn window() {
    for with_tls in [false, true] {
        let records = records(with_tls, 1000, |http| {
            http.send(&http2::get(1, "/body-5000"));
            http.receive_some();
            http.send(&http2::get(3, "/return"));
            http.receive([3]);
            delay(Duration::from_millis(60));
            http.send(&http2::window_update(1, 100_000));
            http.receive([1]);
            http.send(&http2::get(5, "/file"));
            http.receive_some();
            http.send(&http2::reset(5));
            http.send(&http2::get(7, "/return"));
            http.receive([7]);
        });
        assert_eq!(records.len(), 4);
        for record in &records {
            record.assert_complete();
        }
        let p = &nth(&records, 1).phases;
        assert_between(
            p,
            p.downstream_response_first_byte_time,
            p.downstream_response_last_byte_time,
            60,
        );
        let other = &nth(&records, 2).phases;
        assert!(other.downstream_response_last_byte_time < p.downstream_response_last_byte_time);
        assert_eq!(nth(&records, 3).uri.as_deref(), Some("/file"));
    }
}

/// Check that the response begins when its first bytes are sent: over TLS nginx before 1.29 keeps a
/// header back until there is more to send.
#[test]
fn kept_back() {
    let records = records(true, WIDE, |http| {
        http.send(&http2::get(1, "/head/wait-60/body-10"));
        http.receive([1]);
    });
    let p = &records[0].phases;
    let upstream = p.upstream_response_first_byte_time;
    let first = p.downstream_response_first_byte_time;
    let last = p.downstream_response_last_byte_time;
    assert_between(p, upstream, last, 60);
    let (held, sent) = (
        first.unwrap() - upstream.unwrap(),
        last.unwrap() - first.unwrap(),
    );
    assert!(held.max(sent) > 30_000_000, "{p:#?}");
    assert_eq!(records[0].tls.alpn, Some(Alpn::H2));
    assert!(records[0].tls.tls_handshake_ns.is_some());
}

/// Check a long response, with more rounds than BPF remembers.
#[test]
fn long() {
    for with_tls in [false, true] {
        let records = records(with_tls, 10_000, |http| {
            http.send(&http2::get(1, "/file"));
            for _ in 0..120 {
                http.receive_some();
                http.send(&http2::window_update(1, 10_000));
            }
            http.receive([1]);
        });
        records[0].assert_complete();
        let p = &records[0].phases;
        assert!(p.downstream_response_first_byte_time < p.downstream_response_last_byte_time);
    }
}

/// Check the `traceparent` header: sent literally, as an index of the connection's table, and not
/// at all.
#[test]
fn trace_context() {
    for with_tls in [false, true] {
        let records = records(with_tls, WIDE, |http| {
            let [first, second] = [trace_context::FIRST, trace_context::SECOND]
                .map(|header| http2::field("traceparent", header));
            http.send(&http2::get_with(1, "/return", &first));
            http.send(&http2::get_with(3, "/", http2::NEWEST));
            http.send(&http2::get(5, "/return"));
            http.send(&http2::get_with(7, "/", &second));
            http.receive([1, 3, 5, 7]);
        });
        let first = Some(trace_context::FIRST);
        for (n, header) in [first, first, None, Some(trace_context::SECOND)]
            .iter()
            .enumerate()
        {
            assert_tells(nth(&records, n as u64 + 1), *header);
        }
    }
}

/// Check CONNECT, in every form and with bytes after it: there is one record. nginx refuses it;
/// with a path only since 1.21.1.
#[test]
fn connect() {
    for with_tls in [false, true] {
        let records = records(with_tls, WIDE, |http| {
            for (stream, path) in [(1, None), (3, Some("/")), (5, None)] {
                let bytes = [
                    http2::connect(stream, path),
                    http2::body(stream, b"tunnelled"),
                ];
                http.send(&bytes.concat());
                http.receive([stream]);
            }
            http.send(&http2::get(7, "/return"));
            http.receive([7]);
        });
        let found: Vec<_> = (1..=4)
            .map(|n| nth(&records, n))
            .map(|record| (record.request_method.as_deref(), record.status.unwrap()))
            .collect();
        assert_eq!(records.len(), 4);
        for (method, status) in &found[..3] {
            assert_eq!(method.unwrap_or("CONNECT"), "CONNECT");
            assert!([200, 400, 405].contains(status), "{found:?}");
        }
        assert_eq!(found[3], (Some("GET"), 200));
    }
}
