// SPDX-License-Identifier: MIT OR Apache-2.0
//! What stands below the rows, if there is room: the slowest requests, or more about the selected row.

use ngx_bpf_record::statistics::GroupKey;

use super::Top;
use super::head::most;
use super::table::Row;
use super::table::Table;
use super::tables;
use super::views::View;
use super::window::NONE;
use super::window::Totals;
use crate::units;

/// The most requests.
const SLOWEST: usize = 8;

/// What stands below the rows.
pub enum Notes {
    /// The slowest requests.
    Slowest(Table),
    /// The services of a pod, below a heading.
    Services(Table),
    /// Sentences.
    Lines(Vec<String>),
}

/// Returns what stands below the rows of the view.
pub fn notes(top: &Top, totals: &Totals, selected: Option<&Row>) -> Notes {
    let id = selected.map_or("", |row| row.id.as_str());
    match top.view {
        View::Group(key) if top.shown().keys().get(key) == Some(&GroupKey::Pod) && id != NONE => {
            Notes::Services(Table {
                columns: &tables::GROUPS,
                rows: tables::groups(&top.shown().services(id), top.shown().seconds()),
                order: super::table::Order {
                    column: 1,
                    is_descending: true,
                },
            })
        }
        View::Group(_) => Notes::Slowest(Table {
            columns: &tables::REQUESTS,
            rows: tables::requests(totals.slowest.requests().take(SLOWEST)),
            order: super::table::Order {
                column: 0,
                is_descending: true,
            },
        }),
        View::Upstreams => Notes::Lines(failures(top, id)),
        View::Workers => Notes::Lines(blocked(top, id)),
    }
}

/// Returns why attempts at an upstream, or at the servers of a group, failed.
fn failures(top: &Top, id: &str) -> Vec<String> {
    let rows = top.shown().peers();
    let peers = rows
        .named()
        .filter(|(name, row)| *name == id || row.what.group == id);
    let failed = peers.filter(|(_, row)| row.what.failed() > 0 && !id.is_empty());
    let mut lines: Vec<String> = failed
        .map(|(_, row)| {
            let peer = &row.what;
            let (failed, tries) = (units::count(peer.failed()), units::count(peer.tries));
            let success = peer
                .last_success
                .as_deref()
                .and_then(|time| time.get(11..19));
            let success = match success {
                Some(time) => format!("the last success began at {time}Z"),
                None => "no success".to_owned(),
            };
            let failures = most(&peer.failures);
            format!(
                "{}: {failed} of {tries} attempts failed: {failures}; {success}",
                peer.addr
            )
        })
        .collect();
    lines.sort();
    lines
}

/// Returns the longest time that a worker was blocked.
fn blocked(top: &Top, id: &str) -> Vec<String> {
    let rows = top.shown().workers();
    let longest = rows.get(id).and_then(|row| row.what.longest.as_ref());
    let Some(longest) = longest else {
        return Vec::new();
    };
    let time = longest.time.as_deref().and_then(|time| time.get(11..23));
    let at = time.map(|time| format!(" at {time}Z")).unwrap_or_default();
    let part = longest.part.map(|part| format!(", mostly {part}"));
    let mut lines = vec![format!(
        "{id} was blocked for {}{at}{}",
        units::time(longest.ns),
        part.unwrap_or_default()
    )];
    if let (waiting @ 1.., Some(ns)) = longest.waiting {
        let waiting = units::count(waiting);
        lines.push(format!(
            "requests that waited for it: {waiting}, together {}",
            units::time(ns)
        ));
    }
    lines
}
