// SPDX-License-Identifier: MIT OR Apache-2.0
//! `--otlp` into otelite, a store of traces by others: what its interface answers is what the records of the same tool say.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::TcpStream;
use std::process::Command;

use opentelemetry_proto::tonic::common::v1::AnyValue;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::Status;
use opentelemetry_proto::tonic::trace::v1::span::Event;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use serde::Deserialize;
use serde_json::Value;
use tempfile::TempDir;

use super::assert_record;
use super::assert_retried;
use super::delivery::Sending;
use crate::suite::common::client::Client;
use crate::suite::common::ports::free_port;
use crate::suite::common::record::Line;
use crate::suite::common::record::Record;
use crate::suite::common::recorded::fetched;
use crate::suite::common::server::Server;
use crate::suite::common::spans::Tree;
use crate::suite::common::spans::attribute;
use crate::suite::common::spans::hex;
use crate::suite::common::spans::length;
use crate::suite::common::wait_right;
use crate::suite::common::wait_until;
use crate::suite::root::tls::Chain;
use crate::suite::root::trace_context::FIRST;

/// A group whose first server refuses connections, a location that waits, and an upstream over TLS.
const HTTP: &str = "
    limit_req_zone $pid zone=five:64k rate=5r/s;
    upstream retried { server 127.0.0.1:9 max_fails=0; server 127.0.0.1:{plain} backup; }
    server {
        listen 127.0.0.1:{port};
        server_name shop.test;
        location /retried/ { proxy_pass http://retried; }
        location /plain/ { return 200 'hello\\n'; }
        location /slow/ { limit_req zone=five burst=9; proxy_pass http://127.0.0.1:{plain}; }
        location /tls/ { proxy_pass https://127.0.0.1:{upstream}; }
        location /status-503 { proxy_pass http://127.0.0.1:{plain}; }
    }";

/// Requests, and the names of their spans in the order of their begins. Of two that begin at once, the longer one is the
/// first. `read_wait` is left out: whether nginx waits within a response is not the test's choice.
const REQUESTS: [(&str, &[&str]); 6] = [
    ("/retried/", &["GET /retried/", "GET", "GET", "connect"]),
    ("/plain/", &["GET /plain/"]),
    ("/slow/", &["GET /slow/", "GET", "connect"]),
    (
        "/slow/wait-30",
        &["GET /slow/", "limit_req_delay", "GET", "connect"],
    ),
    (
        "/tls/wait-20",
        &["GET /tls/", "GET", "connect", "tls_handshake"],
    ),
    ("/status-503", &["GET /status-503", "GET", "connect"]),
];

/// A span, as the store shows it.
#[derive(Deserialize)]
struct Stored {
    trace_id: String,
    span_id: String,
    parent_span_id: Option<String>,
    name: String,
    kind: String,
    start_time: u64,
    end_time: u64,
    duration: u64,
    attributes: BTreeMap<String, String>,
    resource: Resource,
    status: Code,
    events: Vec<Happened>,
}

/// The resource of a span.
#[derive(Deserialize)]
struct Resource {
    attributes: BTreeMap<String, String>,
}

/// The status of a span.
#[derive(Deserialize)]
struct Code {
    code: String,
}

/// An event of a span.
#[derive(Deserialize)]
struct Happened {
    name: String,
    timestamp: u64,
    attributes: BTreeMap<String, String>,
}

/// Returns the bytes of an id.
fn id(digits: &str) -> Vec<u8> {
    let bytes = digits.as_bytes().chunks(2);
    bytes
        .map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

/// Returns attributes as OpenTelemetry has them. The store makes a text of every value.
fn attributes(of: &BTreeMap<String, String>) -> Vec<KeyValue> {
    let attributes = of.iter().map(|(key, value)| KeyValue {
        key: key.clone(),
        value: Some(AnyValue {
            value: Some(Any::StringValue(value.clone())),
        }),
        ..KeyValue::default()
    });
    attributes.collect()
}

impl Stored {
    /// Returns it as OpenTelemetry has it.
    fn span(&self) -> Span {
        assert_eq!(self.duration, self.end_time - self.start_time);
        let events = self.events.iter().map(|event| Event {
            name: event.name.clone(),
            time_unix_nano: event.timestamp,
            attributes: attributes(&event.attributes),
            ..Event::default()
        });
        let kind = format!("SPAN_KIND_{}", self.kind.to_uppercase());
        Span {
            trace_id: id(&self.trace_id),
            span_id: id(&self.span_id),
            parent_span_id: self.parent_span_id.as_deref().map(id).unwrap_or_default(),
            name: self.name.clone(),
            kind: SpanKind::from_str_name(&kind).unwrap().into(),
            start_time_unix_nano: self.start_time,
            end_time_unix_nano: self.end_time,
            attributes: attributes(&self.attributes),
            events: events.collect(),
            status: Some(Status {
                code: match self.status.code.as_str() {
                    "Unset" => 0,
                    "Error" => 2,
                    code => panic!("{code}"),
                },
                ..Status::default()
            }),
            ..Span::default()
        }
    }
}

/// A running store. What it keeps is in a folder that ends with it.
struct Store {
    _server: Server,
    /// Where it receives spans, and where it shows them.
    otlp: u16,
    api: u16,
    _folder: TempDir,
}

impl Store {
    /// Starts one.
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let [otlp, grpc, api] = [(); 3].map(|()| free_port());
        let mut command = Command::new(fetched("otelite/bin/otelite"));
        command.args(["serve", "--addr", &format!("127.0.0.1:{api}")]);
        command.arg("--storage-path").arg(folder.path());
        command.env_clear().env("HOME", folder.path());
        command.env("OTELITE_OTLP_HTTP_PORT", otlp.to_string());
        command.env("OTELITE_OTLP_GRPC_PORT", grpc.to_string());
        /* It would ask the internet for the prices of language models; nothing listens at this proxy. */
        command.env("HTTPS_PROXY", "http://127.0.0.1:9");
        let server = Server::start(&mut command);
        for port in [otlp, api] {
            wait_until("otelite does not listen", || {
                TcpStream::connect(("127.0.0.1", port)).is_ok()
            });
        }
        Self {
            _server: server,
            otlp,
            api,
            _folder: folder,
        }
    }

    /// Returns what it answers.
    fn get(&self, path: &str) -> Value {
        let response = Client::connect(self.api).get(path);
        assert_eq!(response.status, 200, "{path}");
        serde_json::from_slice(&response.body).unwrap()
    }

    /// Returns the requests of which it has spans, in the order of their begins, when there are this many.
    fn trees(&self, count: usize) -> Vec<Tree> {
        let listed = wait_right(
            || self.get("/api/traces"),
            |listed| listed["total"] == count,
        );
        let traces = listed["traces"].as_array().unwrap().iter();
        let mut trees: Vec<Tree> = traces.map(|trace| self.tree(trace)).collect();
        trees.sort_by_key(|tree| tree.server.start_time_unix_nano);
        trees
    }

    /// Returns a request of its list.
    fn tree(&self, listed: &Value) -> Tree {
        let path = format!("/api/traces/{}", listed["trace_id"].as_str().unwrap());
        let mut spans: Vec<Stored> =
            serde_json::from_value(self.get(&path)["spans"].take()).unwrap();
        assert_eq!(listed["span_count"], spans.len());
        spans.sort_by_key(|span| (span.start_time, Reverse(span.end_time)));
        let mut others: Vec<Span> = spans.iter().map(Stored::span).collect();
        let server = others.remove(0);
        assert_eq!(server.kind(), SpanKind::Server, "{listed:#}");
        Tree {
            resource: spans.remove(0).resource.attributes,
            server,
            others,
        }
    }
}

/// Asserts that the spans of a request are all that its record knows of, and that their times are the record's.
fn assert_same(tree: &Tree, record: &Record, names: &[&str]) {
    assert_record(tree, record);
    assert_eq!(tree.server.start_time_unix_nano, record.first_ns());
    let all = std::iter::once(&tree.server).chain(&tree.others);
    let found: Vec<_> = all.map(|span| span.name.as_str()).collect();
    let found: Vec<_> = found
        .into_iter()
        .filter(|name| *name != "read_wait")
        .collect();
    assert_eq!(found, names);
    for span in std::iter::once(&tree.server).chain(&tree.others) {
        let is_error = span.status.as_ref().unwrap().code == 2;
        assert_eq!(is_error, attribute(span, "error.type").is_some());
    }
    for (client, attempt) in tree.clients().into_iter().zip(&record.upstreams) {
        let first = record.phases.downstream_request_first_byte_time.unwrap();
        let at = |time: u64| record.first_ns() + time - first;
        let begin = attempt.upstream_connect_time.map(at);
        assert_eq!(Some(client.start_time_unix_nano), begin);
        if let Some(last) = attempt.upstream_response_last_byte_time {
            assert_eq!(client.end_time_unix_nano, at(last));
        }
    }
    let attempt = record.upstreams.last();
    for (name, ns) in [
        (names[0], record.elapsed_ns),
        ("limit_req_delay", record.waits.limit_req_delay_ns),
        ("read_wait", record.waits.upstream_read_wait_ns),
        (
            "tls_handshake",
            attempt.and_then(|attempt| attempt.upstream_tls_ns),
        ),
    ] {
        let all = std::iter::once(&tree.server).chain(&tree.others);
        let lengths = all.filter(|span| span.name == name).map(length);
        let expected: Vec<u64> = ns.into_iter().filter(|ns| *ns > 0).collect();
        assert_eq!(lengths.collect::<Vec<_>>(), expected, "{name}: {record:#?}");
    }
}

/// Check that the store has exactly the spans of each request, with their parents, kinds, statuses, events and times, and
/// its log record with the same ids: a request that is tried again, one that waits, one over TLS, one that fails, and one
/// that belongs to the trace of its client.
#[test]
#[ignore = "needs a program that make test installs or fetches"]
fn traces() {
    let store = Store::start();
    let chain = Chain::with(HTTP);
    let url = format!("http://127.0.0.1:{}", store.otlp);
    let sending = Sending::start(&chain.front, &url, &[]);
    let mut client = Client::connect(chain.front.port);
    for (uri, _) in REQUESTS {
        client.get(uri);
    }
    client.send(format!(
        "GET /plain/ HTTP/1.1\r\nHost: a\r\ntraceparent: {FIRST}\r\n\r\n"
    ));
    client.receive();
    chain.front.wait_logged(REQUESTS.len() + 1);
    let (ended, lines) = sending.stop();
    ended.assert_clean();
    let records = lines.iter().filter_map(|line| match line {
        Line::Request(record) => Some(record),
        _ => None,
    });
    let records: Vec<_> = records.collect();
    assert_eq!(records.len(), REQUESTS.len() + 1);
    let trees = store.trees(records.len());
    let names = REQUESTS.map(|(_, names)| names);
    let names = names.into_iter().chain([&["GET /plain/"][..]]);
    for ((tree, record), names) in trees.iter().zip(&records).zip(names) {
        assert_same(tree, record, names);
        assert_eq!(tree.resource["service.name"], "shop.test");
    }
    let backup = attribute(trees[0].clients()[1], "server.port").unwrap();
    assert_retried(&trees[0], backup.parse().unwrap());
    let [handshake] = trees[4].named("tls_handshake")[..] else {
        panic!("{:#?}", trees[4]);
    };
    assert_eq!(handshake.parent_span_id, trees[4].clients()[0].span_id);
    let failed = &trees[5].server;
    assert_eq!(attribute(failed, "error.type").as_deref(), Some("503"));
    assert_eq!(failed.status.as_ref().unwrap().code, 2);
    let traced = &trees[6].server;
    assert_eq!(hex(&traced.trace_id), FIRST[3..35]);
    assert_eq!(hex(&traced.parent_span_id), FIRST[36..52]);
    let spans: usize = trees.iter().map(|tree| 1 + tree.others.len()).sum();
    println!("otelite has {spans} spans of {} requests", trees.len());
    assert_logs(&store, &trees);
}

/// Asserts that the store has a log record of each request, with the ids and the time of its span.
fn assert_logs(store: &Store, trees: &[Tree]) {
    let logs = wait_right(
        || store.get("/api/logs"),
        |logs| logs["total"] == trees.len(),
    );
    let logs = logs["logs"].as_array().unwrap();
    for server in trees.iter().map(|tree| &tree.server) {
        let is_same = |log: &&Value| log["span_id"] == hex(&server.span_id);
        let log = logs.iter().find(is_same).unwrap();
        assert_eq!(log["trace_id"], hex(&server.trace_id));
        assert_eq!(log["timestamp"], server.start_time_unix_nano);
    }
}
