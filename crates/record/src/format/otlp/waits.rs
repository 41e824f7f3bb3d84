// SPDX-License-Identifier: MIT OR Apache-2.0
//! The spans of what a request waited for: those waits whose place in its time is known.

use super::tree::Interval;
use super::tree::Tree;
use crate::request::Request;

/// Appends the waits of a request to its spans. The others (`wait_ns`, stalls) are sums, and those before the first
/// byte of the request are not in its time: they are attributes.
pub(super) fn add(tree: &mut Tree<'_>, request: &Request<'_>, parent: u64, life: Interval) {
    let waits = &request.waits;
    let phases = &request.phases;
    let clock = tree.clock;
    let add = |tree: &mut Tree<'_>, name, from: u64, ns: Option<u64>| {
        let to = from.saturating_add(ns.unwrap_or_default());
        tree.add_part(parent, name, Interval { from, to }, life);
        to
    };
    add(tree, "queue", life.from, waits.queue_ns);
    let Some(header) = phases.downstream_request_last_byte_time else {
        return;
    };
    let header = clock.at(header);
    let body = add(tree, "body_read", header, waits.body_read_ns);
    let delayed = add(tree, "limit_req_delay", header, waits.limit_req_delay_ns);
    let allowed = add(tree, "auth", delayed, waits.auth_ns);
    /* It begins at the end of the body, or of the wait before it. */
    add(tree, "cache_lock", allowed.max(body), waits.cache_lock_ns);
    /* Without a connect that followed it, it is not known where it ended. */
    let first = request.upstreams.first();
    let resolved = first.and_then(|first| first.resolve_ns.zip(first.upstream_connect_time));
    if let Some((ns, connect)) = resolved {
        let from = clock.at(connect).saturating_sub(ns);
        add(tree, "resolve", from, Some(ns));
    }
}
