// SPDX-License-Identifier: MIT OR Apache-2.0

use super::GroupKey;
use super::Settings;
use super::Statistics;
use crate::random::Numbers;
use crate::request::Request;
use crate::shares::Shares;
use crate::timeline::Stage;
use crate::values::End;
use crate::values::Failure;

/// Returns empty statistics by location.
fn empty() -> Statistics {
    Statistics::new(Settings {
        group: GroupKey::Location,
        slowest: 3,
    })
}

/// Returns requests of any kind.
fn requests() -> Vec<Request<'static>> {
    let mut numbers = Numbers::new();
    (0..1_000)
        .map(|n: u32| {
            let mut request = numbers.request();
            request.waits.time_ns = Shares::of(&request);
            request.elapsed_ns = request.duration_ns;
            request.time = Some(format!("2026-01-01T00:00:00.{n:09}Z"));
            request.status = Some([200, 404, 502][n as usize % 3]);
            request.place.location = Some(format!("/{}", n % 7).into());
            if n % 3 == 2 {
                request.ending.end = Some(End::UpstreamFailed);
            }
            if let Some(attempt) = request.upstreams.first_mut() {
                attempt.addr = Some("10.0.0.1:80".into());
                attempt.failure = n.is_multiple_of(2).then_some(Failure::Timeout);
            }
            request
        })
        .collect()
}

/// Check that every request is in one group, and that the stages add up to the durations.
#[test]
fn sums() {
    let mut statistics = empty();
    let requests = requests();
    requests
        .iter()
        .for_each(|request| statistics.request(request));
    let of_groups: u64 = statistics
        .groups
        .named()
        .map(|(_, group)| group.requests)
        .sum();
    assert_eq!((of_groups, statistics.all.requests), (1_000, 1_000));
    let known = requests
        .iter()
        .filter(|request| request.waits.time_ns.is_some());
    let durations: u128 = known
        .filter_map(|request| request.duration_ns)
        .map(u128::from)
        .sum();
    let stages: u128 = statistics.stages.iter().map(super::Times::sum_ns).sum();
    assert_eq!(stages, durations);
    assert_eq!(statistics.all.shares.iter().sum::<u128>(), durations);
    assert_eq!(statistics.statuses[&404], 333);
    assert_eq!(statistics.all.failed, 333);
    let incidents = statistics.incidents.kinds();
    assert_eq!(
        incidents
            .iter()
            .map(|(_, incident)| incident.count)
            .sum::<u64>(),
        333
    );
    let slowest: Vec<_> = statistics
        .slowest
        .requests()
        .map(|request| request.elapsed_ns)
        .collect();
    let mut all: Vec<_> = requests.iter().map(|request| request.elapsed_ns).collect();
    all.sort_unstable();
    all.reverse();
    assert_eq!(slowest, all[..3]);
    let (first, last) = statistics.window.unwrap();
    assert!(first.ends_with("000000000Z") && last.ends_with("000000999Z"));
}

/// Check that statistics of two halves, merged, are those of the whole.
#[test]
fn merged() {
    let (mut whole, mut halves) = (empty(), [empty(), empty()]);
    for (n, request) in requests().iter().enumerate() {
        whole.request(request);
        halves[n % 2].request(request);
    }
    let [mut merged, other] = halves;
    merged.merge(&other);
    assert_eq!(merged.all.requests, whole.all.requests);
    assert_eq!(
        merged.all.elapsed.quantile(0.9),
        whole.all.elapsed.quantile(0.9)
    );
    assert_eq!(merged.all.shares, whole.all.shares);
    assert_eq!(merged.statuses, whole.statuses);
    assert_eq!(merged.window, whole.window);
    let failed = |statistics: &Statistics| -> u64 {
        statistics
            .peers
            .named()
            .map(|(_, peer)| peer.failed())
            .sum()
    };
    assert!(failed(&whole) > 0);
    assert_eq!(failed(&merged), failed(&whole));
    for (n, _) in Stage::ALL.iter().enumerate() {
        assert_eq!(merged.stages[n].sum_ns(), whole.stages[n].sum_ns());
    }
}

/// Check that a tunnel is counted apart.
#[test]
fn tunnels() {
    let mut statistics = empty();
    let mut request = Request::default();
    request.ending.tunnel = true;
    request.ending.tunnel_ns = Some(5);
    statistics.request(&request);
    assert_eq!(
        (statistics.all.requests, statistics.tunnel_times.count()),
        (0, 1)
    );
    request.ending.tunnel_ns = None;
    statistics.request(&request);
    let times = statistics.tunnel_times.count();
    assert_eq!((statistics.tunnels, times), (2, 1));
}

/// Check that what is not known of a request is no number: it has no status, and is not among the slowest.
#[test]
fn not_known() {
    let mut statistics = empty();
    statistics.request(&Request::default());
    let all = &statistics.all;
    assert_eq!((all.requests, all.without_status), (1, 1));
    assert_eq!((all.statuses, all.elapsed.count()), ([0; 10], 0));
    assert_eq!(statistics.slowest.requests().count(), 0);
}
