// SPDX-License-Identifier: MIT OR Apache-2.0
//! `--connections`: each connection that ends without a request, or while it is idle, has one record. nginx's error
//! log is the truth: it has the number of the connection and the reason.

use ngx_bpf_record::values::ConnectionEnd as End;
use ngx_bpf_record::values::Stage;

use crate::suite::common::client::Client;
use crate::suite::common::http2;
use crate::suite::common::http2::Http2;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::ports::free_port;
use crate::suite::common::record::Connection;
use crate::suite::common::tls;
use crate::suite::common::tool::Ended;
use crate::suite::common::tool::Tool;
use crate::suite::root::metrics::served;
use crate::suite::root::metrics::wait_line;

use cases::Case;
use cases::ask_once;
use cases::asked;
use cases::closed;
use cases::connect;
use cases::handshakes;
use cases::hello;
use cases::idle;
use cases::secured;
use cases::sent;
use cases::without_request;

mod cases;

/// A server for each kind of connection; that with `timed` soon loses patience.
const HTTP: &str = "
    server { listen 127.0.0.1:{port}; listen 127.0.0.1:{tls} ssl; location / { return 200; } }
    server {
        listen 127.0.0.1:{timed}; listen 127.0.0.1:{timed_tls} ssl;
        client_header_timeout 200ms; keepalive_timeout 200ms; location / { return 200; }
    }
    server {
        listen 127.0.0.1:{proxy} proxy_protocol; listen 127.0.0.1:{proxy_tls} ssl proxy_protocol;
        location / { return 200; }
    }
    server { listen 127.0.0.1:{http2} http2; location / { return 200; } }";

/// The ports of these servers.
struct Ports {
    plain: u16,
    tls: u16,
    timed: u16,
    timed_tls: u16,
    proxy: u16,
    proxy_tls: u16,
    http2: u16,
}

/// Starts nginx with these servers.
fn start() -> (Nginx, Ports) {
    let (http, tls) = tls::with_port(HTTP);
    let [timed, timed_tls, proxy, proxy_tls, http2] = [(); 5].map(|()| free_port());
    let mut http = http;
    for (name, port) in [
        ("{timed}", timed),
        ("{timed_tls}", timed_tls),
        ("{proxy}", proxy),
        ("{proxy_tls}", proxy_tls),
        ("{http2}", http2),
    ] {
        http = http.replace(name, &port.to_string());
    }
    let nginx = Nginx::prepared(&http, 9, tls::certificate);
    let plain = nginx.port;
    let ports = Ports {
        plain,
        tls,
        timed,
        timed_tls,
        proxy,
        proxy_tls,
        http2,
    };
    (nginx, ports)
}

/// Traces these connections. Returns what the tool has printed, and of each connection its client's port, and its
/// number if nginx has logged one.
fn traced(nginx: Nginx, ports: &Ports, cases: &[Case]) -> (Ended, Vec<(u16, Option<u64>)>) {
    let pid = nginx.pid().to_string();
    let tool = Tool::start(&["--pid", &pid, "--json", "--connections"], 1);
    let mut seen = Vec::new();
    for case in cases {
        let stream = (case.connection)(ports);
        let port = stream.local_addr().unwrap().port();
        drop(stream);
        let number = (!case.logged.is_empty()).then(|| {
            let line = nginx.wait_for_log(case.logged);
            let (_, rest) = line.split_once(" *").unwrap();
            rest.split(' ').next().unwrap().parse().unwrap()
        });
        seen.push((port, number));
    }
    /* These have nothing to report: the record of their request says how they ended. */
    ask_once(ports);
    let mut client = Client::connect(ports.plain);
    client.send("GET / HTTP/1.1\r\nHo");
    drop(client);
    nginx.wait_for_log("prematurely closed connection");
    nginx.quit();
    (tool.wait(), seen)
}

/// Asserts that the records are those of the cases, each once.
fn assert_cases(ended: &Ended, seen: &[(u16, Option<u64>)], cases: &[Case]) -> Vec<Connection> {
    ended.assert_clean();
    let connections = ended.connections();
    for ((port, number), case) in seen.iter().zip(cases) {
        let mut of_port = connections.iter().filter(|c| c.peer_port == Some(*port));
        let connection = of_port
            .next()
            .unwrap_or_else(|| panic!("{}, {:?}: {connections:#?}", case.logged, case.stage));
        assert!(of_port.next().is_none(), "{connections:#?}");
        let found = (connection.stage, connection.end);
        assert_eq!(found, (case.stage, Some(case.end)), "{connection:#?}");
        if let Some(number) = number {
            assert_eq!(connection.connection, *number);
        }
        assert_eq!(connection.peer_addr.as_deref(), Some("127.0.0.1"));
        assert!(connection.connection_ns.is_some() && connection.accept_queue_ns.is_some());
    }
    assert_eq!(connections.len(), cases.len(), "{connections:#?}");
    let last = format!("{0} connections, 0 lost ({0} seen)", cases.len());
    assert!(
        ended.stderr.iter().any(|line| line.ends_with(&last)),
        "{:?}",
        ended.stderr
    );
    connections
}

/// Traces connections without a request, and asserts that their records say so.
fn check_without_request(cases: &[Case]) {
    let (nginx, ports) = start();
    let (ended, seen) = traced(nginx, &ports, cases);
    for connection in assert_cases(&ended, &seen, cases) {
        assert_eq!(connection.connection_requests, None, "{connection:#?}");
        assert_eq!(connection.idle_ns, None, "{connection:#?}");
        let is_encrypted = connection.server_port == Some(ports.tls)
            || connection.server_port == Some(ports.timed_tls);
        let is_over = connection.stage == Stage::BeforeRequest;
        let has_handshake = connection.tls_handshake_ns.is_some();
        assert_eq!(has_handshake, is_encrypted && is_over, "{connection:#?}");
    }
    assert_eq!(ended.records().len(), 2);
}

/// Check every way in which a connection ends before its first byte, or after its PROXY protocol header.
#[test]
fn before_requests() {
    check_without_request(&without_request());
}

/// Check every way in which a connection ends within its TLS handshake, or after it.
#[test]
fn in_handshakes() {
    check_without_request(&handshakes());
}

/// Check every way in which a connection ends after its last request.
#[test]
fn after_requests() {
    let (nginx, ports) = start();
    let cases = idle();
    let (ended, seen) = traced(nginx, &ports, &cases);
    let connections = assert_cases(&ended, &seen, &cases);
    for connection in &connections {
        assert_eq!(connection.connection_requests, Some(1), "{connection:#?}");
        let idle_ns = connection.idle_ns.unwrap();
        assert!(Some(idle_ns) < connection.connection_ns, "{connection:#?}");
    }
    let timed = connections
        .iter()
        .find(|c| c.end == Some(End::Timeout))
        .unwrap();
    assert!(timed.idle_ns.unwrap() > 150_000_000, "{timed:#?}");
    assert_eq!(ended.records().len(), cases.len() + 2);
}

/// Check connections of HTTP/2, of which one has had requests, and one that a reload takes from its client.
#[test]
fn other_ends() {
    let (nginx, ports) = start();
    let pid = nginx.pid().to_string();
    let tool = Tool::start(&["--pid", &pid, "--json", "--connections"], 1);
    for streams in [&[][..], &[1, 3]] {
        let mut http = Http2::start(Box::new(connect(ports.http2)), 1 << 20);
        for stream in streams {
            http.send(&http2::get(*stream, "/"));
        }
        http.receive(streams.iter().copied());
        http.ping();
        drop(http);
        ask_once(&ports);
    }
    let stream = asked(ports.plain);
    nginx.signal("HUP");
    closed(stream);
    nginx.quit();
    let ended = tool.wait();
    ended.assert_clean();
    let ends: Vec<_> = ended
        .connections()
        .iter()
        .map(|c| (c.stage, c.end, c.connection_requests))
        .collect();
    assert_eq!(
        ends,
        [
            (Stage::BeforeRequest, Some(End::ClientClosed), None),
            (Stage::Keepalive, Some(End::ClientClosed), Some(2)),
            (Stage::Keepalive, Some(End::Reclaimed), Some(1)),
        ]
    );
}

/// Check that nothing but the option makes such records, and that handshakes that fail are counted without it.
#[test]
fn unasked() {
    let (nginx, ports) = start();
    let metrics = free_port();
    let pid = nginx.pid().to_string();
    let port = metrics.to_string();
    let tool = Tool::start(&["--pid", &pid, "--json", "--metrics", &port], 1);
    closed(sent(ports.tls, b"\x16\x03\x01\x00\x05hello"));
    nginx.wait_for_log("SSL_do_handshake() failed");
    drop(secured(ports.tls));
    nginx.wait_for_log("client closed connection");
    drop(sent(ports.tls, &hello(50)));
    nginx.wait_for_log("peer closed connection in SSL");
    drop(asked(ports.plain));
    wait_line("nginx_tls_handshake_failures_total 2", || served(metrics));
    nginx.quit();
    let ended = tool.wait();
    ended.assert_clean();
    assert!(ended.connections().is_empty());
}
