// SPDX-License-Identifier: MIT OR Apache-2.0
//! What holds for every record, whatever its request went through: waits lie within the times that they
//! are parts of, and the keys that say how it ended agree with each other and with its phases.

use ngx_bpf_record::Ending;
use ngx_bpf_record::Waits;
use ngx_bpf_record::limits::REDIRECTS_MAX;
use ngx_bpf_record::values::End;
use ngx_bpf_record::values::Part;
use ngx_bpf_record::values::Side;
use ngx_bpf_record::values::Timeout;

use super::record::Record;

/// The most by which a wait is too long that is measured in ticks of the kernel's timer.
const TICK_NS: u64 = 10_000_000;

/// Asserts all of it.
pub fn assert_invariants(record: &Record) {
    assert_waits(record);
    assert_client_waits(record);
    for attempt in &record.upstreams {
        let is_kept = attempt.reused == Some(true);
        let requests = attempt.connection_requests;
        assert!(is_kept || attempt.reused_idle_ns.is_none(), "{record:#?}");
        assert!(
            requests.is_none_or(|requests| (requests > 1) == is_kept),
            "{record:#?}"
        );
        let last = attempt.upstream_response_last_byte_time;
        let whole = last.zip(attempt.upstream_connect_time);
        let header = attempt.response_header_ns.zip(whole);
        assert!(
            header.is_none_or(|(header, (last, connect))| header <= last - connect),
            "{record:#?}"
        );
    }
    let is_refused = record.place.redirects == Some(REDIRECTS_MAX);
    assert!(!is_refused || record.status == Some(500), "{record:#?}");
    assert_ending(&record.ending, record);
    if let Some(part) = record.ending.last_phase {
        assert_part(part, record);
    }
}

/// Returns whether a record is one of HTTP/3, whose response goes on when nginx has ended the request.
fn is_quic(record: &Record) -> bool {
    record.server_protocol.as_deref() == Some("HTTP/3.0")
}

/// What nginx itself makes a request wait for. None of these waits is at the time of another one.
const OF_NGINX: [fn(&Waits) -> Option<u64>; 4] = [
    |waits| waits.limit_req_delay_ns,
    |waits| waits.resolve_ns,
    |waits| waits.cache_lock_ns,
    |waits| waits.wait_ns,
];

/// Asserts that no wait is longer than the life of the request, or than the part of it that it lies in.
fn assert_waits(record: &Record) {
    let (waits, p) = (&record.waits, &record.phases);
    let elapsed = record.elapsed_ns.unwrap_or(u64::MAX);
    let within = |wait: Option<u64>, whole: u64| {
        assert!(wait.is_none_or(|wait| wait <= whole), "{record:#?}");
    };
    if !is_quic(record) {
        within(record.duration_ns, elapsed);
    }
    for wait in [
        waits.queue_ns,
        waits.body_read_ns,
        waits.client_stall_ns,
        waits.upstream_stall_ns,
        waits.auth_ns,
        record.ending.tunnel_ns,
    ]
    .into_iter()
    .chain(OF_NGINX.map(|wait| wait(waits)))
    {
        within(wait, elapsed);
    }
    if let Some(shares) = &waits.time_ns {
        let sum = shares.client + shares.upstream + shares.nginx + shares.wait;
        assert_eq!(Some(sum), record.duration_ns, "{record:#?}");
        let queue = waits.queue_ns.unwrap_or(0);
        let made_to_wait = OF_NGINX.map(|wait| wait(waits).unwrap_or(0));
        let most = queue + made_to_wait.iter().sum::<u64>();
        assert!((queue..=most).contains(&shares.wait), "{record:#?}");
    }
    let first = p.upstream_response_first_byte_time;
    if let Some((connect, first)) = p.upstream_connect_time.zip(first) {
        within(waits.upstream_read_wait_ns, first - connect + TICK_NS);
    }
}

/// Asserts that the waits for nginx before it had the header fit the begin of the connection and the number of
/// the request.
fn assert_client_waits(record: &Record) {
    let waits = &record.waits;
    let Some(accept_queue) = waits.accept_queue_ns else {
        return;
    };
    assert!(record.downstream_accept_time.is_some(), "{record:#?}");
    assert_eq!(record.connection_requests, Some(1), "{record:#?}");
    /* A part of the header that came later may have waited as well. */
    if let Some(last) = record.phases.downstream_request_last_byte_time {
        let most = accept_queue + last + TICK_NS;
        assert!(
            waits.read_wait_ns.is_none_or(|wait| wait <= most),
            "{record:#?}"
        );
    }
}

/// Asserts that the keys of the end agree with each other.
fn assert_ending(ending: &Ending, record: &Record) {
    let Ending {
        end,
        timeout,
        closed_by,
        last_phase,
        ..
    } = ending;
    let sides: &[Option<Side>] = match end {
        Some(End::Ok) if ending.tunnel => &[None, Some(Side::Client), Some(Side::Upstream)],
        None | Some(End::Ok) => &[None],
        Some(End::ClientClosed | End::ClientReset) => &[Some(Side::Client)],
        Some(End::Timeout | End::WorkerExit) => &[Some(Side::Nginx)],
        Some(End::UpstreamFailed) => &[None, Some(Side::Nginx), Some(Side::Upstream)],
        Some(End::Limited | End::Rejected | End::Error) => &[None, Some(Side::Nginx)],
    };
    assert!(sides.contains(closed_by), "{record:#?}");
    assert!(
        timeout.is_none() || *end == Some(End::Timeout),
        "{record:#?}"
    );
    let has_no_part =
        ending.tunnel || matches!(end, None | Some(End::Ok | End::Limited | End::Rejected));
    assert!(last_phase.is_none() || !has_no_part, "{record:#?}");
    let parts: &[Part] = match timeout {
        None => return,
        Some(Timeout::Header) => &[Part::ClientRequest],
        Some(Timeout::Body) => &[Part::ClientBody],
        Some(Timeout::Send) => &[Part::ClientResponse],
        Some(Timeout::Connect) => &[Part::UpstreamConnect],
        Some(Timeout::UpstreamSend) => &[Part::UpstreamRequest],
        Some(Timeout::Resolve) => &[Part::BeforeUpstream],
        Some(Timeout::UpstreamRead) => &[Part::UpstreamWait, Part::UpstreamResponse],
    };
    assert!(
        last_phase.is_none_or(|part| parts.contains(&part)),
        "{record:#?}"
    );
}

/// Asserts that a request has not come further than the part in which it was cut short.
fn assert_part(part: Part, record: &Record) {
    let p = &record.phases;
    let (missing, reached) = match part {
        Part::ClientRequest => (p.downstream_request_last_byte_time, true),
        Part::ClientBody => (p.downstream_request_body_last_byte_time, true),
        /* The last attempt may be that of another location, before a redirect. */
        Part::BeforeUpstream if record.place.redirects.is_some() => (None, true),
        Part::BeforeUpstream => (p.upstream_connect_time, true),
        Part::UpstreamConnect => (p.upstream_request_first_byte_time, true),
        Part::UpstreamRequest | Part::UpstreamWait => {
            let is_sent = p.upstream_request_first_byte_time.is_some();
            (p.upstream_response_first_byte_time, is_sent)
        }
        Part::UpstreamResponse => (None, p.upstream_response_first_byte_time.is_some()),
        Part::BeforeResponse => {
            let has_upstream = !record.upstreams.is_empty();
            (p.downstream_response_first_byte_time, !has_upstream)
        }
        Part::ClientResponse => {
            let is_begun = p.downstream_response_first_byte_time.is_some();
            (None, is_begun || is_quic(record))
        }
    };
    assert!(missing.is_none() && reached, "{part}: {record:#?}");
}
