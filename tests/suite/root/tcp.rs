// SPDX-License-Identifier: MIT OR Apache-2.0
//! `--tcp`: each number is what the kernel says about nginx's own socket (TCP_INFO), on connections that lose
//! segments and whose other side reads late.

use std::io::Write as _;
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::mpsc::Receiver;
use std::sync::mpsc::channel;

use ngx_bpf_record::Tcp;
use ngx_bpf_record::TcpConnection;

use crate::suite::common::PATIENCE;
use crate::suite::common::client::Client;
use crate::suite::common::http2;
use crate::suite::common::http2::Http2;
use crate::suite::common::http3;
use crate::suite::common::http3::Http3;
use crate::suite::common::listener::read_head;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::ports::free_port;
use crate::suite::common::record::Record;
use crate::suite::common::tcp::HEADER_MAX;
use crate::suite::common::tcp::TcpInfo;
use crate::suite::common::tcp::lose;
use crate::suite::common::tcp::lose_nothing;
use crate::suite::common::tcp::wait_info;
use crate::suite::common::tls;
use crate::suite::common::upstream::Upstream;
use crate::suite::root::requests::traced;
use crate::suite::root::requests::traced_with;

/// More bytes than the buffers of two sockets hold before anything is read.
const SIZE: usize = 12 << 20;

/// Files, and upstreams.
const HTTP: &str = "
    upstream kept { server 127.0.0.1:{upstream}; keepalive 1; }
    server {
        listen 127.0.0.1:{port};
        listen unix:{prefix}/client.sock;
        root {prefix}/html;
        proxy_http_version 1.1;
        proxy_set_header Connection '';
        location / { }
        location /kept/ { proxy_pass http://kept; }
        location /path/ { proxy_pass http://unix:{prefix}/upstream.sock:/path/; }
    }";

/// Sends requests with `--tcp`, and returns their records.
fn records(nginx: Nginx, requests: impl FnOnce(&Nginx)) -> Vec<Record> {
    traced_with(nginx, &["--tcp"], requests)
}

/// Asserts that a connection of a record is what the kernel says about nginx's socket.
fn assert_same(connection: Option<&TcpConnection>, info: &TcpInfo) {
    let connection = connection.unwrap();
    let numbers = (
        connection.rtt_us.unwrap_or(0),
        connection.retransmits.unwrap_or(0),
        connection.cwnd,
    );
    assert_eq!(
        numbers,
        (info.rtt, info.total_retrans, info.cwnd),
        "{info:?}"
    );
    /* Both are ticks of the kernel's timer, which need not be a whole number of microseconds. */
    let limited = connection.rwnd_limited_ns.unwrap_or(0) / 1000;
    let error = limited.abs_diff(info.rwnd_limited);
    assert!(
        error <= info.rwnd_limited / 1000,
        "{connection:?}, {info:?}"
    );
}

/// Starts to listen, and hands each connection over. Segments to it that are longer than this are lost, until
/// something else is said of the connection.
fn listen_losing(longer_than: u32) -> (u16, Receiver<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    lose(&listener, longer_than);
    let (sender, accepted) = channel();
    std::thread::spawn(move || {
        let mut connections = listener.incoming().flatten();
        connections.all(|connection| sender.send(connection).is_ok())
    });
    (port, accepted)
}

/// Sends a request, and does not wait for the response.
fn ask(client: &mut Client, uri: &str) {
    client.send(format!("GET {uri} HTTP/1.1\r\nHost: test\r\n\r\n"));
}

/// Answers a request.
fn answer(stream: &mut TcpStream) {
    read_head(stream).unwrap();
    stream
        .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
        .unwrap();
}

/// Check a client that loses the beginning of a response and then reads late, and its next request, whose
/// upstream does not answer: nothing changes on either connection until the client leaves.
#[test]
fn client() {
    if std::env::var_os("NGX_BPF_TEST_SOCKETS").is_some_and(|source| source == "syscall") {
        eprintln!("SKIP: system calls do not show an upstream's connection when it is closed");
        return;
    }
    let (port, accepted) = listen_losing(u32::MAX);
    let nginx = Nginx::with(HTTP, port);
    nginx.file("large", &vec![b'x'; SIZE]);
    let worker = nginx.workers()[0];
    let mut infos = Vec::new();
    let records = records(nginx, |nginx| {
        let stream = TcpStream::connect(("127.0.0.1", nginx.port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let address = Some(stream.local_addr().unwrap());
        let mut client = Client::new(Box::new(stream.try_clone().unwrap()));
        lose(&stream, HEADER_MAX);
        ask(&mut client, "/large");
        infos.push(wait_info(worker, address, |info| info.total_retrans > 1));
        lose_nothing(&stream);
        infos.push(wait_info(worker, address, |info| {
            info.rwnd_limited > 20_000
        }));
        assert_eq!(client.receive().body.len(), SIZE);
        infos.push(wait_info(worker, address, TcpInfo::is_idle));
        ask(&mut client, "/kept/");
        let mut upstream = accepted.recv_timeout(PATIENCE).unwrap();
        read_head(&mut upstream).unwrap();
        infos.push(wait_info(worker, address, TcpInfo::is_idle));
        let address = Some(upstream.local_addr().unwrap());
        infos.push(wait_info(worker, address, TcpInfo::is_idle));
        drop((client, stream));
        nginx.wait_logged(2);
    });
    let first = records[0].tcp.client.as_ref().unwrap();
    let retransmits = infos[0].total_retrans..=infos[2].total_retrans;
    assert!(
        retransmits.contains(&first.retransmits.unwrap()),
        "{first:?}"
    );
    let limited = infos[1].rwnd_limited..=infos[2].rwnd_limited;
    let limited_us = first.rwnd_limited_ns.unwrap() / 1000;
    assert!(limited.contains(&limited_us), "{first:?}, {infos:?}");
    assert_eq!(records[0].tcp.upstream, None);
    assert_eq!(records[1].status, Some(499));
    assert_same(records[1].tcp.client.as_ref(), &infos[3]);
    assert_same(records[1].tcp.upstream.as_ref(), &infos[4]);
    assert_eq!(records.len(), 2);
}

/// Check an upstream that loses the first segments of a request. The connection is kept, and its numbers are those
/// of both requests.
#[test]
fn kept_upstream() {
    let (port, accepted) = listen_losing(HEADER_MAX);
    let nginx = Nginx::with(HTTP, port);
    let worker = nginx.workers()[0];
    let mut infos = Vec::new();
    let records = records(nginx, |nginx| {
        let mut client = Client::connect(nginx.port);
        ask(&mut client, "/kept/");
        let mut upstream = accepted.recv_timeout(PATIENCE).unwrap();
        let address = Some(upstream.local_addr().unwrap());
        wait_info(worker, address, |info| info.total_retrans > 0);
        lose_nothing(&upstream);
        for is_first in [true, false] {
            if !is_first {
                ask(&mut client, "/kept/");
            }
            answer(&mut upstream);
            assert_eq!(client.receive().status, 200);
            infos.push(wait_info(worker, address, TcpInfo::is_idle));
        }
    });
    assert_eq!(records.len(), 2);
    for (record, info) in records.iter().zip(&infos) {
        assert!(info.total_retrans > 0);
        assert_same(record.tcp.upstream.as_ref(), info);
    }
    assert_eq!(records[1].upstreams[0].connection_requests, Some(2));
}

/// Check an upstream that no SYN reaches: there is no round trip, and the SYN was sent again.
#[test]
fn unreachable_upstream() {
    if std::env::var_os("NGX_BPF_TEST_SOCKETS").is_some_and(|source| source == "syscall") {
        eprintln!("SKIP: system calls do not show an upstream's connection when it is closed");
        return;
    }
    let (port, _accepted) = listen_losing(0);
    let nginx = Nginx::with(HTTP, port);
    let worker = nginx.workers()[0];
    let mut infos = Vec::new();
    let records = records(nginx, |nginx| {
        let mut client = Client::connect(nginx.port);
        ask(&mut client, "/kept/");
        infos.push(wait_info(worker, None, |info| info.total_retrans > 0));
    });
    assert_eq!(records[0].status, Some(499));
    let upstream = records[0].tcp.upstream.as_ref().unwrap();
    /* The kernel may have lost one more by the end, and then sends less at once. */
    assert!(upstream.retransmits >= Some(infos[0].total_retrans));
    assert!((1..=infos[0].cwnd).contains(&upstream.cwnd));
    assert_eq!(upstream.rtt_us, None);
}

/// Check that unix sockets have no numbers, also after an attempt that has, and that all streams of HTTP/2 have
/// those of their connection.
#[test]
fn other_sockets() {
    let upstream = Upstream::start();
    let port = free_port();
    let http = HTTP.replace(
        "location / { }",
        "location / { error_page 502 =200 /path/; proxy_pass http://127.0.0.1:9; }",
    );
    let http =
        format!("{http} server {{ listen 127.0.0.1:{port} http2; location / {{ return 200; }} }}");
    let nginx = Nginx::with(&http, upstream.port);
    Upstream::start_unix(&nginx.prefix().join("upstream.sock"));
    let records = records(nginx, |nginx| {
        let path = nginx.prefix().join("client.sock");
        assert_eq!(Client::to_path(&path).get("/path/").status, 200);
        let mut client = Client::connect(nginx.port);
        assert_eq!(client.get("/path/").status, 200);
        assert_eq!(client.get("/").status, 200);
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let mut http = Http2::start(Box::new(stream), 1 << 20);
        http.send(&[http2::get(1, "/"), http2::get(3, "/")].concat());
        http.receive([1, 3]);
    });
    assert_eq!(records[0].tcp, Tcp::default());
    for record in &records[1..] {
        assert!(record.tcp.client.as_ref().unwrap().rtt_us.is_some());
        assert_eq!(record.tcp.upstream, None, "{record:#?}");
    }
    assert_eq!(records.len(), 5);
}

/// Check that a connection of HTTP/3 has no numbers, and its upstream has.
#[test]
fn http3() {
    if http3::is_missing() {
        return;
    }
    let upstream = Upstream::start();
    let http = [
        tls::DIRECTIVES,
        "server { listen 127.0.0.1:{port} quic;
                  location / { proxy_pass http://127.0.0.1:{upstream}; } }",
    ];
    let nginx = Nginx::prepared(&http.concat(), upstream.port, tls::certificate);
    let records = records(nginx, |nginx| {
        let mut http = Http3::connect(nginx.port);
        http.get(0, "/");
        http.receive([0]);
        http.close();
    });
    assert_eq!(records[0].tcp.client, None);
    assert!(records[0].tcp.upstream.as_ref().unwrap().rtt_us.is_some());
}

/// Check that records have no numbers without the option.
#[test]
fn unasked() {
    let upstream = Upstream::start();
    let records = traced(Nginx::with(HTTP, upstream.port), |nginx| {
        assert_eq!(Client::connect(nginx.port).get("/kept/").status, 200);
    });
    assert_eq!(records[0].tcp, Tcp::default());
}
