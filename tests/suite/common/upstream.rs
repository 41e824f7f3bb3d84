// SPDX-License-Identifier: MIT OR Apache-2.0
//! An upstream that does what the request's uri says, step by step: `/STEP/STEP/…`.
//!
//! `wait-MS` waits, `head` sends the header, `body-BYTES` sends a body of this size, `status-N`
//! sets the status, `close` closes at once, `junk` sends bytes that are not a header, `hang` never
//! answers, `early` sends the header before it reads the request's body, `endless` sends no length
//! and ends the response with the connection, `accel-A-B` redirects to `/A/B`, and `modified` sends
//! a time in the past, and answers with 304 when it is asked again. `half-BYTES` sends half of the
//! body that the header promises, `chunk` sends a chunk of a body without a length, `broken-chunk`
//! sends an invalid chunk, `nonsense` sends bytes that are not HTTP at all, `reset` resets the
//! connection, and `deaf` never reads the request's body. Without any of these it sends a small
//! response. It speaks the protocols of nginx's upstream modules, except gRPC.

use std::io::BufRead as _;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::mem;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::client::reset;
use super::delay;
use super::listener::listen;
use super::protocol::Protocol;
use super::protocol::Protocol::Fastcgi;
use super::protocol::Protocol::Http;
use super::protocol::Protocol::Memcached;
use super::protocol::Records;
use super::protocol::Request;
use super::protocol::head;
use super::tls;
use super::tls::Served;

/// A running upstream. Its thread ends with the test process.
pub struct Upstream {
    /// Its port on 127.0.0.1.
    pub port: u16,
}

impl Upstream {
    /// Starts it on a free port of 127.0.0.1.
    pub fn start() -> Self {
        Self::speaking(Http)
    }

    /// Starts it with another protocol.
    pub fn speaking(protocol: Protocol) -> Self {
        let port = listen(move |stream| {
            stream.set_nodelay(true).unwrap();
            std::thread::spawn(move || {
                let [from, to] = [0, 1].map(|_| stream.try_clone().unwrap());
                if serve(protocol, BufReader::new(from), to) == Ending::Reset {
                    reset(&stream);
                }
            });
        });
        Self { port }
    }

    /// Starts it with a protocol over TLS.
    pub fn speaking_tls(protocol: Protocol) -> Self {
        let config = tls::server_config();
        let port = listen(move |stream| {
            stream.set_nodelay(true).unwrap();
            let other = stream.try_clone().unwrap();
            let served = Served::new(stream, Arc::clone(&config));
            std::thread::spawn(move || {
                match serve(protocol, BufReader::new(served.clone()), served.clone()) {
                    Ending::Reset => reset(&other),
                    Ending::Close => served.close(),
                }
            });
        });
        Self { port }
    }

    /// Starts it on a unix socket.
    pub fn start_unix(path: &Path) {
        let listener = UnixListener::bind(path).unwrap();
        super::program::open_to_all(path);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let other = stream.try_clone().unwrap();
                std::thread::spawn(move || serve(Http, BufReader::new(stream), other));
            }
        });
    }
}

/// How a connection ends.
#[derive(PartialEq, Eq)]
enum Ending {
    Close,
    Reset,
}

/// Serves requests until the connection ends.
fn serve(protocol: Protocol, mut from: BufReader<impl Read>, mut to: impl Write) -> Ending {
    loop {
        let request = match protocol {
            Http => read_request(&mut from, &mut to),
            _ => protocol.read(&mut from),
        };
        let Some(request) = request else {
            return Ending::Close;
        };
        let answered = match protocol {
            Fastcgi => {
                let mut records = Records(&mut to);
                answer(protocol, &request, &mut records).and_then(|()| records.end().ok())
            }
            _ => answer(protocol, &request, &mut to),
        };
        if answered.is_none() && request.uri.contains("/reset") {
            return Ending::Reset;
        }
        if answered.is_none() || !request.is_kept {
            return Ending::Close;
        }
    }
}

/// Reads a request with its body.
fn read_request(from: &mut BufReader<impl Read>, to: &mut impl Write) -> Option<Request> {
    let mut line = String::new();
    from.read_line(&mut line).ok()?;
    let (method, rest) = line.split_once(' ')?;
    let uri = rest.split(' ').next()?.to_owned();
    let method = method.to_owned();
    let (mut length, mut chunked, mut is_known) = (0, false, false);
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
        is_known |= header.starts_with("if-modified-since: ");
    }
    if uri.contains("/early") {
        to.write_all(head(Http, "", 200, 3).as_bytes()).ok()?;
    }
    if uri.contains("/deaf") {
        (length, chunked) = (0, false);
    }
    while chunked {
        let mut size = String::new();
        from.read_line(&mut size).ok()?;
        let size = u64::from_str_radix(size.trim_end(), 16).ok()?;
        std::io::copy(&mut from.by_ref().take(size + 2), &mut std::io::sink()).ok()?;
        chunked = size > 0;
    }
    std::io::copy(&mut from.by_ref().take(length), &mut std::io::sink()).ok()?;
    Some(Request {
        is_head: method == "HEAD" || is_known,
        is_known,
        uri,
        is_kept: true,
    })
}

/// Does what the uri says. `None` ends the connection.
fn answer(protocol: Protocol, request: &Request, to: &mut impl Write) -> Option<()> {
    let uri = &request.uri[..];
    let steps: Vec<&str> = uri.split(['/', '?']).collect();
    let status = steps
        .iter()
        .find_map(|step| number(step, "status-"))
        .unwrap_or(if request.is_known { 304 } else { 200 });
    let size = steps
        .iter()
        .find_map(|step| number(step, "body-").or(number(step, "half-")))
        .unwrap_or(3);
    let mut body = vec![b'x'; size];
    if protocol == Memcached {
        body.extend(b"\r\nEND\r\n");
    }
    let mut response = Response {
        head: head(protocol, uri, status, size),
        body,
        head_sent: uri.contains("/early"),
        body_sent: request.is_head || protocol == Memcached && status == 404,
        to,
    };
    for step in steps {
        response.follow(step)?;
    }
    response.send_head()?;
    response.send_body()?;
    response.to.flush().ok()?;
    (!uri.contains("/endless")).then_some(())
}

/// Returns the number after the name of a step.
fn number(step: &str, name: &str) -> Option<usize> {
    step.strip_prefix(name)?.parse().ok()
}

/// A response, and what of it has been sent.
struct Response<'a, W> {
    head: String,
    body: Vec<u8>,
    head_sent: bool,
    body_sent: bool,
    to: &'a mut W,
}

impl<W: Write> Response<'_, W> {
    /// Does what one step of the uri says. `None` ends the connection.
    fn follow(&mut self, step: &str) -> Option<()> {
        match step {
            "head" => self.send_head()?,
            "chunk" => self.send_instead(b"5\r\nhello\r\n")?,
            "broken-chunk" => self.send_instead(b"no chunk\r\n")?,
            "junk" => {
                let junk = b"HTTP/1.1 200 OK\r\n\x00\x01 no header\r\n\r\n";
                self.to.write_all(junk).ok()?;
                return None;
            }
            "nonsense" => {
                self.to.write_all(b"nonsense\n").ok()?;
                return None;
            }
            "close" | "reset" => return None,
            "hang" | "deaf" => {
                delay(super::PATIENCE);
                return None;
            }
            _ => {}
        }
        if let Some(ms) = number(step, "wait-") {
            delay(Duration::from_millis(ms as u64));
        } else if let Some(size) = number(step, "half-") {
            let half = self.body[..size / 2].to_vec();
            self.send_instead(&half)?;
        } else if step.starts_with("body-") {
            self.send_head()?;
            self.send_body()?;
        }
        Some(())
    }

    fn send_head(&mut self) -> Option<()> {
        if !mem::replace(&mut self.head_sent, true) {
            self.to.write_all(self.head.as_bytes()).ok()?;
        }
        Some(())
    }

    fn send_body(&mut self) -> Option<()> {
        if !mem::replace(&mut self.body_sent, true) {
            self.to.write_all(&self.body).ok()?;
        }
        Some(())
    }

    /// Sends this in place of the body.
    fn send_instead(&mut self, part: &[u8]) -> Option<()> {
        self.send_head()?;
        self.to.write_all(part).ok()?;
        self.to.flush().ok()?;
        self.body_sent = true;
        Some(())
    }
}
