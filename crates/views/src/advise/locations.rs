// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is collected of the requests of a location.

use std::borrow::Cow;
use std::collections::VecDeque;

use ngx_bpf_record::Attempt;
use ngx_bpf_record::Request;
use ngx_bpf_record::statistics::Times;
use ngx_bpf_record::values::Failure;
use ngx_bpf_record::values::Part;

/// The status of a request whose client left.
const CLIENT_LEFT: u32 = 499;

/// The most ages of 499 that are kept: the last ones.
const AGES_MAX: usize = 512;

/// The methods that are not tried again by default: those of `NGX_HTTP_UPSTREAM_FT_NON_IDEMPOTENT`.
const NOT_IDEMPOTENT: [&str; 3] = ["POST", "LOCK", "PATCH"];

/// The share of its time, in percent, for which a slow client's socket is full.
pub const STALLED: u128 = 50;

/// A location.
#[derive(Clone, Debug, Default)]
pub struct Location {
    /// Its name; empty for requests that have none.
    pub name: String,
    /// The name of its server; empty when it has none.
    pub server: String,
    /// Where its server stands in the configuration.
    pub config: Option<String>,
    /// The number of requests without tunnels.
    pub requests: u64,
    /// How long `limit_req` delayed requests.
    pub delay: Times,
    /// How long requests waited for a name server.
    pub resolve: Times,
    /// Bodies of requests in temporary files.
    pub request_spill: Spill,
    /// Responses in temporary files.
    pub response_spill: Spill,
    /// Requests whose clients were slow.
    pub stalled: Stalled,
    /// The requests whose clients left (499), the last ones.
    pub left: VecDeque<Left>,
    /// Requests of which another attempt may have repeated what the first had done.
    pub repeated: Repeated,
    /// How long tunnels lived.
    pub tunnels: Times,
    /// How long workers had been shutting down when tunnels ended in them.
    pub outlived: Times,
}

/// Temporary files.
#[derive(Clone, Debug, Default)]
pub struct Spill {
    /// The number of requests with one.
    pub count: u64,
    /// The bytes in all.
    pub bytes: u128,
    /// The bytes of the largest.
    pub largest: u64,
    /// The number of those whose client was slow.
    pub with_stall: u64,
}

impl Spill {
    /// Adds a temporary file.
    fn add(&mut self, bytes: Option<u64>, has_stall: bool) {
        let Some(bytes) = bytes else {
            return;
        };
        self.count += 1;
        self.bytes += u128::from(bytes);
        self.largest = self.largest.max(bytes);
        self.with_stall += u64::from(has_stall);
    }
}

/// Requests whose clients were slow.
#[derive(Clone, Debug, Default)]
pub struct Stalled {
    /// How long the sockets of those were full that held a temporary file, or waited for the client mostly.
    pub times: Times,
    /// The number of those with a temporary file.
    pub with_file: u64,
    /// The number of those of an upstream whose connection they held: the response was still being read.
    pub with_upstream: u64,
}

/// A request whose client left.
#[derive(Clone, Debug)]
pub struct Left {
    /// How old it was.
    pub age_ns: u64,
    /// What it waited for.
    pub phase: Option<Part>,
    /// The upstream that it waited for.
    pub upstream: Option<String>,
}

/// Requests that are not idempotent and were sent again.
#[derive(Clone, Debug, Default)]
pub struct Repeated {
    /// How many there were.
    pub count: u64,
    /// The time that the attempts before the last took.
    pub lasted_ns: u128,
    /// The most attempts of one.
    pub tries_max: usize,
    /// The method and the failure of the last one.
    pub last: Option<(String, Failure)>,
}

impl Location {
    /// Adds a request.
    pub fn add(&mut self, request: &Request<'_>) {
        if self.requests == 0 && self.tunnels.count() == 0 {
            let text =
                |value: &Option<Cow<'_, str>>| value.as_deref().unwrap_or_default().to_owned();
            self.name = text(&request.place.location);
            self.server = text(&request.place.server_name);
        }
        if let Some(config) = &request.place.config.server {
            self.config = Some(config.clone().into_owned());
        }
        if request.ending.tunnel {
            if let Some(ns) = request.ending.tunnel_ns {
                self.tunnels.add(ns);
            }
            return;
        }
        self.requests += 1;
        let waits = &request.waits;
        for (times, ns) in [
            (&mut self.delay, waits.limit_req_delay_ns),
            (&mut self.resolve, waits.resolve_ns),
        ] {
            if let Some(ns) = ns {
                times.add(ns);
            }
        }
        let has_stall = waits.client_stall_ns.is_some();
        self.request_spill
            .add(waits.request_temp_file_bytes, has_stall);
        self.response_spill
            .add(waits.response_temp_file_bytes, has_stall);
        self.add_stall(request);
        self.add_left(request);
        self.add_repeated(request);
    }

    /// Adds a request whose client was slow.
    fn add_stall(&mut self, request: &Request<'_>) {
        let Some(ns) = request.waits.client_stall_ns else {
            return;
        };
        let has_file = request.waits.response_temp_file_bytes.is_some();
        let elapsed = request.elapsed_ns.unwrap_or(u64::MAX);
        let is_mostly = u128::from(ns) * 100 >= u128::from(elapsed) * STALLED;
        if !has_file && !is_mostly {
            return;
        }
        self.stalled.times.add(ns);
        self.stalled.with_file += u64::from(has_file);
        let sent = request.phases.downstream_response_first_byte_time;
        let read = request.phases.upstream_response_last_byte_time;
        /* It was still reading the response when the socket had been full for half of the time. */
        let is_held = sent
            .zip(read)
            .is_some_and(|(sent, read)| read > sent.saturating_add(ns / 2));
        self.stalled.with_upstream += u64::from(is_held);
    }

    /// Adds a request whose client left.
    fn add_left(&mut self, request: &Request<'_>) {
        let Some(age_ns) = request.elapsed_ns else {
            return;
        };
        if request.status != Some(CLIENT_LEFT) {
            return;
        }
        if self.left.len() >= AGES_MAX {
            self.left.pop_front();
        }
        self.left.push_back(Left {
            age_ns,
            phase: request.ending.last_phase,
            upstream: request.upstream_addr.clone().map(Cow::into_owned),
        });
    }

    /// Adds a request that was sent again, although its method is not idempotent.
    fn add_repeated(&mut self, request: &Request<'_>) {
        let Some(method) = request.request_method.as_deref() else {
            return;
        };
        if !NOT_IDEMPOTENT.contains(&method) {
            return;
        }
        let pairs = request.upstreams.windows(2);
        let again = pairs.filter(|pair| !pair[1].post_action && may_be_processed(&pair[0]));
        let mut failure = None;
        for pair in again {
            let (from, to) = (pair[0].upstream_connect_time, pair[1].upstream_connect_time);
            let lasted = from.zip(to).and_then(|(from, to)| to.checked_sub(from));
            self.repeated.lasted_ns += u128::from(lasted.unwrap_or_default());
            failure = pair[0].failure;
        }
        if let Some(failure) = failure {
            let tries = request.upstreams.len();
            self.repeated.count += 1;
            self.repeated.tries_max = self.repeated.tries_max.max(tries);
            self.repeated.last = Some((method.to_owned(), failure));
        }
    }

    /// Returns how the location is called, with its server where that has a name.
    pub fn subject(&self) -> String {
        let name = if self.name.is_empty() {
            "(no location)"
        } else {
            &self.name
        };
        if self.server.is_empty() {
            return name.to_owned();
        }
        format!("{name} of {}", self.server)
    }
}

/// Returns whether the server of a failed attempt may have done what was asked: it had the whole request, and did not
/// refuse it.
fn may_be_processed(attempt: &Attempt<'_>) -> bool {
    let was_sent = attempt.upstream_request_last_byte_time.is_some()
        || attempt.upstream_response_first_byte_time.is_some();
    let is_refused = matches!(
        attempt.failure,
        None | Some(Failure::ClientClosed | Failure::Http403 | Failure::Http404 | Failure::Http429)
    );
    was_sent && !is_refused
}
