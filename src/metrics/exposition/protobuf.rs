// SPDX-License-Identifier: MIT OR Apache-2.0
//! Prometheus's protobuf format: `io.prometheus.client.MetricFamily` messages, each after its length. The numbers are
//! those of the fields in its `metrics.proto`.

use super::metric::Bucket;
use super::metric::Exposed;
use super::metric::HistogramSample;
use super::metric::Kind;
use super::metric::Sample;
use super::native::ZERO_THRESHOLD;
use crate::metrics::labels::Labels;

/// The wire types.
const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const BYTES: u64 = 2;

/// Returns the metrics as messages.
pub fn encode(families: impl Iterator<Item = Exposed>) -> Vec<u8> {
    let mut all = Vec::new();
    for family in families {
        let message = Message::of(|message| message.family(&family));
        varint(&mut all, message.0.len() as u64);
        all.extend(message.0);
    }
    all
}

/// A message: its bytes so far.
struct Message(Vec<u8>);

impl Message {
    /// Creates a message.
    fn of(write: impl FnOnce(&mut Self)) -> Self {
        let mut message = Self(Vec::new());
        write(&mut message);
        message
    }

    /// Appends a field that is a number of its own length.
    fn varint(&mut self, field: u64, value: u64) {
        varint(&mut self.0, field << 3 | VARINT);
        varint(&mut self.0, value);
    }

    /// Appends a field with a double.
    fn double(&mut self, field: u64, value: f64) {
        varint(&mut self.0, field << 3 | FIXED64);
        self.0.extend(value.to_le_bytes());
    }

    /// Appends a field with bytes.
    fn bytes(&mut self, field: u64, bytes: &[u8]) {
        varint(&mut self.0, field << 3 | BYTES);
        varint(&mut self.0, bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    /// Appends a field with a message.
    fn message(&mut self, field: u64, write: impl FnOnce(&mut Self)) {
        let message = Self::of(write);
        self.bytes(field, &message.0);
    }

    /// Appends the fields of a `MetricFamily`.
    fn family(&mut self, family: &Exposed) {
        let (suffix, kind) = match family.kind {
            Kind::Counter => ("_total", 0),
            Kind::Gauge => ("", 1),
            Kind::Histogram => ("", 4),
        };
        self.bytes(1, [family.name, suffix].concat().as_bytes());
        self.bytes(2, family.help.as_bytes());
        self.varint(3, kind);
        for (labels, sample) in &family.samples {
            self.message(4, |metric| {
                metric.labels(1, labels);
                match (sample, family.kind) {
                    (Sample::Number(number), Kind::Gauge) => {
                        metric.message(2, |gauge| gauge.double(1, *number));
                    }
                    (Sample::Number(number), _) => {
                        metric.message(3, |counter| counter.double(1, *number));
                    }
                    (Sample::Histogram(histogram), _) => {
                        metric.message(7, |message| message.histogram(histogram));
                    }
                }
            });
        }
    }

    /// Appends labels.
    fn labels(&mut self, field: u64, labels: &Labels) {
        for (name, value) in labels {
            self.message(field, |pair| {
                pair.bytes(1, name.as_bytes());
                pair.bytes(2, value.as_bytes());
            });
        }
    }

    /// Appends the fields of a `Histogram`.
    fn histogram(&mut self, histogram: &HistogramSample) {
        self.varint(1, histogram.count);
        self.double(2, histogram.sum);
        for bucket in &histogram.buckets {
            self.message(3, |message| message.bucket(bucket));
        }
        let native = &histogram.native;
        self.varint(5, zigzag(native.schema.into()));
        self.double(6, ZERO_THRESHOLD);
        self.varint(7, native.zero_count);
        for (offset, len) in &native.spans {
            self.message(12, |span| {
                span.varint(1, zigzag((*offset).into()));
                span.varint(2, (*len).into());
            });
        }
        let mut deltas = Vec::new();
        for delta in &native.deltas {
            varint(&mut deltas, zigzag(*delta));
        }
        self.bytes(13, &deltas);
    }

    /// Appends the fields of a `Bucket`.
    fn bucket(&mut self, bucket: &Bucket) {
        self.varint(1, bucket.count);
        self.double(2, bucket.bound);
        let Some((value, exemplar)) = bucket.exemplar else {
            return;
        };
        self.message(3, |message| {
            let trace_id = format!("{:032x}", exemplar.trace_id);
            message.labels(1, &vec![("trace_id", trace_id)]);
            message.double(2, value);
            message.message(3, |time| {
                time.varint(1, exemplar.unix_ms / 1000);
                time.varint(2, exemplar.unix_ms % 1000 * 1_000_000);
            });
        });
    }
}

/// Appends a number in groups of seven bits, the lowest first.
fn varint(to: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        to.push(value as u8 | 0x80);
        value >>= 7;
    }
    to.push(value as u8);
}

/// Returns a number with its sign in the lowest bit.
fn zigzag(value: i64) -> u64 {
    (value << 1 ^ value >> 63) as u64
}

#[cfg(test)]
mod tests {
    use super::varint;
    use super::zigzag;

    /// Check numbers: those of the documentation of protobuf.
    #[test]
    fn numbers() {
        let mut bytes = Vec::new();
        varint(&mut bytes, 150);
        varint(&mut bytes, 1);
        assert_eq!(bytes, [0x96, 0x01, 0x01]);
        assert_eq!([0, -1, 1, i64::MIN].map(zigzag), [0, 1, 2, u64::MAX]);
    }
}
