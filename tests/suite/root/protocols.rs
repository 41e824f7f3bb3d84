// SPDX-License-Identifier: MIT OR Apache-2.0
//! TLS and HTTP/2: until their own times are known, their records tell what is certain, and no
//! phase that could be wrong.

use std::process::Command;

use crate::suite::common::nginx::Nginx;
use crate::suite::common::record::Record;
use crate::suite::common::tls;
use crate::suite::common::upstream::Upstream;
use crate::suite::root::requests::traced;

/// One server with TLS, one with HTTP/2 without it, both in front of an upstream.
const HTTP: &str = "
    server {
        listen 127.0.0.1:{port} ssl http2;
        listen unix:{prefix}/h2c.sock http2;
        location /return { return 200 'hello\\n'; }
        location /proxied { proxy_pass http://127.0.0.1:{upstream}; }
    }";

/// nginx with a certificate of its own.
fn start(upstream: u16) -> Nginx {
    let http = [tls::DIRECTIVES, HTTP].concat();
    Nginx::prepared(&http, upstream, tls::certificate)
}

/// Requests over one connection.
fn curl(nginx: &Nginx, args: &[&str], scheme: &str, paths: &[&str]) {
    let mut command = Command::new("curl");
    command.args(["-sk", "-w", "%{http_code}\n"]).args(args);
    for path in paths {
        let url = format!("{scheme}://127.0.0.1:{}/{path}", nginx.port);
        command.args(["-o", "/dev/null", &url]);
    }
    let output = command.output().expect("curl is installed by make test");
    assert_eq!(output.stdout, b"200\n".repeat(paths.len()));
}

/// The records of these requests, which have all their times.
fn records(args: &[&str], scheme: &str) -> Vec<Record> {
    let upstream = Upstream::start();
    let records = traced(start(upstream.port), |nginx| {
        let socket = nginx.prefix().join("h2c.sock").display().to_string();
        let args: Vec<&str> = args
            .iter()
            .map(|arg| {
                if *arg == "{socket}" {
                    socket.as_str()
                } else {
                    *arg
                }
            })
            .collect();
        /* curl 7.88 does not use an HTTP/2 connection without TLS again. */
        if scheme == "https" {
            curl(nginx, &args, scheme, &["return", "proxied"]);
        } else {
            curl(nginx, &args, scheme, &["return"]);
            curl(nginx, &args, scheme, &["proxied"]);
        }
    });
    assert_eq!(records.len(), 2);
    for record in &records {
        assert!(!record.partial, "{record:#?}");
        record.assert_complete();
    }
    records
}

/// Check HTTP/1.1 over TLS.
#[test]
fn tls() {
    let records = records(&["--http1.1"], "https");
    assert!(records[0].tls_handshake_ns.is_some());
    assert_eq!(records[1].tls_handshake_ns, None);
    assert_eq!(records[1].connection_requests, 2);
    assert!(records.iter().all(|record| record.alpn.is_none()));
    assert!(
        records
            .iter()
            .all(|record| record.ssl_server_name.is_none())
    );
}

/// Check HTTP/2 over TLS, and without it on a unix socket.
#[test]
fn http2() {
    for (args, scheme, alpn) in [
        (&["--http2"][..], "https", Some("h2")),
        (
            &["--http2-prior-knowledge", "--unix-socket", "{socket}"],
            "http",
            None,
        ),
    ] {
        for record in records(args, scheme) {
            assert_eq!(record.server_protocol.as_deref(), Some("HTTP/2.0"));
            assert_eq!(record.alpn.as_deref(), alpn);
        }
    }
}
