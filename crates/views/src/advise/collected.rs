// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is collected of records for the rules: by upstream server, location, worker and listener. The number of
//! each is bounded.

use std::time::Duration;

use ngx_bpf_record::Blocked;
use ngx_bpf_record::Request;
use ngx_bpf_record::clock::unix_ns;
use ngx_bpf_record::statistics::Rows;

use crate::advise::listeners::Listeners;
use crate::advise::locations::Location;
use crate::advise::servers::Server;
use crate::advise::workers::Worker;

/// The most upstream servers, and the most locations. Both are those of a configuration, which has fewer.
const ROWS_MAX: usize = 128;

/// The most workers: of one machine, and of some reloads.
const WORKERS_MAX: usize = 256;

/// What is collected.
#[derive(Clone, Debug)]
pub struct Collected {
    /// All requests but tunnels.
    pub requests: u64,
    /// The begin of the first request and of the last one, in ns since 1970.
    pub window: Option<(u64, u64)>,
    /// Upstream servers, by group and address.
    pub servers: Rows<Server>,
    /// Locations, by server and name.
    pub locations: Rows<Location>,
    /// Workers, by pid.
    pub workers: Rows<Worker>,
    /// Listeners.
    pub listeners: Listeners,
    /// How often an accept queue was full when a connection came.
    pub listen_overflows: Option<u64>,
}

impl Default for Collected {
    fn default() -> Self {
        Self {
            requests: 0,
            window: None,
            servers: Rows::new(ROWS_MAX),
            locations: Rows::new(ROWS_MAX),
            workers: Rows::new(WORKERS_MAX),
            listeners: Listeners::default(),
            listen_overflows: None,
        }
    }
}

impl Collected {
    /// Adds a request.
    pub fn request(&mut self, request: &Request<'_>) {
        let begin = request.time.as_deref().and_then(unix_ns);
        if let Some(begin) = begin {
            let (first, last) = self.window.unwrap_or((begin, begin));
            self.window = Some((first.min(begin), last.max(begin)));
        }
        self.location(request).add(request);
        if request.ending.tunnel {
            return;
        }
        self.requests += 1;
        Server::add_all(&mut self.servers, request, self.requests, begin);
        let worker = self.workers.row(&request.pid.to_string());
        worker.request(request);
        self.listeners.request(request, begin);
    }

    /// Adds that a tunnel ended in a worker that had been shutting down for at least this long.
    pub fn tunnel_outlived(&mut self, request: &Request<'_>, since: Duration) {
        let ns = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
        self.location(request).outlived.add(ns);
    }

    /// Returns the location of a request.
    fn location(&mut self, request: &Request<'_>) -> &mut Location {
        let location = request.place.location.as_deref().unwrap_or_default();
        let server = request.place.server_name.as_deref().unwrap_or_default();
        self.locations.row(&format!("{server}\t{location}"))
    }

    /// Adds a worker that was blocked.
    pub fn blocked(&mut self, blocked: &Blocked<'_>) {
        self.workers.row(&blocked.pid.to_string()).blocked(blocked);
    }

    /// Returns the length of the window in seconds. `None` when it has none.
    pub fn seconds(&self) -> Option<f64> {
        let (first, last) = self.window?;
        (last > first).then(|| (last - first) as f64 / 1e9)
    }
}
