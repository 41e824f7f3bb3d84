// SPDX-License-Identifier: MIT OR Apache-2.0
//! Waterfalls of recorded requests, and of ones that are made here.

use std::path::Path;

use ngx_bpf_record::Attempt;
use ngx_bpf_record::Record;
use ngx_bpf_record::Request;
use ngx_bpf_record::Shares;
use ngx_bpf_record::Subrequest;
use ngx_bpf_record::read;
use ngx_bpf_record::values::End;
use ngx_bpf_record::values::Failure;
use ngx_bpf_record::values::Scheme;
use ngx_bpf_record::values::Side;

mod formats;
mod hostile;
mod screens;

/// Returns the requests of a file in tests/data.
fn recorded(name: &str) -> Vec<Request<'static>> {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data");
    let file = read::open(&data.join(name)).unwrap();
    let mut records = read::Records::new(file);
    let mut requests = Vec::new();
    while let Some(record) = records.next_record().unwrap() {
        if let Record::Request(request) = record {
            requests.push(*request);
        }
    }
    requests
}

/// Returns all recorded requests.
fn all() -> Vec<Request<'static>> {
    let mut requests = recorded("records.jsonl");
    requests.extend(recorded("incidents.jsonl"));
    assert!(requests.len() > 200);
    requests
}

/// Returns a request over HTTP/2 that waited for everything, the same as in the sketch of this screen: its first attempt
/// did not get to a connection.
fn slow() -> Request<'static> {
    let mut request = Request {
        time: Some("2026-11-26T20:04:11.183529112Z".to_owned()),
        pid: 5875,
        connection: Some(71),
        connection_requests: Some(3),
        remote_addr: Some("192.0.2.7".into()),
        server_addr: Some("192.0.2.1".into()),
        scheme: Scheme::Https,
        server_protocol: Some("HTTP/2.0".into()),
        request_method: Some("GET".into()),
        request_uri: Some("/api/orders/7?page=2".into()),
        http_host: Some("shop.example".into()),
        status: Some(200),
        request_size: Some(412),
        response_size: Some(14_200),
        upstream_addr: Some("10.0.1.5:8080".into()),
        duration_ns: Some(1_928_700_000),
        elapsed_ns: Some(1_928_740_000),
        ..Default::default()
    };
    let p = &mut request.phases;
    p.downstream_request_first_byte_time = Some(1_000_000);
    p.downstream_request_last_byte_time = Some(1_210_000);
    p.downstream_response_first_byte_time = Some(1_921_000_000);
    p.downstream_response_last_byte_time = Some(1_929_700_000);
    request.place.location = Some("/api/orders/".into());
    request.place.upstream_name = Some("backend".into());
    request.trace.trace_id = Some("4bf92f3577b34da6a3ce929d0e0e4736".into());
    request.waits.auth_ns = Some(4_100_000);
    request.waits.accept_queue_ns = Some(900_000);
    request.tls.tls_handshake_ns = Some(38_000_000);
    request.ending.end = Some(End::Ok);
    request.upstreams = attempts();
    request.subrequests = vec![auth()];
    request.waits.time_ns = Shares::of(&request);
    request
}

/// Returns its attempts.
fn attempts() -> Vec<Attempt<'static>> {
    vec![
        Attempt {
            addr: Some("10.0.1.4:8080".into()),
            status: Some(504),
            upstream_connect_time: Some(5_390_000),
            failure: Some(Failure::ConnectTimeout),
            ..Default::default()
        },
        Attempt {
            addr: Some("10.0.1.5:8080".into()),
            status: Some(200),
            reused: Some(true),
            connection_requests: Some(12),
            reused_idle_ns: Some(3_100_000_000),
            upstream_connect_time: Some(1_005_390_000),
            upstream_request_first_byte_time: Some(1_005_390_000),
            upstream_request_last_byte_time: Some(1_005_440_000),
            upstream_response_first_byte_time: Some(1_917_800_000),
            upstream_response_last_byte_time: Some(1_921_000_000),
            response_header_ns: Some(912_410_000),
            ..Default::default()
        },
    ]
}

/// Returns its subrequest.
fn auth() -> Subrequest<'static> {
    Subrequest {
        uri: Some("/_auth".into()),
        status: Some(204),
        duration_ns: Some(4_000_000),
        upstreams: vec![Attempt {
            addr: Some("10.0.3.2:9000".into()),
            status: Some(204),
            reused: Some(false),
            connection_requests: Some(1),
            upstream_connect_time: Some(1_250_000),
            upstream_request_first_byte_time: Some(1_450_000),
            upstream_request_last_byte_time: Some(1_450_000),
            upstream_response_first_byte_time: Some(5_250_000),
            upstream_response_last_byte_time: Some(5_250_000),
            response_header_ns: Some(4_000_000),
            ..Default::default()
        }],
    }
}

/// Returns a tunnel, whose client closed it after a minute.
fn tunnel() -> Request<'static> {
    let mut request = slow();
    request.request_uri = Some("/live".into());
    request.status = Some(101);
    request.elapsed_ns = Some(61_928_700_000);
    request.ending.tunnel = true;
    request.ending.tunnel_ns = Some(60_007_700_000);
    request.ending.closed_by = Some(Side::Client);
    request.subrequests.clear();
    request
}

/// Returns a request in which tracing began.
fn partial() -> Request<'static> {
    Request {
        time: None,
        phases: Default::default(),
        waits: Default::default(),
        duration_ns: None,
        elapsed_ns: None,
        upstreams: Vec::new(),
        subrequests: Vec::new(),
        partial: true,
        ..slow()
    }
}
