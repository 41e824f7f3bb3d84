// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tests of the metrics of requests.

use super::MetricNames;
use super::OwnMetrics;
use super::RequestMetrics;
use super::exposition::Format;
use super::exposition::Registry;
use super::route::Route;
use super::waits::WAITS;
use crate::counts::Counts;
use ngx_bpf_record::Phases;
use ngx_bpf_record::Request;
use ngx_bpf_record::SPANS;
use ngx_bpf_record::format::escape::is_unsafe;
use ngx_bpf_record::schema;
use ngx_bpf_record::values::End;
use ngx_bpf_record::values::Failure;
use ngx_bpf_record::values::Part;
use ngx_bpf_record::values::Timeout;

/// How many there are.
mod bounds;

/// Returns the text that is served after these requests.
fn served(routes: &[&str], requests: &[Request<'_>]) -> String {
    served_as(MetricNames::Nginx, routes, requests)
}

/// Returns the text that is served after these requests, with these names.
fn served_as(names: MetricNames, routes: &[&str], requests: &[Request<'_>]) -> String {
    let routes = routes.iter().map(|route| route.parse::<Route>().unwrap());
    let mut registry = Registry::default();
    let mut metrics = RequestMetrics::register(names, routes.collect(), &mut registry);
    let own = OwnMetrics::register(&mut registry);
    requests.iter().for_each(|request| metrics.observe(request));
    own.update(&Counts::default(), 0, 1);
    text(&registry)
}

/// Returns the text that is served.
fn text(registry: &Registry) -> String {
    String::from_utf8(registry.encode(Format::OpenMetrics)).unwrap()
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
        "nginx_http_requests_total{upstream=\"a:1\",status=\"5xx\",route=\"users\",location=\"none\",server_name=\"none\",upstream_name=\"none\",cache=\"none\"} 2",
        "nginx_http_requests_total{upstream=\"none\",status=\"none\",route=\"other\",location=\"none\",server_name=\"none\",upstream_name=\"none\",cache=\"none\"} 1",
        "nginx_http_request_duration_seconds_bucket{le=\"0.0025\",upstream=\"a:1\",status=\"5xx\",route=\"users\",location=\"none\",server_name=\"none\",upstream_name=\"none\",cache=\"none\"} 2",
        "nginx_http_request_duration_seconds_bucket{le=\"0.001\",upstream=\"a:1\",status=\"5xx\",route=\"users\",location=\"none\",server_name=\"none\",upstream_name=\"none\",cache=\"none\"} 0",
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
        "nginx_http_requests_total{upstream=\"a:1\",status=\"1xx\",location=\"none\",server_name=\"none\",upstream_name=\"none\",cache=\"none\"} 1",
        "nginx_http_tunnels_total{upstream=\"a:1\",status=\"1xx\",location=\"none\",server_name=\"none\",upstream_name=\"none\",cache=\"none\"} 1",
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
    let values = SPANS.map(|(phase, _)| phase);
    let waits = WAITS.map(|(wait, _)| wait);
    for value in values.iter().chain(&waits) {
        assert!(document.contains(&format!("| `{value}` |")), "{value}");
    }
}

/// Check the number of requests by how they ended, and that the series of an upstream go with it.
#[test]
fn ends() {
    let mut timed_out = request("a:1");
    timed_out.ending.end = Some(End::Timeout);
    timed_out.ending.timeout = Some(Timeout::UpstreamRead);
    timed_out.ending.last_phase = Some(Part::UpstreamWait);
    let text = served(&[], &[timed_out.clone(), timed_out, request("a:1")]);
    for line in [
        "nginx_http_request_ends_total{upstream=\"a:1\",end=\"timeout\",timeout=\"upstream_read\",last_phase=\"upstream_wait\"} 2",
        "nginx_http_request_ends_total{upstream=\"a:1\",end=\"none\",timeout=\"none\",last_phase=\"none\"} 1",
    ] {
        assert!(text.contains(&format!("{line}\n")), "{text}");
    }
}

/// Check that what requests waited for is measured where they have it.
#[test]
fn waits() {
    let mut waited = request("a:1");
    waited.waits.accept_queue_ns = Some(2_000_000);
    let text = served(&[], &[waited, request("a:1")]);
    let name = "nginx_http_request_wait_seconds";
    for line in [
        "_sum{wait=\"accept_queue\"} 0.002",
        "_count{wait=\"accept_queue\"} 1",
    ] {
        assert!(text.contains(&format!("{name}{line}\n")), "{text}");
    }
    assert!(!text.contains("wait=\"client_stall\""), "{text}");
}

/// Check that every wait of the record has a histogram.
#[test]
fn all_waits() {
    let longest = serde_json::to_value(schema::longest()).unwrap();
    let keys = longest.as_object().unwrap().keys();
    let keys = keys.filter_map(|key| key.strip_suffix("_ns"));
    let names = WAITS.map(|(name, _)| name);
    let others = ["duration", "elapsed", "time", "tunnel"];
    for key in keys.filter(|key| !others.contains(key)) {
        assert!(names.contains(&key), "{key}");
    }
}

/// Check exemplars: the last traced request of a bucket is there, if its client says that the trace is sampled.
#[test]
fn exemplars() {
    let traced = |id: &str, flags: &str| {
        let mut request = request("a:1");
        request.trace.trace_id = Some(id.repeat(32).into());
        request.trace.trace_flags = Some(flags.to_owned().into());
        request
    };
    let text = served(
        &[],
        &[
            traced("a", "01"),
            traced("b", "03"),
            traced("c", "00"),
            request("a:1"),
        ],
    );
    let bucket = text
        .lines()
        .find(|line| line.starts_with("nginx_http_request_duration_seconds_bucket{le=\"0.0025\""));
    let (_, exemplar) = bucket.unwrap().split_once(" 4 # ").unwrap();
    let expected = format!("{{trace_id=\"{}\"}} 0.002 ", "b".repeat(32));
    assert!(exemplar.starts_with(&expected), "{exemplar}");
    assert!(text.contains("phase=\"upstream_connect\"} 4 # {trace_id"));
    for id in ["a", "c"] {
        assert!(!text.contains(&id.repeat(32)), "{text}");
    }
}

/// Check the names and labels of OpenTelemetry. What a request does not have is no label, and what clients may choose
/// freely is none either.
#[test]
fn otel() {
    let mut full = located("/a", "[::1]:81");
    full.request_method = Some("GET".into());
    full.server_protocol = Some("HTTP/2.0".into());
    full.http_host = Some("chosen.by.the.client".into());
    full.upstreams = schema::longest().upstreams;
    full.upstreams.truncate(2);
    for (attempt, addr) in full.upstreams.iter_mut().zip(["[::1]:81", "unix:/run/app"]) {
        attempt.addr = Some(addr.into());
        attempt.status = Some(404);
        attempt.failure = None;
        attempt.upstream_connect_time = Some(0);
        attempt.upstream_response_last_byte_time = Some(20_000_000);
    }
    let mut bare = Request {
        elapsed_ns: Some(1),
        request_method: Some("BREW".into()),
        server_protocol: Some("HTTP/1.7".into()),
        ..Default::default()
    };
    let text = served_as(MetricNames::Otel, &[], &[full, bare.clone()]);
    for line in [
        "http_server_request_duration_seconds_count{error_type=\"502\",http_request_method=\"GET\",\
         http_response_status_code=\"502\",http_route=\"/a\",network_protocol_version=\"2\",\
         server_address=\"shop \\\"x\\\"\",url_scheme=\"http\"} 1",
        "http_server_request_duration_seconds_count{http_request_method=\"_OTHER\",url_scheme=\"http\"} 1",
        "http_client_request_duration_seconds_bucket{le=\"0.025\",error_type=\"404\",http_request_method=\"GET\",\
         http_response_status_code=\"404\",server_address=\"::1\",server_port=\"81\"} 1",
        "http_client_request_duration_seconds_count{error_type=\"404\",http_request_method=\"GET\",\
         http_response_status_code=\"404\",server_address=\"/run/app\"} 1",
    ] {
        assert!(text.contains(&format!("{line}\n")), "{line}\n{text}");
    }
    assert!(
        !text.contains("nginx_http_request_duration_seconds"),
        "{text}"
    );
    assert!(!text.contains("nginx_http_requests_total"), "{text}");
    assert!(!text.contains("chosen"), "{text}");
    let bounds = text.lines().filter(|line| {
        line.starts_with("http_server_request_duration_seconds_bucket") && line.contains("_OTHER")
    });
    assert_eq!(bounds.count(), 15);
    bare.ending.tunnel = true;
    let text = served_as(MetricNames::Otel, &[], &[bare]);
    assert!(!text.contains("http_server"), "{text}");
}

/// Check that a failed attempt is counted by server and reason. The name of a group of which no server was alive is no
/// server, whatever it is.
#[test]
fn failures() {
    let mut request = schema::longest();
    request.upstreams.truncate(2);
    request.subrequests.clear();
    request.upstream_addr = Some("other".into());
    for attempt in &mut request.upstreams {
        attempt.addr = Some("other".into());
        attempt.post_action = false;
    }
    request.upstreams[0].failure = Some(Failure::Closed);
    request.upstreams[0].addr = Some("a:1".into());
    let text = served(&[], &[request]);
    for upstream in [
        "upstream=\"a:1\",failure=\"closed\"} 1",
        "upstream=\"none\",failure=\"no_live_upstreams\"} 1",
    ] {
        let expected = format!("nginx_http_upstream_failures_total{{{upstream}\n");
        assert!(text.contains(&expected), "{text}");
    }
    assert!(!text.contains("upstream=\"other\""), "{text}");
}

/// Returns a request that a location has answered.
fn located(location: &str, upstream: &str) -> Request<'static> {
    let mut request = request(upstream);
    request.place.location = Some(location.to_owned().into());
    request.place.server_name = Some("shop \"x\"".into());
    request.place.upstream_name = Some("backend".into());
    request
}

/// Check the labels of a place: requests and durations have them, phases are those of all places together.
#[test]
fn places() {
    let text = served(&[], &[located("/a", "a:1"), located("/b", "a:1")]);
    let of = |location| {
        format!(
            "upstream=\"a:1\",status=\"5xx\",location=\"{location}\",server_name=\"shop \\\"x\\\"\",upstream_name=\"backend\",cache=\"none\"}} 1\n"
        )
    };
    for location in ["/a", "/b"] {
        let place = of(location);
        assert!(
            text.contains(&format!("nginx_http_requests_total{{{place}")),
            "{text}"
        );
        assert!(
            text.contains(&format!("duration_seconds_count{{{place}")),
            "{text}"
        );
    }
    let phase =
        "phase_seconds_count{upstream=\"a:1\",status=\"5xx\",phase=\"upstream_connect\"} 2\n";
    assert!(text.contains(phase), "{text}");
}

/// Check that names with control bytes are escaped: no byte of a scrape controls a terminal or breaks a line,
/// and its values read back as they are in lines of text.
#[test]
fn hostile() {
    let mut request = located("/\x1b[2J\r\n\u{9b}\u{202e}\\d\"", "unix:/\x07");
    request.upstreams = schema::longest().upstreams;
    request.upstreams[0].addr = Some("unix:/\x07".into());
    request.upstreams[0].failure = Some(Failure::Closed);
    let text = served(&[], &[request]);
    assert!(text.chars().all(|c| c == '\n' || !is_unsafe(c)), "{text}");
    let location = r#"location="/\\x1b[2J\\x0d\\x0a\\u{9b}\\u{202e}\\d\"","#;
    assert!(text.contains(location), "{text}");
    let addr = r#"failures_total{upstream="unix:/\\x07","#;
    assert!(text.contains(addr), "{text}");
}
