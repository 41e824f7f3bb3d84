// SPDX-License-Identifier: MIT OR Apache-2.0
//! Histograms of what requests waited for.

use ngx_bpf_record::Request;

use super::buckets::own_histograms;
use super::exposition::Exemplar;
use super::exposition::Family;
use super::exposition::Histogram;
use super::exposition::Registry;

/// A function that returns the time of a wait. `None` of a request that did not wait.
type Wait = fn(&Request<'_>) -> Option<u64>;

/// The values of the label `wait`, which are the keys of the record without `_ns`.
pub const WAITS: [(&str, Wait); 13] = [
    ("accept_queue", |request| request.waits.accept_queue_ns),
    ("read_wait", |request| request.waits.read_wait_ns),
    ("upstream_read_wait", |request| {
        request.waits.upstream_read_wait_ns
    }),
    ("queue", |request| request.waits.queue_ns),
    ("body_read", |request| request.waits.body_read_ns),
    ("limit_req_delay", |request| {
        request.waits.limit_req_delay_ns
    }),
    ("auth", |request| request.waits.auth_ns),
    ("resolve", |request| request.waits.resolve_ns),
    ("cache_lock", |request| request.waits.cache_lock_ns),
    ("wait", |request| request.waits.wait_ns),
    ("client_stall", |request| request.waits.client_stall_ns),
    ("upstream_stall", |request| request.waits.upstream_stall_ns),
    ("tls_handshake", |request| request.tls.tls_handshake_ns),
];

/// The metrics of waits.
pub struct WaitMetrics {
    histograms: Family<Histogram>,
    /// Those that have a value, in the order of `WAITS`.
    known: [Option<Histogram>; WAITS.len()],
}

impl WaitMetrics {
    /// Registers the metric.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            histograms: own_histograms(),
            known: Default::default(),
        };
        registry.register(
            "nginx_http_request_wait_seconds",
            "What requests waited for",
            &metrics.histograms,
        );
        metrics
    }

    /// Measures the waits that a request has.
    pub fn observe(&mut self, request: &Request<'_>, exemplar: Option<Exemplar>) {
        for (known, (name, wait)) in self.known.iter_mut().zip(WAITS) {
            if let Some(ns) = wait(request) {
                let new = || self.histograms.with(&vec![("wait", name.to_owned())]);
                known.get_or_insert_with(new).observe(ns, exemplar);
            }
        }
    }
}
