// SPDX-License-Identifier: MIT OR Apache-2.0
//! Metrics that are one number.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use super::metric::Kind;
use super::metric::Metric;
use super::metric::Sample;

/// A number that never decreases.
#[derive(Clone, Default)]
pub struct Counter(Arc<AtomicU64>);

impl Counter {
    /// Adds one.
    pub fn inc(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes over a number that is counted elsewhere.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }
}

impl Metric for Counter {
    const KIND: Kind = Kind::Counter;

    fn sample(&self) -> Sample {
        Sample::Number(self.0.load(Ordering::Relaxed) as f64)
    }
}

/// A time that never decreases, in seconds.
#[derive(Clone, Default)]
pub struct Seconds(Counter);

impl Seconds {
    /// Takes over a time that is measured elsewhere.
    pub fn set(&self, seconds: f64) {
        self.0.set(seconds.to_bits());
    }
}

impl Metric for Seconds {
    const KIND: Kind = Kind::Counter;

    fn sample(&self) -> Sample {
        Sample::Number(f64::from_bits(self.0.0.load(Ordering::Relaxed)))
    }
}

/// A number that may decrease.
#[derive(Clone, Default)]
pub struct Gauge(Arc<AtomicI64>);

impl Gauge {
    /// Sets the number.
    pub fn set(&self, value: i64) {
        self.0.store(value, Ordering::Relaxed);
    }
}

impl Metric for Gauge {
    const KIND: Kind = Kind::Gauge;

    fn sample(&self) -> Sample {
        Sample::Number(self.0.load(Ordering::Relaxed) as f64)
    }
}
