// SPDX-License-Identifier: MIT OR Apache-2.0
//! `--format otlp`: spans, compared with the JSON records of the same requests.

use std::process::Command;
use std::time::Duration;

use rustls::version::TLS13;

use super::tls::Chain;
use super::trace_context::FIRST;
use super::trace_context::SECOND;
use crate::suite::common::build::LIMIT_REQ;
use crate::suite::common::build::is_built_without;
use crate::suite::common::client::Client;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::record::Record;
use crate::suite::common::spans::Tree;
use crate::suite::common::spans::attribute;
use crate::suite::common::spans::hex;
use crate::suite::common::spans::length;
use crate::suite::common::tls::Tls;
use crate::suite::common::tool::Ended;
use crate::suite::common::tool::PROGRAM;
use crate::suite::common::tool::Tool;
use crate::suite::common::upstream::Upstream;

mod delivery;
mod store;

/// A group whose first server refuses connections, and a location that waits.
const HTTP: &str = "
    limit_req_zone $pid zone=five:64k rate=5r/s;
    upstream retried { server 127.0.0.1:9 max_fails=0; server 127.0.0.1:{upstream} backup; }
    server {
        listen 127.0.0.1:{port};
        server_name shop.test;
        location /retried/ { proxy_pass http://retried; }
        location /plain/ { return 200 'hello\\n'; }
        location /slow/ {
            limit_req zone=five burst=9;
            auth_request /check/wait-50;
            proxy_pass http://127.0.0.1:{upstream};
        }
        location /cut/ { proxy_read_timeout 300ms; proxy_pass http://127.0.0.1:{upstream}; }
        location /check/ { internal; proxy_pass http://127.0.0.1:{upstream}; }
    }";

/// How far the clocks of two tools may be from each other, and their times of the same moment.
const CLOCKS: u64 = Duration::from_millis(2).as_nanos() as u64;

/// Traces these requests by two tools, one of which writes JSON and the other one spans. Returns the records, and the
/// end of the other tool.
fn traced(nginx: Nginx, options: &[&str], requests: impl FnOnce(&Nginx)) -> (Vec<Record>, Ended) {
    let pid = nginx.pid().to_string();
    let json = Tool::trace(nginx.pid());
    let spans = [&["--pid", &pid, "--format", "otlp"], options].concat();
    let spans = Tool::start(&spans, 1);
    requests(&nginx);
    drop(nginx);
    let json = json.wait();
    json.assert_clean();
    let ended = spans.wait();
    ended.assert_clean();
    (json.records(), ended)
}

/// Asserts that two times are the same, as far as two tools can have the same.
fn assert_near(one: u64, other: u64, what: &str) {
    assert!(one.abs_diff(other) < CLOCKS, "{what}: {one} and {other}");
}

/// Asserts that spans are those of a record: the server's, and one for each attempt.
fn assert_record(tree: &Tree, record: &Record) {
    tree.assert_nested();
    let server = &tree.server;
    assert_eq!(tree.resource["process.pid"], record.pid.to_string());
    assert_near(server.start_time_unix_nano, record.first_ns(), "begin");
    assert_near(length(server), record.elapsed_ns.unwrap(), "length");
    let uri = attribute(server, "url.path");
    assert_eq!(uri.as_deref(), record.request_uri.as_deref());
    let status = attribute(server, "http.response.status_code");
    assert_eq!(status, record.status.map(|status| status.to_string()));
    let connection = attribute(server, "nginx.connection");
    assert_eq!(
        connection,
        record.connection.map(|number| number.to_string())
    );
    let clients = tree.clients();
    let attempts: Vec<_> = record.all_attempts().collect();
    assert_eq!(clients.len(), attempts.len(), "{tree:#?}");
    for (client, attempt) in clients.into_iter().zip(attempts) {
        assert_eq!(
            attribute(client, "nginx.addr").as_deref(),
            attempt.addr.as_deref()
        );
        let first = record.phases.downstream_request_first_byte_time.unwrap();
        let connect = attempt.upstream_connect_time.unwrap() - first;
        assert_near(
            client.start_time_unix_nano,
            record.first_ns() + connect,
            "connect",
        );
        let last = attempt.upstream_response_last_byte_time;
        if let Some(last) = last.filter(|_| attempt.failure.is_none()) {
            assert_near(
                client.end_time_unix_nano,
                record.first_ns() + last - first,
                "last",
            );
        }
    }
}

/// Check attempts for whose response nginx waits in vain, whether a part of it has come or nothing: they last as long as
/// nginx waits.
#[test]
fn cut_short() {
    let upstream = Upstream::start();
    let nginx = Nginx::with(HTTP, upstream.port);
    let (records, ended) = traced(nginx, &[], |nginx| {
        for uri in ["/cut/hang", "/cut/half-10/hang"] {
            let mut client = Client::connect(nginx.port);
            client.send(format!(
                "GET {uri} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
            ));
            client.rest();
        }
    });
    let trees = Tree::of_lines(&ended.stdout);
    assert_eq!((trees.len(), records.len()), (2, 2));
    for (tree, record) in trees.iter().zip(&records) {
        assert_record(tree, record);
        let client = tree.clients()[0];
        assert_eq!(attribute(client, "error.type").as_deref(), Some("timeout"));
        assert!(length(client) >= 290_000_000, "{tree:#?}");
        assert!(length(client) <= length(&tree.server), "{tree:#?}");
    }
    let last = records[1].upstreams[0].upstream_response_last_byte_time;
    assert!(last.is_some(), "{:#?}", records[1]);
}

/// Check a request that is tried again, plain ones, and one that waits for `limit_req` and for `auth_request`, each
/// against its JSON record.
#[test]
fn spans() {
    if ["http_auth_request_module", LIMIT_REQ]
        .into_iter()
        .any(is_built_without)
    {
        return;
    }
    let upstream = Upstream::start();
    let nginx = Nginx::with(HTTP, upstream.port);
    let (records, ended) = traced(nginx, &[], |nginx| {
        let mut client = Client::connect(nginx.port);
        for uri in [
            "/retried/",
            "/plain/",
            "/slow/",
            "/slow/wait-30",
            "/status-503",
            "/retried/status-404",
        ] {
            client.get(uri);
        }
    });
    let trees = Tree::of_lines(&ended.stdout);
    assert_eq!(trees.len(), records.len());
    for (tree, record) in trees.iter().zip(&records) {
        assert_record(tree, record);
        assert_eq!(tree.resource["service.name"], "shop.test");
    }
    let [retried, plain, _, slow, unavailable, missing] = &trees[..] else {
        panic!("{trees:#?}");
    };
    assert_retried(retried, upstream.port);
    assert!(plain.others.is_empty(), "{plain:#?}");
    assert_slow(slow, &records[3]);
    assert_eq!(unavailable.server.name, "GET");
    let status = unavailable.server.status.as_ref();
    assert!(status.is_none_or(|status| status.code == 0));
    let missing = attribute(missing.clients()[1], "error.type");
    assert_eq!(missing.as_deref(), Some("404"));
}

/// Asserts that both attempts of a request have their spans, and that an event says that there was a second one.
fn assert_retried(retried: &Tree, upstream: u16) {
    assert_eq!(retried.server.name, "GET /retried/");
    let [first, second] = retried.clients()[..] else {
        panic!("{retried:#?}");
    };
    assert_eq!(
        attribute(first, "error.type").as_deref(),
        Some("connect_error")
    );
    assert_eq!(first.status.as_ref().unwrap().code, 2);
    assert_eq!(attribute(first, "http.request.resend_count"), None);
    assert_eq!(
        attribute(second, "http.request.resend_count").as_deref(),
        Some("1")
    );
    assert_eq!(attribute(second, "server.port"), Some(upstream.to_string()));
    assert_eq!(retried.named("connect").len(), 1);
    let event = &retried.server.events[0];
    assert_eq!(event.name, "nginx.upstream.retry");
}

/// Asserts that the waits of a request have spans of their length, and its subrequest has one.
fn assert_slow(slow: &Tree, record: &Record) {
    for (name, wait) in [
        ("limit_req_delay", record.waits.limit_req_delay_ns),
        ("auth", record.waits.auth_ns),
    ] {
        let [span] = slow.named(name)[..] else {
            panic!("{slow:#?}");
        };
        assert_near(length(span), wait.unwrap(), name);
    }
    assert_eq!(slow.named("subrequest").len(), 1);
}

/// Check that a trace of the client is kept with its parent, that one that is not sampled is left out and counted,
/// and that a request without one has a trace of its own, unless only traced ones are asked for.
#[test]
fn traces() {
    for (option, expected) in [(None, 3), (Some("--traced-only"), 1)] {
        let options: Vec<&str> = option.into_iter().chain(["--service", "gate"]).collect();
        let (records, ended) = traced(Nginx::simple(), &options, |nginx| {
            let mut client = Client::connect(nginx.port);
            let first = format!("traceparent: {FIRST}\r\n");
            let second = format!("traceparent: {SECOND}\r\n");
            for header in [&first, "", &second, ""] {
                client.send(format!("GET / HTTP/1.1\r\nHost: test\r\n{header}\r\n"));
                client.receive();
            }
        });
        let flags = records
            .iter()
            .map(|record| record.trace.trace_flags.as_deref());
        assert_eq!(
            flags.collect::<Vec<_>>(),
            [Some("01"), None, Some("00"), None]
        );
        let trees = Tree::of_lines(&ended.stdout);
        assert_eq!(trees.len(), expected);
        let summary = ended.summary();
        assert_eq!((summary.written, summary.seen), (expected as u64, 4));
        let server = &trees[0].server;
        assert_eq!(hex(&server.trace_id), FIRST[3..35]);
        assert_eq!(hex(&server.parent_span_id), FIRST[36..52]);
        assert_eq!(server.flags, 0x301);
        for tree in &trees {
            assert_eq!(tree.resource["service.name"], "gate");
        }
        for tree in &trees[1..] {
            assert!(tree.server.parent_span_id.is_empty() && tree.server.flags == 0x101);
            assert_ne!(tree.server.trace_id, server.trace_id);
        }
    }
}

/// Check the handshake with an upstream over TLS.
#[test]
fn tls() {
    let chain = Chain::start();
    let pid = chain.front.pid().to_string();
    let spans = Tool::start(&["--pid", &pid, "--format", "otlp"], 1);
    let records = chain.traced(|nginx| {
        let mut client = Tls::begin(nginx.port, &TLS13, &[]).finish().into_client();
        for uri in ["/kept/", "/kept/wait-20"] {
            assert_eq!(client.get(uri).status, 200);
        }
    });
    let ended = spans.wait();
    ended.assert_clean();
    let trees = Tree::of_lines(&ended.stdout);
    let [new, kept] = &trees[..] else {
        panic!("{trees:#?}");
    };
    for (tree, record) in trees.iter().zip(&records) {
        assert_record(tree, record);
    }
    let [handshake] = new.named("tls_handshake")[..] else {
        panic!("{new:#?}");
    };
    let attempt = &records[0].upstreams[0];
    assert_near(
        length(handshake),
        attempt.upstream_tls_ns.unwrap(),
        "handshake",
    );
    assert_eq!(handshake.parent_span_id, new.clients()[0].span_id);
    assert_eq!(
        attribute(&new.server, "url.scheme").as_deref(),
        Some("https")
    );
    assert!(kept.named("connect").is_empty() && kept.named("tls_handshake").is_empty());
}

/// Check that a full disk loses whole batches, each request of which is counted, and that the message names the cause.
#[test]
fn full_disk() {
    let nginx = Nginx::simple();
    let mut tool = Tool::spawn(Command::new(PROGRAM).args([
        "--pid",
        &nginx.pid().to_string(),
        "--format",
        "otlp",
        "-o",
        "/dev/full",
    ]));
    tool.read_stdout();
    tool.wait_ready(1);
    let mut client = Client::connect(nginx.port);
    for _ in 0..5 {
        client.get("/");
    }
    tool.wait_for_message("failed to write records");
    drop((client, nginx));
    let ended = tool.wait();
    assert_eq!(ended.status.code(), Some(1));
    let summary = ended.summary();
    assert_eq!((summary.written, summary.lost, summary.seen), (0, 5, 5));
    let said = ended
        .stderr
        .iter()
        .any(|line| line.contains("requests were lost (write_failed)"));
    assert!(said, "{:?}", ended.stderr);
}
