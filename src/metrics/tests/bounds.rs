// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tests of how many labels and series there are, and of the memory that they take.

use std::process::Command;

use ngx_bpf_record::Phases;
use ngx_bpf_record::limits::PLACE_MAX;
use ngx_bpf_record::schema;
use ngx_bpf_record::values::Failure;

use super::located;
use super::request;
use super::served;
use super::served_as;
use super::text;
use crate::host::usage::Usage;
use crate::metrics::MetricNames;
use crate::metrics::RequestMetrics;
use crate::metrics::exposition::BUCKETS_MAX;
use crate::metrics::exposition::Registry;
use crate::metrics::kinds::KINDS_MAX;
use crate::metrics::otel::SETS_MAX;
use crate::metrics::requests::PLACES_MAX;
use crate::metrics::requests::UPSTREAMS_MAX;

/// Check that the combinations of labels are bounded with either names, that what has no room is counted with the
/// others and as an overflow, and that no request is missing.
#[test]
fn bounded_series() {
    let requests: Vec<_> = (0..UPSTREAMS_MAX * PLACES_MAX)
        .map(|n| {
            let (place, upstream) = (n % PLACES_MAX, n / PLACES_MAX);
            let mut request = located(&format!("/{place}"), &format!("host{upstream}:80"));
            request.status = Some(200 + upstream as u32);
            request
        })
        .collect();
    for (names, metric, other, max) in [
        (
            MetricNames::Nginx,
            "nginx_http_requests_total{",
            "upstream=\"other\"",
            KINDS_MAX + 1,
        ),
        (
            MetricNames::Otel,
            "http_server_request_duration_seconds_count{",
            "otel_metric_overflow=\"true\"",
            SETS_MAX + 1,
        ),
    ] {
        let text = served_as(names, &[], &requests);
        let lines: Vec<_> = text
            .lines()
            .filter(|line| line.starts_with(metric))
            .collect();
        assert_eq!(lines.len(), max);
        let count = |line: &&str| line.rsplit_once(' ').unwrap().1.parse::<usize>().unwrap();
        assert_eq!(lines.iter().map(count).sum::<usize>(), requests.len());
        let others = lines.iter().filter(|line| line.contains(other)).map(count);
        let overflow = format!(
            "ngx_bpf_label_overflows_total{{label=\"series\"}} {}\n",
            others.sum::<usize>()
        );
        assert!(text.contains(&overflow), "{overflow}");
    }
}

/// The variable that makes `memory` the only test of its process.
const ALONE: &str = "NGX_BPF_TEST_ALONE";

/// Check the memory that the metrics take at most: all labels are in use, with the longest names that a record has. What the
/// native buckets of the histograms would take if all of them were in use is added.
#[test]
fn memory() {
    if std::env::var_os(ALONE).is_some() {
        return memory_of_all();
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "metrics::tests::bounds::memory", "--nocapture"])
        .env(ALONE, "1")
        .output()
        .unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success() && stdout.contains(" histograms: "),
        "{stdout}"
    );
    println!("{stdout}");
}

/// Measures a process that does nothing else.
fn memory_of_all() {
    let before = Usage::read().unwrap().resident;
    let mut registry = Registry::default();
    let mut metrics = RequestMetrics::register(MetricNames::Nginx, Vec::new(), &mut registry);
    let name = "x".repeat(PLACE_MAX);
    let mut request = schema::longest();
    request.trace.trace_flags = Some("01".into());
    request.upstreams.clear();
    request.subrequests.clear();
    request.ending.tunnel = false;
    let mut ns = 1;
    for n in 0..UPSTREAMS_MAX * PLACES_MAX * 2 {
        let (place, upstream) = (n % PLACES_MAX, n / PLACES_MAX % UPSTREAMS_MAX);
        request.place.location = Some(format!("{name}{place}").into());
        request.upstream_addr = Some(format!("{}{upstream}", "y".repeat(128)).into());
        request.status = Some(n as u32 % 700);
        ns = (ns * 3) % (1 << 42) + 1;
        request.elapsed_ns = Some(ns);
        request.phases = phases(ns);
        metrics.observe(&request);
    }
    let taken = Usage::read().unwrap().resident - before;
    let text = text(&registry);
    let histograms = text.lines().filter(|line| line.contains("_seconds_count{"));
    let histograms = histograms.count() as u64;
    /* A vector has room for twice as many as it needs. */
    let buckets = histograms * 2 * BUCKETS_MAX as u64 * size_of::<(i32, u64)>() as u64;
    println!(
        "{histograms} histograms: {} KiB, all native buckets: {} KiB, a scrape: {} KiB",
        taken >> 10,
        buckets >> 10,
        text.len() >> 10
    );
    assert!(histograms > 2400, "{histograms}");
    assert!(taken + buckets < 64 << 20, "{taken} {buckets}");
}

/// Returns phases of which each takes this time.
fn phases(ns: u64) -> Phases {
    let at = |n| Some(ns * n);
    Phases {
        downstream_request_first_byte_time: at(0),
        downstream_request_last_byte_time: at(1),
        downstream_request_body_last_byte_time: at(2),
        upstream_connect_time: at(3),
        upstream_request_first_byte_time: at(4),
        upstream_request_last_byte_time: at(5),
        upstream_response_first_byte_time: at(6),
        upstream_response_last_byte_time: at(7),
        downstream_response_first_byte_time: at(8),
        downstream_response_last_byte_time: at(9),
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
    assert!(text.contains(&format!("upstream=\"other\",status=\"5xx\",location=\"none\",server_name=\"none\",upstream_name=\"none\",cache=\"none\"}} {other}\n")));
}

/// Check that the number of places is bounded, whatever configurations nginx reads.
#[test]
fn bounded_places() {
    let requests: Vec<_> = (0..1000)
        .map(|n| located(&format!("/{n}"), "a:1"))
        .collect();
    let text = served(&[], &requests);
    let lines = text
        .lines()
        .filter(|line| line.starts_with("nginx_http_requests_total"));
    assert_eq!(lines.count(), PLACES_MAX + 1);
    let of_clients = (0..1000).map(|n| {
        let mut request = located("/", "a:1");
        request.place.upstream_name = Some(format!("host{n}").into());
        request.place.is_upstream_of_variable = true;
        request
    });
    let of_clients = served(&[], &of_clients.collect::<Vec<_>>());
    assert!(
        of_clients.contains("upstream_name=\"other\",cache=\"none\"} 1000\n"),
        "{of_clients}"
    );
    let other = requests.len() - PLACES_MAX;
    let other = format!(
        "location=\"other\",server_name=\"other\",upstream_name=\"other\",cache=\"none\"}} {other}\n"
    );
    assert!(text.contains(&other), "{text}");
}

/// Check that upstreams and places that have gone make room for new ones, with all their series.
#[test]
fn gone() {
    let mut registry = Registry::default();
    let mut metrics = RequestMetrics::register(MetricNames::Nginx, Vec::new(), &mut registry);
    let mut failed = schema::longest();
    failed.subrequests.clear();
    for attempt in &mut failed.upstreams {
        attempt.failure = Some(Failure::Closed);
    }
    metrics.observe(&failed);
    for n in 0..PLACES_MAX {
        metrics.observe(&located(&format!("/{n}"), &format!("old{n}:1")));
    }
    for _ in 0..10 * 60 * 10 {
        metrics.tick();
    }
    for n in 0..PLACES_MAX {
        metrics.observe(&located(&format!("/new{n}"), &format!("new{n}:1")));
    }
    let text = text(&registry);
    let lines = |part: &str| text.lines().filter(|line| line.contains(part)).count();
    assert_eq!(lines("\"old"), 0, "{text}");
    assert_eq!(lines("failures_total{"), 0, "{text}");
    assert_eq!(lines("ends_total{upstream=\"x"), 0, "{text}");
    assert!(lines("requests_total{upstream=\"new") >= UPSTREAMS_MAX);
    assert_eq!(lines("location=\"/new"), lines("location=\"/"), "{text}");
}
