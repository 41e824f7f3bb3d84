// SPDX-License-Identifier: MIT OR Apache-2.0
//! `--metrics`, scraped by a real Prometheus.

use std::process::Command;
use std::time::Duration;
use std::time::Instant;

use ngx_bpf_record::format::escape::is_unsafe;

use crate::suite::common::build::is_built_with;
use crate::suite::common::client::Client;
use crate::suite::common::client::Response;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::ports::free_port;
use crate::suite::common::tool::Tool;
use crate::suite::common::upstream::Upstream;
use crate::suite::common::wait_for;
use prometheus::Prometheus;
use prometheus::Scraped;

/// The queries of the dashboards and the alerts, under a mixed load.
mod dashboards;
/// A Prometheus that scrapes the tool.
mod prometheus;

/// A server with two upstreams, of which one does not listen, and a location that has only that one.
const HTTP: &str = "
    upstream app { server 127.0.0.1:9; server 127.0.0.1:{upstream}; }
    server { listen 127.0.0.1:{port};
             location /static { return 204; }
             location /refused { proxy_pass http://127.0.0.1:9; }
             location / { proxy_pass http://app; } }";

/// The module of nginx that counts for `--stats`.
const STATS_MODULE: &str = "http_stub_status_module";

/// Sends a request to the tool.
fn ask(port: u16, request: &str) -> Response {
    let mut client = Client::connect(port);
    client.send(format!("{request} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    client.receive_to(request.starts_with("HEAD"))
}

/// Returns the metrics that a tool serves.
pub fn served(port: u16) -> String {
    let response = ask(port, "GET /metrics");
    assert_eq!(response.status, 200);
    String::from_utf8(response.body).unwrap()
}

/// Waits until a text has a line.
pub fn wait_line(line: &str, mut text: impl FnMut() -> String) {
    wait_for(|| {
        let text = text();
        if text.lines().any(|found| found == line) {
            return Ok(());
        }
        Err(format!("no {line}:\n{text}"))
    });
}

/// Traces an nginx, and serves metrics. Returns their port, too.
pub fn with_metrics(nginx: &Nginx) -> (Tool, u16) {
    let (pid, port) = (nginx.pid().to_string(), free_port());
    let args = ["--json", "--pid", &pid, "--metrics", &port.to_string()];
    (Tool::start(&args, 1), port)
}

/// Sends requests for each of these uris, four times.
fn send(nginx: &Nginx, uris: &[&str]) {
    let mut client = Client::connect(nginx.port);
    for uri in uris.repeat(4) {
        client.get(uri);
    }
}

/// Check that Prometheus accepts the metrics, and that they equal nginx's log.
#[test]
fn scraped() {
    let upstream = Upstream::start();
    let nginx = Nginx::with(HTTP, upstream.port);
    let port = free_port();
    let args = [
        "--pid",
        &nginx.pid().to_string(),
        "--json",
        "--metrics",
        &port.to_string(),
        "--stats",
        "--route",
        "static=/static*",
        "--route",
        "status=/status-*",
    ];
    let tool = Tool::start(&args, 1);
    let Some(prometheus) = Prometheus::start(&[("ngx-bpf", port)], Scraped::Text) else {
        return;
    };
    prometheus.wait_for("ngx_bpf_traced_binaries", "1");
    send(&nginx, &["/static", "/wait-20", "/status-503", "/refused"]);
    prometheus.wait_for("sum(nginx_http_requests_total)", "16");
    prometheus.wait_for(
        "sum(nginx_http_request_ends_total{end=\"upstream_failed\",last_phase=\"upstream_connect\"})",
        "4",
    );
    prometheus.wait_for(
        "sum(nginx_http_requests_total{status=\"5xx\",route=\"status\"})",
        "4",
    );
    prometheus.wait_for(
        "sum(nginx_http_requests_total{upstream=\"none\",route=\"static\"})",
        "4",
    );
    let waited = "sum(nginx_http_request_phase_seconds_count{phase=\"upstream_wait\"}) \
                  - sum(nginx_http_request_phase_seconds_bucket{phase=\"upstream_wait\",le=\"0.01\"}) >= bool 4";
    prometheus.wait_for(waited, "1");
    prometheus.wait_for("sum(ngx_bpf_requests_lost_total)", "0");
    let failed = "sum(nginx_http_upstream_failures_total{upstream=\"127.0.0.1:9\"}) > 0";
    assert_eq!(prometheus.query(failed).len(), 1);
    if is_built_with(STATS_MODULE) {
        prometheus.wait_for("sum(nginx_requests)", "16");
    }
    drop(prometheus);
    drop(nginx);
    tool.wait().assert_clean();
}

/// Check that no byte of a name in a scrape controls a terminal, and that Prometheus reads the name as it stands
/// in lines of text.
#[test]
fn hostile_names() {
    let nginx = Nginx::with(
        "server { listen 127.0.0.1:{port}; server_name 'a\u{1b}[2jb';
                  location '/\u{202e}\u{7}\"' { root {prefix}/html; } }",
        0,
    );
    let (tool, port) = with_metrics(&nginx);
    let prometheus = Prometheus::start(&[("ngx-bpf", port)], Scraped::Text);
    Client::connect(nginx.port).get("/%E2%80%AE%07%22");
    let labels = r#"location="/\\u{202e}\\x07\"",server_name="a\\x1b[2jb",upstream_name="none",cache="none""#;
    let line = format!("nginx_http_requests_total{{upstream=\"none\",status=\"4xx\",{labels}}} 1");
    wait_line(&line, || served(port));
    assert!(!served(port).chars().any(|c| c != '\n' && is_unsafe(c)));
    if let Some(prometheus) = prometheus {
        prometheus.wait_for(&format!("nginx_http_requests_total{{{labels}}}"), "1");
    }
    drop(nginx);
    tool.wait().assert_clean();
}

/// Check the server itself: it serves the metrics, a line that names their path, and nothing else.
#[test]
fn served_to_few() {
    let nginx = Nginx::simple();
    let (tool, port) = with_metrics(&nginx);
    wait_line("ngx_bpf_traced_binaries 1", || served(port));
    assert!(served(port).ends_with("# EOF\n"));
    assert_eq!(ask(port, "GET /metrics?a=b").status, 200);
    let root = ask(port, "GET /");
    assert_eq!(root.status, 200);
    assert_eq!(root.body, b"ngx-bpf: the metrics are at /metrics\n");
    for request in ["HEAD /metrics", "HEAD /"] {
        let mut client = Client::connect(port);
        client.send(format!("{request} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        let answer = String::from_utf8(client.rest()).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.ends_with("\r\n\r\n"), "{answer}");
        let length = answer.split("Content-Length: ").nth(1).unwrap();
        assert!(!length.starts_with('0'), "{answer}");
    }
    assert_eq!(ask(port, "GET /x").status, 404);
    let mut client = Client::connect(port);
    client.send("POST /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello");
    let answer = String::from_utf8(client.rest()).unwrap();
    assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
    assert!(answer.contains("\r\nAllow: GET, HEAD\r\n"), "{answer}");
    let mut large = Client::connect(port);
    large.send("GET /".to_owned() + &"x".repeat(8200));
    assert!(large.rest().starts_with(b"HTTP/1.1 431 "));
    served(port);
    drop(nginx);
    tool.wait().assert_clean();
}

/// Check that a page whose own name resolves to this address is refused, and that the names and
/// addresses of the listener are not.
#[test]
fn names_of_others() {
    let nginx = Nginx::simple();
    let (tool, port) = with_metrics(&nginx);
    let status = |hosts: &str| {
        let mut client = Client::connect(port);
        client.send(format!("GET /metrics HTTP/1.1\r\n{hosts}\r\n"));
        client.receive().status
    };
    assert_eq!(status("Host: localhost:1\r\n"), 200);
    assert_eq!(status("Host: 127.0.0.1\r\n"), 200);
    assert_eq!(status("Host: [::1]:9913\r\n"), 200);
    assert_eq!(status("Host: rebound.example:9913\r\n"), 421);
    assert_eq!(status("Host: localhost\r\nHost: rebound.example\r\n"), 421);
    assert_eq!(status("Host: 192.0.2.1\r\n"), 421);
    drop(nginx);
    tool.wait().assert_clean();
}

/// Check that clients that are slow, idle, or do not read delay no one, however many they are, and
/// that each of them is disconnected.
#[test]
fn slow_scrapers() {
    let nginx = Nginx::simple();
    let (tool, port) = with_metrics(&nginx);
    let start = Instant::now();
    let mut idle: Vec<_> = (0..40).map(|_| Client::connect(port)).collect();
    for client in &mut idle[..20] {
        client.send("GET /metrics HTTP/1.1\r\nHost: local");
    }
    for _ in 0..5 {
        served(port);
    }
    let took = start.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");
    for client in &mut idle {
        assert!(client.rest().is_empty());
    }
    drop(nginx);
    tool.wait().assert_clean();
}

/// Check that there are no impossible series: a request that nginx itself answered has no times of
/// an upstream.
#[test]
fn no_impossible_series() {
    let upstream = Upstream::start();
    let nginx = Nginx::with(HTTP, upstream.port);
    let (tool, port) = with_metrics(&nginx);
    Client::connect(nginx.port).get("/static");
    wait_line(
        "nginx_http_requests_total{upstream=\"none\",status=\"2xx\",location=\"/static\",\
         server_name=\"none\",upstream_name=\"none\",cache=\"none\"} 1",
        || served(port),
    );
    let text = served(port);
    assert!(text.contains("phase=\"client_response\""), "{text}");
    assert!(!text.contains("phase=\"upstream_"), "{text}");
    assert!(!text.contains("phase=\"before_upstream\""), "{text}");
    Client::connect(nginx.port).get("/x");
    let expected = format!(
        "nginx_http_requests_total{{upstream=\"127.0.0.1:{}\",status=\"2xx\",location=\"/\",\
         server_name=\"none\",upstream_name=\"app\",cache=\"none\"}} 1",
        upstream.port
    );
    wait_line(&expected, || served(port));
    drop(nginx);
    tool.wait().assert_clean();
}

/// Check that a port that is in use is an error before anything is traced.
#[test]
fn port_taken() {
    let nginx = Nginx::simple();
    let (pid, port) = (nginx.pid().to_string(), nginx.port.to_string());
    let output = Command::new(crate::suite::common::tool::PROGRAM)
        .args(["--pid", &pid, "--metrics", &port])
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    let expected =
        format!("ngx-bpf: failed to serve metrics at 127.0.0.1:{port}: Address already in use");
    assert!(stderr.starts_with(&expected), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
}
