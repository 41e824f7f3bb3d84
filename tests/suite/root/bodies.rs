// SPDX-License-Identifier: MIT OR Apache-2.0
//! The body of a request, and the queue: each time belongs to the right request and phase.

use std::time::Duration;

use rustls::version::TLS13;

use crate::suite::common::client::Client;
use crate::suite::common::client::Stream;
use crate::suite::common::delay;
use crate::suite::common::http2;
use crate::suite::common::http2::Http2;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::record::Record;
use crate::suite::common::tls;
use crate::suite::common::tls::Tls;
use crate::suite::common::upstream::Upstream;
use crate::suite::root::requests::traced;
use crate::suite::root::times::assert_between;

/// A server that buffers bodies, passes them on, or discards them; without TLS, with TLS, and with
/// HTTP/2.
const HTTP: &str = "
    server {
        listen 127.0.0.1:{port};
        listen 127.0.0.1:{tls} ssl http2;
        root {prefix}/html;
        client_body_buffer_size 16k;
        proxy_http_version 1.1;
        location / { proxy_pass http://127.0.0.1:{upstream}; }
        location /unbuffered { proxy_request_buffering off; proxy_pass http://127.0.0.1:{upstream}; }
        location /return { return 200 'hello\\n'; }
        location /mirrored { mirror /copy; proxy_pass http://127.0.0.1:{upstream}; }
        location /copy { internal; proxy_pass http://127.0.0.1:{upstream}/wait-80; }
    }";

/// Starts nginx with that server. Returns its TLS port and its upstream, too.
fn start() -> (Nginx, u16, Upstream) {
    let upstream = Upstream::start();
    let (http, port) = tls::with_port(HTTP);
    let nginx = Nginx::prepared(&http, upstream.port, tls::certificate);
    (nginx, port, upstream)
}

/// Waits 50 ms.
fn pause() {
    delay(Duration::from_millis(50));
}

/// Sends a request with a body. The first part comes with the header, each other part 50 ms later.
fn post(client: &mut Client, uri: &str, framing: &str, parts: &[&str]) {
    let header = format!("POST {uri} HTTP/1.1\r\nHost: t\r\n{framing}\r\n\r\n");
    client.send(header + parts[0]);
    for part in &parts[1..] {
        pause();
        client.send(part);
    }
    assert_eq!(client.receive().status, 200);
}

/// Asserts that a body was whole this number of milliseconds after its header.
fn assert_body(record: &Record, ms: u64) {
    let p = &record.phases;
    let (header, body) = (
        p.downstream_request_last_byte_time,
        p.downstream_request_body_last_byte_time,
    );
    if ms == 0 {
        assert!(header.is_some() && header == body, "{record:#?}");
        assert_eq!(record.waits.body_read_ns, None, "{record:#?}");
    } else {
        let read = body.zip(header).map(|(body, header)| body - header);
        assert!(
            read.is_some() && record.waits.body_read_ns == read,
            "{record:#?}"
        );
        assert_between(p, header, body, ms);
    }
}

/// Requests whose bodies come in parts, with a length and chunked.
const POSTS: [(&str, &str, &[&str]); 9] = [
    ("/x", "Content-Length: 4", &["abcd"]),
    ("/x", "Content-Length: 4", &["", "abcd"]),
    ("/x", "Content-Length: 4", &["a", "bc", "d"]),
    (
        "/x",
        "Transfer-Encoding: chunked",
        &["4\r\nabcd\r\n0\r\n\r\n"],
    ),
    (
        "/x",
        "Transfer-Encoding: chunked",
        &["", "4\r\nab", "cd\r\n0\r\n\r\n"],
    ),
    ("/unbuffered", "Content-Length: 4", &["ab", "cd"]),
    (
        "/unbuffered",
        "Transfer-Encoding: chunked",
        &["4\r\nab", "cd\r\n0\r\n", "\r\n"],
    ),
    ("/return", "Content-Length: 4", &["ab", "cd"]),
    (
        "/return",
        "Transfer-Encoding: chunked",
        &["4\r\nab", "cd\r\n0\r\n\r\n"],
    ),
];

/// Check the end of a body: with a length and chunked, with its header and later, buffered, passed
/// on and discarded, without and with TLS. The time until then is the client's, and not nginx's own
/// time before it connects.
#[test]
fn http1() {
    let (nginx, port, _upstream) = start();
    let records = traced(nginx, |nginx| {
        for is_tls in [false, true] {
            for (uri, framing, parts) in POSTS {
                let mut client = if is_tls {
                    Tls::begin(port, &TLS13, &[]).finish().into_client()
                } else {
                    Client::connect(nginx.port)
                };
                post(&mut client, uri, framing, parts);
                assert_eq!(client.get("/return").status, 200);
            }
        }
    });
    assert_eq!(records.len(), 4 * POSTS.len());
    let sent = POSTS.iter().chain(&POSTS);
    for (records, (uri, _, parts)) in records.chunks(2).zip(sent) {
        assert_body(&records[0], 50 * (parts.len() as u64 - 1));
        let p = &records[0].phases;
        let (header, body) = (
            p.downstream_request_last_byte_time,
            p.downstream_request_body_last_byte_time,
        );
        match *uri {
            "/x" => assert_between(p, body, p.upstream_connect_time, 0),
            "/unbuffered" => assert_between(p, header, p.upstream_connect_time, 0),
            _ => assert_between(p, header, p.downstream_response_first_byte_time, 0),
        }
        assert_eq!(
            records[1].phases.downstream_request_body_last_byte_time,
            None
        );
        assert_eq!(records[0].waits.queue_ns, None);
    }
}

/// Check that a body that is larger than nginx's buffers ends with its last read, that an empty
/// chunked body ends with its last chunk, and that a body that is incomplete or does not exist has
/// no end.
#[test]
fn large_and_broken() {
    let (nginx, _, _upstream) = start();
    let records = traced(nginx, |nginx| {
        let half = "x".repeat(100_000);
        let mut client = Client::connect(nginx.port);
        post(&mut client, "/x", "Content-Length: 200000", &[&half, &half]);
        post(
            &mut client,
            "/unbuffered",
            "Content-Length: 200000",
            &[&half, &half],
        );
        post(
            &mut client,
            "/x",
            "Transfer-Encoding: chunked",
            &["", "0\r\n\r\n"],
        );
        post(&mut client, "/x", "Content-Length: 0", &[""]);
        client.send("POST /x HTTP/1.1\r\nHost: t\r\nContent-Length: 9\r\n\r\nabc");
        pause();
        drop(client);
        nginx.wait_for_log("prematurely closed connection");
    });
    for record in &records[..3] {
        assert_body(record, 50);
    }
    for record in &records[3..] {
        let body = record.phases.downstream_request_body_last_byte_time;
        assert_eq!(body, None, "{record:#?}");
    }
    assert_eq!(records.len(), 5);
}

/// Opens a connection of HTTP/2 over TLS.
fn http2(port: u16) -> Http2 {
    let stream: Box<dyn Stream> = Tls::begin(port, &TLS13, &["h2"]).finish().into_stream();
    Http2::start(stream, 65535)
}

/// Check the bodies of streams: with the header and later, buffered and passed on, with frames of
/// other streams in between.
#[test]
fn streams() {
    let (nginx, port, _upstream) = start();
    let records = traced(nginx, |_| {
        let mut http = http2(port);
        let length = http2::field("content-length", "4");
        let post = |stream, path| http2::post_with(stream, path, &length);
        http.send(&[post(1, "/with"), http2::body(1, b"abcd")].concat());
        http.receive([1]);
        for (stream, path) in [(3, "/later"), (7, "/unbuffered/later")] {
            http.send(&http2::post_with(stream, path, http2::NEWEST));
            pause();
            http.send(&http2::get(stream + 2, "/return"));
            http.send(&http2::body(stream, b"abcd"));
            http.receive([stream + 2, stream]);
            pause();
        }
        http.send(&http2::post(11, "/nolength"));
        pause();
        http.send(&http2::body(11, b"abcd"));
        http.receive([11]);
    });
    let of = |uri: &str| records.iter().find(|r| r.uri.as_deref() == Some(uri));
    assert_body(of("/with").unwrap(), 0);
    for uri in ["/later", "/unbuffered/later", "/nolength"] {
        let record = of(uri).unwrap();
        assert_body(record, 50);
        let p = &record.phases;
        let whole = p.downstream_request_body_last_byte_time;
        if uri.starts_with("/unbuffered") {
            let header = p.downstream_request_last_byte_time;
            assert_between(p, header, p.upstream_connect_time, 0);
        } else {
            assert_between(p, whole, p.upstream_connect_time, 0);
        }
    }
    let get = of("/return").unwrap();
    assert_eq!(get.phases.downstream_request_body_last_byte_time, None);
    assert_eq!(get.waits.queue_ns, None);
}

/// Check streams that end before the body has the stated length, of clients that close the connection at
/// once: nginx answers with 400, or has seen by then that the client has left. The body was never whole.
#[test]
fn short_streams() {
    const TRIES: usize = 10;
    let (nginx, port, _upstream) = start();
    let records = traced(nginx, |_| {
        for _ in 0..TRIES {
            let mut http = http2(port);
            let length = http2::field("content-length", "100");
            http.send(&http2::post_with(1, "/short", &length));
            pause();
            http.send(&http2::body(1, b"abcd"));
        }
    });
    assert_eq!(records.len(), TRIES);
    for record in &records {
        assert!(matches!(record.status, Some(400 | 499)), "{record:#?}");
        let body = record.phases.downstream_request_body_last_byte_time;
        assert_eq!((body, record.waits.body_read_ns), (None, None));
    }
}

/// Check that with more bodies at once than one connection can track, the other bodies have no
/// time, although some of their reads were seen.
#[test]
fn many_streams() {
    let (nginx, port, _upstream) = start();
    let last = 17;
    let records = traced(nginx, |_| {
        let mut http = http2(port);
        let streams = || (1..=last).step_by(2);
        let length = http2::field("content-length", "4");
        for stream in streams() {
            http.send(&http2::post_with(stream, "/unbuffered", &length));
        }
        pause();
        /* nginx remembers half a frame, which shows its stream. */
        let piece = http2::piece(last, b"ab");
        for half in [&piece[..10], &piece[10..]] {
            http.send(half);
            pause();
        }
        http.send(&http2::body(last, b"cd"));
        http.receive([last]);
        for stream in streams().filter(|stream| *stream != last) {
            http.send(&http2::body(stream, b"abcd"));
        }
        http.receive(streams().filter(|stream| *stream != last));
    });
    assert_eq!(records.len(), 9);
    for record in &records {
        let is_last = record.connection_requests == Some(9);
        let body = record.phases.downstream_request_body_last_byte_time;
        assert_eq!(body.is_none(), is_last, "{record:#?}");
        let header = record.phases.downstream_request_last_byte_time;
        assert!(is_last || body.unwrap() - header.unwrap() > 100_000_000);
    }
}

/// Check that a request that came together with another one, or before that one's mirror had ended,
/// has the time until then as `queue_ns`, and that the rest of its life belongs to it.
#[test]
fn queue() {
    let (nginx, _, _upstream) = start();
    let records = traced(nginx, |nginx| {
        for uri in ["/wait-80", "/mirrored"] {
            let mut client = Client::connect(nginx.port);
            client.send(format!(
                "GET {uri} HTTP/1.1\r\nHost: t\r\n\r\nGET /return HTTP/1.1\r\nHost: t\r\n\r\n"
            ));
            client.receive();
            client.receive();
            assert_eq!(client.get("/return").status, 200);
        }
    });
    for same in records.chunks(3) {
        assert_eq!(
            (same[0].waits.queue_ns, same[2].waits.queue_ns),
            (None, None)
        );
        let queued = &same[1];
        let p = &queued.phases;
        let queue = queued.waits.queue_ns;
        assert_between(p, Some(0), queue, 80);
        assert_between(p, queue, queued.elapsed_ns, 0);
        let took = queued.elapsed_ns.unwrap() - queue.unwrap();
        assert!(took < 60_000_000, "{queued:#?}");
    }
    assert_eq!(records.len(), 6);
}
