// SPDX-License-Identifier: MIT OR Apache-2.0
//! The lines of `--format otlp`, decoded by OpenTelemetry's own crate, and held against the semantic conventions.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;

use common::Generator;
use ngx_bpf_record::Blocked;
use ngx_bpf_record::Record;
use ngx_bpf_record::format::escape::is_unsafe;
use ngx_bpf_record::format::otlp::Identity;
use ngx_bpf_record::format::otlp::LINE_BYTES;
use ngx_bpf_record::format::otlp::Logs;
use ngx_bpf_record::format::otlp::Traces;
use ngx_bpf_record::format::otlp::has_spans;
use ngx_bpf_record::schema;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;

/// The attributes that are written, and their types. Source: the registry of the semantic conventions 1.44
/// (docs/registry/attributes of the repository open-telemetry/semantic-conventions), where all of them are stable
/// but `k8s.*` and `container.id`, which have other names nowhere.
const REGISTRY: [(&str, &str); 27] = [
    ("client.address", "string"),
    ("client.port", "int"),
    ("container.id", "string"),
    ("error.type", "string"),
    ("host.name", "string"),
    ("http.request.method", "string"),
    ("http.request.method_original", "string"),
    ("http.request.resend_count", "int"),
    ("http.response.status_code", "int"),
    ("http.route", "string"),
    ("k8s.namespace.name", "string"),
    ("k8s.pod.name", "string"),
    ("k8s.pod.uid", "string"),
    ("network.local.address", "string"),
    ("network.local.port", "int"),
    ("network.peer.address", "string"),
    ("network.peer.port", "int"),
    ("network.protocol.name", "string"),
    ("network.protocol.version", "string"),
    ("process.pid", "int"),
    ("server.address", "string"),
    ("server.port", "int"),
    ("service.name", "string"),
    ("url.path", "string"),
    ("url.query", "string"),
    ("url.scheme", "string"),
    ("user_agent.original", "string"),
];

/// The number of random records.
const RECORDS: usize = 3_000;

/// Returns the batches of random requests, decoded, and the number of requests in them.
fn batches() -> (Vec<ExportTraceServiceRequest>, usize) {
    let mut generator = Generator::new(18);
    let identity = Identity {
        service: None,
        host_name: Some("host".to_owned()),
    };
    let mut traces = Traces::new(identity, None);
    let (mut batches, mut count) = (Vec::new(), 0);
    for n in 0..RECORDS {
        let value = generator.record();
        let record: Record<'_> = serde_json::from_value(value).unwrap();
        if let Record::Request(request) = record
            && has_spans(&request)
        {
            traces.add(&request).unwrap();
            count += 1;
        }
        if traces.bytes() >= LINE_BYTES || n + 1 == RECORDS {
            let mut line = Vec::new();
            traces.write_line(&mut line);
            assert!(line.len() < 1 << 20, "{}", line.len());
            let text = std::str::from_utf8(&line).unwrap();
            let text = text.strip_suffix('\n').unwrap();
            assert!(!text.chars().any(is_unsafe), "{text}");
            batches.push(serde_json::from_str(text).unwrap());
        }
    }
    (batches, count)
}

/// Asserts that attributes have the types of the registry, or names of their own, and that none stands twice.
fn assert_attributes(attributes: &[KeyValue]) {
    let registry = BTreeMap::from(REGISTRY);
    let mut names: Vec<&str> = attributes.iter().map(|a| a.key.as_str()).collect();
    for attribute in attributes {
        let value = attribute
            .value
            .as_ref()
            .and_then(|value| value.value.as_ref());
        let found = match value.unwrap_or_else(|| panic!("{attribute:?}")) {
            Value::StringValue(_) => "string",
            Value::IntValue(_) => "int",
            Value::BoolValue(_) => "boolean",
            Value::ArrayValue(_) => "string[]",
            other => panic!("{other:?}"),
        };
        let name = attribute.key.as_str();
        let expected = registry.get(name).copied();
        assert!(expected.is_some() || name.starts_with("nginx."), "{name}");
        assert!(
            expected.is_none_or(|expected| expected == found),
            "{name}: {found}"
        );
    }
    names.sort_unstable();
    assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{names:?}");
}

/// Asserts that a span has what the conventions require of its kind.
fn assert_required(span: &Span) {
    let has = |name: &str| {
        span.attributes
            .iter()
            .any(|attribute| attribute.key == name)
    };
    let has_error = span.status.as_ref().is_some_and(|status| status.code == 2);
    assert_eq!(has_error, has("error.type"), "{span:?}");
    match span.kind() {
        SpanKind::Server => {
            assert!(has("url.scheme"), "{span:?}");
            let (method, rest) = span.name.split_once(' ').unwrap_or((&span.name, ""));
            assert_eq!(!rest.is_empty(), has("http.route"), "{span:?}");
            assert!(method == "HTTP" || has("http.request.method"), "{span:?}");
        }
        SpanKind::Client => assert!(!has("url.scheme"), "{span:?}"),
        SpanKind::Internal => assert!(span.events.is_empty(), "{span:?}"),
        kind => panic!("{kind:?}"),
    }
}

/// Check that every batch is decoded, that no request is missing, that ids are right, and that each span lies within
/// its parent, whatever the times of the record are.
#[test]
fn decoded() {
    let (batches, count) = batches();
    assert!(
        batches.len() > 5 && count > RECORDS / 10,
        "{count} requests"
    );
    let mut servers = 0;
    let (mut attempts, mut parts) = (0, 0);
    for resource in batches.iter().flat_map(|batch| &batch.resource_spans) {
        assert_attributes(&resource.resource.as_ref().unwrap().attributes);
        let [scope] = &resource.scope_spans[..] else {
            panic!("{} scopes", resource.scope_spans.len());
        };
        assert_eq!(scope.scope.as_ref().unwrap().name, "ngx-bpf");
        let by_id: BTreeMap<&[u8], &Span> = scope
            .spans
            .iter()
            .map(|span| (&span.span_id[..], span))
            .collect();
        assert_eq!(by_id.len(), scope.spans.len());
        for span in &scope.spans {
            assert_eq!((span.trace_id.len(), span.span_id.len()), (16, 8));
            assert!(span.start_time_unix_nano <= span.end_time_unix_nano);
            assert_attributes(&span.attributes);
            assert_required(span);
            for event in &span.events {
                assert_attributes(&event.attributes);
                let within = span.start_time_unix_nano..=span.end_time_unix_nano;
                assert!(within.contains(&event.time_unix_nano));
            }
            match span.kind() {
                SpanKind::Server => servers += 1,
                SpanKind::Client => attempts += 1,
                _ => parts += 1,
            }
            if span.kind() != SpanKind::Server {
                let parent = by_id[&span.parent_span_id[..]];
                assert_eq!(parent.trace_id, span.trace_id);
                assert!(parent.start_time_unix_nano <= span.start_time_unix_nano);
                assert!(parent.end_time_unix_nano >= span.end_time_unix_nano);
            }
        }
    }
    assert_eq!(servers, count);
    assert!(attempts > 100 && parts > 100, "{attempts} and {parts}");
}

/// Check that records of every type are decoded as log records, each once, with right attributes.
#[test]
fn logs() {
    let mut generator = Generator::new(19);
    let mut logs = Logs::new(Identity::default(), None);
    let mut added: BTreeMap<&str, usize> = BTreeMap::new();
    for _ in 0..RECORDS / 10 {
        let value = generator.record();
        let record: Record<'_> = serde_json::from_value(value).unwrap();
        let event = match record {
            Record::Request(request) => {
                logs.request(&request, None).unwrap();
                "nginx.request"
            }
            Record::Connection(connection) => {
                logs.connection(&connection).unwrap();
                "nginx.connection"
            }
            Record::Lost(lost) => {
                logs.lost(&lost).unwrap();
                "nginx.lost"
            }
            Record::Blocked(_) => continue,
        };
        *added.entry(event).or_default() += 1;
    }
    let blocked: Blocked<'_> = schema::longest_of("blocked");
    logs.blocked(&blocked).unwrap();
    added.insert("nginx.blocked", 1);
    assert!(logs.bytes() > 1_000);
    let mut line = Vec::new();
    logs.write_line(&mut line);
    let text = std::str::from_utf8(&line).unwrap();
    assert!(!text.trim_end().chars().any(is_unsafe));
    let batch: ExportLogsServiceRequest = serde_json::from_str(text).unwrap();
    let mut found: BTreeMap<&str, usize> = BTreeMap::new();
    for resource in &batch.resource_logs {
        assert_attributes(&resource.resource.as_ref().unwrap().attributes);
        for record in resource
            .scope_logs
            .iter()
            .flat_map(|scope| &scope.log_records)
        {
            *found.entry(&record.event_name).or_default() += 1;
            assert_attributes(&record.attributes);
            assert!(record.body.is_some() && record.observed_time_unix_nano > 0);
            assert!([9, 13, 17].contains(&record.severity_number));
        }
    }
    assert_eq!(found, added);
    assert_eq!(logs.bytes(), 0);
}
