// SPDX-License-Identifier: MIT OR Apache-2.0
//! Upstreams that speak HTTP/2: gRPC, and proxy since nginx 1.29.4.

use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use super::UPSTREAMS;
use super::URIS;
use super::assert_handshake;
use super::delayed_by;
use super::http;
use super::reused;
use crate::suite::common::build::is_before;
use crate::suite::common::client::Client;
use crate::suite::common::http2;
use crate::suite::common::listener::listen;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::record::Record;
use crate::suite::common::record::assert_delay;
use crate::suite::common::server::Server;
use crate::suite::common::tls;
use crate::suite::common::upstream::Upstream;
use crate::suite::root::requests::traced;

/// Check gRPC, on new connections and kept ones: frames that the server sends before its response
/// (SETTINGS, PING) are not a response, and the frames that acknowledge them after nginx's request
/// are not a request.
#[test]
fn grpc() {
    grpc_calls("grpc", &[]);
}

/// Check the same over TLS.
#[test]
fn grpc_with_tls() {
    let folder = TempDir::new().unwrap();
    tls::certificate(folder.path());
    let files = ["cert.pem", "key.pem"].map(|name| folder.path().join(name));
    let records = grpc_calls("grpcs", &files);
    assert_handshake(&records[0]);
    assert_eq!(records[1].upstreams[0].upstream_tls_ns, None);
}

/// Calls a gRPC server, which may have a certificate and a key.
fn grpc_calls(module: &str, files: &[PathBuf]) -> Vec<Record> {
    let mut command = Command::new("/usr/bin/python3");
    command.arg(format!("{UPSTREAMS}/grpc_server.py"));
    let server = Server::start(command.args(files));
    let address = format!("127.0.0.1:{}", server.line());
    let nginx = Nginx::with(&http(module, "client_body_buffer_size 256k;", &address), 9);
    let calls = [
        ("Wait", 3_usize),
        ("Wait", 3),
        ("Wait", 200_000),
        ("Fail", 3),
        ("Stream", 1_000),
    ];
    let records = traced(nginx, |nginx| {
        let mut client = Client::connect(nginx.port);
        for (method, size) in calls {
            client.send(format!(
                "POST /test/{method} HTTP/1.1\r\nHost: t\r\nTE: trailers\r\n\
                 Content-Type: application/grpc\r\nContent-Length: {}\r\n\r\n\0",
                size + 5
            ));
            client.send(u32::try_from(size).unwrap().to_be_bytes());
            client.send(vec![b'x'; size]);
            assert_eq!(client.receive().status, 200);
        }
    });
    drop(server);
    let kept = reused(&records);
    assert_eq!(kept[..2], [Some(false), Some(true)]);
    for (record, (method, _)) in records.iter().zip(calls) {
        record.assert_complete();
        assert_eq!(record.upstreams[0].failure, None);
        let p = &record.phases;
        let first = p.upstream_response_first_byte_time;
        assert!(p.upstream_request_last_byte_time <= first, "{record:#?}");
        let ms = match method {
            "Wait" => 200,
            "Stream" => 20,
            _ => 0,
        };
        assert_delay(p.upstream_request_last_byte_time, first, ms);
        if method == "Stream" {
            assert_delay(first, p.upstream_response_last_byte_time, 40);
        }
    }
    records
}

/// Check requests on a kept connection of HTTP/2 on which nginx last sent a frame of its own, and
/// not a request.
#[test]
fn grpc_behind_a_ping() {
    let port = listen(|stream| drop(http2::serve(Box::new(stream))));
    let address = format!("127.0.0.1:{port}");
    let records = traced(Nginx::with(&http("grpc", "", &address), 9), |nginx| {
        let mut client = Client::connect(nginx.port);
        for _ in 0..3 {
            assert_eq!(client.get("/").body, b"hello");
        }
    });
    assert_eq!(reused(&records), [Some(false), Some(true), Some(true)]);
    for record in &records {
        record.assert_complete();
        let p = &record.phases;
        assert!(p.upstream_request_last_byte_time.is_some(), "{record:#?}");
        assert!(p.upstream_response_last_byte_time.is_some(), "{record:#?}");
    }
}

/// Check proxy with HTTP/2, new connections and kept ones.
#[test]
fn proxy_with_http2() {
    if is_before((1, 29, 4), "proxy_http_version 2") {
        return;
    }
    let upstream = Upstream::start();
    let back = Nginx::with(
        "server { listen 127.0.0.1:{port} http2; proxy_buffering off;
                  location / { proxy_pass http://127.0.0.1:{upstream}; } }",
        upstream.port,
    );
    let server = Upstream { port: back.port };
    let records = delayed_by(&server, "proxy", "proxy_http_version 2;", &URIS);
    let kept = [Some(false), Some(true), Some(true), Some(true)];
    assert_eq!(reused(&records), kept);
    drop(back);
}
