// SPDX-License-Identifier: MIT OR Apache-2.0
//! Requests in the trace event format of Chrome, for ui.perfetto.dev.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use ngx_bpf_record::Request;
use serde_json::Value;
use serde_json::json;

use crate::waterfall::clock;
use crate::waterfall::facts;
use crate::waterfall::id;
use crate::waterfall::rows::Row;
use crate::waterfall::rows::Span;
use crate::waterfall::rows::rows;
use crate::waterfall::section::safe;
use crate::waterfall::total;

/// A request on the clock of all of them.
struct Placed<'a> {
    request: &'a Request<'a>,
    from: u64,
    to: u64,
    /// Its connection's track.
    track: u64,
    /// The id among asynchronous events; `None` where it has the track for itself.
    id: Option<String>,
}

/// Returns requests in the trace event format: the worker as the process, a track for each connection, events for each
/// request and its parts, and a counter of the requests in flight in each worker. Requests that overlap on a connection
/// (HTTP/2, HTTP/3, pipelined ones) have asynchronous events. Times are those since the begin of the first request; one
/// whose begin or end is not known is left out, and `without_time` counts them.
/// `ngx_bpf_record::format::json::write_line()` writes it so that a terminal obeys nothing in it.
pub fn trace(requests: &[Request<'_>]) -> Value {
    let placed = place(requests);
    let mut events = metadata(&placed);
    placed
        .iter()
        .for_each(|placed| add_request(&mut events, placed));
    add_counters(&mut events, &placed);
    let first = requests
        .iter()
        .filter_map(|request| request.time.as_deref());
    json!({
        "traceEvents": events,
        "displayTimeUnit": "ms",
        "otherData": {
            "creator": concat!("ngx-bpf ", env!("CARGO_PKG_VERSION")),
            "begin": first.min(),
            "without_time": requests.len() - placed.len(),
        },
    })
}

/// Puts requests on one clock and on tracks.
fn place<'a>(requests: &'a [Request<'a>]) -> Vec<Placed<'a>> {
    let begins: Vec<_> = requests.iter().map(clock::begin).collect();
    let times = requests.iter().zip(clock::since_first(&begins));
    let known = times.filter_map(|(request, from)| {
        let from = from?;
        Some((request, from, from.saturating_add(total(request)?)))
    });
    let mut known: Vec<_> = known.collect();
    known.sort_by_key(|(_, from, to)| (*from, std::cmp::Reverse(*to)));
    /* Numbers of tracks differ from all pids, which Perfetto takes for main threads. */
    let pids = requests.iter().map(|request| u64::from(request.pid));
    let least = pids.max().unwrap_or_default() + 1;
    let mut tracks: BTreeMap<(u32, Option<u64>), (u64, u64)> = BTreeMap::new();
    let mut placed: Vec<Placed<'a>> = Vec::new();
    for (request, from, to) in known {
        let number = least + tracks.len() as u64;
        let of_connection = (request.pid, request.connection);
        let (track, end) = tracks.entry(of_connection).or_insert((number, 0));
        let overlaps = from < *end;
        if !overlaps {
            *end = to;
        }
        placed.push(Placed {
            request,
            from,
            to,
            track: *track,
            id: overlaps.then(|| format!("{}#{}", id(request), placed.len())),
        });
    }
    placed
}

/// Returns the names of processes and tracks.
fn metadata(placed: &[Placed<'_>]) -> Vec<Value> {
    let mut events = Vec::new();
    let pids: BTreeSet<u32> = placed.iter().map(|placed| placed.request.pid).collect();
    events.extend(pids.into_iter().map(|pid| {
        let name = format!("nginx worker {pid}");
        json!({ "ph": "M", "name": "process_name", "pid": pid, "args": { "name": name } })
    }));
    let tracks = placed.iter().map(|placed| {
        let (pid, connection) = (placed.request.pid, placed.request.connection);
        (placed.track, (pid, connection))
    });
    let tracks: BTreeMap<u64, (u32, Option<u64>)> = tracks.collect();
    events.extend(tracks.into_iter().map(|(track, (pid, connection))| {
        let name = match connection {
            Some(connection) => format!("connection {connection}"),
            None => "connection not known".to_owned(),
        };
        json!({
            "ph": "M", "name": "thread_name", "pid": pid, "tid": track, "args": { "name": name },
        })
    }));
    events
}

/// Adds the events of a request and of its parts.
fn add_request(events: &mut Vec<Value>, placed: &Placed<'_>) {
    let request = placed.request;
    let uri = request
        .request_uri
        .as_deref()
        .unwrap_or("(no request line)");
    let method = request.request_method.as_deref().unwrap_or("-");
    let name = safe(&format!("{method} {uri}"));
    let mut add = |name: &str, from: u64, to: u64, category: &str, args: Value| {
        add_event(events, placed, (name, category), (from, to), args);
    };
    add(&name, placed.from, placed.to, "request", facts_of(request));
    let rows = rows(request);
    if rows.end.is_none() {
        return;
    }
    let mut attempt = Value::Null;
    for row in rows.rows {
        match row {
            /* Subrequests run at the same time as the parts before them. */
            Row::Heading(heading) if heading.title == "subrequest" => break,
            Row::Heading(heading) => {
                let text = safe(&[vec![heading.title], heading.about].concat().join(" "));
                attempt = json!({ "attempt": text });
                if let Some(outcome) = heading.outcome {
                    attempt["outcome"] = Value::from(outcome);
                }
            }
            Row::Span(Span { to: None, .. }) => {}
            Row::Span(Span {
                depth,
                name,
                from,
                to: Some(to),
                class,
            }) => {
                let args = if depth > 0 {
                    attempt.clone()
                } else {
                    json!({})
                };
                let from = placed.from.saturating_add(from).min(placed.to);
                let to = placed.from.saturating_add(to).min(placed.to);
                let category = class.map_or("tunnel", crate::look::name);
                add(name, from, to, category, args);
            }
        }
    }
}

/// Returns what a viewer shows of a request that is chosen.
fn facts_of(request: &Request<'_>) -> Value {
    let mut args = json!({ "id": id(request), "url": safe(&facts::asked(request)) });
    if let Some(status) = request.status {
        args["status"] = Value::from(status);
    }
    if let Some(upstream) = request.upstream_addr.as_deref() {
        args["upstream"] = Value::from(safe(upstream));
    }
    if let Some(end) = request.ending.end {
        args["end"] = Value::from(end.name());
    }
    args
}

/// Adds a part of the time: one complete event, or two asynchronous ones.
fn add_event(
    events: &mut Vec<Value>,
    placed: &Placed<'_>,
    (name, category): (&str, &str),
    (from, to): (u64, u64),
    args: Value,
) {
    let (pid, tid) = (placed.request.pid, placed.track);
    let Some(id) = &placed.id else {
        events.push(json!({
            "ph": "X", "name": name, "cat": category, "pid": pid, "tid": tid,
            "ts": microseconds(from), "dur": microseconds(to - from), "args": args,
        }));
        return;
    };
    /* What belongs together has one category and one id. */
    events.push(json!({
        "ph": "b", "name": name, "cat": "request", "id": id, "pid": pid, "tid": tid,
        "ts": microseconds(from), "args": args,
    }));
    events.push(json!({
        "ph": "e", "name": name, "cat": "request", "id": id, "pid": pid, "tid": tid,
        "ts": microseconds(to),
    }));
}

/// Adds how many requests were in flight in each worker, whenever that changes.
fn add_counters(events: &mut Vec<Value>, placed: &[Placed<'_>]) {
    let mut changes: BTreeMap<(u32, u64), i64> = BTreeMap::new();
    for placed in placed {
        *changes
            .entry((placed.request.pid, placed.from))
            .or_default() += 1;
        *changes.entry((placed.request.pid, placed.to)).or_default() -= 1;
    }
    let (mut of, mut requests) = (None, 0);
    for ((pid, at), change) in changes {
        if of != Some(pid) {
            (of, requests) = (Some(pid), 0);
        }
        requests += change;
        events.push(json!({
            "ph": "C", "name": "in flight", "pid": pid, "ts": microseconds(at),
            "args": { "requests": requests },
        }));
    }
}

/// Returns microseconds with decimals. A viewer that multiplies them by 1,000 and cuts the rest has the nanoseconds.
fn microseconds(ns: u64) -> Value {
    let exact = ns as f64 / 1e3;
    let is_less = ((exact * 1e3) as u64) < ns;
    Value::from(if is_less { exact.next_up() } else { exact })
}
