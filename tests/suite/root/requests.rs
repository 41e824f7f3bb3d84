// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every kind of request has one record, which equals nginx's own log.

use std::net::SocketAddr;
use std::time::Duration;

use ngx_bpf_record::values::Failure;

use crate::suite::common::client::Client;
use crate::suite::common::delay;
use crate::suite::common::invariants::assert_invariants;
use crate::suite::common::nginx::Config;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::record::Record;
use crate::suite::common::record::assert_equal;
use crate::suite::common::tool::Tool;
use crate::suite::common::upstream::Upstream;

mod line_ends;
mod many;

/// A server with every kind of location.
pub const HTTP: &str = r"
    upstream kept { server 127.0.0.1:{upstream}; keepalive 8; }
    upstream kept_at_path { server unix:{prefix}/upstream.sock; keepalive 8; }
    server {
        listen 127.0.0.1:{port};
        listen [::1]:{port};
        listen unix:{prefix}/client.sock;
        root {prefix}/html;
        client_body_buffer_size 8k;
        proxy_http_version 1.1;
        proxy_set_header Connection '';
        location / { }
        location /return { return 200 'hello\n'; }
        location /empty { return 204; }
        location /bye { return 444; }
        location /proxy/ { proxy_pass http://127.0.0.1:{upstream}; }
        location /late/ { proxy_read_timeout 100ms; proxy_pass http://127.0.0.1:{upstream}; }
        location /kept/ { proxy_pass http://kept; }
        location /path/ { proxy_pass http://unix:{prefix}/upstream.sock:/path/; }
        location /kept_path/ { proxy_pass http://kept_at_path; }
        location /down/ { proxy_pass http://127.0.0.1:9; }
        location /small { client_max_body_size 10; return 200; }
        location /error { error_page 404 =200 /return; return 404; }
    }";

/// Starts nginx with that server, and its upstream.
fn start(workers: usize) -> (Nginx, Upstream) {
    let upstream = Upstream::start();
    let nginx = Nginx::start(&Config {
        http: HTTP,
        workers,
        upstream: upstream.port,
        ..Config::default()
    });
    Upstream::start_unix(&nginx.prefix().join("upstream.sock"));
    nginx.file("index.html", b"index\n");
    nginx.file("small.txt", b"small\n");
    (nginx, upstream)
}

/// Calls `requests` while nginx is traced. Returns the records, and asserts that they equal the
/// access log, and that all invariants hold.
pub fn traced(nginx: Nginx, requests: impl FnOnce(&Nginx)) -> Vec<Record> {
    traced_with(nginx, &[], requests)
}

/// Does the same with more options.
pub fn traced_with(nginx: Nginx, options: &[&str], requests: impl FnOnce(&Nginx)) -> Vec<Record> {
    let pid = nginx.pid().to_string();
    let tool = Tool::start(&[&["--pid", &pid, "--json"], options].concat(), 1);
    requests(&nginx);
    let logged = nginx.quit();
    /* The tool ends with the nginx that it traces. */
    let ended = tool.wait();
    ended.assert_clean();
    let records = ended.records();
    assert_equal(&records, &logged);
    records.iter().for_each(assert_invariants);
    records
}

/// Does the same, and asserts that each record is complete.
fn traced_whole(nginx: Nginx, requests: impl FnOnce(&Nginx)) -> Vec<Record> {
    let records = traced(nginx, requests);
    records.iter().for_each(Record::assert_complete);
    records
}

/// Check static files, `return` and a proxied request over one IPv4 connection.
#[test]
fn keepalive_client() {
    let (nginx, _upstream) = start(1);
    let records = traced_whole(nginx, |nginx| {
        let mut client = Client::connect(nginx.port);
        for uri in ["/", "/small.txt", "/return", "/proxy/", "/return?x=1"] {
            assert_eq!(client.get(uri).status, 200);
        }
    });
    assert_eq!(records.len(), 5);
    let accepts: Vec<_> = records.iter().map(|r| r.downstream_accept_time).collect();
    assert!(accepts.iter().all(|accept| *accept == accepts[0]));
    assert_eq!(records[4].request_uri.as_deref(), Some("/return?x=1"));
    assert_eq!(records[4].uri.as_deref(), Some("/return"));
    assert_eq!(records[3].upstreams[0].reused, Some(false));
}

/// Check requests over IPv6 and over a unix socket.
#[test]
fn ipv6_and_unix_client() {
    let (nginx, _upstream) = start(1);
    let records = traced_whole(nginx, |nginx| {
        let address: SocketAddr = format!("[::1]:{}", nginx.port).parse().unwrap();
        for uri in ["/return", "/proxy/"] {
            assert_eq!(Client::to(address).get(uri).status, 200);
            let path = nginx.prefix().join("client.sock");
            assert_eq!(Client::to_path(&path).get(uri).status, 200);
        }
    });
    assert_eq!(records[0].remote_addr.as_deref(), Some("::1"));
    assert_eq!(records[1].remote_addr.as_deref(), Some("unix:"));
    assert!(
        records[1]
            .server_addr
            .as_deref()
            .unwrap()
            .ends_with("/client.sock")
    );
}

/// Check HTTP/1.0 with and without keepalive, and HTTP/0.9, which has no header at all.
#[test]
fn old_protocols() {
    let (nginx, _upstream) = start(1);
    let records = traced_whole(nginx, |nginx| {
        for request in [
            "GET /return HTTP/1.0\r\n\r\n",
            "GET /proxy/ HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET / HTTP/1.0\r\n\r\n",
            "GET /return\r\n",
        ] {
            let mut client = Client::connect(nginx.port);
            client.send(request);
            client.rest();
        }
    });
    assert_eq!(records.len(), 4);
}

/// Check upstreams on TCP and on unix sockets, new and kept.
#[test]
fn kept_upstreams() {
    let (nginx, _upstream) = start(1);
    let records = traced_whole(nginx, |nginx| {
        let mut client = Client::connect(nginx.port);
        for uri in ["/proxy/", "/kept/", "/path/", "/kept_path/"] {
            for _ in 0..2 {
                assert_eq!(client.get(uri).status, 200);
            }
        }
    });
    let reused: Vec<_> = records
        .iter()
        .map(|r| r.upstreams[0].reused.unwrap())
        .collect();
    assert_eq!(
        reused,
        [false, false, false, true, false, false, false, true]
    );
    for record in records {
        let phases = &record.phases;
        assert!(
            phases.upstream_response_last_byte_time.is_some(),
            "{record:#?}"
        );
        if record.upstreams[0].reused == Some(true) {
            let connect = phases.upstream_connect_time;
            assert_eq!(connect, phases.upstream_request_first_byte_time);
        }
    }
}

/// Check that pipelined requests, which come in one read, have a record each, and that nginx begins
/// to process each of them when the one before it has ended.
#[test]
fn pipelined() {
    let (nginx, _upstream) = start(1);
    let records = traced_whole(nginx, |nginx| {
        let mut client = Client::connect(nginx.port);
        let uris = ["/return", "/kept/wait-20", "/small.txt", "/return"];
        let all: String = uris
            .iter()
            .map(|uri| format!("GET {uri} HTTP/1.1\r\nHost: test\r\n\r\n"))
            .collect();
        client.send(all);
        for _ in uris {
            assert_eq!(client.receive().status, 200);
        }
    });
    assert_eq!(records.len(), 4);
    let first = records[0].phases.downstream_request_first_byte_time;
    for pair in records.windows(2) {
        let (before, after) = (&pair[0].phases, &pair[1].phases);
        assert_eq!(after.downstream_request_first_byte_time, first);
        assert!(
            after.downstream_request_last_byte_time >= before.downstream_response_last_byte_time,
            "{pair:#?}"
        );
    }
    let waited = records[2].phases.downstream_request_last_byte_time.unwrap() - first.unwrap();
    assert!(waited >= 20_000_000, "{waited}");
}

/// Check bodies: small, in a temporary file, chunked, discarded, empty, and sent after
/// 100-continue.
#[test]
fn bodies() {
    let (nginx, _upstream) = start(1);
    let records = traced_whole(nginx, |nginx| {
        let mut client = Client::connect(nginx.port);
        for (uri, size) in [
            ("/proxy/", 100),
            ("/kept/", 1 << 20),
            ("/return", 50_000),
            ("/kept/", 0),
        ] {
            client.send(format!(
                "POST {uri} HTTP/1.1\r\nHost: t\r\nContent-Length: {size}\r\n\r\n"
            ));
            client.send(vec![b'x'; size]);
            assert_eq!(client.receive().status, 200);
        }
        client.send("POST /proxy/ HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n");
        for _ in 0..3 {
            client.send("5\r\nhello\r\n");
        }
        client.send("0\r\n\r\nGET /return HTTP/1.1\r\nHost: pipelined\r\n\r\n");
        assert_eq!(client.receive().status, 200);
        assert_eq!(client.receive().status, 200);
        let mut client = Client::connect(nginx.port);
        client.send(
            "POST /kept/ HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n",
        );
        client.send("abc");
        assert_eq!(client.receive().status, 200);
    });
    assert_eq!(records.len(), 7);
    assert_eq!(records[5].http_host.as_deref(), Some("pipelined"));
}

/// Check HEAD, an empty response, and a page that replaces an error.
#[test]
fn without_body() {
    let (nginx, _upstream) = start(1);
    let records = traced_whole(nginx, |nginx| {
        let mut client = Client::connect(nginx.port);
        for uri in ["/small.txt", "/proxy/", "/return"] {
            client.send(format!("HEAD {uri} HTTP/1.1\r\nHost: test\r\n\r\n"));
            assert_eq!(client.receive_to(true).status, 200);
        }
        assert_eq!(client.get("/empty").status, 204);
        assert_eq!(client.get("/error").status, 200);
    });
    assert_eq!(records[4].request_uri.as_deref(), Some("/error"));
    assert_eq!(records[4].uri.as_deref(), Some("/return"));
}

/// Check errors that nginx generates itself: an event that happened has a time, and one that did
/// not has none.
#[test]
fn own_errors() {
    let (nginx, _upstream) = start(1);
    let records = traced(nginx, |nginx| {
        for (request, status) in [
            ("GET /nowhere HTTP/1.1\r\nHost: t\r\n\r\n", 404),
            ("GARBAGE\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: t\r\nbad\0: header\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\n\r\n", 400),
            ("GET / HTTP/3.7\r\n\r\n", 505),
            (
                "POST /small HTTP/1.1\r\nHost: t\r\nContent-Length: 11\r\n\r\nhello world",
                413,
            ),
            ("GET /down/ HTTP/1.1\r\nHost: t\r\n\r\n", 502),
            ("GET /late/hang HTTP/1.1\r\nHost: t\r\n\r\n", 504),
        ] {
            let mut client = Client::connect(nginx.port);
            client.send(request);
            assert_eq!(client.receive().status, status, "{request:?}");
        }
        let mut client = Client::connect(nginx.port);
        client.send("GET /bye HTTP/1.1\r\nHost: t\r\n\r\n");
        assert!(client.rest().is_empty());
    });
    assert_eq!(records.len(), 9);
    for record in &records {
        let phases = &record.phases;
        assert!(
            phases.downstream_request_first_byte_time.is_some(),
            "{record:#?}"
        );
        let bye = record.status == Some(444);
        assert_eq!(
            phases.downstream_response_first_byte_time.is_none(),
            bye,
            "{record:#?}"
        );
        assert_eq!(record.duration_ns.is_none(), bye, "{record:#?}");
        /* The header is complete unless the request line or a line of it is broken. */
        let broken = matches!(record.status, Some(400 | 505)) && record.request_size != Some(18);
        let header = phases.downstream_request_last_byte_time;
        assert_eq!(header.is_none(), broken, "{record:#?}");
    }
}

/// Check a client that leaves before its answer, within its header, and before it has sent
/// anything.
#[test]
fn client_leaves() {
    let (nginx, _upstream) = start(1);
    let records = traced(nginx, |nginx| {
        let mut client = Client::connect(nginx.port);
        client.send("GET /proxy/wait-90 HTTP/1.1\r\nHost: t\r\n\r\n");
        delay(Duration::from_millis(40));
        drop(client);
        nginx.wait_for_log("prematurely closed connection");
        let mut client = Client::connect(nginx.port);
        client.send("GET / HTTP/1.1\r\nHo");
        drop(client);
        nginx.wait_for_log("client prematurely closed connection");
        drop(Client::connect(nginx.port));
    });
    assert_eq!(records.len(), 2);
    assert_eq!(records[0].status, Some(499));
    assert_eq!(records[0].upstreams[0].failure, Some(Failure::ClientClosed));
    assert!(records[0].phases.upstream_request_last_byte_time.is_some());
    assert_eq!(records[0].phases.upstream_response_first_byte_time, None);
    assert_eq!(records[1].status, Some(400));
    assert_eq!(records[1].phases.downstream_request_last_byte_time, None);
}

/// Check a response of many megabytes by sendfile, and a large response of the upstream.
#[test]
fn large_responses() {
    let (nginx, _upstream) = start(1);
    nginx.file("large.bin", &vec![b'x'; 32 << 20]);
    let records = traced_whole(
        {
            let config = nginx.prefix().join("nginx.conf");
            let text = std::fs::read_to_string(&config).unwrap();
            std::fs::write(&config, text.replace("root ", "sendfile on; root ")).unwrap();
            nginx.signal("HUP");
            nginx.wait_for_log("start worker process ");
            nginx.wait_for_log("exited with code 0");
            nginx
        },
        |nginx| {
            let mut client = Client::connect(nginx.port);
            assert_eq!(client.get("/large.bin").body.len(), 32 << 20);
            assert_eq!(client.get("/kept/body-8000000").body.len(), 8_000_000);
        },
    );
    for record in records {
        let phases = &record.phases;
        assert!(
            phases.downstream_response_last_byte_time > phases.downstream_response_first_byte_time,
            "{record:#?}"
        );
    }
}

/// Check headers that come byte by byte, in large buffers, and after empty lines.
#[test]
fn odd_headers() {
    let (nginx, _upstream) = start(1);
    let records = traced_whole(nginx, |nginx| {
        let mut client = Client::connect(nginx.port);
        for byte in b"GET /return HTTP/1.1\r\nHost: drops\r\n\r\n" {
            client.send([*byte]);
        }
        assert_eq!(client.receive().status, 200);
        let cookie = "c".repeat(6000);
        client.send(format!(
            "GET /kept/ HTTP/1.1\r\nHost: t\r\nCookie: {cookie}\r\nCookie: {cookie}\r\n\r\n"
        ));
        assert_eq!(client.receive().status, 200);
        client.send("\r\n\r\nGET /return HTTP/1.1\r\nHost: t\r\n\r\n");
        assert_eq!(client.receive().status, 200);
    });
    assert_eq!(records.len(), 3);
}
