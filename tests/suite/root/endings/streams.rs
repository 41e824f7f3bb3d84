// SPDX-License-Identifier: MIT OR Apache-2.0
//! Clients of HTTP/2 and HTTP/3 that end a request in every way.

use std::net::TcpStream;
use std::time::Duration;

use rustls::version::TLS13;

use super::Row;
use crate::suite::common::client::reset;
use crate::suite::common::delay;
use crate::suite::common::http2;
use crate::suite::common::http2::Http2;
use crate::suite::common::http3;
use crate::suite::common::http3::Http3;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::tls::Tls;

/// Sends the request of a row on a connection of its own, and does what the row says: as in
/// `clients::send()`, but `reset` resets the stream, and `break` the connection.
pub fn send_http2(nginx: &Nginx, row: &Row, port: u16, count: usize) {
    let socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let tls = Tls::over(socket.try_clone().unwrap(), &TLS13, &["h2"]).finish();
    let window = if row.way == "deaf" { 100 } else { 1 << 20 };
    let mut http = Http2::start(tls.into_stream(), window);
    let pause = || delay(Duration::from_millis(50));
    match row.way {
        "post" => http.send(&http2::post(1, row.uri)),
        "slow-body" | "gone-body" => {
            let length = http2::field("content-length", "10");
            http.send(&http2::post_with(1, row.uri, &length));
        }
        _ => http.send(&http2::get(1, row.uri)),
    }
    match row.way {
        "whole" => http.receive([1]),
        "post" => {
            http.send(&http2::body(1, b"hello"));
            http.receive([1]);
        }
        "slow-body" => {
            http.send(&http2::piece(1, b"hello"));
            http.receive([1]);
        }
        "gone" | "gone-body" => {
            if row.way == "gone-body" {
                http.send(&http2::piece(1, b"hello"));
            }
            pause();
            /* A socket that is closed while it has bytes to read sends a reset. */
            http.ping();
        }
        "reset" | "break" => pause(),
        "gone-half" | "reset-half" => http.receive_some(),
        "deaf" => nginx.wait_logged(count),
        way => panic!("{way}"),
    }
    match row.way {
        "reset" | "reset-half" => {
            http.send(&http2::reset(1));
            nginx.wait_logged(count);
        }
        "break" => reset(&socket),
        _ => {}
    }
}

/// Sends the request of a row on a connection of its own, and does what the row says: `gone` closes the
/// connection, and `reset` resets the stream.
pub fn send_http3(nginx: &Nginx, row: &Row, count: usize) {
    let mut http = Http3::connect(nginx.port);
    if row.way == "slow-head" {
        let header = http3::header("GET", row.uri);
        http.send(0, &header[..header.len() - 3], false);
    } else if row.way == "slow-body" {
        let header = http3::header_with("POST", row.uri, &[("content-length", "10")]);
        http.send(0, &[header, http3::body(b"hello")].concat(), false);
    } else {
        http.get(0, row.uri);
    }
    match row.way {
        "whole" => http.receive([0]),
        "gone" | "reset" => delay(Duration::from_millis(50)),
        "slow-body" | "slow-head" => {}
        way => panic!("{way}"),
    }
    if row.way == "reset" {
        http.reset(0);
        nginx.wait_logged(count);
    }
    if row.way == "gone" {
        http.close();
    }
}
