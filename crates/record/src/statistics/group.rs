// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is counted of requests that have something in common.

use std::collections::BTreeMap;

use crate::request::Request;
use crate::shares::Shares;
use crate::statistics::times::Times;
use crate::tried::Tried;
use crate::values::End;
use crate::values::Failure;

/// The first status of an error of the server.
const SERVER_ERROR: u32 = 500;

/// Requests that have something in common. Tunnels are not among them.
#[derive(Clone, Debug, Default)]
pub struct Group {
    /// `elapsed_ns`.
    pub elapsed: Times,
    /// The number of requests.
    pub requests: u64,
    /// The sums of the shares in `time_ns`: client, nginx, upstream, wait.
    pub shares: [u128; 4],
    /// The number of requests by the first digit of their status of three digits.
    pub statuses: [u64; 10],
    /// The number of requests without a status.
    pub without_status: u64,
    /// The number of those that failed: see [`has_failed`].
    pub failed: u64,
}

impl Group {
    /// Adds a request.
    pub fn add(&mut self, request: &Request<'_>) {
        self.requests += 1;
        if let Some(ns) = request.elapsed_ns {
            self.elapsed.add(ns);
        }
        if let Some(Shares {
            client,
            upstream,
            nginx,
            wait,
        }) = request.waits.time_ns
        {
            let shares = [client, nginx, upstream, wait].map(u128::from);
            let sums = self.shares.iter_mut().zip(shares);
            sums.for_each(|(sum, share)| *sum += share);
        }
        match request.status {
            Some(status) => self.statuses[(status as usize / 100).min(9)] += 1,
            None => self.without_status += 1,
        }
        self.failed += u64::from(has_failed(request));
    }

    /// Adds all requests of another group.
    pub fn merge(&mut self, other: &Self) {
        self.elapsed.merge(&other.elapsed);
        self.requests += other.requests;
        let sums = self.shares.iter_mut().zip(other.shares);
        sums.for_each(|(sum, share)| *sum += share);
        let counts = self.statuses.iter_mut().zip(other.statuses);
        counts.for_each(|(sum, count)| *sum += count);
        self.without_status += other.without_status;
        self.failed += other.failed;
    }
}

/// Returns whether a request failed: its status is 500 or above, or it has no status, or its `end` is neither `ok` nor
/// `rejected` nor `limited`.
pub fn has_failed(request: &Request<'_>) -> bool {
    let is_good = matches!(
        request.ending.end,
        None | Some(End::Ok | End::Rejected | End::Limited)
    );
    !is_good || request.status.is_none_or(|status| status >= SERVER_ERROR)
}

/// Attempts at one upstream.
#[derive(Clone, Debug, Default)]
pub struct Peer {
    /// Its group; empty when it is not known.
    pub group: String,
    /// Its address.
    pub addr: String,
    /// The number of attempts.
    pub tries: u64,
    /// The number of those on a kept connection.
    pub kept: u64,
    /// The number of those of which it is known whether their connection was kept.
    pub kept_known: u64,
    /// How long it took to connect, of new connections.
    pub connect: Times,
    /// How long the response's header took: `response_header_ns`.
    pub header: Times,
    /// How long the response took, from its first byte to its last.
    pub read: Times,
    /// Why attempts failed, and how often.
    pub failures: BTreeMap<Failure, u64>,
    /// The number of attempts that another one followed.
    pub retried: u64,
    /// The begin of the last request with an attempt that did not fail.
    pub last_success: Option<String>,
}

impl Peer {
    /// Adds an attempt of a request.
    pub fn add(&mut self, request: &Request<'_>, tried: &Tried<'_, '_>) {
        let attempt = tried.attempt;
        if self.tries == 0 {
            tried
                .group()
                .unwrap_or_default()
                .clone_into(&mut self.group);
            tried.addr().unwrap_or_default().clone_into(&mut self.addr);
        }
        self.tries += 1;
        if let Some(reused) = attempt.reused {
            self.kept_known += 1;
            self.kept += u64::from(reused);
        }
        let between = |from: Option<u64>, to: Option<u64>| to?.checked_sub(from?);
        let connect = between(
            attempt.upstream_connect_time,
            attempt.upstream_request_first_byte_time,
        );
        if let Some(ns) = connect.filter(|_| attempt.reused == Some(false)) {
            self.connect.add(ns);
        }
        if let Some(ns) = attempt.response_header_ns {
            self.header.add(ns);
        }
        let read = between(
            attempt.upstream_response_first_byte_time,
            attempt.upstream_response_last_byte_time,
        );
        if let Some(ns) = read {
            self.read.add(ns);
        }
        self.retried += u64::from(tried.is_retried());
        match attempt.failure {
            Some(failure) => *self.failures.entry(failure).or_default() += 1,
            None => self.last_success = self.last_success.take().max(request.time.clone()),
        }
    }

    /// Adds all attempts of another one.
    pub fn merge(&mut self, other: &Self) {
        self.group.clone_from(&other.group);
        self.addr.clone_from(&other.addr);
        self.tries += other.tries;
        self.kept += other.kept;
        self.kept_known += other.kept_known;
        self.connect.merge(&other.connect);
        self.header.merge(&other.header);
        self.read.merge(&other.read);
        for (failure, count) in &other.failures {
            *self.failures.entry(*failure).or_default() += count;
        }
        self.retried += other.retried;
        self.last_success = self.last_success.take().max(other.last_success.clone());
    }

    /// Returns the number of attempts that failed.
    pub fn failed(&self) -> u64 {
        self.failures.values().sum()
    }
}
