// SPDX-License-Identifier: MIT OR Apache-2.0
//! The reasons why nginx gave up an attempt at an upstream. nginx itself keeps only a status. Its
//! own answers are distinguished here from those of the upstream, and the failure follows from the
//! stage that the attempt had reached.

use ngx_bpf_record::values::Failure;

use crate::bpf::types::attempt_flag;
use crate::decode::status::BAD_GATEWAY;
use crate::decode::status::CLIENT_CLOSED_REQUEST;
use crate::decode::status::GATEWAY_TIME_OUT;
use crate::decode::wire::AttemptEvent;

/// The event that followed an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Another attempt, at the next server (`proxy_next_upstream`).
    Attempt,
    /// An internal redirect, and an attempt at another upstream there.
    Redirect,
    /// The end of the request, with this status.
    Answer(u32),
    /// The end of the worker.
    Exit,
}

/// Returns the failure of a response whose status is in `proxy_next_upstream`.
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

/// The stage that an attempt had reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nothing was sent.
    Connect,
    /// Bytes of the TLS handshake were sent.
    Handshake,
    /// Bytes of the request were sent.
    Request,
    /// Bytes of a response had come, but no whole header.
    Header,
    /// The header had come.
    Body,
    /// The connection had become a tunnel.
    Tunnel,
}

/// The facts about an attempt that has ended.
pub struct Evidence<'e> {
    /// The event that BPF sent.
    pub event: &'e AttemptEvent<'e>,
    /// True when all bytes on its socket were seen.
    pub is_traced: bool,
    /// True when no other part of the request may have ended it while nginx expected more of the
    /// response.
    pub is_alone: bool,
}

impl Evidence<'_> {
    /// Returns whether a flag of wire.h is set.
    pub fn has(&self, flag: attempt_flag) -> bool {
        self.event.has(flag)
    }

    /// Returns whether bytes of the request were sent. On a connection whose certificate nginx has
    /// refused, the alert that closes it is sent; nginx does not count its bytes.
    pub fn is_sent(&self) -> bool {
        self.event.record.request_first_ns != 0 && self.event.record.bytes_sent != 0
    }

    /// Returns whether bytes of a response were read.
    fn is_answered(&self) -> bool {
        self.is_sent() && self.event.record.response_first_ns != 0
    }

    /// Returns the stage that the attempt had reached.
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
            () if self.event.record.handshake_first_ns != 0 => Stage::Handshake,
            () => Stage::Connect,
        }
    }

    /// Returns the failure. `None` when the attempt has not failed, or when the reason is not
    /// certain.
    pub fn failure(&self, next: Next) -> Option<Failure> {
        if next == Next::Exit {
            return None;
        }
        let status = self.event.record.status;
        let stage = self.stage();
        if stage == Stage::Body && next == Next::Attempt {
            return of_status(status);
        }
        if !self.has(attempt_flag::ATTEMPT_HEADER) && status == 0 {
            return (next == Next::Answer(CLIENT_CLOSED_REQUEST)).then_some(Failure::ClientClosed);
        }
        /* The name of a server always has a port or is a path; the name of an upstream has neither. */
        if !self.has(attempt_flag::ATTEMPT_SEEN) && !self.event.addr.contains(&b':') {
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

    /// Returns the timeout of nginx that expired before there was a header.
    fn timeout(&self, stage: Stage) -> Option<Failure> {
        match stage {
            Stage::Connect => Some(Failure::ConnectTimeout),
            Stage::Handshake => Some(Failure::TlsTimeout),
            _ if self.has(attempt_flag::ATTEMPT_PART) => Some(Failure::SendTimeout),
            _ if self.has(attempt_flag::ATTEMPT_WHOLE) => Some(Failure::Timeout),
            _ => None,
        }
    }

    /// Returns another failure before there was a header.
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
            /* An alert has closed the connection, and nginx reads nothing after it. */
            _ if is_tls => Failure::Closed,
            _ => Failure::Error,
        }
    }

    /// Returns a failure after the header.
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
                /* FastCGI has reported the end of a response that is shorter than its length. */
                () => Failure::Closed,
            });
        }
        (self.is_alone && is_cut(self.event)).then_some(match is_known {
            true => Failure::InvalidBody,
            false => Failure::Error,
        })
    }

    /// Returns the failure of a tunnel. `None` when either side closed it.
    fn tunnel_failure(&self) -> Option<Failure> {
        if self.has(attempt_flag::ATTEMPT_ERROR) {
            return Some(Failure::Reset);
        }
        self.timer()
    }

    /// Returns the timer of the connection that had expired.
    fn timer(&self) -> Option<Failure> {
        if self.has(attempt_flag::ATTEMPT_TIMED_OUT) {
            return Some(Failure::Timeout);
        }
        self.has(attempt_flag::ATTEMPT_STUCK)
            .then_some(Failure::SendTimeout)
    }
}

/// Returns whether a response ended early although neither its connection nor the client explains
/// it: nginx refused the bytes that it had read, or another part of the request ended the whole
/// request.
pub fn is_cut(event: &AttemptEvent<'_>) -> bool {
    let explained = [
        attempt_flag::ATTEMPT_ERROR,
        attempt_flag::ATTEMPT_EOF,
        attempt_flag::ATTEMPT_TIMED_OUT,
        attempt_flag::ATTEMPT_STUCK,
        attempt_flag::ATTEMPT_CANCELLED,
        attempt_flag::ATTEMPT_GIVEN_UP,
        attempt_flag::ATTEMPT_UNSERVED,
    ];
    event.has(attempt_flag::ATTEMPT_INCOMPLETE)
        && !explained.into_iter().any(|flag| event.has(flag))
}
