// SPDX-License-Identifier: MIT OR Apache-2.0
//! Requests and their durations, by kind: with ngx-bpf's own names.

use std::collections::HashMap;

use ngx_bpf_record::Request;

use super::buckets::own_histograms;
use super::exposition::Counter;
use super::exposition::Exemplar;
use super::exposition::Family;
use super::exposition::Histogram;
use super::exposition::Registry;
use super::labels::Labels;
use super::labels::NONE;
use super::labels::OTHER;
use super::overflows::Overflows;
use super::place::PlaceLabels;

/// The number of kinds that have series of their own.
pub const KINDS_MAX: usize = 1024;

/// The labels that all metrics of requests have in common.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Group {
    /// The last upstream's address, `none` or `other`.
    pub upstream: String,
    /// The class of the status: `2xx` and so on, or `none`.
    pub status: &'static str,
    /// The name of a route, or `other`; `None` without routes.
    pub route: Option<String>,
}

/// The labels that requests of one kind have in common.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Kind {
    pub group: Group,
    /// Where in the configuration the requests were handled.
    pub place: PlaceLabels,
    /// `$upstream_cache_status` in lower case, `none` or `other`.
    pub cache: String,
}

impl Group {
    /// Returns names and values.
    fn labels(&self) -> Labels {
        let mut labels = vec![
            ("upstream", self.upstream.clone()),
            ("status", self.status.to_owned()),
        ];
        labels.extend(self.route.clone().map(|route| ("route", route)));
        labels
    }

    /// Returns the same with one more label.
    pub fn labels_with(&self, name: &'static str, value: &str) -> Labels {
        let mut labels = self.labels();
        labels.push((name, value.to_owned()));
        labels
    }
}

impl Kind {
    /// Returns the kind of a request.
    pub fn of(request: &Request<'_>, group: Group, place: PlaceLabels) -> Self {
        let cache = request.upstream_cache_status;
        Self {
            group,
            place,
            cache: cache.map_or(NONE.to_owned(), |cache| cache.name().to_lowercase()),
        }
    }

    /// Returns names and values.
    fn labels(&self) -> Labels {
        let mut labels = self.group.labels();
        self.place.append_to(&mut labels);
        labels.push(("cache", self.cache.clone()));
        labels
    }

    /// Returns the kind that takes the requests of this one when there is no room.
    fn folded(mut self) -> Self {
        self.group.upstream = OTHER.to_owned();
        self.place = PlaceLabels::other();
        self.cache = OTHER.to_owned();
        self
    }
}

/// The metrics of one kind of requests.
struct Series {
    /// The number of requests.
    requests: Counter,
    /// The time from the first byte read to the end of the request. `None` before the first value.
    duration: Option<Histogram>,
    labels: Labels,
}

/// Requests and their durations, by kind.
pub struct KindMetrics {
    series: HashMap<Kind, Series>,
    /// The number of requests.
    requests: Family<Counter>,
    /// The number of requests whose connection became a tunnel.
    tunnels: Family<Counter>,
    /// The durations of requests.
    durations: Family<Histogram>,
}

impl KindMetrics {
    /// Registers the metrics.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            series: HashMap::new(),
            requests: Family::default(),
            tunnels: Family::default(),
            durations: own_histograms(),
        };
        let requests = "Requests that have ended";
        registry.register("nginx_http_requests", requests, &metrics.requests);
        let tunnels = "Requests whose connection has become a tunnel, which has ended";
        registry.register("nginx_http_tunnels", tunnels, &metrics.tunnels);
        registry.register(
            "nginx_http_request_duration_seconds",
            "From the first byte of the request read to the moment at which nginx ends it",
            &metrics.durations,
        );
        metrics
    }

    /// Counts and measures one request.
    pub fn observe(
        &mut self,
        mut kind: Kind,
        request: &Request<'_>,
        exemplar: Option<Exemplar>,
        overflows: &Overflows,
    ) {
        if self.series.len() >= KINDS_MAX && !self.series.contains_key(&kind) {
            overflows.series.inc();
            kind = kind.folded();
        }
        let series = self.series.entry(kind).or_insert_with_key(|kind| {
            let labels = kind.labels();
            Series {
                requests: self.requests.with(&labels),
                duration: None,
                labels,
            }
        });
        series.requests.inc();
        /* A tunnel lives for hours, which says nothing about how fast requests are. */
        if request.ending.tunnel {
            self.tunnels.with(&series.labels).inc();
        } else if let Some(ns) = request.elapsed_ns {
            let new = || self.durations.with(&series.labels);
            series
                .duration
                .get_or_insert_with(new)
                .observe(ns, exemplar);
        }
    }

    /// Removes the series of kinds of requests.
    pub fn forget(&mut self, is_gone: impl Fn(&Kind) -> bool) {
        for (_, series) in self.series.extract_if(|kind, _| is_gone(kind)) {
            self.requests.remove(&series.labels);
            self.tunnels.remove(&series.labels);
            self.durations.remove(&series.labels);
        }
    }
}
