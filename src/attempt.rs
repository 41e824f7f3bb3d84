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
            status: Some(record.status).filter(|status| *status != 0),
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
    let mut set = |phase, ns| {
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
