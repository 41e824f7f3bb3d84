// SPDX-License-Identifier: MIT OR Apache-2.0
//! The metrics of requests, of connections that had none, and of blocked workers. The number of label values is bounded,
//! and so is that of the series: what comes when they are full is `other`. A value that no request has had for some time
//! makes room.

use ngx_bpf_record::Blocked;
use ngx_bpf_record::Connection;
use ngx_bpf_record::Request;
use ngx_bpf_record::values::Failure;

use super::attempts::AttemptMetrics;
use super::buckets::exemplar;
use super::connections::ConnectionMetrics;
use super::ends::Ends;
use super::exposition::Exemplar;
use super::exposition::Registry;
use super::kinds::Group;
use super::kinds::Kind;
use super::kinds::KindMetrics;
use super::labels::LabelValues;
use super::labels::NONE;
use super::labels::OTHER;
use super::labels::safe_value;
use super::names::MetricNames;
use super::otel::OtelMetrics;
use super::overflows::Overflows;
use super::phases::PhaseMetrics;
use super::place::PlaceLabels;
use super::route::Route;
use super::waits::WaitMetrics;

/// The number of upstreams that have a label of their own.
pub const UPSTREAMS_MAX: usize = 32;

/// The number of locations, with their servers and groups of upstream servers, that have labels of their own.
pub const PLACES_MAX: usize = 256;

/// The metrics of requests and attempts as a whole, by the names that were chosen.
enum Whole {
    Nginx(KindMetrics, AttemptMetrics),
    Otel(OtelMetrics),
}

/// The metrics of requests.
pub struct RequestMetrics {
    /// The routes of `--route`.
    routes: Vec<Route>,
    /// The upstreams that have a label of their own.
    upstreams: LabelValues<String>,
    /// The places that have labels of their own.
    places: LabelValues<PlaceLabels>,
    /// What had no room.
    overflows: Overflows,
    whole: Whole,
    phases: PhaseMetrics,
    ends: Ends,
    waits: WaitMetrics,
    connections: ConnectionMetrics,
}

impl RequestMetrics {
    /// Registers all metrics of requests.
    pub fn register(names: MetricNames, routes: Vec<Route>, registry: &mut Registry) -> Self {
        Self {
            routes,
            upstreams: LabelValues::new(UPSTREAMS_MAX),
            places: LabelValues::new(PLACES_MAX),
            whole: match names {
                MetricNames::Nginx => {
                    let kinds = KindMetrics::register(registry);
                    Whole::Nginx(kinds, AttemptMetrics::register(registry))
                }
                MetricNames::Otel => Whole::Otel(OtelMetrics::register(registry)),
            },
            phases: PhaseMetrics::register(registry),
            ends: Ends::register(registry),
            waits: WaitMetrics::register(registry),
            connections: ConnectionMetrics::register(registry),
            overflows: Overflows::register(registry),
        }
    }

    /// Counts and measures one request.
    pub fn observe(&mut self, request: &Request<'_>) {
        let exemplar = exemplar(&request.trace);
        let place = self.place(request);
        let group = Group {
            upstream: match request.upstream_addr.as_deref() {
                Some(addr) if !is_none_alive(request) => self.upstream(addr),
                _ => NONE.to_owned(),
            },
            status: class(request.status),
            route: Route::label(&self.routes, request.request_uri.as_deref()),
        };
        self.attempts(request, exemplar);
        self.ends.count(&group.upstream, &request.ending);
        self.waits.observe(request, exemplar);
        if !request.ending.tunnel {
            self.phases.observe(&group, request, exemplar);
        }
        let overflows = &self.overflows;
        match &mut self.whole {
            Whole::Nginx(kinds, _) => {
                let kind = Kind {
                    group,
                    place,
                    cache: request.upstream_cache_status,
                };
                kinds.observe(kind, request, exemplar, overflows);
            }
            Whole::Otel(otel) => {
                let route = group.route.as_deref();
                otel.observe(request, route, &place, exemplar, overflows);
            }
        }
    }

    /// Counts and measures the attempts of a request.
    fn attempts(&mut self, request: &Request<'_>, exemplar: Option<Exemplar>) {
        for tried in request.tried() {
            let upstream = match tried.addr() {
                Some(addr) => self.upstream(addr),
                /* No server of the group was alive. */
                None if tried.attempt.addr.is_some() => NONE.to_owned(),
                None => continue,
            };
            match &mut self.whole {
                Whole::Nginx(_, attempts) => attempts.observe(&upstream, &tried, exemplar),
                Whole::Otel(otel) => otel.attempt(&upstream, &tried, exemplar, &self.overflows),
            }
        }
    }

    /// Counts a connection that ended without a request.
    pub fn connection(&self, connection: &Connection<'_>) {
        self.connections.ended(connection);
    }

    /// Measures a worker that was blocked.
    pub fn blocked(&self, blocked: &Blocked<'_>) {
        self.connections.blocked(blocked);
    }

    /// Returns the label of an upstream.
    fn upstream(&mut self, addr: &str) -> String {
        let addr = safe_value(addr);
        let Some(taken) = self.upstreams.take_in(&addr, || ()) else {
            self.overflows.upstream.inc();
            return OTHER.to_owned();
        };
        if let Some((gone, ())) = taken.in_place_of {
            if let Whole::Nginx(kinds, attempts) = &mut self.whole {
                kinds.forget(|kind| kind.group.upstream == gone);
                attempts.forget(&gone);
            }
            self.phases.forget(&gone);
            self.ends.forget(&gone);
        }
        addr
    }

    /// Returns the labels of the place of a request.
    fn place(&mut self, request: &Request<'_>) -> PlaceLabels {
        let place = PlaceLabels::of(request);
        let Some(taken) = self.places.take_in(&place, || ()) else {
            self.overflows.place.inc();
            return PlaceLabels::other();
        };
        if let Some((gone, ())) = taken.in_place_of
            && let Whole::Nginx(kinds, _) = &mut self.whole
        {
            kinds.forget(|kind| kind.place == gone);
        }
        place
    }

    /// Called ten times a second.
    pub fn tick(&mut self) {
        self.upstreams.tick();
        self.places.tick();
        match &mut self.whole {
            Whole::Nginx(kinds, _) => kinds.tick(),
            Whole::Otel(otel) => otel.tick(),
        }
    }
}

/// Returns whether `upstream_addr` is the name of a group of which no server was alive.
fn is_none_alive(request: &Request<'_>) -> bool {
    let last = request.last_awaited();
    last.is_some_and(|last| last.failure == Some(Failure::NoLiveUpstreams))
}

/// Returns the class of a status: `2xx` and so on, `none` without a status.
fn class(status: Option<u32>) -> &'static str {
    match status {
        Some(100..200) => "1xx",
        Some(200..300) => "2xx",
        Some(300..400) => "3xx",
        Some(400..500) => "4xx",
        Some(500..600) => "5xx",
        Some(_) => OTHER,
        None => NONE,
    }
}
