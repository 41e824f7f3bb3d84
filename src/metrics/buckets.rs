// SPDX-License-Identifier: MIT OR Apache-2.0
//! The classic buckets of histograms, and the exemplars of requests.

use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use ngx_bpf_record::Trace;

use super::exposition::Exemplar;
use super::exposition::Family;
use super::exposition::Histogram;

/// The upper bounds of ngx-bpf's own buckets, in nanoseconds: from 0.1 ms to 30 s.
const OWN: [u64; 17] = [
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
    30_000_000_000,
];

/// Those that OpenTelemetry's conventions advise for HTTP, in nanoseconds: from 5 ms to 10 s.
const OTEL: [u64; 14] = [
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    75_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    750_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    7_500_000_000,
    10_000_000_000,
];

/// Creates histograms with ngx-bpf's own buckets.
pub fn own_histograms() -> Family<Histogram> {
    Family::of(|| Histogram::new(&OWN))
}

/// Creates histograms with the buckets of OpenTelemetry.
pub fn otel_histograms() -> Family<Histogram> {
    Family::of(|| Histogram::new(&OTEL))
}

/// Returns the exemplar of a request that ends now. `None` unless it has a trace, and its client says that the trace is
/// sampled: there is nothing to look at otherwise.
pub fn exemplar(trace: &Trace<'_>) -> Option<Exemplar> {
    if trace.flags()? & Trace::SAMPLED == 0 {
        return None;
    }
    let trace_id = trace.id()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    let unix_ms = u64::try_from(now.as_millis()).ok()?;
    Some(Exemplar { trace_id, unix_ms })
}
