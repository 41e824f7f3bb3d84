// SPDX-License-Identifier: MIT OR Apache-2.0
//! Why nginx gave up an attempt at an upstream. nginx keeps a status only. What remains is to distinguish its
//! own answers from the upstream's, and what happened from how far the attempt had come.

use ngx_bpf_record::values::Failure;

use crate::bpf::types::attempt;
use crate::bpf::types::attempt_flag;

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

/// The failure of a response whose status is in `proxy_next_upstream`.
fn of_status(status: u32) -> Option<Failure> {
    Some(match status {
        403 => Failure::Http403,
        404 => Failure::Http404,
        429 => Failure::Http429,
        500 => Failure::Http500,
        502 => Failure::Http502,
        503 => Failure::Http503,
        504 => Failure::Http504,
        _ => return None,
    })
}

/// How far an attempt had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nothing was sent.
    Connect,
    /// Bytes of the TLS handshake were.
    Handshake,
    /// The request, or some of it.
    Request,
    /// Something had come that is no whole header.
    Header,
    /// The header had come.
    Body,
    /// The connection had become a tunnel.
    Tunnel,
}

/// What is known of an attempt that has ended.
pub struct Evidence<'e> {
    /// What was measured.
    pub record: &'e attempt,
    /// The server's address, or the upstream's name.
    pub addr: &'e [u8],
    /// All that passed on its socket was seen.
    pub is_traced: bool,
    /// Nothing else may have ended the request while nginx expected more of the response.
    pub is_alone: bool,
}

impl Evidence<'_> {
    /// Whether a flag of wire.h is set.
    pub fn has(&self, flag: attempt_flag) -> bool {
        self.record.flags & flag.0 != 0
    }

    /// Bytes of the request were sent. What goes out on a connection whose certificate nginx has
    /// refused is the alert that closes it: nginx does not count that.
    pub fn is_sent(&self) -> bool {
        self.record.request_first_ns != 0 && self.record.bytes_sent != 0
    }

    /// Bytes of a response were read.
    fn is_answered(&self) -> bool {
        self.is_sent() && self.record.response_first_ns != 0
    }

    /// How far it had come.
    fn stage(&self) -> Stage {
        match () {
            () if self.has(attempt_flag::ATTEMPT_HEADER) => {
                if self.has(attempt_flag::ATTEMPT_TUNNEL) {
                    Stage::Tunnel
                } else {
                    Stage::Body
                }
            }
            () if self.is_answered() => Stage::Header,
            () if self.is_sent() => Stage::Request,
            () if self.record.handshake_first_ns != 0 => Stage::Handshake,
            () => Stage::Connect,
        }
    }

    /// Why it failed, as far as that is certain.
    pub fn failure(&self, next: Next) -> Option<Failure> {
        let status = self.record.status;
        let stage = self.stage();
        if stage == Stage::Body && next == Next::Attempt {
            return of_status(status);
        }
        if !self.has(attempt_flag::ATTEMPT_HEADER) && status == 0 {
            return (next == Next::Answer(CLIENT_CLOSED_REQUEST)).then_some(Failure::ClientClosed);
        }
        /* A server's name always has a port or is a path; an upstream's has neither. */
        if !self.has(attempt_flag::ATTEMPT_SEEN) && !self.addr.contains(&b':') {
            return Some(Failure::NoLiveUpstreams);
        }
        if !self.is_traced {
            return None;
        }
        match stage {
            Stage::Body => self.body_failure(),
            Stage::Tunnel => self.tunnel_failure(),
            _ if status == GATEWAY_TIME_OUT => self.timeout(stage),
            _ if status == BAD_GATEWAY => Some(self.header_failure(stage)),
            _ => None,
        }
    }

    /// Which of nginx's times was over before there was a header.
    fn timeout(&self, stage: Stage) -> Option<Failure> {
        match stage {
            Stage::Connect => Some(Failure::ConnectTimeout),
            Stage::Handshake => Some(Failure::TlsTimeout),
            _ if self.has(attempt_flag::ATTEMPT_PART) => Some(Failure::SendTimeout),
            _ if self.has(attempt_flag::ATTEMPT_WHOLE) => Some(Failure::Timeout),
            _ => None,
        }
    }

    /// What else happened before there was one.
    fn header_failure(&self, stage: Stage) -> Failure {
        let is_tls = self.has(attempt_flag::ATTEMPT_TLS);
        match stage {
            Stage::Connect => Failure::ConnectError,
            Stage::Handshake => Failure::TlsError,
            _ if self.has(attempt_flag::ATTEMPT_ERROR) => Failure::Reset,
            _ if self.has(attempt_flag::ATTEMPT_EOF) => Failure::Closed,
            _ if self.has(attempt_flag::ATTEMPT_CANCELLED) => Failure::Reset,
            _ if self.has(attempt_flag::ATTEMPT_GIVEN_UP) && is_tls => Failure::TlsError,
            Stage::Header => Failure::InvalidHeader,
            /* Closed by an alert, after which nothing is read. */
            _ if is_tls => Failure::Closed,
            _ => Failure::Error,
        }
    }

    /// What happened after the header.
    fn body_failure(&self) -> Option<Failure> {
        if !self.has(attempt_flag::ATTEMPT_INCOMPLETE) {
            return None;
        }
        if self.has(attempt_flag::ATTEMPT_ERROR) {
            return Some(Failure::Reset);
        }
        if self.has(attempt_flag::ATTEMPT_EOF) {
            let is_short = !self.has(attempt_flag::ATTEMPT_OPEN_ENDED)
                || self.has(attempt_flag::ATTEMPT_GIVEN_UP);
            return is_short.then_some(Failure::Closed);
        }
        if let Some(timeout) = self.timer() {
            return Some(timeout);
        }
        if self.has(attempt_flag::ATTEMPT_CANCELLED) {
            return Some(Failure::Reset);
        }
        let is_known = self.has(attempt_flag::ATTEMPT_LOOKED);
        if self.has(attempt_flag::ATTEMPT_GIVEN_UP) {
            return Some(match () {
                () if !is_known => Failure::Error,
                () if self.has(attempt_flag::ATTEMPT_TLS) => Failure::TlsError,
                /* FastCGI says that the response has ended, which its length contradicts. */
                () => Failure::Closed,
            });
        }
        (self.is_alone && is_cut(self.record)).then_some(match is_known {
            true => Failure::InvalidBody,
            false => Failure::Error,
        })
    }

    /// What ended a tunnel, unless either side simply closed it.
    fn tunnel_failure(&self) -> Option<Failure> {
        if self.has(attempt_flag::ATTEMPT_ERROR) {
            return Some(Failure::Reset);
        }
        self.timer()
    }

    /// Which timer of the connection had run out.
    fn timer(&self) -> Option<Failure> {
        if self.has(attempt_flag::ATTEMPT_TIMED_OUT) {
            return Some(Failure::Timeout);
        }
        self.has(attempt_flag::ATTEMPT_STUCK)
            .then_some(Failure::SendTimeout)
    }
}

/// Whether a response ended before its time, and neither its connection nor its client shows why: nginx
/// gave up on what it had read, or another part of the request ended the whole.
pub fn is_cut(record: &attempt) -> bool {
    let explained = [
        attempt_flag::ATTEMPT_ERROR,
        attempt_flag::ATTEMPT_EOF,
        attempt_flag::ATTEMPT_TIMED_OUT,
        attempt_flag::ATTEMPT_STUCK,
        attempt_flag::ATTEMPT_CANCELLED,
        attempt_flag::ATTEMPT_GIVEN_UP,
        attempt_flag::ATTEMPT_UNSERVED,
    ];
    let has = |flag: attempt_flag| record.flags & flag.0 != 0;
    has(attempt_flag::ATTEMPT_INCOMPLETE) && !explained.into_iter().any(has)
}
