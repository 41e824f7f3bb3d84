// SPDX-License-Identifier: MIT OR Apache-2.0
//! Requests whose worker has ended before they did. nginx's memory has gone with it: what BPF has kept of the
//! connection is what is known.

use crate::bpf::types;
use crate::bpf::types::attempt_flag;
use crate::bpf::types::record_kind;
use crate::bpf::types::request_flag;
use crate::decode::facts::HTTP_VERSION_20;
use crate::decode::facts::HTTP_VERSION_30;

/// Returns the record of a request, by the entry of its connection or stream, in the form in which BPF submits
/// records. A number that only nginx's memory has is one that it can't be there. `worker` is the event of the worker's
/// end; its `ended_ns` is 0 when that was not seen.
pub fn record(entry: &types::connection, worker: &types::process_event) -> Vec<u8> {
    let attempts = attempts(entry);
    let mut flags = entry.flags | request_flag::REQUEST_ABANDONED.0 | request_flag::REQUEST_CUT.0;
    if entry.handshake.is_tls != 0 {
        flags |= request_flag::REQUEST_TLS.0;
    }
    if !attempts.is_empty() {
        flags |= request_flag::REQUEST_UPSTREAM.0;
    }
    let size = size_of::<types::request_record>() + size_of::<types::attempt>() * attempts.len();
    let attempts_len = attempts.len() as u16; /* at most ATTEMPTS_MAX */
    let record = types::request_record {
        kind: record_kind::RECORD_REQUEST.0,
        size: u32::try_from(size).unwrap_or_default(),
        ended_ns: worker.ended_ns,
        established_ns: entry.established_ns,
        accepted_ns: entry.accepted_ns,
        previous_ended_ns: entry.previous_ended_ns,
        request_first_ns: request_first_ns(entry),
        header_ns: entry.header_ns,
        response_first_ns: entry.response_first_ns,
        handshake_first_ns: entry.handshake.first_ns,
        handshake_last_ns: entry.handshake.last_ns,
        read_wait_ns: entry.read_wait_ns,
        request_length: -1,
        bytes_sent: -1,
        content_length_n: -1,
        pid: worker.pid,
        flags,
        http_version: http_version(entry),
        upstreams_seen: attempts_len.into(),
        attempts_len,
        local: entry.local,
        peer: entry.peer,
        container: worker.container,
        ..Default::default()
    };
    // SAFETY: the record is plain: integers without padding.
    let mut bytes = unsafe { plain::as_bytes(&record) }.to_vec();
    for attempt in &attempts {
        // SAFETY: as above.
        bytes.extend(unsafe { plain::as_bytes(attempt) });
    }
    bytes
}

/// Returns when the first byte was read, by the rule of `request_first_ns()` in bpf/connection.bpf.h. 0: before
/// tracing began.
pub fn request_first_ns(entry: &types::connection) -> u64 {
    match entry.request_first_ns {
        0 => entry.previous_read_ns.max(entry.handshake.last_ns),
        first => first,
    }
}

/// Returns the version of HTTP, as far as the entry shows it. 0: 1.1 or one before it.
fn http_version(entry: &types::connection) -> u32 {
    match entry {
        _ if entry.stream.connection != 0 => HTTP_VERSION_30,
        _ if entry.is_stream != 0 => HTTP_VERSION_20,
        _ => 0,
    }
}

/// Returns the attempts of the request in flight, in order.
fn attempts(entry: &types::connection) -> Vec<types::attempt> {
    let seen = attempt_flag::ATTEMPT_SEEN.0;
    let times = entry.attempts.iter();
    let own = times.filter(|times| times.generation == entry.generation && times.flags & seen != 0);
    let mut attempts: Vec<_> = own.map(attempt).collect();
    attempts.sort_by_key(|attempt| attempt.index);
    attempts
}

/// Returns what the socket of an attempt has shown. Over TLS the first bytes that were read may be session
/// tickets, and frames of HTTP/2 come before a response: nginx's memory would distinguish them.
fn attempt(times: &types::attempt_times) -> types::attempt {
    let unsure = attempt_flag::ATTEMPT_TLS.0 | attempt_flag::ATTEMPT_HTTP2.0;
    let is_sure = times.flags & unsure == 0;
    types::attempt {
        connect_ns: times.connect_ns,
        request_first_ns: times.request_first_ns,
        response_first_ns: if is_sure { times.response_first_ns } else { 0 },
        handshake_first_ns: times.handshake_first_ns,
        handshake_last_ns: times.handshake_last_ns,
        kept_ns: times.kept_ns,
        requests: times.requests,
        read_wait_ns: if is_sure { times.read_wait_ns } else { 0 },
        bytes_sent: -1,
        bytes_received: -1,
        flags: times.flags,
        index: times.index,
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::record;
    use super::types;
    use super::types::attempt_flag;
    use super::types::request_flag;
    use crate::decode::clock::Clock;
    use crate::decode::request::request;
    use crate::decode::wire;

    const WORKER: types::process_event = types::process_event {
        pid: 7,
        kind: 0,
        ended_ns: 9_000,
        container: 0,
        pad: 0,
    };

    /// Returns the entry of a connection with an attempt of its request, and one of the request before.
    fn entry() -> types::connection {
        let mut entry = types::connection {
            generation: 3,
            accepted_ns: 500,
            request_first_ns: 1_000,
            response_first_ns: 3_000,
            response_last_ns: 4_000,
            ..Default::default()
        };
        entry.attempts[0] = types::attempt_times {
            generation: 3,
            connect_ns: 1_500,
            request_first_ns: 1_600,
            response_first_ns: 1_700,
            response_last_ns: 1_800,
            flags: attempt_flag::ATTEMPT_SEEN.0,
            ..Default::default()
        };
        entry.attempts[1] = types::attempt_times {
            generation: 2,
            ..entry.attempts[0]
        };
        entry
    }

    /// Returns the JSON of the request of an entry.
    fn json(entry: &types::connection, worker: &types::process_event) -> serde_json::Value {
        let bytes = record(entry, worker);
        let event = wire::decode(&bytes).unwrap();
        serde_json::to_value(request(&event, Clock::now())).unwrap()
    }

    /// Check what is known, and that what is not is absent: what nginx's memory had, and what was not over.
    #[test]
    fn known() {
        let mut json = json(&entry(), &WORKER);
        assert!(json["time"].take().is_string());
        assert_eq!(
            json,
            serde_json::json!({
                "time": null,
                "pid": 7,
                "scheme": "http",
                "downstream_accept_time": 500,
                "phases": {
                    "downstream_request_first_byte_time": 500,
                    "downstream_request_last_byte_time": 500,
                    "upstream_connect_time": 1_000,
                    "upstream_request_first_byte_time": 1_100,
                    "upstream_response_first_byte_time": 1_200,
                    "downstream_response_first_byte_time": 2_500,
                },
                "phases_origin": "accept",
                "elapsed_ns": 8_000,
                "end": "worker_exit",
                "closed_by": "nginx",
                "last_phase": "client_response",
                "upstreams": [{
                    "upstream_connect_time": 1_000,
                    "upstream_request_first_byte_time": 1_100,
                    "upstream_response_first_byte_time": 1_200,
                }],
            })
        );
    }

    /// Check a tunnel through which bytes have passed: its response ended where it began.
    #[test]
    fn tunnel() {
        let mut entry = entry();
        entry.attempts[0].flags |= attempt_flag::ATTEMPT_TUNNEL.0;
        let json = json(&entry, &WORKER);
        assert_eq!(
            (&json["tunnel"], &json["tunnel_ns"], &json["duration_ns"]),
            (&true.into(), &6_000.into(), &2_000.into())
        );
        assert_eq!(json["phases"]["downstream_response_last_byte_time"], 2_500);
        assert!(json.get("last_phase").is_none());
    }

    /// Check streams, encryption, an upstream over TLS, a first byte that came with the request before, and an
    /// end and a first byte that were not seen.
    #[test]
    fn variants() {
        let mut stream = entry();
        stream.is_stream = 1;
        stream.handshake.is_tls = 1;
        let h2 = json(&stream, &WORKER);
        assert_eq!(
            (&h2["alpn"], &h2["scheme"]),
            (&"h2".into(), &"https".into())
        );
        stream.stream.connection = 9;
        assert_eq!(json(&stream, &WORKER)["alpn"], "h3");
        let mut tickets = entry();
        tickets.attempts[0].flags |= attempt_flag::ATTEMPT_TLS.0;
        let attempt = &json(&tickets, &WORKER)["upstreams"][0];
        assert!(attempt.get("upstream_response_first_byte_time").is_none());
        let mut pipelined = entry();
        (pipelined.request_first_ns, pipelined.previous_read_ns) = (0, 600);
        assert_eq!(json(&pipelined, &WORKER)["elapsed_ns"], 8_400);
        let unseen = types::process_event {
            ended_ns: 0,
            ..WORKER
        };
        assert!(json(&entry(), &unseen).get("elapsed_ns").is_none());
        let mut adopted = entry();
        adopted.flags = request_flag::REQUEST_ADOPTED.0;
        assert_eq!(json(&adopted, &WORKER)["partial"], true);
    }
}
