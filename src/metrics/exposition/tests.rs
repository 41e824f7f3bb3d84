// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tests of the formats, byte by byte.

use super::Counter;
use super::Exemplar;
use super::Family;
use super::Format;
use super::Gauge;
use super::Histogram;
use super::Registry;

/// Returns the text of a counter with a hostile label, and of a histogram with one exemplar.
fn text(format: Format) -> String {
    let mut registry = Registry::default();
    let counters = Family::<Counter>::default();
    registry.register("a", "Counts", &counters);
    registry.register("b", "Nothing", &Family::<Counter>::default());
    counters.with(&vec![("x", "\"\\\n".to_owned())]).inc();
    let times = Histogram::new(&[1_000_000, 1_000_000_000]);
    registry.register_one("c_seconds", "Times", &times);
    times.observe(500_000_000, None);
    let exemplar = Exemplar {
        trace_id: 0x4bf9,
        unix_ms: 1_700_000_000_007,
    };
    times.observe(1_000_000_000, Some(exemplar));
    String::from_utf8(registry.encode(format)).unwrap()
}

/// Check both texts: a family without metrics is in neither.
#[test]
fn texts() {
    let expected = concat!(
        "# HELP a Counts\n# TYPE a counter\n",
        "a_total{x=\"\\\"\\\\\\n\"} 1\n",
        "# HELP c_seconds Times\n# TYPE c_seconds histogram\n",
        "c_seconds_sum 1.5\nc_seconds_count 2\n",
        "c_seconds_bucket{le=\"0.001\"} 0\n",
        "c_seconds_bucket{le=\"1.0\"} 2 ",
        "# {trace_id=\"00000000000000000000000000004bf9\"} 1 1700000000.007\n",
        "c_seconds_bucket{le=\"+Inf\"} 2\n",
        "# EOF\n",
    );
    assert_eq!(text(Format::OpenMetrics), expected);
    let old = text(Format::Text);
    assert!(old.starts_with("# HELP a_total Counts\n# TYPE a_total counter\n"));
    assert!(!old.contains("trace_id") && !old.contains("EOF"), "{old}");
}

/// Check a message of protobuf. Prometheus reads the others in `root::metrics`.
#[test]
fn protobuf() {
    let mut registry = Registry::default();
    let gauges = Family::<Gauge>::default();
    registry.register("g", "h", &gauges);
    gauges.with(&vec![("l", "v".to_owned())]).set(1);
    let mut expected = vec![29, 0x0a, 1, b'g', 0x12, 1, b'h', 0x18, 1, 0x22, 19];
    expected.extend([0x0a, 6, 0x0a, 1, b'l', 0x12, 1, b'v']);
    expected.extend([0x12, 9, 0x09]);
    expected.extend(1.0_f64.to_le_bytes());
    assert_eq!(registry.encode(Format::Protobuf), expected);
}
