// SPDX-License-Identifier: MIT OR Apache-2.0
//! The native buckets of a histogram: their bounds grow by a constant factor, and only those that have a value exist.

/// The resolution of a new histogram: 2^3 buckets from one power of two to the next, each 9 % wider than the one before.
const SCHEMA: i32 = 3;

/// The most buckets. With one more, each two neighbours become one: the resolution halves.
pub const BUCKETS_MAX: usize = 160;

/// The upper bound of the bucket around zero, in seconds: about a microsecond.
pub const ZERO_THRESHOLD: f64 = 1.0 / (1 << 20) as f64;

/// The lower bounds of the buckets from 0.5 to 1: the powers of 2^(1/8).
const BOUNDS: [f64; 1 << SCHEMA] = [
    0.5,
    0.5452538663326288,
    0.5946035575013605,
    0.6484197773255048,
    0.7071067811865475,
    0.7711054127039704,
    0.8408964152537144,
    0.9170040432046711,
];

/// The longest row of empty buckets that is written. After a longer one a new span begins, which takes fewer bytes.
const GAP_MAX: i32 = 2;

/// The native buckets of a histogram.
#[derive(Clone, Debug)]
pub struct NativeBuckets {
    schema: i32,
    zero_count: u64,
    /// The number of values of each bucket that has any, in the order of the buckets.
    buckets: Vec<(i32, u64)>,
}

/// The native buckets as they are written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NativeSample {
    pub schema: i32,
    pub zero_count: u64,
    /// Rows of buckets: the distance from the end of the row before, or from bucket 0, and their number.
    pub spans: Vec<(i32, u32)>,
    /// The value of each bucket less that of the one before it.
    pub deltas: Vec<i64>,
}

impl Default for NativeBuckets {
    fn default() -> Self {
        Self {
            schema: SCHEMA,
            zero_count: 0,
            buckets: Vec::new(),
        }
    }
}

impl NativeBuckets {
    /// Counts a value, in seconds.
    pub fn observe(&mut self, seconds: f64) {
        if seconds <= ZERO_THRESHOLD {
            self.zero_count += 1;
            return;
        }
        let bucket = (self.schema..SCHEMA).fold(bucket(seconds), |bucket, _| coarser(bucket));
        match self.buckets.binary_search_by_key(&bucket, |(at, _)| *at) {
            Ok(at) => self.buckets[at].1 += 1,
            Err(at) => self.buckets.insert(at, (bucket, 1)),
        }
        while self.buckets.len() > BUCKETS_MAX {
            self.halve();
        }
    }

    /// Halves the resolution.
    fn halve(&mut self) {
        self.schema -= 1;
        let mut halved: Vec<(i32, u64)> = Vec::with_capacity(BUCKETS_MAX);
        for (bucket, count) in &self.buckets {
            let bucket = coarser(*bucket);
            match halved.last_mut() {
                Some((last, sum)) if *last == bucket => *sum += count,
                _ => halved.push((bucket, *count)),
            }
        }
        self.buckets = halved;
    }

    /// Returns what is written.
    pub fn sample(&self) -> NativeSample {
        let mut sample = NativeSample {
            schema: self.schema,
            zero_count: self.zero_count,
            ..NativeSample::default()
        };
        let (mut next, mut before) = (0, 0);
        let mut push = |sample: &mut NativeSample, count: u64| {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            sample.deltas.push(count - before);
            before = count;
        };
        for (bucket, count) in &self.buckets {
            let gap = bucket - next;
            match sample.spans.last_mut() {
                Some((_, len)) if gap <= GAP_MAX => {
                    *len += gap.unsigned_abs() + 1;
                    (0..gap).for_each(|_| push(&mut sample, 0));
                }
                _ => sample.spans.push((gap, 1)),
            }
            push(&mut sample, *count);
            next = bucket + 1;
        }
        sample
    }
}

/// Returns the bucket of a value at `SCHEMA`: bucket n has the values up to 2^(n/8), that bound included.
fn bucket(seconds: f64) -> i32 {
    /* A value of nanoseconds is never subnormal, infinite or negative. */
    let bits = seconds.to_bits();
    let exponent = ((bits >> 52) & 0x7ff) as i32 - 1022;
    let fraction = f64::from_bits((bits & !(0x7ff << 52)) | (1022 << 52));
    let at = BOUNDS.partition_point(|bound| *bound < fraction) as i32;
    at + (exponent - 1) * BOUNDS.len() as i32
}

/// Returns the bucket that a bucket becomes a part of when the resolution halves.
fn coarser(bucket: i32) -> i32 {
    (bucket + 1) >> 1
}

#[cfg(test)]
mod tests {
    use super::BUCKETS_MAX;
    use super::NativeBuckets;
    use super::NativeSample;
    use super::ZERO_THRESHOLD;
    use super::bucket;

    /// Check that a value lies within the bounds of its bucket, from a nanosecond to centuries, and at powers of two.
    #[test]
    fn bounds() {
        let bound = |n: i32| (f64::from(n) / 8.0).exp2();
        for ns in (0..64).flat_map(|n| [1_u64 << n, (1 << n) + (1 << n) / 3]) {
            let seconds = ns as f64 / 1e9;
            let n = bucket(seconds);
            assert!(bound(n - 1) < seconds * (1.0 + 1e-12), "{seconds} {n}");
            assert!(seconds <= bound(n) * (1.0 + 1e-12), "{seconds} {n}");
        }
        assert_eq!([0.5, 1.0, 2.0, 1.01].map(bucket), [-8, 0, 8, 1]);
    }

    /// Check spans and deltas: neighbours and short gaps are one span, and what is near zero has its own bucket.
    #[test]
    fn spans() {
        let mut buckets = NativeBuckets::default();
        for seconds in [0.0, ZERO_THRESHOLD, 1.0, 1.0, 1.05, 1.3, 8.0] {
            buckets.observe(seconds);
        }
        let expected = NativeSample {
            schema: 3,
            zero_count: 2,
            spans: vec![(0, 5), (19, 1)],
            deltas: vec![2, -1, -1, 0, 1, 0],
        };
        /* 1.3 is in bucket 4, since 2^(3/8) is 1.297; 8 is in bucket 24. */
        let sample = buckets.sample();
        assert_eq!(sample.zero_count, expected.zero_count);
        assert_eq!(sample.spans, expected.spans);
        assert_eq!(sample.deltas, expected.deltas);
    }

    /// Check that the number of buckets is bounded, whatever values come, and that no value is lost.
    #[test]
    fn bounded() {
        let mut buckets = NativeBuckets::default();
        let values = (0..10_000_u64).map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15)) >> (n % 64));
        values.for_each(|ns| buckets.observe(ns as f64 / 1e9));
        let sample = buckets.sample();
        assert!(buckets.buckets.len() <= BUCKETS_MAX && sample.schema < 3);
        let (mut sum, mut count) = (sample.zero_count as i64, 0);
        for delta in &sample.deltas {
            count += delta;
            sum += count;
        }
        assert_eq!(sum, 10_000);
        let lens: u32 = sample.spans.iter().map(|(_, len)| len).sum();
        assert_eq!(lens as usize, sample.deltas.len());
    }
}
