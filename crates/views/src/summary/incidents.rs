// SPDX-License-Identifier: MIT OR Apache-2.0
//! Why requests failed, in sentences: at what age, at which stage, because of which server.

use std::collections::BTreeMap;

use ngx_bpf_record::statistics::Incident;
use ngx_bpf_record::statistics::IncidentKind;
use ngx_bpf_record::statistics::Statistics;
use ngx_bpf_record::values::End;
use ngx_bpf_record::values::Failure;

use super::room::Room;
use crate::cell;
use crate::look::Look;
use crate::units;
use crate::words;

/// How many times as many kinds there is room for where there is no other table.
const ALONE: usize = 3;

/// The share of the ages of 499 that a time limit of clients explains, and how near they are to each other.
const LIMIT_SHARE: u64 = 80;
const LIMIT_WIDTH: u64 = 10;
/// Shorter than this no server closes a connection because it is idle.
const IDLE_MIN_NS: u64 = 500_000_000;

/// The least number of them.
const LIMIT_COUNT: u64 = 5;

/// Returns the most frequent kinds, below their number. Empty when nothing failed, or there is no room.
pub fn few(statistics: &Statistics, most: usize, look: Look) -> String {
    if statistics.all.failed == 0 || most == 0 {
        return String::new();
    }
    let failed = units::count(statistics.all.failed);
    format!("\nfailed ({failed})\n") + &kinds(statistics, most, look)
}

/// Returns the kinds, by status, and where they were.
pub fn all(statistics: &Statistics, room: Room, look: Look) -> String {
    let kinds = kinds(statistics, room.failed.saturating_mul(ALONE).max(1), look);
    kinds + &by_location(statistics, room.groups, look)
}

/// Returns the most frequent kinds, this number of them at most.
fn kinds(statistics: &Statistics, most: usize, look: Look) -> String {
    let kinds = statistics.incidents.kinds();
    let mut text = String::new();
    let mut by_status: BTreeMap<Option<u32>, Vec<_>> = BTreeMap::new();
    for (kind, incident) in kinds.iter().take(most) {
        by_status
            .entry(kind.status)
            .or_default()
            .push((kind, incident));
    }
    for (status, kinds) in by_status {
        for (kind, incident) in kinds {
            let status = status.map_or("-".to_owned(), |status| status.to_string());
            let head = format!("{status:>4}{:>8}  ", units::count(incident.count));
            text += &cell::paragraph(&head, &sentence(kind, incident), look);
            if let Some(limit) = client_limit(kind, incident) {
                text += &cell::paragraph(&" ".repeat(head.len()), &limit, look);
            }
        }
    }
    let shown: u64 = kinds
        .iter()
        .take(most)
        .map(|(_, incident)| incident.count)
        .sum();
    let rest = statistics.all.failed.saturating_sub(shown);
    if rest > 0 {
        let rest = units::count(rest);
        text += &cell::at_most(&format!("    {rest:>8}  of other kinds"), look.width, look);
        text += "\n";
    }
    text
}

/// Returns how requests of one kind ended.
fn sentence(kind: &IncidentKind, incident: &Incident) -> String {
    let at = |share| incident.age.quantile(share).map(units::time);
    let age = at(0.5).zip(at(1.0)).map(|(half, most)| {
        if incident.count == 1 {
            format!(", after {most}")
        } else {
            format!(", after {half} (median), {most} at most")
        }
    });
    let tries = match incident.tries_max {
        0 | 1 => String::new(),
        tries => format!(", {tries} tries"),
    };
    let idle = idle(kind, incident).unwrap_or_default();
    format!("{}{tries}{}{idle}", what(kind), age.unwrap_or_default())
}

/// Returns what happened.
fn what(kind: &IncidentKind) -> String {
    let upstream = kind.upstream_addr.as_deref().unwrap_or("the upstream");
    let phase = kind.last_phase.map(|part| words::doing(part, upstream));
    match (kind.end, kind.failure, kind.timeout) {
        (Some(End::ClientClosed | End::ClientReset), _, _) => match phase {
            Some(phase) => format!("the client left; {phase}"),
            None => "the client left".to_owned(),
        },
        (_, Some(failure), _) => {
            let what = words::failed(failure, kind.reused, kind.has_header);
            format!("{upstream} {what}")
        }
        (_, None, Some(timeout)) => words::expired(timeout).to_owned(),
        (Some(End::UpstreamFailed), None, None) => {
            "the name of the upstream was not resolved, or the upstream gave no response".to_owned()
        }
        (Some(End::WorkerExit), None, None) => "the worker ended".to_owned(),
        (Some(End::Error), None, None) => "nginx itself failed".to_owned(),
        _ if kind.upstream_addr.is_some() => format!("{upstream} answered with this status"),
        _ => "nginx answered with this status".to_owned(),
    }
}

/// Returns how long kept connections had been idle on which nothing came.
fn idle(kind: &IncidentKind, incident: &Incident) -> Option<String> {
    if !kind.reused || !matches!(kind.failure, Some(Failure::Closed | Failure::Reset)) {
        return None;
    }
    let (least, most) = (incident.idle.quantile(0.0)?, incident.idle.max_ns()?);
    if least < IDLE_MIN_NS {
        return None;
    }
    let (least, most) = (units::time(least), units::time(most));
    let idle = if least == most {
        most
    } else {
        format!("{least} to {most}")
    };
    Some(format!(
        "; it had been idle for {idle}: its keep-alive time limit may be shorter than nginx's"
    ))
}

/// Returns that clients have a time limit, if most of them left at the same age.
fn client_limit(kind: &IncidentKind, incident: &Incident) -> Option<String> {
    let is_client = matches!(kind.end, Some(End::ClientClosed | End::ClientReset));
    let (age, half) = (&incident.age, incident.age.quantile(0.5)?);
    if !is_client || age.count() < LIMIT_COUNT {
        return None;
    }
    let width = half / LIMIT_WIDTH;
    let near = age.count_between(half.saturating_sub(width), half + width);
    let is_most = near * 100 >= age.count() * LIMIT_SHARE;
    is_most.then(|| {
        let (near, count) = (units::count(near), units::count(age.count()));
        let half = units::time(half);
        format!("{near} of {count} left at about {half}: a time limit of the client")
    })
}

/// Returns the statuses by location, this number of them at most, those with the most first.
fn by_location(statistics: &Statistics, most: usize, look: Look) -> String {
    let mut statuses: Vec<u32> = Vec::new();
    let mut rows: BTreeMap<&str, BTreeMap<u32, u64>> = BTreeMap::new();
    for (kind, incident) in statistics.incidents.kinds() {
        let Some(status) = kind.status else {
            continue;
        };
        if !statuses.contains(&status) {
            statuses.push(status);
        }
        for (location, count) in incident.locations.named() {
            *rows.entry(location).or_default().entry(status).or_default() += count;
        }
    }
    statuses.sort_unstable();
    let numbers: String = statuses
        .iter()
        .map(|status| format!("{status:>8}"))
        .collect();
    let columns = look.width.saturating_sub(numbers.len()).clamp(10, 30);
    let head = cell::left("by location", columns, look) + &numbers;
    let mut text = format!("\n{}\n", cell::at_most(&head, look.width, look));
    let mut rows: Vec<_> = rows.into_iter().collect();
    rows.sort_by_key(|(_, counts)| std::cmp::Reverse(counts.values().sum::<u64>()));
    for (location, counts) in rows.into_iter().take(most) {
        let mut line = cell::left(&format!("  {location}"), columns, look);
        for status in &statuses {
            let count = counts.get(status).map(|count| units::count(*count));
            line += &format!("{:>8}", count.as_deref().unwrap_or("-"));
        }
        text += &format!("{}\n", cell::at_most(&line, look.width, look));
    }
    text
}
