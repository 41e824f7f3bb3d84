// SPDX-License-Identifier: MIT OR Apache-2.0
//! Statistics of records, in bounded memory: the same for those that are written now and those that are read from a
//! file.

use std::collections::BTreeMap;

pub use group::Group;
pub use group::Peer;
pub use group::has_failed;
pub use incident::Incident;
pub use incident::IncidentKind;
pub use incident::Incidents;
pub use key::GroupKey;
pub use key::service;
pub use rows::Rows;
pub use slowest::Slowest;
pub use slowest::owned;
pub use times::Times;

use crate::Record;
use crate::blocked::Blocked;
use crate::request::Request;
use crate::timeline::Stage;
use crate::timeline::timeline;
use crate::values::Cause;

mod group;
mod incident;
mod key;
mod rows;
mod slowest;
mod times;

/// The most groups, and the most upstreams.
const ROWS_MAX: usize = 512;

/// What is asked of the statistics.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What requests are grouped by.
    pub group: GroupKey,
    /// The number of slowest requests to keep.
    pub slowest: usize,
}

/// Statistics of records.
#[derive(Clone, Debug)]
pub struct Statistics {
    settings: Settings,
    /// All requests but tunnels.
    pub all: Group,
    /// How long each stage lasted, by its place in [`Stage::ALL`], of the requests that have a timeline and were in
    /// it at all.
    pub stages: Vec<Times>,
    /// The number of requests that have a timeline.
    pub with_stages: u64,
    /// How long connections waited to be accepted.
    pub accept_queue: Times,
    /// How long TLS handshakes took.
    pub handshake: Times,
    /// How long bytes lay in the client's socket until the worker came to them.
    pub read_wait: Times,
    /// The requests by [`Settings::group`].
    pub groups: Rows<Group>,
    /// The attempts by upstream.
    pub peers: Rows<Peer>,
    /// The statuses.
    pub statuses: BTreeMap<u32, u64>,
    /// Requests that failed, by the reason.
    pub incidents: Incidents,
    /// The slowest requests.
    pub slowest: Slowest,
    /// The number of tunnels that have ended.
    pub tunnels: u64,
    /// How long those lived of which it is known.
    pub tunnel_times: Times,
    /// The time of the first request, and of the last one.
    pub window: Option<(String, String)>,
    /// Requests that were lost, by cause.
    pub lost: BTreeMap<Cause, u64>,
    /// Connections that ended without a request.
    pub connections: u64,
    /// How long workers were blocked.
    pub blocked: Times,
}

impl Statistics {
    /// Creates statistics of nothing.
    pub fn new(settings: Settings) -> Self {
        Self {
            slowest: Slowest::new(settings.slowest),
            settings,
            all: Group::default(),
            stages: vec![Times::default(); Stage::ALL.len()],
            with_stages: 0,
            accept_queue: Times::default(),
            handshake: Times::default(),
            read_wait: Times::default(),
            groups: Rows::new(ROWS_MAX),
            peers: Rows::new(ROWS_MAX),
            statuses: BTreeMap::new(),
            incidents: Incidents::default(),
            tunnels: 0,
            tunnel_times: Times::default(),
            window: None,
            lost: BTreeMap::new(),
            connections: 0,
            blocked: Times::default(),
        }
    }

    /// Returns what was asked.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Adds a record.
    pub fn add(&mut self, record: &Record<'_>) {
        match record {
            Record::Request(request) => self.request(request),
            Record::Connection(_) => self.connection(),
            Record::Lost(lost) => self.lose(lost.cause, lost.count),
            Record::Blocked(blocked) => self.blocked(blocked),
        }
    }

    /// Adds a request.
    pub fn request(&mut self, request: &Request<'_>) {
        if let Some(time) = &request.time {
            self.extend_window(time, time);
        }
        if request.ending.tunnel {
            self.tunnels += 1;
            if let Some(ns) = request.ending.tunnel_ns {
                self.tunnel_times.add(ns);
            }
            return;
        }
        self.all.add(request);
        if let Some(status) = request.status {
            *self.statuses.entry(status).or_default() += 1;
        }
        for (times, ns) in [
            (&mut self.accept_queue, request.waits.accept_queue_ns),
            (&mut self.handshake, request.tls.tls_handshake_ns),
            (&mut self.read_wait, request.waits.read_wait_ns),
        ] {
            if let Some(ns) = ns {
                times.add(ns);
            }
        }
        self.add_stages(request);
        let key = self.settings.group.of(request);
        self.groups
            .row(key.as_deref().unwrap_or("(none)"))
            .add(request);
        for tried in request.tried() {
            let row = self.peers.row(&tried.row_name());
            row.add(request, &tried);
        }
        self.incidents.add(request);
        self.slowest.add(request);
    }

    /// Adds a worker that was blocked.
    pub fn blocked(&mut self, blocked: &Blocked<'_>) {
        self.blocked.add(blocked.duration_ns);
    }

    /// Adds a connection that ended without a request.
    pub fn connection(&mut self) {
        self.connections += 1;
    }

    /// Adds the stages of a request: each once, with all of its time.
    fn add_stages(&mut self, request: &Request<'_>) {
        let Some(segments) = timeline(request) else {
            return;
        };
        self.with_stages += 1;
        let mut sums = [0; Stage::ALL.len()];
        for segment in segments {
            sums[segment.stage as usize] += segment.length();
        }
        let lasted = self.stages.iter_mut().zip(sums);
        lasted
            .filter(|(_, sum)| *sum > 0)
            .for_each(|(times, sum)| times.add(sum));
    }

    /// Makes the window contain a part of the time.
    fn extend_window(&mut self, from: &str, to: &str) {
        match &mut self.window {
            None => self.window = Some((from.to_owned(), to.to_owned())),
            Some((first, last)) => {
                if from < first.as_str() {
                    from.clone_into(first);
                }
                if to > last.as_str() {
                    to.clone_into(last);
                }
            }
        }
    }

    /// Adds all of another one, of which the same was asked.
    pub fn merge(&mut self, from: &Self) {
        self.all.merge(&from.all);
        let stages = self.stages.iter_mut().zip(&from.stages);
        stages.for_each(|(to, from)| to.merge(from));
        self.with_stages += from.with_stages;
        for (to, from) in [
            (&mut self.accept_queue, &from.accept_queue),
            (&mut self.handshake, &from.handshake),
            (&mut self.read_wait, &from.read_wait),
            (&mut self.tunnel_times, &from.tunnel_times),
            (&mut self.blocked, &from.blocked),
        ] {
            to.merge(from);
        }
        self.groups.merge(&from.groups, Group::merge);
        self.peers.merge(&from.peers, Peer::merge);
        for (status, count) in &from.statuses {
            *self.statuses.entry(*status).or_default() += count;
        }
        self.incidents.merge(&from.incidents);
        self.slowest.merge(&from.slowest);
        if let Some((first, last)) = &from.window {
            self.extend_window(first, last);
        }
        for (cause, count) in &from.lost {
            self.lose(*cause, *count);
        }
        self.tunnels += from.tunnels;
        self.connections += from.connections;
    }

    /// Adds requests that were lost. A file may say anything.
    fn lose(&mut self, cause: Cause, count: u64) {
        let known = self.lost.entry(cause).or_default();
        *known = known.saturating_add(count);
    }

    /// Returns the groups, those with the most time first.
    pub fn groups_by_time(&self) -> Vec<(&str, &Group)> {
        let mut groups: Vec<_> = self.groups.named().collect();
        groups.sort_by(|(a, one), (b, other)| {
            let time = |group: &Group| group.elapsed.sum_ns();
            time(other).cmp(&time(one)).then(a.cmp(b))
        });
        groups
    }

    /// Returns the number of requests that were lost.
    pub fn lost(&self) -> u64 {
        self.lost
            .values()
            .fold(0, |sum, count| sum.saturating_add(*count))
    }
}

#[cfg(test)]
mod tests;
