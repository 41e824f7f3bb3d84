// SPDX-License-Identifier: MIT OR Apache-2.0
//! Abuse of HTTP/1, with TLS and without.

use rustls::version::TLS13;

use super::Target;
use super::idle::Idle;
use super::raw::Raw;
use super::upstreams::accept;
use crate::common::tls;
use crate::common::tls::Tls;

/// A small request, and the last bytes of its response.
const REQUEST: &str = "GET / HTTP/1.1\r\nHost: t\r\n\r\n";
const RESPONSE_END: &[u8] = b"hello\n";

/// Connections that are used at the same time.
const WIDTH: usize = 64;

/// Requests on kept connections, which are no abuse.
pub fn requests(target: &Target) -> u64 {
    const EACH: usize = 300;
    let mut clients = Raw::several(target.nginx.port, WIDTH);
    for _ in 0..EACH {
        clients.iter_mut().for_each(|client| client.send(REQUEST));
        for client in &mut clients {
            client.take_until(RESPONSE_END);
        }
    }
    (EACH * WIDTH) as u64
}

/// Many requests in each packet.
pub fn pipelined(target: &Target) -> u64 {
    const PACKETS: usize = 300;
    let mut client = Raw::connect(target.nginx.port);
    client.send(REQUEST);
    let mut idle = Idle::new(target.nginx.port);
    for _ in 0..PACKETS {
        client.send(REQUEST.repeat(WIDTH));
        idle.wait();
        client.drain();
    }
    (PACKETS * WIDTH) as u64
}

/// Connections that end without a byte.
pub fn churn(target: &Target) -> u64 {
    const COUNT: usize = 60;
    let mut idle = Idle::new(target.nginx.port);
    for _ in 0..COUNT {
        let clients = Raw::several(target.nginx.port, WIDTH);
        idle.wait();
        clients.into_iter().for_each(Raw::close);
        idle.wait();
    }
    (COUNT * WIDTH) as u64
}

/// Connections with bytes that are no HTTP.
pub fn nonsense(target: &Target) -> u64 {
    const COUNT: usize = 40;
    for _ in 0..COUNT {
        let mut clients = Raw::several(target.nginx.port, WIDTH);
        clients.iter_mut().for_each(|client| client.send("!\r\n"));
        clients.into_iter().for_each(Raw::rest);
    }
    (COUNT * WIDTH) as u64
}

/// Sends bytes one by one on many connections.
fn dribble(target: &Target, clients: &mut [Raw], bytes: usize, byte: &[u8]) -> u64 {
    let mut idle = Idle::new(target.nginx.port);
    for _ in 0..bytes {
        clients.iter_mut().for_each(|client| client.send(byte));
        idle.wait();
    }
    (bytes * clients.len()) as u64
}

/// A header that never ends.
pub fn header(target: &Target) -> u64 {
    let mut clients = Raw::several(target.nginx.port, WIDTH);
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nHost: t\r\nX: ");
    }
    dribble(target, &mut clients, 900, b"x")
}

/// A body that nginx discards.
pub fn body(target: &Target) -> u64 {
    let mut clients = Raw::several(target.nginx.port, WIDTH);
    for client in &mut clients {
        client.send("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 1000000\r\n\r\n");
    }
    dribble(target, &mut clients, 900, b"x")
}

/// A body that nginx passes on byte by byte.
pub fn proxied_body(target: &Target) -> u64 {
    const BYTES: usize = 400;
    let mut pairs = Vec::new();
    for mut client in Raw::several(target.nginx.port, WIDTH) {
        client.send("POST /raw HTTP/1.1\r\nHost: t\r\nContent-Length: 1000000\r\n\r\n");
        pairs.push((client, accept(target)));
    }
    for _ in 0..BYTES {
        pairs.iter_mut().for_each(|(client, _)| client.send("x"));
        pairs.iter_mut().for_each(|(_, upstream)| upstream.take(1));
    }
    (BYTES * WIDTH) as u64
}

/// A file that is read piece by piece. Counts pieces.
pub fn slow_file(target: &Target) -> u64 {
    const CLIENTS: usize = 32;
    const PIECE: usize = 32 << 10;
    const PIECES: usize = (1 << 20) / PIECE;
    let mut idle = Idle::new(target.nginx.port);
    let mut clients = Raw::several(target.nginx.port, CLIENTS);
    for client in &mut clients {
        client.send(REQUEST.replace("GET /", "GET /file"));
    }
    for _ in 0..PIECES {
        clients.iter_mut().for_each(|client| client.take(PIECE));
        idle.wait();
    }
    (CLIENTS * PIECES) as u64
}

/// Handshakes that the client leaves when the server has done its part.
pub fn handshakes(target: &Target) -> u64 {
    const COUNT: usize = 300;
    let config = tls::config(&TLS13, &[]);
    let mut idle = Idle::new(target.nginx.port);
    for _ in 0..COUNT {
        let client = Raw::connect(target.tls);
        let mut session = Tls::new(client.0.try_clone().unwrap(), config.clone());
        let hello = session.take();
        session.send_raw(&hello);
        idle.wait();
        client.close();
        drop(session);
    }
    COUNT as u64
}

/// A header over TLS, of which each record has a byte.
pub fn tls_header(target: &Target) -> u64 {
    const BYTES: usize = 800;
    const CLIENTS: usize = 16;
    let mut idle = Idle::new(target.nginx.port);
    let begin = |_| {
        let mut client = Tls::begin(target.tls, &TLS13, &[]).finish();
        let bytes = client.seal("GET / HTTP/1.1\r\nHost: t\r\nX: ");
        client.send_raw(&bytes);
        client
    };
    let mut clients: Vec<_> = (0..CLIENTS).map(begin).collect();
    for _ in 0..BYTES {
        for client in &mut clients {
            let record = client.seal("x");
            client.send_raw(&record);
        }
        idle.wait();
    }
    (BYTES * CLIENTS) as u64
}
