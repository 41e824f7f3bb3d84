// SPDX-License-Identifier: MIT OR Apache-2.0
//! Records as the tests read them (a key that the schema does not name fails), and nginx's own account of
//! the same requests.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::LazyLock;

use jsonschema::Validator;
use ngx_bpf_record::Request;
use ngx_bpf_record::values::CacheStatus;
use ngx_bpf_record::values::Origin;
use serde::Deserialize;
use serde_json::Value;

pub use ngx_bpf_record::Lost;

/// The keys of a request for which the worker or a socket had no time at once. They depend on what else
/// the machine does.
pub const WAITS: [&str; 4] = [
    "read_wait_ns",
    "upstream_read_wait_ns",
    "client_stall_ns",
    "upstream_stall_ns",
];

/// A worker that was blocked.
pub type Blocked = ngx_bpf_record::Blocked<'static>;

/// One attempt at an upstream.
pub type Attempt = ngx_bpf_record::Attempt<'static>;

/// A connection that ended without a request.
pub type Connection = ngx_bpf_record::Connection<'static>;

/// What is promised of every record.
static SCHEMA: LazyLock<Validator> = LazyLock::new(|| {
    let schema = include_str!("../../../docs/schema/record.json");
    jsonschema::validator_for(&serde_json::from_str(schema).unwrap()).unwrap()
});

/// One JSON line.
#[derive(Clone, Debug)]
pub enum Line {
    /// A request.
    Request(Record),
    /// A connection that ended without a request.
    Connection(Box<Connection>),
    /// A loss.
    Lost(Lost),
    /// A worker that was blocked.
    Blocked(Box<Blocked>),
}

impl Line {
    /// Parses a line, which must conform to the schema.
    pub fn parse(line: &str) -> Self {
        let value: Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        if let Some(error) = SCHEMA.iter_errors(&value).next() {
            panic!("{error}, at {}: {line}", error.instance_path());
        }
        match serde_json::from_value(value) {
            Ok(ngx_bpf_record::Record::Request(request)) => Self::Request(Record(request)),
            Ok(ngx_bpf_record::Record::Connection(connection)) => Self::Connection(connection),
            Ok(ngx_bpf_record::Record::Lost(lost)) => Self::Lost(lost),
            Ok(ngx_bpf_record::Record::Blocked(blocked)) => Self::Blocked(blocked),
            Err(error) => panic!("{error}: {line}"),
        }
    }
}

/// One request, with what is checked of it.
#[derive(Clone, Debug)]
pub struct Record(pub Box<Request<'static>>);

impl Deref for Record {
    type Target = Request<'static>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

/// A line of the access log. nginx writes "" or "-" for a value that does not exist.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Logged {
    pub pid: u32,
    pub connection: u64,
    pub connection_requests: u64,
    pub remote_addr: String,
    pub remote_port: String,
    pub server_addr: String,
    pub server_port: String,
    pub scheme: String,
    pub server_protocol: String,
    pub request_method: String,
    pub request_uri: String,
    pub uri: String,
    pub http_host: String,
    pub server_name: String,
    pub status: String,
    pub request_length: i64,
    pub bytes_sent: i64,
    pub upstream_cache_status: String,
    pub upstream_addr: String,
    pub upstream_status: String,
    pub upstream_bytes_sent: String,
    pub upstream_bytes_received: String,
    pub upstream_header_time: String,
    pub upstream_response_time: String,
}

impl Record {
    /// The numbers by which nginx identifies a request. nginx counts from 1: what is not known is 0.
    pub fn key(&self) -> (u32, u64, u64) {
        let numbers = [self.connection, self.connection_requests];
        let [connection, requests] = numbers.map(Option::unwrap_or_default);
        (self.pid, connection, requests)
    }

    /// Returns when its first byte was read, in nanoseconds since 1970.
    pub fn first_ns(&self) -> u64 {
        let time: jiff::Timestamp = self.time.as_deref().unwrap().parse().unwrap();
        u64::try_from(time.as_nanosecond()).unwrap()
    }

    /// Asserts that every value that nginx logs, too, is equal.
    pub fn assert_logged(&self, logged: &Logged) {
        let number = |value: Option<u16>| value.map(|n| n.to_string()).unwrap_or_default();
        let status = self.status.map_or("000".into(), |n| format!("{n:03}"));
        let context = format!("{self:#?}\n{logged:#?}");
        assert_eq!(self.key(), logged.key(), "{context}");
        assert_eq!(self.scheme.name(), logged.scheme, "{context}");
        for (name, ours, theirs) in [
            ("remote_addr", &self.remote_addr, &logged.remote_addr),
            ("server_addr", &self.server_addr, &logged.server_addr),
            (
                "server_protocol",
                &self.server_protocol,
                &logged.server_protocol,
            ),
            (
                "request_method",
                &self.request_method,
                &logged.request_method,
            ),
            ("request_uri", &self.request_uri, &logged.request_uri),
            ("uri", &self.uri, &logged.uri),
            ("http_host", &self.http_host, &logged.http_host),
            ("server_name", &self.place.server_name, &logged.server_name),
        ] {
            let ours = ours.as_deref().unwrap_or_default();
            if self.truncated.iter().any(|cut| cut.name() == name) {
                assert!(
                    theirs.starts_with(ours) && ours != theirs,
                    "{name}: {context}"
                );
            } else {
                assert_eq!(ours, theirs, "{name}: {context}");
            }
        }
        assert_eq!(number(self.remote_port), logged.remote_port, "{context}");
        assert_eq!(number(self.server_port), logged.server_port, "{context}");
        assert_eq!(status, logged.status, "{context}");
        let length = Some(logged.request_length).filter(|length| *length >= 0);
        assert_eq!(self.request_size, length, "{context}");
        assert_eq!(self.response_size, Some(logged.bytes_sent), "{context}");
        let cache = self.upstream_cache_status.map(CacheStatus::name);
        assert_eq!(
            cache.unwrap_or_default(),
            logged.upstream_cache_status,
            "{context}"
        );
        self.assert_logged_upstreams(logged, &context);
        self.assert_order(&context);
    }

    /// Asserts that the attempts equal nginx's.
    fn assert_logged_upstreams(&self, logged: &Logged, context: &str) {
        /* A redirect from an upstream without an attempt leaves `-` and `0` in these variables. */
        let list = |text| match logged.upstream_addr.as_str() {
            "" => Vec::new(),
            _ => list(text),
        };
        let attempts = |value: fn(&Attempt) -> String| -> Vec<String> {
            self.upstreams.iter().map(value).collect()
        };
        let addrs = attempts(|attempt| attempt.addr.clone().unwrap().into_owned());
        assert_eq!(addrs, list(&logged.upstream_addr), "{context}");
        let or_dash = |attempt: &Attempt| attempt.status.map_or("-".into(), |n| n.to_string());
        assert_eq!(
            attempts(or_dash),
            list(&logged.upstream_status),
            "{context}"
        );
        let sent = attempts(|attempt| attempt.bytes_sent.unwrap().to_string());
        assert_eq!(sent, list(&logged.upstream_bytes_sent), "{context}");
        let received = attempts(|attempt| attempt.bytes_received.unwrap().to_string());
        assert_eq!(received, list(&logged.upstream_bytes_received), "{context}");
        for (attempt, header) in self
            .upstreams
            .iter()
            .zip(list(&logged.upstream_header_time))
        {
            let is_absent = attempt.response_header_ns.is_none();
            assert!(is_absent || header != "-", "{context}");
        }
        let last = self.last_awaited().and_then(|last| last.addr.as_ref());
        assert_eq!(self.upstream_addr.as_ref(), last, "{context}");
    }

    /// Asserts that times never run backwards along one side, that those of the last attempt are the
    /// request's, and that the shares of the request's time add up.
    fn assert_order(&self, context: &str) {
        let p = &self.phases;
        if let Some(shares) = &self.waits.time_ns {
            let sum = shares.client + shares.upstream + shares.nginx + shares.wait;
            assert_eq!(Some(sum), self.duration_ns, "{context}");
        }
        assert_ordered(
            &[
                p.downstream_request_first_byte_time,
                p.downstream_request_last_byte_time,
                p.downstream_response_first_byte_time,
                p.downstream_response_last_byte_time,
            ],
            context,
        );
        assert_ordered(
            &[
                p.downstream_request_last_byte_time,
                p.downstream_request_body_last_byte_time,
            ],
            context,
        );
        let mut last = [None; 5];
        for attempt in self.upstreams.iter().filter(|last| !last.post_action) {
            last = [
                attempt.upstream_connect_time,
                attempt.upstream_request_first_byte_time,
                attempt.upstream_request_last_byte_time,
                attempt.upstream_response_first_byte_time,
                attempt.upstream_response_last_byte_time,
            ];
            assert_ordered(&[last[0], last[1], last[3], last[4]], context);
            assert_ordered(&[last[1], last[2]], context);
        }
        let phases = [
            p.upstream_connect_time,
            p.upstream_request_first_byte_time,
            p.upstream_request_last_byte_time,
            p.upstream_response_first_byte_time,
            p.upstream_response_last_byte_time,
        ];
        assert_eq!(phases, last, "{context}");
        let first = p
            .downstream_request_last_byte_time
            .or(p.downstream_request_first_byte_time);
        assert_ordered(&[first, p.upstream_connect_time], context);
    }

    /// Asserts that a plain, whole request has every time.
    pub fn assert_complete(&self) {
        let p = &self.phases;
        let expected = [
            p.downstream_request_first_byte_time,
            p.downstream_request_last_byte_time,
            p.downstream_response_first_byte_time,
            p.downstream_response_last_byte_time,
        ];
        assert!(expected.iter().all(Option::is_some), "{self:#?}");
        assert!(
            self.time.is_some() && self.duration_ns.is_some(),
            "{self:#?}"
        );
        assert_eq!(
            self.upstreams.is_empty(),
            p.upstream_connect_time.is_none(),
            "{self:#?}"
        );
        assert!(!self.partial, "{self:#?}");
        match self.phases_origin {
            Some(Origin::Accept) => assert!(self.downstream_accept_time.is_some(), "{self:#?}"),
            Some(Origin::RequestFirstByte) => {
                assert_eq!(expected[0], Some(0), "{self:#?}");
                assert!(self.downstream_accept_time.is_none(), "{self:#?}");
            }
            None => panic!("{self:#?}"),
        }
    }
}

impl Logged {
    /// The numbers by which nginx identifies a request.
    pub fn key(&self) -> (u32, u64, u64) {
        (self.pid, self.connection, self.connection_requests)
    }
}

/// Asserts that records and access log have the same requests, each once, in the same order for
/// each worker, and with the same values.
pub fn assert_equal(records: &[Record], logged: &[Logged]) {
    let mut by_worker: BTreeMap<u32, (Vec<&Record>, Vec<&Logged>)> = BTreeMap::new();
    for record in records {
        by_worker.entry(record.pid).or_default().0.push(record);
    }
    for logged in logged {
        by_worker.entry(logged.pid).or_default().1.push(logged);
    }
    for (records, logged) in by_worker.values() {
        let ours: Vec<_> = records.iter().map(|record| record.key()).collect();
        let theirs: Vec<_> = logged.iter().map(|logged| logged.key()).collect();
        assert_eq!(ours, theirs);
        for (record, logged) in records.iter().zip(logged) {
            record.assert_logged(logged);
        }
    }
}

/// Splits `a, b : c` of an upstream variable: attempts, and after the colon those of a redirect.
fn list(text: &str) -> Vec<String> {
    text.split(" : ")
        .flat_map(|part| part.split(", "))
        .filter(|item| !item.is_empty())
        .map(str::to_owned)
        .collect()
}

/// Asserts that the times that exist do not run backwards.
fn assert_ordered(times: &[Option<u64>], context: &str) {
    let known: Vec<u64> = times.iter().flatten().copied().collect();
    assert!(known.is_sorted(), "{known:?} in {context}");
}

/// Asserts that a delay of this number of milliseconds lies between two times. On a busy machine
/// delays are longer, and the earlier time is stamped late.
pub fn assert_delay(from: Option<u64>, to: Option<u64>, ms: u64) {
    let between = to.unwrap().checked_sub(from.unwrap()).unwrap();
    assert!(between >= ms * 500_000, "{between} ns instead of {ms} ms");
}
