// SPDX-License-Identifier: MIT OR Apache-2.0
//! Spans, as OpenTelemetry's own crate decodes them.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;

/// A request: its server's span, and those within it.
#[derive(Debug)]
pub struct Tree {
    /// The attributes of its resource.
    pub resource: BTreeMap<String, String>,
    pub server: Span,
    /// All others, in the order in which they were written.
    pub others: Vec<Span>,
}

impl Tree {
    /// Returns those of these batches, in order.
    pub fn of(batches: &[ExportTraceServiceRequest]) -> Vec<Self> {
        let mut trees: Vec<Self> = Vec::new();
        for resource in batches.iter().flat_map(|batch| &batch.resource_spans) {
            let attributes = attributes(&resource.resource.as_ref().unwrap().attributes);
            for span in resource.scope_spans.iter().flat_map(|scope| &scope.spans) {
                if span.kind() == SpanKind::Server {
                    trees.push(Self {
                        resource: attributes.clone(),
                        server: span.clone(),
                        others: Vec::new(),
                    });
                } else {
                    trees.last_mut().unwrap().others.push(span.clone());
                }
            }
        }
        trees
    }

    /// Returns those of the lines that the tool has written.
    pub fn of_lines(lines: &[String]) -> Vec<Self> {
        let batches = lines.iter().map(|line| serde_json::from_str(line).unwrap());
        Self::of(&batches.collect::<Vec<_>>())
    }

    /// Returns the spans with this name.
    pub fn named(&self, name: &str) -> Vec<&Span> {
        self.others
            .iter()
            .filter(|span| span.name == name)
            .collect()
    }

    /// Returns the spans of attempts at upstreams.
    pub fn clients(&self) -> Vec<&Span> {
        let is_client = |span: &&Span| span.kind() == SpanKind::Client;
        self.others.iter().filter(is_client).collect()
    }

    /// Asserts that ids are right, and that each span lies within its parent.
    pub fn assert_nested(&self) {
        let mut by_id = BTreeMap::from([(&self.server.span_id, &self.server)]);
        for span in &self.others {
            let parent = by_id[&span.parent_span_id];
            assert_eq!(parent.trace_id, span.trace_id, "{self:#?}");
            let times = [
                parent.start_time_unix_nano,
                span.start_time_unix_nano,
                span.end_time_unix_nano,
                parent.end_time_unix_nano,
            ];
            assert!(times.is_sorted(), "{self:#?}");
            assert!(by_id.insert(&span.span_id, span).is_none(), "{self:#?}");
        }
    }
}

/// Returns how long a span lasted, in nanoseconds.
pub fn length(span: &Span) -> u64 {
    span.end_time_unix_nano - span.start_time_unix_nano
}

/// Returns an attribute of a span as text.
pub fn attribute(span: &Span, name: &str) -> Option<String> {
    attributes(&span.attributes).remove(name)
}

/// Returns an id as hexadecimal digits.
pub fn hex(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Returns attributes by their names, each as text.
pub fn attributes(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let of = |attribute: &KeyValue| {
        let text = match attribute.value.clone().unwrap().value.unwrap() {
            Value::StringValue(text) => text,
            Value::IntValue(number) => number.to_string(),
            Value::BoolValue(value) => value.to_string(),
            other => format!("{other:?}"),
        };
        (attribute.key.clone(), text)
    };
    attributes.iter().map(of).collect()
}
