// SPDX-License-Identifier: MIT OR Apache-2.0
//! The timings of HAR. They are those of a request's whole way: nginx's upstreams count as well.

use ngx_bpf_record::Request;
use ngx_bpf_record::timeline::Class;
use ngx_bpf_record::timeline::Segment;
use ngx_bpf_record::timeline::Stage;
use ngx_bpf_record::timeline::timeline;

use crate::waterfall::rows::Span;
use crate::waterfall::rows::after;

/// The timings of a request in nanoseconds. They add up to its time, without `ssl`, which is a part of `connect`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timings {
    /// It waited for what nginx made it wait for.
    pub blocked: Option<u64>,
    /// A name server resolved the name of the upstream.
    pub dns: Option<u64>,
    /// nginx connected to upstreams.
    pub connect: Option<u64>,
    /// The TLS handshakes with upstreams.
    pub ssl: Option<u64>,
    /// nginx read the request, and sent it to upstreams.
    pub send: Option<u64>,
    /// nginx or an upstream had the request.
    pub wait: Option<u64>,
    /// nginx read the response of the upstream, and sent it to the client.
    pub receive: Option<u64>,
}

impl Timings {
    /// Returns the timings of a request, as far as they are known.
    pub fn of(request: &Request<'_>) -> Self {
        match timeline(request) {
            Some(segments) => Self::of_segments(request, &segments),
            None => Self::of_phases(request),
        }
    }

    /// Returns the sum.
    pub fn sum(&self) -> u64 {
        let parts = [
            self.blocked,
            self.dns,
            self.connect,
            self.send,
            self.wait,
            self.receive,
        ];
        let known = parts.into_iter().flatten();
        known.fold(0, u64::saturating_add)
    }

    /// Returns the timings of a timeline.
    fn of_segments(request: &Request<'_>, segments: &[Segment]) -> Self {
        let mut timings = Self {
            send: Some(0),
            wait: Some(0),
            receive: Some(0),
            ..Self::default()
        };
        for segment in segments {
            let timing = match segment.stage {
                Stage::Queue
                | Stage::LimitReqDelay
                | Stage::Auth
                | Stage::CacheLock
                | Stage::Wait => &mut timings.blocked,
                Stage::Resolve => &mut timings.dns,
                Stage::UpstreamConnect => &mut timings.connect,
                Stage::ClientRequest | Stage::ClientBody | Stage::UpstreamRequest => {
                    &mut timings.send
                }
                Stage::Nginx | Stage::Subrequest | Stage::UpstreamWait => &mut timings.wait,
                Stage::UpstreamResponse | Stage::ClientResponse => &mut timings.receive,
            };
            *timing.get_or_insert(0) += segment.length();
        }
        /* The client had a part of the response, and took no more. */
        let rest = after(request).filter(|rest| rest.class == Some(Class::Client));
        if let Some(Span {
            from, to: Some(to), ..
        }) = rest
        {
            *timings.receive.get_or_insert(0) += to - from;
        }
        let awaited = request
            .upstreams
            .iter()
            .filter(|attempt| !attempt.post_action);
        let ssl = awaited.filter_map(|attempt| attempt.upstream_tls_ns);
        let ssl = ssl.reduce(u64::saturating_add);
        timings.ssl = ssl.and_then(|ssl| Some(ssl.min(timings.connect?)));
        timings
    }

    /// Returns the timings between the four moments that nginx shares with the client.
    fn of_phases(request: &Request<'_>) -> Self {
        let p = &request.phases;
        let between = |from: Option<u64>, to: Option<u64>| Some(to?.saturating_sub(from?));
        Self {
            send: between(
                p.downstream_request_first_byte_time,
                p.downstream_request_last_byte_time,
            ),
            wait: between(
                p.downstream_request_last_byte_time,
                p.downstream_response_first_byte_time,
            ),
            receive: between(
                p.downstream_response_first_byte_time,
                p.downstream_response_last_byte_time,
            ),
            ..Self::default()
        }
    }
}
