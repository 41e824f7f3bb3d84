// SPDX-License-Identifier: MIT OR Apache-2.0
//! `--stats`: nginx's own counters, which are an outside witness of how many requests there were.

use std::collections::BTreeMap;
use std::fs;

use rustls::version::TLS13;

use crate::suite::common::build::is_built_with;
use crate::suite::common::client::Client;
use crate::suite::common::http2;
use crate::suite::common::http2::Http2;
use crate::suite::common::nginx::Config;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::ports::free_port;
use crate::suite::common::tls;
use crate::suite::common::tls::Tls;
use crate::suite::common::tool::Tool;
use crate::suite::root::metrics::served;
use crate::suite::root::metrics::wait_line;

/// The module that counts.
const MODULE: &str = "http_stub_status_module";

/// A server without the page of `stub_status`, for the builds that do not have it.
const PLAIN: &str = "
    server { listen 127.0.0.1:{port}; listen 127.0.0.1:{tls} ssl http2;
             location / { root {prefix}/html; } }";

/// A server that shows nginx's counters.
const HTTP: &str = "
    server { listen 127.0.0.1:{port}; listen 127.0.0.1:{tls} ssl http2;
             location / { root {prefix}/html; }
             location /status { stub_status; } }";

/// Traces an nginx with metrics and nginx's own counters. Returns the port of the metrics, too.
fn with_stats(nginx: &Nginx) -> (Tool, u16) {
    let (pid, port) = (nginx.pid().to_string(), free_port().to_string());
    let tool = Tool::start(&["--json", "--pid", &pid, "--metrics", &port, "--stats"], 1);
    (tool, port.parse().unwrap())
}

/// Returns the line of a metric of an nginx.
fn line(nginx: &Nginx, metric: &str, value: u64) -> String {
    format!("nginx_{metric}{{pid=\"{}\"}} {value}", nginx.pid())
}

/// Reads the numbers of a page of `stub_status`, which has seven of them.
fn page(client: &mut Client) -> BTreeMap<&'static str, u64> {
    let response = client.get("/status");
    assert_eq!(response.status, 200);
    let page = String::from_utf8(response.body).unwrap();
    let numbers = page.split_whitespace().filter_map(|word| word.parse().ok());
    let names = [
        "connections_active",
        "connections_accepted",
        "connections_handled",
        "requests",
        "connections_reading",
        "connections_writing",
        "connections_waiting",
    ];
    names.into_iter().zip(numbers).collect()
}

/// Check that the metrics equal what nginx's own page shows, with connections that wait and one whose
/// header is incomplete, and that they are gone when nginx has ended.
#[test]
fn equal_to_page() {
    if !is_built_with(MODULE) {
        return none_without_module();
    }
    let (http, _tls) = tls::with_port(HTTP);
    let nginx = Nginx::prepared(&http, 0, tls::certificate);
    let (tool, port) = with_stats(&nginx);
    let mut waiting: Vec<_> = (0..3).map(|_| Client::connect(nginx.port)).collect();
    for client in &mut waiting {
        client.get("/");
    }
    let mut reading = Client::connect(nginx.port);
    reading.send("GET / HTTP/1.1\r\nHost: ");
    for metric in ["connections_active", "connections_accepted"] {
        wait_line(&line(&nginx, metric, 4), || served(port));
    }
    wait_line(&line(&nginx, "connections_reading", 1), || served(port));
    let mut shown = page(&mut waiting[0]);
    assert_eq!(shown.len(), 7);
    /* The request of the page is over, and its connection waits again. */
    *shown.get_mut("connections_writing").unwrap() -= 1;
    *shown.get_mut("connections_waiting").unwrap() += 1;
    assert_eq!(shown["requests"], 5);
    for (metric, value) in shown {
        wait_line(&line(&nginx, metric, value), || served(port));
    }
    drop((waiting, reading));
    wait_line(&line(&nginx, "connections_active", 0), || served(port));
    nginx.quit();
    tool.wait().assert_clean();
}

/// Check that a build without the module has no such metrics, not even with 0.
fn none_without_module() {
    let nginx = Nginx::simple();
    let (tool, port) = with_stats(&nginx);
    Client::connect(nginx.port).get("/");
    wait_line("ngx_bpf_requests_seen_total 1", || served(port));
    assert!(!served(port).contains("nginx_connections_active{"));
    drop(nginx);
    let ended = tool.wait();
    ended.assert_clean();
    let says = |line: &&String| line.contains("--stats shows nothing of ");
    assert_eq!(
        ended.stderr.iter().filter(says).count(),
        1,
        "{:?}",
        ended.stderr
    );
}

/// Check the loss equation by nginx's own number of requests: over several protocols, with pipelined
/// requests, requests that are no HTTP and requests that clients leave, each is seen once.
#[test]
fn witness() {
    if !is_built_with(MODULE) {
        return none_without_module();
    }
    let (http, tls_port) = tls::with_port(PLAIN);
    let nginx = Nginx::prepared(&http, 0, tls::certificate);
    nginx.file("file", &[b'x'; 1 << 20]);
    let (tool, port) = with_stats(&nginx);
    let mut client = Client::connect(nginx.port);
    client.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n".repeat(20));
    (0..20).for_each(|_| drop(client.receive()));
    Client::connect(nginx.port).send("GET /file HTTP/1.1\r\nHost: t\r\n\r\n");
    let mut broken = Client::connect(nginx.port);
    broken.send("no HTTP\r\n\r\n");
    broken.rest();
    let mut tls = Tls::begin(tls_port, &TLS13, &["http/1.1"])
        .finish()
        .into_client();
    assert_eq!(tls.get("/file").status, 200);
    let h2 = Tls::begin(tls_port, &TLS13, &["h2"]).finish();
    let mut h2 = Http2::start(h2.into_stream(), 65535);
    h2.send(&[http2::get(1, "/"), http2::get(3, "/x")].concat());
    h2.receive([1, 3]);
    drop((h2, tls, client));
    wait_line(&line(&nginx, "requests", 25), || served(port));
    wait_line("ngx_bpf_requests_seen_total 25", || served(port));
    wait_line("ngx_bpf_requests_written_total 25", || served(port));
    drop(nginx);
    let ended = tool.wait();
    ended.assert_clean();
    assert_eq!(ended.records().len(), 25);
}

/// Check that what nginx has accepted and not handled are the connections for which it had none of its
/// `worker_connections`: one for each such line of its error log, and one for each client that was closed at once.
#[test]
fn exhausted() {
    if !is_built_with(MODULE) {
        return none_without_module();
    }
    let nginx = Nginx::start(&Config {
        connections: 32,
        main: "error_log {prefix}/alerts.log alert;",
        http: "server { listen 127.0.0.1:{port} deferred; location / { return 200; } }",
        ..Config::default()
    });
    let (tool, port) = with_stats(&nginx);
    /* nginx may close a connection that has sent nothing (ngx_drain_connections()): with `deferred` there is none. */
    let clients = (0..40).map(|_| {
        let mut client = Client::connect(nginx.port);
        client.try_send("GET / HTTP/1.1\r\nHost: t\r\n");
        client
    });
    let mut clients: Vec<_> = clients.collect();
    wait_line(&line(&nginx, "connections_accepted", 40), || served(port));
    let log = || fs::read_to_string(nginx.prefix().join("alerts.log")).unwrap();
    let refused = log()
        .matches("32 worker_connections are not enough")
        .count();
    assert!((8..40).contains(&refused), "{}", log());
    let handled = 40 - refused as u64;
    wait_line(&line(&nginx, "connections_handled", handled), || {
        served(port)
    });
    let mut answered = 0;
    for client in &mut clients {
        client.try_send("Connection: close\r\n\r\n");
        answered += u64::from(client.rest().starts_with(b"HTTP/1.1 200"));
    }
    assert_eq!(answered, handled);
    drop(nginx);
    tool.wait().assert_clean();
}
