// SPDX-License-Identifier: MIT OR Apache-2.0
//! Upstreams that send byte by byte.

use super::Target;
use super::raw::Raw;

/// Connections that are used at the same time.
const WIDTH: usize = 64;

/// The bytes on each of them.
const BYTES: usize = 400;

/// Accepts the upstream connection of the request that was sent last, and reads its header.
pub fn accept(target: &Target) -> Raw {
    let mut upstream = Raw::new(target.upstream.accept().unwrap().0);
    upstream.take_until(b"\r\n\r\n");
    upstream
}

/// Opens a proxied connection, as the client and as the upstream that has sent a header.
fn open(target: &Target, header: &str, answer: &str) -> (Raw, Raw) {
    let mut client = Raw::connect(target.nginx.port);
    client.send(format!("GET /raw HTTP/1.1\r\nHost: t\r\n{header}\r\n"));
    let mut upstream = accept(target);
    upstream.send(format!("HTTP/1.1 {answer}\r\n\r\n"));
    client.take_until(b"\r\n\r\n");
    (client, upstream)
}

/// A tunnel that carries a byte at a time, in both directions.
pub fn tunnel(target: &Target) -> u64 {
    let header = "Connection: upgrade\r\nUpgrade: websocket\r\n";
    let answer = "101 Switching\r\nConnection: upgrade\r\nUpgrade: websocket";
    let mut pairs: Vec<_> = (0..WIDTH).map(|_| open(target, header, answer)).collect();
    for _ in 0..BYTES / 2 {
        pairs.iter_mut().for_each(|(client, _)| client.send("x"));
        pairs.iter_mut().for_each(|(_, upstream)| upstream.take(1));
        pairs
            .iter_mut()
            .for_each(|(_, upstream)| upstream.send("x"));
        pairs.iter_mut().for_each(|(client, _)| client.take(1));
    }
    (BYTES * WIDTH) as u64
}

/// Responses that come a byte at a time, and are passed on.
pub fn response(target: &Target) -> u64 {
    let answer = "200 OK\r\nContent-Length: 1000000";
    let mut pairs: Vec<_> = (0..WIDTH).map(|_| open(target, "", answer)).collect();
    for _ in 0..BYTES {
        pairs
            .iter_mut()
            .for_each(|(_, upstream)| upstream.send("x"));
        pairs.iter_mut().for_each(|(client, _)| client.take(1));
    }
    (BYTES * WIDTH) as u64
}
