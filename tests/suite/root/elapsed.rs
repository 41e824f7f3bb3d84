// SPDX-License-Identifier: MIT OR Apache-2.0
//! `elapsed_ns`: the life of a request, from its first byte to the moment at which nginx ends it.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use rustls::version::TLS13;

use crate::suite::common::client::Client;
use crate::suite::common::delay;
use crate::suite::common::http2;
use crate::suite::common::http2::Http2;
use crate::suite::common::nginx::Config;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::record::Record;
use crate::suite::common::record::assert_equal;
use crate::suite::common::tls;
use crate::suite::common::tls::Tls;
use crate::suite::common::tool::Tool;
use crate::suite::common::upstream::Upstream;
use crate::suite::root::times::slack;
use crate::suite::root::times::slack_of_slow_machine;

/// Clients that are fast, slow and incomplete, all at once.
mod odd_clients;

/// A server for clients that are slow in every way, without and with TLS.
const HTTP: &str = "
    client_header_timeout 300ms;
    server {
        listen 127.0.0.1:{port};
        listen 127.0.0.1:{tls} ssl http2;
        root {prefix}/html;
        location / { }
        location /return { return 200 'hello\\n'; }
        location /bye { return 444; }
        location /slow { proxy_pass http://127.0.0.1:{upstream}/wait-3000; }
    }";

/// How long each slow client takes, in milliseconds.
const SLOW: u64 = 300;

/// Waits as long as a slow client.
fn pause() {
    delay(Duration::from_millis(SLOW));
}

/// Sends half a header, leaves before the upstream answers, and does not read a response. Each
/// takes as long as `pause()`. `client` connects.
fn slow_http1(client: impl Fn() -> Client) {
    let mut silent = client();
    silent.send("GET /return HTTP/1.1\r\nHost: t\r\n");
    silent.rest();
    for uri in ["/slow", "/large"] {
        let mut gone = client();
        gone.send(format!("GET {uri} HTTP/1.1\r\nHost: t\r\n\r\n"));
        pause();
    }
}

/// Resets a stream before its upstream answers, and gives another one no window for its response.
fn slow_http2(port: u16) {
    let stream = Tls::begin(port, &TLS13, &["h2"]).finish().into_stream();
    let mut http = Http2::start(stream, 100);
    http.send(&[http2::get(1, "/slow"), http2::get(3, "/large")].concat());
    http.receive_some();
    pause();
    http.send(&[http2::reset(1), http2::reset(3)].concat());
    http.send(&http2::get(5, "/return"));
    http.receive([5]);
}

/// Check that a long request passes `--min-duration`, whatever its end: without an answer (499,
/// 408), or with a response that the client did not read; over HTTP/1, TLS and HTTP/2. A short
/// request is filtered.
#[test]
fn min_duration() {
    let upstream = Upstream::start();
    let (http, port) = tls::with_port(HTTP);
    let nginx = Nginx::prepared(&http, upstream.port, tls::certificate);
    nginx.file("large", &vec![b'x'; 32 << 20]);
    let pid = nginx.pid().to_string();
    let least = format!("{}ms", SLOW * 4 / 5);
    let tool = Tool::start(&["--json", "--min-duration", &least, "-p", &pid], 1);
    slow_http1(|| Client::connect(nginx.port));
    slow_http1(|| {
        Tls::begin(port, &TLS13, &["http/1.1"])
            .finish()
            .into_client()
    });
    slow_http2(port);
    let mut client = Client::connect(nginx.port);
    for uri in ["/return", "/nothing"] {
        client.get(uri);
    }
    client.send("GET /bye HTTP/1.1\r\nHost: t\r\n\r\n");
    client.rest();
    let logged = nginx.quit();
    let ended = tool.wait();
    ended.assert_clean();
    let (slow, quick): (Vec<_>, Vec<_>) = logged
        .into_iter()
        .partition(|l| l.status == "408" || ["/slow", "/large"].contains(&&*l.uri));
    let records = ended.records();
    assert_equal(&records, &slow);
    assert_eq!((slow.len(), quick.len()), (8, 4));
    assert_eq!(ended.summary().filtered, 4);
    for record in &records {
        let elapsed = record.elapsed_ns.unwrap();
        let range = SLOW * 800_000..(SLOW + slack()) * 1_000_000;
        assert!(range.contains(&elapsed), "{record:#?}");
        assert!(record.duration_ns < Some(elapsed), "{record:#?}");
    }
}

/// The least number of requests to compare with nginx's clock.
const REQUESTS: usize = 10_000;

/// A server for all kinds of clients, and nginx's own log of the times.
const MIXED: &str = "
    log_format life '$pid $connection $connection_requests $msec $request_time';
    access_log {prefix}/life.log life;
    keepalive_requests 100;
    client_header_timeout {limit}ms;
    client_body_timeout {limit}ms;
    send_timeout 200ms;
    server {
        listen 127.0.0.1:{port};
        listen 127.0.0.1:{tls} ssl http2;
        root {prefix}/html;
        location / { }
        location /return { return 200 'hello\\n'; }
        location /bye { return 444; }
        location /proxied/ { proxy_pass http://127.0.0.1:{upstream}; }
        location /unbuffered/ { proxy_pass http://127.0.0.1:{upstream}; proxy_request_buffering off; }
        location /mirrored { mirror /proxied/wait-10; root {prefix}/html; try_files /file =404; }
        location /after { post_action /proxied/wait-10; root {prefix}/html; try_files /file =404; }
    }";

/// A request in nginx's log, by nginx's clock, in milliseconds: when it ended, and how long it
/// took.
type Life = (u64, u64);

/// Returns the life of every request, by worker, connection and number on it.
fn lives(nginx_log: &str) -> BTreeMap<(u32, u64, u64), Life> {
    let ms = |text: &str| text.replace('.', "").parse().unwrap();
    let life = |line: &str| {
        let parts: Vec<&str> = line.split(' ').collect();
        let [pid, connection, requests, ended, took] = parts[..] else {
            panic!("{line}");
        };
        let key = (
            pid.parse().unwrap(),
            connection.parse().unwrap(),
            requests.parse().unwrap(),
        );
        (key, (ms(ended), ms(took)))
    };
    nginx_log.lines().map(life).collect()
}

/// Asserts that the start and the end of each request agree with nginx's clock.
///
/// nginx reads the clock once in a turn of its event loop, when `epoll_wait()` returns, and
/// truncates it to milliseconds (`ngx_time_update()`); `$request_time` is the difference of two
/// such readings. An event within a turn gets the reading of that turn: it never happens before
/// this reading, and always before the reading of the next turn. So a moment that nginx has at C
/// lies between C and the next reading, which is at most a millisecond after the next one that
/// nginx has logged for any request of this worker. Two wall clocks, of which ngx-bpf's is computed
/// from the monotonic one, may differ by 200 µs.
pub fn assert_lives(records: &[Record], nginx_log: &str) {
    const CLOCKS: i64 = 200_000;
    let lives = lives(nginx_log);
    let mut readings: BTreeMap<u32, BTreeSet<u64>> = BTreeMap::new();
    for ((pid, ..), (ended, took)) in &lives {
        readings
            .entry(*pid)
            .or_default()
            .extend([*ended, ended - took]);
    }
    let ns = |ms: u64| i64::try_from(ms).unwrap() * 1_000_000;
    let (mut turns, mut late) = (Vec::new(), Vec::new());
    for record in records {
        let (ended, took) = lives[&record.key()];
        assert!(record.elapsed_ns.is_some(), "{record:#?}");
        let first = i64::try_from(record.first_ns()).unwrap();
        let elapsed = i64::try_from(record.elapsed_ns.unwrap()).unwrap();
        let queue = i64::try_from(record.waits.queue_ns.unwrap_or_default()).unwrap();
        for (ours, theirs) in [(first + queue, ended - took), (first + elapsed, ended)] {
            let next = readings[&record.pid].range(theirs + 1..).next();
            let lag = ours - ns(theirs);
            let most = next.map_or(i64::MAX, |next| ns(next + 1) - ns(theirs) + CLOCKS);
            assert!((-CLOCKS..most).contains(&lag), "{lag} {most} {record:#?}");
            turns.push(lag);
        }
        late.push((elapsed - queue - ns(took)).abs());
    }
    /* The comparison is exact to a millisecond where the machine is not slow. */
    for times in [&mut turns, &mut late] {
        times.sort_unstable();
        let (median, most) = (times[times.len() / 2], times[times.len() - 1]);
        println!(
            "{} times: median {median} ns, maximum {most} ns",
            times.len()
        );
        assert!(
            median < 2_000_000 || slack_of_slow_machine().is_some(),
            "{median}"
        );
    }
}

/// Check that ten thousand requests live as long as nginx's `$request_time` says, to a millisecond
/// and a turn of its event loop: over HTTP/1, TLS and HTTP/2, with clients that leave, stall and
/// reset.
#[test]
fn request_time() {
    let upstream = Upstream::start();
    /* Clients that are only slow must not become too slow. */
    let limit = slack_of_slow_machine().unwrap_or(500);
    let (http, port) = tls::with_port(&MIXED.replace("{limit}", &limit.to_string()));
    let config = Config {
        http: &http,
        upstream: upstream.port,
        workers: 2,
        ..Config::default()
    };
    let nginx = Nginx::prepared_with(&config, tls::certificate);
    nginx.file("file", b"hello");
    nginx.file("large", &vec![b'x'; 16 << 20]);
    let log = nginx.prefix().join("life.log");
    let tool = Tool::trace(nginx.pid());
    let logged = || fs::read_to_string(&log).unwrap_or_default().lines().count();
    odd_clients::send_until(nginx.port, port, || logged() >= REQUESTS);
    nginx.signal("QUIT");
    let ended = tool.wait();
    let life = fs::read_to_string(&log).unwrap();
    drop(nginx);
    ended.assert_clean();
    let records = ended.records();
    assert!(records.len() >= REQUESTS, "{}", records.len());
    let statuses: BTreeSet<_> = records.iter().filter_map(|r| r.status).collect();
    for status in [200, 400, 408, 444, 499] {
        assert!(statuses.contains(&status), "{statuses:?}");
    }
    assert!(records.iter().any(|record| record.waits.queue_ns.is_some()));
    assert_lives(&records, &life);
}
