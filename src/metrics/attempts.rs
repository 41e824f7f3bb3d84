// SPDX-License-Identifier: MIT OR Apache-2.0
//! Attempts at upstreams: how many, how long, and why they failed.

use std::collections::HashMap;

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
    /// Those that exist, by the label of the upstream.
    known: HashMap<String, OfUpstream>,
}

/// The metrics of the attempts at an upstream. What none of them has had is absent.
#[derive(Default)]
struct OfUpstream {
    /// In the order of `REUSED`.
    attempts: [Option<Counter>; REUSED.len()],
    /// In the order of `Failure::ALL`.
    failures: [Option<Counter>; Failure::ALL.len()],
    /// Likewise, and then that of attempts that did not fail.
    durations: [Option<Histogram>; Failure::ALL.len() + 1],
}

impl AttemptMetrics {
    /// Registers the metrics.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            attempts: Family::default(),
            durations: own_histograms(),
            failures: Family::default(),
            known: HashMap::new(),
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
    pub fn observe(&mut self, upstream: &str, tried: &Tried<'_, '_>, exemplar: Option<Exemplar>) {
        let known = match self.known.get_mut(upstream) {
            Some(known) => known,
            None => self.known.entry(upstream.to_owned()).or_default(),
        };
        let attempt = tried.attempt;
        let reused = match attempt.reused {
            Some(true) => 0,
            Some(false) => 1,
            None => 2,
        };
        let new = || {
            self.attempts
                .with(&labels(upstream, "reused", REUSED[reused]))
        };
        known.attempts[reused].get_or_insert_with(new).inc();
        let name = attempt.failure.map_or(NONE, Failure::name);
        let labels = || labels(upstream, "failure", name);
        if let Some(failure) = attempt.failure {
            let new = || self.failures.with(&labels());
            let counter = &mut known.failures[failure as usize];
            counter.get_or_insert_with(new).inc();
        }
        if let Some(ns) = tried.lasted() {
            let at = attempt
                .failure
                .map_or(Failure::ALL.len(), |failure| failure as usize);
            let new = || self.durations.with(&labels());
            let histogram = known.durations[at].get_or_insert_with(new);
            histogram.observe(ns, exemplar);
        }
    }

    /// Removes the series of an upstream.
    pub fn forget(&mut self, upstream: &str) {
        if self.known.remove(upstream).is_none() {
            return;
        }
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
