// SPDX-License-Identifier: MIT OR Apache-2.0
//! TLS and HTTP/2 with clients that people use: curl, nghttp, `openssl s_client`.

use std::fs;
use std::fs::File;
use std::process::Command;
use std::process::Stdio;

use ngx_bpf_record::values::Alpn;

use crate::suite::common::nginx::Nginx;
use crate::suite::common::record::Record;
use crate::suite::common::record::assert_delay;
use crate::suite::common::tls;
use crate::suite::common::upstream::Upstream;
use crate::suite::root::requests::traced;

/// A server with TLS, and one with HTTP/2 without TLS, both with an upstream.
const HTTP: &str = "
    server {
        listen 127.0.0.1:{port} ssl http2;
        listen unix:{prefix}/h2c.sock http2;
        location /return { return 200 'hello\\n'; }
        ssl_early_data on;
        location /trailed { add_trailer End here; return 200 'hello\n'; }
        location /proxied { proxy_pass http://127.0.0.1:{upstream}; }
    }";

/// Starts nginx with a certificate.
fn start(upstream: u16) -> Nginx {
    let http = [tls::DIRECTIVES, HTTP].concat();
    Nginx::prepared(&http, upstream, tls::certificate)
}

/// Sends requests over one connection.
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

/// Returns the records of these requests, and asserts that they have all their times.
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
        /* curl 7.88 does not reuse an HTTP/2 connection without TLS. */
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
    assert!(records[0].tls.tls_handshake_ns.is_some());
    assert_eq!(records[1].tls.tls_handshake_ns, None);
    assert_eq!(records[1].connection_requests, Some(2));
    assert!(records.iter().all(|record| record.tls.alpn.is_none()));
    assert!(
        records
            .iter()
            .all(|record| record.tls.ssl_server_name.is_none())
    );
}

/// Check HTTP/2 over TLS, and without it on a unix socket.
#[test]
fn http2() {
    for (args, scheme, alpn) in [
        (&["--http2"][..], "https", Some(Alpn::H2)),
        (
            &["--http2-prior-knowledge", "--unix-socket", "{socket}"],
            "http",
            None,
        ),
    ] {
        for record in records(args, scheme) {
            assert_eq!(record.server_protocol.as_deref(), Some("HTTP/2.0"));
            assert_eq!(record.tls.alpn, alpn);
        }
    }
}

/// Check nghttp: several requests at once, a tree of priorities, a body, and a response with
/// trailers.
#[test]
fn nghttp() {
    let upstream = Upstream::start();
    let records = traced(start(upstream.port), |nginx| {
        let base = format!("https://127.0.0.1:{}", nginx.port);
        let body = nginx.prefix().join("cert.pem");
        let with_body = format!("--data={}", body.display());
        let [here, trailed, proxied] = ["return", "trailed", "proxied/wait-40"];
        for (args, paths) in [
            (&["--no-dep", "-m3"][..], &[here, proxied][..]),
            (&["--weight=9"], &[trailed, proxied]),
            (&[&with_body], &[proxied]),
        ] {
            let mut command = Command::new("nghttp");
            command.args(["--null-out", "--stat", "--timeout=30"]);
            let urls = paths.iter().map(|path| format!("{base}/{path}"));
            let output = command.args(args).args(urls).output();
            let output = output.expect("nghttp is installed by make test");
            assert!(output.status.success(), "{output:?}");
        }
    });
    assert_eq!(records.len(), 3 * 2 + 2 + 1);
    let posted = records
        .iter()
        .find(|r| r.request_method.as_deref() == Some("POST"));
    assert!(posted.unwrap().request_size > Some(500), "{posted:#?}");
    for record in &records {
        record.assert_complete();
        assert_eq!(record.status, Some(200));
        assert_eq!(record.tls.alpn, Some(Alpn::H2));
        if record.uri.as_deref() == Some("/proxied/wait-40") {
            let p = &record.phases;
            let first = p.upstream_response_first_byte_time;
            assert_delay(p.upstream_request_last_byte_time, first, 40);
        }
    }
}

/// Check `openssl s_client`: with TLS 1.2, with TLS 1.3, with a resumed session, and with 0-RTT.
#[test]
fn s_client() {
    let request = "GET /return HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n";
    let records = traced(start(9), |nginx| {
        let file = nginx.prefix().join("request");
        fs::write(&file, request).unwrap();
        for (args, said) in [
            ("-tls1_2", "New, TLSv1.2"),
            ("-tls1_3 -sess_out session", "New, TLSv1.3"),
            ("-tls1_3 -sess_in session", "Reused, TLSv1.3"),
            (
                "-tls1_3 -sess_in session -early_data request",
                "Early data was accepted",
            ),
        ] {
            let mut command = Command::new("openssl");
            command
                .args(["s_client", "-ign_eof", "-servername", "test", "-connect"])
                .arg(format!("127.0.0.1:{}", nginx.port))
                .args(args.split(' '))
                .current_dir(nginx.prefix())
                .stderr(Stdio::null());
            /* With 0-RTT the file is sent as early data, and not through stdin. */
            let input = if args.contains("early") {
                "/dev/null".into()
            } else {
                file.clone()
            };
            command.stdin(File::open(input).unwrap());
            let output = command.output().expect("openssl is installed by make test");
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(text.contains("200 OK"), "{args}: {text}");
            assert!(text.contains(said), "{args}: {text}");
        }
    });
    assert_eq!(records.len(), 4);
    for record in &records {
        record.assert_complete();
        let first = record.phases.downstream_request_first_byte_time;
        assert!(record.tls.tls_handshake_ns.unwrap() > 0, "{record:#?}");
        assert!(first >= record.tls.tls_handshake_ns, "{record:#?}");
    }
}
