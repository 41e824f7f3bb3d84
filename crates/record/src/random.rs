// SPDX-License-Identifier: MIT OR Apache-2.0
//! Requests for tests, with times in any order.

use crate::attempt::Attempt;
use crate::phases::Phases;
use crate::request::Request;
use crate::subrequest::Subrequest;
use crate::waits::Waits;

/// Numbers that look random, and are the same in each run.
pub struct Numbers(u64);

impl Numbers {
    /// Starts at the first one.
    pub fn new() -> Self {
        Self(88_172_645_463_325_252)
    }

    /// Returns a number below 100, or sometimes none.
    pub fn maybe(&mut self) -> Option<u64> {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (!self.0.is_multiple_of(5)).then_some(self.0 / 5 % 100)
    }

    /// Returns attempts whose times are in any order.
    fn attempts(&mut self) -> Vec<Attempt<'static>> {
        let attempts = (0..self.maybe().unwrap_or_default() % 4).map(|_| Attempt {
            upstream_connect_time: self.maybe(),
            upstream_response_first_byte_time: self.maybe(),
            upstream_response_last_byte_time: self.maybe(),
            post_action: self.maybe().is_none(),
            ..Default::default()
        });
        attempts.collect()
    }

    /// Returns a request whose times are in any order.
    pub fn request(&mut self) -> Request<'static> {
        let protocols = ["HTTP/1.1", "HTTP/2.0"];
        Request {
            duration_ns: self.maybe(),
            server_protocol: self.maybe().map(|n| protocols[n as usize % 2].into()),
            phases: Phases {
                downstream_request_first_byte_time: self.maybe(),
                downstream_request_last_byte_time: self.maybe(),
                downstream_response_first_byte_time: self.maybe(),
                ..Default::default()
            },
            waits: Waits {
                queue_ns: self.maybe(),
                body_read_ns: self.maybe(),
                client_stall_ns: self.maybe(),
                upstream_stall_ns: self.maybe(),
                limit_req_delay_ns: self.maybe(),
                resolve_ns: self.maybe(),
                cache_lock_ns: self.maybe(),
                wait_ns: self.maybe(),
                ..Default::default()
            },
            upstreams: self.attempts(),
            subrequests: vec![Subrequest {
                upstreams: self.attempts(),
                ..Default::default()
            }],
            ..Default::default()
        }
    }
}
