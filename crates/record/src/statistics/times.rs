// SPDX-License-Identifier: MIT OR Apache-2.0
//! A distribution of times.

use hdrhistogram::Histogram;

/// The significant digits of the histograms: a percentile is at most 1 % above the exact one.
const DIGITS: u8 = 2;

/// The longest time that the histograms distinguish, in ns: an hour. The maximum and the sum are exact.
const LONGEST_NS: u64 = 3_600_000_000_000;

/// The most times that are kept as they are. A histogram needs much more memory than these.
const FEW_MAX: usize = 128;

/// Times in nanoseconds, in bounded memory: 37 KiB at most, and 8 bytes each while they are few.
#[derive(Clone, Debug, Default)]
pub struct Times {
    /// The times while they are few, in any order.
    few: Vec<u64>,
    /// All of them, once they are not.
    histogram: Option<Box<Histogram<u64>>>,
    /// The sum of all.
    sum_ns: u128,
    /// The longest.
    max_ns: u64,
}

impl Times {
    /// Adds a time.
    pub fn add(&mut self, ns: u64) {
        self.count_one(ns);
        self.sum_ns += u128::from(ns);
        self.max_ns = self.max_ns.max(ns);
    }

    /// Adds a time to those that are kept, or to the histogram.
    fn count_one(&mut self, ns: u64) {
        if self.histogram.is_none() && self.few.len() < FEW_MAX {
            self.few.push(ns);
            return;
        }
        if self.histogram.is_none() {
            /* It grows with its values. */
            self.histogram = Histogram::new(DIGITS).ok().map(|mut new| {
                new.auto(true);
                Box::new(new)
            });
        }
        if let Some(histogram) = &mut self.histogram {
            for ns in std::mem::take(&mut self.few).into_iter().chain([ns]) {
                /* It fails beyond the range only, which `auto` extends. */
                let _ = histogram.record(ns.min(LONGEST_NS));
            }
        }
    }

    /// Adds all times of another one.
    pub fn merge(&mut self, other: &Self) {
        match (&mut self.histogram, &other.histogram) {
            (Some(ours), Some(theirs)) => {
                let _ = ours.add(&**theirs);
            }
            (None, Some(theirs)) => {
                self.histogram = Some(theirs.clone());
                let few = std::mem::take(&mut self.few);
                few.into_iter().for_each(|ns| self.count_one(ns));
            }
            (_, None) => other.few.iter().for_each(|ns| self.count_one(*ns)),
        }
        self.sum_ns += other.sum_ns;
        self.max_ns = self.max_ns.max(other.max_ns);
    }

    /// Returns the number of times.
    pub fn count(&self) -> u64 {
        let few = self.few.len() as u64;
        self.histogram.as_ref().map_or(few, |known| known.len())
    }

    /// Returns the sum.
    pub fn sum_ns(&self) -> u128 {
        self.sum_ns
    }

    /// Returns the longest. `None` when there is none.
    pub fn max_ns(&self) -> Option<u64> {
        (self.count() > 0).then_some(self.max_ns)
    }

    /// Returns the time that this share of all, 0 to 1, did not exceed. `None` when there is none.
    pub fn quantile(&self, share: f64) -> Option<u64> {
        if let Some(known) = &self.histogram {
            if share >= 1.0 {
                return Some(self.max_ns);
            }
            return Some(known.value_at_quantile(share).min(self.max_ns));
        }
        let mut few = self.few.clone();
        few.sort_unstable();
        let place = (share * few.len() as f64).ceil() as usize;
        few.get(place.saturating_sub(1)).copied()
    }

    /// Returns the number of times from one bound up to another one, which is not included, as far as the histogram
    /// distinguishes them.
    pub fn count_between(&self, from: u64, to: u64) -> u64 {
        match &self.histogram {
            _ if to <= from => 0,
            Some(known) => known.count_between(from.min(LONGEST_NS), (to - 1).min(LONGEST_NS)),
            None => {
                let within = self.few.iter().filter(|ns| (from..to).contains(ns));
                within.count() as u64
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Times;

    /// Check the percentiles of times of all sizes against the exact ones, and that merging is the same as adding.
    #[test]
    fn quantiles() {
        let (mut all, mut halves) = (Times::default(), [Times::default(), Times::default()]);
        let mut exact = Vec::new();
        for n in 0..10_000_u64 {
            let ns = n * n * n + 7;
            all.add(ns);
            halves[usize::from(n > 3_000)].add(ns);
            exact.push(ns);
        }
        let [mut first, second] = halves;
        first.merge(&second);
        first.merge(&Times::default());
        let mut empty = Times::default();
        empty.merge(&first);
        for times in [&all, &first, &empty] {
            assert_eq!(times.count(), 10_000);
            assert_eq!(times.max_ns(), exact.last().copied());
            assert_eq!(times.sum_ns(), exact.iter().copied().map(u128::from).sum());
            for (share, place) in [(0.5, 4_999), (0.9, 8_999), (0.99, 9_899), (1.0, 9_999)] {
                let (found, known) = (times.quantile(share).unwrap(), exact[place]);
                assert!(found >= known && found - known <= known / 100, "{share}");
            }
            let below = times.count_between(0, 1_000_000);
            assert!((100..=101).contains(&below), "{below}");
        }
        assert_eq!(Times::default().quantile(0.5), None);
    }

    /// Check times at both ends of the range.
    #[test]
    fn extremes() {
        let mut times = Times::default();
        for ns in [0, 1, u64::MAX] {
            times.add(ns);
        }
        assert_eq!((times.count(), times.max_ns()), (3, Some(u64::MAX)));
        assert_eq!(times.quantile(0.5), Some(1));
        assert_eq!(times.sum_ns(), u128::from(u64::MAX) + 1);
    }
}
