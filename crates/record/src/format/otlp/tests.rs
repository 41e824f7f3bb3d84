// SPDX-License-Identifier: MIT OR Apache-2.0
//! The spans of requests whose times are known.

use serde_json::Value;
use serde_json::json;

use super::Identity;
use super::Traces;
use super::has_spans;
use crate::attempt::Attempt;
use crate::phases::Phases;
use crate::place::Place;
use crate::request::Request;
use crate::schema::longest;
use crate::subrequest::Subrequest;
use crate::trace::Trace;
use crate::values::Cut;
use crate::values::End;
use crate::values::Failure;
use crate::waits::Waits;

/// When the request of `proxied()` began, in nanoseconds since 1970.
const BEGIN: u64 = 1_700_000_000_000_000_000;

/// Returns a request that waited for `limit_req`, whose first upstream refused the connection, and whose second one
/// answered over TLS. Its times count from an accept 1,000 ns before its first byte.
fn proxied() -> Request<'static> {
    Request {
        time: Some("2023-11-14T22:13:20.000000000Z".to_owned()),
        pid: 7,
        request_method: Some("GET".into()),
        request_uri: Some("/shop?a=b".into()),
        status: Some(200),
        place: Place {
            location: Some("/shop".into()),
            server_name: Some("example.com".into()),
            ..Default::default()
        },
        phases: Phases {
            downstream_request_first_byte_time: Some(1_000),
            downstream_request_last_byte_time: Some(2_000),
            downstream_response_first_byte_time: Some(9_000),
            downstream_response_last_byte_time: Some(9_500),
            ..Default::default()
        },
        duration_ns: Some(8_500),
        elapsed_ns: Some(9_000),
        waits: Waits {
            limit_req_delay_ns: Some(1_500),
            resolve_ns: Some(100),
            upstream_read_wait_ns: Some(200),
            ..Default::default()
        },
        upstreams: vec![
            Attempt {
                addr: Some("127.0.0.1:81".into()),
                status: Some(502),
                resolve_ns: Some(100),
                upstream_connect_time: Some(4_000),
                failure: Some(Failure::ConnectError),
                ..Default::default()
            },
            Attempt {
                addr: Some("[::1]:82".into()),
                status: Some(200),
                reused: Some(false),
                upstream_connect_time: Some(4_500),
                upstream_request_first_byte_time: Some(6_000),
                upstream_request_last_byte_time: Some(6_000),
                upstream_response_first_byte_time: Some(8_000),
                upstream_response_last_byte_time: Some(8_800),
                upstream_tls_ns: Some(1_000),
                response_header_ns: Some(3_500),
                ..Default::default()
            },
        ],
        ..Default::default()
    }
}

/// Returns the batch of these requests.
fn batch(requests: &[Request<'_>], service: Option<&str>) -> Value {
    let identity = Identity {
        service: service.map(str::to_owned),
        host_name: Some("host".to_owned()),
    };
    let mut traces = Traces::new(identity, None);
    for request in requests {
        traces.add(request).unwrap();
    }
    assert_eq!(traces.requests(), requests.len() as u64);
    let mut line = Vec::new();
    traces.write_line(&mut line);
    assert_eq!(traces.requests(), 0);
    assert!(line.ends_with(b"]}\n"));
    serde_json::from_slice(&line).unwrap()
}

/// Returns the spans of a request.
fn spans(request: &Request<'_>) -> Vec<Value> {
    let batch = batch(std::slice::from_ref(request), None);
    let spans = batch["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array();
    spans.unwrap().clone()
}

/// Returns the value of an attribute. `Null` when there is none.
fn attribute(object: &Value, name: &str) -> Value {
    let list = object["attributes"].as_array().unwrap();
    let mut found = list.iter().filter(|attribute| attribute["key"] == name);
    let value = found.next().map(|found| &found["value"]);
    assert!(found.next().is_none(), "{name} stands twice");
    let values = value.and_then(Value::as_object).map(|value| value.values());
    let value = values.and_then(|mut values| values.next().cloned());
    value.unwrap_or_default()
}

/// Returns the name, the kind, and the begin and the end of a span in nanoseconds since the request's first byte.
fn outline(span: &Value) -> (&str, u64, u64, u64) {
    let time = |key: &str| span[key].as_str().unwrap().parse::<u64>().unwrap() - BEGIN;
    let (from, to) = (time("startTimeUnixNano"), time("endTimeUnixNano"));
    (
        span["name"].as_str().unwrap(),
        span["kind"].as_u64().unwrap(),
        from,
        to,
    )
}

/// Check the names, kinds, times and parents of all spans of a request with a retry, and what they say of failures.
#[test]
fn retried() {
    let spans = spans(&proxied());
    let outlines: Vec<_> = spans.iter().map(outline).collect();
    let expected = [
        ("GET /shop", 2, 0, 9_000),
        ("limit_req_delay", 1, 1_000, 2_500),
        ("resolve", 1, 2_900, 3_000),
        ("GET", 3, 3_000, 3_500),
        ("GET", 3, 3_500, 7_800),
        ("connect", 1, 3_500, 4_000),
        ("tls_handshake", 1, 4_000, 5_000),
        ("read_wait", 1, 6_800, 7_000),
    ];
    assert_eq!(outlines, expected);
    let server = &spans[0];
    assert!(server.get("parentSpanId").is_none() && server.get("status").is_none());
    assert_eq!(server["flags"], 0x101);
    for (n, parent) in [(1, 0), (2, 0), (3, 0), (4, 0), (5, 4), (6, 4), (7, 4)] {
        assert_eq!(spans[n]["parentSpanId"], spans[parent]["spanId"]);
        assert_eq!(spans[n]["traceId"], server["traceId"]);
    }
    assert_eq!(attribute(server, "http.route"), "/shop");
    assert_eq!(attribute(server, "url.query"), "a=b");
    assert_eq!(attribute(server, "http.response.status_code"), "200");
    assert_eq!(attribute(server, "nginx.duration_ns"), "8500");
    for absent in ["nginx.pid", "time", "nginx.upstreams.0.addr", "error.type"] {
        assert_eq!(attribute(server, absent), Value::Null, "{absent}");
    }
    let event = &server["events"][0];
    assert_eq!(event["name"], "nginx.upstream.retry");
    assert_eq!(event["timeUnixNano"], (BEGIN + 3_500).to_string());
    assert_eq!(attribute(event, "error.type"), "connect_error");
    let [refused, answered] = [&spans[3], &spans[4]];
    assert_eq!(refused["status"], json!({"code": 2}));
    assert_eq!(attribute(refused, "error.type"), "connect_error");
    assert_eq!(attribute(refused, "http.response.status_code"), Value::Null);
    assert_eq!(attribute(refused, "http.request.resend_count"), Value::Null);
    assert_eq!(attribute(refused, "network.peer.address"), Value::Null);
    assert_eq!(attribute(answered, "http.request.resend_count"), "1");
    assert_eq!(attribute(answered, "server.address"), "::1");
    assert_eq!(attribute(answered, "server.port"), "82");
    assert_eq!(attribute(answered, "network.peer.port"), "82");
    assert_eq!(attribute(answered, "nginx.response_header_ns"), "3500");
    assert!(answered.get("status").is_none());
}

/// Check that the trace and the flags of the client are kept, and that a request of a trace that is not sampled has
/// no spans.
#[test]
fn traced() {
    let mut request = proxied();
    assert!(has_spans(&request));
    request.trace = Trace {
        trace_id: Some("4bf92f3577b34da6a3ce929d0e0e4736".into()),
        parent_span_id: Some("00f067aa0ba902b7".into()),
        trace_flags: Some("03".into()),
    };
    assert!(has_spans(&request));
    let found = spans(&request);
    for span in &found {
        assert_eq!(span["traceId"], "4bf92f3577b34da6a3ce929d0e0e4736");
    }
    assert_eq!(found[0]["parentSpanId"], "00f067aa0ba902b7");
    assert_eq!(found[0]["flags"], 0x303);
    assert_eq!(found[1]["flags"], 0x103);
    let mut unsampled = request.clone();
    unsampled.trace.trace_flags = Some("02".into());
    request.trace = Trace::default();
    request.time = None;
    let mut traces = Traces::new(Identity::default(), None);
    for request in [unsampled, request] {
        assert!(!has_spans(&request));
        assert_eq!(traces.add(&request).unwrap(), None);
    }
    assert_eq!((traces.requests(), traces.bytes()), (0, 0));
}

/// Check the status of spans: 4xx is an error for a client, and for no server.
#[test]
fn statuses() {
    let mut request = proxied();
    request.upstreams.remove(0);
    request.upstreams[0].status = Some(404);
    request.status = Some(404);
    request.request_method = Some("BREW".into());
    request.place.location = None;
    let found = spans(&request);
    assert_eq!(
        (&found[0]["name"], &found[2]["name"]),
        (&json!("HTTP"), &json!("HTTP"))
    );
    assert_eq!(attribute(&found[0], "http.request.method"), "_OTHER");
    assert_eq!(attribute(&found[0], "http.request.method_original"), "BREW");
    assert!(found[0].get("status").is_none());
    assert_eq!(attribute(&found[2], "error.type"), "404");
    assert_eq!(found[2]["status"], json!({"code": 2}));
    request.status = Some(503);
    let found = spans(&request);
    assert_eq!(found[0]["status"], json!({"code": 2}));
    assert_eq!(attribute(&found[0], "error.type"), "503");
}

/// Check that the method of an attempt is absent where nginx may have changed it, and that the count of attempts is
/// absent when there were more than the record has.
#[test]
fn uncertain() {
    let mut request = proxied();
    request.place.redirects = Some(1);
    request.truncated = vec![Cut::Upstreams];
    let found = spans(&request);
    assert_eq!(found[4]["name"], "HTTP");
    assert_eq!(attribute(&found[4], "http.request.method"), Value::Null);
    assert_eq!(
        attribute(&found[4], "http.request.resend_count"),
        Value::Null
    );
}

/// Check that a wait for a name server has a span only where the first attempt's connect followed it: it is an attribute
/// in any case.
#[test]
fn resolved() {
    let mut request = proxied();
    let names = |request: &Request<'_>| {
        let spans = spans(request);
        assert_eq!(attribute(&spans[0], "nginx.resolve_ns"), "100");
        let names = spans.iter().map(|span| outline(span).0.to_owned());
        names.collect::<Vec<_>>()
    };
    let resolve = "resolve".to_owned();
    assert!(names(&request).contains(&resolve));
    request.upstreams[0].upstream_connect_time = None;
    assert!(!names(&request).contains(&resolve));
    request.upstreams[0].upstream_connect_time = Some(4_000);
    request.upstreams[0].resolve_ns = None;
    assert!(!names(&request).contains(&resolve));
    request.upstreams.clear();
    assert!(!names(&request).contains(&resolve));
}

/// Check that a tunnel's span ends with the response, and that of a request without a response with the request.
#[test]
fn ends() {
    let mut request = proxied();
    request.ending.tunnel = true;
    request.elapsed_ns = Some(1_000_000);
    assert_eq!(outline(&spans(&request)[0]).3, 8_500);
    request.ending.tunnel = false;
    request.ending.end = Some(End::WorkerExit);
    request.duration_ns = None;
    assert_eq!(outline(&spans(&request)[0]).3, 1_000_000);
}

/// Check the span of a subrequest, and that one without any time is an attribute of the request.
#[test]
fn subrequests() {
    let mut request = proxied();
    request.upstreams.clear();
    request.waits.resolve_ns = None;
    let attempt = |connect, response| Attempt {
        addr: Some("unix:/run/auth".into()),
        upstream_connect_time: connect,
        upstream_request_first_byte_time: connect,
        upstream_response_last_byte_time: response,
        ..Default::default()
    };
    request.subrequests = vec![
        Subrequest {
            uri: Some("/auth".into()),
            upstreams: vec![attempt(Some(3_000), Some(4_000))],
            ..Default::default()
        },
        Subrequest {
            uri: Some("/mirror".into()),
            upstreams: vec![attempt(None, None)],
            ..Default::default()
        },
    ];
    let found = spans(&request);
    let names: Vec<_> = found.iter().map(outline).collect();
    assert_eq!(
        names[2..],
        [("subrequest", 1, 2_000, 3_000), ("HTTP", 3, 2_000, 3_000)]
    );
    assert_eq!(attribute(&found[2], "nginx.uri"), "/auth");
    assert_eq!(found[3]["parentSpanId"], found[2]["spanId"]);
    assert_eq!(attribute(&found[3], "server.address"), "/run/auth");
    assert_eq!(attribute(&found[3], "server.port"), Value::Null);
    let name = "nginx.subrequests.1.uri";
    assert_eq!(attribute(&found[0], name), "/mirror");
}

/// Check that each resource has its own list, and what its service is called.
#[test]
fn resources() {
    let (one, mut other) = (proxied(), proxied());
    other.place.server_name = Some("_".into());
    other.container.container_id = Some("f".repeat(64).into());
    let requests = [one.clone(), other, one];
    let found = batch(&requests, None);
    let list = found["resourceSpans"].as_array().unwrap();
    assert_eq!(list.len(), 2);
    assert_eq!(
        attribute(&list[0]["resource"], "service.name"),
        "example.com"
    );
    assert_eq!(attribute(&list[0]["resource"], "process.pid"), "7");
    assert_eq!(attribute(&list[0]["resource"], "host.name"), "host");
    assert_eq!(attribute(&list[1]["resource"], "service.name"), "nginx");
    assert_eq!(
        attribute(&list[1]["resource"], "container.id"),
        "f".repeat(64)
    );
    assert_eq!(
        list[0]["scopeSpans"][0]["spans"].as_array().unwrap().len(),
        16
    );
    let found = batch(&requests[..1], Some("shop"));
    let resource = &found["resourceSpans"][0]["resource"];
    assert_eq!(attribute(resource, "service.name"), "shop");
}

/// Check that the bytes of a batch are counted, and that the longest request leaves a line short enough.
#[test]
fn bytes() {
    let mut traces = Traces::new(Identity::default(), None);
    traces.add(&proxied()).unwrap();
    let one = traces.bytes();
    let mut longest = longest();
    longest.time = proxied().time;
    traces.add(&longest).unwrap();
    assert!(traces.bytes() - one < 1 << 19, "{}", traces.bytes());
    let mut line = Vec::new();
    traces.write_line(&mut line);
    assert_eq!((traces.requests(), traces.bytes()), (0, 0));
    assert!(line.len() > one);
    line.clear();
    traces.write_line(&mut line);
    assert!(line.is_empty());
}
