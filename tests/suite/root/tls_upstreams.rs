// SPDX-License-Identifier: MIT OR Apache-2.0
//! Upstreams that speak TLS: kept and new connections, and the end of a response that ends with its
//! connection.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use ngx_bpf_record::values::Failure;
use rustls::version::TLS13;

use crate::suite::common::client::Client;
use crate::suite::common::delay;
use crate::suite::common::listener::listen;
use crate::suite::common::listener::read_head;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::record::Record;
use crate::suite::common::record::assert_delay;
use crate::suite::common::tls;
use crate::suite::common::tls::Served;
use crate::suite::common::tls::Tls;
use crate::suite::root::requests::traced;
use crate::suite::root::tls::Chain;

/// Check that a kept upstream connection has no handshake, and that the end of each request has a
/// time, although nginx sends an alert when it closes the other connections.
#[test]
fn connections() {
    let records = Chain::start().traced(|nginx| {
        let mut client = Tls::begin(nginx.port, &TLS13, &[]).finish().into_client();
        for uri in ["/kept/", "/kept/", "/", "/"] {
            assert_eq!(client.get(uri).status, 200);
        }
    });
    let found: Vec<_> = records
        .iter()
        .map(|record| {
            record.assert_complete();
            let attempt = &record.upstreams[0];
            assert!(
                attempt.upstream_request_last_byte_time.is_some(),
                "{record:#?}"
            );
            (attempt.reused.unwrap(), attempt.upstream_tls_ns.is_some())
        })
        .collect();
    assert_eq!(
        found,
        [(false, true), (true, false), (false, true), (false, true)]
    );
}

/// A proxy with buffering, and one without.
const ENDLESS: &str = "
    server {
        listen 127.0.0.1:{port};
        proxy_http_version 1.0;
        location / { proxy_pass https://127.0.0.1:{upstream}; }
        location /older/ { proxy_pass https://127.0.0.1:{upstream}; proxy_ssl_protocols TLSv1.2; }
        location /unbuffered/ { proxy_pass https://127.0.0.1:{upstream}; proxy_buffering off; }
    }";

/// Traces these requests at once. Their responses end with the upstream's connection, a second
/// after their last byte.
fn endless(uris: &[String]) -> Vec<Record> {
    let records = Chain::with(ENDLESS).traced(|nginx| {
        let clients: Vec<Client> = uris
            .iter()
            .map(|uri| {
                let mut client = Client::connect(nginx.port);
                client.send(format!(
                    "GET {uri}/endless/wait-1000 HTTP/1.1\r\nHost: t\r\n\r\n"
                ));
                client
            })
            .collect();
        for mut client in clients {
            assert_eq!(client.receive().status, 200);
        }
    });
    assert_eq!(records.len(), uris.len());
    records.iter().for_each(Record::assert_complete);
    records
}

/// Check that a response that ends with its connection ends with its own last byte, and not with
/// the alert that closes the connection later.
#[test]
fn alert() {
    let uris = ["", "/older", "/unbuffered"].map(|location| {
        ["head/wait-300/body-10", "body-0", "body-300000"]
            .map(|response| format!("{location}/{response}"))
    });
    for record in endless(uris.as_flattened()) {
        let p = &record.phases;
        let last = p.upstream_response_last_byte_time;
        assert_delay(last, p.downstream_response_last_byte_time, 1000);
        if record.uri.as_deref().unwrap().contains("wait-300") {
            assert_delay(p.upstream_response_first_byte_time, last, 300);
        }
    }
}

/// A proxy that takes 4 KiB in the first second, and as many in each later one.
const SLOW: &str = "
    server {
        listen 127.0.0.1:{port};
        proxy_http_version 1.0;
        location / { proxy_pass https://127.0.0.1:{upstream}; proxy_limit_rate 4k; }
    }";

/// Starts a server that answers with a body of as many bytes as the uri says, and closes a second
/// later. The whole response is one TLS record. Returns its port.
fn serve_at_once() -> u16 {
    let config = tls::server_config();
    listen(move |stream| {
        let mut served = Served::new(stream, Arc::clone(&config));
        std::thread::spawn(move || {
            let head = String::from_utf8(read_head(&mut served).ok()?).ok()?;
            let (size, _) = head.strip_prefix("GET /")?.split_once(' ')?;
            let body = "x".repeat(size.parse().ok()?);
            let response = format!("HTTP/1.0 200 OK\r\n\r\n{body}");
            served.write_all(response.as_bytes()).ok()?;
            delay(Duration::from_secs(1));
            served.close();
            Some(())
        });
    })
}

/// Check a response of which nginx leaves a part in OpenSSL's buffer: when it takes that, in another
/// second, it may read the alert in the same call. The end of the response is the one read that
/// brought all of it, or it is absent.
#[test]
fn alert_with_the_rest() {
    let sizes = [1000, 6000, 9000, 12000];
    let records = traced(Nginx::with(SLOW, serve_at_once()), |nginx| {
        let clients = sizes.map(|size| {
            let mut client = Client::connect(nginx.port);
            client.send(format!("GET /{size} HTTP/1.1\r\nHost: t\r\n\r\n"));
            client
        });
        for (mut client, size) in clients.into_iter().zip(sizes) {
            assert_eq!(client.receive().body.len(), size);
        }
    });
    assert_eq!(records.len(), sizes.len());
    for record in records {
        let (first, last) = (
            record.phases.upstream_response_first_byte_time,
            record.phases.upstream_response_last_byte_time,
        );
        assert!(first.is_some());
        assert!(last.is_none() || last == first, "{record:#?}");
        /* nginx has taken all of a small one, and found nothing more, before the alert. */
        if record.uri.as_deref() == Some("/1000") {
            assert_eq!(last, first);
        }
    }
}

/// Proxies with short time limits.
const SILENT: &str = "
    server {
        listen 127.0.0.1:{port};
        proxy_read_timeout 600ms;
        location / { proxy_pass https://127.0.0.1:{upstream}; }
        location /older/ { proxy_pass https://127.0.0.1:{upstream}; proxy_ssl_protocols TLSv1.2; }
        location /unbuffered/ { proxy_pass https://127.0.0.1:{upstream}; proxy_request_buffering off; }
    }";

/// Check that a request has ended when it was sent completely, also when the upstream does not
/// answer: the alert that nginx sends when it gives up, or when the client has left, does not
/// belong to the request.
#[test]
fn silence() {
    let records = Chain::with(SILENT).traced(|nginx| {
        for location in ["", "/older", "/unbuffered"] {
            let request = format!("{location}/wait-3000 HTTP/1.1\r\nHost: t\r\n");
            let mut client = Client::connect(nginx.port);
            client.send(format!("GET {request}\r\n"));
            assert_eq!(client.receive().status, 504);
            client.send(format!("POST {request}Content-Length: 5\r\n\r\nhello"));
            assert_eq!(client.receive().status, 504);
            client.send(format!("GET {request}\r\n"));
            delay(Duration::from_millis(300));
        }
    });
    let statuses: Vec<_> = records
        .iter()
        .map(|record| record.status.unwrap())
        .collect();
    assert_eq!(statuses, [504, 504, 499].repeat(3));
    for record in records {
        let attempt = &record.upstreams[0];
        let first = attempt.upstream_request_first_byte_time.unwrap();
        let last = attempt.upstream_request_last_byte_time.unwrap();
        assert!(last - first < 250_000_000, "{record:#?}");
    }
}

/// Check an upstream that does not speak TLS.
#[test]
fn no_tls() {
    let records = Chain::start().traced(|nginx| {
        let mut client = Tls::begin(nginx.port, &TLS13, &[]).finish().into_client();
        assert_eq!(client.get("/no_tls/").status, 502);
    });
    let attempt = &records[0].upstreams[0];
    assert_eq!(attempt.failure, Some(Failure::TlsError));
    assert_eq!(attempt.upstream_request_first_byte_time, None);
}
