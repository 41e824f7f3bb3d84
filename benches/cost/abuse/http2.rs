// SPDX-License-Identifier: MIT OR Apache-2.0
//! Abuse of HTTP/2, without TLS.

use super::Target;
use super::idle::Idle;
use super::raw::Raw;
use crate::common::http2;
use crate::common::http2::STREAMS;
use crate::common::http2::streams;

/// Connections that are used at the same time.
const WIDTH: usize = 16;

/// Opens a connection, with this window for each stream.
fn connect(target: &Target, window: u32) -> Raw {
    let mut client = Raw::connect(target.http2);
    client.send(http2::hello(window));
    /* A part of the server's settings. */
    client.take(9);
    client
}

/// Opens several connections.
fn several(target: &Target, window: u32) -> Vec<Raw> {
    (0..WIDTH).map(|_| connect(target, window)).collect()
}

/// Sends many small steps on all connections.
fn repeat(target: &Target, clients: &mut [Raw], steps: u32, bytes: &[u8]) -> u64 {
    let mut idle = Idle::new(target.nginx.port);
    for _ in 0..steps {
        clients.iter_mut().for_each(|client| client.send(bytes));
        idle.wait();
        clients.iter_mut().for_each(Raw::drain);
    }
    u64::from(steps) * clients.len() as u64
}

/// Streams, each of which is a packet.
pub fn requests(target: &Target) -> u64 {
    const STEPS: u32 = 600;
    let mut clients = several(target, 1 << 20);
    let mut idle = Idle::new(target.nginx.port);
    for n in 0..STEPS {
        let request = http2::get(2 * n + 1, "/");
        clients.iter_mut().for_each(|client| client.send(&request));
        idle.wait();
        clients.iter_mut().for_each(Raw::drain);
    }
    u64::from(STEPS) * WIDTH as u64
}

/// Many streams in a packet, each of which is reset at once.
fn reset_all(target: &Target, path: &str, steps: u32) -> u64 {
    let mut client = connect(target, 1 << 20);
    let mut idle = Idle::new(target.nginx.port);
    for step in 0..steps {
        let pairs = streams(step).flat_map(|id| [http2::get(id, path), http2::reset(id)]);
        client.send(pairs.collect::<Vec<_>>().concat());
        idle.wait();
        client.drain();
    }
    u64::from(steps * STREAMS)
}

pub fn resets(target: &Target) -> u64 {
    reset_all(target, "/", 100)
}

/// Resets of streams whose upstream connection has just been opened.
pub fn proxied_resets(target: &Target) -> u64 {
    target.upstream.set_nonblocking(true).unwrap();
    let mut count = 0;
    for _ in 0..30 {
        count += reset_all(target, "/raw", 1);
        while let Ok((stream, _)) = target.upstream.accept() {
            Raw::new(stream).close();
        }
    }
    target.upstream.set_nonblocking(false).unwrap();
    count
}

pub fn pings(target: &Target) -> u64 {
    let mut clients = several(target, 1 << 20);
    repeat(target, &mut clients, 1000, &http2::ping())
}

/// PINGs of a client that takes no answer: files fill all buffers first.
pub fn deaf_pings(target: &Target) -> u64 {
    const STEPS: u32 = 3000;
    let mut idle = Idle::new(target.nginx.port);
    let mut client = connect(target, 1 << 20);
    for stream in streams(0) {
        client.send(http2::get(stream, "/file"));
        idle.wait();
    }
    client.send(http2::ping().repeat(3000));
    for _ in 0..STEPS {
        client.send(http2::ping());
        idle.wait();
    }
    u64::from(STEPS)
}

/// PINGs beside bodies that do not end, each of which has come in two reads.
pub fn open_bodies(target: &Target) -> u64 {
    let mut idle = Idle::new(target.nginx.port);
    let mut clients = several(target, 1 << 20);
    for stream in streams(0).take(20) {
        let frames = [http2::post(stream, "/buffered"), http2::piece(stream, b"x")].concat();
        for half in frames.chunks(frames.len() - 1) {
            clients.iter_mut().for_each(|client| client.send(half));
            idle.wait();
        }
    }
    repeat(target, &mut clients, 600, &http2::ping())
}

/// Responses that wait for a window, which is opened by a byte at a time.
pub fn windows(target: &Target) -> u64 {
    let mut clients = several(target, 0);
    for client in &mut clients {
        streams(0).for_each(|stream| client.send(http2::get(stream, "/file")));
    }
    repeat(target, &mut clients, 600, &http2::window_update(1, 1))
}

/// A body of which each frame has a byte.
pub fn data(target: &Target) -> u64 {
    let mut clients = several(target, 1 << 20);
    for client in &mut clients {
        client.send(http2::post(1, "/buffered"));
    }
    repeat(target, &mut clients, 900, &http2::piece(1, b"x"))
}

/// A header of which each packet has a byte.
pub fn headers(target: &Target) -> u64 {
    const BYTES: usize = 120;
    const REQUESTS: u32 = 6;
    let path = format!("/{}", "x".repeat(BYTES));
    let mut clients = several(target, 1 << 20);
    let mut idle = Idle::new(target.nginx.port);
    for n in 0..REQUESTS {
        for byte in http2::get(2 * n + 1, &path) {
            clients.iter_mut().for_each(|client| client.send([byte]));
            idle.wait();
            clients.iter_mut().for_each(Raw::drain);
        }
    }
    u64::from(REQUESTS) * (http2::get(1, &path).len() * WIDTH) as u64
}
