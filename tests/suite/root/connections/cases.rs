// SPDX-License-Identifier: MIT OR Apache-2.0
//! Connections that end, each in its own way.

use std::io::Read as _;
use std::io::Write as _;
use std::net::TcpStream;

use ngx_bpf_record::values::ConnectionEnd as End;
use ngx_bpf_record::values::Stage;
use rustls::version::TLS12;
use rustls::version::TLS13;

use super::Ports;
use crate::suite::common::PATIENCE;
use crate::suite::common::client::Client;
use crate::suite::common::client::reset;
use crate::suite::common::listener::listen;
use crate::suite::common::tls;
use crate::suite::common::tls::Tls;

/// Connects to a port of 127.0.0.1.
pub(super) fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Sends bytes.
pub(super) fn sent(port: u16, bytes: &[u8]) -> TcpStream {
    let mut stream = connect(port);
    stream.write_all(bytes).unwrap();
    stream
}

/// Waits until nginx closes the connection.
pub(super) fn closed(mut stream: TcpStream) -> TcpStream {
    let _ = stream.read_to_end(&mut Vec::new());
    stream
}

/// Sends a request, and reads its response.
pub(super) fn asked(port: u16) -> TcpStream {
    let stream = connect(port);
    let mut client = Client::new(Box::new(stream.try_clone().unwrap()));
    assert_eq!(client.get("/").status, 200);
    stream
}

/// Sends a request that ends its connection. nginx has handled what came before.
pub(super) fn ask_once(ports: &Ports) {
    let mut client = Client::connect(ports.plain);
    client.send("GET / HTTP/1.0\r\n\r\n");
    client.rest();
}

/// Makes the connection end with a reset.
pub(super) fn to_reset(stream: TcpStream) -> TcpStream {
    reset(&stream);
    stream
}

/// Returns a connection whose handshake is complete on both sides.
pub(super) fn secured(port: u16) -> TcpStream {
    let stream = connect(port);
    Tls::over(stream.try_clone().unwrap(), &TLS12, &[]).finish();
    stream
}

/// Returns the first bytes of a handshake.
pub(super) fn hello(size: usize) -> Vec<u8> {
    let stream = connect(listen(drop));
    let mut hello = Tls::new(stream, tls::config(&TLS12, &[])).take();
    hello.truncate(size);
    hello
}

/// A connection that ends: what nginx logs then (empty: nothing), and what its record says.
pub(super) struct Case {
    pub logged: &'static str,
    pub stage: Stage,
    pub end: End,
    pub connection: fn(&Ports) -> TcpStream,
}

/// Returns a case.
pub(super) fn case(
    logged: &'static str,
    stage: Stage,
    end: End,
    connection: fn(&Ports) -> TcpStream,
) -> Case {
    Case {
        logged,
        stage,
        end,
        connection,
    }
}

/// What nginx logs.
pub(super) const CLOSED: &str = "client closed connection";
pub(super) const CLOSED_IN_HANDSHAKE: &str = "peer closed connection in SSL";
pub(super) const TIMED_OUT: &str = "client timed out";
pub(super) const RESET: &str = "reset by peer";
pub(super) const FAILED: &str = "SSL_do_handshake() failed";
pub(super) const BROKEN: &str = "broken header";

/// Connections on which no request begins, and no handshake.
pub(super) fn without_request() -> Vec<Case> {
    use Stage::Accepted;
    use Stage::BeforeRequest;
    use Stage::ProxyProtocol;
    vec![
        case(CLOSED, Accepted, End::ClientClosed, |p| connect(p.plain)),
        case(CLOSED, Accepted, End::ClientClosed, |p| connect(p.tls)),
        case(RESET, Accepted, End::ClientReset, |p| {
            to_reset(connect(p.plain))
        }),
        case(RESET, Accepted, End::ClientReset, |p| {
            to_reset(connect(p.tls))
        }),
        case(TIMED_OUT, Accepted, End::Timeout, |p| {
            closed(connect(p.timed))
        }),
        case(TIMED_OUT, Accepted, End::Timeout, |p| {
            closed(connect(p.timed_tls))
        }),
        case(BROKEN, ProxyProtocol, End::Rejected, |p| {
            closed(sent(p.proxy, b"hello\r\n"))
        }),
        case(BROKEN, ProxyProtocol, End::Rejected, |p| {
            closed(sent(p.proxy_tls, b"hello\r\n"))
        }),
        case(CLOSED, BeforeRequest, End::ClientClosed, |p| {
            sent(p.proxy, b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n")
        }),
    ]
}

/// Begins a handshake, and has read nginx's part of it.
pub(super) fn begun(port: u16) -> TcpStream {
    let stream = connect(port);
    Tls::over(stream.try_clone().unwrap(), &TLS13, &[]);
    stream
}

/// Connections that end within their handshake, or after it.
pub(super) fn handshakes() -> Vec<Case> {
    use Stage::BeforeRequest;
    use Stage::TlsHandshake;
    vec![
        case(FAILED, TlsHandshake, End::TlsError, |p| {
            closed(sent(p.tls, b"\x16\x03\x01\x00\x05hello"))
        }),
        case(CLOSED_IN_HANDSHAKE, TlsHandshake, End::ClientClosed, |p| {
            sent(p.tls, &hello(50))
        }),
        case(CLOSED_IN_HANDSHAKE, TlsHandshake, End::ClientClosed, |p| {
            begun(p.tls)
        }),
        case(CLOSED_IN_HANDSHAKE, TlsHandshake, End::ClientReset, |p| {
            to_reset(begun(p.tls))
        }),
        case(TIMED_OUT, TlsHandshake, End::Timeout, |p| {
            closed(sent(p.timed_tls, &hello(50)))
        }),
        case(CLOSED, BeforeRequest, End::ClientClosed, |p| secured(p.tls)),
        case(TIMED_OUT, BeforeRequest, End::Timeout, |p| {
            closed(secured(p.timed_tls))
        }),
    ]
}

/// Connections that end while they wait for their next request.
pub(super) fn idle() -> Vec<Case> {
    use Stage::Keepalive;
    vec![
        case("closed keepalive", Keepalive, End::ClientClosed, |p| {
            asked(p.plain)
        }),
        case("", Keepalive, End::ClientReset, |p| {
            to_reset(asked(p.plain))
        }),
        case("", Keepalive, End::Timeout, |p| closed(asked(p.timed))),
    ]
}
