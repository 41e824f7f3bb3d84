// SPDX-License-Identifier: MIT OR Apache-2.0
//! One attempt at an upstream: its times, its result, and the numbers of bytes that nginx counts.

use ngx_bpf_record::Attempt;

use crate::bpf::types::attempt_flag;
use crate::decode::failure::Evidence;
use crate::decode::failure::Next;
use crate::decode::nonzero;
use crate::decode::since;
use crate::decode::texts::lossy;
use crate::decode::wire::AttemptEvent;

/// The properties of a request that its attempts depend on.
#[derive(Clone, Copy, Debug)]
pub struct Around {
    /// The moment that the phases of the request count from. `None` when it is not known.
    pub origin: Option<u64>,
    /// The event that followed the last attempt.
    pub next: Next,
    /// True when the client asked for a tunnel with CONNECT: then nothing that goes to the upstream and comes
    /// from it is HTTP.
    pub is_connect: bool,
    /// True when nothing else may have ended the request, as in `Evidence`.
    pub is_alone: bool,
    /// The moment at which the last byte of the response was sent to the client.
    pub answered_ns: Option<u64>,
}

/// Returns every attempt of a request, in order.
pub fn attempts<'a>(events: &[AttemptEvent<'a>], around: Around) -> Vec<Attempt<'a>> {
    let tried: Vec<_> = events.iter().filter(|event| event.was_tried()).collect();
    let all = tried.iter().enumerate().map(|(n, event)| {
        let next = match tried.get(n + 1) {
            None => around.next,
            Some(next) if next.record.index == event.record.index + 1 => Next::Attempt,
            Some(_) => Next::Redirect,
        };
        attempt(event, Around { next, ..around })
    });
    all.collect()
}

/// Returns the attempt that an event reports.
fn attempt<'a>(event: &AttemptEvent<'a>, around: Around) -> Attempt<'a> {
    let record = &event.record;
    let evidence = Evidence {
        event,
        is_traced: around.origin.is_some(),
        is_alone: around.is_alone,
    };
    /* The handshake has ended when the bytes after it are known to be encrypted. */
    let first_ns = nonzero(record.handshake_first_ns);
    let handshake_ns = since(first_ns, nonzero(record.handshake_last_ns))
        .filter(|_| event.has(attempt_flag::ATTEMPT_TLS));
    let mut attempt = Attempt {
        addr: lossy(event.addr),
        status: nonzero(record.status),
        reused: reused(&evidence),
        connection_requests: nonzero(record.requests).filter(|_| evidence.is_sent()),
        reused_idle_ns: since(nonzero(record.kept_ns), nonzero(record.request_first_ns)),
        upstream_tls_ns: handshake_ns,
        bytes_sent: counted(record.bytes_sent),
        bytes_received: counted(record.bytes_received),
        failure: evidence.failure(around.next),
        post_action: event.is_after(around.answered_ns),
        ..Default::default()
    };
    add_times(&mut attempt, &evidence, around);
    attempt
}

/// Returns whether the attempt used a kept connection. `None` when that is not known.
fn reused(evidence: &Evidence<'_>) -> Option<bool> {
    match (
        evidence.has(attempt_flag::ATTEMPT_REUSED),
        evidence.has(attempt_flag::ATTEMPT_NEW),
    ) {
        _ if !evidence.is_sent() => None,
        (true, _) => Some(true),
        (false, true) => Some(false),
        (false, false) => None,
    }
}

/// Returns a number of bytes that nginx counts. It is negative, and `None` here, when this nginx
/// does not count it.
fn counted(bytes: i64) -> Option<i64> {
    Some(bytes).filter(|bytes| *bytes >= 0)
}

/// Adds the times of the attempt, as far as the bytes on its socket were seen.
fn add_times(attempt: &mut Attempt<'_>, evidence: &Evidence<'_>, around: Around) {
    let record = &evidence.event.record;
    let since = |ns| since(around.origin, nonzero(ns));
    attempt.upstream_connect_time = since(record.connect_ns);
    if around.is_connect && evidence.has(attempt_flag::ATTEMPT_TUNNEL) {
        return;
    }
    if !evidence.is_sent() || evidence.has(attempt_flag::ATTEMPT_UNSURE) {
        return;
    }
    attempt.upstream_request_first_byte_time = since(record.request_first_ns);
    if is_sent_whole(evidence) {
        attempt.upstream_request_last_byte_time = since(record.request_last_ns);
    }
    if evidence.has(attempt_flag::ATTEMPT_HEADER) {
        let connect_ns = nonzero(record.connect_ns);
        attempt.response_header_ns = self::since(connect_ns, nonzero(record.header_ns));
    }
    /* HTTP/2 has frames of its own before a response. */
    let is_http2 = evidence.has(attempt_flag::ATTEMPT_HTTP2);
    if !is_http2 || evidence.has(attempt_flag::ATTEMPT_HEADER) {
        attempt.upstream_response_first_byte_time = since(record.response_first_ns);
        attempt.upstream_response_last_byte_time = since(record.response_last_ns);
    }
}

/// Returns whether the last byte of the request was sent before the response began. Bytes of a
/// tunnel do not belong to the request. Without a response it must be known that the whole request
/// was sent.
fn is_sent_whole(evidence: &Evidence<'_>) -> bool {
    if evidence.has(attempt_flag::ATTEMPT_PART) {
        return false;
    }
    if evidence.has(attempt_flag::ATTEMPT_HEADER) {
        return evidence.has(attempt_flag::ATTEMPT_TUNNEL)
            || !evidence.has(attempt_flag::ATTEMPT_MORE);
    }
    evidence.has(attempt_flag::ATTEMPT_WHOLE) && !evidence.has(attempt_flag::ATTEMPT_MORE)
}

#[cfg(test)]
mod tests {
    use ngx_bpf_record::values::Failure;

    use super::Around;
    use super::attempts;
    use crate::bpf::types;
    use crate::bpf::types::attempt_flag;
    use crate::decode::failure::Next;
    use crate::decode::wire::AttemptEvent;

    /// Returns an attempt with this status and these flags of its socket.
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

    /// Returns the properties of a request whose last attempt was followed by `next`.
    fn around(next: Next) -> Around {
        Around {
            origin: Some(1),
            next,
            is_connect: false,
            is_alone: true,
            answered_ns: None,
        }
    }

    /// Returns the failure of the last attempt.
    fn failure(event: AttemptEvent<'static>, next: Next) -> Option<Failure> {
        attempts(&[event], around(next))[0].failure
    }

    /// Check that an attempt without a response failed at the stage that it had reached.
    #[test]
    fn stages() {
        const SEEN: attempt_flag = attempt_flag::ATTEMPT_SEEN;
        let answer = Next::Answer(502);
        for (status, begun, expected) in [
            (502, "connect", Some(Failure::ConnectError)),
            (504, "connect", Some(Failure::ConnectTimeout)),
            (502, "handshake", Some(Failure::TlsError)),
            (504, "handshake", Some(Failure::TlsTimeout)),
            (502, "refused", Some(Failure::TlsError)),
            (502, "request", Some(Failure::Error)),
            (504, "request", None),
            (504, "part", Some(Failure::SendTimeout)),
            (504, "whole", Some(Failure::Timeout)),
            (502, "response", Some(Failure::InvalidHeader)),
        ] {
            let mut event = event(status, &[SEEN]);
            let record = &mut event.record;
            match begun {
                "handshake" => record.handshake_first_ns = 2,
                "refused" => {
                    (record.handshake_first_ns, record.request_first_ns) = (2, 3);
                    record.bytes_sent = 0;
                }
                "request" => record.request_first_ns = 3,
                "part" => record.flags |= attempt_flag::ATTEMPT_PART.0,
                "whole" => record.flags |= attempt_flag::ATTEMPT_WHOLE.0,
                "response" => record.response_first_ns = 4,
                _ => {}
            }
            if matches!(begun, "part" | "whole" | "response") {
                record.request_first_ns = 3;
            }
            assert_eq!(failure(event, answer), expected, "{status} {begun}");
        }
        for (flag, expected) in [
            (attempt_flag::ATTEMPT_ERROR, Failure::Reset),
            (attempt_flag::ATTEMPT_EOF, Failure::Closed),
            (attempt_flag::ATTEMPT_CANCELLED, Failure::Reset),
            (attempt_flag::ATTEMPT_TLS, Failure::Closed),
        ] {
            let mut event = event(502, &[SEEN, flag]);
            event.record.request_first_ns = 3;
            assert_eq!(failure(event, answer), Some(expected));
        }
    }

    /// Check the failure of a response that is shorter than nginx expected: there is none while
    /// another part of the request may have ended it.
    #[test]
    fn cut() {
        const LOOKED: attempt_flag = attempt_flag::ATTEMPT_LOOKED;
        for (flags, expected) in [
            (&[LOOKED][..], Some(Failure::InvalidBody)),
            (&[], Some(Failure::Error)),
            (&[LOOKED, attempt_flag::ATTEMPT_UNSERVED], None),
            (&[attempt_flag::ATTEMPT_EOF], Some(Failure::Closed)),
            (
                &[attempt_flag::ATTEMPT_EOF, attempt_flag::ATTEMPT_OPEN_ENDED],
                None,
            ),
            (&[attempt_flag::ATTEMPT_ERROR], Some(Failure::Reset)),
            (
                &[LOOKED, attempt_flag::ATTEMPT_TIMED_OUT],
                Some(Failure::Timeout),
            ),
            (
                &[LOOKED, attempt_flag::ATTEMPT_GIVEN_UP],
                Some(Failure::Closed),
            ),
            (&[attempt_flag::ATTEMPT_GIVEN_UP], Some(Failure::Error)),
        ] {
            let mut event = event(
                200,
                &[
                    attempt_flag::ATTEMPT_SEEN,
                    attempt_flag::ATTEMPT_HEADER,
                    attempt_flag::ATTEMPT_INCOMPLETE,
                ],
            );
            for flag in flags {
                event.record.flags |= flag.0;
            }
            let tried = [event];
            let [alone, with_others] = [true, false].map(|is_alone| {
                let around = Around {
                    is_alone,
                    ..around(Next::Answer(200))
                };
                attempts(&tried, around)[0].failure
            });
            assert_eq!(alone, expected, "{flags:?}");
            let is_inferred = flags.is_empty() || flags == [LOOKED];
            assert_eq!(with_others, expected.filter(|_| !is_inferred), "{flags:?}");
        }
    }

    /// Check that nothing of a tunnel for CONNECT is a request or a response, and that a WebSocket has both.
    #[test]
    fn tunnels() {
        let flags = [
            attempt_flag::ATTEMPT_SEEN,
            attempt_flag::ATTEMPT_HEADER,
            attempt_flag::ATTEMPT_WHOLE,
            attempt_flag::ATTEMPT_TUNNEL,
        ];
        for is_connect in [false, true] {
            let mut event = event(0, &flags);
            let record = &mut event.record;
            (record.connect_ns, record.request_first_ns) = (11, 21);
            (record.request_last_ns, record.response_first_ns) = (31, 41);
            record.response_last_ns = 51;
            let around = Around {
                is_connect,
                ..around(Next::Answer(200))
            };
            let attempt = &attempts(&[event], around)[0];
            assert_eq!(attempt.upstream_connect_time, Some(10));
            let http = |time: u64| Some(time).filter(|_| !is_connect);
            for (time, expected) in [
                (attempt.upstream_request_first_byte_time, 20),
                (attempt.upstream_request_last_byte_time, 30),
                (attempt.upstream_response_first_byte_time, 40),
                (attempt.upstream_response_last_byte_time, 50),
            ] {
                assert_eq!(time, http(expected), "{attempt:#?}");
            }
        }
    }

    /// Check that a response is a failure only when nginx tried another server because of its
    /// status.
    #[test]
    fn responses() {
        let answered = |status| event(status, &[attempt_flag::ATTEMPT_HEADER]);
        for (status, next, expected) in [
            (503, Next::Attempt, Some(Failure::Http503)),
            (418, Next::Attempt, None),
            (503, Next::Redirect, None),
            (503, Next::Answer(503), None),
        ] {
            assert_eq!(failure(answered(status), next), expected, "{status}");
        }
    }

    /// Check the failure of an attempt without a response: the client has closed the connection, no
    /// server was available, or the failure is not known because the bytes on the socket may not
    /// have been seen.
    #[test]
    fn without_a_response() {
        let left = Next::Answer(499);
        assert_eq!(failure(event(0, &[]), left), Some(Failure::ClientClosed));
        assert_eq!(failure(event(0, &[]), Next::Answer(200)), None);
        let unresolved = AttemptEvent {
            addr: b"backend",
            ..event(502, &[])
        };
        assert_eq!(
            failure(unresolved, Next::Answer(502)),
            Some(Failure::NoLiveUpstreams)
        );
        let answer = around(Next::Answer(502));
        let untraced = [event(502, &[attempt_flag::ATTEMPT_SEEN])];
        assert_eq!(
            attempts(
                &untraced,
                Around {
                    origin: None,
                    ..answer
                }
            )[0]
            .failure,
            None
        );
    }

    /// Check that an attempt is followed by the next one, or by an internal redirect where nginx
    /// has left a gap between them, and that the state in the gap is not an attempt.
    #[test]
    fn followed_by() {
        let [mut first, mut gap, mut last] =
            [503, 0, 200].map(|status| event(status, &[attempt_flag::ATTEMPT_HEADER]));
        (gap.addr, gap.record.flags) = (b"", 0);
        (first.record.index, gap.record.index, last.record.index) = (0, 1, 2);
        let answer = Next::Answer(200);
        let all = attempts(&[first, gap, last], around(answer));
        let statuses: Vec<_> = all.iter().map(|attempt| attempt.status).collect();
        assert_eq!(statuses, [Some(503), Some(200)]);
        assert_eq!(all[0].failure, None);
        assert_eq!((all[0].bytes_sent, all[0].bytes_received), (None, Some(0)));
    }
}
