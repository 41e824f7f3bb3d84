// SPDX-License-Identifier: MIT OR Apache-2.0
//! Locations: buffers, files, redirects and error pages.

use std::fs;
use std::time::Duration;

use ngx_bpf_record::values::Failure;

use crate::suite::common::client::Client;
use crate::suite::common::delay;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::program::open_to_all;
use crate::suite::common::record::Record;
use crate::suite::common::record::assert_delay;
use crate::suite::common::upstream::Upstream;
use crate::suite::root::requests::traced;

/// A server with a location for each.
const HTTP: &str = r"
    server {
        listen 127.0.0.1:{port};
        root {prefix}/html;
        location /buffered/ { proxy_pass http://127.0.0.1:{upstream}; }
        location /direct/ { proxy_buffering off; proxy_pass http://127.0.0.1:{upstream}; }
        location /temp/ {
            proxy_buffers 2 4k; proxy_buffer_size 4k; proxy_busy_buffers_size 4k;
            proxy_pass http://127.0.0.1:{upstream};
        }
        location /streamed/ {
            proxy_request_buffering off;
            proxy_http_version 1.1;
            proxy_pass http://127.0.0.1:{upstream};
        }
        location /new/ {
            proxy_http_version 1.1; proxy_set_header Connection close;
            proxy_pass http://127.0.0.1:{upstream};
        }
        location /store/ { proxy_store {prefix}/html/stored; proxy_pass http://127.0.0.1:{upstream}; }
        location /accel/ { proxy_pass http://127.0.0.1:{upstream}; }
        location /internal/ { internal; alias {prefix}/html/; }
        location /again/ { internal; proxy_pass http://127.0.0.1:{upstream}/; }
        location /named/ { error_page 502 = @rescue; proxy_pass http://127.0.0.1:9; }
        location @rescue { proxy_pass http://127.0.0.1:{upstream}; }
        location /intercepted/ {
            proxy_intercept_errors on;
            error_page 404 /index.html;
            proxy_pass http://127.0.0.1:{upstream};
        }
        location /try/ { try_files $uri /index.html @rescue; }
        location /try2/ { try_files $uri @rescue; }
    }";

/// Returns the records of requests on one connection, and asserts that they are whole.
fn records(requests: impl FnOnce(&mut Client)) -> Vec<Record> {
    let upstream = Upstream::start();
    let nginx = Nginx::with(HTTP, upstream.port);
    nginx.file("index.html", b"index\n");
    let stored = nginx.prefix().join("html/stored");
    fs::write(&stored, "").unwrap();
    open_to_all(&stored);
    let records = traced(nginx, |nginx| requests(&mut Client::connect(nginx.port)));
    records.iter().for_each(Record::assert_complete);
    records
}

/// Check a response that comes in two parts, with and without buffering, with HTTP/1.0 and 1.1 to
/// the upstream. A response that is larger than the buffers goes through a file.
#[test]
fn buffers() {
    let uris = ["/buffered/", "/direct/", "/new/"];
    let records = records(|client| {
        for uri in uris {
            assert_eq!(
                client
                    .get(&format!("{uri}wait-40/head/wait-40/body-99"))
                    .status,
                200
            );
        }
        assert_eq!(client.get("/temp/body-4000000").body.len(), 4_000_000);
    });
    for (record, uri) in records.iter().zip(uris) {
        let p = &record.phases;
        let (first, last) = (
            p.upstream_response_first_byte_time,
            p.upstream_response_last_byte_time,
        );
        assert_delay(p.upstream_request_last_byte_time, first, 40);
        assert_delay(first, last, 40);
        assert!(p.downstream_response_last_byte_time >= last, "{record:#?}");
        if uri == "/direct/" {
            assert!(p.downstream_response_first_byte_time < last, "{record:#?}");
        }
        assert_eq!(record.upstreams[0].reused, Some(false));
    }
}

/// Check a client that sends its body slowly while nginx passes it on: the request to the upstream
/// ends when the client's last part has come.
#[test]
fn streamed_request() {
    let records = records(|client| {
        client.send("POST /streamed/wait-30 HTTP/1.1\r\nHost: t\r\nContent-Length: 9\r\n\r\nabc");
        for part in ["def", "ghi"] {
            delay(Duration::from_millis(40));
            client.send(part);
        }
        assert_eq!(client.receive().status, 200);
    });
    let p = &records[0].phases;
    let (first, last) = (
        p.upstream_request_first_byte_time,
        p.upstream_request_last_byte_time,
    );
    assert_delay(p.downstream_request_last_byte_time, last, 80);
    assert_delay(first, last, 80);
    assert_delay(last, p.upstream_response_first_byte_time, 30);
}

/// Check a response that is stored as a file while it is passed on.
#[test]
fn store() {
    let records = records(|client| {
        assert_eq!(client.get("/store/body-50000").body.len(), 50_000);
    });
    assert_eq!(records[0].upstreams.len(), 1);
}

/// Check X-Accel-Redirect to a file and to an upstream.
#[test]
fn accel_redirect() {
    let records = records(|client| {
        assert_eq!(
            client.get("/accel/accel-internal-index.html").body,
            b"index\n"
        );
        assert_eq!(client.get("/accel/accel-again-x").body, b"xxx");
    });
    assert_eq!(records[0].uri.as_deref(), Some("/internal/index.html"));
    assert_eq!(records[0].upstreams.len(), 1);
    assert_eq!(records[1].upstreams.len(), 2);
    let [first, second] = &records[1].upstreams[..] else {
        panic!("{records:#?}");
    };
    assert!(first.upstream_response_last_byte_time <= second.upstream_connect_time);
}

/// Check error pages: a named location with an upstream, and a file in place of the upstream's own
/// page.
#[test]
fn error_pages() {
    let records = records(|client| {
        assert_eq!(client.get("/named/wait-30").status, 200);
        let response = client.get("/intercepted/status-404");
        assert_eq!(
            (response.status, &response.body[..]),
            (404, &b"index\n"[..])
        );
    });
    let [refused, rescue] = &records[0].upstreams[..] else {
        panic!("{records:#?}");
    };
    assert_eq!(refused.failure, Some(Failure::ConnectError));
    assert_eq!(rescue.failure, None);
    let p = &records[0].phases;
    let first = p.upstream_response_first_byte_time;
    assert_delay(p.upstream_request_last_byte_time, first, 30);
    assert_eq!(records[1].upstreams[0].status, Some(404));
    assert_eq!(records[1].uri.as_deref(), Some("/index.html"));
}

/// Check try_files: a file, and an upstream when there is none.
#[test]
fn try_files() {
    let records = records(|client| {
        assert_eq!(client.get("/try/nothing").body, b"index\n");
        assert_eq!(client.get("/try2/nothing").body, b"xxx");
    });
    assert_eq!(records[0].upstreams.len(), 0);
    assert_eq!(records[1].upstreams.len(), 1);
}
