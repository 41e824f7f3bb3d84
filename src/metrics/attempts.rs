// SPDX-License-Identifier: MIT OR Apache-2.0
//! Attempts at upstreams: how many, how long, and why they failed.

use ngx_bpf_record::Tried;
use ngx_bpf_record::values::Failure;

use super::buckets::own_histograms;
use super::exposition::Counter;
use super::exposition::Exemplar;
use super::exposition::Family;
use super::exposition::Histogram;
use super::exposition::Registry;
use super::labels::Labels;
use super::labels::NONE;

/// The values of the label `reused`.
const REUSED: [&str; 3] = ["true", "false", NONE];

/// The metrics of attempts.
pub struct AttemptMetrics {
    attempts: Family<Counter>,
    durations: Family<Histogram>,
    failures: Family<Counter>,
}

impl AttemptMetrics {
    /// Registers the metrics.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            attempts: Family::default(),
            durations: own_histograms(),
            failures: Family::default(),
        };
        registry.register(
            "nginx_http_upstream_attempts",
            "Attempts at an upstream",
            &metrics.attempts,
        );
        registry.register(
            "nginx_http_upstream_attempt_seconds",
            "From the connect of an attempt to its last byte, or to its failure",
            &metrics.durations,
        );
        registry.register(
            "nginx_http_upstream_failures",
            "Attempts at an upstream that failed",
            &metrics.failures,
        );
        metrics
    }

    /// Counts and measures an attempt at the upstream of this label.
    pub fn observe(&self, upstream: &str, tried: &Tried<'_, '_>, exemplar: Option<Exemplar>) {
        let attempt = tried.attempt;
        let reused = match attempt.reused {
            Some(true) => REUSED[0],
            Some(false) => REUSED[1],
            None => REUSED[2],
        };
        self.attempts
            .with(&labels(upstream, "reused", reused))
            .inc();
        if let Some(failure) = attempt.failure {
            let labels = labels(upstream, "failure", failure.name());
            self.failures.with(&labels).inc();
        }
        if let Some(ns) = tried.lasted() {
            let failure = attempt.failure.map_or(NONE, Failure::name);
            let labels = labels(upstream, "failure", failure);
            self.durations.with(&labels).observe(ns, exemplar);
        }
    }

    /// Removes the series of an upstream.
    pub fn forget(&self, upstream: &str) {
        for reused in REUSED {
            self.attempts.remove(&labels(upstream, "reused", reused));
        }
        for failure in Failure::ALL.map(Failure::name).iter().chain([&NONE]) {
            let labels = labels(upstream, "failure", failure);
            self.failures.remove(&labels);
            self.durations.remove(&labels);
        }
    }
}

/// Returns the labels of attempts.
fn labels(upstream: &str, name: &'static str, value: &str) -> Labels {
    vec![("upstream", upstream.to_owned()), (name, value.to_owned())]
}
