// SPDX-License-Identifier: MIT OR Apache-2.0
//! Each delay that a test makes is between the right two phases, and nowhere else.

use std::time::Duration;

use ngx_bpf_record::Phases;

use crate::suite::common::client::Client;
use crate::suite::common::delay;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::record::assert_equal;
use crate::suite::common::tool::Tool;
use crate::suite::common::upstream::Upstream;
use crate::suite::root::requests::traced;

/// A proxy without buffering.
const HTTP: &str = "
    server {
        listen 127.0.0.1:{port};
        location / { proxy_pass http://127.0.0.1:{upstream}; proxy_buffering off; }
        location /buffered/ { proxy_pass http://127.0.0.1:{upstream}; }
        location /return { return 200 'hello\\n'; }
        location /slow { limit_rate 50k; root {prefix}/html; }
    }";

/// The milliseconds that an upstream waits, and the number of requests with each.
const DELAYS: [u32; 4] = [0, 7, 25, 60];
const REPEATED: usize = 5;

/// Returns the milliseconds that a slow machine may add to a delay, as an emulated one does. `None` when no
/// one has said that this one is slow.
pub fn slack_of_slow_machine() -> Option<u64> {
    let slack_ms = std::env::var("NGX_BPF_TEST_SLACK").ok()?;
    Some(slack_ms.parse().unwrap())
}

/// Returns the milliseconds that this machine may add to a delay.
pub fn slack() -> u64 {
    slack_of_slow_machine().unwrap_or(400)
}

/// Asserts that there is a delay of this number of milliseconds between two phases.
pub fn assert_between(phases: &Phases, from: Option<u64>, to: Option<u64>, ms: u64) {
    let between = to.unwrap().checked_sub(from.unwrap()).unwrap();
    /* A busy nginx may also notice the earlier of the two late. */
    let least = ms * 500_000;
    assert!(
        (least..(ms + slack()) * 1_000_000).contains(&between),
        "{between} ns instead of {ms} ms: {phases:#?}"
    );
}

/// Sends a request with 20 ms within its header, and 50 ms before its body.
pub fn post_slowly(client: &mut Client, uri: &str) {
    client.send(format!("POST {uri} HTTP/1.1\r\nHost: t\r\n"));
    delay(Duration::from_millis(20));
    client.send("Content-Length: 3\r\n\r\n");
    delay(Duration::from_millis(50));
    client.send("abc");
    assert_eq!(client.receive().status, 200);
}

/// Check a client that delays its header and its body, and an upstream that delays the first and
/// the last byte of its response.
#[test]
fn every_phase() {
    let upstream = Upstream::start();
    let nginx = Nginx::with(HTTP, upstream.port);
    let records = traced(nginx, |nginx| {
        let mut client = Client::connect(nginx.port);
        delay(Duration::from_millis(40));
        post_slowly(&mut client, "/wait-60/head/wait-30/body-10");
    });
    let p = &records[0].phases;
    assert_between(p, Some(0), p.downstream_request_first_byte_time, 40);
    let header = p.downstream_request_last_byte_time;
    assert_between(p, p.downstream_request_first_byte_time, header, 20);
    let body = p.downstream_request_body_last_byte_time;
    assert_between(p, header, body, 50);
    assert_between(p, body, p.upstream_connect_time, 0);
    assert_between(
        p,
        p.upstream_connect_time,
        p.upstream_request_first_byte_time,
        0,
    );
    let (first, last) = (
        p.upstream_request_first_byte_time,
        p.upstream_request_last_byte_time,
    );
    assert_between(p, first, last, 0);
    assert_between(p, last, p.upstream_response_first_byte_time, 60);
    let response = p.upstream_response_first_byte_time;
    assert_between(p, response, p.upstream_response_last_byte_time, 30);
    assert_between(p, response, p.downstream_response_first_byte_time, 0);
    let response = p.downstream_response_first_byte_time;
    assert_between(p, response, p.downstream_response_last_byte_time, 30);
}

/// Check a response that nginx itself sends slowly.
#[test]
fn slow_response() {
    let nginx = Nginx::with(HTTP, 9);
    nginx.file("slow", &vec![b'x'; 100_000]);
    let records = traced(nginx, |nginx| {
        assert_eq!(Client::connect(nginx.port).get("/slow").body.len(), 100_000);
    });
    let p = &records[0].phases;
    let first = p.downstream_response_first_byte_time;
    let between = p.downstream_response_last_byte_time.unwrap() - first.unwrap();
    assert!(between >= 900_000_000, "{p:#?}");
}

/// Check that a request's time does not include the idle time of its connection before it, nor the
/// body of the previous request, whose end came together with it.
#[test]
fn requests_of_a_connection() {
    let nginx = Nginx::with(HTTP, 9);
    let records = traced(nginx, |nginx| {
        let mut client = Client::connect(nginx.port);
        client.get("/return");
        delay(Duration::from_millis(50));
        client.send("POST /return HTTP/1.1\r\nHost: t\r\nContent-Length: 4\r\n\r\nab");
        assert_eq!(client.receive().status, 200);
        delay(Duration::from_millis(30));
        client.send("cdGET /return HTTP/1.1\r\nHost: t\r\n\r\n");
        assert_eq!(client.receive().status, 200);
    });
    let first = |n: usize| records[n].phases.downstream_request_first_byte_time;
    let p = &records[1].phases;
    assert_between(
        p,
        records[0].phases.downstream_response_last_byte_time,
        first(1),
        50,
    );
    assert_between(&records[2].phases, first(1), first(2), 30);
    assert!(records[2].duration_ns < Some((30 + slack()) * 1_000_000));
}

/// Check that an empty line before a request, which some clients send, does not change the end of
/// its header.
#[test]
fn empty_line_before_request() {
    let nginx = Nginx::with(HTTP, 9);
    let records = traced(nginx, |nginx| {
        let mut client = Client::connect(nginx.port);
        client.send("\r\nGET /return HTTP/1.1\r\nHost: t\r");
        delay(Duration::from_millis(40));
        client.send("\n\r");
        delay(Duration::from_millis(40));
        client.send("\n");
        assert_eq!(client.receive().status, 200);
    });
    let p = &records[0].phases;
    let first = p.downstream_request_first_byte_time;
    assert_between(p, first, p.downstream_request_last_byte_time, 80);
}

/// Check that the header of the PROXY protocol does not belong to the request.
#[test]
fn proxy_protocol() {
    let nginx = Nginx::with(
        "server { listen 127.0.0.1:{port} proxy_protocol; location / { return 200 x; } }",
        9,
    );
    let records = traced(nginx, |nginx| {
        let mut client = Client::connect(nginx.port);
        client.send("PROXY TCP4 192.0.2.1 192.0.2.2 1111 80\r\n");
        delay(Duration::from_millis(40));
        client.send("GET / HTTP/1.1\r\nHost");
        delay(Duration::from_millis(30));
        client.send(": t\r\n\r\n");
        assert_eq!(client.receive().status, 200);
        assert_eq!(client.get("/").status, 200);
    });
    let p = &records[0].phases;
    assert_between(p, Some(0), p.downstream_request_first_byte_time, 40);
    let first = p.downstream_request_first_byte_time;
    assert_between(p, first, p.downstream_request_last_byte_time, 30);
    records[1].assert_complete();
}

/// Check an upstream that answers before it has the whole request: the end of the request comes
/// after the start of the response, so it has no time.
#[test]
fn early_answer() {
    let upstream = Upstream::start();
    let nginx = Nginx::with(
        "server { listen 127.0.0.1:{port}; location / { proxy_pass http://127.0.0.1:{upstream};
         proxy_http_version 1.1; proxy_request_buffering off; proxy_buffering off; } }",
        upstream.port,
    );
    let records = traced(nginx, |nginx| {
        let mut client = Client::connect(nginx.port);
        client.send("POST /early/wait-50 HTTP/1.1\r\nHost: t\r\nContent-Length: 6\r\n\r\nabc");
        delay(Duration::from_millis(50));
        client.send("def");
        assert_eq!(client.receive().status, 200);
    });
    let p = &records[0].phases;
    assert!(p.upstream_request_first_byte_time.is_some(), "{p:#?}");
    assert_eq!(p.upstream_request_last_byte_time, None, "{p:#?}");
    assert!(p.upstream_response_last_byte_time.is_some(), "{p:#?}");
}

/// Check that an interim response is not the response.
#[test]
fn interim_response() {
    let upstream = Upstream::start();
    let nginx = Nginx::with(HTTP, upstream.port);
    let records = traced(nginx, |nginx| {
        let mut client = Client::connect(nginx.port);
        client.send(
            "POST /wait-60 HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n",
        );
        client.send("x");
        assert_eq!(client.receive().status, 200);
    });
    let p = &records[0].phases;
    let header = p.downstream_request_last_byte_time;
    assert_between(p, header, p.downstream_response_first_byte_time, 60);
}

/// Check that the upstream's times agree with nginx's own, to a millisecond.
#[test]
fn upstream_response_time() {
    let upstream = Upstream::start();
    let nginx = Nginx::with(HTTP, upstream.port);
    let tool = Tool::trace(nginx.pid());
    let mut client = Client::connect(nginx.port);
    for ms in DELAYS {
        for _ in 0..REPEATED {
            client.get(&format!("/buffered/wait-{ms}"));
        }
    }
    drop(client);
    let logged = nginx.quit();
    let records = tool.wait().records();
    assert_equal(&records, &logged);
    let differences: Vec<f64> = records
        .iter()
        .zip(&logged)
        .map(|(record, logged)| {
            let p = &record.phases;
            let ours =
                p.upstream_response_last_byte_time.unwrap() - p.upstream_connect_time.unwrap();
            let theirs: f64 = logged.upstream_response_time.parse().unwrap();
            (ours as f64 / 1e6 - theirs * 1e3).abs()
        })
        .collect();
    /*
     * nginx reads its clock when its event loop wakes up, which a busy machine sometimes delays:
     * one of the requests with the same delay is not affected. Half a millisecond is rounding.
     */
    for same in differences.chunks(REPEATED) {
        assert!(same.iter().any(|ms| *ms <= 3.0), "{differences:?}");
    }
}

/// Check that the wall clock of a record is the time of its first byte.
#[test]
fn wall_clock() {
    let nginx = Nginx::simple();
    let before = jiff::Timestamp::now();
    let records = traced(nginx, |nginx| {
        Client::connect(nginx.port).get("/");
    });
    let time = records[0].time.as_deref().unwrap();
    assert_eq!(time.len(), "2026-11-22T17:17:57.962284664Z".len());
    let parsed: jiff::Timestamp = time.parse().unwrap();
    let now = jiff::Timestamp::now();
    assert!(before <= parsed && parsed <= now, "{before} {parsed} {now}");
}
