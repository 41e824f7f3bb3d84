// SPDX-License-Identifier: MIT OR Apache-2.0
//! The tables of the views.

use std::collections::BTreeMap;

use ngx_bpf_record::Request;
use ngx_bpf_record::statistics::Group;
use ngx_bpf_record::statistics::Peer;
use ngx_bpf_record::statistics::Rows;

use super::rows::Row as Kept;
use super::rows::Worker;
use super::table::Cell;
use super::table::Column;
use super::table::Row;
use super::table::number;
use super::table::text;
use crate::units;

/// The columns of requests by a key. The name of the first is that of the key.
pub const GROUPS: [Column; 8] = [
    text("", 0),
    number("REQ/S", 8),
    number("P50", 8),
    number("P90", 7),
    number("P99", 7),
    number("MAX", 7),
    text("WHERE", 12),
    number("ERR%", 7),
];

/// The columns of upstreams.
pub const UPSTREAMS: [Column; 8] = [
    text("", 0),
    number("TRY/S", 8),
    number("KEPT", 7),
    number("CONNECT", 9),
    number("TTFB50", 8),
    number("TTFB99", 8),
    number("READ", 7),
    number("FAIL%", 7),
];

/// The columns of workers.
pub const WORKERS: [Column; 9] = [
    text("", 0),
    number("REQ/S", 8),
    number("P50", 7),
    number("P99", 7),
    text("WHERE", 12),
    number("READ99", 8),
    number("BLOCKED", 9),
    number("LONGEST", 9),
    number("WAITED", 8),
];

/// The columns of single requests.
pub const REQUESTS: [Column; 7] = [
    number("TOOK", 7),
    number("ST", 4),
    text("REQUEST", 0),
    text("UPSTREAM", 16),
    text("NOTE", 16),
    text("WHERE", 12),
    text("TIME", 14),
];

/// What is added to the id of a row that stands for all others, which no name has.
pub const OTHER: &str = "\0other";

/// Returns how often something happened in a second; absent where it did not happen.
fn rate(count: u64, seconds: f64) -> Cell {
    Cell::of(Some(count).filter(|count| *count > 0), |count| {
        units::rate(count, seconds)
    })
}

/// Returns a share in percent, without the sign; absent where nothing happened.
fn share(part: u64, whole: u64) -> Cell {
    if part == 0 || whole == 0 {
        return Cell::Absent;
    }
    let percent = units::percent(part.into(), whole.into());
    let digits = percent.trim_end_matches(" %").to_owned();
    Cell::Number(digits, part as f64 / whole as f64)
}

/// Returns for whom requests waited. Absent when that is not known of any.
fn bar(shares: [u128; 4]) -> Cell {
    if shares == [0; 4] {
        return Cell::Absent;
    }
    Cell::Bar(shares)
}

/// Returns the rows of a sum.
fn rows<T: Clone + Default>(
    sum: &Rows<Kept<T>>,
    cells: impl Fn(&str, &T) -> Vec<Cell>,
) -> Vec<Row> {
    let named = sum.named();
    let mut rows: Vec<_> = named
        .map(|(name, row)| Row::new(name.to_owned(), cells(name, &row.what)))
        .collect();
    rows.extend(sum.other().map(|row| Row {
        is_other: true,
        ..Row::new(OTHER.to_owned(), cells("other", &row.what))
    }));
    rows
}

/// Returns the rows of requests by a key.
pub fn groups(sum: &Rows<Kept<Group>>, seconds: f64) -> Vec<Row> {
    rows(sum, |name, group| {
        let time = |share| Cell::of(group.elapsed.quantile(share), units::short_time);
        vec![
            Cell::Text(name.to_owned()),
            rate(group.requests, seconds),
            time(0.5),
            time(0.9),
            time(0.99),
            Cell::of(group.elapsed.max_ns(), units::short_time),
            bar(group.shares),
            share(group.failed, group.requests),
        ]
    })
}

/// Returns the cells of an upstream.
fn upstream(name: &str, peer: &Peer, seconds: f64) -> Vec<Cell> {
    let time = |ns| Cell::of(ns, units::short_time);
    let kept = (peer.kept_known > 0).then(|| peer.kept as f64 / peer.kept_known as f64);
    let percent = units::percent(peer.kept.into(), peer.kept_known.into());
    vec![
        Cell::Text(name.to_owned()),
        rate(peer.tries, seconds),
        kept.map_or(Cell::Absent, |kept| Cell::Number(percent, kept)),
        time(peer.connect.quantile(0.5)),
        time(peer.header.quantile(0.5)),
        time(peer.header.quantile(0.99)),
        time(peer.read.quantile(0.5)),
        share(peer.failed(), peer.tries),
    ]
}

/// Returns the rows of upstreams: each group, with its servers below it. Servers of which the group is not known stand
/// alone.
pub fn upstreams(sum: &Rows<Kept<Peer>>, seconds: f64) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut groups: BTreeMap<&str, (Peer, Vec<Row>)> = BTreeMap::new();
    for (id, Kept { what: peer, .. }) in sum.named() {
        let name = if peer.addr.is_empty() {
            super::window::NONE
        } else {
            &peer.addr
        };
        let row = Row::new(id.to_owned(), upstream(name, peer, seconds));
        if peer.group.is_empty() {
            rows.push(row);
            continue;
        }
        let (whole, children) = groups.entry(&peer.group).or_default();
        whole.merge(peer);
        children.push(row);
    }
    for (name, (whole, children)) in groups {
        rows.push(Row {
            children,
            ..Row::new(name.to_owned(), upstream(name, &whole, seconds))
        });
    }
    rows.extend(sum.other().map(|row| Row {
        is_other: true,
        ..Row::new(OTHER.to_owned(), upstream("other", &row.what, seconds))
    }));
    rows
}

/// Returns the rows of workers.
pub fn workers(sum: &Rows<Kept<Worker>>, seconds: f64) -> Vec<Row> {
    rows(sum, |name, worker| {
        let time = |ns| Cell::of(ns, units::short_time);
        let some = |count: u64| Cell::of(Some(count).filter(|count| *count > 0), units::count);
        vec![
            Cell::Text(name.to_owned()),
            rate(worker.group.requests, seconds),
            time(worker.group.elapsed.quantile(0.5)),
            time(worker.group.elapsed.quantile(0.99)),
            bar(worker.group.shares),
            time(worker.read_wait.quantile(0.99)),
            some(worker.blocked.count()),
            time(worker.blocked.max_ns()),
            some(worker.waiting),
        ]
    })
}

/// Returns the rows of single requests, whose ids are their places.
pub fn requests<'r>(requests: impl Iterator<Item = &'r Request<'static>>) -> Vec<Row> {
    let numbered = requests.enumerate();
    numbered
        .map(|(n, request)| Row::new(format!("{n:06}"), cells(request)))
        .collect()
}

/// Returns the cells of a single request.
fn cells(request: &Request<'_>) -> Vec<Cell> {
    let known =
        |text: &Option<std::borrow::Cow<'_, str>>| text.as_deref().unwrap_or("-").to_owned();
    let (method, uri) = (known(&request.request_method), known(&request.request_uri));
    let status = |status: u64| format!("{status:03}");
    let upstream = request.upstream_addr.as_deref().unwrap_or_default();
    let time = request.time.as_deref().and_then(|time| time.get(11..23));
    let shares = request.waits.time_ns.as_ref();
    let shares = shares.map(|ns| [ns.client, ns.nginx, ns.upstream, ns.wait].map(u128::from));
    vec![
        Cell::of(request.elapsed_ns, units::short_time),
        Cell::of(request.status.map(u64::from), status),
        Cell::Text(format!("{method} {uri}")),
        Cell::Text(upstream.to_owned()),
        Cell::Text(note(request)),
        shares.map_or(Cell::Absent, bar),
        Cell::Text(time.unwrap_or_default().to_owned()),
    ]
}

/// Returns what is unusual about a request: why its last attempt failed, how many there were, or how it ended.
fn note(request: &Request<'_>) -> String {
    let attempts = request.upstreams.iter();
    let tries = attempts.filter(|attempt| !attempt.post_action).count();
    let failure = request.last_awaited().and_then(|last| last.failure);
    match (failure, request.ending.end) {
        (Some(failure), _) => failure.to_string(),
        _ if tries > 1 => format!("{tries} tries"),
        (None, Some(end)) if end != ngx_bpf_record::values::End::Ok => end.to_string(),
        _ => String::new(),
    }
}
