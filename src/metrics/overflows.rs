// SPDX-License-Identifier: MIT OR Apache-2.0
//! How often there was no room for a label.

use super::exposition::Counter;
use super::exposition::Family;
use super::exposition::Registry;

/// The requests and attempts that are counted as `other`, by what had no room.
pub struct Overflows {
    /// An upstream.
    pub upstream: Counter,
    /// A place in the configuration.
    pub place: Counter,
    /// A combination of labels, each of which had room.
    pub series: Counter,
}

impl Overflows {
    /// Registers the metric.
    pub fn register(registry: &mut Registry) -> Self {
        let counters = Family::<Counter>::default();
        registry.register(
            "ngx_bpf_label_overflows",
            "Requests and attempts whose labels had no room",
            &counters,
        );
        let counter = |label: &str| counters.with(&vec![("label", label.to_owned())]);
        Self {
            upstream: counter("upstream"),
            place: counter("place"),
            series: counter("series"),
        }
    }
}
