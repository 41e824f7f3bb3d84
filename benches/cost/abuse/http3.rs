// SPDX-License-Identifier: MIT OR Apache-2.0
//! Abuse of HTTP/3. Each command of the client sends a datagram.

use super::Target;
use crate::common::http3;
use crate::common::http3::Http3;

/// Streams of a connection at the same time.
const STREAMS: u64 = 100;

/// Requests one after the other, which are no abuse.
pub fn requests(target: &Target) -> u64 {
    const COUNT: u64 = 500;
    let mut client = Http3::connect(target.http3);
    for n in 0..COUNT {
        client.get(4 * n, "/");
        client.receive([4 * n]);
    }
    client.close();
    COUNT
}

/// The same beside many streams of another client, whose header is not complete.
pub fn half_open(target: &Target) -> u64 {
    let mut client = Http3::connect(target.http3);
    for n in 0..STREAMS {
        client.send(4 * n, &http3::header("GET", "/")[..5], false);
    }
    let count = requests(target);
    client.close();
    count
}

/// Streams that are reset before their response has come.
pub fn resets(target: &Target) -> u64 {
    const COUNT: u64 = 500;
    let mut client = Http3::connect(target.http3);
    for n in 0..COUNT {
        client.get(4 * n, "/file");
        client.receive_some(4 * n);
        client.reset(4 * n);
    }
    client.close();
    COUNT
}
