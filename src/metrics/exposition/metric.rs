// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a metric is at a moment, whatever its format.

use super::native::NativeSample;
use crate::metrics::labels::Labels;

/// What a metric is, for Prometheus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// What a metric is at a moment.
#[derive(Clone, Debug, PartialEq)]
pub enum Sample {
    Number(f64),
    Histogram(HistogramSample),
}

/// A metric. Its clones are the same metric.
pub trait Metric: Clone + Send + 'static {
    const KIND: Kind;

    /// Returns what it is now.
    fn sample(&self) -> Sample;
}

/// The trace of a request, and when it was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exemplar {
    pub trace_id: u128,
    /// Since the epoch, in milliseconds.
    pub unix_ms: u64,
}

/// What a histogram is at a moment, in seconds.
#[derive(Clone, Debug, PartialEq)]
pub struct HistogramSample {
    pub count: u64,
    pub sum: f64,
    /// The classic buckets.
    pub buckets: Vec<Bucket>,
    pub native: NativeSample,
}

/// A classic bucket.
#[derive(Clone, Debug, PartialEq)]
pub struct Bucket {
    /// The upper bound; infinite for the last bucket.
    pub bound: f64,
    /// The number of values up to that bound.
    pub count: u64,
    /// A value of this bucket, and its exemplar.
    pub exemplar: Option<(f64, Exemplar)>,
}

/// What the metrics of one name are at a moment; one of them at least.
pub struct Exposed {
    /// The name, without the suffixes that a kind gives it.
    pub name: &'static str,
    pub help: &'static str,
    pub kind: Kind,
    pub samples: Vec<(Labels, Sample)>,
}
