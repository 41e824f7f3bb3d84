// SPDX-License-Identifier: MIT OR Apache-2.0
//! The timeline of a request: its time, divided into parts of which none overlaps another one.

use serde::Serialize;

use crate::attempt::Attempt;
use crate::request::Request;
use crate::values::Part;

/// For whom, or for what, a request waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// The client: the rest of the request, or a socket that takes the response.
    Client,
    /// nginx itself.
    Nginx,
    /// An upstream.
    Upstream,
    /// What nginx made it wait for.
    Wait,
}

/// What happened in a part of a request's time, in the order in which it mostly happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// It waited for the request before it on its connection.
    Queue,
    /// nginx read the header.
    ClientRequest,
    /// `limit_req` delayed it.
    LimitReqDelay,
    /// It waited for the subrequest of `auth_request`.
    Auth,
    /// nginx read the body.
    ClientBody,
    /// It waited while another request filled the entry of the cache.
    CacheLock,
    /// It waited for a name server.
    Resolve,
    /// It waited for several of these, or for a module that is not nginx's own.
    Wait,
    /// nginx had it, and is not known to have waited for anything.
    Nginx,
    /// A subrequest waited for an upstream.
    Subrequest,
    /// nginx connected to the upstream, with the TLS handshake.
    UpstreamConnect,
    /// nginx sent the request to the upstream.
    UpstreamRequest,
    /// The upstream had the request, and nginx nothing of the response.
    UpstreamWait,
    /// nginx read the response.
    UpstreamResponse,
    /// nginx sent the rest of the response to the client.
    ClientResponse,
}

impl Stage {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::Queue,
        Self::ClientRequest,
        Self::LimitReqDelay,
        Self::Auth,
        Self::ClientBody,
        Self::CacheLock,
        Self::Resolve,
        Self::Wait,
        Self::Nginx,
        Self::Subrequest,
        Self::UpstreamConnect,
        Self::UpstreamRequest,
        Self::UpstreamWait,
        Self::UpstreamResponse,
        Self::ClientResponse,
    ];

    /// Its stable name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::ClientRequest => "client_request",
            Self::LimitReqDelay => "limit_req_delay",
            Self::Auth => "auth",
            Self::ClientBody => "client_body",
            Self::CacheLock => "cache_lock",
            Self::Resolve => "resolve",
            Self::Wait => "wait",
            Self::Nginx => "nginx",
            Self::Subrequest => "subrequest",
            Self::UpstreamConnect => "upstream_connect",
            Self::UpstreamRequest => "upstream_request",
            Self::UpstreamWait => "upstream_wait",
            Self::UpstreamResponse => "upstream_response",
            Self::ClientResponse => "client_response",
        }
    }

    /// For whom the request waited in it.
    pub const fn class(self) -> Class {
        match self {
            Self::ClientRequest | Self::ClientBody | Self::ClientResponse => Class::Client,
            Self::Nginx => Class::Nginx,
            Self::Subrequest
            | Self::UpstreamConnect
            | Self::UpstreamRequest
            | Self::UpstreamWait
            | Self::UpstreamResponse => Class::Upstream,
            Self::Queue
            | Self::LimitReqDelay
            | Self::Auth
            | Self::CacheLock
            | Self::Resolve
            | Self::Wait => Class::Wait,
        }
    }
}

/// A part of a request's time, in nanoseconds since its first byte was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// What happened.
    pub stage: Stage,
    /// When it began.
    pub from: u64,
    /// When it ended.
    pub to: u64,
    /// The attempt that it belongs to: its place in `upstreams`.
    pub attempt: Option<usize>,
}

impl Segment {
    /// How long it lasted.
    pub fn length(&self) -> u64 {
        self.to - self.from
    }
}

/// Returns the timeline of a request: its segments in order, without a gap, whose lengths add up to `duration_ns`, or
/// without a response to `elapsed_ns`. Stages that took no time are not there. `None` when neither time is known, when
/// it is not known how long the client sent the body, and of a request that was not seen from its beginning.
pub fn timeline(request: &Request<'_>) -> Option<Vec<Segment>> {
    let first = request.phases.downstream_request_first_byte_time?;
    let length = request.duration_ns.or(request.elapsed_ns)?;
    /* Where it is not known how long the client sent the body, there is no `time_ns`. */
    if request.partial || (request.duration_ns.is_some() && request.waits.time_ns.is_none()) {
        return None;
    }
    let mut timeline = Timeline {
        segments: Vec::new(),
        subrequests: subrequests(request, first),
        at: 0,
        end: length,
    };
    let since = |time: Option<u64>| time.map(|time| time.saturating_sub(first));
    let header = since(request.phases.downstream_request_last_byte_time);
    let answered = since(request.phases.downstream_response_first_byte_time);
    timeline.add_request(request, header.or(answered).unwrap_or(length), answered);
    timeline.add_attempts(request, first, answered);
    if let Some(answered) = answered {
        timeline.add_own(answered);
        let sent = since(request.phases.downstream_response_last_byte_time);
        let is_cut = request.ending.last_phase == Some(Part::ClientResponse);
        let sent = sent.filter(|_| !is_cut).unwrap_or(length);
        timeline.add(Stage::ClientResponse, sent, None);
    }
    timeline.add_own(length);
    Some(timeline.segments)
}

/// Returns when subrequests waited for upstreams, by their beginnings.
fn subrequests(request: &Request<'_>, first: u64) -> Vec<(u64, u64)> {
    let attempts = request.subrequests.iter().flat_map(|sub| &sub.upstreams);
    let mut times: Vec<_> = attempts
        .filter_map(|attempt| {
            let from = attempt.upstream_connect_time?.checked_sub(first)?;
            let to = attempt.upstream_response_last_byte_time;
            let to = to.or(attempt.upstream_response_first_byte_time)?;
            Some((from, to.checked_sub(first)?))
        })
        .collect();
    times.sort_unstable();
    times
}

/// A timeline that grows from the begin of the request.
struct Timeline {
    segments: Vec<Segment>,
    /// When subrequests waited for upstreams.
    subrequests: Vec<(u64, u64)>,
    /// Where it ends so far.
    at: u64,
    /// Where it will end.
    end: u64,
}

impl Timeline {
    /// Continues with a stage up to a moment; a moment that has passed adds nothing.
    fn add(&mut self, stage: Stage, to: u64, attempt: Option<usize>) {
        let to = to.clamp(self.at, self.end);
        if to > self.at {
            self.segments.push(Segment {
                stage,
                from: self.at,
                to,
                attempt,
            });
            self.at = to;
        }
    }

    /// Continues with nginx itself up to a moment, and its subrequests.
    fn add_own(&mut self, to: u64) {
        for (from, until) in self.subrequests.clone() {
            if until > self.at && from < to {
                self.add(Stage::Nginx, from, None);
                self.add(Stage::Subrequest, until.min(to), None);
            }
        }
        self.add(Stage::Nginx, to, None);
    }

    /// Continues with all that comes before an upstream or a response.
    fn add_request(&mut self, request: &Request<'_>, header: u64, answered: Option<u64>) {
        let waits = &request.waits;
        let length = |ns: Option<u64>| ns.unwrap_or_default();
        self.add(Stage::Queue, length(waits.queue_ns), None);
        self.add(Stage::ClientRequest, header, None);
        for (stage, ns) in [
            (Stage::LimitReqDelay, waits.limit_req_delay_ns),
            (Stage::Auth, waits.auth_ns),
            (Stage::Wait, waits.wait_ns),
        ] {
            self.add(stage, self.at.saturating_add(length(ns)), None);
        }
        let body = match request.ending.last_phase {
            /* The body never came whole. */
            Some(Part::ClientBody) => answered.unwrap_or(self.end),
            _ => header.saturating_add(length(waits.body_read_ns)),
        };
        self.add(Stage::ClientBody, body, None);
    }

    /// Continues with the attempts at upstreams, and with the waits right before the first one.
    fn add_attempts(&mut self, request: &Request<'_>, first: u64, answered: Option<u64>) {
        let attempts = request.upstreams.iter().enumerate();
        let attempts: Vec<_> = attempts
            .filter(|(_, attempt)| !attempt.post_action)
            .filter_map(|(n, attempt)| Some((n, moments(attempt, first)?)))
            .collect();
        let begin = attempts.first().map(|(_, moments)| moments[0].1);
        let begin = begin.or(answered).unwrap_or(self.end);
        let waits = &request.waits;
        let (lock, name) = (
            waits.cache_lock_ns.unwrap_or_default(),
            waits.resolve_ns.unwrap_or_default(),
        );
        if lock > 0 || name > 0 {
            self.add_own(begin.saturating_sub(lock.saturating_add(name)));
            self.add(Stage::CacheLock, begin.saturating_sub(name), None);
            self.add(Stage::Resolve, begin, None);
        }
        for (place, (n, moments)) in attempts.iter().enumerate() {
            self.add_own(moments[0].1);
            let next = attempts.get(place + 1).map(|(_, next)| next[0].1);
            let over = next.or(answered).unwrap_or(self.end);
            let ends = moments.iter().skip(1).map(|(_, at)| *at).chain([over]);
            for ((stage, _), to) in moments.iter().zip(ends) {
                if let Some(stage) = stage {
                    self.add(*stage, to, Some(*n));
                }
            }
        }
    }
}

/// Returns the moments of an attempt that are known, in order, and the stage that each begins: its last byte begins
/// none. `None` when it is not known when it began.
fn moments(attempt: &Attempt<'_>, first: u64) -> Option<Vec<(Option<Stage>, u64)>> {
    attempt.upstream_connect_time?;
    let known = [
        (Some(Stage::UpstreamConnect), attempt.upstream_connect_time),
        (
            Some(Stage::UpstreamRequest),
            attempt.upstream_request_first_byte_time,
        ),
        (
            Some(Stage::UpstreamWait),
            attempt.upstream_request_last_byte_time,
        ),
        (
            Some(Stage::UpstreamResponse),
            attempt.upstream_response_first_byte_time,
        ),
        (None, attempt.upstream_response_last_byte_time),
    ];
    let known = known.into_iter();
    Some(
        known
            .filter_map(|(stage, time)| Some((stage, time?.saturating_sub(first))))
            .collect(),
    )
}

#[cfg(test)]
mod tests;
