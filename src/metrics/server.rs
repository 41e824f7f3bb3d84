// SPDX-License-Identifier: MIT OR Apache-2.0
//! `GET /metrics`, and nothing else: one connection at a time, no connection for long.

use std::io;
use std::io::Read as _;
use std::io::Write as _;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

/// What a request may take, and no more: one that is slow would keep others waiting.
const TIME: Duration = Duration::from_secs(2);

/// Bytes of a request's header.
const HEADER_BYTES: usize = 8 << 10;

/// What encode() writes.
const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Answers in a thread of its own, which ends with the process.
pub fn start(address: SocketAddr, registry: Registry) -> io::Result<()> {
    let listener = TcpListener::bind(address)?;
    thread::Builder::new()
        .name("metrics".to_owned())
        .spawn(move || {
            for stream in listener.incoming() {
                match stream {
                    /* A client that is gone has no one to be told. */
                    Ok(stream) => drop(answer(stream, &registry)),
                    /* No more descriptors: not again at once. */
                    Err(_) => thread::sleep(Duration::from_millis(100)),
                }
            }
        })?;
    Ok(())
}

/// One request and its response.
fn answer(mut stream: TcpStream, registry: &Registry) -> io::Result<()> {
    let header = read_header(&mut stream)?;
    let line = header
        .split(|byte| *byte == b'\r')
        .next()
        .unwrap_or_default();
    let mut words = line.split(|byte| *byte == b' ');
    let (method, target) = (words.next(), words.next());
    let path = target.and_then(|target| target.split(|byte| *byte == b'?').next());
    let mut body = String::new();
    let status = match (method, path) {
        (Some(b"GET"), Some(b"/metrics")) => match encode(&mut body, registry) {
            Ok(()) => "200 OK",
            Err(_) => "500 Internal Server Error",
        },
        (Some(b"GET"), _) => "404 Not Found",
        _ => "405 Method Not Allowed",
    };
    let response = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {CONTENT_TYPE}\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    );
    write_all(&mut stream, response.as_bytes())
}

/// Until the end; an error when that has come.
fn left(end: Instant) -> io::Result<Duration> {
    let left = end.saturating_duration_since(Instant::now());
    (!left.is_zero())
        .then_some(left)
        .ok_or_else(|| io::ErrorKind::TimedOut.into())
}

/// All of it, in time: a timeout of the socket's alone would count for each part anew.
fn write_all(stream: &mut TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    let end = Instant::now() + TIME;
    while !bytes.is_empty() {
        stream.set_write_timeout(Some(left(end)?))?;
        match stream.write(bytes)? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            len => bytes = &bytes[len..],
        }
    }
    Ok(())
}

/// Up to the empty line.
fn read_header(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let end = Instant::now() + TIME;
    let mut header = Vec::new();
    let mut chunk = [0; 1024];
    while !header.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
        if header.len() > HEADER_BYTES {
            return Err(io::ErrorKind::InvalidData.into());
        }
        stream.set_read_timeout(Some(left(end)?))?;
        match stream.read(&mut chunk)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            len => header.extend_from_slice(&chunk[..len]),
        }
    }
    Ok(header)
}
