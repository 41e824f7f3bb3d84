// SPDX-License-Identifier: MIT OR Apache-2.0
//! The numbers of a summary under stable names: `ngx-bpf summary --json`.

use std::collections::BTreeMap;

use ngx_bpf_record::Request;
use ngx_bpf_record::statistics::Group;
use ngx_bpf_record::statistics::Incident;
use ngx_bpf_record::statistics::IncidentKind;
use ngx_bpf_record::statistics::Statistics;
use ngx_bpf_record::statistics::Times;
use ngx_bpf_record::timeline::Stage;
use ngx_bpf_record::values::Cause;
use ngx_bpf_record::values::End;
use ngx_bpf_record::values::Failure;
use ngx_bpf_record::values::Part;
use ngx_bpf_record::values::Timeout;
use schemars::JsonSchema;
use serde::Serialize;

use super::About;
use ngx_bpf_record::clock::since_epoch;

/// The numbers of a summary. A key whose value does not exist is not there.
#[derive(Debug, JsonSchema, Serialize)]
pub struct Numbers<'s> {
    /// Where the records come from.
    pub source: &'s str,
    /// The number of requests, without tunnels.
    pub requests: u64,
    /// How long they were taken; of files, the time from the first request to the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// Requests that were lost, by cause.
    pub lost: BTreeMap<Cause, u64>,
    /// Requests that were lost for a cause that this version does not know.
    pub lost_otherwise: u64,
    /// Requests that a filter left out.
    pub filtered: u64,
    /// Lines that are no records.
    pub unread_lines: u64,
    /// Records of which only a part could be read.
    pub partly_read: u64,
    /// Requests that failed: a status of 500 or above or none, or an `end` other than `ok`, `rejected` and `limited`.
    pub failed: u64,
    /// Requests by status.
    pub statuses: BTreeMap<String, u64>,
    /// `elapsed_ns`.
    pub elapsed_ns: TimeNumbers,
    /// The sums of `time_ns`.
    pub time_ns: ShareNumbers,
    /// The stages of requests, by name. Their sums add up to the time of all requests that have a timeline.
    pub stages: BTreeMap<&'static str, TimeNumbers>,
    /// The number of requests that have a timeline.
    pub requests_with_stages: u64,
    /// `accept_queue_ns`.
    pub accept_queue_ns: TimeNumbers,
    /// `tls_handshake_ns`.
    pub tls_handshake_ns: TimeNumbers,
    /// `read_wait_ns`.
    pub read_wait_ns: TimeNumbers,
    /// What requests are grouped by.
    pub group: String,
    /// The groups, those with the most time first.
    pub groups: Vec<GroupNumbers>,
    /// The requests of all groups for which there was no room.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub other_groups: Option<GroupNumbers>,
    /// Requests that failed, by the reason, the most frequent first.
    pub incidents: Vec<IncidentNumbers<'s>>,
    /// The slowest requests: their records.
    #[schemars(with = "Vec<serde_json::Map<String, serde_json::Value>>")]
    pub slowest: Vec<&'s Request<'static>>,
    /// The number of tunnels that have ended.
    pub tunnels: u64,
    /// `tunnel_ns` of those of which it is known.
    pub tunnel_ns: TimeNumbers,
    /// Connections that ended without a request, with `--connections`.
    pub connections: u64,
    /// `duration_ns` of blocked workers, with `--blocked`.
    pub blocked_ns: TimeNumbers,
}

/// Times in nanoseconds. Percentiles are at most 1 % above the exact ones; the others are exact.
#[derive(Debug, Default, JsonSchema, Serialize)]
pub struct TimeNumbers {
    /// The number of times.
    pub count: u64,
    /// Their sum.
    pub sum: u64,
    /// The time that half of them did not exceed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p50: Option<u64>,
    /// The same of 90 %.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p90: Option<u64>,
    /// The same of 99 %.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p99: Option<u64>,
    /// The same of 99.9 %.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p99_9: Option<u64>,
    /// The longest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<u64>,
}

impl From<&Times> for TimeNumbers {
    fn from(times: &Times) -> Self {
        Self {
            count: times.count(),
            sum: u64::try_from(times.sum_ns()).unwrap_or(u64::MAX),
            p50: times.quantile(0.5),
            p90: times.quantile(0.9),
            p99: times.quantile(0.99),
            p99_9: times.quantile(0.999),
            max: times.max_ns(),
        }
    }
}

/// For whom requests waited, in nanoseconds.
#[derive(Debug, JsonSchema, Serialize)]
pub struct ShareNumbers {
    /// For clients.
    pub client: u64,
    /// For nginx itself.
    pub nginx: u64,
    /// For upstreams.
    pub upstream: u64,
    /// For what nginx made them wait for.
    pub wait: u64,
}

impl From<[u128; 4]> for ShareNumbers {
    fn from(shares: [u128; 4]) -> Self {
        let [client, nginx, upstream, wait] =
            shares.map(|share| u64::try_from(share).unwrap_or(u64::MAX));
        Self {
            client,
            nginx,
            upstream,
            wait,
        }
    }
}

/// Requests that have the value of a key in common.
#[derive(Debug, JsonSchema, Serialize)]
pub struct GroupNumbers {
    /// That value; `(none)` where requests have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The number of requests.
    pub requests: u64,
    /// The number of those that failed.
    pub failed: u64,
    /// `elapsed_ns`.
    pub elapsed_ns: TimeNumbers,
    /// The sums of `time_ns`.
    pub time_ns: ShareNumbers,
}

impl GroupNumbers {
    /// Returns the numbers of a group.
    fn of(name: Option<&str>, group: &Group) -> Self {
        Self {
            name: name.map(str::to_owned),
            requests: group.requests,
            failed: group.failed,
            elapsed_ns: (&group.elapsed).into(),
            time_ns: group.shares.into(),
        }
    }
}

/// Requests that failed for the same reason.
#[derive(Debug, JsonSchema, Serialize)]
pub struct IncidentNumbers<'s> {
    /// `status`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u32>,
    /// `end`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end: Option<End>,
    /// `timeout`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Timeout>,
    /// `last_phase`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_phase: Option<Part>,
    /// `failure` of the last attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// Whether that was on a kept connection.
    pub reused: bool,
    /// `upstream_addr`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream_addr: Option<&'s str>,
    /// The number of requests.
    pub requests: u64,
    /// Their `elapsed_ns`.
    pub elapsed_ns: TimeNumbers,
    /// `reused_idle_ns` of the last attempt.
    pub reused_idle_ns: TimeNumbers,
}

impl<'s> IncidentNumbers<'s> {
    /// Returns the numbers of incidents.
    fn of(kind: &'s IncidentKind, incident: &Incident) -> Self {
        Self {
            status: kind.status,
            end: kind.end,
            timeout: kind.timeout,
            last_phase: kind.last_phase,
            failure: kind.failure,
            reused: kind.reused,
            upstream_addr: kind.upstream_addr.as_deref(),
            requests: incident.count,
            elapsed_ns: (&incident.age).into(),
            reused_idle_ns: (&incident.idle).into(),
        }
    }
}

impl<'s> Numbers<'s> {
    /// Returns all numbers.
    pub fn of(statistics: &'s Statistics, about: &'s About) -> Self {
        let groups = statistics.groups_by_time().into_iter();
        let incidents = statistics.incidents.kinds().into_iter();
        let statuses = statistics.statuses.iter();
        let stages = Stage::ALL.into_iter().zip(&statistics.stages);
        Self {
            source: &about.source,
            requests: statistics.all.requests,
            seconds: seconds(statistics, about),
            lost: statistics.lost.clone(),
            lost_otherwise: about.unread.lost,
            filtered: about.filtered,
            unread_lines: about.unread.lines,
            partly_read: about.unread.partly,
            failed: statistics.all.failed,
            statuses: statuses
                .map(|(status, n)| (status.to_string(), *n))
                .collect(),
            elapsed_ns: (&statistics.all.elapsed).into(),
            time_ns: statistics.all.shares.into(),
            stages: stages
                .filter(|(_, times)| times.count() > 0)
                .map(|(stage, times)| (stage.name(), times.into()))
                .collect(),
            requests_with_stages: statistics.with_stages,
            accept_queue_ns: (&statistics.accept_queue).into(),
            tls_handshake_ns: (&statistics.handshake).into(),
            read_wait_ns: (&statistics.read_wait).into(),
            group: statistics.settings().group.to_string(),
            groups: groups
                .map(|(name, group)| GroupNumbers::of(Some(name), group))
                .collect(),
            other_groups: statistics
                .groups
                .other()
                .map(|group| GroupNumbers::of(None, group)),
            incidents: incidents
                .map(|(kind, incident)| IncidentNumbers::of(kind, incident))
                .collect(),
            slowest: statistics.slowest.requests().collect(),
            tunnels: statistics.tunnels,
            tunnel_ns: (&statistics.tunnel_times).into(),
            connections: statistics.connections,
            blocked_ns: (&statistics.blocked).into(),
        }
    }
}

/// Returns how long the records were taken. `None` when that is not known, or no time at all.
pub fn seconds(statistics: &Statistics, about: &About) -> Option<f64> {
    let known = about.seconds.filter(|seconds| *seconds > 0.0);
    known.or_else(|| window(statistics))
}

/// Returns the seconds from the first request to the last. `None` when a time can't be read, and of one request.
pub fn window(statistics: &Statistics) -> Option<f64> {
    let (first, last) = statistics.window.as_ref()?;
    let seconds = since_epoch(last)?.checked_sub(since_epoch(first)?)?;
    let seconds = seconds.as_secs_f64();
    (seconds > 0.0).then_some(seconds)
}
