// SPDX-License-Identifier: MIT OR Apache-2.0
//! The shares of a request's time: each nanosecond of `duration_ns` is one's for whom the request waited.

use std::iter;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;

use crate::attempt::Attempt;
use crate::request::Request;

/// For whom a request waited, in nanoseconds. The sum is `duration_ns`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[schemars(deny_unknown_fields)]
pub struct Shares {
    /// For the client: the rest of the header and of the body, and a socket that took nothing of the response.
    #[schemars(extend(
        "x-unit" = "ns",
        "x-source" = "the reads of the request, and `client_stall_ns`"
    ))]
    pub client: u64,
    /// For upstreams: from the connect to the last byte of the response.
    #[schemars(extend(
        "x-unit" = "ns",
        "x-source" = "the times of `upstreams` and `subrequests`"
    ))]
    pub upstream: u64,
    /// For nginx: all the rest.
    #[schemars(extend("x-unit" = "ns", "x-source" = "`duration_ns`"))]
    pub nginx: u64,
    /// For what nginx made it wait for: the request before it on the connection, a delay of `limit_req`, a name
    /// server, the lock of an entry of the cache.
    #[schemars(extend(
        "x-unit" = "ns",
        "x-source" = "`queue_ns`, `limit_req_delay_ns`, `resolve_ns`, `cache_lock_ns`, `wait_ns`"
    ))]
    pub wait: u64,
}

/// A part of a request's time.
#[derive(Clone, Copy)]
struct Interval {
    from: u64,
    to: u64,
}

impl Interval {
    /// Returns the part from one moment to a later one.
    fn new(from: u64, to: u64) -> Self {
        Self { from, to }
    }

    fn length(self) -> u64 {
        self.to.saturating_sub(self.from)
    }
}

impl Shares {
    /// Divides the time of a request. `None` when its duration is not known, or when it is not known how long
    /// the client sent the body.
    pub fn of(request: &Request<'_>) -> Option<Self> {
        let p = &request.phases;
        let first = p.downstream_request_first_byte_time?;
        let last = first.checked_add(request.duration_ns?)?;
        if request.is_body_unknown {
            return None;
        }
        let waits = &request.waits;
        let within = |ns: u64, from| ns.clamp(from, last);
        let begun = within(
            first.saturating_add(waits.queue_ns.unwrap_or_default()),
            first,
        );
        let header = p.downstream_request_last_byte_time;
        let body = header.map(|ns| ns.saturating_add(waits.body_read_ns.unwrap_or_default()));
        /* A header that was never complete was read until nginx answered. */
        let read = body.or(p.downstream_response_first_byte_time);
        let read = within(read.unwrap_or(last), begun);
        let (reading, rest) = (Interval::new(begun, read), Interval::new(read, last));
        let attempts = under_way(request);
        let upstream = busy(&attempts, rest);
        let mut shares = Self {
            wait: begun - first,
            client: reading.length(),
            upstream,
            nginx: rest.length() - upstream,
        };
        let refused = waits.upstream_stall_ns.unwrap_or_default();
        let refused = refused.min(busy(&attempts, reading));
        shares.client -= refused;
        shares.upstream += refused;
        let response = p.downstream_response_first_byte_time.unwrap_or(last);
        let response = Interval::new(within(response, read), last);
        let before = Interval::new(read, response.from);
        shares.move_waits(request, before.length() - busy(&attempts, before));
        shares.move_stalls(request, response, busy(&attempts, response));
        Some(shares)
    }

    /// Gives `wait` the time of the waits before the response, where nginx had `of_nginx` for itself. A delay by
    /// `limit_req` comes before nginx reads the body, the others after that.
    fn move_waits(&mut self, request: &Request<'_>, of_nginx: u64) {
        let waits = &request.waits;
        let of = |ns: Option<u64>| ns.unwrap_or_default();
        let early = of(waits.limit_req_delay_ns).saturating_add(of(waits.wait_ns));
        let late = of(waits.resolve_ns).saturating_add(of(waits.cache_lock_ns));
        let from_client = early.min(of(waits.body_read_ns)).min(self.client);
        let from_nginx = (early - from_client).saturating_add(late).min(of_nginx);
        self.client -= from_client;
        self.nginx -= from_nginx;
        self.wait += from_client + from_nginx;
    }

    /// Gives the client the time in which its socket took nothing: of nginx's time in which the response was
    /// sent, and where that is not enough of the upstreams' (`of_upstreams`). Where stalls are not known, all of
    /// the first.
    fn move_stalls(&mut self, request: &Request<'_>, response: Interval, of_upstreams: u64) {
        let of_nginx = response.length() - of_upstreams;
        let protocol = request.server_protocol.as_deref();
        let is_unknown = matches!(protocol, Some("HTTP/2.0" | "HTTP/3.0"));
        let stall = request.waits.client_stall_ns.unwrap_or_default();
        let stall = if is_unknown { of_nginx } else { stall };
        let from_nginx = stall.min(of_nginx);
        let from_upstreams = (stall - from_nginx).min(of_upstreams);
        self.nginx -= from_nginx;
        self.upstream -= from_upstreams;
        self.client += from_nginx + from_upstreams;
    }
}

/// Returns how long at least one attempt was under way within a part of the time.
fn busy(attempts: &[Interval], within: Interval) -> u64 {
    let (mut sum, mut at) = (0, within.from);
    for attempt in attempts {
        let (from, to) = (attempt.from.max(at), attempt.to.min(within.to));
        sum += to.saturating_sub(from);
        at = at.max(to);
    }
    sum
}

/// Returns when each attempt was under way, of the request and of its subrequests, by their beginnings.
fn under_way(request: &Request<'_>) -> Vec<Interval> {
    let of_subrequests = request.subrequests.iter().map(|sub| &sub.upstreams);
    let series = iter::once(&request.upstreams).chain(of_subrequests);
    let answered = request.phases.downstream_response_first_byte_time;
    let mut intervals: Vec<Interval> = series
        .flat_map(|attempts| {
            let next = attempts.iter().skip(1);
            let next = next.map(|next| next.upstream_connect_time);
            attempts.iter().zip(next.chain([None]))
        })
        .filter_map(|(attempt, next)| interval(attempt, next.or(answered)))
        .collect();
    intervals.sort_by_key(|interval| interval.from);
    intervals
}

/// Returns when an attempt was under way: it ends with its response, or else with what followed it.
fn interval(attempt: &Attempt<'_>, next: Option<u64>) -> Option<Interval> {
    let from = attempt
        .upstream_connect_time
        .filter(|_| !attempt.post_action)?;
    let response = attempt.upstream_response_last_byte_time;
    let to = response
        .or(attempt.upstream_response_first_byte_time)
        .or(next)?;
    (from < to).then_some(Interval { from, to })
}

#[cfg(test)]
mod tests {
    use super::Shares;
    use crate::attempt::Attempt;
    use crate::phases::Phases;
    use crate::random::Numbers;
    use crate::request::Request;
    use crate::waits::Waits;

    /// Check that the shares of any request add up to its duration, and that a request without one has none.
    #[test]
    fn sum() {
        let mut numbers = Numbers::new();
        for _ in 0..100_000 {
            let request = numbers.request();
            let first = request.phases.downstream_request_first_byte_time;
            let expected = request.duration_ns.filter(|_| first.is_some());
            let shares = Shares::of(&request);
            let sum = shares.map(|s| s.client + s.upstream + s.nginx + s.wait);
            assert_eq!(sum, expected, "{request:#?}");
        }
    }

    /// Returns a request from 100 to 1,000, whose header was complete at 200 and its body at 300, with an
    /// upstream from 350 to 700 that made nginx answer from 500 on.
    fn request() -> Request<'static> {
        Request {
            duration_ns: Some(900),
            phases: Phases {
                downstream_request_first_byte_time: Some(100),
                downstream_request_last_byte_time: Some(200),
                downstream_response_first_byte_time: Some(500),
                ..Default::default()
            },
            waits: Waits {
                queue_ns: Some(60),
                body_read_ns: Some(100),
                ..Default::default()
            },
            upstreams: vec![Attempt {
                upstream_connect_time: Some(350),
                upstream_response_last_byte_time: Some(700),
                ..Default::default()
            }],
            ..Default::default()
        }
    }

    /// Asserts how the time of a request is divided: client, upstream, nginx, wait.
    fn assert_shares(request: &Request<'_>, expected: [u64; 4]) {
        let shares = Shares::of(request).unwrap();
        let found = [shares.client, shares.upstream, shares.nginx, shares.wait];
        assert_eq!(found, expected);
    }

    /// Check each rule.
    #[test]
    fn rules() {
        let mut request = request();
        assert_shares(&request, [140, 350, 350, 60]);
        request.waits.client_stall_ns = Some(250);
        assert_shares(&request, [390, 350, 100, 60]);
        request.waits.client_stall_ns = Some(400);
        assert_shares(&request, [540, 250, 50, 60]);
        request.server_protocol = Some("HTTP/2.0".into());
        assert_shares(&request, [440, 350, 50, 60]);
        request.upstreams[0].upstream_connect_time = Some(250);
        request.waits.upstream_stall_ns = Some(20);
        assert_shares(&request, [420, 420, 0, 60]);
        request.is_body_unknown = true;
        assert_eq!(Shares::of(&request), None);
    }

    /// Check the waits before the response: they are nginx's time there, and before that a delay is the client's
    /// while the body was not read.
    #[test]
    fn waits() {
        let mut request = request();
        request.waits.resolve_ns = Some(20);
        assert_shares(&request, [140, 350, 330, 80]);
        request.waits.cache_lock_ns = Some(40);
        assert_shares(&request, [140, 350, 300, 110]);
        request.waits.limit_req_delay_ns = Some(70);
        assert_shares(&request, [70, 350, 300, 180]);
        request.waits.body_read_ns = None;
        request.upstreams[0].upstream_connect_time = Some(420);
        assert_shares(&request, [40, 280, 390, 190]);
        request.waits.limit_req_delay_ns = None;
        request.waits.wait_ns = Some(1_000);
        assert_shares(&request, [40, 280, 300, 280]);
    }
}
