// SPDX-License-Identifier: MIT OR Apache-2.0
//! Requests as spans, in the JSON of OTLP: one `ExportTraceServiceRequest` a line. docs/otel.md has the mapping.

use std::io;

pub use resource::Identity;
pub use tree::has_spans;

use super::conventions::KnownMethods;
use crate::request::Request;
use ids::Ids;
use names::Names;
use resource::Resource;
use tree::Tree;

mod attempts;
mod attributes;
mod ids;
mod names;
mod resource;
mod span;
mod tree;
mod waits;
mod wall_clock;

/// The version of the semantic conventions whose names are written.
const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.44.0";

/// The bytes from which on a batch that is a line is full. Its last request adds less than half a MiB; readers of lines
/// have buffers of 1 MiB (the Collector's `otlpjsonfile` receiver).
pub const LINE_BYTES: usize = 256 << 10;

/// The spans of requests, collected to be one line.
pub struct Traces {
    identity: Identity,
    names: Names,
    known_methods: KnownMethods,
    ids: Ids,
    /// The resources of the batch, each with its spans.
    groups: Vec<(Resource, Vec<u8>)>,
    /// The number of requests in the batch.
    requests: u64,
    /// The number of their bytes.
    bytes: usize,
}

impl Traces {
    /// Creates an empty batch. `known_methods` is the value of `conventions::KNOWN_METHODS_VARIABLE`, if it is set.
    pub fn new(identity: Identity, known_methods: Option<String>) -> Self {
        Self {
            identity,
            names: Names::new(),
            known_methods: KnownMethods::new(known_methods),
            ids: Ids::new(),
            groups: Vec::new(),
            requests: 0,
            bytes: 0,
        }
    }

    /// Adds the spans of a request, if it is known when it began. Fails when it can't be encoded; then nothing is
    /// added.
    pub fn add(&mut self, request: &Request<'_>) -> io::Result<()> {
        let identity = &self.identity;
        /* Most requests belong to the same resource as the one before. */
        let known = (self.groups.iter()).rposition(|(resource, _)| resource.has(request, identity));
        let at = known.unwrap_or_else(|| {
            self.groups
                .push((Resource::of(request, identity), Vec::new()));
            self.groups.len() - 1
        });
        let spans = &mut self.groups[at].1;
        let before = spans.len();
        let (names, methods) = (&self.names, &self.known_methods);
        let written = Tree::write(spans, names, methods, &mut self.ids, request);
        if written.is_err() {
            spans.truncate(before);
        }
        self.bytes += spans.len() - before;
        self.requests += u64::from(written?);
        Ok(())
    }

    /// Returns the number of requests in the batch.
    pub fn requests(&self) -> u64 {
        self.requests
    }

    /// Returns the number of their bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Appends the batch as one line with its end, and begins a new one. Of an empty batch there is no line.
    ///
    /// Fails when it can't be encoded; then nothing is appended, and the batch is gone.
    pub fn write_line(&mut self, line: &mut Vec<u8>) -> io::Result<()> {
        let (start, requests) = (line.len(), self.requests);
        (self.requests, self.bytes) = (0, 0);
        let groups = std::mem::take(&mut self.groups);
        if requests == 0 {
            return Ok(());
        }
        let mut begin: &[u8] = b"{\"resourceSpans\":[{";
        for (resource, spans) in groups.iter().filter(|(_, spans)| !spans.is_empty()) {
            line.extend_from_slice(begin);
            if let Err(error) = resource.write(line, &self.identity) {
                line.truncate(start);
                return Err(error);
            }
            line.extend_from_slice(
                b",\"scopeSpans\":[{\"scope\":{\"name\":\"ngx-bpf\",\"version\":\"",
            );
            line.extend_from_slice(env!("CARGO_PKG_VERSION").as_bytes());
            line.extend_from_slice(b"\"},\"spans\":[");
            line.extend_from_slice(spans);
            for part in [
                "],\"schemaUrl\":\"",
                SCHEMA_URL,
                "\"}],\"schemaUrl\":\"",
                SCHEMA_URL,
                "\"}",
            ] {
                line.extend_from_slice(part.as_bytes());
            }
            begin = b",{";
        }
        line.extend_from_slice(b"]}\n");
        Ok(())
    }
}

#[cfg(test)]
mod tests;
