// SPDX-License-Identifier: MIT OR Apache-2.0
//! What samples say: their median, and how certain it is. It is tested by tests/suite/bench.rs, because a
//! bench without a harness runs no tests.

/// A median with an interval that contains the median of all possible samples with a probability of at least 95 %.
/// Nothing is assumed but that the samples are independent: each of them lies above that median with a probability
/// of one half, so the number of those that do is binomial, and the ends of the interval are samples (order
/// statistics).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    pub low: f64,
    pub median: f64,
    pub high: f64,
}

/// The probability that the interval does not contain the median, at most.
const ERROR: f64 = 0.05;

impl Interval {
    /// Returns the interval of some samples. It has no ends when there are fewer than six, since not even the least
    /// and the greatest of five are far enough apart.
    pub fn of(samples: &[f64]) -> Self {
        let values = sorted(samples);
        let (low, high) = match outside(values.len()) {
            Some(outside) => (values[outside], values[values.len() - 1 - outside]),
            None => (f64::NEG_INFINITY, f64::INFINITY),
        };
        Self {
            low,
            median: middle(&values),
            high,
        }
    }

    /// Returns the interval of what two series of samples have in common, of which each pair was measured together.
    pub fn of_pairs(one: &[f64], other: &[f64], compare: impl Fn(f64, f64) -> f64) -> Self {
        let pairs = one.iter().zip(other);
        Self::of(&Vec::from_iter(
            pairs.map(|(one, other)| compare(*one, *other)),
        ))
    }

    /// Returns half of its width, as a share of the median.
    pub fn margin(&self) -> f64 {
        (self.high - self.low) / 2.0 / self.median
    }
}

/// Returns the median, and the spread around it in percent: the greatest value less the least.
pub fn median(samples: &[f64]) -> (f64, f64) {
    let values = sorted(samples);
    let median = middle(&values);
    let spread = values[values.len() - 1] - values[0];
    (median, spread / median * 100.0)
}

fn sorted(samples: &[f64]) -> Vec<f64> {
    let mut values = samples.to_vec();
    values.sort_by(f64::total_cmp);
    values
}

/// Returns the median of sorted values.
fn middle(values: &[f64]) -> f64 {
    let half = values.len() / 2;
    match values.len() % 2 {
        0 => f64::midpoint(values[half - 1], values[half]),
        _ => values[half],
    }
}

/// Returns how many samples may lie outside of the interval on each side.
fn outside(count: usize) -> Option<usize> {
    /* The probability that exactly `n` of the samples lie below the median of all. */
    let mut exactly = 0.5_f64.powi(i32::try_from(count).unwrap_or(i32::MAX));
    let mut at_most = 0.0;
    let mut found = None;
    for n in 0..count / 2 {
        at_most += exactly;
        if 2.0 * at_most > ERROR {
            break;
        }
        found = Some(n);
        exactly *= (count - n) as f64 / (n + 1) as f64;
    }
    found
}
