// SPDX-License-Identifier: MIT OR Apache-2.0
//! The records of the last seconds, summed up in slices of time: the oldest slice is dropped as a whole, so that memory
//! is bounded at any rate.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use ngx_bpf_record::Record;
use ngx_bpf_record::Request;
use ngx_bpf_record::statistics::Group;
use ngx_bpf_record::statistics::GroupKey;
use ngx_bpf_record::statistics::Peer;
use ngx_bpf_record::statistics::Rows;
use ngx_bpf_record::statistics::Slowest;
use ngx_bpf_record::statistics::service;

use super::rows::Line;
use super::rows::Row;
use super::rows::Worker;

/// How long a slice lasts.
const SLICE: Duration = Duration::from_secs(3);

/// The most slices.
const SLICES: u32 = 10;

/// The longest time that the window covers.
pub const WINDOW: Duration = SLICE.saturating_mul(SLICES);

/// The most rows of a view. What finds no room is counted together.
const ROWS_MAX: usize = 256;

/// The slowest requests of a slice that are kept.
const SLOWEST: usize = 8;

/// The latest requests of a slice that are kept, and from how many on one is kept only every [`LATEST_EVERY`].
const LATEST_MAX: usize = 50;
const LATEST_FREE: usize = 25;
const LATEST_EVERY: Duration = Duration::from_millis(60);

/// What stands between the pod and the service of a row; no name of a pod has it.
const BETWEEN: char = '\t';

/// The row of requests that have no value for a key.
pub const NONE: &str = "(none)";

/// What is summed up of all requests, whatever the view.
#[derive(Clone, Debug)]
pub struct Totals {
    /// All requests but tunnels.
    pub all: Group,
    /// The number of tunnels that ended.
    pub tunnels: u64,
    /// The number of connections that ended without a request.
    pub connections: u64,
    /// The slowest requests.
    pub slowest: Slowest,
}

impl Totals {
    /// Creates the sum of nothing.
    fn new() -> Self {
        Self {
            all: Group::default(),
            tunnels: 0,
            connections: 0,
            slowest: Slowest::new(SLOWEST),
        }
    }
}

/// A part of the window.
#[derive(Clone, Debug)]
struct Slice {
    begin: Duration,
    totals: Totals,
    /// The requests by each of [`Window::keys`].
    groups: Vec<Rows<Row<Group>>>,
    workers: Rows<Row<Worker>>,
    peers: Rows<Row<Peer>>,
    /// The requests by pod and service: see [`Window::services`].
    services: Rows<Row<Group>>,
    /// Some of the latest requests, and when the last one came.
    latest: VecDeque<Arc<str>>,
    latest_at: Duration,
}

impl Slice {
    /// Creates an empty one for this number of keys.
    fn new(begin: Duration, keys: usize) -> Self {
        Self {
            begin,
            totals: Totals::new(),
            groups: vec![Rows::new(ROWS_MAX); keys],
            workers: Rows::new(ROWS_MAX),
            peers: Rows::new(ROWS_MAX),
            services: Rows::new(ROWS_MAX),
            latest: VecDeque::new(),
            latest_at: begin,
        }
    }

    /// Adds a request that ended at this time.
    fn request(&mut self, request: &Request<'_>, keys: &[GroupKey], at: Duration) {
        if request.ending.tunnel {
            self.totals.tunnels += 1;
            return;
        }
        self.totals.all.add(request);
        self.totals.slowest.add(request);
        let mut line = Line::new(request);
        for (rows, key) in self.groups.iter_mut().zip(keys) {
            let name = key.of(request);
            let row = rows.row(name.as_deref().unwrap_or(NONE));
            row.what.add(request);
            row.keep(&mut line);
        }
        let worker = self.workers.row(&request.pid.to_string());
        worker.what.request(request);
        worker.keep(&mut line);
        for tried in request.tried() {
            let row = self.peers.row(&tried.row_name());
            row.what.add(request, &tried);
            row.keep(&mut line);
        }
        if let Some(pod) = GroupKey::Pod.of(request) {
            let service = service(request);
            let name = format!("{pod}{BETWEEN}{}", service.unwrap_or(NONE));
            let row = self.services.row(&name);
            row.what.add(request);
            row.keep(&mut line);
        }
        let is_early = at < self.latest_at.saturating_add(LATEST_EVERY);
        if self.latest.len() < LATEST_FREE || !is_early {
            self.latest_at = at;
            self.latest.extend(line.text());
        }
        if self.latest.len() > LATEST_MAX {
            self.latest.pop_front();
        }
    }
}

/// The records of the last seconds.
#[derive(Clone, Debug)]
pub struct Window {
    keys: Vec<GroupKey>,
    /// In order, the newest last; never empty.
    slices: VecDeque<Slice>,
    /// When the first one began. `None` before anything came.
    started: Option<Duration>,
    now: Duration,
}

impl Window {
    /// Creates an empty one that has rows by each of these keys.
    pub fn new(keys: Vec<GroupKey>) -> Self {
        Self {
            slices: VecDeque::from([Slice::new(Duration::ZERO, keys.len())]),
            keys,
            started: None,
            now: Duration::ZERO,
        }
    }

    /// Moves the end of the window to this time, and drops what is too old. A time before the end changes nothing, but
    /// for one that is further back than the window is long: then the clock was set back, and the window begins anew.
    pub fn advance(&mut self, now: Duration) {
        let is_set_back = now.saturating_add(WINDOW) < self.now;
        if self.started.is_none() || is_set_back {
            self.started = Some(now);
            self.now = now;
            self.slices = VecDeque::from([Slice::new(now, self.keys.len())]);
            return;
        }
        if now <= self.now {
            return;
        }
        self.now = now;
        let newest = self.newest().begin;
        let passed = (now - newest).as_nanos() / SLICE.as_nanos();
        if passed == 0 {
            return;
        }
        let begin = if passed < u128::from(SLICES) {
            newest.saturating_add(SLICE.saturating_mul(passed as u32))
        } else {
            now
        };
        self.slices.push_back(Slice::new(begin, self.keys.len()));
        let oldest = self.oldest(begin);
        self.slices.retain(|slice| slice.begin >= oldest);
    }

    /// Returns when the oldest slice may have begun, if the newest one began at this time.
    fn oldest(&self, newest: Duration) -> Duration {
        (newest + SLICE).saturating_sub(WINDOW)
    }

    /// Returns the newest slice.
    fn newest(&mut self) -> &mut Slice {
        if self.slices.is_empty() {
            self.slices.push_back(Slice::new(self.now, self.keys.len()));
        }
        let last = self.slices.len() - 1;
        &mut self.slices[last]
    }

    /// Adds a record that was written at this time.
    pub fn add(&mut self, record: &Record<'_>, at: Duration) {
        self.advance(at);
        let keys = std::mem::take(&mut self.keys);
        let newest = self.newest();
        match record {
            Record::Request(request) => newest.request(request, &keys, at),
            Record::Connection(_) => newest.totals.connections += 1,
            Record::Blocked(blocked) => {
                let worker = newest.workers.row(&blocked.pid.to_string());
                worker.what.blocked(blocked);
            }
            Record::Lost(_) => {}
        }
        self.keys = keys;
    }

    /// Returns where the window ends.
    pub fn now(&self) -> Duration {
        self.now
    }

    /// Returns how much time the window covers, in seconds: one at least.
    pub fn seconds(&self) -> f64 {
        let newest = self.slices.back().map_or(self.now, |slice| slice.begin);
        let begin = self.started.unwrap_or(self.now).max(self.oldest(newest));
        self.now.saturating_sub(begin).as_secs_f64().max(1.0)
    }

    /// Returns the keys of the rows.
    pub fn keys(&self) -> &[GroupKey] {
        &self.keys
    }

    /// Returns the sums of all requests.
    pub fn totals(&self) -> Totals {
        let mut sum = Totals::new();
        for Slice { totals, .. } in &self.slices {
            sum.all.merge(&totals.all);
            sum.tunnels += totals.tunnels;
            sum.connections += totals.connections;
            sum.slowest.merge(&totals.slowest);
        }
        sum
    }

    /// Returns the rows by one of the keys.
    pub fn groups(&self, key: usize) -> Rows<Row<Group>> {
        let rows = self.slices.iter().filter_map(|slice| slice.groups.get(key));
        merged(rows, Group::merge)
    }

    /// Returns the rows of workers, by their pids.
    pub fn workers(&self) -> Rows<Row<Worker>> {
        merged(
            self.slices.iter().map(|slice| &slice.workers),
            Worker::merge,
        )
    }

    /// Returns the rows of upstreams.
    pub fn peers(&self) -> Rows<Row<Peer>> {
        merged(self.slices.iter().map(|slice| &slice.peers), Peer::merge)
    }

    /// Returns the rows of the services of a pod.
    pub fn services(&self, pod: &str) -> Rows<Row<Group>> {
        let mut own = Rows::<Row<Group>>::new(ROWS_MAX);
        let named = self.slices.iter().flat_map(|slice| slice.services.named());
        for (name, row) in named {
            let rest = name.strip_prefix(pod);
            if let Some(service) = rest.and_then(|rest| rest.strip_prefix(BETWEEN)) {
                own.row(service).merge(row, Group::merge);
            }
        }
        own
    }

    /// Returns the requests that were kept as they are, in any order, some more than once: the latest, the slowest,
    /// and the slowest of each row.
    pub fn kept(&self) -> impl Iterator<Item = &Arc<str>> {
        self.slices.iter().flat_map(|slice| {
            let groups = slice.groups.iter().flat_map(slowest);
            let others = slowest(&slice.workers).chain(slowest(&slice.peers));
            slice.latest.iter().chain(groups).chain(others)
        })
    }
}

/// Returns the slowest request of each row.
fn slowest<T: Clone + Default>(rows: &Rows<Row<T>>) -> impl Iterator<Item = &Arc<str>> {
    let named = rows.named().map(|(_, row)| row);
    let slowest = named.chain(rows.other()).map(|row| &row.slowest);
    slowest.flatten().map(|(_, line)| line)
}

/// Returns the sum of the rows of several slices.
fn merged<'s, T: Clone + Default + 's>(
    all: impl Iterator<Item = &'s Rows<Row<T>>>,
    add: impl Fn(&mut T, &T),
) -> Rows<Row<T>> {
    let mut sum = Rows::new(ROWS_MAX);
    for rows in all {
        sum.merge(rows, |to, from| to.merge(from, &add));
    }
    sum
}
