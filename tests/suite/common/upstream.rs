// SPDX-License-Identifier: MIT OR Apache-2.0
//! An upstream that does what the request's uri says: `/STEP/STEP/…`, one after the other.
//!
//! `wait-MS` waits, `head` sends the header, `body-BYTES` sends a body of so many bytes, `status-N`
//! is the status, `close` closes at once, `junk` sends what is no header, `hang` never answers,
//! `early` sends the header before it reads the request's body. Without any of them it sends a small response.

use std::io::BufRead as _;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Duration;

use super::delay;

/// Ends its thread's work with the test process.
pub struct Upstream {
    /// Of 127.0.0.1.
    pub port: u16,
}

impl Upstream {
    /// On a free port of 127.0.0.1.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                stream.set_nodelay(true).unwrap();
                let other = stream.try_clone().unwrap();
                std::thread::spawn(move || serve(BufReader::new(stream), other));
            }
        });
        Self { port }
    }

    /// On a unix socket.
    pub fn start_unix(path: &Path) {
        let listener = UnixListener::bind(path).unwrap();
        super::nginx::open_to_all(path);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let other = stream.try_clone().unwrap();
                std::thread::spawn(move || serve(BufReader::new(stream), other));
            }
        });
    }
}

/// Serves requests until the connection ends.
fn serve(mut from: BufReader<impl Read>, mut to: impl Write) {
    while let Some((method, uri)) = read_request(&mut from, &mut to) {
        if answer(&uri, method == "HEAD", &mut to).is_none() {
            return;
        }
    }
}

/// Reads a request with its body; its method and uri.
fn read_request(from: &mut BufReader<impl Read>, to: &mut impl Write) -> Option<(String, String)> {
    let mut line = String::new();
    from.read_line(&mut line).ok()?;
    let (method, rest) = line.split_once(' ')?;
    let uri = rest.split(' ').next()?.to_owned();
    let method = method.to_owned();
    let (mut length, mut chunked) = (0, false);
    loop {
        let mut header = String::new();
        from.read_line(&mut header).ok()?;
        let header = header.trim_end().to_ascii_lowercase();
        if header.is_empty() {
            break;
        }
        if let Some(value) = header.strip_prefix("content-length: ") {
            length = value.parse().ok()?;
        }
        chunked |= header == "transfer-encoding: chunked";
    }
    if uri.contains("/early") {
        to.write_all(head(200, 3).as_bytes()).ok()?;
    }
    while chunked {
        let mut size = String::new();
        from.read_line(&mut size).ok()?;
        let size = u64::from_str_radix(size.trim_end(), 16).ok()?;
        std::io::copy(&mut from.by_ref().take(size + 2), &mut std::io::sink()).ok()?;
        chunked = size > 0;
    }
    std::io::copy(&mut from.by_ref().take(length), &mut std::io::sink()).ok()?;
    Some((method, uri))
}

/// The header of a response.
fn head(status: usize, size: usize) -> String {
    format!("HTTP/1.1 {status} Told\r\nContent-Length: {size}\r\n\r\n")
}

/// Does what the uri says. `None` ends the connection.
fn answer(uri: &str, is_head: bool, to: &mut impl Write) -> Option<()> {
    let steps: Vec<&str> = uri.split(['/', '?']).collect();
    let number = |step: &str, name: &str| step.strip_prefix(name)?.parse::<usize>().ok();
    let status = steps
        .iter()
        .find_map(|step| number(step, "status-"))
        .unwrap_or(200);
    let size = steps
        .iter()
        .find_map(|step| number(step, "body-"))
        .unwrap_or(3);
    let head = head(status, size);
    let (mut head_sent, mut body_sent) = (uri.contains("/early"), is_head);
    for step in steps {
        if let Some(ms) = number(step, "wait-") {
            delay(Duration::from_millis(ms as u64));
        } else if step == "head" {
            to.write_all(head.as_bytes()).ok()?;
            head_sent = true;
        } else if step.starts_with("body-") {
            if !head_sent {
                to.write_all(head.as_bytes()).ok()?;
                head_sent = true;
            }
            if !body_sent {
                to.write_all(&vec![b'x'; size]).ok()?;
                body_sent = true;
            }
        } else if step == "junk" {
            to.write_all(b"HTTP/1.1 200 OK\r\n\x00\x01 no header\r\n\r\n")
                .ok()?;
            return None;
        } else if step == "close" {
            return None;
        } else if step == "hang" {
            delay(super::PATIENCE);
            return None;
        }
    }
    if !head_sent {
        to.write_all(head.as_bytes()).ok()?;
    }
    if !body_sent {
        to.write_all(&vec![b'x'; size]).ok()?;
    }
    to.flush().ok()
}
