// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a request means: an event's numbers become nginx's facts, times become phases. The names
//! and the order of the members are the public JSON keys; docs/fields.md tells of each.

use std::borrow::Cow;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;

use serde::Serialize;

use crate::attempt::Attempt;
use crate::attempt::Next;
use crate::clock::Clock;
use crate::event::RequestEvent;
use crate::phases::Phase;
use crate::phases::Phases;
use crate::skel::types;
use crate::skel::types::request_flag;
use crate::skel::types::request_text;

/// `r->http_version` of HTTP/0.9.
const HTTP_VERSION_9: u32 = 9;
/// `r->http_version` of HTTP/3.
const HTTP_VERSION_30: u32 = 3000;

/// `r->http_version` of HTTP/2.
const HTTP_VERSION_20: u32 = 2000;

/// So many of the reads that a record tells of are the first ones; the others are the latest.
const READS_FIRST: usize = types::limit::READS_MAX.0 as usize / 2;

/// A socket of IPv4.
const AF_INET: u16 = libc::AF_INET as u16;
/// A socket of IPv6.
const AF_INET6: u16 = libc::AF_INET6 as u16;

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
    /// `$server_addr`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_addr: Option<Cow<'a, str>>,
    /// `$server_port`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_port: Option<u16>,
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
    pub request_size: i64,
    /// `$bytes_sent`
    pub response_size: i64,
    /// Of the last upstream tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream_addr: Option<Cow<'a, str>>,
    /// When the connection was accepted, CLOCK_MONOTONIC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub downstream_accept_time: Option<u64>,
    /// The nine times.
    #[serde(skip_serializing_if = "Phases::is_empty")]
    pub phases: Phases,
    /// What they count from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phases_origin: Option<Origin>,
    /// First byte read to last byte sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_ns: Option<u64>,
    /// Every attempt, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub upstreams: Vec<Attempt<'a>>,
    /// Tracing began inside this request.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub partial: bool,
}

impl<'a> Request<'a> {
    /// From one event; `clock` gives its wall time.
    pub fn new(event: &RequestEvent<'a>, clock: Clock) -> Self {
        let record = &event.record;
        let facts = Facts(event);
        let first_byte = facts.first_byte_ns();
        /* A stream of HTTP/3 has a connection of its own, which nobody accepted. */
        let accepted = nonzero(record.accepted_ns)
            .filter(|_| !facts.is_partial() && record.http_version < HTTP_VERSION_30);
        let origin = accepted.or(first_byte);
        let mut request = Self {
            time: first_byte.and_then(|ns| clock.wall(ns).ok()),
            pid: record.pid,
            connection: record.connection,
            connection_requests: record.connection_requests,
            remote_addr: facts.text(request_text::TEXT_REMOTE_ADDR),
            remote_port: Some(record.remote_port).filter(|port| *port != 0),
            server_protocol: facts.text(request_text::TEXT_PROTOCOL),
            request_method: facts.text(request_text::TEXT_METHOD),
            request_uri: facts.text(request_text::TEXT_REQUEST_URI),
            uri: facts.text(request_text::TEXT_URI),
            http_host: facts.text(request_text::TEXT_HOST),
            truncated: facts.truncated(),
            status: Some(record.status).filter(|status| *status != 0),
            request_size: record.request_length,
            response_size: record.bytes_sent,
            downstream_accept_time: accepted,
            partial: facts.is_partial(),
            ..Self::default()
        };
        (request.server_addr, request.server_port) = facts.server();
        if let Some(origin) = origin {
            request.phases = facts.downstream(origin);
            request.phases_origin = Some(match accepted {
                Some(_) => Origin::Accept,
                None => Origin::RequestFirstByte,
            });
        }
        request.duration_ns = first_byte
            .zip(nonzero(record.response_last_ns))
            .and_then(|(first, last)| last.checked_sub(first));
        request.add_attempts(event, origin);
        if request.phases.is_empty() {
            request.phases_origin = None;
        }
        request
    }

    /// The attempts, and of the last one its address and its phases.
    fn add_attempts(&mut self, event: &RequestEvent<'a>, origin: Option<u64>) {
        /* nginx puts a state without a peer between the upstreams of two internal redirects. */
        let tried: Vec<_> = event
            .attempts
            .iter()
            .filter(|attempt| !attempt.addr.is_empty() || attempt.was_seen())
            .collect();
        for (n, attempt) in tried.iter().enumerate() {
            let next = match tried.get(n + 1) {
                None => Next::Answer(event.record.status),
                Some(next) if next.record.index == attempt.record.index + 1 => Next::Attempt,
                Some(_) => Next::Redirect,
            };
            self.upstreams.push(Attempt::new(attempt, origin, next));
        }
        if let Some(last) = self.upstreams.last() {
            self.upstream_addr = last.addr.clone();
            self.phases.extend(&last.phases);
        }
    }
}

/// What an event's numbers say, each question by itself.
struct Facts<'e, 'a>(&'e RequestEvent<'a>);

impl<'a> Facts<'_, 'a> {
    /// Whether a flag of wire.h is set.
    fn has(&self, flag: request_flag) -> bool {
        self.0.record.flags & flag.0 != 0
    }

    /// Whether the socket's bytes are this request's, one after the other, in plain.
    fn is_plain_http1(&self) -> bool {
        !self.has(request_flag::REQUEST_TLS) && self.0.record.http_version < HTTP_VERSION_20
    }

    /// Whether some of this request may have passed before tracing began. On a connection that
    /// was there before, a request whose bytes were all seen has as many as nginx counted.
    fn is_partial(&self) -> bool {
        let record = &self.0.record;
        if record.http_version >= HTTP_VERSION_20 {
            return false;
        }
        let consumed = record.received.checked_sub(record.unread);
        let seen = self.is_plain_http1() && consumed == u64::try_from(record.request_length).ok();
        self.has(request_flag::REQUEST_UNTRACED)
            || (self.has(request_flag::REQUEST_ADOPTED) && !seen)
    }

    /// Whether the times of the client's socket are this request's.
    fn has_downstream_times(&self) -> bool {
        self.is_plain_http1() && !self.is_partial()
    }

    /// When the request's first byte was read: what was read since it begins there.
    fn first_byte_ns(&self) -> Option<u64> {
        if !self.has_downstream_times() {
            return None;
        }
        let record = &self.0.record;
        let proxied = self.has(request_flag::REQUEST_PROXY_PROTOCOL);
        if proxied && record.connection_requests == 1 {
            /* A PROXY protocol header came before it: the request is what ends the header. */
            let (index, end) = self.header_end()?;
            let length = u64::try_from(record.request_length).ok()?;
            let first = self.read_of(end.checked_sub(length)?)?;
            return Some(first).filter(|first| *first <= self.0.reads[index].at_ns);
        }
        Some(self.0.reads.first()?.at_ns)
    }

    /// When the header was complete and nginx could start on it: a pipelined request waits for
    /// the end of the one before.
    fn header_ns(&self) -> Option<u64> {
        let record = &self.0.record;
        let complete = record.header_read_ns != 0
            || self.has(request_flag::REQUEST_UPSTREAM)
            || self.has(request_flag::REQUEST_HEADER_COMPLETE)
            || record.content_length_n >= 0
            || record.http_version == HTTP_VERSION_9;
        if !self.has_downstream_times() || !complete || record.request_length == 0 {
            return None;
        }
        let read = match nonzero(record.header_read_ns) {
            Some(read) => read,
            None if record.content_length_n < 0 => {
                let (index, _) = self.header_end()?;
                self.0.reads[index].at_ns
            }
            None => {
                /* A body that nginx discards is not in $request_length. */
                let length = u64::try_from(record.request_length).ok()?;
                self.read_of(record.start.checked_add(length)?.checked_sub(1)?)?
            }
        };
        Some(read.max(record.previous_ended_ns))
    }

    /// Of a request without a body: the read that brought the header's end, and the position
    /// behind it. nginx reads nothing more before it answers.
    fn header_end(&self) -> Option<(usize, u64)> {
        let record = &self.0.record;
        if record.header_read_ns != 0 || record.content_length_n >= 0 {
            return None;
        }
        let answered = nonzero(record.response_first_ns).unwrap_or(u64::MAX);
        let reads = &self.0.reads;
        let index = reads.iter().rposition(|read| read.at_ns <= answered)?;
        let is_last = index + 1 == reads.len();
        let end = if is_last {
            record.received.checked_sub(record.unread)?
        } else {
            reads[index].end
        };
        Some((index, end)).filter(|_| is_last || !self.is_before_gap(index))
    }

    /// When the byte at this position was read. `None` when it is among reads that were not kept.
    fn read_of(&self, position: u64) -> Option<u64> {
        let reads = &self.0.reads;
        let index = reads.iter().position(|read| read.end > position)?;
        let is_behind_gap = index > 0 && self.is_before_gap(index - 1);
        Some(reads[index].at_ns).filter(|_| !is_behind_gap)
    }

    /// Whether reads that were not kept follow this one.
    fn is_before_gap(&self, index: usize) -> bool {
        let has_gap = self.0.record.reads_seen as usize > self.0.reads.len();
        has_gap && index + 1 == READS_FIRST
    }

    /// The client's side of the phases.
    fn downstream(&self, origin: u64) -> Phases {
        let mut phases = Phases::default();
        if !self.has_downstream_times() {
            return phases;
        }
        let record = &self.0.record;
        let since = |ns: Option<u64>| ns?.checked_sub(origin);
        let first = self.first_byte_ns();
        phases.set(Phase::DownstreamRequestFirstByte, since(first));
        phases.set(Phase::DownstreamRequestLastByte, since(self.header_ns()));
        let response_first = nonzero(record.response_first_ns);
        phases.set(Phase::DownstreamResponseFirstByte, since(response_first));
        let response_last = nonzero(record.response_last_ns);
        phases.set(Phase::DownstreamResponseLastByte, since(response_last));
        phases
    }

    /// One of the texts; what is not UTF-8 becomes U+FFFD.
    fn text(&self, text: request_text) -> Option<Cow<'a, str>> {
        lossy(self.0.texts[text.0 as usize])
    }

    /// nginx's end of the client's connection: from the kernel, or the path of the listener.
    fn server(&self) -> (Option<Cow<'a, str>>, Option<u16>) {
        let local = &self.0.record.local;
        let [a, b, c, d, ..] = local.bytes;
        let addr = match local.family {
            AF_INET => Ipv4Addr::new(a, b, c, d).to_string(),
            AF_INET6 => Ipv6Addr::from(local.bytes).to_string(),
            _ => {
                let path = self.text(request_text::TEXT_LOCAL_PATH);
                return (path.map(|path| format!("unix:{path}").into()), None);
            }
        };
        (Some(addr.into()), Some(local.port))
    }

    /// The keys whose texts are longer than what was kept, and `upstreams` when there were more.
    fn truncated(&self) -> Vec<&'static str> {
        let record = &self.0.record;
        let texts = [
            (request_text::TEXT_METHOD, "request_method"),
            (request_text::TEXT_REQUEST_URI, "request_uri"),
            (request_text::TEXT_URI, "uri"),
            (request_text::TEXT_HOST, "http_host"),
            (request_text::TEXT_PROTOCOL, "server_protocol"),
            (request_text::TEXT_REMOTE_ADDR, "remote_addr"),
        ];
        let mut names: Vec<_> = texts
            .into_iter()
            .filter(|(text, _)| record.text_cut & (1 << text.0) != 0)
            .map(|(_, name)| name)
            .collect();
        if self
            .0
            .attempts
            .last()
            .is_some_and(|last| last.record.addr_cut != 0)
        {
            names.push("upstream_addr");
        }
        if record.upstreams_seen as usize > self.0.attempts.len() {
            names.push("upstreams");
        }
        names
    }
}

/// Text of nginx's; `None` when there is none.
pub fn lossy(bytes: &[u8]) -> Option<Cow<'_, str>> {
    Some(String::from_utf8_lossy(bytes)).filter(|text| !text.is_empty())
}

/// A moment that was seen.
pub fn nonzero(ns: u64) -> Option<u64> {
    Some(ns).filter(|ns| *ns != 0)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::Request;
    use crate::clock::Clock;
    use crate::event::AttemptEvent;
    use crate::event::Read;
    use crate::event::RequestEvent;
    use crate::skel::types;

    /// The documentation of every key.
    const FIELDS: &str = include_str!("../docs/fields.md");

    /// One request, read at 1,000 and answered at 5,000, on a connection accepted at 500.
    fn event() -> RequestEvent<'static> {
        RequestEvent {
            record: types::request_record {
                accepted_ns: 500,
                response_first_ns: 4_000,
                response_last_ns: 5_000,
                received: 100,
                request_length: 100,
                content_length_n: -1,
                http_version: 1001,
                flags: types::request_flag::REQUEST_HEADER_COMPLETE.0,
                reads_seen: 1,
                ..Default::default()
            },
            reads: vec![Read {
                at_ns: 1_000,
                end: 100,
            }],
            attempts: Vec::new(),
            texts: [&[]; 7],
        }
    }

    /// The JSON of an event.
    fn json(event: &RequestEvent<'_>) -> serde_json::Value {
        serde_json::to_value(Request::new(event, Clock::now())).unwrap()
    }

    /// The phases of an event, in the order of their names.
    fn phases(event: &RequestEvent<'_>) -> serde_json::Value {
        json(event)["phases"].clone()
    }

    /// Check the plain case: every time since the accept.
    #[test]
    fn since_accept() {
        let json = json(&event());
        assert_eq!(json["phases_origin"], "accept");
        assert_eq!(json["duration_ns"], 4_000);
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

    /// Check that a header whose end came with a later read is timed by that read, and that one
    /// that nginx never saw complete is not timed.
    #[test]
    fn header_end() {
        let mut event = event();
        event.reads = vec![
            Read {
                at_ns: 1_000,
                end: 99,
            },
            Read {
                at_ns: 2_000,
                end: 100,
            },
        ];
        event.record.reads_seen = 2;
        assert_eq!(phases(&event)["downstream_request_last_byte_time"], 1_500);
        event.record.header_read_ns = 1_700;
        assert_eq!(phases(&event)["downstream_request_last_byte_time"], 1_200);
        event.record.header_read_ns = 0;
        event.record.flags = 0;
        assert!(
            phases(&event)
                .get("downstream_request_last_byte_time")
                .is_none()
        );
    }

    /// Check that a pipelined request begins when the one before it has ended.
    #[test]
    fn pipelined() {
        let mut event = event();
        event.record.previous_ended_ns = 3_000;
        assert_eq!(phases(&event)["downstream_request_first_byte_time"], 500);
        assert_eq!(phases(&event)["downstream_request_last_byte_time"], 2_500);
    }

    /// Check that the end of a header among reads that were not kept is absent, and that one among
    /// the latest, which are kept as a ring, is found.
    #[test]
    fn many_reads() {
        let mut event = event();
        /* 40 reads of one byte, of a header before a body that is discarded: the first eight and
         * the last eight. */
        event.record.content_length_n = 7;
        let mut reads: Vec<Read> = (1..=8)
            .map(|n| Read {
                at_ns: 1_000 + n,
                end: n,
            })
            .collect();
        reads.extend((33..=40).map(|n| Read {
            at_ns: 1_000 + n,
            end: n,
        }));
        event.reads = reads;
        event.record.reads_seen = 40;
        event.record.received = 40;
        for (length, expected) in [
            (8, Some(508)),
            (9, None),
            (33, None),
            (34, Some(534)),
            (40, Some(540)),
        ] {
            event.record.request_length = length;
            let phases = phases(&event);
            let last = phases.get("downstream_request_last_byte_time");
            assert_eq!(
                last.and_then(serde_json::Value::as_u64),
                expected,
                "{length}"
            );
        }
    }

    /// Check that of a request that was under way, and of one whose bytes are not its socket's, no
    /// time is told.
    #[test]
    fn no_times() {
        let adopted = types::request_flag::REQUEST_ADOPTED.0;
        let changes: [fn(&mut types::request_record); 4] = [
            |record| record.request_length = 101,
            |record| record.flags |= types::request_flag::REQUEST_TLS.0,
            |record| record.http_version = 2000,
            |record| record.flags |= types::request_flag::REQUEST_UNTRACED.0,
        ];
        for change in changes {
            let mut event = event();
            event.record.accepted_ns = 0;
            event.record.flags |= adopted;
            change(&mut event.record);
            let json = json(&event);
            for key in ["phases", "phases_origin", "duration_ns", "time"] {
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
        let json = json(&event);
        assert!(json.get("phases").is_none(), "{json}");
        assert!(json.get("duration_ns").is_none(), "{json}");
    }

    /// Check that every key that can be written stands in docs/fields.md, and no other.
    #[test]
    fn documented() {
        let mut event = event();
        event.record.remote_port = 1;
        event.record.status = 200;
        event.record.flags |= types::request_flag::REQUEST_ADOPTED.0;
        event.record.local.family = super::AF_INET;
        event.record.text_cut = 1;
        event.texts = [b"x"; 7];
        event.attempts = vec![AttemptEvent {
            record: types::attempt {
                connect_ns: 2_000,
                request_first_ns: 2_000,
                request_last_ns: 2_000,
                response_first_ns: 3_000,
                response_last_ns: 3_000,
                status: 502,
                flags: types::attempt_flag::ATTEMPT_SEEN.0 | types::attempt_flag::ATTEMPT_NEW.0,
                ..Default::default()
            },
            addr: b"127.0.0.1:80",
        }];
        let mut keys: BTreeSet<String> = ["type", "partial", "count", "cause"]
            .map(str::to_owned)
            .into();
        let json = json(&event);
        for object in [&json, &json["phases"], &json["upstreams"][0]] {
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
