// SPDX-License-Identifier: MIT OR Apache-2.0
//! Kinds of cases that nginx's own test suite has. nginx's log is the truth. Others of them are elsewhere:
//! pipelining and 100 (Continue) in `requests`, `X-Accel-Redirect` and `proxy_intercept_errors` in `locations`,
//! `auth_request`, mirror, SSI and slices in `subrequests`, HTTP/2 to upstreams in `modules::grpc`, and CONNECT
//! in `tunnels`.

use std::io::Write as _;
use std::net::TcpStream;
use std::time::Duration;

use ngx_bpf_record::values::End;
use ngx_bpf_record::values::Failure;
use rustls::version::TLS13;

use crate::suite::common::build::is_before;
use crate::suite::common::build::is_built_without;
use crate::suite::common::client::Client;
use crate::suite::common::client::Response;
use crate::suite::common::delay;
use crate::suite::common::http2;
use crate::suite::common::http2::Http2;
use crate::suite::common::invariants::assert_invariants;
use crate::suite::common::listener::listen;
use crate::suite::common::listener::read_head;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::ports::free_port;
use crate::suite::common::record::Record;
use crate::suite::common::record::assert_delay;
use crate::suite::common::record::assert_equal;
use crate::suite::common::tls;
use crate::suite::common::tls::Tls;
use crate::suite::common::tool::Tool;
use crate::suite::common::upstream::Upstream;
use crate::suite::root::requests::traced;

/// Check lingering close: nginx goes on reading after its response, and ends the request when the client has
/// closed or `lingering_timeout` is over. The response's times do not contain that.
#[test]
fn lingering_close() {
    const WAIT: Duration = Duration::from_millis(60);
    let nginx = Nginx::with(
        "server { listen 127.0.0.1:{port}; root {prefix}/html; lingering_timeout 80ms;
                  location / { }
                  location /always { lingering_close always; keepalive_timeout 0; }
                  location /small { client_max_body_size 1; } }",
        9,
    );
    nginx.file("always", b"hello");
    let records = traced(nginx, |nginx| {
        let send = |request: &str| {
            let mut client = Client::connect(nginx.port);
            client.send(request);
            client
        };
        /* The client closes after the response. */
        let mut client = send("GET /always HTTP/1.1\r\nHost: t\r\n\r\n");
        assert_eq!(client.receive().status, 200);
        delay(WAIT);
        drop(client);
        nginx.wait_logged(1);
        /* It sends some of a body that is too large, and nothing more. */
        let post = "HTTP/1.1\r\nHost: t\r\nContent-Length: 100\r\n\r\nabc";
        let mut client = send(&format!("POST /small {post}"));
        assert_eq!(client.receive().status, 413);
        client.rest();
    });
    assert_eq!(records.len(), 2);
    let ends = [End::Ok, End::Rejected].map(Some);
    assert!(records.iter().map(|record| record.ending.end).eq(ends));
    for record in &records {
        assert_delay(record.duration_ns, record.elapsed_ns, 60);
    }
}

/// Check a chain of error pages: an upstream that refuses, one whose answer is intercepted, a location that
/// denies, and a file with a status of its own. Each attempt is there, in order.
#[test]
fn error_page_chain() {
    let upstream = Upstream::start();
    let nginx = Nginx::with(
        "server { listen 127.0.0.1:{port}; root {prefix}/html; recursive_error_pages on;
                  location / { }
                  location /chain/ { error_page 502 = @second; proxy_pass http://127.0.0.1:9; }
                  location @second { proxy_intercept_errors on; error_page 404 = @third;
                                     proxy_pass http://127.0.0.1:{upstream}; }
                  location @third { error_page 403 =200 /page; deny all; } }",
        upstream.port,
    );
    nginx.file("page", b"sorry\n");
    let records = traced(nginx, |nginx| {
        let response = Client::connect(nginx.port).get("/chain/status-404");
        assert_eq!(
            (response.status, &response.body[..]),
            (200, &b"sorry\n"[..])
        );
    });
    let record = &records[0];
    record.assert_complete();
    assert_eq!(record.uri.as_deref(), Some("/page"));
    assert_eq!(record.place.location.as_deref(), Some("/"));
    assert_eq!(record.ending.end, Some(End::Ok));
    let attempts: Vec<_> = record
        .upstreams
        .iter()
        .map(|attempt| (attempt.status, attempt.failure))
        .collect();
    let refused = (Some(502), Some(Failure::ConnectError));
    assert_eq!(attempts, [refused, (Some(404), None)]);
}

/// Asks for a part of a file.
fn range(client: &mut Client, uri: &str, range: &str) -> Response {
    client.send(format!(
        "GET {uri} HTTP/1.1\r\nHost: t\r\nRange: bytes={range}\r\n\r\n"
    ));
    client.receive()
}

/// Check ranges of a file: one, several, one that is not satisfiable; and ranges that an upstream serves in
/// slices, of which each is a subrequest after the first.
#[test]
fn ranges() {
    let modules = ["http_slice_module", "http-cache"];
    if modules.into_iter().any(is_built_without) {
        return;
    }
    let origin = free_port().to_string();
    let http = "
        proxy_cache_path {prefix}/cache keys_zone=cache:1m;
        server { listen 127.0.0.1:{port}; root {prefix}/html;
                 location / { }
                 location /sliced { slice 4k; proxy_cache cache; proxy_cache_key $uri$slice_range;
                                    proxy_cache_valid 206 1h; proxy_set_header Range $slice_range;
                                    proxy_pass http://127.0.0.1:{origin}; } }
        server { listen 127.0.0.1:{origin}; access_log off; root {prefix}/html; }";
    let nginx = Nginx::with(&http.replace("{origin}", &origin), 9);
    nginx.file("file", &[b'x'; 1000]);
    nginx.file("sliced", &[b'x'; 20_000]);
    let tool = Tool::trace(nginx.pid());
    let mut client = Client::connect(nginx.port);
    let one = range(&mut client, "/file", "10-19");
    assert_eq!((one.status, one.body.len()), (206, 10));
    let two = range(&mut client, "/file", "0-9,20-29");
    assert!(two.header.contains("multipart/byteranges"), "{two:?}");
    assert_eq!(range(&mut client, "/file", "2000-").status, 416);
    let sliced = range(&mut client, "/sliced", "5000-9999");
    assert_eq!((sliced.status, sliced.body.len()), (206, 5000));
    let again = range(&mut client, "/sliced", "4096-4100");
    assert_eq!((again.status, again.body.len()), (206, 5));
    drop(client);
    let logged = nginx.quit();
    let ended = tool.wait();
    ended.assert_clean();
    let mut records = ended.records();
    /* The origin is in the same nginx, and logs nothing. */
    records
        .retain(|record| record.server_port.map(|port| port.to_string()) != Some(origin.clone()));
    assert_equal(&records, &logged);
    records.iter().for_each(assert_invariants);
    let statuses: Vec<_> = records.iter().filter_map(|record| record.status).collect();
    assert_eq!(statuses, [206, 206, 416, 206, 206]);
    assert_eq!(records[2].ending.end, Some(End::Rejected));
    let counts = |record: &Record| (record.upstreams.len(), record.subrequests.len());
    assert_eq!(counts(&records[3]), (1, 1), "{:#?}", records[3]);
    assert_eq!(counts(&records[4]), (0, 0), "{:#?}", records[4]);
}

/// Check a page of SSI that includes another one: the upstreams of both are subrequests of the one record.
#[test]
fn nested_ssi() {
    let upstream = Upstream::start();
    let nginx = Nginx::with(
        "server { listen 127.0.0.1:{port}; root {prefix}/html;
                  location / { ssi on; }
                  location /part/ { proxy_pass http://127.0.0.1:{upstream}; } }",
        upstream.port,
    );
    let include = |uri: &str| format!("<!--#include virtual=\"{uri}\" -->");
    let inner = format!("[{}]", include("/part/wait-20"));
    let outer = format!("{} {}", include("/inner.html"), include("/part/"));
    nginx.file("inner.html", inner.as_bytes());
    nginx.file("outer.html", outer.as_bytes());
    let records = traced(nginx, |nginx| {
        let page = Client::connect(nginx.port).get("/outer.html");
        assert_eq!(page.body, b"[xxx] xxx");
    });
    assert_eq!(records.len(), 1);
    let mut uris: Vec<_> = records[0]
        .subrequests
        .iter()
        .map(|sub| (sub.uri.as_deref().unwrap(), sub.status.unwrap()))
        .collect();
    uris.sort_unstable();
    assert_eq!(uris, [("/part/", 200), ("/part/wait-20", 200)]);
    assert_eq!(records[0].ending.end, Some(End::Ok));
}

/// Sends early hints, waits 40 ms, and answers.
fn hint(mut stream: TcpStream) -> std::io::Result<()> {
    read_head(&mut stream)?;
    stream.write_all(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n")?;
    delay(Duration::from_millis(40));
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
}

/// Check early hints, which nginx passes on since 1.29.0: they belong to the bytes of the response, and are not
/// its begin.
#[test]
fn early_hints() {
    if is_before((1, 29, 0), "early hints") {
        return;
    }
    let (http, port) = tls::with_port(
        "server { listen 127.0.0.1:{port}; listen 127.0.0.1:{tls} ssl; http2 on;
                  location / { early_hints 1; proxy_pass http://127.0.0.1:{upstream}; } }",
    );
    let nginx = Nginx::prepared(&http, listen(|stream| drop(hint(stream))), tls::certificate);
    let records = traced(nginx, |nginx| {
        let mut client = Client::connect(nginx.port);
        client.send("GET / HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
        let heard = String::from_utf8(client.rest()).unwrap();
        assert!(heard.starts_with("HTTP/1.1 103 "), "{heard}");
        assert!(heard.ends_with("\r\n\r\nhello"), "{heard}");
        let stream = Tls::begin(port, &TLS13, &["h2"]).finish().into_stream();
        let mut http = Http2::start(stream, 65_535);
        http.send(&http2::get(1, "/"));
        http.receive([1]);
    });
    assert_eq!(records.len(), 2);
    for record in &records {
        assert_eq!(
            (record.status, record.ending.end),
            (Some(200), Some(End::Ok))
        );
        let p = &record.phases;
        let first = p.downstream_response_first_byte_time;
        assert_delay(p.upstream_request_last_byte_time, first, 40);
    }
}
