// SPDX-License-Identifier: MIT OR Apache-2.0
//! Interprets the times of a request record: the ends of the header and the body, the time in the
//! queue, and the times of a tunnel.

use ngx_bpf_record::Phases;

use crate::bpf::types::attempt_flag;
use crate::bpf::types::request_flag;
use crate::decode::facts::Facts;
use crate::decode::facts::HTTP_VERSION_20;
use crate::decode::nonzero;
use crate::decode::since;
use crate::decode::status::BAD_REQUEST;
use crate::decode::status::CLIENT_CLOSED_REQUEST;
use crate::decode::status::SWITCHING_PROTOCOLS;
use crate::decode::wire::AttemptEvent;

/// `r->http_version` of HTTP/0.9.
const HTTP_VERSION_9: u32 = 9;

/// The statuses that nginx itself gives a request whose header it can't read.
const HEADER_ERRORS: [u32; 5] = [400, 408, 414, 431, 494];

impl Facts<'_, '_> {
    /// Returns the moment at which the first byte of the request was read.
    pub fn first_byte_ns(&self) -> Option<u64> {
        nonzero(self.0.record.request_first_ns).filter(|_| !self.is_partial())
    }

    /// Returns whether nginx has seen the whole header. A request that has an upstream or a body had one.
    fn is_header_complete(&self) -> bool {
        let record = &self.0.record;
        let is_processed = self.has(request_flag::REQUEST_UPSTREAM) || record.content_length_n >= 0;
        is_processed
            || match record.http_version {
                HTTP_VERSION_9 => true,
                HTTP_VERSION_20.. => record.status != 0 && !HEADER_ERRORS.contains(&record.status),
                _ => self.has(request_flag::REQUEST_HEADER_COMPLETE),
            }
    }

    /// Returns the moment at which the header was complete and nginx could start to process it: a
    /// pipelined request waits for the end of the request before it.
    fn header_ns(&self) -> Option<u64> {
        let record = &self.0.record;
        let read = nonzero(record.header_ns).or(self.first_byte_ns())?;
        let is_known = self.is_header_complete() && record.request_length != 0;
        (is_known && !self.is_partial()).then_some(read.max(record.previous_ended_ns))
    }

    /// Returns the moment at which both the header and the body were complete.
    fn body_ns(&self) -> Option<u64> {
        if self.may_be_short() {
            return None;
        }
        Some(nonzero(self.0.record.body_ns)?.max(self.header_ns()?))
    }

    /// Returns the time that nginx waited for the body after the header. `None` when it did not
    /// wait.
    pub fn body_read_ns(&self) -> Option<u64> {
        nonzero(since(self.header_ns(), self.body_ns())?)
    }

    /// Returns whether the body may be shorter than its header states. nginx then takes the bytes
    /// that came for the whole body, and answers with 400 (ngx_http_v2_filter_request_body()); if the client
    /// has left by then, the status is 499. An upstream that was sent all of it shows that it was whole.
    fn may_be_short(&self) -> bool {
        let record = &self.0.record;
        let last = self.last_awaited();
        record.http_version >= HTTP_VERSION_20
            && match record.status {
                BAD_REQUEST => last.is_none_or(|last| last.record.status != BAD_REQUEST),
                CLIENT_CLOSED_REQUEST => {
                    last.is_none_or(|last| !last.has(attempt_flag::ATTEMPT_WHOLE))
                }
                _ => false,
            }
    }

    /// Returns whether nginx has read a body, or a part of one, and it is not known when it was
    /// complete.
    pub fn is_body_unknown(&self) -> bool {
        self.has(request_flag::REQUEST_BODY) && self.body_ns().is_none()
    }

    /// Returns the time that the request waited while nginx processed the request before it on the
    /// connection. `None` when it did not wait.
    pub fn queue_ns(&self) -> Option<u64> {
        let previous = nonzero(self.0.record.previous_ended_ns);
        nonzero(since(self.first_byte_ns(), previous)?)
    }

    /// Returns whether the connection is a tunnel, and no longer HTTP, after the response has
    /// begun.
    pub fn is_tunnel(&self) -> bool {
        let status = self.0.record.status;
        let is_granted = self.is_connect() && (200..300).contains(&status);
        status == SWITCHING_PROTOCOLS
            || (is_granted && !self.is_served_as_http())
            || self.is_abandoned_tunnel()
    }

    /// Returns whether bytes had passed through a tunnel when its worker ended, whose memory was gone by then: there is
    /// no status that shows it.
    fn is_abandoned_tunnel(&self) -> bool {
        let (record, last) = (&self.0.record, self.0.attempts.last());
        self.has(request_flag::REQUEST_ABANDONED)
            && record.status == 0
            && record.response_first_ns != 0
            && last.is_some_and(|last| last.has(attempt_flag::ATTEMPT_TUNNEL))
    }

    /// Returns whether the client asked for a tunnel to another server.
    pub fn is_connect(&self) -> bool {
        self.0.texts.method.bytes == b"CONNECT"
    }

    /// Returns whether the last upstream was sent a request, and no tunnel began: before 1.21.1 nginx takes
    /// CONNECT with a path for any other method.
    fn is_served_as_http(&self) -> bool {
        let is_sent = |attempt: &AttemptEvent<'_>| {
            attempt.has(attempt_flag::ATTEMPT_WHOLE) || attempt.has(attempt_flag::ATTEMPT_PART)
        };
        let last = self.0.attempts.last();
        last.is_some_and(|last| is_sent(last) && !last.has(attempt_flag::ATTEMPT_TUNNEL))
    }

    /// Returns the duration of the tunnel.
    pub fn tunnel_ns(&self) -> Option<u64> {
        let begun = nonzero(self.0.record.response_first_ns);
        since(begun, Some(self.0.record.ended_ns))
            .filter(|_| self.is_tunnel() && !self.is_partial())
    }

    /// Returns the moment at which the last byte was sent to the client.
    pub fn answered_ns(&self) -> Option<u64> {
        nonzero(self.0.record.response_last_ns)
    }

    /// Returns the moment at which the last byte of the response was sent. The response of a tunnel
    /// ends where the tunnel begins.
    pub fn response_last_ns(&self) -> Option<u64> {
        if self.is_tunnel() {
            nonzero(self.0.record.response_first_ns)
        } else {
            self.answered_ns()
        }
    }

    /// Returns the time from the first byte of the request to its end.
    pub fn elapsed_ns(&self) -> Option<u64> {
        since(self.first_byte_ns(), Some(self.0.record.ended_ns))
    }

    /// Returns the duration of the TLS handshake. Only the first request after it has this time.
    pub fn tls_handshake_ns(&self) -> Option<u64> {
        let record = &self.0.record;
        let first = nonzero(record.handshake_first_ns);
        since(first, nonzero(record.handshake_last_ns)).filter(|_| record.connection_requests == 1)
    }

    /// Returns the phases on the client's side, relative to `origin`.
    pub fn downstream(&self, origin: u64) -> Phases {
        if self.is_partial() {
            return Phases::default();
        }
        let record = &self.0.record;
        let since = |ns| since(Some(origin), ns);
        Phases {
            downstream_request_first_byte_time: since(self.first_byte_ns()),
            downstream_request_last_byte_time: since(self.header_ns()),
            downstream_request_body_last_byte_time: since(self.body_ns()),
            downstream_response_first_byte_time: since(nonzero(record.response_first_ns)),
            downstream_response_last_byte_time: since(self.response_last_ns()),
            ..Default::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use ngx_bpf_record::Phases;

    use super::Facts;
    use crate::bpf::types;
    use crate::bpf::types::attempt_flag;
    use crate::decode::examples::text;
    use crate::decode::facts::tests::event;
    use crate::decode::wire::AttemptEvent;
    use crate::decode::wire::RequestEvent;

    /// Returns the times of an event.
    fn phases(event: &RequestEvent<'_>) -> Phases {
        Facts(event).downstream(0)
    }

    /// Check that the end of a header that came in several reads is that of the last read, and that
    /// a header that was never complete has no time.
    #[test]
    fn header_end() {
        let mut event = event();
        let header_end = |event: &_| phases(event).downstream_request_last_byte_time;
        event.record.header_ns = 2_000;
        assert_eq!(header_end(&event), Some(2_000));
        event.record.flags = 0;
        assert_eq!(header_end(&event), None);
        event.record.http_version = 2000;
        event.record.status = 200;
        assert_eq!(header_end(&event), Some(2_000));
        event.record.status = 400;
        assert_eq!(header_end(&event), None);
    }

    /// Check that a pipelined request begins when the request before it has ended.
    #[test]
    fn pipelined() {
        let mut event = event();
        event.record.previous_ended_ns = 3_000;
        let phases = phases(&event);
        assert_eq!(phases.downstream_request_first_byte_time, Some(1_000));
        assert_eq!(phases.downstream_request_last_byte_time, Some(3_000));
    }

    /// Check that the body does not end before the header, and that its end is reported only when
    /// it is known.
    #[test]
    fn body_end() {
        let mut event = event();
        let body_end = |event: &_| phases(event).downstream_request_body_last_byte_time;
        assert_eq!(body_end(&event), None);
        event.record.flags |= types::request_flag::REQUEST_BODY.0;
        assert!(Facts(&event).is_body_unknown());
        event.record.body_ns = 3_000;
        assert_eq!(body_end(&event), Some(3_000));
        assert_eq!(Facts(&event).body_read_ns(), Some(2_000));
        assert!(!Facts(&event).is_body_unknown());
        event.record.previous_ended_ns = 3_500;
        assert_eq!(body_end(&event), Some(3_500));
        assert_eq!(Facts(&event).body_read_ns(), None);
        event.record.status = 400;
        assert_eq!(body_end(&event), Some(3_500));
        event.record.http_version = 2000;
        assert_eq!(body_end(&event), None);
    }

    /// Check that the time in the queue is the time until the request before it had ended, and is
    /// reported only for a request that waited.
    #[test]
    fn queue() {
        let mut event = event();
        for (previous, queue) in [(0, None), (900, None), (1_000, None), (3_000, Some(2_000))] {
            event.record.previous_ended_ns = previous;
            assert_eq!(Facts(&event).queue_ns(), queue);
        }
    }

    /// Check which requests become tunnels, and that the bytes of a tunnel do not count as
    /// response.
    #[test]
    fn tunnels() {
        for (method, status, is_tunnel) in [
            ("GET", 101, true),
            ("GET", 200, false),
            ("CONNECT", 200, true),
            ("CONNECT", 204, true),
            ("CONNECT", 405, false),
            ("CONNECT", 502, false),
        ] {
            let mut event = event();
            event.record.status = status;
            event.texts.method = text(method);
            let facts = Facts(&event);
            assert_eq!(facts.is_tunnel(), is_tunnel, "{method} {status}");
            assert_eq!(facts.tunnel_ns(), is_tunnel.then_some(2_000));
            let last = if is_tunnel { 4_000 } else { 5_000 };
            assert_eq!(facts.response_last_ns(), Some(last));
            assert_eq!(facts.elapsed_ns(), Some(5_000));
            event.record.flags |= types::request_flag::REQUEST_ADOPTED.0;
            assert_eq!(Facts(&event).tunnel_ns(), None);
        }
    }

    /// Check that CONNECT that nginx has passed on like any other method is no tunnel, and that it is one
    /// where nothing is known of the upstream.
    #[test]
    fn connect() {
        let [whole, tunnel, seen] = [
            attempt_flag::ATTEMPT_WHOLE,
            attempt_flag::ATTEMPT_TUNNEL,
            attempt_flag::ATTEMPT_SEEN,
        ]
        .map(|flag| flag.0);
        for (flags, is_tunnel) in [
            (whole | seen, false),
            (whole | seen | tunnel, true),
            (seen, true),
            (0, true),
        ] {
            let mut event = event();
            event.record.status = 200;
            event.texts.method = text("CONNECT");
            event.attempts.push(AttemptEvent {
                record: types::attempt {
                    flags,
                    ..Default::default()
                },
                addr: b"127.0.0.1:443",
            });
            assert_eq!(Facts(&event).is_tunnel(), is_tunnel, "{flags:#x}");
        }
    }

    /// Check that only the first request after the handshake has its duration.
    #[test]
    fn handshake() {
        let mut event = event();
        event.record.handshake_first_ns = 600;
        event.record.handshake_last_ns = 900;
        event.record.connection_requests = 1;
        assert_eq!(Facts(&event).tls_handshake_ns(), Some(300));
        event.record.connection_requests = 2;
        assert_eq!(Facts(&event).tls_handshake_ns(), None);
    }
}
