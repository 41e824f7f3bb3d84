// SPDX-License-Identifier: MIT OR Apache-2.0
//! `proxy_cache`: what it had for each request, and an upstream only where one was asked.

use std::time::Duration;

use crate::suite::common::client::Client;
use crate::suite::common::delay;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::nginx::is_built_without;
use crate::suite::common::record::Record;
use crate::suite::common::record::assert_delay;
use crate::suite::common::upstream::Upstream;
use crate::suite::root::requests::traced;

/// Every kind of cached location.
const HTTP: &str = r"
    proxy_cache_path {prefix}/cache keys_zone=one:1m;
    proxy_cache one;
    proxy_cache_key $uri;
    proxy_read_timeout 300ms;
    server {
        listen 127.0.0.1:{port};
        proxy_cache_valid 200 1s;
        location / { proxy_cache_valid 200 1h; proxy_pass http://127.0.0.1:{upstream}; }
        location /bypass/ { proxy_cache_bypass 1; proxy_pass http://127.0.0.1:{upstream}; }
        location /expired/ { proxy_pass http://127.0.0.1:{upstream}; }
        location /revalidated/ {
            proxy_cache_revalidate on;
            proxy_pass http://127.0.0.1:{upstream};
        }
        location /stale/ {
            proxy_cache_use_stale error timeout http_500;
            proxy_pass http://127.0.0.1:{upstream}/status-$arg_status/;
        }
        location /updating/ {
            proxy_cache_use_stale updating;
            proxy_cache_background_update on;
            proxy_pass http://127.0.0.1:{upstream};
        }
        location /locked/ {
            proxy_cache_lock on;
            proxy_pass http://127.0.0.1:{upstream};
        }
    }";

/// How long a response of these locations is fresh, and a little more: nginx counts seconds.
const EXPIRY: Duration = Duration::from_millis(2_100);

/// The records of these requests, on one connection.
fn records(requests: impl FnOnce(&mut Client)) -> Vec<Record> {
    let upstream = Upstream::start();
    traced(Nginx::with(HTTP, upstream.port), |nginx| {
        requests(&mut Client::connect(nginx.port));
    })
}

/// What the cache had.
fn statuses(records: &[Record]) -> Vec<Option<&str>> {
    let records = records.iter();
    records
        .map(|record| record.upstream_cache_status.as_deref())
        .collect()
}

/// Checks that a request was answered without an upstream.
fn assert_alone(record: &Record) {
    record.assert_complete();
    assert!(record.upstreams.is_empty(), "{record:#?}");
    assert_eq!(record.upstream_addr, None);
    assert_eq!(record.phases.upstream_connect_time, None);
}

/// Check a miss, which has an upstream with its times, and a hit, which has none; a bypass; and
/// what is not cached at all.
#[test]
fn hit_and_miss() {
    if is_built_without("http-cache") {
        return;
    }
    let records = records(|client| {
        for uri in ["/wait-40", "/wait-40", "/bypass/", "/bypass/"] {
            assert_eq!(client.get(uri).status, 200);
        }
    });
    let expected = [Some("MISS"), Some("HIT"), Some("BYPASS"), Some("BYPASS")];
    assert_eq!(statuses(&records), expected);
    let p = &records[0].phases;
    let first = p.upstream_response_first_byte_time;
    assert_delay(p.upstream_request_last_byte_time, first, 40);
    assert_alone(&records[1]);
    assert_eq!(records[2].upstreams.len(), 1);
}

/// Check what is no longer fresh: asked for again; confirmed by the upstream; answered as it is,
/// since the upstream fails.
#[test]
fn expired() {
    if is_built_without("http-cache") {
        return;
    }
    let records = records(|client| {
        for uri in [
            "/expired/",
            "/revalidated/modified",
            "/stale/?status=200",
            "/updating/",
        ] {
            assert_eq!(client.get(uri).status, 200);
        }
        delay(EXPIRY);
        for uri in ["/expired/", "/revalidated/modified", "/stale/?status=500"] {
            assert_eq!(client.get(uri).status, 200);
        }
    });
    assert_eq!(statuses(&records)[..4], [Some("MISS"); 4]);
    let expected = [Some("EXPIRED"), Some("REVALIDATED"), Some("STALE")];
    assert_eq!(statuses(&records)[4..], expected);
    assert_eq!(records[5].upstreams[0].status, Some(304));
    assert_eq!(records[6].upstreams[0].status, Some(500));
    records.iter().for_each(Record::assert_complete);
}

/// Check an update in the background: its upstream is a subrequest's, the request itself has none;
/// it has its answer before the upstream, and its record when that has ended.
#[test]
fn background_update() {
    if is_built_without("http-cache") {
        return;
    }
    let records = records(|client| {
        assert_eq!(client.get("/updating/wait-60").status, 200);
        delay(EXPIRY);
        assert_eq!(client.get("/updating/wait-60").status, 200);
        assert_eq!(client.get("/updating/wait-60").status, 200);
    });
    let expected = [Some("MISS"), Some("STALE"), Some("HIT")];
    assert_eq!(statuses(&records), expected);
    assert_alone(&records[1]);
    assert!(records[1].duration_ns < records[0].duration_ns);
}

/// Check two that want the same: one asks the upstream, the other waits for the cache.
#[test]
fn lock() {
    if is_built_without("http-cache") {
        return;
    }
    let upstream = Upstream::start();
    let records = traced(Nginx::with(HTTP, upstream.port), |nginx| {
        let mut clients = [(); 2].map(|()| Client::connect(nginx.port));
        for client in &mut clients {
            client.send("GET /locked/wait-60 HTTP/1.1\r\nHost: t\r\n\r\n");
        }
        for client in &mut clients {
            assert_eq!(client.receive().status, 200);
        }
    });
    assert_eq!(statuses(&records), [Some("MISS"), Some("HIT")]);
    assert_eq!(records[0].upstreams.len(), 1);
    assert_alone(&records[1]);
}
