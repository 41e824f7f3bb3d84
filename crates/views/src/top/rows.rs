// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is kept of each row of a view.

use std::sync::Arc;

use ngx_bpf_record::Blocked;
use ngx_bpf_record::Request;
use ngx_bpf_record::statistics::Group;
use ngx_bpf_record::statistics::Times;
use ngx_bpf_record::values::BlockPart;

/// A request as a line of JSON, which is written only when somebody keeps it.
pub struct Line<'r> {
    request: &'r Request<'r>,
    text: Option<Arc<str>>,
}

impl<'r> Line<'r> {
    /// Creates the line of a request.
    pub fn new(request: &'r Request<'r>) -> Self {
        Self {
            request,
            text: None,
        }
    }

    /// Returns the text. `None` when the request can't be written, which no request of ngx-bpf is.
    pub fn text(&mut self) -> Option<Arc<str>> {
        if self.text.is_none() {
            self.text = serde_json::to_string(self.request).ok().map(Arc::from);
        }
        self.text.clone()
    }
}

/// A row: what is counted, and its slowest request.
#[derive(Clone, Debug, Default)]
pub struct Row<T> {
    /// What is counted.
    pub what: T,
    /// The time of the slowest request, and the request.
    pub slowest: Option<(u64, Arc<str>)>,
}

impl<T> Row<T> {
    /// Keeps a request if it is the slowest.
    pub fn keep(&mut self, line: &mut Line<'_>) {
        let ns = line.request.elapsed_ns.unwrap_or_default();
        if self
            .slowest
            .as_ref()
            .is_none_or(|(slowest, _)| ns > *slowest)
        {
            self.slowest = line.text().map(|text| (ns, text));
        }
    }

    /// Adds all of another one.
    pub fn merge(&mut self, from: &Self, add: impl Fn(&mut T, &T)) {
        add(&mut self.what, &from.what);
        let ns = |slowest: &Option<(u64, Arc<str>)>| slowest.as_ref().map(|(ns, _)| *ns);
        if ns(&from.slowest) > ns(&self.slowest) {
            self.slowest.clone_from(&from.slowest);
        }
    }
}

/// The longest time that a worker was blocked.
#[derive(Clone, Debug)]
pub struct Longest {
    /// How long it was.
    pub ns: u64,
    /// When it began.
    pub time: Option<String>,
    /// What the worker did, or waited for, in the longest part of it.
    pub part: Option<BlockPart>,
    /// How many requests waited, and how long all together.
    pub waiting: (u64, Option<u64>),
}

/// A worker.
#[derive(Clone, Debug, Default)]
pub struct Worker {
    /// Its requests.
    pub group: Group,
    /// How long bytes lay in sockets until the worker came to them, of requests where it was long enough to be known.
    pub read_wait: Times,
    /// How long it was blocked, each time.
    pub blocked: Times,
    /// How many requests waited while it was blocked.
    pub waiting: u64,
    /// The longest time.
    pub longest: Option<Longest>,
}

impl Worker {
    /// Adds a request.
    pub fn request(&mut self, request: &Request<'_>) {
        self.group.add(request);
        if let Some(ns) = request.waits.read_wait_ns {
            self.read_wait.add(ns);
        }
    }

    /// Adds a time in which it was blocked.
    pub fn blocked(&mut self, blocked: &Blocked<'_>) {
        self.blocked.add(blocked.duration_ns);
        self.waiting = self.waiting.saturating_add(blocked.waiting_requests);
        let longest = Longest {
            ns: blocked.duration_ns,
            time: blocked.time.clone(),
            part: blocked.longest_part,
            waiting: (blocked.waiting_requests, blocked.waiting_ns),
        };
        self.keep(&longest);
    }

    /// Keeps the longer of two times.
    fn keep(&mut self, other: &Longest) {
        if self.longest.as_ref().is_none_or(|own| other.ns > own.ns) {
            self.longest = Some(other.clone());
        }
    }

    /// Adds all of another one.
    pub fn merge(&mut self, from: &Self) {
        self.group.merge(&from.group);
        self.read_wait.merge(&from.read_wait);
        self.blocked.merge(&from.blocked);
        self.waiting = self.waiting.saturating_add(from.waiting);
        if let Some(longest) = &from.longest {
            self.keep(longest);
        }
    }
}
