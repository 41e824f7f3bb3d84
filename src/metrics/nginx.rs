// SPDX-License-Identifier: MIT OR Apache-2.0
//! The metrics of nginx itself: its own counters, which `stub_status` shows, for each master. Those of
//! connections have the names that nginx-prometheus-exporter gives them.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use nginx_binary::counters::COUNTERS;

use super::exposition::Family;
use super::exposition::Gauge;
use super::exposition::Registry;
use super::labels::Labels;

/// The name and the help of each of `COUNTERS`.
const METRICS: [(&str, &str); COUNTERS.len()] = [
    (
        "nginx_connections_accepted",
        "Connections that nginx has accepted since it started",
    ),
    (
        "nginx_connections_handled",
        "Connections that nginx has handled; fewer than accepted at a limit",
    ),
    (
        "nginx_requests",
        "Requests that have begun since nginx started",
    ),
    (
        "nginx_connections_active",
        "Open connections of clients, with those that wait",
    ),
    (
        "nginx_connections_reading",
        "Connections on which nginx reads the header of a request",
    ),
    (
        "nginx_connections_writing",
        "Connections on which nginx answers a request",
    ),
    (
        "nginx_connections_waiting",
        "Open connections without a request",
    ),
];

/// The metrics of nginx itself.
#[derive(Default)]
pub struct NginxMetrics {
    gauges: [Family<Gauge>; COUNTERS.len()],
    /// The pids that have a value.
    pids: BTreeSet<u32>,
}

impl NginxMetrics {
    /// Registers all metrics of nginx itself.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        for (gauge, (name, help)) in metrics.gauges.iter().zip(METRICS) {
            registry.register(name, help, gauge);
        }
        metrics
    }

    /// Updates all metrics by the counters of each process. Processes that are not among them have no
    /// metrics any more.
    pub fn update(&mut self, counters: &BTreeMap<u32, [u64; COUNTERS.len()]>) {
        for (gauge, at) in self.gauges.iter().zip(0..) {
            for (pid, values) in counters {
                /* A value that is no number of connections or requests is left out. */
                match i64::try_from(values[at]) {
                    Ok(value) => gauge.with(&labels(*pid)).set(value),
                    Err(_) => gauge.remove(&labels(*pid)),
                }
            }
            for pid in self.pids.iter().filter(|pid| !counters.contains_key(pid)) {
                gauge.remove(&labels(*pid));
            }
        }
        self.pids = counters.keys().copied().collect();
    }
}

/// Returns the labels of a process.
fn labels(pid: u32) -> Labels {
    vec![("pid", pid.to_string())]
}

#[cfg(test)]
mod tests {
    use super::NginxMetrics;
    use crate::metrics::exposition::Format;
    use crate::metrics::exposition::Registry;

    /// Check that each process has its metrics while it is there, and that a value that is negative is
    /// left out.
    #[test]
    fn comes_and_goes() {
        let mut registry = Registry::default();
        let mut metrics = NginxMetrics::register(&mut registry);
        let mut served = |counters: &[(u32, [u64; 7])]| {
            metrics.update(&counters.iter().copied().collect());
            String::from_utf8(registry.encode(Format::OpenMetrics)).unwrap()
        };
        let first = served(&[
            (7, [9, 8, 30, 3, 0, 1, 2]),
            (8, [1, 1, 1, 1, 0, 1, u64::MAX]),
        ]);
        assert!(first.contains("nginx_requests{pid=\"7\"} 30\n"), "{first}");
        assert!(first.contains("nginx_connections_waiting{pid=\"7\"} 2\n"));
        assert!(first.contains("nginx_connections_active{pid=\"8\"} 1\n"));
        assert!(!first.contains("nginx_connections_waiting{pid=\"8\"}"));
        let second = served(&[(7, [9, 8, 31, 3, 0, 1, 2])]);
        assert!(second.contains("nginx_requests{pid=\"7\"} 31\n"));
        assert!(!second.contains("pid=\"8\""), "{second}");
    }
}
