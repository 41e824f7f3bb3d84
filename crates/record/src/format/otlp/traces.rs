// SPDX-License-Identifier: MIT OR Apache-2.0
//! A batch of spans.

use std::io;

use super::groups::Groups;
use super::groups::Lists;
use super::resource::Identity;
use super::tree::SpanContext;
use super::tree::Tree;
use crate::format::conventions::KnownMethods;
use crate::format::names::Names;
use crate::request::Request;

/// The lists of an `ExportTraceServiceRequest`.
const LISTS: Lists = Lists(["resourceSpans", "scopeSpans", "spans"]);

/// The spans of requests, collected to be one line.
pub struct Traces {
    names: Names,
    known_methods: KnownMethods,
    groups: Groups,
    /// The number of requests in the batch.
    requests: u64,
    /// The number of their bytes.
    bytes: usize,
}

impl Traces {
    /// Creates an empty batch. `known_methods` is the value of `conventions::KNOWN_METHODS_VARIABLE`, if it is set.
    pub fn new(identity: Identity, known_methods: Option<String>) -> Self {
        Self {
            names: Names::new(),
            known_methods: KnownMethods::new(known_methods),
            groups: Groups::new(identity),
            requests: 0,
            bytes: 0,
        }
    }

    /// Adds the spans of a request, if it is known when it began, and its trace is sampled. Returns its own span. Fails
    /// when it can't be encoded; then nothing is added.
    pub fn add(&mut self, request: &Request<'_>) -> io::Result<Option<SpanContext>> {
        let server_name = request.place.server_name.as_deref();
        let spans = self.groups.of(server_name, request.pid, &request.container);
        let before = spans.len();
        let (names, methods) = (&self.names, &self.known_methods);
        let written = Tree::write(spans, names, methods, request);
        if written.is_err() {
            spans.truncate(before);
        }
        self.bytes += spans.len() - before;
        let written = written?;
        self.requests += u64::from(written.is_some());
        Ok(written)
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
    pub fn write_line(&mut self, line: &mut Vec<u8>) {
        (self.requests, self.bytes) = (0, 0);
        self.groups.write_line(&LISTS, line);
    }
}
