// SPDX-License-Identifier: MIT OR Apache-2.0
//! Certificates whose file names have variables. nginx makes a request within the handshake to
//! evaluate them, which is not a client's.

use rustls::version::TLS12;
use rustls::version::TLS13;

use crate::suite::common::http2;
use crate::suite::common::http2::Http2;
use crate::suite::common::http3;
use crate::suite::common::http3::Http3;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::program::open_to_all;
use crate::suite::common::record::Record;
use crate::suite::common::record::assert_equal;
use crate::suite::common::tls;
use crate::suite::common::tls::Tls;
use crate::suite::common::tool::Tool;

/// A server that looks up its certificate in each handshake.
const HTTP: &str = "
    map $ssl_server_name $name { default cert; }
    ssl_certificate {prefix}/$name.pem;
    ssl_certificate_key {prefix}/key.pem;
    ssl_protocols TLSv1.2 TLSv1.3;
    server {
        listen 127.0.0.1:{port} {protocol};
        location / { return 200 'hello\\n'; }
    }";

/// Asserts that there is this number of records, each equal to its line in the access log, and
/// returns them.
fn records(protocol: &str, count: usize, requests: impl FnOnce(u16)) -> Vec<Record> {
    let http = HTTP.replace("{protocol}", protocol);
    let nginx = Nginx::prepared(&http, 9, |prefix| {
        tls::certificate(prefix);
        open_to_all(&prefix.join("cert.pem"));
        open_to_all(&prefix.join("key.pem"));
    });
    let tool = Tool::trace(nginx.pid());
    requests(nginx.port);
    nginx.wait_logged(count);
    let logged = nginx.quit();
    let ended = tool.wait();
    ended.assert_clean();
    assert_eq!(ended.summary().seen, count as u64);
    let records = ended.records();
    assert_equal(&records, &logged);
    assert_eq!(records.len(), count);
    records.iter().for_each(Record::assert_complete);
    records
}

/// Check that over HTTP/1 there are as many records as requests, and that the first one has the
/// handshake's time.
#[test]
fn http1() {
    for version in [&TLS12, &TLS13] {
        let records = records("ssl", 2, |port| {
            let mut client = Tls::begin(port, version, &[]).finish().into_client();
            assert_eq!(client.get("/").status, 200);
            assert_eq!(client.get("/").status, 200);
        });
        assert!(records[0].tls.tls_handshake_ns.unwrap() > 100_000);
        assert_eq!(records[1].tls.tls_handshake_ns, None);
    }
}

/// Check the same over HTTP/2.
#[test]
fn http2() {
    let records = records("ssl http2", 2, |port| {
        let tls = Tls::begin(port, &TLS13, &["h2"]).finish();
        let mut http = Http2::start(tls.into_stream(), 65535);
        http.send(&http2::get(1, "/"));
        http.receive([1]);
        http.send(&http2::get(3, "/"));
        http.receive([3]);
    });
    assert!(records[0].tls.tls_handshake_ns.unwrap() > 100_000);
    assert_answered(&records, "HTTP/2.0");
}

/// Asserts that these requests had this protocol, and were answered.
fn assert_answered(records: &[Record], protocol: &str) {
    for record in records {
        assert_eq!(record.server_protocol.as_deref(), Some(protocol));
        assert_eq!(record.status, Some(200));
    }
}

/// Check the same over HTTP/3.
#[test]
fn http3() {
    if http3::is_missing() {
        return;
    }
    let records = records("quic", 2, |port| {
        let mut http = Http3::connect(port);
        for stream in [0, 4] {
            http.get(stream, "/");
            http.receive([stream]);
        }
        http.close();
    });
    assert_answered(&records, "HTTP/3.0");
}
