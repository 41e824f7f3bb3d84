// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tests of how many labels and series there are, and of the memory that they take.

use std::process::Command;

use ngx_bpf_record::Phases;
use ngx_bpf_record::Request;
use ngx_bpf_record::SPANS;
use ngx_bpf_record::limits::PLACE_MAX;
use ngx_bpf_record::schema;
use ngx_bpf_record::values::End;
use ngx_bpf_record::values::Failure;
use ngx_bpf_record::values::Part;
use ngx_bpf_record::values::Timeout;

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
use crate::metrics::waits::WAITS;

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

/// The variable that makes `memory` the only test of its process. Its value says which names to measure.
const ALONE: &str = "NGX_BPF_TEST_ALONE";

/// Check the memory that the metrics take at most, with either names: all labels are in use, with the longest names that a
/// record has. What the native buckets of the histograms would take if all of them were in use is added.
#[test]
fn memory() {
    match std::env::var(ALONE).as_deref() {
        Ok("nginx") => return memory_of_all(MetricNames::Nginx, 4_000),
        Ok("otel") => return memory_of_all(MetricNames::Otel, 4_400),
        _ => {}
    }
    for names in ["nginx", "otel"] {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "metrics::tests::bounds::memory", "--nocapture"])
            .env(ALONE, names)
            .output()
            .unwrap();
        let stdout = String::from_utf8(output.stdout).unwrap();
        assert!(
            output.status.success() && stdout.contains(" histograms: "),
            "{names}: {stdout}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        println!("{names}: {stdout}");
    }
}

/// Measures a process that does nothing else.
fn memory_of_all(names: MetricNames, histograms_min: u64) {
    let before = Usage::read().unwrap().resident;
    let mut registry = Registry::default();
    let mut metrics = RequestMetrics::register(names, Vec::new(), &mut registry);
    let mut ns = 1;
    let mut request = schema::longest();
    request.trace.trace_flags = Some("01".into());
    request.upstreams.truncate(1);
    request.subrequests.clear();
    for n in 0..(UPSTREAMS_MAX + 2) * PLACES_MAX * 2 {
        ns = (ns * 3) % (1 << 42) + 1;
        vary(&mut request, n, ns);
        /* Each of the first requests is of a kind of its own. */
        for is_tunnel in [n < KINDS_MAX, false] {
            request.ending.tunnel = is_tunnel;
            metrics.observe(&request);
        }
    }
    let taken = Usage::read().unwrap().resident - before;
    let text = text(&registry);
    let histograms = text.lines().filter(|line| line.contains("_seconds_count{"));
    let histograms = histograms.count() as u64;
    /* A vector has room for twice as many as it needs. */
    let buckets = histograms * 2 * BUCKETS_MAX as u64 * size_of::<(i32, u64)>() as u64;
    let counters = text.lines().filter(|line| line.contains("_total{"));
    println!(
        "{histograms} histograms: {} KiB, all native buckets: {} KiB, {} counters, a scrape: {} KiB",
        taken >> 10,
        buckets >> 10,
        counters.count(),
        text.len() >> 10
    );
    assert!(histograms > histograms_min, "{histograms}");
    assert!(taken + buckets < 64 << 20, "{taken} {buckets}");
}

/// Gives a request other labels and times: every place with every upstream, with more upstreams than have room, and with
/// none. An upstream has twice as many requests as there are places.
fn vary(request: &mut Request<'_>, n: usize, ns: u64) {
    let (place, upstream) = (n % PLACES_MAX, n / PLACES_MAX / 2);
    request.place.location = Some(format!("{}{place}", "x".repeat(PLACE_MAX)).into());
    let addr = (upstream <= UPSTREAMS_MAX).then(|| format!("{}{upstream}", "y".repeat(128)));
    request.upstream_addr = addr.clone().map(Into::into);
    request.status = match n as u32 % 7 {
        0 => None,
        class => Some(class * 100 + n as u32 % 100),
    };
    let timeouts = Timeout::ALL.len();
    let parts = Part::ALL.len();
    let at = n / parts;
    request.ending.end = Some(End::ALL[at % End::ALL.len()]);
    request.ending.timeout = match request.ending.end {
        Some(End::Timeout) => Some(Timeout::ALL[at / End::ALL.len() % timeouts]),
        _ => None,
    };
    request.ending.last_phase = Some(Part::ALL[n % parts]);
    request.elapsed_ns = Some(ns);
    request.phases = phases(ns);
    request.waits.queue_ns = Some(ns / 2);
    let attempt = &mut request.upstreams[0];
    attempt.addr = addr.map(Into::into);
    attempt.status = Some(200 + n as u32 % 300);
    attempt.failure = Failure::ALL.get(n % (Failure::ALL.len() + 1)).copied();
    attempt.reused = [Some(true), Some(false), None][n % 3];
    attempt.post_action = false;
    attempt.response_header_ns = Some(ns);
    attempt.upstream_connect_time = Some(ns);
    attempt.upstream_response_last_byte_time = Some(ns * 2);
}

/// Check that docs/metrics.md has the numbers of series that follow from the values of the labels.
#[test]
fn documented_numbers() {
    let document = include_str!("../../../docs/metrics.md");
    let upstreams = UPSTREAMS_MAX + 2;
    let failures = Failure::ALL.len();
    /* Each of them, or none. A timeout is only there with its end, and no last phase with three of the ends. */
    let ends = End::ALL.len() + 1 - 3 - 1;
    let ends = 3 + (ends + Timeout::ALL.len() + 1) * (Part::ALL.len() + 1);
    for (text, number) in [
        (
            format!("{upstreams} upstreams, 7 statuses, {} phases", SPANS.len()),
            upstreams * 7 * SPANS.len(),
        ),
        (
            format!("{upstreams} upstreams, 3 values of `reused`"),
            upstreams * 3,
        ),
        (
            format!("{upstreams} upstreams, {failures} failures"),
            upstreams * failures,
        ),
        (
            "the same, and attempts that did not fail".to_owned(),
            upstreams * (failures + 1),
        ),
        (
            format!(
                "{upstreams} upstreams, {ends} combinations of `end`, `timeout` and `last_phase`"
            ),
            upstreams * ends,
        ),
        (format!("{} waits", WAITS.len()), WAITS.len()),
    ] {
        let number = number.to_string();
        let grouped = match number.len() {
            4.. => format!(
                "{},{}",
                &number[..number.len() - 3],
                &number[number.len() - 3..]
            ),
            _ => number,
        };
        let expected = format!("{text}: {grouped}");
        assert!(document.contains(&expected), "{expected}");
    }
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

/// Check that a combination of labels that is not in use any more makes room for another one, also while each of its labels
/// is in use in other combinations, and that what had no room before stays counted.
#[test]
fn combinations_gone() {
    for (names, metric, other) in [
        (MetricNames::Nginx, "requests_total{", "upstream=\"other\""),
        (
            MetricNames::Otel,
            "server_request_duration_seconds_count{",
            "otel_metric_overflow",
        ),
    ] {
        let mut registry = Registry::default();
        let mut metrics = RequestMetrics::register(names, Vec::new(), &mut registry);
        let mut observe = |place: usize, upstream: usize, ticks: usize| {
            let mut request = located(&format!("/{place}"), &format!("a:{upstream}"));
            request.status = Some(200 + upstream as u32);
            metrics.observe(&request);
            for _ in 0..ticks {
                metrics.tick();
            }
        };
        let places = KINDS_MAX / UPSTREAMS_MAX;
        for n in 0..KINDS_MAX {
            observe(n % places, n / places, 0);
        }
        observe(places, 0, 10 * 60 * 10);
        for n in 0..UPSTREAMS_MAX {
            observe(n % places, n, 0);
        }
        observe(places + 1, 0, 0);
        let text = text(&registry);
        let lines: Vec<_> = text.lines().filter(|line| line.contains(metric)).collect();
        let has = |part: &str| lines.iter().filter(|line| line.contains(part)).count();
        assert_eq!(has(&format!("\"/{}\"", places + 1)), 1, "{text}");
        assert_eq!(has(&format!("\"/{places}\"")), 0, "{text}");
        assert_eq!((has(other), lines.len()), (1, KINDS_MAX + 1), "{text}");
    }
}
