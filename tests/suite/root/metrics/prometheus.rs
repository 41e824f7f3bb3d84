// SPDX-License-Identifier: MIT OR Apache-2.0
//! A Prometheus that scrapes the tool, with the alerts and the queries of the dashboard that the packages have.

use std::fs;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;

use serde_json::Value;

use super::STATS_MODULE;
use super::ask;
use crate::suite::common::build::is_built_with;
use crate::suite::common::ports::free_port;
use crate::suite::common::wait_for;
use crate::suite::common::wait_until;
use crate::suite::root::listeners;

/// The alerts.
const ALERTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/grafana/alerts.yml");

/// The dashboard.
const DASHBOARD: &str = include_str!("../../../../packaging/grafana/ngx-bpf.json");

/// A Prometheus in the foreground, with files and a port of its own, that scrapes one target.
pub struct Prometheus {
    child: Child,
    /// The port of its API.
    port: u16,
    _folder: tempfile::TempDir,
}

impl Prometheus {
    /// Starts one that scrapes this port ten times a second. When there is no Prometheus on this
    /// machine, prints SKIP and returns `None`.
    pub fn start(target: u16) -> Option<Self> {
        let program = Path::new("/usr/bin/prometheus");
        if !program.exists() {
            println!("SKIP this machine: Prometheus is not installed");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("prometheus.yml");
        let text = format!(
            "{{global: {{scrape_interval: 100ms, scrape_timeout: 100ms, evaluation_interval: 100ms}}, \
             rule_files: ['{ALERTS}'], scrape_configs: [\
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
        wait_until("Prometheus does not listen", || {
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        Some(Self {
            child,
            port,
            _folder: folder,
        })
    }

    /// Returns the results of a query, or an error when Prometheus does not understand it.
    pub fn query(&self, query: &str) -> Vec<Value> {
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
    pub fn wait_for(&self, query: &str, value: &str) {
        wait_for(|| {
            let results = self.query(query);
            let values: Vec<_> = results.iter().map(|result| &result["value"][1]).collect();
            if values == [value] {
                return Ok(());
            }
            Err(format!("{query}: {values:?}"))
        });
    }

    /// Asserts that a query of the dashboard, or of an alert, has a result. A build that does not count has none
    /// of nginx's own counters, and an old kernel does not list sockets.
    fn assert_result(&self, query: &str) {
        let is_of_nginx = query.contains("nginx_connections_") || query.contains("nginx_requests{");
        let has_none = || {
            (is_of_nginx && !is_built_with(STATS_MODULE))
                || (query.contains("nginx_listen_") && !listeners::are_shown())
        };
        wait_until(&format!("no result: {query}"), || {
            !self.query(query).is_empty() || has_none()
        });
    }

    /// Asserts that Prometheus understands every query of the dashboard, and has a result for it.
    pub fn assert_dashboard(&self) {
        let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
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
            self.assert_result(&query);
            count += 1;
        }
        assert!(count >= 20, "{count} queries");
    }

    /// Asserts that Prometheus evaluates every alert, and has a value to compare with its threshold.
    pub fn assert_alerts(&self) {
        let response = ask(self.port, "GET /api/v1/rules");
        let answer: Value = serde_json::from_slice(&response.body).unwrap();
        let rules = answer["data"]["groups"][0]["rules"].as_array().unwrap();
        assert!(rules.len() >= 5, "{answer}");
        for rule in rules {
            assert_eq!(rule["health"], "ok", "{rule}");
            let query = rule["query"].as_str().unwrap();
            let (value, _) = query.rsplit_once(" > ").unwrap();
            self.assert_result(value);
        }
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
