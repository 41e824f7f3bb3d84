// SPDX-License-Identifier: MIT OR Apache-2.0
//! Clients of HTTP/1 that end a request in every way.

use std::net::TcpStream;
use std::time::Duration;

use rustls::version::TLS13;

use super::Row;
use crate::suite::common::client::Client;
use crate::suite::common::client::reset;
use crate::suite::common::delay;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::tls::Tls;

/// The kind of a connection.
#[derive(Clone, Copy)]
pub enum Connect {
    Plain,
    Tls,
}

impl Connect {
    /// Connects. Returns the client, and its socket. Over TLS the client has read everything that the
    /// handshake leaves in the socket, with a first response: otherwise a close would be a reset.
    fn client(self, nginx: &Nginx, tls: u16) -> (Client, TcpStream) {
        let port = match self {
            Self::Plain => nginx.port,
            Self::Tls => tls,
        };
        let socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
        socket.set_nodelay(true).unwrap();
        let stream = socket.try_clone().unwrap();
        let client = match self {
            Self::Plain => Client::new(Box::new(stream)),
            Self::Tls => {
                let tls = Tls::over(stream, &TLS13, &["http/1.1"]).finish();
                let mut client = tls.into_client();
                client.get("/return/first");
                client
            }
        };
        (client, socket)
    }
}

/// Sends the request of a row, and does what the row says:
///
/// - `whole` reads the whole response, and `post-SIZE` sends a body of this size before;
/// - `broken` sends a broken header and reads the response;
/// - `cut` reads until nginx closes the connection;
/// - `gone`, `gone-half` and `gone-body` close the connection before the response, in its middle, and
///   within the request's body; `reset`, `reset-half` and `reset-body` reset it there;
/// - `deaf` does not read the response, `slow-head` sends half of the header, and `slow-body` half of
///   the body;
/// - `shrinking` reads a part of a file, which then becomes shorter.
pub fn send(nginx: &Nginx, row: &Row, connect: Connect, tls: u16, count: usize) {
    let (way, uri) = (row.way, row.uri);
    let (mut client, socket) = connect.client(nginx, tls);
    let size = match way.strip_prefix("post-") {
        Some(size) => size.parse().unwrap(),
        None if way.ends_with("-body") => 6,
        None => 0,
    };
    let method = if size > 0 { "POST" } else { "GET" };
    let protocol = if way == "broken" { "HTPT" } else { "HTTP" };
    let request =
        format!("{method} {uri} {protocol}/1.1\r\nHost: t\r\nContent-Length: {size}\r\n\r\n");
    let half = request.len() - 10;
    client.send(if way == "slow-head" {
        &request[..half]
    } else {
        &request
    });
    match way {
        "whole" | "broken" => drop(client.receive()),
        "cut" | "slow-head" => drop(client.rest()),
        "gone" | "reset" => delay(Duration::from_millis(50)),
        "gone-half" | "reset-half" => read_half(&mut client),
        "gone-body" | "reset-body" | "slow-body" => {
            client.send("abc");
            delay(Duration::from_millis(50));
        }
        "deaf" => nginx.wait_logged(count),
        "shrinking" => {
            client.some();
            nginx.file("shrinking", b"");
            client.rest();
        }
        _ => {
            /* rustls sends what is left before it reads, so that a response can't be read then. */
            if client.try_send(vec![b'x'; size]) {
                client.receive();
            }
        }
    }
    if way == "slow-body" {
        client.rest();
    }
    if way.starts_with("reset") {
        reset(&socket);
    }
}

/// Reads a header and 500 bytes of a body.
fn read_half(client: &mut Client) {
    let mut heard = Vec::new();
    loop {
        heard.extend(client.some());
        let header = heard.windows(4).position(|end| end == b"\r\n\r\n");
        if header.is_some_and(|header| heard.len() >= header + 4 + 500) {
            return;
        }
    }
}
