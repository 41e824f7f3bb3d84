// SPDX-License-Identifier: MIT OR Apache-2.0
//! The names of metrics that can be chosen.

/// The names of the metrics of requests and attempts as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricNames {
    /// ngx-bpf's own.
    Nginx,
    /// Those of OpenTelemetry's conventions.
    Otel,
}
