// SPDX-License-Identifier: MIT OR Apache-2.0
//! Findings: what to change, why, and what it costs as it is. A rule looks at what the records show and at nothing
//! else, and stays silent below its thresholds. Nothing is ever changed.

use std::time::Duration;

use ngx_bpf_record::Record;
use ngx_bpf_record::Request;
use serde::Serialize;

pub use rule::Least;
pub use rule::Rule;
pub use rule::Threshold;
pub use terminal::terminal;

use collected::Collected;

mod accept;
mod balance;
mod blocked;
mod collected;
mod keepalive_race;
mod listeners;
mod locations;
mod not_kept;
mod retries;
mod rule;
#[cfg(test)]
mod samples;
mod server_silent;
mod server_slow;
mod servers;
mod slow_clients;
mod spills;
mod terminal;
#[cfg(test)]
mod tests;
mod time_limit;
mod tls;
mod tunnels;
mod waits;
mod workers;

/// All rules, in the order in which they are listed.
pub const RULES: [Rule; 17] = [
    not_kept::RULE,
    keepalive_race::RULE,
    server_silent::RULE,
    server_slow::RULE,
    retries::RULE,
    waits::RESOLVER,
    accept::QUEUE,
    accept::OVERFLOW,
    blocked::RULE,
    balance::RULE,
    spills::REQUEST,
    spills::RESPONSE,
    slow_clients::RULE,
    tls::RULE,
    time_limit::RULE,
    waits::LIMIT_REQ,
    tunnels::RULE,
];

/// One finding: something that costs requests or time, and that a change may better.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The name of its rule, which never changes.
    pub rule: &'static str,
    /// What it is about: a group of upstreams, an address, a worker, or a location with its server.
    pub subject: String,
    /// What is the matter, in one sentence.
    pub title: String,
    /// What shows it, in sentences with numbers.
    pub evidence: Vec<String>,
    /// The number of requests that it touched. `None` where the records do not show it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests: Option<u64>,
    /// The number of those that failed by it: the client got an error, or left.
    pub failed: u64,
    /// The time that all of these requests lost together. `None` where the records do not show it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost_ns: Option<u64>,
    /// What to look at, or to do: directives of nginx.
    #[serde(rename = "do")]
    pub advice: Vec<String>,
    /// Where it stands in the configuration: `file:line`. `None` where the records do not say it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<String>,
}

impl Finding {
    /// Returns what findings are sorted by. A request that failed costs more than any wait, and a wait more than a
    /// request that lost no time.
    fn cost(&self) -> (u64, u64, u64) {
        let known = |number: Option<u64>| number.unwrap_or_default();
        (self.failed, known(self.lost_ns), known(self.requests))
    }
}

/// Collects what the rules look at, in bounded memory.
#[derive(Clone, Debug, Default)]
pub struct Advisor {
    collected: Collected,
}

impl Advisor {
    /// Creates one that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a record.
    pub fn record(&mut self, record: &Record<'_>) {
        match record {
            Record::Request(request) => self.collected.request(request),
            Record::Connection(connection) => self.collected.listeners.connection(connection),
            Record::Blocked(blocked) => self.collected.blocked(blocked),
            Record::Lost(_) => {}
        }
    }

    /// Sets how often an accept queue was full when a connection came. Records do not have it: it is how much
    /// `ListenOverflows` has grown meanwhile (`/proc/net/netstat` in the network namespace of nginx). The metric
    /// `nginx_listen_drops_total` is not the same: it counts segments that are dropped for other reasons as well.
    pub fn set_listen_overflows(&mut self, count: u64) {
        self.collected.listen_overflows = Some(count);
    }

    /// Adds that a request ended in a worker that had been shutting down for at least this long. Records do not have it:
    /// it is the title of the worker's process.
    pub fn tunnel_outlived(&mut self, request: &Request<'_>, since: Duration) {
        self.collected.tunnel_outlived(request, since);
    }

    /// Returns what was found, the most expensive first: by requests that failed, then by the time that was lost, then
    /// by requests that were touched.
    pub fn findings(&self) -> Vec<Finding> {
        let looks = RULES.iter().filter_map(|rule| rule.look(&self.collected));
        let mut findings: Vec<Finding> = looks.flatten().collect();
        findings.sort_by(|a, b| {
            let by_cost = b.cost().cmp(&a.cost());
            by_cost
                .then(a.rule.cmp(b.rule))
                .then(a.subject.cmp(&b.subject))
        });
        findings
    }

    /// Returns what had enough records to be looked at and gave no finding, as [`Rule::about`] has it.
    pub fn fine(&self) -> Vec<&'static str> {
        let is_fine = |rule: &&Rule| {
            let look = rule.look(&self.collected);
            look.is_some_and(|found| found.is_empty())
        };
        RULES
            .iter()
            .filter(is_fine)
            .map(|rule| rule.about)
            .collect()
    }
}

/// Returns the page of a rule. `None` when there is no such rule.
pub fn explain(rule: &str) -> Option<&'static str> {
    let known = RULES.iter().find(|known| known.name == rule);
    known.map(|known| known.page)
}
