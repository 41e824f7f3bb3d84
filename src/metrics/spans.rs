// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the time of a request is made of: the intervals between its times.

use crate::record::phases::Phase;
use crate::record::phases::Phases;
use crate::record::request::Request;

/// How long a part of a request took, if that is known.
pub type Span = fn(&Request<'_>) -> Option<u64>;

/// What a request's time is made of, by the label that it has.
pub const SPANS: [(&str, Span); 10] = [
    ("queue", |request| request.queue_ns),
    ("client_request", client_request),
    ("client_body", |request| {
        between(
            &request.phases,
            Phase::DownstreamRequestLastByte,
            Phase::DownstreamRequestBodyLastByte,
        )
    }),
    ("before_upstream", |request| {
        since_request(request, Phase::UpstreamConnect)
    }),
    ("upstream_connect", |request| {
        between(
            &request.phases,
            Phase::UpstreamConnect,
            Phase::UpstreamRequestFirstByte,
        )
    }),
    ("upstream_request", |request| {
        between(
            &request.phases,
            Phase::UpstreamRequestFirstByte,
            Phase::UpstreamRequestLastByte,
        )
    }),
    ("upstream_wait", |request| {
        between(
            &request.phases,
            Phase::UpstreamRequestLastByte,
            Phase::UpstreamResponseFirstByte,
        )
    }),
    ("upstream_response", |request| {
        between(
            &request.phases,
            Phase::UpstreamResponseFirstByte,
            Phase::UpstreamResponseLastByte,
        )
    }),
    ("before_response", |request| {
        since_request(request, Phase::DownstreamResponseFirstByte)
    }),
    ("client_response", |request| {
        between(
            &request.phases,
            Phase::DownstreamResponseFirstByte,
            Phase::DownstreamResponseLastByte,
        )
    }),
];

/// How long the client took for its header, without what it spent in the queue.
fn client_request(request: &Request<'_>) -> Option<u64> {
    between(
        &request.phases,
        Phase::DownstreamRequestFirstByte,
        Phase::DownstreamRequestLastByte,
    )?
    .checked_sub(request.queue_ns.unwrap_or_default())
}

/// What lies between the request and a phase that follows it. It begins with the end of the body where
/// nginx has waited for that, else with the end of the header. `None` where it is not known which.
fn since_request(request: &Request<'_>, to: Phase) -> Option<u64> {
    if request.is_body_unknown {
        return None;
    }
    between(&request.phases, Phase::DownstreamRequestBodyLastByte, to)
        .or_else(|| between(&request.phases, Phase::DownstreamRequestLastByte, to))
}

/// What lies between two times that are known and in order.
fn between(phases: &Phases, from: Phase, to: Phase) -> Option<u64> {
    phases.get(to)?.checked_sub(phases.get(from)?)
}

#[cfg(test)]
mod tests {
    use super::SPANS;
    use crate::record::phases::Phase;
    use crate::record::request::Request;

    /// What a request's spans are, by their labels.
    fn spans(request: &Request<'_>) -> Vec<(&'static str, u64)> {
        let spans = SPANS.iter().map(|(name, span)| (*name, span(request)));
        spans.filter_map(|(name, ns)| Some((name, ns?))).collect()
    }

    /// A request with these times of the client's side and a connect.
    fn timed(last: u64, body: Option<u64>, connect: u64) -> Request<'static> {
        let mut request = Request::default();
        for (phase, time) in [
            (Phase::DownstreamRequestFirstByte, Some(0)),
            (Phase::DownstreamRequestLastByte, Some(last)),
            (Phase::DownstreamRequestBodyLastByte, body),
            (Phase::UpstreamConnect, Some(connect)),
        ] {
            request.phases.set(phase, time);
        }
        request
    }

    /// Check that a slow upload and a request before this one are no one else's time.
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
        queued.queue_ns = Some(90);
        let expected = [
            ("queue", 90),
            ("client_request", 10),
            ("before_upstream", 10),
        ];
        assert_eq!(spans(&queued), expected);
    }
}
