// SPDX-License-Identifier: MIT OR Apache-2.0
//! The JSON of OTLP: requests as spans, and records as log records. docs/otel.md has the mapping.

pub use logs::Logs;
pub use resource::Identity;
pub use response::PartialSuccess;
pub use traces::Traces;
pub use tree::SpanContext;
pub use tree::has_spans;

mod attempts;
mod attributes;
mod groups;
mod ids;
mod keys;
mod logs;
mod resource;
mod response;
mod span;
mod traces;
mod tree;
mod waits;

/// The bytes from which on a batch that is a line is full. Its last request adds less than half a MiB; readers of lines
/// have buffers of 1 MiB (the Collector's `otlpjsonfile` receiver).
pub const LINE_BYTES: usize = 256 << 10;

#[cfg(test)]
mod tests;
