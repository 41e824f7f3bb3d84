// SPDX-License-Identifier: MIT OR Apache-2.0
//! Subrequests: the main request's record describes their upstreams.

use ngx_bpf_record::values::Failure;

use crate::suite::common::build::REWRITE;
use crate::suite::common::build::is_built_without;
use crate::suite::common::client::Client;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::record::Attempt;
use crate::suite::common::record::Logged;
use crate::suite::common::record::Record;
use crate::suite::common::upstream::Upstream;
use crate::suite::root::requests::traced;
use crate::suite::root::times::assert_between;

/// A server for every module that makes subrequests. They have a log file of their own.
const HTTP: &str = "
    proxy_cache_path {prefix}/cache keys_zone=cache:1m;
    upstream retried { server 127.0.0.1:9; server 127.0.0.1:{upstream}; }
    server {
        listen 127.0.0.1:{port};
        root {prefix}/html;
        proxy_http_version 1.1;
        location /auth/ {
            auth_request /check/wait-40;
            proxy_pass http://127.0.0.1:{upstream};
        }
        location /static { auth_request /check/status-403; }
        location /retried { auth_request /again/; proxy_pass http://127.0.0.1:{upstream}; }
        location /mirrored/ { mirror /copy/wait-30; proxy_pass http://127.0.0.1:{upstream}; }
        location /page.html { ssi on; }
        location /sliced {
            slice 4k;
            proxy_cache cache;
            proxy_cache_key $uri$slice_range;
            proxy_cache_valid 206 1h;
            proxy_set_header Range $slice_range;
            proxy_pass http://127.0.0.1:{origin};
        }
        location ~ ^/(check|copy|again|part) {
            internal;
            log_subrequest on;
            access_log {prefix}/sub.log truth;
            proxy_pass_request_body off;
            proxy_set_header Content-Length '';
            proxy_pass http://$pass;
            set $pass 127.0.0.1:{upstream};
            if ($uri ~ ^/again) { set $pass retried; }
        }
    }
    server { listen 127.0.0.1:{origin}; root {prefix}/html; }";

/// Returns whether this nginx lacks one of the modules of these servers, and then prints SKIP.
fn is_not_built() -> bool {
    let modules = [
        "http_auth_request_module",
        "http_slice_module",
        "http-cache",
        REWRITE,
    ];
    modules.into_iter().any(is_built_without)
}

/// Returns the records of these requests, and nginx's log of their subrequests.
fn run(requests: impl FnOnce(&Nginx)) -> (Vec<Record>, Vec<Logged>) {
    let upstream = Upstream::start();
    let origin = crate::suite::common::ports::free_port().to_string();
    let nginx = Nginx::with(&HTTP.replace("{origin}", &origin), upstream.port);
    nginx.file("static", b"static");
    nginx.file("sliced", &[b'x'; 10_000]);
    nginx.file(
        "page.html",
        b"a <!--#include virtual=\"/part/wait-20\" --> b <!--#include virtual=\"/part/wait-30\" --> c",
    );
    let mut logged = Vec::new();
    let records = traced(nginx, |nginx| {
        requests(nginx);
        nginx.wait_logged(1);
        logged = nginx.logged_in("sub.log");
    });
    (records, logged)
}

/// Compares the subrequests of a record with nginx's log of them, in any order.
pub fn assert_logged(record: &Record, logged: &[Logged]) {
    let mut found: Vec<_> = record
        .subrequests
        .iter()
        .map(|sub| {
            let list = |value: fn(&_) -> String| {
                let values: Vec<String> = sub.upstreams.iter().map(value).collect();
                values.join(", ")
            };
            (
                sub.uri.clone().unwrap().into_owned(),
                sub.status.unwrap().to_string(),
                list(|attempt: &Attempt| attempt.addr.clone().unwrap().into_owned()),
                list(|attempt| attempt.bytes_received.unwrap().to_string()),
            )
        })
        .collect();
    let mut expected: Vec<_> = logged
        .iter()
        .filter(|line| {
            (Some(line.connection), Some(line.connection_requests))
                == (record.connection, record.connection_requests)
        })
        .map(|line| {
            (
                line.uri.clone(),
                line.status.clone(),
                line.upstream_addr.clone(),
                line.upstream_bytes_received.clone(),
            )
        })
        .collect();
    found.sort();
    expected.sort();
    assert_eq!(found, expected, "{record:#?}");
}

/// Check auth_request: its time is before the main upstream's, a refusal has a record, too, and a
/// retry is two attempts.
#[test]
fn auth_request() {
    if is_not_built() {
        return;
    }
    let (records, logged) = run(|nginx| {
        let mut client = Client::connect(nginx.port);
        assert_eq!(client.get("/auth/wait-20").status, 200);
        assert_eq!(client.get("/static").status, 403);
        assert_eq!(client.get("/retried").status, 200);
        assert_eq!(client.get("/auth/").status, 200);
    });
    for record in &records {
        record.assert_complete();
        assert_logged(record, &logged);
        assert_eq!(record.subrequests.len(), 1);
    }
    let record = &records[0];
    let check = &record.subrequests[0].upstreams[0];
    let p = &record.phases;
    assert_between(
        p,
        check.upstream_request_last_byte_time,
        check.upstream_response_first_byte_time,
        40,
    );
    assert!(
        check.upstream_response_last_byte_time <= p.upstream_connect_time,
        "{record:#?}"
    );
    assert!(record.subrequests[0].duration_ns.unwrap() > 20_000_000);
    assert_eq!(records[1].status, Some(403));
    assert!(records[1].upstreams.is_empty());
    let attempts = &records[2].subrequests[0].upstreams;
    assert_eq!(attempts.len(), 2);
    assert_eq!(attempts[0].failure, Some(Failure::ConnectError));
    assert_eq!(records[2].upstreams.len(), 1);
}

/// Check mirror, whose response nginx does not wait for, and pages that SSI assembles.
#[test]
fn mirror_and_ssi() {
    if is_not_built() {
        return;
    }
    let (records, logged) = run(|nginx| {
        let mut client = Client::connect(nginx.port);
        assert_eq!(client.get("/mirrored/").status, 200);
        let page = client.get("/page.html");
        assert_eq!(page.status, 200);
        assert_eq!(page.body, b"a xxx b xxx c");
    });
    for record in &records {
        record.assert_complete();
        assert_logged(record, &logged);
    }
    let p = &records[0].phases;
    assert!(p.upstream_response_last_byte_time.is_some());
    assert_eq!(records[0].subrequests.len(), 1);
    let copy = &records[0].subrequests[0].upstreams[0];
    assert_between(
        p,
        copy.upstream_request_last_byte_time,
        copy.upstream_response_first_byte_time,
        30,
    );
    let parts = &records[1].subrequests;
    assert_eq!(parts.len(), 2);
    for (part, ms) in parts.iter().zip([20, 30]) {
        let attempt = &part.upstreams[0];
        assert_between(
            &records[1].phases,
            attempt.upstream_request_last_byte_time,
            attempt.upstream_response_first_byte_time,
            ms,
        );
    }
    assert!(records[1].upstreams.is_empty());
}

/// Check slices: the main request has the first, and subrequests have the others.
#[test]
fn slice() {
    if is_not_built() {
        return;
    }
    let (records, _) = run(|nginx| {
        let response = Client::connect(nginx.port).get("/sliced");
        assert_eq!(response.status, 200);
        assert_eq!(response.body.len(), 10_000);
    });
    let mut fronts = records.iter().filter(|r| !r.upstreams.is_empty());
    let record = fronts.next().unwrap();
    record.assert_complete();
    assert_eq!(record.upstreams.len(), 1);
    let slices: Vec<_> = record
        .subrequests
        .iter()
        .map(|slice| (slice.uri.as_deref(), slice.upstreams[0].status))
        .collect();
    assert_eq!(slices, [(Some("/sliced"), Some(206)); 2]);
    assert_eq!(records.len(), 4);
}
