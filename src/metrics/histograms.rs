// SPDX-License-Identifier: MIT OR Apache-2.0
//! Histograms of times.

use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;

use super::labels::Labels;

/// The upper bounds of the buckets, in seconds.
const BUCKETS: [f64; 17] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0, 30.0,
];

/// Histograms with these buckets, by their labels.
pub type Histograms = Family<Labels, Histogram, fn() -> Histogram>;

/// Creates histograms without a value.
pub fn histograms() -> Histograms {
    Family::new_with_constructor(|| Histogram::new(BUCKETS))
}

/// Converts nanoseconds to seconds, the unit of Prometheus.
pub fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}
