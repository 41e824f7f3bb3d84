// SPDX-License-Identifier: MIT OR Apache-2.0
//! Attempts: one object each, in order, with its times and its failure.

use std::os::unix::net::UnixStream;

use ngx_bpf_record::values::Cut;
use ngx_bpf_record::values::Failure;

use crate::suite::common::client::Client;
use crate::suite::common::http2;
use crate::suite::common::http2::Http2;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::record::Record;
use crate::suite::common::upstream::Upstream;
use crate::suite::root::requests::traced;

/// Groups whose first servers fail, each in another way, and whose last one works.
const HTTP: &str = r"
    upstream refused {
        server 127.0.0.1:9 max_fails=0;
        server unix:{prefix}/nobody.sock max_fails=0;
        server 127.0.0.1:{upstream} backup;
    }
    upstream gone { server 127.0.0.1:9 max_fails=1 fail_timeout=60s; server 127.0.0.1:11 down; }
    upstream many {
        server 127.0.0.1:1 max_fails=0; server 127.0.0.1:2 max_fails=0;
        server 127.0.0.1:3 max_fails=0; server 127.0.0.1:4 max_fails=0;
        server 127.0.0.1:5 max_fails=0; server 127.0.0.1:6 max_fails=0;
        server 127.0.0.1:7 max_fails=0; server 127.0.0.1:8 max_fails=0;
        server 127.0.0.1:9 max_fails=0; server 127.0.0.1:{upstream} backup;
    }
    upstream twice {
        server 127.0.0.1:{upstream} max_fails=0;
        server 127.0.0.1:{upstream} max_fails=0;
    }
    server {
        listen 127.0.0.1:{port};
        proxy_read_timeout 50ms;
        proxy_next_upstream error timeout invalid_header http_503;
        location /refused/ { proxy_pass http://refused; }
        location /gone/ { proxy_pass http://gone; }
        location /many/ { proxy_pass http://many; }
        location /twice/ { proxy_pass http://twice; }
        location /redirect/ {
            proxy_intercept_errors on;
            error_page 404 = /refused/;
            proxy_pass http://twice;
        }
    }";

/// Returns the records of these requests, all on one connection.
fn requests(uris: &[&str]) -> Vec<Record> {
    let upstream = Upstream::start();
    let nginx = Nginx::with(HTTP, upstream.port);
    traced(nginx, |nginx| {
        let mut client = Client::connect(nginx.port);
        for uri in uris {
            client.get(uri);
        }
    })
}

/// Returns the failure of each attempt.
fn failures(record: &Record) -> Vec<Option<&str>> {
    record
        .upstreams
        .iter()
        .map(|attempt| Some(attempt.failure?.name()))
        .collect()
}

/// Check that a server that refuses the connect is an attempt with a time, and that nginx goes on
/// to the next one. On a unix socket that does not exist nothing happens that could be timed.
#[test]
fn refused() {
    let records = requests(&["/refused/"]);
    let [first, second, third] = &records[0].upstreams[..] else {
        panic!("{records:#?}");
    };
    assert_eq!(first.failure, Some(Failure::ConnectError));
    assert!(first.upstream_connect_time.is_some());
    assert_eq!(first.upstream_request_first_byte_time, None);
    assert_eq!(first.reused, None);
    assert!(second.addr.as_deref().unwrap().starts_with("unix:"));
    assert_eq!(second.upstream_connect_time, None);
    assert_eq!(second.failure, Some(Failure::ConnectError));
    assert_eq!(third.failure, None);
    assert_eq!(third.status, Some(200));
    assert!(third.upstream_connect_time > first.upstream_connect_time);
}

/// Check that `no_live_upstreams` is reported.
#[test]
fn no_live_upstreams() {
    let records = requests(&["/gone/", "/gone/"]);
    assert_eq!(failures(&records[0])[0], Some("connect_error"));
    let last = records[1].upstreams.last().unwrap();
    assert_eq!(last.failure, Some(Failure::NoLiveUpstreams));
    assert_eq!(last.addr.as_deref(), Some("gone"));
}

/// Check failures of an upstream after it was connected.
#[test]
fn reached() {
    let records = requests(&[
        "/twice/close",
        "/twice/junk",
        "/twice/wait-5000",
        "/twice/status-503",
        "/twice/status-500",
    ]);
    for (record, expected) in records.iter().zip([
        [Some("closed"), Some("closed")],
        [Some("invalid_header"), Some("invalid_header")],
        [Some("timeout"), Some("timeout")],
        [Some("http_503"), None],
    ]) {
        assert_eq!(failures(record), expected, "{record:#?}");
    }
    /* nginx passes on a status that is not in proxy_next_upstream. */
    assert_eq!(failures(&records[4]), [None]);
}

/// Check that a record has the first seven and the last of more attempts than it can hold.
#[test]
fn many() {
    let upstream = Upstream::start();
    let nginx = Nginx::with(HTTP, upstream.port);
    let tool = crate::suite::common::tool::Tool::trace(nginx.pid());
    Client::connect(nginx.port).get("/many/");
    let logged = nginx.quit();
    let records = tool.wait().records();
    let record = &records[0];
    assert_eq!(logged[0].upstream_status.split(", ").count(), 10);
    assert_eq!(record.upstreams.len(), 8);
    assert_eq!(record.truncated, [Cut::Upstreams]);
    let last = record.upstreams.last().unwrap();
    assert_eq!(
        last.addr.as_deref(),
        Some(&*format!("127.0.0.1:{}", upstream.port))
    );
    assert_eq!(record.upstream_addr, last.addr);
    assert!(record.phases.upstream_response_last_byte_time.is_some());
    assert_eq!(
        record.phases.upstream_connect_time,
        last.upstream_connect_time
    );
}

/// Check that a redirect from one upstream to another is not a failure of the first.
#[test]
fn redirected() {
    let records = requests(&["/redirect/status-404"]);
    let record = &records[0];
    assert_eq!(record.upstreams[0].status, Some(404));
    assert_eq!(record.upstreams[0].failure, None);
    assert!(record.upstreams.len() > 1, "{record:#?}");
    assert_eq!(record.upstreams.last().unwrap().status, Some(200));
}

/// Check an upstream that does not speak HTTP: nginx passes its bytes on, as HTTP/0.9, and the
/// response has its times, over HTTP/1 and HTTP/2.
#[test]
fn no_http() {
    let upstream = Upstream::start();
    let nginx = Nginx::with(
        "server { listen 127.0.0.1:{port}; listen unix:{prefix}/h2c.sock http2;
                  location / { proxy_pass http://127.0.0.1:{upstream}; } }",
        upstream.port,
    );
    let records = traced(nginx, |nginx| {
        let mut client = Client::connect(nginx.port);
        client.send("GET /nonsense HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
        assert_eq!(client.rest(), b"nonsense\n");
        let stream = UnixStream::connect(nginx.prefix().join("h2c.sock")).unwrap();
        let mut client = Http2::start(Box::new(stream), 65_535);
        client.send(&http2::get(1, "/nonsense"));
        client.receive_some();
    });
    assert_eq!(records.len(), 2);
    for record in &records {
        record.assert_complete();
        assert_eq!(record.upstreams[0].failure, None);
    }
    assert_eq!(records[0].status, Some(9));
}

/// Check that the attempt of a post_action is marked, and that it is in no phase of the request.
#[test]
fn post_action() {
    let upstream = Upstream::start();
    let nginx = Nginx::with(
        "server { listen 127.0.0.1:{port};
                  location / { proxy_pass http://127.0.0.1:{upstream}; post_action /after/wait-40; }
                  location /static/ { return 200 hello; post_action /after/wait-40; }
                  location /after/ { proxy_pass http://127.0.0.1:{upstream}; } }",
        upstream.port,
    );
    let records = traced(nginx, |nginx| {
        for uri in ["/body-10", "/static/"] {
            let mut client = Client::connect(nginx.port);
            assert_eq!(client.get(uri).status, 200);
        }
        nginx.wait_logged(2);
    });
    assert_eq!(records.len(), 2);
    for record in &records {
        let p = &record.phases;
        let last = record.upstreams.last().unwrap();
        assert!(last.post_action, "{record:#?}");
        assert!(last.upstream_connect_time >= p.downstream_response_last_byte_time);
        assert!(p.upstream_response_last_byte_time <= p.downstream_response_last_byte_time);
        let awaited = record.upstreams.len() - 1;
        assert_eq!(record.upstream_addr.is_some(), awaited == 1, "{record:#?}");
        assert!(
            !record.upstreams[..awaited]
                .iter()
                .any(|attempt| attempt.post_action)
        );
    }
}
