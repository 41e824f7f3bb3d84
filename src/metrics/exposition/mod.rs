// SPDX-License-Identifier: MIT OR Apache-2.0
//! Metrics and the formats in which Prometheus reads them. A histogram has classic buckets, native ones and exemplars at
//! once, which prometheus-client (0.26) can't give one histogram.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

pub use format::Format;
pub use histogram::Histogram;
pub use metric::Exemplar;
pub use number::Counter;
pub use number::Gauge;
pub use number::Seconds;

#[cfg(test)]
pub use native::BUCKETS_MAX;

use super::labels::Labels;
use metric::Exposed;
use metric::Kind;
use metric::Metric;
use metric::Sample;

mod format;
mod histogram;
mod metric;
mod native;
mod number;
mod protobuf;
mod text;

/// Metrics of one name, by their labels. Its clones are the same family.
#[derive(Clone)]
pub struct Family<M> {
    metrics: Arc<Mutex<HashMap<Labels, M>>>,
    /// Creates a metric without a value.
    new: fn() -> M,
}

impl<M: Metric + Default> Default for Family<M> {
    fn default() -> Self {
        Self::of(M::default)
    }
}

impl<M: Metric> Family<M> {
    /// Creates a family without metrics, which `new` creates.
    pub fn of(new: fn() -> M) -> Self {
        Self {
            metrics: Arc::default(),
            new,
        }
    }

    /// Returns the metric with these labels, which exists from now on.
    pub fn with(&self, labels: &Labels) -> M {
        let mut metrics = self.metrics.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(metric) = metrics.get(labels) {
            return metric.clone();
        }
        let metric = (self.new)();
        metrics.insert(labels.clone(), metric.clone());
        metric
    }

    /// Removes the metric with these labels, if it exists.
    pub fn remove(&self, labels: &Labels) {
        let mut metrics = self.metrics.lock().unwrap_or_else(PoisonError::into_inner);
        metrics.remove(labels);
    }

    /// Returns what all metrics are now, in the order of their labels.
    fn samples(&self) -> Vec<(Labels, Sample)> {
        let metrics = self.metrics.lock().unwrap_or_else(PoisonError::into_inner);
        let samples = metrics
            .iter()
            .map(|(labels, metric)| (labels.clone(), metric.sample()));
        let mut samples: Vec<_> = samples.collect();
        drop(metrics);
        samples.sort_by(|(a, _), (b, _)| a.cmp(b));
        samples
    }
}

/// All metrics that are served.
#[derive(Default)]
pub struct Registry {
    families: Vec<Registered>,
}

/// A family that is served.
struct Registered {
    name: &'static str,
    help: &'static str,
    kind: Kind,
    samples: Box<dyn Fn() -> Vec<(Labels, Sample)> + Send>,
}

impl Registry {
    /// Adds a family. The name of a counter has no `_total`.
    pub fn register<M: Metric>(
        &mut self,
        name: &'static str,
        help: &'static str,
        family: &Family<M>,
    ) {
        let family = family.clone();
        self.families.push(Registered {
            name,
            help,
            kind: M::KIND,
            samples: Box::new(move || family.samples()),
        });
    }

    /// Adds a metric that has no labels.
    pub fn register_one<M: Metric>(&mut self, name: &'static str, help: &'static str, metric: &M) {
        let metric = metric.clone();
        self.families.push(Registered {
            name,
            help,
            kind: M::KIND,
            samples: Box::new(move || vec![(Labels::new(), metric.sample())]),
        });
    }

    /// Returns all metrics in a format.
    pub fn encode(&self, format: Format) -> Vec<u8> {
        let families = self.families.iter().map(|family| Exposed {
            name: family.name,
            help: family.help,
            kind: family.kind,
            samples: (family.samples)(),
        });
        let families = families.filter(|family| !family.samples.is_empty());
        match format {
            Format::Protobuf => protobuf::encode(families),
            Format::OpenMetrics => text::encode(families, true).into_bytes(),
            Format::Text => text::encode(families, false).into_bytes(),
        }
    }
}

#[cfg(test)]
mod tests;
