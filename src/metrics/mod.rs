// SPDX-License-Identifier: MIT OR Apache-2.0
//! Metrics over all requests, for Prometheus. The number of labels is bounded: the first upstreams have a
//! label of their own, paths only where `--route` names them.

use std::collections::HashMap;
use std::net::SocketAddr;

use anyhow::Context as _;
use anyhow::Result;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use labels::Labels;
use labels::NONE;
use labels::OTHER;
use nginx::NginxMetrics;
use ngx_bpf_record::Attempt;
use ngx_bpf_record::Request;
use ngx_bpf_record::SPANS;
use own::OwnMetrics;
use route::Route;

mod host;
mod labels;
pub mod nginx;
pub mod own;
pub mod route;
mod server;

/// The upper bounds of the histograms' buckets, in seconds.
const BUCKETS: [f64; 17] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0, 30.0,
];

/// The number of upstreams that have a label of their own.
const UPSTREAMS_MAX: usize = 32;

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
}

impl Kind {
    /// Returns names and values.
    fn labels(&self) -> Labels {
        let mut labels = vec![
            ("upstream", self.upstream.clone()),
            ("status", self.status.to_owned()),
        ];
        labels.extend(self.route.clone().map(|route| ("route", route)));
        labels
    }
}

/// The metrics of one kind of requests.
struct Series {
    /// The number of requests.
    requests: Counter,
    /// The time from the first byte read to the end of the request. `None` before the first value.
    duration: Option<Histogram>,
    /// The intervals of `SPANS`. An interval that no request of this kind has had is absent:
    /// requests without an upstream have no histogram of the upstream, not even an empty one.
    spans: [Option<Histogram>; SPANS.len()],
    labels: Labels,
}

impl Series {
    /// Creates the metrics of a new kind.
    fn new(kind: &Kind, requests: &Family<Labels, Counter>) -> Self {
        let labels = kind.labels();
        Self {
            requests: requests.get_or_create_owned(&labels),
            duration: None,
            spans: Default::default(),
            labels,
        }
    }
}

/// Histograms with the buckets above.
type Histograms = Family<Labels, Histogram, fn() -> Histogram>;

/// The metrics of requests.
pub struct RequestMetrics {
    /// The routes of `--route`.
    routes: Vec<Route>,
    /// The upstreams that have a label of their own.
    upstreams: Vec<String>,
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
    };
    server::start(settings.address, registry)
        .with_context(|| format!("failed to serve metrics at {}", settings.address))?;
    Ok(served)
}

impl RequestMetrics {
    /// Registers all metrics of requests.
    fn register(routes: Vec<Route>, registry: &mut Registry) -> Self {
        let histogram: fn() -> Histogram = || Histogram::new(BUCKETS);
        let metrics = Self {
            routes,
            upstreams: Vec::new(),
            series: HashMap::new(),
            requests: Family::default(),
            tunnels: Family::default(),
            durations: Family::new_with_constructor(histogram),
            phases: Family::new_with_constructor(histogram),
            failures: Family::default(),
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
        let kind = Kind {
            upstream: match request.upstream_addr.as_deref() {
                Some(addr) => self.upstream(addr),
                None => NONE.to_owned(),
            },
            status: class(request.status),
            route: Route::label(&self.routes, request.request_uri.as_deref()),
        };
        for attempt in request.all_attempts() {
            self.attempt(attempt);
        }
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
                    let mut labels = series.labels.clone();
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
            let labels = vec![
                ("upstream", self.upstream(addr)),
                ("failure", failure.name().to_owned()),
            ];
            self.failures.get_or_create(&labels).inc();
        }
    }

    /// Returns the label of an upstream.
    fn upstream(&mut self, addr: &str) -> String {
        if !self.upstreams.iter().any(|known| known == addr) {
            if self.upstreams.len() == UPSTREAMS_MAX {
                return OTHER.to_owned();
            }
            self.upstreams.push(addr.to_owned());
        }
        addr.to_owned()
    }
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

/// Converts nanoseconds to seconds, the unit of Prometheus.
fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use ngx_bpf_record::Phases;
    use ngx_bpf_record::Request;
    use ngx_bpf_record::schema;
    use prometheus_client::registry::Registry;

    use super::OwnMetrics;
    use super::RequestMetrics;
    use super::SPANS;
    use super::UPSTREAMS_MAX;
    use super::route::Route;
    use crate::counts::Counts;

    /// Returns the text that is served after these requests.
    fn served(routes: &[&str], requests: &[Request<'_>]) -> String {
        let routes = routes.iter().map(|route| route.parse::<Route>().unwrap());
        let mut registry = Registry::default();
        let mut metrics = RequestMetrics::register(routes.collect(), &mut registry);
        let own = OwnMetrics::register(&mut registry);
        requests.iter().for_each(|request| metrics.observe(request));
        own.update(&Counts::default(), 0, 1);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        text
    }

    /// Returns a request to an upstream.
    fn request(upstream: &str) -> Request<'static> {
        Request {
            status: Some(502),
            request_uri: Some("/api/users/7?all".into()),
            uri: Some("/index.php".into()),
            upstream_addr: Some(upstream.to_owned().into()),
            elapsed_ns: Some(2_000_000),
            phases: Phases {
                upstream_connect_time: Some(5_000),
                upstream_request_first_byte_time: Some(105_000),
                ..Default::default()
            },
            ..Default::default()
        }
    }

    /// Check that a request is counted and measured once, in its kind.
    #[test]
    fn kinds() {
        let text = served(
            &["users=/api/users/*"],
            &[request("a:1"), request("a:1"), Request::default()],
        );
        for line in [
            "nginx_http_requests_total{upstream=\"a:1\",status=\"5xx\",route=\"users\"} 2",
            "nginx_http_requests_total{upstream=\"none\",status=\"none\",route=\"other\"} 1",
            "nginx_http_request_duration_seconds_bucket{le=\"0.0025\",upstream=\"a:1\",status=\"5xx\",route=\"users\"} 2",
            "nginx_http_request_duration_seconds_bucket{le=\"0.001\",upstream=\"a:1\",status=\"5xx\",route=\"users\"} 0",
            "nginx_http_request_phase_seconds_sum{upstream=\"a:1\",status=\"5xx\",route=\"users\",phase=\"upstream_connect\"} 0.0002",
            "ngx_bpf_requests_lost_total{cause=\"ring_full\"} 0",
            "ngx_bpf_traced_binaries 1",
        ] {
            assert!(text.contains(&format!("{line}\n")), "{line}\n{text}");
        }
        assert!(!served(&[], &[request("a:1")]).contains("route="));
        /* An interval that no request of a kind has gets no series. */
        assert!(!text.contains("phase=\"upstream_wait\""), "{text}");
        assert!(
            !text.contains("duration_seconds_count{upstream=\"none\""),
            "{text}"
        );
    }

    /// Check that tunnels are counted and in no histogram.
    #[test]
    fn tunnels() {
        let mut tunnel = request("a:1");
        (tunnel.status, tunnel.ending.tunnel) = (Some(101), true);
        let text = served(&[], &[tunnel]);
        for line in [
            "nginx_http_requests_total{upstream=\"a:1\",status=\"1xx\"} 1",
            "nginx_http_tunnels_total{upstream=\"a:1\",status=\"1xx\"} 1",
        ] {
            assert!(text.contains(&format!("{line}\n")), "{text}");
        }
        assert!(!text.contains("seconds_count"), "{text}");
        assert!(!served(&[], &[request("a:1")]).contains("tunnels_total"));
    }

    /// Check that docs/metrics.md names every metric that is served, and every phase.
    #[test]
    fn documented() {
        let document = include_str!("../../docs/metrics.md");
        let text = served(&[], &[schema::longest()]);
        let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        for line in types {
            let (name, kind) = line.split_once(' ').unwrap();
            let suffix = if kind == "counter" { "_total" } else { "" };
            assert!(document.contains(&format!("`{name}{suffix}`")), "{line}");
        }
        for (phase, _) in SPANS {
            assert!(document.contains(&format!("| `{phase}` |")), "{phase}");
        }
    }

    /// Check that the number of upstream labels is bounded, whatever upstreams nginx connects to.
    #[test]
    fn bounded() {
        let requests: Vec<_> = (0..1000).map(|n| request(&format!("host{n}:80"))).collect();
        let text = served(&[], &requests);
        let lines = text
            .lines()
            .filter(|line| line.starts_with("nginx_http_requests_total"));
        assert_eq!(lines.count(), UPSTREAMS_MAX + 1);
        let other = requests.len() - UPSTREAMS_MAX;
        assert!(text.contains(&format!("upstream=\"other\",status=\"5xx\"}} {other}\n")));
    }

    /// Check that a failed attempt is counted by server and reason.
    #[test]
    fn failures() {
        let text = served(&[], &[schema::longest()]);
        let addr = "x".repeat(128);
        let expected = format!(
            "nginx_http_upstream_failures_total{{upstream=\"{addr}\",failure=\"no_live_upstreams\"}} 40\n"
        );
        assert!(text.contains(&expected), "{text}");
    }
}
