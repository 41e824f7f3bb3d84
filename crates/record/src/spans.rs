// SPDX-License-Identifier: MIT OR Apache-2.0
//! The parts of the time of a request: the intervals between its moments.

use crate::phases::Phases;
use crate::request::Request;

/// A function that returns the duration of a part of a request, in nanoseconds. `None` when it is
/// not known.
pub type Span = fn(&Request<'_>) -> Option<u64>;

/// The parts of a request's time, each with its name.
pub const SPANS: [(&str, Span); 10] = [
    ("queue", |request| request.waits.queue_ns),
    ("client_request", client_request),
    ("client_body", |request| request.waits.body_read_ns),
    ("before_upstream", |request| {
        since_request(request, request.phases.upstream_connect_time)
    }),
    ("upstream_connect", upstream_connect),
    ("upstream_request", upstream_request),
    ("upstream_wait", upstream_wait),
    ("upstream_response", upstream_response),
    ("before_response", |request| {
        since_request(request, request.phases.downstream_response_first_byte_time)
    }),
    ("client_response", client_response),
];

/// Returns the time in which the client sent the header, without the time in the queue.
fn client_request(request: &Request<'_>) -> Option<u64> {
    between(
        request.phases.downstream_request_first_byte_time,
        request.phases.downstream_request_last_byte_time,
    )?
    .checked_sub(request.waits.queue_ns.unwrap_or_default())
}

/// Returns the time of connecting to the upstream, with the TLS handshake.
fn upstream_connect(request: &Request<'_>) -> Option<u64> {
    between(
        request.phases.upstream_connect_time,
        request.phases.upstream_request_first_byte_time,
    )
}

/// Returns the time in which the request was sent to the upstream.
fn upstream_request(request: &Request<'_>) -> Option<u64> {
    between(
        request.phases.upstream_request_first_byte_time,
        request.phases.upstream_request_last_byte_time,
    )
}

/// Returns the time until the upstream answered: from the last byte of the request to the first byte
/// of the response.
fn upstream_wait(request: &Request<'_>) -> Option<u64> {
    between(
        request.phases.upstream_request_last_byte_time,
        request.phases.upstream_response_first_byte_time,
    )
}

/// Returns the time in which the upstream sent its response.
fn upstream_response(request: &Request<'_>) -> Option<u64> {
    between(
        request.phases.upstream_response_first_byte_time,
        request.phases.upstream_response_last_byte_time,
    )
}

/// Returns the time in which the response was sent to the client.
fn client_response(request: &Request<'_>) -> Option<u64> {
    between(
        request.phases.downstream_response_first_byte_time,
        request.phases.downstream_response_last_byte_time,
    )
}

/// Returns the time from the end of the request to a later moment. The request ends with its body
/// where nginx has waited for that, and otherwise with its header. `None` when it is not known
/// which of them it is.
fn since_request(request: &Request<'_>, to: Option<u64>) -> Option<u64> {
    if request.is_body_unknown {
        return None;
    }
    let Phases {
        downstream_request_last_byte_time: header,
        downstream_request_body_last_byte_time: body,
        ..
    } = request.phases;
    between(body, to).or_else(|| between(header, to))
}

/// Returns the time between two moments. `None` unless both are known and in order.
fn between(from: Option<u64>, to: Option<u64>) -> Option<u64> {
    to?.checked_sub(from?)
}

#[cfg(test)]
mod tests {
    use super::SPANS;
    use crate::phases::Phases;
    use crate::request::Request;
    use crate::waits::Waits;

    /// Returns the parts of a request's time, by their names.
    fn spans(request: &Request<'_>) -> Vec<(&'static str, u64)> {
        let spans = SPANS.iter().map(|(name, span)| (*name, span(request)));
        spans.filter_map(|(name, ns)| Some((name, ns?))).collect()
    }

    /// Returns a request with these times of the client's side and of the connect.
    fn timed(last: u64, body: Option<u64>, connect: u64) -> Request<'static> {
        Request {
            phases: Phases {
                downstream_request_first_byte_time: Some(0),
                downstream_request_last_byte_time: Some(last),
                downstream_request_body_last_byte_time: body,
                upstream_connect_time: Some(connect),
                ..Default::default()
            },
            waits: Waits {
                body_read_ns: body.map(|body| body - last),
                ..Default::default()
            },
            ..Default::default()
        }
    }

    /// Check that a slow upload, and the time in the queue, are not part of another interval.
    #[test]
    fn body_and_queue() {
        let buffered = spans(&timed(10, Some(500), 510));
        let expected = [
            ("client_request", 10),
            ("client_body", 490),
            ("before_upstream", 10),
        ];
        assert_eq!(buffered, expected);
        let unbuffered = spans(&timed(10, Some(500), 30));
        assert_eq!(unbuffered[2], ("before_upstream", 20));
        let mut unknown = timed(10, None, 510);
        assert_eq!(spans(&unknown)[1], ("before_upstream", 500));
        unknown.is_body_unknown = true;
        assert_eq!(spans(&unknown), [("client_request", 10)]);
        let mut queued = timed(100, None, 110);
        queued.waits.queue_ns = Some(90);
        let expected = [
            ("queue", 90),
            ("client_request", 10),
            ("before_upstream", 10),
        ];
        assert_eq!(spans(&queued), expected);
    }
}
