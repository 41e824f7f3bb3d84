// SPDX-License-Identifier: MIT OR Apache-2.0
//! Requests and their durations, by kind: with ngx-bpf's own names.

use std::collections::HashMap;

use ngx_bpf_record::Request;
use ngx_bpf_record::values::CacheStatus;

use super::buckets::own_histograms;
use super::exposition::Counter;
use super::exposition::Exemplar;
use super::exposition::Family;
use super::exposition::Histogram;
use super::exposition::Registry;
use super::labels::LabelValues;
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
    pub cache: Option<CacheStatus>,
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
    /// Returns names and values.
    fn labels(&self) -> Labels {
        let cache = self.cache.map(|cache| cache.name().to_lowercase());
        labels(
            &self.group,
            &self.place,
            cache.unwrap_or_else(|| NONE.to_owned()),
        )
    }

    /// Returns the group that takes the requests of this kind when there is no room.
    fn folded(self) -> Group {
        Group {
            upstream: OTHER.to_owned(),
            ..self.group
        }
    }
}

/// Returns the labels of a kind.
fn labels(group: &Group, place: &PlaceLabels, cache: String) -> Labels {
    let mut labels = group.labels();
    place.append_to(&mut labels);
    labels.push(("cache", cache));
    labels
}

/// Returns the labels of the requests of a group that had no room.
fn labels_of_others(group: &Group) -> Labels {
    labels(group, &PlaceLabels::other(), OTHER.to_owned())
}

/// The metrics of one kind of requests.
struct Series {
    /// The number of requests.
    requests: Counter,
    /// The time from the first byte read to the end of the request. `None` before the first value.
    duration: Option<Histogram>,
}

/// Requests and their durations, by kind.
pub struct KindMetrics {
    series: LabelValues<Kind, Series>,
    /// Those of kinds that had no room.
    others: HashMap<Group, Series>,
    families: Families,
}

/// The metrics of all kinds.
struct Families {
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
        let families = Families {
            requests: Family::default(),
            tunnels: Family::default(),
            durations: own_histograms(),
        };
        let requests = "Requests that have ended";
        registry.register("nginx_http_requests", requests, &families.requests);
        let tunnels = "Requests whose connection has become a tunnel, which has ended";
        registry.register("nginx_http_tunnels", tunnels, &families.tunnels);
        registry.register(
            "nginx_http_request_duration_seconds",
            "From the first byte of the request read to the moment at which nginx ends it",
            &families.durations,
        );
        Self {
            series: LabelValues::new(KINDS_MAX),
            others: HashMap::new(),
            families,
        }
    }

    /// Counts and measures one request.
    pub fn observe(
        &mut self,
        kind: Kind,
        request: &Request<'_>,
        exemplar: Option<Exemplar>,
        overflows: &Overflows,
    ) {
        let families = &self.families;
        let new = || families.series(&kind.labels());
        if let Some(taken) = self.series.take_in(&kind, new) {
            let labels = || kind.labels();
            families.observe(taken.value, labels, request, exemplar);
            if let Some((gone, _)) = taken.in_place_of {
                families.remove(&gone.labels());
            }
            return;
        }
        overflows.series.inc();
        let group = kind.folded();
        let labels = || labels_of_others(&group);
        let new = || families.series(&labels());
        let series = match self.others.get_mut(&group) {
            Some(series) => series,
            None => self.others.entry(group.clone()).or_insert_with(new),
        };
        families.observe(series, labels, request, exemplar);
    }

    /// Removes the series of kinds of requests.
    pub fn forget(&mut self, is_gone: impl Fn(&Kind) -> bool) {
        for (kind, _) in self.series.forget(is_gone) {
            self.families.remove(&kind.labels());
        }
    }

    /// Called ten times a second.
    pub fn tick(&mut self) {
        self.series.tick();
    }
}

impl Families {
    /// Creates the series of a kind.
    fn series(&self, labels: &Labels) -> Series {
        Series {
            requests: self.requests.with(labels),
            duration: None,
        }
    }

    /// Counts and measures one request of a kind.
    fn observe(
        &self,
        series: &mut Series,
        labels: impl Fn() -> Labels,
        request: &Request<'_>,
        exemplar: Option<Exemplar>,
    ) {
        series.requests.inc();
        /* A tunnel lives for hours, which says nothing about how fast requests are. */
        if request.ending.tunnel {
            self.tunnels.with(&labels()).inc();
        } else if let Some(ns) = request.elapsed_ns {
            let new = || self.durations.with(&labels());
            let duration = series.duration.get_or_insert_with(new);
            duration.observe(ns, exemplar);
        }
    }

    /// Removes the series with these labels.
    fn remove(&self, labels: &Labels) {
        self.requests.remove(labels);
        self.tunnels.remove(labels);
        self.durations.remove(labels);
    }
}
