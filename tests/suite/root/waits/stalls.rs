// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sockets that take nothing for a while, and what nginx writes to a temporary file meanwhile.

use std::io::Read as _;
use std::io::Write as _;
use std::time::Duration;

use rustls::version::TLS13;

use super::assert_about;
use crate::suite::common::client::Client;
use crate::suite::common::delay;
use crate::suite::common::listener::listen;
use crate::suite::common::listener::read_head;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::record::Record;
use crate::suite::common::tls;
use crate::suite::common::tls::Tls;
use crate::suite::common::upstream::Upstream;
use crate::suite::root::requests::traced;

/// How long a peer takes nothing, in milliseconds: much longer than nginx needs to fill its socket.
const DELAY_MS: u64 = 400;
/// The same.
const DELAY: Duration = Duration::from_millis(DELAY_MS);

/// More bytes than the buffers of two sockets hold before anything is read.
const SIZE: usize = 12 << 20;

/// Files and a proxy, with and without buffers.
const HTTP: &str = "
    proxy_max_temp_file_size 1000m;
    client_max_body_size 100m;
    client_body_buffer_size 64k;
    server {
        listen 127.0.0.1:{port};
        listen 127.0.0.1:{tls} ssl;
        listen unix:{prefix}/client.sock;
        location / { root {prefix}/html; }
        location /sendfile/ { alias {prefix}/html/; sendfile on; }
        location /slow/ { alias {prefix}/html/; limit_rate 50k; }
        location /limited/ {
            alias {prefix}/html/; limit_rate 6m; sendfile on; sendfile_max_chunk 0; output_buffers 1 6m;
        }
        location /unbuffered/ { proxy_pass http://127.0.0.1:{upstream}/; proxy_buffering off; }
        location /buffered/ { proxy_pass http://127.0.0.1:{upstream}/; }
        location /streamed/ { proxy_pass http://127.0.0.1:{upstream}; proxy_request_buffering off; }
    }";

/// Returns the records of requests to this nginx, which has a large and a small file.
fn records(upstream: u16, requests: impl FnOnce(&Nginx, u16)) -> Vec<Record> {
    let (http, tls) = tls::with_port(HTTP);
    let nginx = Nginx::prepared(&http, upstream, tls::certificate);
    nginx.file("large", &vec![b'x'; SIZE]);
    nginx.file("small", &vec![b'x'; 10_000]);
    traced(nginx, |nginx| requests(nginx, tls))
}

/// Asks for a response, and does not read more of it for a while when it has begun.
fn begin(client: &mut Client, uri: &str) -> usize {
    client.send(format!(
        "GET {uri} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"
    ));
    let first = client.some().len();
    delay(DELAY);
    first
}

/// Reads a response late.
fn read_late(mut client: Client, uri: &str) {
    assert!(begin(&mut client, uri) + client.rest().len() > SIZE);
}

/// Check a client that reads late: from a file, from an upstream, over TLS and over a unix socket. One that
/// reads at once, and a response that nginx itself sends slowly, have no stall.
#[test]
fn client() {
    let upstream = Upstream::start();
    let body = format!("/unbuffered/body-{SIZE}");
    let records = records(upstream.port, |nginx, tls| {
        let connect = || Client::connect(nginx.port);
        for uri in ["/large", "/sendfile/large", &body] {
            read_late(connect(), uri);
        }
        let session = Tls::begin(tls, &TLS13, &[]).finish();
        read_late(session.into_client(), "/large");
        let path = nginx.prefix().join("client.sock");
        read_late(Client::to_path(&path), "/large");
        assert_eq!(connect().get("/small").body.len(), 10_000);
        assert_eq!(connect().get("/slow/small").body.len(), 10_000);
    });
    let (late, quick) = records.split_at(5);
    for record in late {
        assert_about(record.waits.client_stall_ns, DELAY_MS);
        assert_eq!(record.waits.upstream_stall_ns, None, "{record:#?}");
        assert_eq!(record.waits.response_temp_file_bytes, None, "{record:#?}");
    }
    for record in quick {
        assert_eq!(record.waits.client_stall_ns, None, "{record:#?}");
    }
}

/// Check a client that reads at once what `limit_rate` lets nginx send, although that is more than the
/// socket takes at once: nginx's own delay is no stall.
#[test]
fn limited() {
    let records = records(9, |nginx, tls| {
        let mut client = Client::connect(nginx.port);
        assert_eq!(client.get("/limited/large").body.len(), SIZE);
        let session = Tls::begin(tls, &TLS13, &[]).finish();
        let response = session.into_client().get("/limited/large");
        assert_eq!(response.body.len(), SIZE);
    });
    for record in &records {
        let stall_ns = record.waits.client_stall_ns.unwrap_or(0);
        assert!(record.duration_ns.unwrap() > 4 * stall_ns, "{record:#?}");
    }
    assert_eq!(records.len(), 2);
}

/// Check a client that goes away without having read: the stall ends with the request.
#[test]
fn client_leaves() {
    let records = records(9, |nginx, _| {
        let mut client = Client::connect(nginx.port);
        begin(&mut client, "/large");
    });
    assert_about(records[0].waits.client_stall_ns, DELAY_MS);
}

/// Check what nginx writes to temporary files: of a response that the client does not take, and of a body
/// that is larger than its buffer.
#[test]
fn temporary_files() {
    let upstream = Upstream::start();
    let records = records(upstream.port, |nginx, _| {
        read_late(
            Client::connect(nginx.port),
            &format!("/buffered/body-{SIZE}"),
        );
        let mut client = Client::connect(nginx.port);
        for size in [100_000, 1000] {
            client.send(format!(
                "POST /buffered/ HTTP/1.1\r\nHost: test\r\nContent-Length: {size}\r\n\r\n"
            ));
            client.send(vec![b'x'; size]);
            assert_eq!(client.receive().status, 200);
        }
    });
    let waits: Vec<_> = records.iter().map(|record| &record.waits).collect();
    let spilt = waits[0].response_temp_file_bytes.unwrap();
    assert!((1 << 20..=SIZE as u64).contains(&spilt), "{spilt}");
    assert_eq!(waits[0].request_temp_file_bytes, None);
    assert_eq!(waits[1].request_temp_file_bytes, Some(100_000));
    assert_eq!(waits[2].request_temp_file_bytes, None);
    for waits in &waits[1..] {
        assert_eq!(waits.response_temp_file_bytes, None);
    }
}

/// Check an upstream that reads the body late, and one that has it at once.
#[test]
fn upstream() {
    let upstream = listen(|mut stream| {
        let head = String::from_utf8(read_head(&mut stream).unwrap()).unwrap();
        let (_, length) = head.split_once("Content-Length: ").unwrap();
        let length: u64 = length.lines().next().unwrap().parse().unwrap();
        if head.contains("/late") {
            delay(DELAY);
        }
        let read = std::io::copy(&mut (&stream).take(length), &mut std::io::sink());
        assert_eq!(read.unwrap(), length);
        stream
            .write_all(b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n")
            .unwrap();
    });
    let records = records(upstream, |nginx, _| {
        for (uri, size) in [
            ("/streamed/late", SIZE),
            ("/buffered/late", SIZE),
            ("/buffered/", 10),
        ] {
            let mut client = Client::connect(nginx.port);
            client.send(format!(
                "POST {uri} HTTP/1.1\r\nHost: test\r\nContent-Length: {size}\r\n\r\n"
            ));
            client.send(vec![b'x'; size]);
            assert_eq!(client.receive().status, 200);
        }
    });
    for record in &records[..2] {
        assert_about(record.waits.upstream_stall_ns, DELAY_MS);
        assert_eq!(record.waits.client_stall_ns, None, "{record:#?}");
    }
    assert_eq!(records[2].waits.upstream_stall_ns, None);
}
