// SPDX-License-Identifier: MIT OR Apache-2.0
//! Requests that failed, by the reason.

use std::collections::HashMap;

use crate::request::Request;
use crate::statistics::group::has_failed;
use crate::statistics::rows::Rows;
use crate::statistics::times::Times;
use crate::values::End;
use crate::values::Failure;
use crate::values::Part;
use crate::values::Timeout;

/// The most kinds of incidents. The rest is counted only.
const KINDS_MAX: usize = 256;

/// The most locations of a kind.
const LOCATIONS_MAX: usize = 32;

/// What incidents of one kind have in common.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IncidentKind {
    /// The status.
    pub status: Option<u32>,
    /// How it ended.
    pub end: Option<End>,
    /// Which time limit expired.
    pub timeout: Option<Timeout>,
    /// How far it had come.
    pub last_phase: Option<Part>,
    /// Why the last attempt failed.
    pub failure: Option<Failure>,
    /// Whether the last attempt was on a kept connection.
    pub reused: bool,
    /// Whether the header of the last attempt's response was whole.
    pub has_header: bool,
    /// The upstream of the last attempt.
    pub upstream_addr: Option<String>,
}

/// Incidents of one kind.
#[derive(Clone, Debug)]
pub struct Incident {
    /// How many there were.
    pub count: u64,
    /// How old they were: `elapsed_ns`.
    pub age: Times,
    /// How long their kept connections had been idle.
    pub idle: Times,
    /// How many attempts the one with the most had.
    pub tries_max: usize,
    /// Where they were.
    pub locations: Rows<u64>,
}

impl Default for Incident {
    fn default() -> Self {
        Self {
            count: 0,
            age: Times::default(),
            idle: Times::default(),
            tries_max: 0,
            locations: Rows::new(LOCATIONS_MAX),
        }
    }
}

/// All incidents.
#[derive(Clone, Debug, Default)]
pub struct Incidents {
    kinds: HashMap<IncidentKind, Incident>,
    /// The number of those of further kinds.
    pub other: u64,
}

impl Incidents {
    /// Adds a request if it is one.
    pub fn add(&mut self, request: &Request<'_>) {
        if !has_failed(request) {
            return;
        }
        let last = request.last_awaited();
        let ending = &request.ending;
        let kind = IncidentKind {
            status: request.status,
            end: ending.end,
            timeout: ending.timeout,
            last_phase: ending.last_phase,
            failure: last.and_then(|last| last.failure),
            reused: last.and_then(|last| last.reused).unwrap_or_default(),
            has_header: last.is_some_and(|last| last.response_header_ns.is_some()),
            upstream_addr: request.upstream_addr.as_deref().map(str::to_owned),
        };
        let Some(incident) = self.kind(kind) else {
            self.other += 1;
            return;
        };
        incident.count += 1;
        if let Some(ns) = request.elapsed_ns {
            incident.age.add(ns);
        }
        if let Some(ns) = last.and_then(|last| last.reused_idle_ns) {
            incident.idle.add(ns);
        }
        incident.tries_max = incident.tries_max.max(request.upstreams.len());
        let location = request.place.location.as_deref();
        *incident.locations.row(location.unwrap_or("(none)")) += 1;
    }

    /// Returns those of a kind. `None` when there are too many kinds.
    fn kind(&mut self, kind: IncidentKind) -> Option<&mut Incident> {
        if self.kinds.len() >= KINDS_MAX && !self.kinds.contains_key(&kind) {
            return None;
        }
        Some(self.kinds.entry(kind).or_default())
    }

    /// Adds all of another one.
    pub fn merge(&mut self, from: &Self) {
        self.other += from.other;
        for (kind, theirs) in &from.kinds {
            let Some(ours) = self.kind(kind.clone()) else {
                self.other += theirs.count;
                continue;
            };
            ours.count += theirs.count;
            ours.age.merge(&theirs.age);
            ours.idle.merge(&theirs.idle);
            ours.tries_max = ours.tries_max.max(theirs.tries_max);
            ours.locations
                .merge(&theirs.locations, |to, from| *to += from);
        }
    }

    /// Returns each kind, the most frequent first.
    pub fn kinds(&self) -> Vec<(&IncidentKind, &Incident)> {
        let mut kinds: Vec<_> = self.kinds.iter().collect();
        kinds.sort_by(|(a, one), (b, other)| other.count.cmp(&one.count).then(a.cmp(b)));
        kinds
    }
}
