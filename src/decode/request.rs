// SPDX-License-Identifier: MIT OR Apache-2.0
//! Converts an event to the public record, with one line for each key.

use ngx_bpf_record::Phases;
use ngx_bpf_record::Place;
use ngx_bpf_record::Request;
use ngx_bpf_record::Shares;
use ngx_bpf_record::Subrequest;
use ngx_bpf_record::Tls;
use ngx_bpf_record::Trace;
use ngx_bpf_record::values::LayoutSource;
use ngx_bpf_record::values::Origin;

use crate::bpf::types::request_flag;
use crate::decode::attempt::Around;
use crate::decode::attempt::attempts;
use crate::decode::clock::Clock;
use crate::decode::ending::ending;
use crate::decode::facts::Facts;
use crate::decode::failure::Next;
use crate::decode::failure::is_cut;
use crate::decode::nonzero;
use crate::decode::since;
use crate::decode::texts::lossy;
use crate::decode::wire::RequestEvent;
use crate::decode::wire::SubrequestEvent;

/// Returns the request that an event reports; `clock` gives its wall time.
pub fn request<'a>(event: &RequestEvent<'a>, clock: Clock) -> Request<'a> {
    let (record, texts) = (&event.record, &event.texts);
    let facts = Facts(event);
    let first_byte = facts.first_byte_ns();
    let accepted = nonzero(record.accepted_ns).filter(|_| !facts.is_partial());
    let origin = accepted.or(first_byte);
    let (server_addr, server_port) = facts.server();
    let (remote_addr, remote_port) = facts.remote();
    let (peer_addr, peer_port) = facts.peer().unzip();
    let is_inferred = facts.has(request_flag::REQUEST_INFERRED);
    let mut request = Request {
        time: first_byte.and_then(|ns| clock.wall(ns).ok()),
        pid: record.pid,
        connection: nonzero(record.connection),
        connection_requests: nonzero(record.connection_requests),
        remote_addr,
        remote_port,
        peer_addr: peer_addr.map(|addr| addr.to_string().into()),
        peer_port: peer_port.flatten(),
        server_addr,
        server_port,
        scheme: facts.scheme(),
        server_protocol: facts.server_protocol(),
        request_method: texts.method.lossy(),
        request_uri: texts.request_uri.lossy(),
        uri: texts.uri.lossy(),
        http_host: texts.host.lossy(),
        place: Place {
            redirects: facts.redirects(),
            upstream_name: texts.resolved.lossy(),
            is_upstream_of_variable: !texts.resolved.bytes.is_empty(),
            ..Default::default()
        },
        truncated: facts.truncated(),
        status: nonzero(record.status),
        request_size: facts.request_size(),
        response_size: Some(record.bytes_sent).filter(|sent| *sent >= 0),
        upstream_cache_status: facts.cache_status(),
        downstream_accept_time: accepted,
        phases: origin.map_or_else(Phases::default, |origin| facts.downstream(origin)),
        duration_ns: since(first_byte, facts.response_last_ns()),
        elapsed_ns: facts.elapsed_ns(),
        waits: facts.waits(),
        tcp: facts.tcp(),
        tls: tls(&facts),
        trace: trace(&facts),
        layout: is_inferred.then_some(LayoutSource::Inferred),
        partial: facts.is_partial(),
        is_body_unknown: facts.is_body_unknown(),
        ..Default::default()
    };
    add_attempts(&mut request, event, origin);
    let failure = request.last_awaited().and_then(|last| last.failure);
    request.ending = ending(&facts, failure);
    request.waits.time_ns = Shares::of(&request);
    request.phases_origin = origin
        .map(|_| accepted.map_or(Origin::RequestFirstByte, |_| Origin::Accept))
        .filter(|_| !request.phases.is_empty());
    request
}

/// Returns the encryption of the connection.
fn tls<'a>(facts: &Facts<'_, 'a>) -> Tls<'a> {
    Tls {
        tls_handshake_ns: facts.tls_handshake_ns(),
        ssl_server_name: facts.0.texts.server_name.lossy(),
        ssl_protocol: facts.ssl_protocol(),
        alpn: facts.alpn(),
    }
}

/// Returns the trace that the request belongs to.
fn trace<'a>(facts: &Facts<'_, 'a>) -> Trace<'a> {
    let context = facts.trace_context();
    context.map_or_else(Trace::default, |context| Trace {
        trace_id: Some(context.trace_id.into()),
        parent_span_id: Some(context.parent_span_id.into()),
        trace_flags: Some(context.flags.into()),
    })
}

/// Adds the attempts, and to the request the address and times of the last attempt that the client
/// waited for.
fn add_attempts<'a>(request: &mut Request<'a>, event: &RequestEvent<'a>, origin: Option<u64>) {
    /* When several responses were cut, one of them may have ended the request and the others with it. */
    let of_subrequests = event.subrequests.iter().flat_map(|sub| &sub.attempts);
    let all = event.attempts.iter().chain(of_subrequests);
    let cut = all.filter(|attempt| is_cut(attempt));
    let is_served = event.record.flags & request_flag::REQUEST_UNSERVED.0 == 0;
    let is_alone = is_served && cut.count() == 1;
    let around = Around {
        origin,
        next: match Facts(event).has(request_flag::REQUEST_ABANDONED) {
            true => Next::Exit,
            false => Next::Answer(event.record.status),
        },
        is_connect: Facts(event).is_connect(),
        is_alone,
        answered_ns: Facts(event).answered_ns(),
    };
    request.upstreams = attempts(&event.attempts, around);
    let subrequests = event.subrequests.iter();
    request.subrequests = subrequests.map(|sub| subrequest(sub, around)).collect();
    if let Some(first) = request.upstreams.first_mut() {
        first.resolve_ns = request.waits.resolve_ns;
    }
    let Some(last) = request.last_awaited() else {
        return;
    };
    let addr = last.addr.clone();
    request.phases = Phases {
        upstream_connect_time: last.upstream_connect_time,
        upstream_request_first_byte_time: last.upstream_request_first_byte_time,
        upstream_request_last_byte_time: last.upstream_request_last_byte_time,
        upstream_response_first_byte_time: last.upstream_response_first_byte_time,
        upstream_response_last_byte_time: last.upstream_response_last_byte_time,
        ..request.phases
    };
    request.upstream_addr = addr;
}

/// Returns the subrequest that an event reports, within its request.
fn subrequest<'a>(event: &SubrequestEvent<'a>, around: Around) -> Subrequest<'a> {
    let tried = &event.attempts;
    let first = tried.first().and_then(|a| nonzero(a.record.connect_ns));
    let last = tried.iter().map(|a| a.record.response_last_ns).max();
    let status = event.record.status;
    let around = Around {
        next: match around.next {
            Next::Exit => Next::Exit,
            _ => Next::Answer(status),
        },
        is_connect: false,
        answered_ns: None,
        ..around
    };
    Subrequest {
        uri: lossy(event.uri),
        status: nonzero(status),
        duration_ns: since(first, last.and_then(nonzero)).filter(|_| around.origin.is_some()),
        upstreams: attempts(tried, around),
    }
}

#[cfg(test)]
mod tests {
    use super::request;
    use crate::bpf::types;
    use crate::decode::clock::Clock;
    use crate::decode::facts;
    use crate::decode::wire::AttemptEvent;
    use crate::decode::wire::RequestEvent;

    /// Returns the event of `facts::tests`, on a connection accepted at 500 ns.
    fn event() -> RequestEvent<'static> {
        let mut event = facts::tests::event();
        event.record.accepted_ns = 500;
        event
    }

    /// Returns the JSON of an event.
    fn json(event: &RequestEvent<'_>) -> serde_json::Value {
        serde_json::to_value(request(event, Clock::now())).unwrap()
    }

    /// Check a common request: all times count from the accept.
    #[test]
    fn since_accept() {
        let json = json(&event());
        assert_eq!(json["phases_origin"], "accept");
        assert_eq!(json["duration_ns"], 4_000);
        assert_eq!(json["elapsed_ns"], 5_000);
        assert_eq!(
            json["phases"],
            serde_json::json!({
                "downstream_request_first_byte_time": 500,
                "downstream_request_last_byte_time": 500,
                "downstream_response_first_byte_time": 3_500,
                "downstream_response_last_byte_time": 4_500,
            })
        );
    }

    /// Check that a request that was in progress when tracing began has no times.
    #[test]
    fn no_times() {
        let changes: [fn(&mut types::request_record); 3] = [
            |record| record.request_first_ns = 0,
            |record| record.flags |= types::request_flag::REQUEST_ADOPTED.0,
            |record| record.flags |= types::request_flag::REQUEST_UNTRACED.0,
        ];
        for change in changes {
            let mut event = event();
            event.record.accepted_ns = 0;
            change(&mut event.record);
            let json = json(&event);
            for key in [
                "phases",
                "phases_origin",
                "duration_ns",
                "elapsed_ns",
                "time",
            ] {
                assert!(json.get(key).is_none(), "{json}");
            }
        }
    }

    /// Check that the cut of `upstream_addr` is that of the attempt whose address it is: neither that of
    /// a `post_action`, which comes after the response, nor that of a state without a peer.
    #[test]
    fn cut_upstream_addr() {
        let attempt = |addr: &'static [u8], connect_ns, addr_cut| AttemptEvent {
            record: types::attempt {
                connect_ns,
                addr_cut,
                ..Default::default()
            },
            addr,
        };
        for (cut, truncated) in [
            ([1, 0], serde_json::json!(["upstream_addr"])),
            ([0, 1], serde_json::Value::Null),
        ] {
            let mut event = event();
            event.attempts = vec![
                attempt(b"unix:/answer", 2_000, cut[0]),
                attempt(b"", 0, 0),
                attempt(b"unix:/after", 5_000, cut[1]),
            ];
            let json = json(&event);
            assert_eq!(json["upstream_addr"], "unix:/answer");
            assert_eq!(json["truncated"], truncated);
        }
    }

    /// Check that times that contradict each other are left out, never negative.
    #[test]
    fn backwards() {
        let mut event = event();
        event.record.accepted_ns = 4_500;
        event.record.response_last_ns = 900;
        event.record.ended_ns = 900;
        let json = json(&event);
        assert!(json.get("phases").is_none(), "{json}");
        assert!(json.get("duration_ns").is_none(), "{json}");
        assert!(json.get("elapsed_ns").is_none(), "{json}");
    }
}
