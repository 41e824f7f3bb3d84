// SPDX-License-Identifier: MIT OR Apache-2.0
//! Metrics over all requests, for Prometheus. The number of label values is bounded, and so is that of the series:
//! what comes when they are full is `other`. A value that no request has had for some time makes room.

use std::collections::HashMap;
use std::net::SocketAddr;

use anyhow::Context as _;
use anyhow::Result;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use ends::Ends;
use histograms::Histograms;
use histograms::histograms;
use histograms::seconds;
use labels::LabelValues;
use labels::Labels;
use labels::NONE;
use labels::OTHER;
use labels::TakenIn;
use labels::safe_value;
use listen::ListenMetrics;
use nginx::NginxMetrics;
use ngx_bpf_record::Attempt;
use ngx_bpf_record::Request;
use ngx_bpf_record::SPANS;
use ngx_bpf_record::values::Failure;
use own::OwnMetrics;
use place::PlaceLabels;
use route::Route;
use waits::WaitMetrics;

mod ends;
mod histograms;
mod host;
mod labels;
pub mod listen;
pub mod nginx;
pub mod own;
mod place;
pub mod route;
mod server;
mod waits;

/// The number of upstreams that have a label of their own.
const UPSTREAMS_MAX: usize = 32;

/// The number of locations, with their servers and groups of upstream servers, that have labels of their own.
const PLACES_MAX: usize = 256;

/// The address at which metrics are served, and the routes that are counted.
#[derive(Clone, Debug)]
pub struct MetricsSettings {
    /// The address to listen on.
    pub address: SocketAddr,
    /// Names for groups of paths; without any, metrics have no label `route`.
    pub routes: Vec<Route>,
    /// True to serve nginx's own counters, too.
    pub stats: bool,
}

/// The metrics that are served, which stay 0 until they are updated. The default is none.
#[derive(Default)]
pub struct Served {
    /// Those of the tool itself.
    pub own: Option<OwnMetrics>,
    /// Those of requests.
    pub requests: Option<RequestMetrics>,
    /// Those of nginx itself.
    pub nginx: Option<NginxMetrics>,
    /// Those of its listening sockets.
    pub listeners: Option<ListenMetrics>,
}

/// The labels that requests of one kind have in common.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Kind {
    /// The last upstream's address, `none` or `other`.
    upstream: String,
    /// The class of the status: `2xx` and so on, or `none`.
    status: &'static str,
    /// The name of a route, or `other`; `None` without routes.
    route: Option<String>,
    /// Where in the configuration the requests were handled.
    place: PlaceLabels,
}

impl Kind {
    /// Returns whether another kind has the same series of phases: one that differs by its place at most.
    fn has_phases_of(&self, other: &Self) -> bool {
        let Self {
            upstream,
            status,
            route,
            place: _,
        } = self;
        *upstream == other.upstream && *status == other.status && *route == other.route
    }

    /// Returns names and values, without those of the place.
    fn labels(&self) -> Labels {
        let mut labels = vec![
            ("upstream", self.upstream.clone()),
            ("status", self.status.to_owned()),
        ];
        labels.extend(self.route.clone().map(|route| ("route", route)));
        labels
    }

    /// Returns names and values.
    fn all_labels(&self) -> Labels {
        let mut labels = self.labels();
        self.place.append_to(&mut labels);
        labels
    }
}

/// The metrics of one kind of requests.
struct Series {
    /// The number of requests.
    requests: Counter,
    /// The time from the first byte read to the end of the request. `None` before the first value.
    duration: Option<Histogram>,
    /// The intervals of `SPANS`, of all places together. An interval that no request of this kind has had is
    /// absent: requests without an upstream have no histogram of the upstream, not even an empty one.
    spans: [Option<Histogram>; SPANS.len()],
    labels: Labels,
    /// Those without the place, which the intervals have.
    labels_of_spans: Labels,
}

impl Series {
    /// Creates the metrics of a new kind.
    fn new(kind: &Kind, requests: &Family<Labels, Counter>) -> Self {
        let labels = kind.all_labels();
        Self {
            requests: requests.get_or_create_owned(&labels),
            duration: None,
            spans: Default::default(),
            labels,
            labels_of_spans: kind.labels(),
        }
    }
}

/// The metrics of requests.
pub struct RequestMetrics {
    /// The routes of `--route`.
    routes: Vec<Route>,
    /// The upstreams that have a label of their own.
    upstreams: LabelValues<String>,
    /// The places that have labels of their own.
    places: LabelValues<PlaceLabels>,
    /// The metrics of each kind of requests so far.
    series: HashMap<Kind, Series>,
    /// The number of requests, by kind.
    requests: Family<Labels, Counter>,
    /// The number of requests whose connection became a tunnel, by kind.
    tunnels: Family<Labels, Counter>,
    /// The durations of requests, by kind.
    durations: Histograms,
    /// The intervals of `SPANS`, by kind.
    phases: Histograms,
    /// The number of failed attempts, by upstream and reason.
    failures: Family<Labels, Counter>,
    /// The number of requests, by how they ended.
    ends: Ends,
    /// What requests waited for.
    waits: WaitMetrics,
}

/// Starts to serve metrics, if they are asked for. Fails when the address can't be bound.
pub fn serve(settings: Option<MetricsSettings>) -> Result<Served> {
    let Some(settings) = settings else {
        return Ok(Served::default());
    };
    let mut registry = Registry::default();
    let served = Served {
        requests: Some(RequestMetrics::register(settings.routes, &mut registry)),
        own: Some(OwnMetrics::register(&mut registry)),
        nginx: settings
            .stats
            .then(|| NginxMetrics::register(&mut registry)),
        listeners: Some(ListenMetrics::register(&mut registry)),
    };
    server::start(settings.address, registry)
        .with_context(|| format!("failed to serve metrics at {}", settings.address))?;
    Ok(served)
}

impl RequestMetrics {
    /// Registers all metrics of requests.
    fn register(routes: Vec<Route>, registry: &mut Registry) -> Self {
        let metrics = Self {
            routes,
            upstreams: LabelValues::new(UPSTREAMS_MAX),
            places: LabelValues::new(PLACES_MAX),
            series: HashMap::new(),
            requests: Family::default(),
            tunnels: Family::default(),
            durations: histograms(),
            phases: histograms(),
            failures: Family::default(),
            ends: Ends::register(registry),
            waits: WaitMetrics::register(registry),
        };
        let requests = "Requests that have ended";
        registry.register("nginx_http_requests", requests, metrics.requests.clone());
        let tunnels = "Requests whose connection has become a tunnel, which has ended";
        registry.register("nginx_http_tunnels", tunnels, metrics.tunnels.clone());
        registry.register(
            "nginx_http_request_duration_seconds",
            "From the first byte of the request read to the moment at which nginx ends it",
            metrics.durations.clone(),
        );
        registry.register(
            "nginx_http_request_phase_seconds",
            "What the time of a request is made of",
            metrics.phases.clone(),
        );
        registry.register(
            "nginx_http_upstream_failures",
            "Attempts at an upstream that failed",
            metrics.failures.clone(),
        );
        metrics
    }

    /// Counts and measures one request.
    pub fn observe(&mut self, request: &Request<'_>) {
        let place = self.place(request);
        let kind = Kind {
            upstream: match request.upstream_addr.as_deref() {
                Some(addr) => self.upstream(addr),
                None => NONE.to_owned(),
            },
            status: class(request.status),
            route: Route::label(&self.routes, request.request_uri.as_deref()),
            place,
        };
        for attempt in request.all_attempts() {
            self.attempt(attempt);
        }
        self.ends.count(&kind.upstream, &request.ending);
        self.waits.observe(&request.waits);
        let series = self.series.entry(kind);
        let series = series.or_insert_with_key(|kind| Series::new(kind, &self.requests));
        series.requests.inc();
        /* A tunnel lives for hours, which says nothing about how fast requests are. */
        if request.ending.tunnel {
            self.tunnels.get_or_create(&series.labels).inc();
            return;
        }
        if let Some(ns) = request.elapsed_ns {
            let labels = &series.labels;
            let new = || self.durations.get_or_create_owned(labels);
            series.duration.get_or_insert_with(new).observe(seconds(ns));
        }
        for (histogram, (name, span)) in series.spans.iter_mut().zip(SPANS) {
            if let Some(ns) = span(request) {
                let new = || {
                    let mut labels = series.labels_of_spans.clone();
                    labels.push(("phase", name.to_owned()));
                    self.phases.get_or_create_owned(&labels)
                };
                histogram.get_or_insert_with(new).observe(seconds(ns));
            }
        }
    }

    /// Counts a failed attempt.
    fn attempt(&mut self, attempt: &Attempt<'_>) {
        if let (Some(addr), Some(failure)) = (attempt.addr.as_deref(), attempt.failure) {
            let labels = failure_labels(&self.upstream(addr), failure);
            self.failures.get_or_create(&labels).inc();
        }
    }

    /// Returns the label of an upstream.
    fn upstream(&mut self, addr: &str) -> String {
        let addr = safe_value(addr);
        match self.upstreams.take_in(&addr) {
            TakenIn::Known => addr,
            TakenIn::InPlaceOf(gone) => {
                self.forget(|kind| kind.upstream == gone);
                self.forget_failures(&gone);
                self.ends.forget(&gone);
                addr
            }
            TakenIn::Refused => OTHER.to_owned(),
        }
    }

    /// Returns the labels of the place of a request.
    fn place(&mut self, request: &Request<'_>) -> PlaceLabels {
        let place = PlaceLabels::of(request);
        match self.places.take_in(&place) {
            TakenIn::Known => place,
            TakenIn::InPlaceOf(gone) => {
                self.forget(|kind| kind.place == gone);
                place
            }
            TakenIn::Refused => PlaceLabels::other(),
        }
    }

    /// Called ten times a second.
    pub fn tick(&mut self) {
        self.upstreams.tick();
        self.places.tick();
    }

    /// Removes the series of kinds of requests. Those of phases go with the last kind that has them.
    fn forget(&mut self, is_gone: impl Fn(&Kind) -> bool) {
        let gone = self.series.extract_if(|kind, _| is_gone(kind));
        let gone: Vec<(Kind, Series)> = gone.collect();
        for (kind, series) in gone {
            self.requests.remove(&series.labels);
            self.tunnels.remove(&series.labels);
            self.durations.remove(&series.labels);
            if self.series.keys().any(|other| other.has_phases_of(&kind)) {
                continue;
            }
            for (name, _) in SPANS {
                let mut labels = series.labels_of_spans.clone();
                labels.push(("phase", name.to_owned()));
                self.phases.remove(&labels);
            }
        }
    }

    /// Removes the failures of an upstream.
    fn forget_failures(&mut self, upstream: &str) {
        for failure in Failure::ALL {
            self.failures.remove(&failure_labels(upstream, failure));
        }
    }
}

/// Returns the labels of failed attempts.
fn failure_labels(upstream: &str, failure: Failure) -> Labels {
    vec![
        ("upstream", upstream.to_owned()),
        ("failure", failure.name().to_owned()),
    ]
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

#[cfg(test)]
mod tests;
