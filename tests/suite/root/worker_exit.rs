// SPDX-License-Identifier: MIT OR Apache-2.0
//! Workers that end with requests in flight: each of these is seen, and lost.

use ngx_bpf_record::Ending;
use ngx_bpf_record::values::Cause;
use ngx_bpf_record::values::End;
use ngx_bpf_record::values::Part;
use ngx_bpf_record::values::Side;
use rustls::version::TLS13;

use crate::suite::common::client::Client;
use crate::suite::common::http2;
use crate::suite::common::http2::Http2;
use crate::suite::common::http3;
use crate::suite::common::http3::Http3;
use crate::suite::common::nginx::Config;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::program::kill;
use crate::suite::common::record::assert_equal;
use crate::suite::common::tls;
use crate::suite::common::tls::Tls;
use crate::suite::common::tool::Ended;
use crate::suite::common::tool::Tool;
use crate::suite::common::upstream::Upstream;

/// A server with an upstream that never answers.
const HTTP: &str = "
    server {
        listen 127.0.0.1:{port};
        listen 127.0.0.1:{tls} ssl http2;
        location / { return 200 'hello\\n'; }
        location /late { proxy_pass http://127.0.0.1:{upstream}/hang; }
    }";

/// Calls `end`, which ends the only worker, while the worker has two requests of HTTP/1, half a
/// header, two streams of HTTP/2, and idle connections. Returns the tool's output.
fn with_requests_in_flight(end: impl FnOnce(&Nginx)) -> Ended {
    let upstream = Upstream::start();
    let (http, port) = tls::with_port(HTTP);
    let nginx = Nginx::prepared(&http, upstream.port, tls::certificate);
    let tool = Tool::trace(nginx.pid());
    let tls = |protocol| Tls::begin(port, &TLS13, &[protocol]).finish();
    let mut idle = [Client::connect(nginx.port), tls("http/1.1").into_client()];
    for client in &mut idle {
        assert_eq!(client.get("/").status, 200);
    }
    let silent = Client::connect(nginx.port);
    let mut idle_http = Http2::start(tls("h2").into_stream(), 65535);
    idle_http.send(&http2::get(1, "/"));
    idle_http.receive([1]);
    /* A connection that its client has closed, with an alert that nginx has read. */
    let mut gone = tls("http/1.1").into_client();
    assert_eq!(gone.get("/").status, 200);
    drop(gone);
    let mut late = [Client::connect(nginx.port), tls("http/1.1").into_client()];
    for client in &mut late {
        client.send("GET /late HTTP/1.1\r\nHost: t\r\n\r\n");
    }
    let mut half = Client::connect(nginx.port);
    half.send("GET / HTTP/1.1\r\nHost: ");
    let mut http = Http2::start(tls("h2").into_stream(), 65535);
    http.send(&[http2::get(1, "/late"), http2::get(3, "/late")].concat());
    http.send(&http2::get(5, "/"));
    http.receive([5]);
    /* The worker answers this request, so it has read everything that was sent before. */
    for _ in 0..3 {
        assert_eq!(idle[0].get("/").status, 200);
    }
    nginx.wait_logged(8);
    end(&nginx);
    let ended = tool.stop();
    drop((silent, half, late, idle_http));
    ended
}

/// Asserts that exactly the requests in flight were lost.
fn assert_lost(ended: &Ended) {
    let summary = ended.summary();
    assert_eq!((summary.written, summary.lost), (8, 5), "{ended:?}");
    let lost = ended.lost();
    assert!(lost.iter().all(|lost| lost.cause == Cause::WorkerExit));
    assert_eq!(lost.iter().map(|lost| lost.count).sum::<u64>(), 5);
}

/// Check that requests in flight in a killed worker count as seen and as lost, and that idle
/// connections do not.
#[test]
fn killed() {
    assert_lost(&with_requests_in_flight(|nginx| {
        kill("KILL", nginx.workers()[0]);
        nginx.wait_for_worker();
    }));
}

/// Check the same for a worker that has to end at once.
#[test]
fn fast_shutdown() {
    assert_lost(&with_requests_in_flight(|nginx| {
        kill("TERM", nginx.workers()[0]);
        nginx.wait_for_log("exited with code 0");
    }));
}

/// Check the same for HTTP/3: a stream in flight is lost, and neither a stream that has ended nor
/// the connection is.
#[test]
fn killed_with_http3() {
    if http3::is_missing() {
        return;
    }
    let upstream = Upstream::start();
    let http = "server { listen 127.0.0.1:{port} quic; location / { return 200 'hello\\n'; }
        location /late { proxy_pass http://127.0.0.1:{upstream}/hang; } }";
    let http = [tls::DIRECTIVES, http].concat();
    let nginx = Nginx::prepared(&http, upstream.port, tls::certificate);
    let tool = Tool::trace(nginx.pid());
    let mut client = Http3::connect(nginx.port);
    client.get(0, "/late");
    client.get(4, "/");
    client.receive([4]);
    kill("KILL", nginx.workers()[0]);
    nginx.wait_for_worker();
    let summary = tool.stop().summary();
    assert_eq!((summary.written, summary.lost), (1, 1), "{summary:?}");
}

/// Check that a worker that ends after its last request loses none.
#[test]
fn graceful() {
    let nginx = Nginx::simple();
    let tool = Tool::trace(nginx.pid());
    let mut client = Client::connect(nginx.port);
    assert_eq!(client.get("/").status, 200);
    nginx.signal("HUP");
    nginx.wait_for_worker();
    drop(client);
    assert_eq!(Client::connect(nginx.port).get("/").status, 200);
    drop(nginx.quit());
    let ended = tool.wait();
    ended.assert_clean();
    assert_eq!(ended.summary().seen, 2);
}

/// Check requests that nginx itself ends when `worker_shutdown_timeout` has expired: each has a record
/// that says so, over HTTP/1 and over TLS.
#[test]
fn shutdown_timeout() {
    let upstream = Upstream::start();
    let (http, port) = tls::with_port(HTTP);
    let config = Config {
        http: &http,
        upstream: upstream.port,
        main: "worker_shutdown_timeout 300ms;",
        ..Config::default()
    };
    let nginx = Nginx::prepared_with(&config, tls::certificate);
    let tool = Tool::trace(nginx.pid());
    let tls = Tls::begin(port, &TLS13, &["http/1.1"]).finish();
    let mut late = [Client::connect(nginx.port), tls.into_client()];
    for client in &mut late {
        client.send("GET /late HTTP/1.1\r\nHost: t\r\n\r\n");
    }
    /* The worker answers this request, so it has read everything that was sent before. */
    for _ in 0..3 {
        assert_eq!(Client::connect(nginx.port).get("/").status, 200);
    }
    nginx.signal("HUP");
    for client in &mut late {
        client.rest();
    }
    let logged = nginx.quit();
    let ended = tool.wait();
    ended.assert_clean();
    let records = ended.records();
    assert_equal(&records, &logged);
    let late = records.iter().filter(|r| r.uri.as_deref() == Some("/late"));
    let ends: Vec<_> = late.map(|record| record.ending.clone()).collect();
    let expected = Ending {
        end: Some(End::WorkerExit),
        closed_by: Some(Side::Nginx),
        last_phase: Some(Part::UpstreamWait),
        ..Ending::default()
    };
    assert_eq!(ends, [expected.clone(), expected]);
}
