// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a request means: an event's numbers become nginx's facts, times become phases. The names
//! and the order of the members are the public JSON keys; docs/fields.md tells of each.

use std::borrow::Cow;

use serde::Serialize;

use crate::bpf::types::request_flag;
use crate::decode::clock::Clock;
use crate::decode::event::RequestEvent;
use crate::decode::facts::Facts;
use crate::decode::facts::nonzero;
use crate::record::attempt::Around;
use crate::record::attempt::Attempt;
use crate::record::attempt::Next;
use crate::record::failure;
use crate::record::phases::Phases;
use crate::record::subrequest::Subrequest;
use nginx_binary::layout::choose::Source;

/// Since when a request's phases are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// The connection was accepted.
    Accept,
    /// The accept was not seen: the request's first byte was read.
    RequestFirstByte,
}

/// One request, as users see it. What does not exist is `None`, and no key.
#[derive(Debug, Default, Serialize)]
pub struct Request<'a> {
    /// When the first byte was read: RFC 3339, UTC, nine decimals.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
    /// The worker.
    pub pid: u32,
    /// `$connection`
    pub connection: u64,
    /// `$connection_requests`
    pub connection_requests: u64,
    /// `$remote_addr`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote_addr: Option<Cow<'a, str>>,
    /// `$remote_port`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote_port: Option<u16>,
    /// The socket's other end, where that is not `remote_addr` and `remote_port`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer_addr: Option<String>,
    /// Likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer_port: Option<u16>,
    /// `$server_addr`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_addr: Option<Cow<'a, str>>,
    /// `$server_port`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_port: Option<u16>,
    /// `$scheme`
    pub scheme: &'static str,
    /// `$server_protocol`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_protocol: Option<Cow<'a, str>>,
    /// `$request_method`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_method: Option<Cow<'a, str>>,
    /// `$request_uri`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_uri: Option<Cow<'a, str>>,
    /// `$uri`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uri: Option<Cow<'a, str>>,
    /// `$http_host`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_host: Option<Cow<'a, str>>,
    /// Names of the keys that were cut.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub truncated: Vec<&'static str>,
    /// `$status`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u32>,
    /// `$request_length`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_size: Option<i64>,
    /// `$bytes_sent`
    pub response_size: i64,
    /// `$upstream_cache_status`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream_cache_status: Option<&'static str>,
    /// Of the last upstream tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream_addr: Option<Cow<'a, str>>,
    /// When the connection was accepted, CLOCK_MONOTONIC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub downstream_accept_time: Option<u64>,
    /// The ten times.
    #[serde(skip_serializing_if = "Phases::is_empty")]
    pub phases: Phases,
    /// What they count from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phases_origin: Option<Origin>,
    /// First byte read to last byte sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_ns: Option<u64>,
    /// First byte read to the request's end, as `$request_time`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub elapsed_ns: Option<u64>,
    /// What of it passed while nginx had the request before on the connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_ns: Option<u64>,
    /// The connection became a tunnel (101, CONNECT).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub tunnel: bool,
    /// First byte of the response sent to the end of the tunnel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tunnel_ns: Option<u64>,
    /// From the first byte of the TLS handshake to its last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_handshake_ns: Option<u64>,
    /// The name that the client asked for in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ssl_server_name: Option<Cow<'a, str>>,
    /// `$ssl_protocol`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ssl_protocol: Option<&'static str>,
    /// The protocol that was negotiated in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alpn: Option<&'static str>,
    /// The trace that the client says it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    /// The client's span in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent_span_id: Option<String>,
    /// Every attempt, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub upstreams: Vec<Attempt<'a>>,
    /// Those that had an upstream.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub subrequests: Vec<Subrequest<'a>>,
    /// `inferred` when no one states where this nginx has its members.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layout: Option<Source>,
    /// Tracing began inside this request.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub partial: bool,
    /// There is a body, and it is not known when it was complete: no key.
    #[serde(skip)]
    pub is_body_unknown: bool,
}

impl<'a> Request<'a> {
    /// From one event; `clock` gives its wall time.
    pub fn new(event: &RequestEvent<'a>, clock: Clock) -> Self {
        let record = &event.record;
        let facts = Facts(event);
        let first_byte = facts.first_byte_ns();
        let accepted = nonzero(record.accepted_ns).filter(|_| !facts.is_partial());
        let origin = accepted.or(first_byte);
        let mut request = Self {
            time: first_byte.and_then(|ns| clock.wall(ns).ok()),
            pid: record.pid,
            connection: record.connection,
            connection_requests: record.connection_requests,
            remote_addr: facts.text(record.texts.remote_addr),
            remote_port: nonzero(record.remote_port),
            scheme: facts.scheme(),
            server_protocol: facts.text(record.texts.protocol),
            request_method: facts.text(record.texts.method),
            request_uri: facts.text(record.texts.request_uri),
            uri: facts.text(record.texts.uri),
            http_host: facts.text(record.texts.host),
            truncated: facts.truncated(),
            status: nonzero(record.status),
            request_size: facts.request_size(),
            response_size: record.bytes_sent,
            upstream_cache_status: facts.cache_status(),
            downstream_accept_time: accepted,
            tls_handshake_ns: facts.tls_handshake_ns(),
            ssl_server_name: facts.text(record.texts.server_name),
            ssl_protocol: facts.ssl_protocol(),
            alpn: facts.alpn(),
            layout: facts
                .has(request_flag::REQUEST_INFERRED)
                .then_some(Source::Inferred),
            partial: facts.is_partial(),
            elapsed_ns: facts.elapsed_ns(),
            queue_ns: facts.queue_ns(),
            tunnel: facts.is_tunnel(),
            tunnel_ns: facts.tunnel_ns(),
            is_body_unknown: facts.is_body_unknown(),
            ..Self::default()
        };
        (request.server_addr, request.server_port) = facts.server();
        if let Some((addr, port)) = facts.peer() {
            request.peer_addr = Some(addr.to_string());
            request.peer_port = port;
        }
        if let Some(context) = facts.trace_context() {
            request.trace_id = Some(context.trace_id);
            request.parent_span_id = Some(context.parent_span_id);
        }
        if let Some(origin) = origin {
            request.phases = facts.downstream(origin);
            request.phases_origin = Some(match accepted {
                Some(_) => Origin::Accept,
                None => Origin::RequestFirstByte,
            });
        }
        request.duration_ns = first_byte
            .zip(facts.response_last_ns())
            .and_then(|(first, last)| last.checked_sub(first));
        request.add_attempts(event, origin);
        if request.phases.is_empty() {
            request.phases_origin = None;
        }
        request
    }

    /// The attempts, and of the last one that the client waited for its address and its phases.
    fn add_attempts(&mut self, event: &RequestEvent<'a>, origin: Option<u64>) {
        /* Of several that were cut off, one may have ended the others. */
        let attempts = event.subrequests.iter().flat_map(|sub| &sub.attempts);
        let attempts = event.attempts.iter().chain(attempts);
        let cut = attempts.filter(|attempt| failure::is_cut(&attempt.record));
        let is_served = event.record.flags & request_flag::REQUEST_UNSERVED.0 == 0;
        let is_alone = is_served && cut.count() == 1;
        let around = Around {
            origin,
            next: Next::Answer(event.record.status),
            is_alone,
            answered_ns: nonzero(event.record.response_last_ns),
        };
        self.upstreams = Attempt::all(&event.attempts, around);
        self.subrequests = event
            .subrequests
            .iter()
            .map(|event| Subrequest::new(event, around))
            .collect();
        /* No client has waited for what came after its response. */
        let mut awaited = self.upstreams.iter().rev().filter(|last| !last.post_action);
        if let Some(last) = awaited.next() {
            self.upstream_addr = last.addr.clone();
            self.phases.extend(&last.phases);
        }
    }
}

#[cfg(test)]
impl Request<'static> {
    /// As much of everything as there can be.
    pub fn longest() -> Self {
        use crate::record::failure::Failure;

        let text = |len: usize| Some("\u{1b}".repeat(len).into());
        let plain = |len: usize| Some("x".repeat(len).into());
        let mut phases = Phases::default();
        for phase in crate::record::phases::Phase::ALL {
            phases.set(phase, Some(u64::MAX));
        }
        let mut upstream_phases = Phases::default();
        for phase in &crate::record::phases::Phase::ALL[3..8] {
            upstream_phases.set(*phase, Some(u64::MAX));
        }
        let attempt = |status| Attempt {
            addr: plain(128),
            status: Some(status),
            reused: Some(false),
            phases: upstream_phases.clone(),
            upstream_tls_ns: Some(u64::MAX),
            bytes_sent: Some(i64::MAX),
            bytes_received: Some(i64::MAX),
            failure: Some(Failure::NoLiveUpstreams),
            post_action: true,
        };
        let subrequest = || Subrequest {
            uri: text(512),
            status: Some(999),
            duration_ns: Some(u64::MAX),
            upstreams: (0..4).map(attempt).collect(),
        };
        Self {
            scheme: "https",
            time: Some("2026-11-22T17:17:57.972980760Z".into()),
            pid: u32::MAX,
            connection: u64::MAX,
            connection_requests: u64::MAX,
            remote_addr: plain(128),
            remote_port: Some(u16::MAX),
            peer_addr: Some("ffff:".repeat(8)),
            peer_port: Some(u16::MAX),
            server_addr: plain(128),
            server_port: Some(u16::MAX),
            server_protocol: Some("HTTP/0123456789a".into()),
            request_method: text(64),
            request_uri: Some(format!("?{}", "\u{1b}".repeat(4095)).into()),
            uri: text(4096),
            http_host: Some(format!("{}:65535", "\u{1b}".repeat(506)).into()),
            truncated: Vec::new(),
            status: Some(999),
            request_size: Some(i64::MAX),
            response_size: i64::MAX,
            upstream_cache_status: Some("REVALIDATED"),
            upstream_addr: plain(128),
            downstream_accept_time: Some(u64::MAX),
            phases,
            phases_origin: Some(Origin::RequestFirstByte),
            duration_ns: Some(u64::MAX),
            elapsed_ns: Some(u64::MAX),
            queue_ns: Some(u64::MAX),
            tunnel: true,
            tunnel_ns: Some(u64::MAX),
            tls_handshake_ns: Some(u64::MAX),
            ssl_server_name: text(512),
            ssl_protocol: Some("TLSv1.3"),
            alpn: Some("h2"),
            trace_id: Some("f".repeat(32)),
            parent_span_id: Some("f".repeat(16)),
            upstreams: (0..8).map(attempt).collect(),
            subrequests: (0..8).map(|_| subrequest()).collect(),
            layout: Some(Source::Inferred),
            partial: true,
            is_body_unknown: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::Request;
    use crate::bpf::types;
    use crate::decode::clock::Clock;
    use crate::decode::event::AttemptEvent;
    use crate::decode::event::RequestEvent;
    use crate::decode::event::SubrequestEvent;
    use crate::decode::facts;

    /// The documentation of every key.
    const FIELDS: &str = include_str!("../../docs/fields.md");

    /// The event of `facts::tests`, on a connection accepted at 500.
    fn event() -> RequestEvent<'static> {
        let mut event = facts::tests::event();
        event.record.accepted_ns = 500;
        event
    }

    /// The JSON of an event.
    fn json(event: &RequestEvent<'_>) -> serde_json::Value {
        serde_json::to_value(Request::new(event, Clock::now())).unwrap()
    }

    /// Check the plain case: every time since the accept.
    #[test]
    fn since_accept() {
        let json = json(&event());
        assert_eq!(json["phases_origin"], "accept");
        assert_eq!(json["duration_ns"], 4_000);
        assert_eq!(json["elapsed_ns"], 5_000);
        assert_eq!(
            json["phases"],
            serde_json::json!({
                "downstream_request_first_byte_time": 500,
                "downstream_request_last_byte_time": 500,
                "downstream_response_first_byte_time": 3_500,
                "downstream_response_last_byte_time": 4_500,
            })
        );
    }

    /// Check that of a request that was under way no time is told.
    #[test]
    fn no_times() {
        let changes: [fn(&mut types::request_record); 3] = [
            |record| record.request_first_ns = 0,
            |record| record.flags |= types::request_flag::REQUEST_ADOPTED.0,
            |record| record.flags |= types::request_flag::REQUEST_UNTRACED.0,
        ];
        for change in changes {
            let mut event = event();
            event.record.accepted_ns = 0;
            change(&mut event.record);
            let json = json(&event);
            for key in [
                "phases",
                "phases_origin",
                "duration_ns",
                "elapsed_ns",
                "time",
            ] {
                assert!(json.get(key).is_none(), "{json}");
            }
        }
    }

    /// Check that times that contradict each other are left out, never negative.
    #[test]
    fn backwards() {
        let mut event = event();
        event.record.accepted_ns = 4_500;
        event.record.response_last_ns = 900;
        event.record.ended_ns = 900;
        let json = json(&event);
        assert!(json.get("phases").is_none(), "{json}");
        assert!(json.get("duration_ns").is_none(), "{json}");
        assert!(json.get("elapsed_ns").is_none(), "{json}");
    }

    /// Check that every key that can be written stands in docs/fields.md, and no other.
    #[test]
    fn documented() {
        let mut event = event();
        event.record.remote_port = 1;
        event.record.status = 101;
        event.record.body_ns = 2_000;
        event.record.previous_ended_ns = 3_000;
        event.record.flags |= types::request_flag::REQUEST_INFERRED.0;
        event.record.local.family = libc::AF_INET as u16;
        event.record.local.port = 80;
        event.record.peer = event.record.local;
        event.record.cache_status = 7;
        event.record.connection_requests = 1;
        event.record.handshake_first_ns = 600;
        event.record.handshake_last_ns = 900;
        event.record.http_version = 3000;
        event.record.flags |= types::request_flag::REQUEST_TLS.0;
        event.texts = b"x00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let one = types::text { at: 0, len: 1 };
        event.record.texts = types::request_texts {
            method: types::text {
                at: 0,
                len: 1 | types::text_flag::TEXT_CUT.0 as u16,
            },
            request_uri: one,
            uri: one,
            host: one,
            protocol: one,
            remote_addr: one,
            local_path: one,
            server_name: one,
            traceparent: types::text { at: 1, len: 55 },
        };
        let attempt = || AttemptEvent {
            record: types::attempt {
                connect_ns: 2_000,
                request_first_ns: 2_000,
                request_last_ns: 2_000,
                response_first_ns: 3_000,
                response_last_ns: 3_000,
                handshake_first_ns: 2_000,
                handshake_last_ns: 2_000,
                status: 502,
                bytes_sent: 1,
                flags: types::attempt_flag::ATTEMPT_SEEN.0
                    | types::attempt_flag::ATTEMPT_NEW.0
                    | types::attempt_flag::ATTEMPT_TLS.0
                    | types::attempt_flag::ATTEMPT_WHOLE.0,
                ..Default::default()
            },
            addr: b"127.0.0.1:80",
        };
        let after = AttemptEvent {
            record: types::attempt {
                connect_ns: 6_000,
                index: 1,
                ..attempt().record
            },
            addr: b"127.0.0.1:80",
        };
        event.attempts = vec![attempt(), after];
        event.subrequests = vec![SubrequestEvent {
            record: types::subrequest {
                status: 200,
                ..Default::default()
            },
            attempts: vec![attempt()],
            uri: b"x",
        }];
        let mut keys: BTreeSet<String> = ["type", "partial", "count", "cause"]
            .map(str::to_owned)
            .into();
        let json = json(&event);
        for object in [
            &json,
            &json["phases"],
            &json["upstreams"][0],
            &json["upstreams"][1],
            &json["subrequests"][0],
        ] {
            keys.extend(object.as_object().unwrap().keys().cloned());
        }
        let documented: BTreeSet<String> = FIELDS
            .lines()
            .take_while(|line| !line.starts_with("| `failure` | what"))
            .chain(FIELDS.lines().skip_while(|line| *line != "## `lost`"))
            .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
            .map(|(key, _)| key.to_owned())
            .collect();
        assert_eq!(keys, documented);
    }
}
