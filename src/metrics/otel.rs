// SPDX-License-Identifier: MIT OR Apache-2.0
//! The metrics of HTTP that OpenTelemetry's conventions define (`--metrics-names otel`), with the names that Prometheus has
//! for them: a dot is an underscore, and the unit is in the name.

use std::borrow::Cow;
use std::env;

use ngx_bpf_record::Request;
use ngx_bpf_record::Tried;
use ngx_bpf_record::format::conventions::KNOWN_METHODS_VARIABLE;
use ngx_bpf_record::format::conventions::KnownMethods;
use ngx_bpf_record::format::conventions::error_type;
use ngx_bpf_record::format::conventions::http_version;
use ngx_bpf_record::format::conventions::server;

use super::buckets::otel_histograms;
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

/// The number of combinations of labels that have series of their own, for each of the two metrics.
pub const SETS_MAX: usize = 1024;

/// The metrics of requests and attempts.
pub struct OtelMetrics {
    server: Times,
    client: Times,
    known_methods: KnownMethods,
}

/// Histograms, of which there are at most `SETS_MAX`, and one for all others.
struct Times {
    histograms: Family<Histogram>,
    sets: LabelValues<Labels, Histogram>,
    /// That for all others. `None` before its first value.
    others: Option<Histogram>,
}

impl OtelMetrics {
    /// Registers the metrics.
    pub fn register(registry: &mut Registry) -> Self {
        let times = || Times {
            histograms: otel_histograms(),
            sets: LabelValues::new(SETS_MAX),
            others: None,
        };
        let (server, client) = (times(), times());
        registry.register(
            "http_server_request_duration_seconds",
            "Duration of HTTP server requests",
            &server.histograms,
        );
        registry.register(
            "http_client_request_duration_seconds",
            "Duration of HTTP client requests: nginx's attempts at upstreams",
            &client.histograms,
        );
        Self {
            server,
            client,
            known_methods: KnownMethods::new(env::var(KNOWN_METHODS_VARIABLE).ok()),
        }
    }

    /// Measures a request. A tunnel is in no histogram.
    pub fn observe(
        &mut self,
        request: &Request<'_>,
        route: Option<&str>,
        place: &PlaceLabels,
        exemplar: Option<Exemplar>,
        overflows: &Overflows,
    ) {
        /* One that is not known of a request is none that the conventions know. */
        let method = request.request_method.as_deref();
        if let Some(ns) = request.elapsed_ns.filter(|_| !request.ending.tunnel) {
            let method = self.known_methods.name(method.unwrap_or_default());
            let labels = server_labels(method, request, route, place);
            self.server.observe(&labels, ns, exemplar, overflows);
        }
    }

    /// Measures an attempt at the upstream of this label.
    pub fn attempt(
        &mut self,
        upstream: &str,
        tried: &Tried<'_, '_>,
        exemplar: Option<Exemplar>,
        overflows: &Overflows,
    ) {
        if let Some(ns) = tried.lasted() {
            let method = tried.method().map(|method| self.known_methods.name(method));
            let labels = client_labels(method, upstream, tried);
            self.client.observe(&labels, ns, exemplar, overflows);
        }
    }

    /// Called ten times a second.
    pub fn tick(&mut self) {
        self.server.sets.tick();
        self.client.sets.tick();
    }
}

impl Times {
    /// Measures a time.
    fn observe(
        &mut self,
        labels: &Labels,
        ns: u64,
        exemplar: Option<Exemplar>,
        overflows: &Overflows,
    ) {
        let histograms = &self.histograms;
        let Some(taken) = self.sets.take_in(labels, || histograms.with(labels)) else {
            overflows.series.inc();
            /* The conventions' name for what has no room: `otel.metric.overflow`. */
            let new = || histograms.with(&vec![("otel_metric_overflow", "true".to_owned())]);
            let others = self.others.get_or_insert_with(new);
            return others.observe(ns, exemplar);
        };
        taken.value.observe(ns, exemplar);
        if let Some((gone, _)) = taken.in_place_of {
            histograms.remove(&gone);
        }
    }
}

/// Returns the labels of a request. What it does not have is no label.
fn server_labels(
    method: &str,
    request: &Request<'_>,
    route: Option<&str>,
    place: &PlaceLabels,
) -> Labels {
    let known = |name: &'static str, value: &str| (value != NONE).then(|| (name, value.to_owned()));
    let route = route.filter(|route| *route != OTHER);
    let version = request.server_protocol.as_deref().and_then(http_version);
    let status = request.status.map(|status| status.to_string());
    let labels = [
        ("error_type", error_type(request).map(Cow::into_owned)),
        ("http_request_method", Some(method.to_owned())),
        ("http_response_status_code", status),
        ("network_protocol_version", version.map(str::to_owned)),
        ("url_scheme", Some(request.scheme.name().to_owned())),
    ];
    let mut labels: Labels = labels
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .collect();
    labels.extend(known("http_route", route.unwrap_or(&place.location)));
    labels.extend(known("server_address", &place.server_name));
    labels.sort_unstable();
    labels
}

/// Returns the labels of an attempt. What is not known of it is no label.
fn client_labels(method: Option<&str>, upstream: &str, tried: &Tried<'_, '_>) -> Labels {
    let status = tried.own_status().map(|status| status.to_string());
    let (address, port) = match upstream {
        NONE => (None, None),
        _ => {
            let (address, port) = server(upstream);
            (Some(address), port)
        }
    };
    let labels = [
        ("error_type", tried.error_type().map(Cow::into_owned)),
        ("http_request_method", method.map(str::to_owned)),
        ("http_response_status_code", status),
        ("server_address", address.map(str::to_owned)),
        ("server_port", port.map(|port| port.to_string())),
    ];
    let labels = labels.into_iter();
    labels
        .filter_map(|(name, value)| Some((name, value?)))
        .collect()
}
