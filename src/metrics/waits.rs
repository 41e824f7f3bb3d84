// SPDX-License-Identifier: MIT OR Apache-2.0
//! Histograms of what requests waited for besides the phases.

use ngx_bpf_record::Waits;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::histograms::Histograms;
use super::histograms::histograms;
use super::histograms::seconds;

/// The key of a wait.
type Wait = fn(&Waits) -> Option<u64>;

/// The values of the label `wait`, and their keys.
pub const WAITS: [(&str, Wait); 5] = [
    ("accept_queue", |waits| waits.accept_queue_ns),
    ("read_wait", |waits| waits.read_wait_ns),
    ("upstream_read_wait", |waits| waits.upstream_read_wait_ns),
    ("client_stall", |waits| waits.client_stall_ns),
    ("upstream_stall", |waits| waits.upstream_stall_ns),
];

/// The metrics of waits.
pub struct WaitMetrics {
    histograms: Histograms,
    /// Those that have a value, in the order of `WAITS`.
    known: [Option<Histogram>; WAITS.len()],
}

impl WaitMetrics {
    /// Registers the metric.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            histograms: histograms(),
            known: Default::default(),
        };
        registry.register(
            "nginx_http_request_wait_seconds",
            "What requests waited for besides the phases",
            metrics.histograms.clone(),
        );
        metrics
    }

    /// Measures the waits that a request has.
    pub fn observe(&mut self, waits: &Waits) {
        for (known, (name, wait)) in self.known.iter_mut().zip(WAITS) {
            if let Some(ns) = wait(waits) {
                let labels = || vec![("wait", name.to_owned())];
                let new = || self.histograms.get_or_create_owned(&labels());
                known.get_or_insert_with(new).observe(seconds(ns));
            }
        }
    }
}
