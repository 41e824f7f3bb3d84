// SPDX-License-Identifier: MIT OR Apache-2.0
//! One attempt at an upstream: its times, what nginx keeps of it, and why it failed.

use std::borrow::Cow;

use serde::Serialize;
use serde::Serializer;
use serde::ser::SerializeMap as _;

use crate::event::AttemptEvent;
use crate::facts::lossy;
use crate::facts::nonzero;
use crate::phases::Phase;
use crate::phases::Phases;
use crate::skel::types::attempt_flag;

/// The upstream's answer to an upgrade.
const SWITCHING_PROTOCOLS: u32 = 101;

/// What nginx gives an attempt that brought no response: see `ngx_http_upstream_next()`.
const BAD_GATEWAY: u32 = 502;
/// What it gives one that took too long.
const GATEWAY_TIME_OUT: u32 = 504;
/// What a request ends with whose client has left.
const CLIENT_CLOSED_REQUEST: u32 = 499;

/// What followed an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Another one, at the next server (`proxy_next_upstream`).
    Attempt,
    /// An internal redirect, and another upstream there.
    Redirect,
    /// The response to the client, with this status.
    Answer(u32),
}

/// One attempt, as users see it.
#[derive(Debug)]
pub struct Attempt<'a> {
    /// `address:port`, or `unix:` and the path; the upstream's name when no server was chosen.
    pub addr: Option<Cow<'a, str>>,
    /// As in `$upstream_status`.
    pub status: Option<u32>,
    /// On a kept connection. `None` when nothing was sent.
    pub reused: Option<bool>,
    /// The five upstream times.
    pub phases: Phases,
    /// From the first byte of the TLS handshake to its last.
    pub upstream_tls_ns: Option<u64>,
    /// As in `$upstream_bytes_sent`.
    pub bytes_sent: Option<i64>,
    /// As in `$upstream_bytes_received`.
    pub bytes_received: Option<i64>,
    /// Why it failed, as far as that is certain.
    pub failure: Option<&'static str>,
}

impl<'a> Attempt<'a> {
    /// Every attempt of a request, in order; behind the last one comes `next`. `origin` is what the
    /// request's phases count from.
    pub fn all(events: &[AttemptEvent<'a>], origin: Option<u64>, next: Next) -> Vec<Self> {
        /* nginx puts a state without a peer between the upstreams of two internal redirects. */
        let tried = events
            .iter()
            .filter(|attempt| !attempt.addr.is_empty() || attempt.was_seen());
        let tried: Vec<_> = tried.collect();
        let all = tried.iter().enumerate().map(|(n, attempt)| {
            let next = match tried.get(n + 1) {
                None => next,
                Some(next) if next.record.index == attempt.record.index + 1 => Next::Attempt,
                Some(_) => Next::Redirect,
            };
            Self::new(attempt, origin, next)
        });
        all.collect()
    }

    /// From its event.
    fn new(event: &AttemptEvent<'a>, origin: Option<u64>, next: Next) -> Self {
        let record = &event.record;
        let seen = Seen {
            flags: record.flags,
            traced: origin.is_some(),
            sent: record.request_first_ns != 0,
            received: record.response_first_ns != 0,
        };
        Self {
            addr: lossy(event.addr),
            status: nonzero(record.status),
            reused: seen.reused(),
            phases: phases(event, origin, &seen),
            upstream_tls_ns: nonzero(record.handshake_first_ns)
                .and_then(|first| record.handshake_last_ns.checked_sub(first)),
            bytes_sent: counted(record.bytes_sent),
            bytes_received: counted(record.bytes_received),
            failure: failure(event, &seen, next),
        }
    }
}

impl Serialize for Attempt<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if let Some(addr) = &self.addr {
            map.serialize_entry("addr", addr)?;
        }
        if let Some(status) = self.status {
            map.serialize_entry("status", &status)?;
        }
        if let Some(reused) = self.reused {
            map.serialize_entry("reused", &reused)?;
        }
        for (name, time) in self.phases.iter() {
            map.serialize_entry(name, &time)?;
        }
        if let Some(time) = self.upstream_tls_ns {
            map.serialize_entry("upstream_tls_ns", &time)?;
        }
        if let Some(bytes) = self.bytes_sent {
            map.serialize_entry("bytes_sent", &bytes)?;
        }
        if let Some(bytes) = self.bytes_received {
            map.serialize_entry("bytes_received", &bytes)?;
        }
        if let Some(failure) = self.failure {
            map.serialize_entry("failure", failure)?;
        }
        map.end()
    }
}

/// What the attempt's socket told.
struct Seen {
    /// `enum attempt_flag`
    flags: u32,
    /// Everything that passed on it was seen.
    traced: bool,
    /// Bytes of the request were sent.
    sent: bool,
    /// Bytes of a response were read.
    received: bool,
}

impl Seen {
    /// Whether it was a kept connection; `None` when nothing tells.
    fn reused(&self) -> Option<bool> {
        match (
            self.has(attempt_flag::ATTEMPT_REUSED),
            self.has(attempt_flag::ATTEMPT_NEW),
        ) {
            (true, _) => Some(true),
            (false, true) => Some(false),
            (false, false) => None,
        }
    }

    /// Whether a flag of wire.h is set.
    fn has(&self, flag: attempt_flag) -> bool {
        self.flags & flag.0 != 0
    }
}

/// What nginx counts; negative when this nginx does not.
fn counted(bytes: i64) -> Option<i64> {
    Some(bytes).filter(|bytes| *bytes >= 0)
}

/// The upstream's side of the phases.
fn phases(event: &AttemptEvent<'_>, origin: Option<u64>, seen: &Seen) -> Phases {
    let mut phases = Phases::default();
    let record = &event.record;
    let Some(origin) = origin else {
        return phases;
    };
    let mut set = |phase, ns: u64| {
        phases.set(phase, nonzero(ns).and_then(|ns| ns.checked_sub(origin)));
    };
    set(Phase::UpstreamConnect, record.connect_ns);
    if !seen.has(attempt_flag::ATTEMPT_UNSURE) {
        set(Phase::UpstreamRequestFirstByte, record.request_first_ns);
        /* What goes through a tunnel is no request; else its end came behind the answer's begin. */
        if record.status == SWITCHING_PROTOCOLS || !seen.has(attempt_flag::ATTEMPT_MORE) {
            set(Phase::UpstreamRequestLastByte, record.request_last_ns);
        }
        /* HTTP/2 has frames of its own before a response. */
        let is_http2 = seen.has(attempt_flag::ATTEMPT_HTTP2);
        if !is_http2 || seen.has(attempt_flag::ATTEMPT_HEADER) {
            set(Phase::UpstreamResponseFirstByte, record.response_first_ns);
            set(Phase::UpstreamResponseLastByte, record.response_last_ns);
        }
    }
    phases
}

/// Why an attempt failed. nginx keeps a status only, so that what remains is to tell its own
/// answers from the upstream's, and the stage from what passed on the socket.
fn failure(event: &AttemptEvent<'_>, seen: &Seen, next: Next) -> Option<&'static str> {
    let status = event.record.status;
    if seen.has(attempt_flag::ATTEMPT_HEADER) {
        /* A response came; when nginx went on all the same, it did so for its status. */
        return match (next, status) {
            (Next::Attempt, 500) => Some("http_500"),
            (Next::Attempt, 502) => Some("http_502"),
            (Next::Attempt, 503) => Some("http_503"),
            (Next::Attempt, 504) => Some("http_504"),
            (Next::Attempt, 403) => Some("http_403"),
            (Next::Attempt, 404) => Some("http_404"),
            (Next::Attempt, 429) => Some("http_429"),
            _ => None,
        };
    }
    if status == 0 {
        return (next == Next::Answer(CLIENT_CLOSED_REQUEST)).then_some("client_closed");
    }
    /* A server's name always has a port or is a path; an upstream's has neither. */
    if !seen.has(attempt_flag::ATTEMPT_SEEN) && !event.addr.contains(&b':') {
        return Some("no_live_upstreams");
    }
    if !seen.traced {
        return None;
    }
    match status {
        GATEWAY_TIME_OUT if !seen.sent && event.record.handshake_first_ns != 0 => {
            Some("tls_timeout")
        }
        GATEWAY_TIME_OUT if !seen.sent => Some("connect_timeout"),
        GATEWAY_TIME_OUT => Some("timeout"),
        BAD_GATEWAY if !seen.sent && event.record.handshake_first_ns != 0 => Some("tls_error"),
        BAD_GATEWAY if !seen.sent => Some("connect_error"),
        BAD_GATEWAY if seen.has(attempt_flag::ATTEMPT_ERROR) => Some("reset"),
        BAD_GATEWAY if seen.has(attempt_flag::ATTEMPT_EOF) => Some("closed"),
        /* Closed by an alert, behind which nothing is read. */
        BAD_GATEWAY if seen.has(attempt_flag::ATTEMPT_TLS) && !seen.received => Some("closed"),
        BAD_GATEWAY if seen.received => Some("invalid_header"),
        BAD_GATEWAY => Some("error"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::Attempt;
    use super::Next;
    use crate::event::AttemptEvent;
    use crate::skel::types;
    use crate::skel::types::attempt_flag;

    /// An attempt with this status, of whose socket these flags tell.
    fn event(status: u32, flags: &[attempt_flag]) -> AttemptEvent<'static> {
        AttemptEvent {
            record: types::attempt {
                status,
                flags: flags.iter().fold(0, |flags, flag| flags | flag.0),
                bytes_sent: -1,
                ..Default::default()
            },
            addr: b"127.0.0.1:80",
        }
    }

    /// Why the last attempt failed.
    fn failure(event: AttemptEvent<'static>, next: Next) -> Option<&'static str> {
        Attempt::all(&[event], Some(1), next)[0].failure
    }

    /// Check that an attempt without a response failed at the stage that its socket had come to.
    #[test]
    fn stages() {
        const SEEN: attempt_flag = attempt_flag::ATTEMPT_SEEN;
        let answer = Next::Answer(502);
        for (status, begun, expected) in [
            (502, "connect", "connect_error"),
            (504, "connect", "connect_timeout"),
            (502, "handshake", "tls_error"),
            (504, "handshake", "tls_timeout"),
            (502, "request", "error"),
            (504, "request", "timeout"),
            (502, "response", "invalid_header"),
        ] {
            let mut event = event(status, &[SEEN]);
            let record = &mut event.record;
            match begun {
                "handshake" => record.handshake_first_ns = 2,
                "request" => record.request_first_ns = 3,
                "response" => (record.request_first_ns, record.response_first_ns) = (3, 4),
                _ => {}
            }
            assert_eq!(failure(event, answer), Some(expected), "{status} {begun}");
        }
        for (flag, expected) in [
            (attempt_flag::ATTEMPT_ERROR, "reset"),
            (attempt_flag::ATTEMPT_EOF, "closed"),
            (attempt_flag::ATTEMPT_TLS, "closed"),
        ] {
            let mut event = event(502, &[SEEN, flag]);
            event.record.request_first_ns = 3;
            assert_eq!(failure(event, answer), Some(expected));
        }
    }

    /// Check that a response is a failure only when nginx went on to another server for its status.
    #[test]
    fn responses() {
        let answered = |status| event(status, &[attempt_flag::ATTEMPT_HEADER]);
        for (status, next, expected) in [
            (503, Next::Attempt, Some("http_503")),
            (418, Next::Attempt, None),
            (503, Next::Redirect, None),
            (503, Next::Answer(503), None),
        ] {
            assert_eq!(failure(answered(status), next), expected, "{status}");
        }
    }

    /// Check what is told of an attempt that has come to nothing: that the client has left, that
    /// there was no server, and nothing where its socket may not have been seen.
    #[test]
    fn without_a_response() {
        let left = Next::Answer(499);
        assert_eq!(failure(event(0, &[]), left), Some("client_closed"));
        assert_eq!(failure(event(0, &[]), Next::Answer(200)), None);
        let unresolved = AttemptEvent {
            addr: b"backend",
            ..event(502, &[])
        };
        assert_eq!(
            failure(unresolved, Next::Answer(502)),
            Some("no_live_upstreams")
        );
        let untraced = [event(502, &[attempt_flag::ATTEMPT_SEEN])];
        assert_eq!(
            Attempt::all(&untraced, None, Next::Answer(502))[0].failure,
            None
        );
    }

    /// Check that behind an attempt comes the next one, unless nginx has left a gap between them:
    /// then an internal redirect. What nginx puts into the gap is no attempt.
    #[test]
    fn followed_by() {
        let [mut first, mut gap, mut last] =
            [503, 0, 200].map(|status| event(status, &[attempt_flag::ATTEMPT_HEADER]));
        (gap.addr, gap.record.flags) = (b"", 0);
        (first.record.index, gap.record.index, last.record.index) = (0, 1, 2);
        let answer = Next::Answer(200);
        let all = Attempt::all(&[first, gap, last], Some(1), answer);
        let told: Vec<_> = all.iter().map(|attempt| attempt.status).collect();
        assert_eq!(told, [Some(503), Some(200)]);
        assert_eq!(all[0].failure, None);
        assert_eq!((all[0].bytes_sent, all[0].bytes_received), (None, Some(0)));
    }
}
