// SPDX-License-Identifier: MIT OR Apache-2.0
//! `proxy_cache`: each record has the cache's status, and an upstream only when one was asked.

use std::io::Write as _;
use std::net::TcpListener;
use std::time::Duration;

use ngx_bpf_record::values::CacheStatus;

use crate::suite::common::build::REWRITE;
use crate::suite::common::build::is_built_without;
use crate::suite::common::client::Client;
use crate::suite::common::delay;
use crate::suite::common::listener::read_head;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::record::Record;
use crate::suite::common::record::assert_delay;
use crate::suite::common::upstream::Upstream;
use crate::suite::root::requests::traced;
use crate::suite::root::subrequests::assert_logged as assert_subrequests;

/// A server with every kind of cached location.
const HTTP: &str = r"
    proxy_cache_path {prefix}/cache keys_zone=one:1m;
    proxy_cache one;
    proxy_cache_key $uri;
    proxy_read_timeout 300ms;
    map $upstream_cache_status $is_update { volatile; EXPIRED 1; REVALIDATED 1; default 0; }
    map $is_update $is_main { volatile; 1 0; default 1; }
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
            proxy_cache_revalidate on;
            proxy_read_timeout 60s;
            log_subrequest on;
            access_log {prefix}/access.log truth if=$is_main;
            access_log {prefix}/sub.log truth if=$is_update;
            proxy_pass http://127.0.0.1:{upstream};
        }
        location /locked/ {
            proxy_cache_lock on;
            proxy_pass http://127.0.0.1:{upstream};
        }
    }";

/// The time for which a response of these locations is fresh, and a little more, because nginx
/// counts in seconds.
const EXPIRY: Duration = Duration::from_millis(2_100);

/// Returns the records of requests on one connection.
fn records(requests: impl FnOnce(&mut Client)) -> Vec<Record> {
    let upstream = Upstream::start();
    traced(Nginx::with(HTTP, upstream.port), |nginx| {
        requests(&mut Client::connect(nginx.port));
    })
}

/// Returns the cache statuses of records.
fn statuses(records: &[Record]) -> Vec<Option<&str>> {
    let statuses = records.iter().map(|record| record.upstream_cache_status);
    statuses.map(|status| Some(status?.name())).collect()
}

/// Asserts that a request was answered without an upstream.
fn assert_alone(record: &Record) {
    record.assert_complete();
    assert!(record.upstreams.is_empty(), "{record:#?}");
    assert_eq!(record.upstream_addr, None);
    assert_eq!(record.phases.upstream_connect_time, None);
}

/// Check a miss, which has an upstream with its times; a hit, which has none; a bypass; and a
/// response that is not cached.
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

/// Check expired responses: fetched again; revalidated by the upstream; and served stale, because
/// the upstream fails.
#[test]
fn expired() {
    if is_built_without("http-cache") {
        return;
    }
    let records = records(|client| {
        for uri in ["/expired/", "/revalidated/modified", "/stale/?status=200"] {
            assert_eq!(client.get(uri).status, 200);
        }
        delay(EXPIRY);
        for uri in ["/expired/", "/revalidated/modified", "/stale/?status=500"] {
            assert_eq!(client.get(uri).status, 200);
        }
    });
    assert_eq!(statuses(&records)[..3], [Some("MISS"); 3]);
    let expected = [Some("EXPIRED"), Some("REVALIDATED"), Some("STALE")];
    assert_eq!(statuses(&records)[3..], expected);
    assert_eq!(records[4].upstreams[0].status, Some(304));
    assert_eq!(records[5].upstreams[0].status, Some(500));
    records.iter().for_each(Record::assert_complete);
}

/// The response of an upstream, in two parts.
const ANSWER: [&str; 2] = [
    "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 6\r\n\r\nabc",
    "def",
];

/// Check an update in the background. Its upstream belongs to a subrequest, and the requests
/// themselves have none. The request that started the update has its answer before the upstream
/// responds, and its record after that. Another request meanwhile is not affected.
#[test]
fn background_update() {
    if is_built_without("http-cache") {
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let accept = || {
        let (mut stream, _) = listener.accept().unwrap();
        read_head(&mut stream).unwrap();
        stream
    };
    let nginx = Nginx::with(HTTP, listener.local_addr().unwrap().port());
    let mut updates = Vec::new();
    let records = traced(nginx, |nginx| {
        let mut client = Client::connect(nginx.port);
        client.send("GET /updating/ HTTP/1.1\r\nHost: t\r\n\r\n");
        accept().write_all(ANSWER.concat().as_bytes()).unwrap();
        assert_eq!(client.receive().body, b"abcdef");
        delay(EXPIRY);
        assert_eq!(client.get("/updating/").body, b"abcdef");
        let mut upstream = accept();
        let mut other = Client::connect(nginx.port);
        assert_eq!(other.get("/updating/").body, b"abcdef");
        delay(Duration::from_millis(60));
        for part in ANSWER {
            upstream.write_all(part.as_bytes()).unwrap();
            delay(Duration::from_millis(40));
        }
        drop(upstream);
        assert_eq!(client.get("/updating/").body, b"abcdef");
        nginx.wait_logged(4);
        updates = nginx.logged_in("sub.log");
    });
    let expected = [Some("MISS"), Some("UPDATING"), Some("STALE"), Some("HIT")];
    assert_eq!(statuses(&records), expected);
    records[1..].iter().for_each(assert_alone);
    assert_eq!(updates.len(), 1);
    for record in &records {
        assert_subrequests(record, &updates);
    }
    let record = &records[2];
    let (p, update) = (&record.phases, &record.subrequests[0]);
    assert_eq!(update.uri.as_deref(), Some("/updating/"));
    let attempt = &update.upstreams[0];
    let first = attempt.upstream_response_first_byte_time;
    assert_delay(p.downstream_response_last_byte_time, first, 60);
    assert_delay(attempt.upstream_request_last_byte_time, first, 60);
    assert_delay(first, attempt.upstream_response_last_byte_time, 40);
    assert!(update.duration_ns > record.duration_ns, "{record:#?}");
}

/// Check an update in the background that finds the response unchanged.
#[test]
fn background_revalidation() {
    if is_built_without("http-cache") {
        return;
    }
    let upstream = Upstream::start();
    let mut updates = Vec::new();
    let records = traced(Nginx::with(HTTP, upstream.port), |nginx| {
        let mut client = Client::connect(nginx.port);
        assert_eq!(client.get("/updating/modified").status, 200);
        delay(EXPIRY);
        for _ in 0..2 {
            assert_eq!(client.get("/updating/modified").status, 200);
        }
        nginx.wait_logged(3);
        updates = nginx.logged_in("sub.log");
    });
    assert_eq!(
        statuses(&records),
        [Some("MISS"), Some("STALE"), Some("HIT")]
    );
    records[1..].iter().for_each(assert_alone);
    assert_eq!(updates.len(), 1);
    assert_eq!(updates[0].upstream_cache_status, "REVALIDATED");
    for record in &records {
        assert_subrequests(record, &updates);
    }
    assert_eq!(records[1].subrequests[0].upstreams[0].status, Some(304));
}

/// Check two requests for the same uri: one asks the upstream, the other waits for the cache.
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

/// A cache in front of a host that a variable names.
const VARIABLE: &str = r"
    proxy_cache_path {prefix}/cache keys_zone=one:1m;
    server {
        listen 127.0.0.1:{port};
        proxy_cache one;
        proxy_cache_valid 200 1h;
        set $name 127.0.0.1:{upstream};
        location / { proxy_pass http://$name; }
    }";

/// Check that a request that the cache answers has no upstream, also where a variable names it.
#[test]
fn cached_upstream() {
    if is_built_without(REWRITE) || is_built_without("http-cache") {
        return;
    }
    let upstream = Upstream::start();
    let nginx = Nginx::with(VARIABLE, upstream.port);
    let records = traced(nginx, |nginx| {
        let mut client = Client::connect(nginx.port);
        for _ in 0..2 {
            assert_eq!(client.get("/x").status, 200);
        }
    });
    let found = records.iter().map(|record| {
        let name = record.place.upstream_name.as_deref();
        (record.upstream_cache_status, name)
    });
    let expected = [
        (Some(CacheStatus::Miss), Some("127.0.0.1")),
        (Some(CacheStatus::Hit), None),
    ];
    assert!(found.eq(expected), "{records:#?}");
}
