// SPDX-License-Identifier: MIT OR Apache-2.0
//! A name server on a free UDP port. Every name resolves to 127.0.0.1, and has no IPv6 address; but it does not
//! answer for `silent.test`, and answers that there is no `none.test`.

use std::net::UdpSocket;
use std::time::Duration;

use super::delay;

/// `A`
const TYPE_A: [u8; 2] = [0, 1];
/// The code of an answer that there is no such name.
const NXDOMAIN: u8 = 3;

/// Starts it, and returns its port.
pub fn start() -> u16 {
    start_after(Duration::ZERO)
}

/// Starts one that answers each query after this time, and returns its port.
pub fn start_after(time: Duration) -> u16 {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let mut query = [0; 512];
        while let Ok((size, client)) = socket.recv_from(&mut query) {
            let query = &query[..size];
            if !is_about(query, "silent") {
                delay(time);
                let _ = socket.send_to(&answer(query), client);
            }
        }
    });
    port
}

/// Returns whether a query is about the name that begins with this label.
fn is_about(query: &[u8], label: &str) -> bool {
    query[13..].starts_with(label.as_bytes())
}

/// Returns the answer to a query: its one question, and the address.
fn answer(query: &[u8]) -> Vec<u8> {
    let name = query[12..].iter().position(|byte| *byte == 0).unwrap();
    let end = 12 + name + 5;
    let is_unknown = is_about(query, "none");
    let is_a = query[end - 4..end - 2] == TYPE_A && !is_unknown;
    let mut answer = query[..2].to_vec();
    let code = if is_unknown { NXDOMAIN } else { 0 };
    answer.extend([0x81, 0x80 | code, 0, 1, 0, u8::from(is_a), 0, 0, 0, 0]);
    answer.extend(&query[12..end]);
    if is_a {
        /* A reference to the name above, an IPv4 address, a TTL of one second. */
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4, 127, 0, 0, 1]);
    }
    answer
}
