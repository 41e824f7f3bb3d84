// SPDX-License-Identifier: MIT OR Apache-2.0
//! How far a request had come that was cut short, or that an upstream failed.

use ngx_bpf_record::values::End;
use ngx_bpf_record::values::Failure;
use ngx_bpf_record::values::Part;
use ngx_bpf_record::values::Timeout;

use crate::bpf::types::attempt_flag;
use crate::bpf::types::request_flag;
use crate::decode::ending::Evidence;
use crate::decode::facts::HTTP_VERSION_20;
use crate::decode::wire::AttemptEvent;

impl Evidence<'_, '_, '_> {
    /// Returns the part of its time in which a request was cut short. `None` when it was not, or when
    /// that is not certain.
    pub fn last_phase(&self, end: End) -> Option<Part> {
        let is_cut = self.has(request_flag::REQUEST_CUT);
        /* The request and the response of a tunnel were whole before it began. */
        if self.facts.is_partial() || self.facts.is_tunnel() {
            return None;
        }
        match end {
            End::Ok | End::Limited | End::Rejected => None,
            End::UpstreamFailed => self.of_upstream(),
            End::Timeout => match self.timeout() {
                Some(Timeout::Header) => Some(Part::ClientRequest),
                Some(Timeout::Body) => Some(Part::ClientBody),
                Some(Timeout::Send) => Some(Part::ClientResponse),
                Some(Timeout::Resolve) => Some(Part::BeforeUpstream),
                _ => self.of_upstream(),
            },
            _ if is_cut => self.of_client(),
            _ => None,
        }
    }

    /// Returns the part in which the last attempt failed.
    fn of_upstream(&self) -> Option<Part> {
        match self.failure {
            Some(Failure::NoLiveUpstreams) => Some(Part::BeforeUpstream),
            Some(Failure::ConnectError | Failure::ConnectTimeout | Failure::TlsTimeout) => {
                Some(Part::UpstreamConnect)
            }
            Some(Failure::SendTimeout) => Some(Part::UpstreamRequest),
            Some(_) => self.of_attempt(),
            None => self.last.is_none().then_some(Part::BeforeUpstream),
        }
    }

    /// Returns the part that the last attempt had reached.
    fn of_attempt(&self) -> Option<Part> {
        let last = self.last?;
        let is_sent = last.record.request_first_ns != 0;
        match () {
            () if last.has(attempt_flag::ATTEMPT_HEADER) => Some(Part::UpstreamResponse),
            () if is_sent && last.has(attempt_flag::ATTEMPT_PART) => Some(Part::UpstreamRequest),
            /* Of HTTP/2, other frames come before the response. */
            () if last.has(attempt_flag::ATTEMPT_HTTP2) => None,
            () if is_sent && last.record.response_first_ns != 0 => Some(Part::UpstreamResponse),
            () if is_sent && last.has(attempt_flag::ATTEMPT_WHOLE) => Some(Part::UpstreamWait),
            () if is_sent => None,
            () if last.record.connect_ns != 0 => Some(Part::UpstreamConnect),
            () => None,
        }
    }

    /// Returns whether the last attempt was sending a body that nginx does not buffer, and that the client
    /// had not sent completely.
    fn is_body_passed_on(&self) -> bool {
        let is_sending = |last: &AttemptEvent<'_>| {
            last.has(attempt_flag::ATTEMPT_PART)
                && !last.has(attempt_flag::ATTEMPT_HEADER)
                && last.record.response_first_ns == 0
        };
        self.facts.is_body_unknown() && self.last.is_some_and(is_sending)
    }

    /// Returns the part that a request had reached whose client left, or that nginx gave up.
    fn of_client(&self) -> Option<Part> {
        let record = &self.facts.0.record;
        let is_stream = record.http_version >= HTTP_VERSION_20;
        match () {
            () if self.has(request_flag::REQUEST_UNPROCESSED) => Some(Part::ClientRequest),
            () if record.response_first_ns != 0 => Some(Part::ClientResponse),
            () if self.is_body_passed_on() => {
                /* Which of the two did not go on is not certain if the upstream once took nothing. */
                let is_stalled = self.last.is_some_and(|last| last.record.stall_ns != 0);
                (!is_stalled).then_some(Part::ClientBody)
            }
            () if self.last.is_some() => self.of_attempt(),
            () if self.facts.is_body_unknown() => (!is_stream).then_some(Part::ClientBody),
            /* A part of the response may lie in nginx's buffers. */
            () if record.bytes_sent != 0 => None,
            () if self.has(request_flag::REQUEST_UPSTREAM) => Some(Part::BeforeUpstream),
            () => Some(Part::BeforeResponse),
        }
    }
}
