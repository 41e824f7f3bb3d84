// SPDX-License-Identifier: MIT OR Apache-2.0
//! The client's address, as nginx has it and as the socket has it.

use std::borrow::Cow;
use std::io::Write as _;
use std::net::SocketAddr;
use std::net::TcpStream;

use crate::suite::common::PATIENCE;
use crate::suite::common::build::is_built_without;
use crate::suite::common::client::Client;
use crate::suite::common::client::reset;
use crate::suite::common::http2;
use crate::suite::common::http2::Http2;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::program::kill;
use crate::suite::common::program::stop;
use crate::suite::common::record::Record;
use crate::suite::root::requests::traced;

/// Check the header of the PROXY protocol, in both versions, and that its bytes do not belong to
/// the request. Without realip nginx takes the proxy for the client.
#[test]
fn proxy_protocol() {
    let nginx = Nginx::with(
        "server { listen 127.0.0.1:{port} proxy_protocol; location / { return 200; } }",
        9,
    );
    let records = traced(nginx, |nginx| {
        for header in [V1.as_bytes(), V2] {
            let mut client = Client::connect(nginx.port);
            client.send(header);
            assert_eq!(client.get("/").status, 200);
        }
    });
    for record in records {
        record.assert_complete();
        assert_eq!(record.remote_addr.as_deref(), Some("127.0.0.1"));
        assert_eq!((&record.peer_addr, record.peer_port), (&None, None));
    }
}

/// Check a client that resets its connection before nginx first reads it: no port is 0, and the
/// server's port is the one on which it listens.
#[test]
fn reset_at_once() {
    let nginx = Nginx::with(
        "server { listen 127.0.0.1:{port}; listen [::1]:{port}; location / { return 200; } }",
        9,
    );
    let port = nginx.port;
    let records = traced(nginx, |nginx| {
        for n in 0..20 {
            let worker = nginx.workers()[0];
            stop(worker);
            let host = ["127.0.0.1", "::1"][n % 2];
            let mut stream = TcpStream::connect((host, port)).unwrap();
            stream
                .write_all(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n")
                .unwrap();
            reset(&stream);
            kill("CONT", worker);
            nginx.wait_logged(n + 1);
        }
    });
    assert_eq!(records.len(), 20);
    for record in records {
        assert_eq!(record.server_port, Some(port), "{record:#?}");
        assert!(record.remote_port.is_some(), "{record:#?}");
        assert_eq!((&record.peer_addr, record.peer_port), (&None, None));
    }
}

/// The first version: 192.0.2.7, port 1234.
const V1: &str = "PROXY TCP4 192.0.2.7 192.0.2.1 1234 80\r\n";

/// The second version: 192.0.2.8, port 1235.
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x08\xc0\0\x02\x01\x04\xd3\0\x50";

/// Check realip, with the PROXY protocol and with a header, over IPv4, IPv6 and a unix socket:
/// `remote_addr` is the announced client, `peer_addr` the connected one.
#[test]
fn real_ip() {
    if is_built_without("http_realip_module") {
        return;
    }
    let nginx = Nginx::with(
        "set_real_ip_from 127.0.0.1; set_real_ip_from ::1; set_real_ip_from unix:;
         server { listen 127.0.0.1:{port} proxy_protocol; real_ip_header proxy_protocol;
                  location / { return 200; } }
         server { listen [::1]:{port}; listen unix:{prefix}/client.sock; real_ip_header X-Real-IP;
                  location / { return 200; } }",
        9,
    );
    let request = "GET / HTTP/1.1\r\nHost: t\r\nX-Real-IP: 2001:db8::9\r\n\r\n";
    let records = traced(nginx, |nginx| {
        for header in [V1.as_bytes(), V2] {
            let mut client = Client::connect(nginx.port);
            client.send(header);
            assert_eq!(client.get("/").status, 200);
            assert_eq!(client.get("/").status, 200);
        }
        let address: SocketAddr = format!("[::1]:{}", nginx.port).parse().unwrap();
        let path = nginx.prefix().join("client.sock");
        for mut client in [Client::to(address), Client::to_path(&path)] {
            client.send(request);
            assert_eq!(client.receive().status, 200);
        }
        assert_eq!(Client::to(address).get("/").status, 200);
    });
    let who = |record: &Record| {
        record.assert_complete();
        let text = |addr: &Option<Cow<'_, str>>| addr.as_deref().map(str::to_owned);
        (text(&record.remote_addr), text(&record.peer_addr))
    };
    let found: Vec<_> = records.iter().map(who).collect();
    let both = |remote: &str, peer: &str| (Some(remote.to_owned()), Some(peer.to_owned()));
    let expected = [
        both("192.0.2.7", "127.0.0.1"),
        both("192.0.2.7", "127.0.0.1"),
        both("192.0.2.8", "127.0.0.1"),
        both("192.0.2.8", "127.0.0.1"),
        both("2001:db8::9", "::1"),
        (Some("2001:db8::9".to_owned()), None),
        (Some("::1".to_owned()), None),
    ];
    assert_eq!(found, expected);
    assert_eq!(records[2].remote_port, Some(1235));
    assert!(records[2].peer_port.is_some_and(|port| port != 1235));
    assert_eq!(records[6].peer_port, None);
}

/// Check that a kept connection has another address only for the requests for which realip shows one.
#[test]
fn real_ip_for_a_while() {
    if is_built_without("http_realip_module") {
        return;
    }
    let nginx = Nginx::with(
        "set_real_ip_from 127.0.0.1; real_ip_header X-Real-IP;
         server { listen 127.0.0.1:{port}; location / { return 200; } }",
        9,
    );
    let shown = [
        Some("192.0.2.7"),
        None,
        Some("192.0.2.7"),
        Some("192.0.2.8"),
        None,
        None,
    ];
    let mut port = None;
    let records = traced(nginx, |nginx| {
        let stream = TcpStream::connect(("127.0.0.1", nginx.port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        port = Some(stream.local_addr().unwrap().port());
        let mut client = Client::new(Box::new(stream));
        for shown in shown {
            let header = shown.map(|shown| format!("X-Real-IP: {shown}\r\n"));
            let header = header.unwrap_or_default();
            client.send(format!("GET / HTTP/1.1\r\nHost: t\r\n{header}\r\n"));
            assert_eq!(client.receive().status, 200);
        }
    });
    assert_eq!(records.len(), shown.len());
    for (record, shown) in records.iter().zip(shown) {
        record.assert_complete();
        let local = Some("127.0.0.1");
        let (remote, peer) = (record.remote_addr.as_deref(), record.peer_addr.as_deref());
        if shown.is_some() {
            assert_eq!((remote, peer, record.peer_port), (shown, local, port));
        } else {
            assert_eq!((remote, record.remote_port, peer), (local, port, None));
        }
    }
}

/// Check that realip works for each stream of HTTP/2 as for a request of HTTP/1.
#[test]
fn real_ip_of_streams() {
    if is_built_without("http_realip_module") {
        return;
    }
    let nginx = Nginx::with(
        "set_real_ip_from 127.0.0.1; real_ip_header proxy_protocol;
         server { listen 127.0.0.1:{port} http2 proxy_protocol; location / { return 200; } }",
        9,
    );
    let mut peer = None;
    let records = traced(nginx, |nginx| {
        let mut stream = TcpStream::connect(("127.0.0.1", nginx.port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(V1.as_bytes()).unwrap();
        peer = Some(stream.local_addr().unwrap().port());
        let mut http = Http2::start(Box::new(stream), 1 << 30);
        http.send(&[http2::get(1, "/"), http2::get(3, "/")].concat());
        http.receive([1, 3]);
    });
    assert_eq!(records.len(), 2);
    for record in &records {
        record.assert_complete();
        assert_eq!(record.remote_addr.as_deref(), Some("192.0.2.7"));
        assert_eq!(record.remote_port, Some(1234));
        assert_eq!(record.peer_addr.as_deref(), Some("127.0.0.1"));
        assert_eq!(record.peer_port, peer);
    }
}
