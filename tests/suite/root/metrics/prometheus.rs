// SPDX-License-Identifier: MIT OR Apache-2.0
//! A Prometheus that scrapes the tool, with the alerts that the packages have.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use serde_json::Value;

use super::ask;
use crate::suite::common::ports::free_port;
use crate::suite::common::wait_for;
use crate::suite::common::wait_until;

/// The alerts.
const ALERTS: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/packaging/prometheus/alerts.yml"
);

/// How it scrapes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scraped {
    /// OpenMetrics text, with exemplars.
    Text,
    /// Protobuf, with exemplars and native histograms. This one drops the classic ones.
    Protobuf,
}

/// A Prometheus in the foreground, with files and a port of its own, that scrapes one target.
pub struct Prometheus {
    child: Child,
    /// The port of its API.
    port: u16,
    _folder: tempfile::TempDir,
}

impl Prometheus {
    /// Starts one that scrapes these ports ten times a second, each as a job of this name. When there is no Prometheus on
    /// this machine, prints SKIP and returns `None`.
    pub fn start(targets: &[(&str, u16)], scraped: Scraped) -> Option<Self> {
        let program = Path::new("/usr/bin/prometheus");
        if !program.exists() {
            println!("SKIP this machine: Prometheus is not installed");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("prometheus.yml");
        let jobs = targets.iter().map(|(job, port)| {
            format!("{{job_name: {job}, static_configs: [{{targets: ['127.0.0.1:{port}']}}]}}")
        });
        let jobs = jobs.collect::<Vec<_>>().join(", ");
        let text = format!(
            "{{global: {{scrape_interval: 100ms, scrape_timeout: 100ms, evaluation_interval: 100ms}}, \
             rule_files: ['{ALERTS}'], scrape_configs: [{jobs}]}}"
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
            .arg(match scraped {
                Scraped::Text => "--enable-feature=exemplar-storage",
                Scraped::Protobuf => "--enable-feature=exemplar-storage,native-histograms",
            })
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

    /// Returns the traces of the exemplars of a metric, of the last minute.
    pub fn traces(&self, query: &str) -> BTreeSet<String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let (from, to) = (now.as_secs() - 60, now.as_secs() + 60);
        let encoded = encode(query);
        let path = format!("/api/v1/query_exemplars?query={encoded}&start={from}&end={to}");
        let response = ask(self.port, &format!("GET {path}"));
        let answer: Value = serde_json::from_slice(&response.body).unwrap_or_default();
        let series = answer["data"].as_array().cloned().unwrap_or_default();
        let exemplars = series
            .iter()
            .flat_map(|series| series["exemplars"].as_array().unwrap());
        exemplars
            .map(|exemplar| exemplar["labels"]["trace_id"].as_str().unwrap().to_owned())
            .collect()
    }

    /// Returns the results of a query, or an error when Prometheus does not understand it.
    pub fn query(&self, query: &str) -> Vec<Value> {
        let response = ask(
            self.port,
            &format!("GET /api/v1/query?query={}", encode(query)),
        );
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

    /// Returns whether a query has a number. Of a rate over nothing Prometheus says NaN.
    pub fn has_number(&self, query: &str) -> bool {
        let results = self.query(query);
        let mut values = results.iter().map(|result| &result["value"][1]);
        let is_number = |value: &Value| value.as_str().is_some_and(|value| value != "NaN");
        let is_histogram = results
            .iter()
            .any(|result| result["histogram"].is_array() || result["histogram"].is_object());
        is_histogram || values.any(is_number)
    }

    /// Returns the expressions of the alerts, which Prometheus has evaluated.
    pub fn alerts(&self) -> Vec<String> {
        let response = ask(self.port, "GET /api/v1/rules");
        let answer: Value = serde_json::from_slice(&response.body).unwrap();
        let rules = answer["data"]["groups"][0]["rules"].as_array().unwrap();
        let rules = rules.iter().map(|rule| {
            assert_eq!(rule["health"], "ok", "{rule}");
            rule["query"].as_str().unwrap().to_owned()
        });
        rules.collect()
    }
}

/// Encodes a text for a query string.
fn encode(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
