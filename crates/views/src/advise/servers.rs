// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is collected of the attempts at an upstream server.

use std::collections::BTreeMap;
use std::collections::VecDeque;

use ngx_bpf_record::Attempt;
use ngx_bpf_record::Request;
use ngx_bpf_record::Tried;
use ngx_bpf_record::statistics::Rows;
use ngx_bpf_record::statistics::Times;
use ngx_bpf_record::statistics::has_failed;
use ngx_bpf_record::values::Failure;

use crate::advise::not_kept::FREE_NS;

/// The most connections that are known to have become free, and the most early ends that are kept.
const KEPT_MAX: usize = 256;

/// Counts requests, each once, however many of its attempts are added.
#[derive(Clone, Debug, Default)]
pub struct Requests {
    pub count: u64,
    /// The last one, by its place among all.
    last: Option<u64>,
}

impl Requests {
    /// Adds an attempt of a request. Returns whether it is the first one of it.
    fn add(&mut self, of: &Try<'_>) -> bool {
        let is_first = self.last.replace(of.nth) != Some(of.nth);
        self.count += u64::from(is_first);
        is_first
    }
}

/// An upstream server.
#[derive(Clone, Debug, Default)]
pub struct Server {
    /// Its group; empty when it is not known.
    pub group: String,
    /// Its address.
    pub addr: String,
    /// Where its group stands in the configuration.
    pub config: Option<String>,
    /// The number of attempts of which it is known whether their connection was kept.
    pub known: u64,
    /// The number of those on new connections.
    pub new: u64,
    /// New connections although one had just become free.
    pub avoidable: Avoidable,
    /// How long the header of the response took, of attempts that did not fail.
    pub header: Times,
    /// The requests of those.
    pub header_requests: Requests,
    /// How long they took, counted for each attempt.
    pub header_elapsed_ns: u128,
    /// Attempts that were answered, at least in part.
    pub answered: u64,
    /// Attempts that were not.
    pub silent: Silent,
    /// Kept connections that ended before a byte of the response came, the last ones.
    pub closed: VecDeque<Closed>,
    /// The number of all of those, and their requests.
    pub closed_count: u64,
    pub closed_requests: Requests,
    /// The longest that a kept connection was idle on which a response came.
    pub idle_max_ns: u64,
    /// The number of kept connections of which it is known how long they were idle, and on which a response came.
    pub idle_known: u64,
    /// When connections became free, with their workers.
    free: VecDeque<(u32, u64)>,
}

/// New connections although one had just become free.
#[derive(Clone, Debug, Default)]
pub struct Avoidable {
    /// How long it took to connect, with TLS.
    pub connect: Times,
    /// The requests.
    pub requests: Requests,
    /// How long they took, counted for each attempt.
    pub elapsed_ns: u128,
}

/// Attempts of which no byte of a response came.
#[derive(Clone, Debug, Default)]
pub struct Silent {
    /// How many there were.
    pub count: u64,
    /// Their requests.
    pub requests: Requests,
    /// The number of requests of which one was the last attempt, and which failed.
    pub failed: u64,
    /// The number of requests that did not fail.
    pub hidden: u64,
    /// How long they took.
    pub lasted_ns: u128,
    /// How long the longest took.
    pub longest_ns: u64,
    /// Why they failed.
    pub failures: BTreeMap<Failure, u64>,
}

/// A kept connection that ended before a byte of the response came.
#[derive(Clone, Copy, Debug)]
pub struct Closed {
    /// How long it had been idle.
    pub idle_ns: Option<u64>,
    /// The place of the request on it.
    pub nth: Option<u64>,
    /// Whether it was the last attempt of its request, which failed.
    pub has_failed: bool,
    /// Whether another attempt followed.
    pub is_retried: bool,
    /// How long the attempt took.
    pub lasted_ns: u64,
}

/// An attempt, and the place of its request among all.
struct Try<'r> {
    nth: u64,
    tried: Tried<'r, 'r>,
}

impl Server {
    /// Adds all attempts of a request: the nth of all, which began at this moment.
    pub fn add_all(servers: &mut Rows<Self>, request: &Request<'_>, nth: u64, begin: Option<u64>) {
        for tried in request.tried() {
            Self::add_to(servers, &Try { nth, tried }, begin);
        }
    }

    /// Adds an attempt to its server.
    fn add_to(servers: &mut Rows<Self>, of: &Try<'_>, begin: Option<u64>) {
        let Some(addr) = of.tried.addr() else {
            return;
        };
        let group = of.tried.group().unwrap_or_default();
        let server = servers.row(&of.tried.row_name());
        if server.addr.is_empty() {
            group.clone_into(&mut server.group);
            addr.clone_into(&mut server.addr);
        }
        if !group.is_empty()
            && let Some(config) = &of.tried.request.place.config.upstream
        {
            server.config = Some(config.clone().into_owned());
        }
        server.add_connection(of, begin);
        server.add_answer(of);
    }

    /// Adds the connection of an attempt: whether it was kept, and whether one had become free.
    fn add_connection(&mut self, of: &Try<'_>, begin: Option<u64>) {
        let (request, attempt) = (of.tried.request, of.tried.attempt);
        let Some(is_reused) = attempt.reused else {
            return;
        };
        self.known += 1;
        self.new += u64::from(!is_reused);
        let first = request.phases.downstream_request_first_byte_time;
        let moment = |time: Option<u64>| begin?.checked_add(time?.checked_sub(first?)?);
        if let Some(connect) = moment(attempt.upstream_connect_time) {
            let is_free = |(pid, since): &(u32, u64)| {
                *pid == request.pid && *since <= connect && connect - since <= FREE_NS
            };
            let free = self.free.iter().position(is_free);
            if let Some(place) = free {
                self.free.remove(place);
                self.add_avoidable(of, is_reused);
            }
        }
        let end = moment(attempt.upstream_response_last_byte_time);
        if let Some(end) = end.filter(|_| attempt.failure.is_none()) {
            if self.free.len() >= KEPT_MAX {
                self.free.pop_front();
            }
            self.free.push_back((request.pid, end));
        }
    }

    /// Adds an attempt before which a connection had become free.
    fn add_avoidable(&mut self, of: &Try<'_>, is_reused: bool) {
        let sent = of.tried.attempt.upstream_request_first_byte_time;
        let connect = of.tried.attempt.upstream_connect_time;
        let took = sent
            .zip(connect)
            .and_then(|(to, from)| to.checked_sub(from));
        if let Some(took) = took.filter(|_| !is_reused) {
            self.avoidable.connect.add(took);
            self.avoidable.requests.add(of);
            let elapsed = of.tried.request.elapsed_ns.unwrap_or_default();
            self.avoidable.elapsed_ns += u128::from(elapsed);
        }
    }

    /// Adds whether an attempt was answered, and how soon.
    fn add_answer(&mut self, of: &Try<'_>) {
        let attempt = of.tried.attempt;
        if is_answered(attempt) {
            self.answered += 1;
            if let Some(idle) = attempt.reused_idle_ns {
                self.idle_known += 1;
                self.idle_max_ns = self.idle_max_ns.max(idle);
            }
            if let (Some(ns), None) = (attempt.response_header_ns, attempt.failure) {
                self.header.add(ns);
                self.header_requests.add(of);
                let elapsed = of.tried.request.elapsed_ns.unwrap_or_default();
                self.header_elapsed_ns += u128::from(elapsed);
            }
            return;
        }
        let Some(failure) = attempt.failure.filter(|failure| is_silence(*failure)) else {
            return;
        };
        let is_failure = has_failed(of.tried.request);
        let has_failed = of.tried.is_answer() && is_failure;
        let lasted_ns = of.tried.lasted().unwrap_or_default();
        let is_first = self.silent.requests.add(of);
        self.silent.count += 1;
        self.silent.failed += u64::from(has_failed);
        self.silent.hidden += u64::from(is_first && !is_failure);
        self.silent.lasted_ns += u128::from(lasted_ns);
        self.silent.longest_ns = self.silent.longest_ns.max(lasted_ns);
        *self.silent.failures.entry(failure).or_default() += 1;
        let is_end = matches!(failure, Failure::Closed | Failure::Reset);
        if is_end && attempt.reused == Some(true) {
            self.closed_count += 1;
            self.closed_requests.add(of);
            if self.closed.len() >= KEPT_MAX {
                self.closed.pop_front();
            }
            self.closed.push_back(Closed {
                idle_ns: attempt.reused_idle_ns,
                nth: attempt.connection_requests,
                has_failed,
                is_retried: of.tried.is_retried(),
                lasted_ns,
            });
        }
    }

    /// Returns how the server is called: its address, and its group where there is one.
    pub fn name(&self) -> String {
        if self.group.is_empty() {
            return self.addr.clone();
        }
        format!("{} ({})", self.addr, self.group)
    }
}

/// Returns whether a server answered an attempt. Where times are not known (HTTP/3), its status shows it, unless it may
/// be nginx's own.
fn is_answered(attempt: &Attempt<'_>) -> bool {
    let is_own = |status: u32| matches!(status, 502 | 504);
    let has_status = attempt.status.is_some_and(|status| !is_own(status));
    attempt.upstream_response_first_byte_time.is_some() || attempt.failure.is_none() && has_status
}

/// Returns whether a failure is that of a server that does not answer. One that the client's end was, or that the
/// server's answer was, is not.
fn is_silence(failure: Failure) -> bool {
    matches!(
        failure,
        Failure::ConnectError
            | Failure::ConnectTimeout
            | Failure::TlsError
            | Failure::TlsTimeout
            | Failure::SendTimeout
            | Failure::Timeout
            | Failure::Closed
            | Failure::Reset
    )
}
