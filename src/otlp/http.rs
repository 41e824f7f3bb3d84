// SPDX-License-Identifier: MIT OR Apache-2.0
//! The client's side of HTTP/1.1, as far as batches need it: one POST after the other, on a connection that is kept. No
//! call blocks for long, so that the end is noticed.

use std::io;
use std::io::ErrorKind;
use std::io::Read as _;
use std::io::Write as _;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::time::Duration;

use memchr::memmem;

/// The longest time to connect.
const CONNECT: Duration = Duration::from_secs(2);

/// The longest time that one read or write blocks.
const TURN: Duration = Duration::from_millis(100);

/// The most bytes of a header and of a body that are read.
const HEADER_BYTES: usize = 16 << 10;
const BODY_BYTES: usize = 64 << 10;

/// What the receiver has answered.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// The header `Retry-After`, if it is a number of seconds.
    pub retry_after: Option<Duration>,
    pub body: Vec<u8>,
}

/// A connection to the receiver, which is made when it is needed.
pub struct Connection {
    addresses: Vec<SocketAddr>,
    /// The value of `Host`.
    host: String,
    stream: Option<TcpStream>,
}

impl Connection {
    /// Creates one to the first of these addresses that accepts it.
    pub fn new(addresses: Vec<SocketAddr>, host: String) -> Self {
        Self {
            addresses,
            host,
            stream: None,
        }
    }

    /// Sends a body that is compressed by gzip, and returns the answer. `is_over` is asked from time to time whether to
    /// give up.
    pub fn post(
        &mut self,
        path: &str,
        body: &[u8],
        is_over: &dyn Fn() -> bool,
    ) -> io::Result<Answer> {
        let mut stream = match self.stream.take().filter(is_alive) {
            Some(stream) => stream,
            None => self.connect()?,
        };
        let header = format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\nUser-Agent: ngx-bpf/{}\r\nContent-Type: application/json\r\n\
             Content-Encoding: gzip\r\nContent-Length: {}\r\n\r\n",
            self.host,
            env!("CARGO_PKG_VERSION"),
            body.len()
        );
        /* A receiver may answer before it has read all, and close the connection: the answer counts. */
        let sent = write(&mut stream, header.as_bytes(), is_over)
            .and_then(|()| write(&mut stream, body, is_over));
        let answer = read(&mut stream, is_over);
        let (answer, is_kept) = match (sent, answer) {
            (Ok(()), Ok(answer)) => answer,
            /* The receiver would take the next request for the rest of this one. */
            (Err(_), Ok((answer, _))) => (answer, false),
            (Err(error), Err(_)) | (Ok(()), Err(error)) => return Err(error),
        };
        self.stream = Some(stream).filter(|_| is_kept);
        Ok(answer)
    }

    /// Connects to the first address that accepts it.
    fn connect(&self) -> io::Result<TcpStream> {
        let mut result = Err(ErrorKind::AddrNotAvailable.into());
        for address in &self.addresses {
            result = TcpStream::connect_timeout(address, CONNECT);
            if result.is_ok() {
                break;
            }
        }
        let stream = result?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TURN))?;
        stream.set_write_timeout(Some(TURN))?;
        Ok(stream)
    }
}

/// Returns whether the receiver has not closed a kept connection, and has sent nothing on it.
fn is_alive(stream: &TcpStream) -> bool {
    let is_silent = stream.set_nonblocking(true).is_ok()
        && matches!(stream.peek(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock);
    is_silent && stream.set_nonblocking(false).is_ok()
}

/// Returns whether a call is to be repeated.
fn is_later(error: &io::Error) -> bool {
    use ErrorKind::Interrupted;
    use ErrorKind::TimedOut;
    use ErrorKind::WouldBlock;
    matches!(error.kind(), Interrupted | TimedOut | WouldBlock)
}

/// Sends bytes.
fn write(stream: &mut TcpStream, mut bytes: &[u8], is_over: &dyn Fn() -> bool) -> io::Result<()> {
    while !bytes.is_empty() {
        /* A receiver that takes a byte at a time has no more time than one that takes none. */
        if is_over() {
            return Err(ErrorKind::TimedOut.into());
        }
        match stream.write(bytes) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(len) => bytes = &bytes[len..],
            Err(error) if !is_later(&error) => return Err(error),
            Err(_) => {}
        }
    }
    Ok(())
}

/// Reads an answer. Returns it, and whether the connection may be used again.
fn read(stream: &mut TcpStream, is_over: &dyn Fn() -> bool) -> io::Result<(Answer, bool)> {
    let mut bytes = Vec::new();
    let mut is_closed = false;
    loop {
        if let Some(answer) = parse(&bytes, is_closed)? {
            return Ok(answer);
        }
        if is_closed {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        if is_over() {
            return Err(ErrorKind::TimedOut.into());
        }
        let mut chunk = [0; 4 << 10];
        match stream.read(&mut chunk) {
            Ok(0) => is_closed = true,
            Ok(len) => bytes.extend_from_slice(&chunk[..len]),
            Err(error) if !is_later(&error) => return Err(error),
            Err(_) => {}
        }
    }
}

/// Returns an error about the answer.
fn invalid<T>(what: &str) -> io::Result<T> {
    Err(io::Error::new(ErrorKind::InvalidData, what))
}

/// The header of an answer, its status, and what follows the header.
type Header<'b> = (&'b [u8], u16, &'b [u8]);

/// Returns the header of the answer that these bytes are. `None` when there is more to read. Interim answers are skipped, as long as all headers together are not too long.
///
/// Fails when it is not one, or when it is too long.
fn header(bytes: &[u8]) -> io::Result<Option<Header<'_>>> {
    let mut from = 0;
    while from < HEADER_BYTES {
        let Some(length) = memmem::find(&bytes[from..], b"\r\n\r\n") else {
            break;
        };
        let header = &bytes[from..from + length];
        let mut words = header.split(|byte| matches!(byte, b' ' | b'\r'));
        let is_http = words
            .next()
            .is_some_and(|word| word.starts_with(b"HTTP/1."));
        let status = words
            .next()
            .and_then(|word| std::str::from_utf8(word).ok()?.parse().ok());
        let Some(status) = status.filter(|_| is_http) else {
            return invalid("the answer is not HTTP/1");
        };
        from += length + 4;
        if !(100..200).contains(&status) {
            return Ok(Some((header, status, &bytes[from..])));
        }
    }
    match bytes.len() {
        ..HEADER_BYTES => Ok(None),
        _ => invalid("the header of the answer is too long"),
    }
}

/// Returns the answer that these bytes are, and whether the connection may be used again. `None` when there is more to
/// read.
///
/// Fails when it is not one, or when it is too long.
fn parse(bytes: &[u8], is_closed: bool) -> io::Result<Option<(Answer, bool)>> {
    let Some((header, status, rest)) = header(bytes)? else {
        return Ok(None);
    };
    let header = String::from_utf8_lossy(header);
    let mut lines = header.split("\r\n");
    let version = lines.next().and_then(|line| line.split(' ').next());
    let mut answer = Answer {
        status,
        ..Answer::default()
    };
    let (mut length, mut is_chunked, mut is_kept) = (None, false, version == Some("HTTP/1.1"));
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse::<usize>().ok(),
            "transfer-encoding" => is_chunked = value.eq_ignore_ascii_case("chunked"),
            "connection" => is_kept &= !value.eq_ignore_ascii_case("close"),
            "retry-after" => answer.retry_after = value.parse().ok().map(Duration::from_secs),
            _ => {}
        }
    }
    let (body, used) = match (is_chunked, length) {
        (true, _) => match dechunked(rest)? {
            Some(body) => body,
            None => (Vec::new(), usize::MAX),
        },
        (false, _) if status == 204 => (Vec::new(), 0),
        (false, Some(length)) if rest.len() >= length => (rest[..length].to_vec(), length),
        (false, None) if is_closed => (rest.to_vec(), usize::MAX),
        (false, _) => (Vec::new(), usize::MAX),
    };
    let is_whole = used <= rest.len() || (is_closed && length.is_none() && !is_chunked);
    if !is_whole && rest.len() < BODY_BYTES {
        return Ok(None);
    }
    answer.body = body;
    /* What is left of a body that is too long, or follows it, is no other answer. */
    Ok(Some((answer, is_kept && used == rest.len())))
}

/// Returns a body that comes in chunks, and the number of bytes that it takes. `None` when it is not whole.
///
/// Fails when it is none, or when a chunk is too long.
fn dechunked(bytes: &[u8]) -> io::Result<Option<(Vec<u8>, usize)>> {
    let (mut body, mut at) = (Vec::new(), 0);
    while let Some(line) = memmem::find(&bytes[at..], b"\r\n") {
        let size = std::str::from_utf8(&bytes[at..at + line]).unwrap_or_default();
        let size = size.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(size, 16);
        let Some(size) = size.ok().filter(|size| *size <= BODY_BYTES) else {
            return invalid("a chunk of the answer has no valid size");
        };
        at += line + 2;
        if size == 0 {
            /* Trailers end with an empty line, if there are any. */
            let end = match bytes[at..].starts_with(b"\r\n") {
                true => Some(2),
                false => memmem::find(&bytes[at..], b"\r\n\r\n").map(|end| end + 4),
            };
            return Ok(end.map(|end| (body, at + end)));
        }
        let Some(chunk) = bytes.get(at..at + size + 2) else {
            break;
        };
        body.extend_from_slice(&chunk[..size]);
        at += size + 2;
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Answer;
    use super::parse;

    /// Check whole answers of each form, and that none is taken for one before it is whole.
    #[test]
    fn answers() {
        let answer = |status, body: &str| Answer {
            status,
            body: body.as_bytes().to_vec(),
            ..Answer::default()
        };
        let later = Answer {
            retry_after: Some(Duration::from_secs(3)),
            ..answer(429, "")
        };
        for (text, expected, is_kept) in [
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
                answer(200, "{}"),
                true,
            ),
            ("HTTP/1.1 204 No Content\r\n\r\n", answer(204, ""), true),
            (
                "HTTP/1.1 200 OK\r\ncontent-length:0\r\nConnection: close\r\n\r\n",
                answer(200, ""),
                false,
            ),
            (
                "HTTP/1.1 429 Slow\r\nRetry-After: 3\r\nContent-Length: 0\r\n\r\n",
                later,
                true,
            ),
            (
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\n\
                 2\r\nab\r\n1;x=y\r\nc\r\n0\r\n\r\n",
                answer(503, "abc"),
                true,
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX: y\r\n\r\n",
                answer(200, "a"),
                true,
            ),
        ] {
            let (found, kept) = parse(text.as_bytes(), false).unwrap().unwrap();
            assert_eq!((&found, kept), (&expected, is_kept), "{text}");
            for end in 0..text.len() {
                let found = parse(&text.as_bytes()[..end], false).unwrap();
                assert!(found.is_none(), "{end} of {text}: {found:?}");
            }
        }
    }

    /// Check answers that end with their connection, that are too long, and that are none.
    #[test]
    fn unusual() {
        let open = b"HTTP/1.0 200 OK\r\n\r\nab";
        assert!(parse(open, false).unwrap().is_none());
        let (answer, is_kept) = parse(open, true).unwrap().unwrap();
        assert_eq!((&answer.body[..], is_kept), (&b"ab"[..], false));
        let long = [
            "HTTP/1.1 200 OK\r\nContent-Length: 9999999\r\n\r\n",
            &"x".repeat(70_000),
        ]
        .concat();
        let (answer, is_kept) = parse(long.as_bytes(), false).unwrap().unwrap();
        assert!(answer.status == 200 && !is_kept);
        assert!(parse(b"SSH-2.0\r\n\r\n", false).is_err());
        let chunk = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n";
        assert!(parse(chunk, false).is_err());
        let interim = "HTTP/1.1 100 Continue\r\n\r\n".repeat(100_000);
        assert!(parse(interim.as_bytes(), false).is_err());
        assert!(parse("x".repeat(20_000).as_bytes(), false).is_err());
    }
}
