// SPDX-License-Identifier: MIT OR Apache-2.0
//! Workers that end with requests in flight: each of these has a record that says so.

use std::fs;

use ngx_bpf_record::Attempt;
use ngx_bpf_record::Ending;
use ngx_bpf_record::values::Alpn;
use ngx_bpf_record::values::End;
use ngx_bpf_record::values::Part;
use ngx_bpf_record::values::Scheme;
use ngx_bpf_record::values::Side;
use rustls::version::TLS13;

use crate::suite::common::build::is_built_with;
use crate::suite::common::client::Client;
use crate::suite::common::http2;
use crate::suite::common::http2::Http2;
use crate::suite::common::http3;
use crate::suite::common::http3::Http3;
use crate::suite::common::nginx::Config;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::program::kill;
use crate::suite::common::record::Record;
use crate::suite::common::record::assert_equal;
use crate::suite::common::tls;
use crate::suite::common::tls::Tls;
use crate::suite::common::tool::Ended;
use crate::suite::common::tool::Tool;
use crate::suite::common::upstream::Upstream;

/// Connections that are tunnels by then.
mod tunnels;

/// A server with an upstream that never answers.
const HTTP: &str = "
    server {
        listen 127.0.0.1:{port};
        listen 127.0.0.1:{tls} ssl http2;
        location / { return 200 'hello\\n'; }
        location /late { proxy_pass http://127.0.0.1:{upstream}/hang; }
    }";

/// Calls `end`, which ends the only worker, while the worker has two requests of HTTP/1, half a
/// header, two streams of HTTP/2, and idle connections. Returns the tool's output, and the records of the
/// requests that the worker did not end.
fn with_requests_in_flight(options: &[&str], end: impl FnOnce(&Nginx)) -> (Ended, Vec<Record>) {
    let upstream = Upstream::start();
    let (http, port) = tls::with_port(HTTP);
    let nginx = Nginx::prepared(&http, upstream.port, tls::certificate);
    let pid = nginx.pid().to_string();
    let tool = Tool::start(&[&["-p", &pid, "--json"], options].concat(), 1);
    let worker = nginx.workers()[0];
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
    ended.assert_clean();
    let (abandoned, whole): (Vec<_>, Vec<_>) = ended.records().into_iter().partition(is_abandoned);
    if options.is_empty() {
        assert_equal(&whole, &nginx.logged());
    }
    for record in &abandoned {
        assert_eq!(record.pid, worker, "{record:#?}");
        assert_eq!(record.ending.closed_by, Some(Side::Nginx), "{record:#?}");
    }
    (ended, abandoned)
}

/// Returns whether the worker of a request ended before the request did.
fn is_abandoned(record: &Record) -> bool {
    record.ending.end == Some(End::WorkerExit)
}

/// Kills the only worker of nginx.
fn kill_worker(nginx: &Nginx) {
    kill("KILL", nginx.workers()[0]);
    nginx.wait_for_worker();
}

/// Asserts that each request in flight has a record with what is known of it, and that nothing else has
/// one: neither idle connections nor those on which nothing was sent.
fn assert_reported(ended: &Ended, abandoned: &[Record]) {
    let summary = ended.summary();
    assert_eq!((summary.seen, summary.written), (13, 13), "{ended:?}");
    assert_eq!(abandoned.len(), 5, "{abandoned:#?}");
    let of_http2 = |record: &&Record| record.tls.alpn == Some(Alpn::H2);
    assert_eq!(abandoned.iter().filter(of_http2).count(), 2);
    let encrypted = abandoned
        .iter()
        .filter(|record| record.scheme == Scheme::Https);
    assert_eq!(encrypted.count(), 3);
    let connected = abandoned
        .iter()
        .filter(|record| record.phases.upstream_connect_time.is_some());
    assert_eq!(connected.count(), 4);
    for record in abandoned {
        let client = record.remote_addr.as_ref().or(record.peer_addr.as_ref());
        assert_eq!(
            client.map(|client| &**client),
            Some("127.0.0.1"),
            "{record:#?}"
        );
        assert!(
            record.server_port.is_some() && !record.partial,
            "{record:#?}"
        );
        assert!(record.downstream_accept_time.is_some(), "{record:#?}");
        let phases = &record.phases;
        assert!(
            phases.downstream_request_first_byte_time.is_some(),
            "{record:#?}"
        );
        assert!(
            phases.downstream_response_first_byte_time.is_none(),
            "{record:#?}"
        );
        assert!(
            phases.upstream_response_first_byte_time.is_none(),
            "{record:#?}"
        );
        assert!(record.elapsed_ns.is_some_and(|ns| ns > 0), "{record:#?}");
        assert_eq!(
            (record.duration_ns, record.status),
            (None, None),
            "{record:#?}"
        );
        /* A stream of HTTP/2 is found by its entry alone. */
        if has_memory_at_exit() && record.tls.alpn != Some(Alpn::H2) {
            assert_read(record);
        } else {
            assert_unread(record);
        }
    }
}

/// Asserts that only what BPF has kept of a request is known.
fn assert_unread(record: &Record) {
    let texts = [
        &record.request_uri,
        &record.request_method,
        &record.remote_addr,
    ];
    assert!(texts.iter().all(|text| text.is_none()), "{record:#?}");
    let sizes = [record.request_size, record.response_size];
    assert_eq!((record.connection, sizes), (None, [None; 2]), "{record:#?}");
}

/// Asserts that a request was read from nginx's memory: half a header, or a request that waits for its upstream.
fn assert_read(record: &Record) {
    let (uri, part) = match record.phases.upstream_connect_time {
        Some(_) => ("/late", Part::UpstreamWait),
        None => ("/", Part::ClientRequest),
    };
    let addr = record.remote_addr.as_deref();
    assert_eq!(addr, Some("127.0.0.1"), "{record:#?}");
    assert_eq!(record.request_uri.as_deref(), Some(uri), "{record:#?}");
    assert_eq!(record.request_method.as_deref(), Some("GET"));
    assert_eq!(record.ending.last_phase, Some(part), "{record:#?}");
    assert!(record.connection.is_some() && record.request_size.is_some());
    let numbers = (record.connection_requests, record.response_size);
    assert_eq!(numbers, (Some(1), Some(0)), "{record:#?}");
    let attempts = &record.upstreams;
    assert_eq!(attempts.len(), usize::from(part == Part::UpstreamWait));
    let is_known = |attempt: &Attempt<'_>| {
        let is_sent = attempt.upstream_request_first_byte_time.is_some();
        /* nginx frees its configuration, and musl gives that memory back to the kernel. */
        let is_addr_known = attempt.addr.is_some() || is_built_with("musl-cc");
        is_addr_known && is_sent && attempt.failure.is_none()
    };
    assert!(attempts.iter().all(is_known), "{record:#?}");
}

/// Returns whether the kernel keeps the memory of a process until it has said that it ends: since Linux 6.16.
fn has_memory_at_exit() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release
        .split('.')
        .map_while(|number| number.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(6), Some(16))
}

/// Check that requests in flight in a killed worker have records, and that idle connections have none.
#[test]
fn killed() {
    let (ended, abandoned) = with_requests_in_flight(&[], kill_worker);
    assert_reported(&ended, &abandoned);
}

/// Check the same for a worker that has to end at once.
#[test]
fn fast_shutdown() {
    let (ended, abandoned) = with_requests_in_flight(&[], |nginx| {
        kill("TERM", nginx.workers()[0]);
        nginx.wait_for_log("exited with code 0");
    });
    assert_reported(&ended, &abandoned);
}

/// Check that filters apply: such a request has no status, and it has failed.
#[test]
fn filtered() {
    for (options, written) in [
        (&["--status", "100-999"][..], 8),
        (&["--min-duration", "1h"], 0),
        (&["--failed"], 5),
    ] {
        let (ended, abandoned) = with_requests_in_flight(options, kill_worker);
        let summary = ended.summary();
        assert_eq!((summary.seen, summary.written), (13, written), "{ended:?}");
        let reported = if options == ["--failed"] { 5 } else { 0 };
        assert_eq!(abandoned.len(), reported, "{abandoned:#?}");
    }
}

/// Check the same for HTTP/3: a stream in flight has a record, and neither a stream that has ended nor
/// the connection has another one.
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
    kill_worker(&nginx);
    let ended = tool.stop();
    ended.assert_clean();
    let (abandoned, whole): (Vec<_>, Vec<_>) = ended.records().into_iter().partition(is_abandoned);
    assert_eq!((abandoned.len(), whole.len()), (1, 1), "{ended:?}");
    assert_eq!(abandoned[0].tls.alpn, Some(Alpn::H3));
    assert!(abandoned[0].elapsed_ns.is_some(), "{abandoned:#?}");
    if has_memory_at_exit() {
        assert_read(&abandoned[0]);
    } else {
        assert_unread(&abandoned[0]);
    }
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
