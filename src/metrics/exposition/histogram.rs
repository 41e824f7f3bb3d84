// SPDX-License-Identifier: MIT OR Apache-2.0
//! Histograms of times.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

use super::metric::Bucket;
use super::metric::Exemplar;
use super::metric::HistogramSample;
use super::metric::Kind;
use super::metric::Metric;
use super::metric::Sample;
use super::native::NativeBuckets;

/// A histogram of times. Its clones are the same histogram.
#[derive(Clone)]
pub struct Histogram(Arc<Mutex<State>>);

/// The values of a histogram so far.
struct State {
    /// The upper bounds of the classic buckets in nanoseconds, but for the last one, which has none.
    bounds: &'static [u64],
    /// The number of values in each classic bucket.
    buckets: Box<[u64]>,
    /// The last value of each classic bucket that had an exemplar; empty before the first one.
    exemplars: Box<[Option<(u64, Exemplar)>]>,
    native: NativeBuckets,
    /// The sum of all values, in nanoseconds.
    sum: u128,
}

impl Histogram {
    /// Creates a histogram without a value. The bounds are in nanoseconds.
    pub fn new(bounds: &'static [u64]) -> Self {
        Self(Arc::new(Mutex::new(State {
            bounds,
            buckets: vec![0; bounds.len() + 1].into(),
            exemplars: Box::default(),
            native: NativeBuckets::default(),
            sum: 0,
        })))
    }

    /// Measures a time.
    pub fn observe(&self, ns: u64, exemplar: Option<Exemplar>) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let state = &mut *state;
        let at = state.bounds.partition_point(|bound| *bound < ns);
        state.buckets[at] += 1;
        state.sum += u128::from(ns);
        state.native.observe(seconds(ns));
        if let Some(exemplar) = exemplar {
            if state.exemplars.is_empty() {
                state.exemplars = vec![None; state.buckets.len()].into();
            }
            state.exemplars[at] = Some((ns, exemplar));
        }
    }
}

impl Metric for Histogram {
    const KIND: Kind = Kind::Histogram;

    fn sample(&self) -> Sample {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bounds = state.bounds.iter().map(|bound| seconds(*bound));
        let bounds = bounds.chain([f64::INFINITY]);
        let mut count = 0;
        let buckets = bounds.zip(&state.buckets).enumerate();
        let buckets = buckets.map(|(at, (bound, values))| {
            count += values;
            let exemplar = state.exemplars.get(at).copied().flatten();
            Bucket {
                bound,
                count,
                exemplar: exemplar.map(|(ns, exemplar)| (seconds(ns), exemplar)),
            }
        });
        let buckets = buckets.collect();
        Sample::Histogram(HistogramSample {
            count,
            sum: state.sum as f64 / 1e9,
            buckets,
            native: state.native.sample(),
        })
    }
}

/// Converts nanoseconds to seconds, the unit of Prometheus.
fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}
