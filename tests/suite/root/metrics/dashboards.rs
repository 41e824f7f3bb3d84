// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every query of the dashboards and of the alerts, answered by two real Prometheus: one scrapes text, the other one
//! protobuf with native histograms. Both scrape a tool with either names, which trace one nginx under a mixed load.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::STATS_MODULE;
use super::prometheus::Prometheus;
use super::prometheus::Scraped;
use crate::suite::common::build::is_built_with;
use crate::suite::common::client::Client;
use crate::suite::common::delay;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::ports::free_port;
use crate::suite::common::program::kill;
use crate::suite::common::program::stop;
use crate::suite::common::tool::Tool;
use crate::suite::common::upstream::Upstream;
use crate::suite::common::wait_for;
use crate::suite::common::wait_until;
use crate::suite::root::listeners;
use crate::suite::root::tunnels;

/// The dashboards, and whether their metrics have OpenTelemetry's names.
const DASHBOARDS: [(&str, &str); 2] = [
    (
        "nginx",
        include_str!("../../../../packaging/grafana/ngx-bpf.json"),
    ),
    (
        "otel",
        include_str!("../../../../packaging/grafana/ngx-bpf-otel.json"),
    ),
];

/// A server with retries, a cache, a tunnel and a location that fails.
const HTTP: &str = "
    proxy_cache_path {prefix}/cache keys_zone=one:1m;
    upstream app { server 127.0.0.1:9 max_fails=0; server 127.0.0.1:{upstream}; keepalive 4; }
    server { listen 127.0.0.1:{port}; server_name shop;
             proxy_http_version 1.1; proxy_set_header Connection '';
             location /static { return 204; }
             location /refused { proxy_pass http://127.0.0.1:9; }
             location /cached/ { proxy_cache one; proxy_cache_valid 200 1h; proxy_pass http://app; }
             location = / { proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade;
                            proxy_pass http://127.0.0.1:TUNNEL; }
             location / { proxy_pass http://app; } }";

/// A trace that is sampled, and one that is not.
const SAMPLED: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const UNSAMPLED: &str = "0af7651916cd43dd8448eb211c80319c";

/// Sends each kind of request once, and blocks the worker.
fn send(port: u16, worker: u32) {
    let mut client = Client::connect(port);
    for uri in [
        "/static",
        "/wait-20",
        "/status-503",
        "/refused",
        "/cached/x",
    ] {
        for (trace, flags) in [(SAMPLED, "01"), (UNSAMPLED, "00")] {
            client.send(format!(
                "GET {uri} HTTP/1.1\r\nHost: t\r\ntraceparent: 00-{trace}-00f067aa0ba902b7-{flags}\r\n\r\n"
            ));
            client.receive();
        }
    }
    drop(tunnels::open(Client::connect(port), "/", "hello"));
    let mut leaving = Client::connect(port);
    leaving.send("GET /hang HTTP/1.1\r\nHost: t\r\n\r\n");
    let silent = Client::connect(port);
    delay(Duration::from_millis(50));
    drop((leaving, silent));
    stop(worker);
    let mut late = Client::connect(port);
    late.send("GET /static HTTP/1.1\r\nHost: t\r\n\r\n");
    delay(Duration::from_millis(50));
    kill("CONT", worker);
    late.receive();
}

/// Traces an nginx, and serves metrics with these names. Returns their port, too.
fn tool(nginx: &Nginx, names: &str) -> (Tool, u16) {
    let (pid, port) = (nginx.pid().to_string(), free_port().to_string());
    let args = [
        "--json",
        "--pid",
        &pid,
        "--metrics",
        &port,
        "--metrics-names",
        names,
        "--stats",
        "--connections",
        "--blocked=20ms",
        "--route",
        "static=/static*",
        "--output",
        "/dev/null",
    ];
    (Tool::start(&args, 1), port.parse().unwrap())
}

/// A query of a panel.
struct Query {
    /// The title of the panel.
    title: String,
    text: String,
    /// The labels that the legend shows.
    legend: Vec<String>,
}

/// Returns the queries of a dashboard. A variable stands for any value but the empty one, which a label that does not exist
/// has.
fn queries(dashboard: &str) -> Vec<Query> {
    let dashboard: Value = serde_json::from_str(dashboard).unwrap();
    let mut queries = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        let targets = panel["targets"].as_array().into_iter().flatten();
        for target in targets {
            let mut text = target["expr"].as_str().unwrap().to_owned();
            text = text.replace("$__rate_interval", "1m");
            for variable in ["$instance", "$upstream", "$location", "$job", "$http_route"] {
                text = text.replace(variable, ".+");
            }
            assert!(!text.contains('$'), "{text}");
            let legend = target["legendFormat"].as_str().unwrap_or_default();
            let names = legend.split("{{").skip(1);
            let names = names.map(|part| part.split_once("}}").unwrap().0.to_owned());
            queries.push(Query {
                title: panel["title"].as_str().unwrap().to_owned(),
                text,
                legend: names.collect(),
            });
        }
    }
    queries
}

/// Asserts that the result of a query that sums by labels has those that its legend shows.
fn assert_labels(prometheus: &Prometheus, query: &Query) {
    if query.text.contains("by (") && !has_none(&query.text) {
        let results = prometheus.query(&query.text);
        let labels = &results[0]["metric"];
        let has = |name: &String| labels[name].is_string();
        let Query {
            title,
            text,
            legend,
        } = query;
        assert!(
            legend.iter().all(has),
            "{title}: {text}: {labels} {legend:?}"
        );
    }
}

/// Returns whether there can't be a result: a build that does not count has none of nginx's own counters, and an old
/// kernel does not list sockets.
fn has_none(query: &str) -> bool {
    let is_of_nginx = ["accepted", "handled", "reading", "writing", "waiting"]
        .iter()
        .any(|name| query.contains(&format!("nginx_connections_{name}")))
        || query.contains("nginx_requests{");
    (is_of_nginx && !is_built_with(STATS_MODULE))
        || (query.contains("nginx_listen_") && !listeners::are_shown())
}

/// Check that each query of both dashboards, and each expression of an alert, has a number, and that exemplars lead to
/// the trace that is sampled.
#[test]
fn answered() {
    let upstream = Upstream::start();
    let http = HTTP.replace("TUNNEL", &tunnels::echo().to_string());
    let nginx = Nginx::with(&http, upstream.port);
    let tools = ["nginx", "otel"].map(|names| tool(&nginx, names));
    let targets = [("nginx", tools[0].1), ("otel", tools[1].1)];
    let Some(text) = Prometheus::start(&targets, Scraped::Text) else {
        return;
    };
    let native = Prometheus::start(&targets, Scraped::Protobuf).unwrap();
    let (port, worker) = (nginx.port, nginx.workers()[0]);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                send(port, worker);
            }
        });
        let answered = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            assert_answers(&text, &native);
        }));
        is_over.store(true, Ordering::Relaxed);
        answered.unwrap();
    });
    assert_equal(&text, &native);
    drop((text, native, nginx));
    for (tool, _) in tools {
        tool.wait().assert_clean();
    }
}

/// Asserts that all queries are answered while the load goes on.
fn assert_answers(text: &Prometheus, native: &Prometheus) {
    let mut count = 0;
    for (job, dashboard) in DASHBOARDS {
        for query in queries(dashboard) {
            let (title, text_of) = (&query.title, &query.text);
            /* What has buckets, but not by name, are native histograms. */
            let is_native = [
                "Durations",
                "Quantiles",
                "Quantiles by server",
                "Requests under 250 ms",
            ]
            .contains(&title.as_str());
            let prometheus = if is_native { native } else { text };
            wait_until(&format!("no result: {job}, {title}: {text_of}"), || {
                prometheus.has_number(text_of) || has_none(text_of)
            });
            assert_labels(prometheus, &query);
            count += 1;
        }
    }
    println!("{count} queries of dashboards have numbers");
    assert!(count >= 60, "{count} queries");
    let alerts = text.alerts();
    for alert in &alerts {
        let value = alert.rsplit_once(" > ").or(alert.rsplit_once(" < "));
        let (value, _) = value.unwrap();
        wait_until(&format!("no result: {value}"), || {
            text.has_number(value) || has_none(value)
        });
    }
    println!("{} expressions of alerts have numbers", alerts.len());
    for (prometheus, suffix) in [(text, "_bucket"), (native, "")] {
        for metric in [
            "nginx_http_request_duration_seconds",
            "nginx_http_request_phase_seconds",
            "nginx_http_request_wait_seconds",
            "nginx_http_upstream_attempt_seconds",
            "http_server_request_duration_seconds",
            "http_client_request_duration_seconds",
        ] {
            let traces = || prometheus.traces(&format!("{metric}{suffix}"));
            wait_until(&format!("no exemplar: {metric}{suffix}"), || {
                traces().contains(SAMPLED)
            });
            assert!(!traces().contains(UNSAMPLED), "{metric}{suffix}");
        }
    }
}

/// Asserts that native histograms have the counts and sums of the classic ones, and nearly their quantiles.
fn assert_equal(text: &Prometheus, native: &Prometheus) {
    for metric in [
        "nginx_http_request_duration_seconds",
        "nginx_http_request_phase_seconds",
        "http_server_request_duration_seconds",
    ] {
        for part in ["count", "sum"] {
            let classic = format!("sum({metric}_{part})");
            let of_native = format!("histogram_{part}(sum({metric}))");
            /* Either may not have scraped the last requests yet. */
            wait_for(|| {
                let (classic, native) = (number(text, &classic), number(native, &of_native));
                let is_equal = (native / classic - 1.0).abs() < 1e-9;
                let different = format!("{metric}_{part}: {classic} and {native}");
                is_equal.then_some(()).ok_or(different)
            });
        }
    }
    /* A tenth of the requests and more waits for 20 ms. */
    let metric = "nginx_http_request_duration_seconds";
    let fraction = format!("histogram_fraction(0.02, 0.05, sum({metric})) > bool 0.05");
    native.wait_for(&fraction, "1");
}

/// Returns the one number of a query.
fn number(prometheus: &Prometheus, query: &str) -> f64 {
    let result = prometheus.query(query).remove(0);
    result["value"][1].as_str().unwrap().parse().unwrap()
}
