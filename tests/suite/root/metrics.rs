// SPDX-License-Identifier: MIT OR Apache-2.0
//! `--metrics`, scraped by a real Prometheus.

use std::fs;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use serde_json::Value;

use crate::suite::common::PATIENCE;
use crate::suite::common::client::Client;
use crate::suite::common::client::Response;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::ports::free_port;
use crate::suite::common::tool::Tool;
use crate::suite::common::upstream::Upstream;

/// A server with two upstreams, of which one does not listen.
const HTTP: &str = "
    upstream app { server 127.0.0.1:9; server 127.0.0.1:{upstream}; }
    server { listen 127.0.0.1:{port};
             location /static { return 204; }
             location / { proxy_pass http://app; } }";

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
pub fn wait_for(line: &str, mut text: impl FnMut() -> String) {
    let end = Instant::now() + PATIENCE;
    loop {
        let text = text();
        if text.lines().any(|found| found == line) {
            return;
        }
        assert!(Instant::now() < end, "no {line}:\n{text}");
        std::thread::yield_now();
    }
}

/// A Prometheus in the foreground, with files and a port of its own, that scrapes one target.
struct Prometheus {
    child: Child,
    /// The port of its API.
    port: u16,
    _folder: tempfile::TempDir,
}

impl Prometheus {
    /// Starts one that scrapes this port ten times a second. When there is no Prometheus on this
    /// machine, prints SKIP and returns `None`.
    fn start(target: u16) -> Option<Self> {
        let program = Path::new("/usr/bin/prometheus");
        if !program.exists() {
            println!("SKIP this machine: Prometheus is not installed");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("prometheus.yml");
        let text = format!(
            "{{global: {{scrape_interval: 100ms, scrape_timeout: 100ms}}, scrape_configs: [\
             {{job_name: ngx-bpf, static_configs: [{{targets: ['127.0.0.1:{target}']}}]}}]}}"
        );
        fs::write(&config, text).unwrap();
        let port = free_port();
        let child = Command::new(program)
            .arg(format!("--config.file={}", config.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                folder.path().join("data").display()
            ))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let end = Instant::now() + PATIENCE;
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < end, "Prometheus does not listen");
            std::thread::yield_now();
        }
        Some(Self {
            child,
            port,
            _folder: folder,
        })
    }

    /// Returns the results of a query, or an error when Prometheus does not understand it.
    fn query(&self, query: &str) -> Vec<Value> {
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let response = ask(self.port, &format!("GET /api/v1/query?query={encoded}"));
        let answer: Value = serde_json::from_slice(&response.body).unwrap_or_default();
        if response.status == 503 {
            return Vec::new(); /* Prometheus is not ready yet */
        }
        assert_eq!(answer["status"], "success", "{query}: {answer}");
        answer["data"]["result"].as_array().unwrap().clone()
    }

    /// Waits until a query has this value.
    fn wait_for(&self, query: &str, value: &str) {
        let end = Instant::now() + PATIENCE;
        loop {
            let results = self.query(query);
            let values: Vec<_> = results.iter().map(|result| &result["value"][1]).collect();
            if values == [value] {
                return;
            }
            assert!(Instant::now() < end, "{query}: {values:?}");
            std::thread::yield_now();
        }
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asserts that Prometheus understands every query of the dashboard, and has a result for it.
fn assert_dashboard(prometheus: &Prometheus) {
    let dashboard = include_str!("../../../packaging/grafana/ngx-bpf.json");
    let dashboard: Value = serde_json::from_str(dashboard).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels
        .iter()
        .flat_map(|panel| panel["targets"].as_array().unwrap());
    let mut count = 0;
    for target in targets {
        let query = target["expr"].as_str().unwrap();
        let query = query.replace("$__rate_interval", "1m");
        let query = query.replace("$instance", ".*").replace("$upstream", ".*");
        assert!(!query.contains("$_"), "{query}");
        assert!(!prometheus.query(&query).is_empty(), "{query}");
        count += 1;
    }
    assert!(count >= 10, "{count} queries");
}

/// Traces an nginx, and serves metrics. Returns their port, too.
fn with_metrics(nginx: &Nginx) -> (Tool, u16) {
    let (pid, port) = (nginx.pid().to_string(), free_port());
    let args = ["--json", "--pid", &pid, "--metrics", &port.to_string()];
    (Tool::start(&args, 1), port)
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
        "--route",
        "static=/static*",
        "--route",
        "status=/status-*",
    ];
    let tool = Tool::start(&args, 1);
    let Some(prometheus) = Prometheus::start(port) else {
        return;
    };
    prometheus.wait_for("ngx_bpf_traced_binaries", "1");
    let mut client = Client::connect(nginx.port);
    for _ in 0..4 {
        client.get("/static");
        client.get("/wait-20");
        client.get("/status-503");
    }
    prometheus.wait_for("sum(nginx_http_requests_total)", "12");
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
    /* A rate needs two points, so the counters change once more. */
    for _ in 0..4 {
        client.get("/static");
        client.get("/status-503");
    }
    prometheus.wait_for("sum(nginx_http_requests_total)", "20");
    assert_dashboard(&prometheus);
    drop(prometheus);
    drop(nginx);
    tool.wait().assert_clean();
}

/// Check the server itself: it serves the metrics, a line that names their path, and nothing else.
#[test]
fn served_to_few() {
    let nginx = Nginx::simple();
    let (tool, port) = with_metrics(&nginx);
    wait_for("ngx_bpf_traced_binaries 1", || served(port));
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
    wait_for(
        "nginx_http_requests_total{upstream=\"none\",status=\"2xx\",location=\"/static\",\
         server_name=\"none\",upstream_name=\"none\"} 1",
        || served(port),
    );
    let text = served(port);
    assert!(text.contains("phase=\"client_response\""), "{text}");
    assert!(!text.contains("phase=\"upstream_"), "{text}");
    assert!(!text.contains("phase=\"before_upstream\""), "{text}");
    Client::connect(nginx.port).get("/x");
    let expected = format!(
        "nginx_http_requests_total{{upstream=\"127.0.0.1:{}\",status=\"2xx\",location=\"/\",\
         server_name=\"none\",upstream_name=\"app\"}} 1",
        upstream.port
    );
    wait_for(&expected, || served(port));
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
