// SPDX-License-Identifier: MIT OR Apache-2.0

use super::Stage;
use super::timeline;
use crate::attempt::Attempt;
use crate::phases::Phases;
use crate::random::Numbers;
use crate::request::Request;
use crate::shares::Shares;
use crate::waits::Waits;

/// Check that the segments of any request are in order, leave no gap, and add up to its time.
#[test]
fn sum() {
    let mut numbers = Numbers::new();
    let mut known = 0;
    for _ in 0..100_000 {
        let mut request = numbers.request();
        request.waits.time_ns = Shares::of(&request);
        request.elapsed_ns = request.duration_ns;
        let Some(segments) = timeline(&request) else {
            continue;
        };
        known += 1;
        let mut at = 0;
        for segment in &segments {
            assert_eq!(segment.from, at, "{request:#?}");
            assert!(segment.to > at, "{request:#?}");
            at = segment.to;
        }
        assert_eq!(Some(at), request.duration_ns, "{request:#?}");
    }
    assert!(known > 10_000, "{known}");
}

/// Returns the stages of a request, and how long each lasted.
fn stages(request: &Request<'_>) -> Vec<(&'static str, u64)> {
    let segments = timeline(request).unwrap();
    let stages = segments.iter();
    stages
        .map(|segment| (segment.stage.name(), segment.length()))
        .collect()
}

/// Check a request that waited for everything, with an attempt that did not get to a connection.
#[test]
fn each() {
    let mut request = Request {
        duration_ns: Some(2_000),
        phases: Phases {
            downstream_request_first_byte_time: Some(100),
            downstream_request_last_byte_time: Some(110),
            downstream_response_first_byte_time: Some(2_000),
            downstream_response_last_byte_time: Some(2_100),
            ..Default::default()
        },
        waits: Waits {
            queue_ns: Some(4),
            limit_req_delay_ns: Some(50),
            auth_ns: Some(30),
            body_read_ns: Some(190),
            cache_lock_ns: Some(100),
            resolve_ns: Some(20),
            time_ns: Some(Shares::default()),
            ..Default::default()
        },
        upstreams: vec![
            Attempt {
                upstream_connect_time: Some(500),
                ..Default::default()
            },
            Attempt {
                upstream_connect_time: Some(1_500),
                upstream_request_first_byte_time: Some(1_510),
                upstream_request_last_byte_time: Some(1_520),
                upstream_response_first_byte_time: Some(1_900),
                upstream_response_last_byte_time: Some(1_990),
                ..Default::default()
            },
        ],
        ..Default::default()
    };
    let expected = [
        ("queue", 4),
        ("client_request", 6),
        ("limit_req_delay", 50),
        ("auth", 30),
        ("client_body", 110),
        ("nginx", 80),
        ("cache_lock", 100),
        ("resolve", 20),
        ("upstream_connect", 1_000),
        ("upstream_connect", 10),
        ("upstream_request", 10),
        ("upstream_wait", 380),
        ("upstream_response", 90),
        ("nginx", 10),
        ("client_response", 100),
    ];
    assert_eq!(stages(&request), expected);
    request.waits.time_ns = None;
    assert_eq!(timeline(&request), None);
}

/// Check a request whose client left while an upstream worked, and one whose upstream's name was not resolved.
#[test]
fn without_response() {
    let mut request = Request {
        elapsed_ns: Some(1_000),
        phases: Phases {
            downstream_request_first_byte_time: Some(0),
            downstream_request_last_byte_time: Some(10),
            ..Default::default()
        },
        upstreams: vec![Attempt {
            upstream_connect_time: Some(20),
            upstream_request_first_byte_time: Some(30),
            upstream_request_last_byte_time: Some(40),
            ..Default::default()
        }],
        ..Default::default()
    };
    let expected = [
        ("client_request", 10),
        ("nginx", 10),
        ("upstream_connect", 10),
        ("upstream_request", 10),
        ("upstream_wait", 960),
    ];
    assert_eq!(stages(&request), expected);
    request.upstreams.clear();
    request.waits.resolve_ns = Some(900);
    let expected = [("client_request", 10), ("nginx", 90), ("resolve", 900)];
    assert_eq!(stages(&request), expected);
    assert_eq!(Stage::ALL.len(), 15);
}
