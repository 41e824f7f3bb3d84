// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tests of the ends of requests.

use ngx_bpf_record::values::End;
use ngx_bpf_record::values::Failure;
use ngx_bpf_record::values::Part;
use ngx_bpf_record::values::Timeout;

use super::ending;
use crate::bpf::types;
use crate::bpf::types::attempt_flag;
use crate::bpf::types::request_flag;
use crate::bpf::types::request_flag as R;
use crate::decode::facts::Facts;
use crate::decode::facts::tests::event;
use crate::decode::wire::AttemptEvent;
use crate::decode::wire::RequestEvent;

/// Returns a request with this status and these flags.
fn request(status: u32, flags: &[request_flag]) -> RequestEvent<'static> {
    let mut event = event();
    event.record.status = status;
    event.record.flags |= flags.iter().fold(0, |flags, flag| flags | flag.0);
    event
}

/// Returns the end of a request without an attempt.
fn end(status: u32, flags: &[request_flag]) -> Option<End> {
    ending(&Facts(&request(status, flags)), None).end
}

/// Returns the end of a finished request whose last attempt had this status, these flags and this
/// failure.
fn passed(
    status: u32,
    (of_attempt, flags): (u32, &[attempt_flag]),
    failure: Option<Failure>,
) -> Option<End> {
    let mut event = request(status, &[R::REQUEST_FINISHED, R::REQUEST_UPSTREAM]);
    event.attempts.push(AttemptEvent {
        record: types::attempt {
            status: of_attempt,
            flags: flags.iter().fold(0, |flags, flag| flags | flag.0),
            ..Default::default()
        },
        addr: b"127.0.0.1:80",
    });
    ending(&Facts(&event), failure).end
}

/// Check the answers of nginx itself: those of limits, and those that limits may have caused, which are not certain.
#[test]
fn own_answers() {
    for (status, expected) in [
        (0, None),
        (9, Some(End::Ok)),
        (200, Some(End::Ok)),
        (304, Some(End::Ok)),
        (400, Some(End::Rejected)),
        (404, Some(End::Rejected)),
        (429, None),
        (500, Some(End::Error)),
        (502, Some(End::Error)),
        (503, None),
        (504, Some(End::Error)),
    ] {
        assert_eq!(end(status, &[R::REQUEST_FINISHED]), expected, "{status}");
        assert_eq!(end(status, &[]), None, "{status}");
    }
    for (status, expected) in [
        (429, Some(End::Limited)),
        (444, Some(End::Limited)),
        (500, None),
        (503, Some(End::Limited)),
        (502, Some(End::Limited)),
    ] {
        let limited = [R::REQUEST_FINISHED, R::REQUEST_LIMITED];
        assert_eq!(end(status, &limited), expected, "{status}");
    }
    let mut cached = request(404, &[R::REQUEST_FINISHED]);
    cached.record.cache_status = 7;
    assert_eq!(ending(&Facts(&cached), None).end, None);
    let unsent = [R::REQUEST_FINISHED, R::REQUEST_UNSENT];
    assert_eq!(end(200, &unsent), None);
}

/// Check that the upstream's own answer is no failure of nginx, unless it was cut short.
#[test]
fn answers_of_upstreams() {
    const HEADER: &[attempt_flag] = &[attempt_flag::ATTEMPT_HEADER];
    const PART: &[attempt_flag] = &[
        attempt_flag::ATTEMPT_HEADER,
        attempt_flag::ATTEMPT_INCOMPLETE,
    ];
    for (status, attempt, failure, expected) in [
        (200, (200, HEADER), None, Some(End::Ok)),
        (404, (404, HEADER), None, Some(End::Ok)),
        (502, (502, HEADER), None, Some(End::Ok)),
        (404, (200, HEADER), None, Some(End::Rejected)),
        (200, (200, PART), None, None),
        (
            200,
            (200, PART),
            Some(Failure::Closed),
            Some(End::UpstreamFailed),
        ),
        (200, (200, PART), Some(Failure::Timeout), Some(End::Timeout)),
        (
            502,
            (502, &[]),
            Some(Failure::Reset),
            Some(End::UpstreamFailed),
        ),
        (502, (502, &[]), None, Some(End::UpstreamFailed)),
        (
            504,
            (504, &[]),
            Some(Failure::ConnectTimeout),
            Some(End::Timeout),
        ),
        (504, (504, &[]), None, Some(End::Timeout)),
        /* An error page gave these statuses. */
        (502, (404, HEADER), None, None),
        (502, (404, PART), Some(Failure::Closed), None),
        (504, (502, HEADER), None, None),
        (504, (502, &[]), None, Some(End::UpstreamFailed)),
        (502, (0, &[]), None, None),
        (200, (502, &[]), Some(Failure::ConnectError), Some(End::Ok)),
        (500, (0, &[]), None, Some(End::Error)),
    ] {
        let found = passed(status, attempt, failure);
        assert_eq!(found, expected, "{status} {attempt:?} {failure:?}");
    }
}

/// Check the ends of requests that were cut short, by what the client's connection shows.
#[test]
fn cut_short() {
    const BROKEN: request_flag = R::REQUEST_BROKEN;
    const CLOSED: request_flag = R::REQUEST_CLOSED;
    const EOF: request_flag = R::REQUEST_EOF;
    const FAILED: request_flag = R::REQUEST_FAILED;
    const SOCKET_ERROR: request_flag = R::REQUEST_SOCKET_ERROR;
    const TIMED_OUT: request_flag = R::REQUEST_TIMED_OUT;
    const TLS: request_flag = R::REQUEST_TLS;
    for (status, flags, expected) in [
        (499, &[FAILED, EOF][..], Some(End::ClientClosed)),
        (200, &[FAILED, EOF, TLS], Some(End::ClientClosed)),
        (200, &[FAILED, EOF, SOCKET_ERROR], Some(End::ClientReset)),
        (200, &[FAILED, EOF, BROKEN, TLS], Some(End::ClientReset)),
        (200, &[FAILED, BROKEN], Some(End::ClientReset)),
        (200, &[FAILED, BROKEN, TLS], None),
        (
            200,
            &[FAILED, BROKEN, TLS, SOCKET_ERROR],
            Some(End::ClientReset),
        ),
        (200, &[FAILED], Some(End::Error)),
        (200, &[FAILED, CLOSED], Some(End::WorkerExit)),
        (200, &[], Some(End::Error)),
        (499, &[], Some(End::Rejected)),
        (444, &[TIMED_OUT], Some(End::Rejected)),
        (200, &[TIMED_OUT], None),
        (
            200,
            &[TIMED_OUT, R::REQUEST_SEND_TIMEOUT],
            Some(End::Timeout),
        ),
        (
            408,
            &[TIMED_OUT, R::REQUEST_READ_TIMEOUT],
            Some(End::Timeout),
        ),
        /* The rest of a body that nginx discards. */
        (
            405,
            &[TIMED_OUT, R::REQUEST_READ_TIMEOUT],
            Some(End::Rejected),
        ),
        (
            200,
            &[TIMED_OUT, R::REQUEST_READ_TIMEOUT, R::REQUEST_BODY],
            Some(End::Timeout),
        ),
    ] {
        let flags = [&[R::REQUEST_CUT][..], flags].concat();
        assert_eq!(end(status, &flags), expected, "{status} {flags:?}");
    }
    let mut discarding = request(200, &[R::REQUEST_CUT]);
    discarding.record.content_length_n = 10;
    assert_eq!(ending(&Facts(&discarding), None).end, None);
}

/// Check the same for streams of HTTP/2 and HTTP/3.
#[test]
fn streams() {
    for (version, status, flags, expected) in [
        (2000, 499, &[R::REQUEST_FAILED][..], Some(End::ClientReset)),
        (2000, 200, &[R::REQUEST_FAILED], None),
        (2000, 200, &[R::REQUEST_FAILED, R::REQUEST_DROPPED], None),
        (
            2000,
            200,
            &[
                R::REQUEST_FAILED,
                R::REQUEST_DROPPED,
                R::REQUEST_READ_TIMEOUT,
            ],
            Some(End::Timeout),
        ),
        (3000, 499, &[R::REQUEST_BROKEN], Some(End::ClientReset)),
        (3000, 499, &[R::REQUEST_BROKEN, R::REQUEST_CLOSED], None),
        (3000, 200, &[R::REQUEST_FAILED], Some(End::Error)),
    ] {
        let mut event = request(status, &[R::REQUEST_CUT]);
        event.record.flags |= flags.iter().fold(0, |flags, flag| flags | flag.0);
        event.record.http_version = version;
        let found = ending(&Facts(&event), None).end;
        assert_eq!(found, expected, "{version} {status} {flags:?}");
    }
}

/// Check which time limit has expired.
#[test]
fn timeouts() {
    const CUT: [request_flag; 2] = [R::REQUEST_CUT, R::REQUEST_TIMED_OUT];
    for (flags, expected) in [
        (&[R::REQUEST_SEND_TIMEOUT][..], Timeout::Send),
        (&[R::REQUEST_READ_TIMEOUT], Timeout::Body),
        (
            &[R::REQUEST_READ_TIMEOUT, R::REQUEST_UNPROCESSED],
            Timeout::Header,
        ),
    ] {
        let event = request(408, &[&CUT, flags].concat());
        assert_eq!(ending(&Facts(&event), None).timeout, Some(expected));
    }
    let flags = [R::REQUEST_FINISHED, R::REQUEST_UPSTREAM];
    for (status, failure, expected) in [
        (504, None, None),
        (504, Some(Failure::TlsTimeout), Some(Timeout::Connect)),
        (504, Some(Failure::SendTimeout), Some(Timeout::UpstreamSend)),
        (504, Some(Failure::Timeout), Some(Timeout::UpstreamRead)),
        /* A stale response was sent. */
        (200, Some(Failure::Timeout), None),
    ] {
        let mut event = request(status, &flags);
        event.attempts.push(AttemptEvent {
            record: types::attempt {
                status: 504,
                ..Default::default()
            },
            addr: b"127.0.0.1:80",
        });
        assert_eq!(ending(&Facts(&event), failure).timeout, expected);
    }
}

/// Check a tunnel whose upstream took nothing: its request was whole before it began.
#[test]
fn tunnel() {
    let mut event = request(101, &[R::REQUEST_CUT, R::REQUEST_UPSTREAM]);
    event.attempts.push(AttemptEvent {
        record: types::attempt {
            status: 101,
            flags: attempt_flag::ATTEMPT_HEADER.0,
            ..Default::default()
        },
        addr: b"127.0.0.1:80",
    });
    let found = ending(&Facts(&event), Some(Failure::SendTimeout));
    assert_eq!(found.timeout, Some(Timeout::UpstreamSend));
    assert!(found.tunnel && found.last_phase.is_none(), "{found:?}");
}

/// Check requests without an attempt: only a name that was not resolved is the upstream's failure.
#[test]
fn without_attempts() {
    for (status, host, expected) in [
        (502, &b"host"[..], Some(End::UpstreamFailed)),
        (504, b"host", None),
        (502, b"", None),
    ] {
        let mut event = request(status, &[R::REQUEST_FINISHED, R::REQUEST_UPSTREAM]);
        event.texts.resolved.bytes = host;
        assert_eq!(ending(&Facts(&event), None).end, expected, "{status}");
    }
}

/// Check that a name that was not resolved in time is the end of the request only if that is what nginx has answered.
#[test]
fn unresolved() {
    let flags = [
        R::REQUEST_FINISHED,
        R::REQUEST_UPSTREAM,
        R::REQUEST_UNRESOLVED,
    ];
    for (status, end, timeout) in [
        (502, End::Timeout, Some(Timeout::Resolve)),
        (200, End::Ok, None),
    ] {
        let mut event = request(status, &flags);
        event.texts.resolved.bytes = b"host";
        let found = ending(&Facts(&event), None);
        assert_eq!((found.end, found.timeout), (Some(end), timeout), "{status}");
    }
}

/// Returns how far a request had come whose client left while its body was passed on as it came. Its
/// upstream took nothing for a time.
fn passing(http_version: u32, stall_ns: u64) -> Option<Part> {
    let flags = [
        R::REQUEST_CUT,
        R::REQUEST_FAILED,
        R::REQUEST_EOF,
        R::REQUEST_BODY,
        R::REQUEST_UPSTREAM,
    ];
    let mut event = request(400, &flags);
    (event.record.response_first_ns, event.record.http_version) = (0, http_version);
    event.attempts.push(AttemptEvent {
        record: types::attempt {
            request_first_ns: 2_000,
            stall_ns,
            flags: attempt_flag::ATTEMPT_PART.0,
            ..Default::default()
        },
        addr: b"127.0.0.1:80",
    });
    ending(&Facts(&event), None).last_phase
}

/// Check how far requests had come that were cut short.
#[test]
fn parts() {
    let cut = |status, flags: &[request_flag], change: fn(&mut types::request_record)| {
        let mut event = request(
            status,
            &[&[R::REQUEST_CUT, R::REQUEST_FAILED][..], flags].concat(),
        );
        change(&mut event.record);
        ending(&Facts(&event), None).last_phase
    };
    const EOF: &[request_flag] = &[R::REQUEST_EOF];
    const UNSENT: fn(&mut types::request_record) = |record| record.response_first_ns = 0;
    let head = cut(400, &[R::REQUEST_EOF, R::REQUEST_UNPROCESSED], UNSENT);
    assert_eq!(head, Some(Part::ClientRequest));
    let body = [R::REQUEST_EOF, R::REQUEST_BODY, R::REQUEST_UPSTREAM];
    assert_eq!(cut(400, &body, UNSENT), Some(Part::ClientBody));
    let of_stream = cut(400, &body, |record| {
        (record.response_first_ns, record.http_version) = (0, 2000);
    });
    assert_eq!(of_stream, None);
    assert_eq!(passing(1001, 0), Some(Part::ClientBody));
    assert_eq!(passing(1001, 1), None);
    assert_eq!(passing(2000, 0), Some(Part::ClientBody));
    assert_eq!(cut(499, EOF, UNSENT), Some(Part::BeforeResponse));
    let upstream = [R::REQUEST_EOF, R::REQUEST_UPSTREAM];
    assert_eq!(cut(499, &upstream, UNSENT), Some(Part::BeforeUpstream));
    assert_eq!(cut(200, EOF, |_| ()), Some(Part::ClientResponse));
    let unseen = cut(200, EOF, |record| record.request_first_ns = 0);
    assert_eq!(unseen, None);
    let answered = ending(&Facts(&request(404, &[R::REQUEST_FINISHED])), None);
    assert_eq!(answered.last_phase, None);
}
