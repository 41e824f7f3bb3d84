// SPDX-License-Identifier: MIT OR Apache-2.0
//! HTTP/3: one record per stream, with the times of the datagrams that carried it.

use std::time::Duration;

use ngx_bpf_record::values::Alpn;
use ngx_bpf_record::values::Origin;
use ngx_bpf_record::values::SslProtocol;

use crate::suite::common::build::about;
use crate::suite::common::build::binary;
use crate::suite::common::delay;
use crate::suite::common::http3;
use crate::suite::common::http3::Http3;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::record::Record;
use crate::suite::common::record::assert_equal;
use crate::suite::common::tls;
use crate::suite::common::tool::Tool;
use crate::suite::common::upstream::Upstream;
use crate::suite::root::elapsed::assert_lives;
use crate::suite::root::places::assert_location;
use crate::suite::root::times::assert_between;
use crate::suite::root::trace_context;
use crate::suite::root::trace_context::assert_tells;

/// Internal redirects.
mod redirects;
/// Clients that must not take the room of others.
mod room;

/// A server with a proxy and with files.
const HTTP: &str = "
    server {
        listen 127.0.0.1:{port} quic;
        root {prefix}/html;
        proxy_buffering off;
        location / { proxy_pass http://127.0.0.1:{upstream}; }
        location /return { return 200 'hello\\n'; }
        location /file { }
    }";

/// Starts nginx with that server, and its upstream.
fn start() -> (Nginx, Upstream) {
    let upstream = Upstream::start();
    let http = [tls::DIRECTIVES, HTTP].concat();
    let nginx = Nginx::prepared(&http, upstream.port, tls::certificate);
    nginx.file("file", &vec![b'x'; 1 << 20]);
    nginx.file("file-40k", &vec![b'x'; 40_000]);
    (nginx, upstream)
}

/// Sends requests while nginx is traced. Returns their records by their numbers on the connection,
/// and asserts that they equal the access log. nginx logs a request when it has made frames of its
/// whole response; the record is written when these are sent, so the order differs.
fn records(requests: impl FnOnce(&mut Http3)) -> Vec<Record> {
    let (nginx, _upstream) = start();
    let tool = Tool::trace(nginx.pid());
    let mut http = Http3::connect(nginx.port);
    requests(&mut http);
    http.close();
    let mut logged = nginx.quit();
    let ended = tool.wait();
    ended.assert_clean();
    let mut records = ended.records();
    records.sort_by_key(|record| record.connection_requests);
    logged.sort_by_key(|logged| logged.connection_requests);
    assert_equal(&records, &logged);
    for record in &records {
        assert_location(record, &["/return", "/file", "/"]);
        assert_eq!(record.server_protocol.as_deref(), Some("HTTP/3.0"));
        assert_eq!(record.tls.alpn, Some(Alpn::H3));
        assert_eq!(record.tls.ssl_protocol, Some(SslProtocol::Tls13));
        assert_eq!(record.phases_origin, Some(Origin::Accept));
        let accept = record.downstream_accept_time;
        assert_eq!(accept, records[0].downstream_accept_time);
    }
    records
}

/// Check requests one after the other and many at once, each with a delay of its own.
#[test]
fn many_streams() {
    if http3::is_missing() {
        return;
    }
    let path = |n: u64| match n % 3 {
        0 => "/return".to_owned(),
        _ => format!("/wait-{}", n % 50),
    };
    let records = records(|http| {
        http.get(0, &path(0));
        http.receive([0]);
        for n in 1..100 {
            http.get(4 * n, &path(n));
        }
        http.receive((1..100).map(|n| 4 * n));
    });
    assert_eq!(records.len(), 100);
    for (n, record) in (0..).zip(&records) {
        assert_eq!(record.connection_requests, Some(n + 1));
        assert_eq!(record.request_uri.as_deref(), Some(&*path(n)));
        record.assert_complete();
        let p = &record.phases;
        assert_eq!(
            p.downstream_request_first_byte_time,
            p.downstream_request_last_byte_time
        );
        if n % 3 != 0 {
            let response = p.upstream_response_first_byte_time;
            assert_between(p, p.upstream_request_last_byte_time, response, n % 50);
            assert!(response < p.downstream_response_first_byte_time, "{p:#?}");
        }
    }
}

/// Check a header in two datagrams, a body after it, and a response in two parts, with time between
/// all of them.
#[test]
fn every_phase() {
    if http3::is_missing() {
        return;
    }
    let records = records(|http| {
        delay(Duration::from_millis(40));
        let header = http3::header("POST", "/wait-60/head/wait-30/body-10");
        let (first, second) = header.split_at(20);
        http.send(0, first, false);
        delay(Duration::from_millis(20));
        /* Other streams go on meanwhile. */
        http.get(4, "/return");
        http.receive([4]);
        http.send(0, second, false);
        delay(Duration::from_millis(50));
        http.send(0, &http3::body(b"abc"), true);
        http.receive([0]);
    });
    records.iter().for_each(Record::assert_complete);
    let p = &records[0].phases;
    assert_between(p, Some(0), p.downstream_request_first_byte_time, 40);
    let header = p.downstream_request_last_byte_time;
    assert_between(p, p.downstream_request_first_byte_time, header, 20);
    let body = p.downstream_request_body_last_byte_time;
    assert_between(p, header, body, 50);
    assert_between(p, body, p.upstream_connect_time, 0);
    let response = p.upstream_response_first_byte_time;
    assert_between(p, p.upstream_request_last_byte_time, response, 60);
    let first = p.downstream_response_first_byte_time;
    assert_between(p, response, first, 0);
    assert_between(p, first, p.downstream_response_last_byte_time, 30);
    let other = &records[1].phases;
    assert!(other.downstream_response_last_byte_time < header);
}

/// Check responses that wait for the client's window, which the client opens when it has read:
/// nginx logs the first one long before its last byte is sent.
#[test]
fn kept_back() {
    if http3::is_missing() {
        return;
    }
    let records = records(|http| {
        for (stream, path) in [(0, "/file-40k"), (4, "/file")] {
            http.get_deaf(stream, path, 100);
            http.receive([stream]);
        }
    });
    for record in &records {
        record.assert_complete();
        let p = &record.phases;
        let first = p.downstream_response_first_byte_time;
        assert_between(p, p.downstream_request_last_byte_time, first, 0);
        assert_between(p, first, p.downstream_response_last_byte_time, 100);
    }
    assert!(records[0].response_size > Some(40_000));
    assert!(records[1].response_size > Some(1 << 20));
}

/// Check the `traceparent` header.
#[test]
fn trace_context() {
    if http3::is_missing() {
        return;
    }
    let sent = [
        Some(trace_context::FIRST),
        None,
        Some(trace_context::SECOND),
    ];
    let records = records(|http| {
        for (stream, header) in [0, 4, 8].into_iter().zip(sent) {
            let more: Vec<(&str, &str)> = header
                .map(|value| ("traceparent", value))
                .into_iter()
                .collect();
            http.send(stream, &http3::header_with("GET", "/", &more), true);
        }
        http.receive([0, 4, 8]);
    });
    assert_eq!(records.len(), sent.len());
    for (record, header) in records.iter().zip(sent) {
        assert_tells(record, header);
    }
}

/// Check requests on a connection that was accepted before tracing began.
#[test]
fn accepted_before() {
    if http3::is_missing() {
        return;
    }
    let (nginx, _upstream) = start();
    let mut http = Http3::connect(nginx.port);
    http.get(0, "/return");
    http.receive([0]);
    let tool = Tool::trace(nginx.pid());
    http.get(4, "/wait-60");
    http.receive([4]);
    http.close();
    let logged = nginx.quit();
    let ended = tool.wait();
    ended.assert_clean();
    let records = ended.records();
    assert_equal(&records, &logged[1..]);
    records[0].assert_complete();
    assert_eq!(records[0].phases_origin, Some(Origin::RequestFirstByte));
}

/// Check that a stream that the client resets, and a connection that it closes within a response,
/// have records, too.
#[test]
fn given_up() {
    if http3::is_missing() {
        return;
    }
    let records = records(|http| {
        http.get(0, "/file");
        http.receive_some(0);
        http.reset(0);
        http.get(4, "/wait-60");
        http.reset(4);
        http.get(8, "/return");
        http.receive([8]);
        http.get(12, "/file");
        http.receive_some(12);
    });
    assert_eq!(records.len(), 4);
    let p = &records[0].phases;
    assert!(p.downstream_response_first_byte_time.is_some(), "{p:#?}");
    records[2].assert_complete();
}

/// Check that an upstream has not failed when its client leaves in the middle of the response: the
/// client resets the stream, or closes the connection.
#[test]
fn client_left() {
    if http3::is_missing() {
        return;
    }
    let records = records(|http| {
        for stream in [0, 4] {
            http.get(stream, "/half-1000/hang");
            http.receive_some(stream);
        }
        http.reset(0);
    });
    assert_eq!(records.len(), 2);
    for record in &records {
        let attempt = &record.upstreams[0];
        assert_eq!((attempt.status, &attempt.failure), (Some(200), &None));
    }
}

/// Check that a request whose response is still being sent when the tool ends has a record, without
/// the end of the response.
#[test]
fn unfinished() {
    if http3::is_missing() {
        return;
    }
    let (nginx, _upstream) = start();
    let tool = Tool::trace(nginx.pid());
    let mut http = Http3::connect(nginx.port);
    std::thread::scope(|scope| {
        scope.spawn(|| http.get_deaf(0, "/file-40k", 1000));
        nginx.wait_logged(1);
        let ended = tool.stop();
        ended.assert_clean();
        let records = ended.records();
        assert_eq!(records.len(), 1);
        records[0].assert_logged(&nginx.logged()[0]);
        let p = &records[0].phases;
        assert!(p.downstream_request_last_byte_time.is_some(), "{p:#?}");
        assert!(p.downstream_response_last_byte_time.is_none(), "{p:#?}");
        assert!(records[0].duration_ns.is_none(), "{p:#?}");
    });
}

/// Returns whether this nginx accepts early data over QUIC: since 1.29.1, with OpenSSL 3.5.1.
fn takes_early_data() -> bool {
    let about = about(&binary());
    let version = |after: &str| {
        let (_, rest) = about.split_once(after)?;
        let number = rest.split([' ', '\n', '-', '+']).next()?;
        let parts = number.split('.').map(|part| part.parse::<u32>().ok());
        parts.collect::<Option<Vec<_>>>()
    };
    let is_new = version("nginx version: nginx/") >= Some(vec![1, 29, 1])
        && version("built with OpenSSL ") >= Some(vec![3, 5, 1]);
    if !is_new {
        println!("SKIP: this nginx accepts no early data over QUIC");
    }
    is_new
}

/// Check a request that comes before the handshake (0-RTT): the connection is accepted when its
/// first datagram is read, so that the times of the request are after that.
#[test]
fn early_data() {
    if http3::is_missing() || !takes_early_data() {
        return;
    }
    let upstream = Upstream::start();
    let http = [tls::DIRECTIVES, "ssl_early_data on;", HTTP].concat();
    let nginx = Nginx::prepared(&http, upstream.port, tls::certificate);
    let tool = Tool::trace(nginx.pid());
    let mut http = Http3::connect_early(nginx.port);
    http.get(0, "/return");
    http.receive([0]);
    http.assert_early();
    http.get(4, "/return");
    http.receive([4]);
    http.close();
    let logged = nginx.quit();
    let ended = tool.wait();
    ended.assert_clean();
    let records = ended.records();
    assert_equal(&records, &logged);
    assert_eq!(records.len(), 2);
    for record in &records {
        record.assert_complete();
        assert_eq!(record.phases_origin, Some(Origin::Accept));
    }
    let first = records[0].phases.downstream_request_first_byte_time;
    assert_between(&records[0].phases, Some(0), first, 0);
}

/// Check that requests live as long as nginx's `$request_time` says, to a millisecond and a turn of
/// its event loop, also when the client resets streams and leaves a response unread.
#[test]
fn request_time() {
    if http3::is_missing() {
        return;
    }
    let upstream = Upstream::start();
    let log = "log_format life '$pid $connection $connection_requests $msec $request_time';
               access_log {prefix}/life.log life;";
    let http = [tls::DIRECTIVES, log, HTTP].concat();
    let nginx = Nginx::prepared(&http, upstream.port, tls::certificate);
    nginx.file("file", &vec![b'x'; 1 << 20]);
    let file = nginx.prefix().join("life.log");
    let tool = Tool::trace(nginx.pid());
    let mut http = Http3::connect(nginx.port);
    for n in 0..300 {
        let stream = 4 * n;
        match n % 10 {
            0 => {
                http.get(stream, "/file");
                http.receive_some(stream);
                http.reset(stream);
            }
            1 => {
                http.get(stream, "/wait-60");
                http.reset(stream);
            }
            2 => {
                http.send(stream, &http3::header("POST", "/wait-5"), false);
                http.send(stream, &http3::body(b"abc"), true);
            }
            n => http.get(stream, &format!("/wait-{n}")),
        }
    }
    http.receive((0..300).filter(|n| n % 10 > 1).map(|n| 4 * n));
    http.close();
    nginx.signal("QUIT");
    let ended = tool.wait();
    let life = std::fs::read_to_string(file).unwrap();
    drop(nginx);
    ended.assert_clean();
    let records = ended.records();
    assert_eq!(records.len(), 300);
    assert_lives(&records, &life);
}
