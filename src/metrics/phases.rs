// SPDX-License-Identifier: MIT OR Apache-2.0
//! Histograms of the parts of a request's time.

use std::collections::HashMap;

use ngx_bpf_record::Request;
use ngx_bpf_record::SPANS;

use super::buckets::own_histograms;
use super::exposition::Exemplar;
use super::exposition::Family;
use super::exposition::Histogram;
use super::exposition::Registry;
use super::kinds::Group;

/// The histograms of a group, in the order of `SPANS`. A part that no request of the group has had is absent: requests
/// without an upstream have no histogram of the upstream, not even an empty one.
type OfGroup = [Option<Histogram>; SPANS.len()];

/// The metrics of phases.
pub struct PhaseMetrics {
    histograms: Family<Histogram>,
    known: HashMap<Group, OfGroup>,
}

impl PhaseMetrics {
    /// Registers the metric.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            histograms: own_histograms(),
            known: HashMap::new(),
        };
        registry.register(
            "nginx_http_request_phase_seconds",
            "What the time of a request is made of",
            &metrics.histograms,
        );
        metrics
    }

    /// Measures the parts of a request.
    pub fn observe(&mut self, group: &Group, request: &Request<'_>, exemplar: Option<Exemplar>) {
        let known = match self.known.get_mut(group) {
            Some(known) => known,
            None => self.known.entry(group.clone()).or_default(),
        };
        for (known, (name, span)) in known.iter_mut().zip(SPANS) {
            if let Some(ns) = span(request) {
                let new = || self.histograms.with(&group.labels_with("phase", name));
                known.get_or_insert_with(new).observe(ns, exemplar);
            }
        }
    }

    /// Removes the series of an upstream.
    pub fn forget(&mut self, upstream: &str) {
        let gone = self.known.extract_if(|group, _| group.upstream == upstream);
        for (group, histograms) in gone {
            for ((name, _), histogram) in SPANS.iter().zip(histograms) {
                if histogram.is_some() {
                    self.histograms.remove(&group.labels_with("phase", name));
                }
            }
        }
    }
}
