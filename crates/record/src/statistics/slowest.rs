// SPDX-License-Identifier: MIT OR Apache-2.0
//! The requests that took longest.

use serde::Deserialize as _;

use crate::request::Request;

/// The requests that took longest, the slowest first.
#[derive(Clone, Debug, Default)]
pub struct Slowest {
    requests: Vec<(u64, Request<'static>)>,
    max: usize,
}

impl Slowest {
    /// Creates an empty list that keeps this number of requests.
    pub fn new(max: usize) -> Self {
        Self {
            requests: Vec::new(),
            max,
        }
    }

    /// Adds a request if it is one of the slowest. One without `elapsed_ns` is not.
    pub fn add(&mut self, request: &Request<'_>) {
        let Some(ns) = request.elapsed_ns else {
            return;
        };
        let is_full = self.requests.len() >= self.max;
        let least = self.requests.last().map_or(0, |(least, _)| *least);
        if self.max == 0 || is_full && ns <= least {
            return;
        }
        if let Some(request) = owned(request) {
            self.insert(ns, request);
        }
    }

    /// Inserts one in its place, and drops what is too much.
    fn insert(&mut self, ns: u64, request: Request<'static>) {
        let place = self.requests.partition_point(|(known, _)| *known >= ns);
        self.requests.insert(place, (ns, request));
        self.requests.truncate(self.max);
    }

    /// Adds all of another one.
    pub fn merge(&mut self, from: &Self) {
        for (ns, request) in &from.requests {
            self.insert(*ns, request.clone());
        }
    }

    /// Returns them, the slowest first.
    pub fn requests(&self) -> impl Iterator<Item = &Request<'static>> {
        self.requests.iter().map(|(_, request)| request)
    }
}

/// Returns a copy that borrows nothing.
pub fn owned(request: &Request<'_>) -> Option<Request<'static>> {
    let value = serde_json::to_value(request).ok()?;
    Request::deserialize(value).ok()
}
