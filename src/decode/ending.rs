// SPDX-License-Identifier: MIT OR Apache-2.0
//! How a request ended. nginx keeps no such value. It follows from the status, from what became of the
//! last attempt, and, for a request that was cut short, from what nginx's memory shows of the client's
//! connection (bpf/ending.bpf.h).

use ngx_bpf_record::Ending;
use ngx_bpf_record::values::CacheStatus;
use ngx_bpf_record::values::End;
use ngx_bpf_record::values::Failure;
use ngx_bpf_record::values::Side;
use ngx_bpf_record::values::Timeout;

use crate::bpf::types::attempt_flag;
use crate::bpf::types::request_flag;
use crate::decode::facts::Facts;
use crate::decode::facts::HTTP_VERSION_20;
use crate::decode::facts::HTTP_VERSION_30;
use crate::decode::status::BAD_GATEWAY;
use crate::decode::status::CLIENT_CLOSED_REQUEST;
use crate::decode::status::CLOSE;
use crate::decode::status::GATEWAY_TIME_OUT;
use crate::decode::status::INTERNAL_SERVER_ERROR;
use crate::decode::status::REQUEST_TIME_OUT;
use crate::decode::status::SERVICE_UNAVAILABLE;
use crate::decode::status::SWITCHING_PROTOCOLS;
use crate::decode::status::TOO_MANY_REQUESTS;
use crate::decode::wire::AttemptEvent;

/// How far a request had come.
mod stage;

/// The first status of an error of the client, and of the server.
const CLIENT_ERROR: u32 = 400;
const SERVER_ERROR: u32 = 500;

/// Returns how a request ended. `failure` is that of the last attempt that the client waited for.
pub fn ending(facts: &Facts<'_, '_>, failure: Option<Failure>) -> Ending {
    let last = facts.last_awaited();
    let evidence = Evidence {
        facts,
        last,
        failure,
    };
    let end = evidence.end();
    let is_timeout = end == Some(End::Timeout);
    Ending {
        end,
        timeout: is_timeout.then(|| evidence.timeout()).flatten(),
        closed_by: end.and_then(|end| evidence.closed_by(end)),
        last_phase: end.and_then(|end| evidence.last_phase(end)),
        tunnel: facts.is_tunnel(),
        tunnel_ns: facts.tunnel_ns(),
    }
}

/// The facts that show how a request ended.
struct Evidence<'f, 'e, 'a> {
    facts: &'f Facts<'e, 'a>,
    /// The last attempt that the client waited for.
    last: Option<&'f AttemptEvent<'a>>,
    /// Its failure.
    failure: Option<Failure>,
}

impl Evidence<'_, '_, '_> {
    /// Returns whether a flag of wire.h is set.
    fn has(&self, flag: request_flag) -> bool {
        self.facts.has(flag)
    }

    /// Returns `$status`; 0: none.
    fn status(&self) -> u32 {
        self.facts.0.record.status
    }

    /// Returns how the request ended. `None` when that is not certain.
    fn end(&self) -> Option<End> {
        if self.has(request_flag::REQUEST_ABANDONED) {
            return Some(End::WorkerExit);
        }
        if self.has(request_flag::REQUEST_FINISHED) {
            let end = self.broken().or_else(|| self.answered());
            /* Over HTTP/3 the client may not have had the end of a response that nginx had sent. */
            let is_unsent = self.has(request_flag::REQUEST_UNSENT);
            return end.filter(|end| *end != End::Ok || !is_unsent);
        }
        if !self.has(request_flag::REQUEST_CUT) {
            return None;
        }
        if self.has(request_flag::REQUEST_TIMED_OUT) {
            return self.timed_out();
        }
        if self.facts.0.record.http_version == HTTP_VERSION_30 {
            return self.cut_in_quic();
        }
        if self.has(request_flag::REQUEST_FAILED) {
            return self.cut();
        }
        /* In a tunnel nginx does not note in the connection what has failed. */
        self.broken().or_else(|| self.given_up())
    }

    /// Returns the end of a request whose response nginx has sent.
    fn answered(&self) -> Option<End> {
        let status = self.status();
        let is_header = |last: &&AttemptEvent<'_>| last.has(attempt_flag::ATTEMPT_HEADER);
        let header = self.last.filter(is_header);
        let is_passed_on = header.is_some_and(|last| last.record.status == status);
        if status == 0 {
            return None;
        }
        if is_passed_on || status < CLIENT_ERROR {
            let Some(last) = header else {
                return Some(End::Ok);
            };
            return match self.failure {
                Some(failure) => Some(of_failure(failure)),
                None => is_whole(last).then_some(End::Ok),
            };
        }
        self.refused(status)
    }

    /// Returns the end of a request that nginx has answered with an error of its own.
    fn refused(&self, status: u32) -> Option<End> {
        /* It may be the upstream's own, from the cache. */
        let is_cached = matches!(
            self.facts.cache_status(),
            Some(
                CacheStatus::Hit
                    | CacheStatus::Stale
                    | CacheStatus::Updating
                    | CacheStatus::Revalidated
            )
        );
        let is_upstream = self.has(request_flag::REQUEST_UPSTREAM);
        let is_limited = self.has(request_flag::REQUEST_LIMITED);
        match status {
            _ if is_cached => None,
            /* The module itself may have failed. */
            INTERNAL_SERVER_ERROR if is_limited => None,
            _ if is_limited => Some(End::Limited),
            /* It may be that of limit_req or limit_conn, if error_page has redirected the request. */
            TOO_MANY_REQUESTS | SERVICE_UNAVAILABLE => None,
            BAD_GATEWAY | GATEWAY_TIME_OUT if is_upstream => self.unanswered(status),
            SERVER_ERROR.. => Some(End::Error),
            _ => Some(End::Rejected),
        }
    }

    /// Returns the end of a request with status 502 or 504 that had an upstream. nginx keeps
    /// `r->upstream` while it serves an error page, which may have given the status: so the upstream
    /// must not have answered.
    fn unanswered(&self, status: u32) -> Option<End> {
        if self.is_unresolved() {
            return Some(End::Timeout);
        }
        let Some(last) = self.last else {
            /* Its name has no address: ngx_http_upstream_resolve_handler(). */
            let is_resolved = !self.facts.0.texts.resolved.bytes.is_empty();
            return (is_resolved && status == BAD_GATEWAY).then_some(End::UpstreamFailed);
        };
        if last.has(attempt_flag::ATTEMPT_HEADER) {
            return None;
        }
        if let Some(failure) = self.failure {
            return Some(of_failure(failure));
        }
        match last.record.status {
            BAD_GATEWAY => Some(End::UpstreamFailed),
            GATEWAY_TIME_OUT => Some(End::Timeout),
            _ => None,
        }
    }

    /// Returns whether nginx has answered since no name server had resolved the name of its upstream in time.
    fn is_unresolved(&self) -> bool {
        self.has(request_flag::REQUEST_UNRESOLVED) && self.status() == BAD_GATEWAY
    }

    /// Returns the end of a request that nginx cut short because a timer had expired, or because it was
    /// configured to (444).
    fn timed_out(&self) -> Option<End> {
        if self.has(request_flag::REQUEST_SEND_TIMEOUT) {
            return Some(End::Timeout);
        }
        if !self.has(request_flag::REQUEST_READ_TIMEOUT) {
            return (self.status() == CLOSE).then_some(End::Rejected);
        }
        /* After the response nginx has waited for the rest of a body that it discards. */
        let is_over = self.status() != REQUEST_TIME_OUT && !self.has(request_flag::REQUEST_BODY);
        if is_over {
            self.answered()
        } else {
            Some(End::Timeout)
        }
    }

    /// Returns the end of a request whose connection failed, or that a filter of nginx gave up.
    fn cut(&self) -> Option<End> {
        if let Some(end) = self.broken() {
            return Some(end);
        }
        let is_dropped = self.has(request_flag::REQUEST_DROPPED);
        let is_stream = self.facts.0.record.http_version == HTTP_VERSION_20;
        match () {
            /* It is not certain what was broken. */
            () if self.has(request_flag::REQUEST_BROKEN) => None,
            () if self.has(request_flag::REQUEST_EOF) => Some(End::ClientClosed),
            () if self.has(request_flag::REQUEST_CLOSED) => Some(End::WorkerExit),
            () if is_dropped && self.has(request_flag::REQUEST_READ_TIMEOUT) => Some(End::Timeout),
            () if is_dropped => None,
            () if is_stream => (self.status() == CLIENT_CLOSED_REQUEST).then_some(End::ClientReset),
            () => Some(End::Error),
        }
    }

    /// Returns the time limit that has expired. `None` when it is not certain which of them it was.
    fn timeout(&self) -> Option<Timeout> {
        if self.is_unresolved() {
            return Some(Timeout::Resolve);
        }
        if !self.has(request_flag::REQUEST_CUT) || !self.has(request_flag::REQUEST_TIMED_OUT) {
            return self.failure.and_then(of_upstream);
        }
        Some(match () {
            () if self.has(request_flag::REQUEST_SEND_TIMEOUT) => Timeout::Send,
            () if self.has(request_flag::REQUEST_UNPROCESSED) => Timeout::Header,
            () => Timeout::Body,
        })
    }

    /// Returns who ended the request early, or closed the tunnel.
    fn closed_by(&self, end: End) -> Option<Side> {
        match end {
            End::Ok if self.facts.is_tunnel() => self.tunnel_closed_by(),
            End::Ok | End::Limited => None,
            End::ClientClosed | End::ClientReset => Some(Side::Client),
            End::Timeout | End::WorkerExit => Some(Side::Nginx),
            End::UpstreamFailed => match self.failure {
                Some(Failure::Closed | Failure::Reset) => Some(Side::Upstream),
                Some(Failure::InvalidHeader | Failure::InvalidBody) => Some(Side::Nginx),
                _ => None,
            },
            End::Rejected | End::Error => {
                let is_cut = self.has(request_flag::REQUEST_CUT);
                /* A body that nginx discards may have been late after its answer. */
                let is_late = self.has(request_flag::REQUEST_READ_TIMEOUT);
                (is_cut && !is_late).then_some(Side::Nginx)
            }
        }
    }

    /// Returns who closed a tunnel in order.
    fn tunnel_closed_by(&self) -> Option<Side> {
        /* Of CONNECT the ends are not read. */
        let last = self.last.filter(|_| self.status() == SWITCHING_PROTOCOLS)?;
        let by_client = self.has(request_flag::REQUEST_EOF);
        match (by_client, last.has(attempt_flag::ATTEMPT_EOF)) {
            (true, false) => Some(Side::Client),
            (false, true) => Some(Side::Upstream),
            _ => None,
        }
    }

    /// Returns whether the client's connection was broken. Over TLS a read or a send also fails when
    /// what came was not TLS: so the kernel must have reported an error as well, or nginx has asked it
    /// for one when the connection had ended.
    fn broken(&self) -> Option<End> {
        let is_broken = self.has(request_flag::REQUEST_BROKEN);
        let is_end = self.has(request_flag::REQUEST_EOF);
        let is_error = self.has(request_flag::REQUEST_SOCKET_ERROR);
        let is_plain = !self.has(request_flag::REQUEST_TLS);
        let is_reset = is_broken && (is_plain || is_end || is_error) || is_end && is_error;
        is_reset.then_some(End::ClientReset)
    }

    /// Returns the same for a stream of HTTP/3. That its connection has ended does not show who ended
    /// it.
    fn cut_in_quic(&self) -> Option<End> {
        match () {
            () if self.has(request_flag::REQUEST_CLOSED) => None,
            () if self.has(request_flag::REQUEST_BROKEN) => Some(End::ClientReset),
            () if self.has(request_flag::REQUEST_FAILED) => Some(End::Error),
            () => self.given_up(),
        }
    }

    /// Returns the end of a request that nginx cut short although its client's connection is good.
    fn given_up(&self) -> Option<End> {
        if let Some(failure) = self.failure {
            return Some(of_failure(failure));
        }
        let is_upstream = self.has(request_flag::REQUEST_UPSTREAM);
        match self.status() {
            /* With these statuses nginx closes the connection without a response. */
            REQUEST_TIME_OUT | CLIENT_CLOSED_REQUEST => (!is_upstream).then_some(End::Rejected),
            /* It may have discarded the body for too long, after the response. */
            _ if self.facts.0.record.content_length_n > 0 => None,
            _ => Some(End::Error),
        }
    }
}

/// Returns whether nothing was missing of a response that has not failed.
fn is_whole(event: &AttemptEvent<'_>) -> bool {
    !event.has(attempt_flag::ATTEMPT_INCOMPLETE) || event.has(attempt_flag::ATTEMPT_OPEN_ENDED)
}

/// Returns the time limit that a failure of an upstream shows.
fn of_upstream(failure: Failure) -> Option<Timeout> {
    Some(match failure {
        Failure::ConnectTimeout | Failure::TlsTimeout => Timeout::Connect,
        Failure::SendTimeout => Timeout::UpstreamSend,
        Failure::Timeout => Timeout::UpstreamRead,
        _ => return None,
    })
}

/// Returns the end of a request whose last attempt failed.
fn of_failure(failure: Failure) -> End {
    match failure {
        Failure::ConnectTimeout | Failure::TlsTimeout | Failure::SendTimeout | Failure::Timeout => {
            End::Timeout
        }
        Failure::ClientClosed => End::ClientClosed,
        _ => End::UpstreamFailed,
    }
}

#[cfg(test)]
mod tests;
