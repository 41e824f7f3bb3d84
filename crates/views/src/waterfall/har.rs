// SPDX-License-Identifier: MIT OR Apache-2.0
//! Requests as an HTTP Archive (HAR 1.2).

use ngx_bpf_record::Request;
use ngx_bpf_record::timeline::timeline;
use serde_json::Value;
use serde_json::json;

use crate::waterfall::id;
use crate::waterfall::timings::Timings;
use crate::waterfall::url;

/// What HAR has where a size is not known.
const UNKNOWN: i64 = -1;

/// Returns requests as an HTTP Archive. One without `time` has no entry, since an entry must have one: `_without_time`
/// counts them. What ngx-bpf knows besides is in keys that begin with `_`: `_id`, `_record` (all of the record),
/// and `_timeline`. `ngx_bpf_record::format::json::write_line()` writes it so that a terminal obeys nothing in it.
pub fn har(requests: &[Request<'_>]) -> Value {
    let entries: Vec<Value> = requests.iter().filter_map(entry).collect();
    let without_time = requests.len() - entries.len();
    let mut log = json!({
        "version": "1.2",
        "creator": { "name": "ngx-bpf", "version": env!("CARGO_PKG_VERSION") },
        "entries": entries,
    });
    if without_time > 0 {
        log["_without_time"] = Value::from(without_time);
    }
    json!({ "log": log })
}

/// Returns the entry of a request. `None` of one without `time`.
fn entry(request: &Request<'_>) -> Option<Value> {
    let timings = Timings::of(request);
    let mut entry = json!({
        "startedDateTime": request.time.as_deref()?,
        "time": milliseconds(timings.sum()),
        "request": asked(request),
        "response": answered(request),
        "cache": {},
        "timings": in_milliseconds(&timings),
        "_id": id(request),
        "_record": serde_json::to_value(request).ok()?,
    });
    if let Some(ip) = url::server_ip(request) {
        entry["serverIPAddress"] = Value::from(ip.to_string());
    }
    if let Some(connection) = request.connection {
        entry["connection"] = Value::from(format!("{}/{connection}", request.pid));
    }
    if let Some(segments) = timeline(request) {
        let segments = segments.iter().map(|segment| {
            let mut part = json!({
                "stage": segment.stage,
                "class": segment.stage.class(),
                "from_ns": segment.from,
                "to_ns": segment.to,
            });
            if let Some(attempt) = segment.attempt {
                part["attempt"] = Value::from(attempt);
            }
            part
        });
        entry["_timeline"] = segments.collect();
    }
    Some(entry)
}

/// Returns the request of an entry. Its headers are those that the record has.
fn asked(request: &Request<'_>) -> Value {
    let headers = request.place.headers.iter();
    let named = headers.filter(|(name, _)| *name != "host");
    let named = named.map(|(name, value)| json!({ "name": name, "value": value }));
    let host = request.http_host.iter();
    let host = host.map(|host| json!({ "name": "host", "value": host }));
    let query = url::query(request).into_iter();
    let query = query.map(|(name, value)| json!({ "name": name, "value": value }));
    let mut asked = json!({
        "method": request.request_method.as_deref().unwrap_or_default(),
        "url": url::url(request),
        "httpVersion": request.server_protocol.as_deref().unwrap_or_default(),
        "cookies": [],
        "headers": host.chain(named).collect::<Vec<_>>(),
        "queryString": query.collect::<Vec<_>>(),
        "headersSize": UNKNOWN,
        "bodySize": UNKNOWN,
    });
    if let Some(size) = request.request_size {
        asked["_size"] = Value::from(size);
    }
    asked
}

/// Returns the response of an entry. Without a status it has 0, as browsers write it.
fn answered(request: &Request<'_>) -> Value {
    let mut answered = json!({
        "status": request.status.unwrap_or_default(),
        "statusText": "",
        "httpVersion": request.server_protocol.as_deref().unwrap_or_default(),
        "cookies": [],
        "headers": [],
        "content": { "size": UNKNOWN, "mimeType": "x-unknown" },
        "redirectURL": "",
        "headersSize": UNKNOWN,
        "bodySize": UNKNOWN,
    });
    if let Some(size) = request.response_size {
        answered["_transferSize"] = Value::from(size);
    }
    answered
}

/// Returns timings in milliseconds, with -1 for what did not happen or is not known.
fn in_milliseconds(timings: &Timings) -> Value {
    let value = |ns: Option<u64>| ns.map_or(Value::from(-1), milliseconds);
    json!({
        "blocked": value(timings.blocked),
        "dns": value(timings.dns),
        "connect": value(timings.connect),
        "ssl": value(timings.ssl),
        "send": value(timings.send),
        "wait": value(timings.wait),
        "receive": value(timings.receive),
    })
}

/// Returns milliseconds.
fn milliseconds(ns: u64) -> Value {
    Value::from(ns as f64 / 1e6)
}
