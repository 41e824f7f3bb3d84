// SPDX-License-Identifier: MIT OR Apache-2.0
//! The protocols of nginx's upstream modules other than HTTP: parses requests, and makes responses.

use std::io::BufRead as _;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;

/// The protocol of an upstream.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Http,
    Fastcgi,
    Uwsgi,
    Scgi,
    Memcached,
}

use Protocol::Fastcgi;
use Protocol::Memcached;

/// `FCGI_BEGIN_REQUEST` and the other types of records.
const FASTCGI_BEGIN: u8 = 1;
const FASTCGI_END: u8 = 3;
const FASTCGI_PARAMS: u8 = 4;
const FASTCGI_STDIN: u8 = 5;
const FASTCGI_STDOUT: u8 = 6;

impl Protocol {
    /// Reads the next request with its body. Returns `None` at the end of the connection.
    /// `upstream.rs` reads HTTP.
    pub fn read(self, from: &mut BufReader<impl Read>) -> Option<Request> {
        match self {
            Self::Http => None,
            Self::Fastcgi => read_fastcgi(from),
            Self::Uwsgi => read_uwsgi(from),
            Self::Scgi => read_scgi(from),
            Self::Memcached => read_memcached(from),
        }
    }
}

/// A request.
#[derive(Default)]
pub struct Request {
    /// The client has the response already, if it has not changed (304).
    pub is_known: bool,
    /// The response has no body.
    pub is_head: bool,
    /// What the upstream does.
    pub uri: String,
    /// The connection stays open after it.
    pub is_kept: bool,
}

/// Returns the header of a response.
pub fn head(protocol: Protocol, uri: &str, status: usize, size: usize) -> String {
    match protocol {
        Memcached if status == 404 => "END\r\n".to_owned(),
        Memcached => format!("VALUE {uri} 0 {size}\r\n"),
        Fastcgi => format!("Status: {status} Told\r\nContent-Length: {size}\r\n\r\n"),
        _ => {
            let mut more = String::new();
            if uri.contains("/modified") {
                more += "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
            }
            if let Some((_, place)) = uri.split_once("/accel-") {
                more += &format!("X-Accel-Redirect: /{}\r\n", place.replace('-', "/"));
            }
            if uri.contains("chunk") {
                more += "Transfer-Encoding: chunked\r\n";
            } else if !uri.contains("/endless") {
                more += &format!("Content-Length: {size}\r\n");
            }
            format!("HTTP/1.1 {status} Told\r\n{more}\r\n")
        }
    }
}

/// A writer that puts everything into records of FastCGI.
pub struct Records<W>(pub W);

impl<W: Write> Records<W> {
    /// Writes the last record of a response.
    pub fn end(&mut self) -> std::io::Result<()> {
        self.record(FASTCGI_END, &[0; 8])
    }

    /// Writes one record.
    fn record(&mut self, kind: u8, content: &[u8]) -> std::io::Result<()> {
        let [high, low] = u16::try_from(content.len()).unwrap().to_be_bytes();
        let mut record = vec![1, kind, 0, 1, high, low, 0, 0];
        record.extend(content);
        self.0.write_all(&record)
    }
}

impl<W: Write> Write for Records<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let part = &bytes[..bytes.len().min(u16::MAX.into())];
        self.record(FASTCGI_STDOUT, part)?;
        Ok(part.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

/// Reads this number of bytes.
fn take(from: &mut impl Read, size: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; size];
    from.read_exact(&mut bytes).ok()?;
    Some(bytes)
}

/// Reads records up to the end of the body.
fn read_fastcgi(from: &mut BufReader<impl Read>) -> Option<Request> {
    let (mut params, mut is_kept) = (Vec::new(), false);
    loop {
        let header = take(from, 8)?;
        let size = usize::from(u16::from_be_bytes([header[4], header[5]]));
        let mut content = take(from, size + usize::from(header[6]))?;
        content.truncate(size);
        match header[1] {
            FASTCGI_BEGIN => is_kept = content[2] == 1,
            FASTCGI_PARAMS if size == 0 && is_deaf(&params) => break,
            FASTCGI_PARAMS => params.extend(content),
            FASTCGI_STDIN if size == 0 => break,
            _ => {}
        }
    }
    let value = |name: &str| {
        let mut rest = &params[..];
        while !rest.is_empty() {
            let mut sizes = [0, 0];
            for size in &mut sizes {
                let long = rest[0] & 0x80 != 0;
                let (bytes, after) = rest.split_at(if long { 4 } else { 1 });
                *size = bytes
                    .iter()
                    .fold(0, |sum, byte| sum << 8 | usize::from(*byte));
                *size &= if long { 0x7fff_ffff } else { 0x7f };
                rest = after;
            }
            let (pair, after) = rest.split_at(sizes[0] + sizes[1]);
            let (key, value) = pair.split_at(sizes[0]);
            if key == name.as_bytes() {
                return String::from_utf8(value.to_vec()).ok();
            }
            rest = after;
        }
        None
    };
    Some(Request {
        uri: value("REQUEST_URI")?,
        is_kept,
        ..Request::default()
    })
}

/// Returns whether the uri says that the body is not to be read.
fn is_deaf(params: &[u8]) -> bool {
    params.windows(5).any(|part| part == b"/deaf")
}

/// Reads a packet of variables, and the body.
fn read_uwsgi(from: &mut BufReader<impl Read>) -> Option<Request> {
    let header = take(from, 4)?;
    let vars = take(from, u16::from_le_bytes([header[1], header[2]]).into())?;
    let mut texts = Vec::new();
    let mut rest = &vars[..];
    while let [low, high, after @ ..] = rest {
        let (text, after) = after.split_at(u16::from_le_bytes([*low, *high]).into());
        texts.push(String::from_utf8(text.to_vec()).ok()?);
        rest = after;
    }
    read_variables(from, &texts)
}

/// Reads a netstring of variables, and the body.
fn read_scgi(from: &mut BufReader<impl Read>) -> Option<Request> {
    let mut size = Vec::new();
    from.read_until(b':', &mut size).ok()?;
    let size: usize = String::from_utf8(size)
        .ok()?
        .strip_suffix(':')?
        .parse()
        .ok()?;
    let vars = String::from_utf8(take(from, size + 1)?).ok()?;
    let texts: Vec<String> = vars.split('\0').map(str::to_owned).collect();
    read_variables(from, &texts)
}

/// Makes a request of alternating names and values, and reads the body, after which the connection
/// ends.
fn read_variables(from: &mut BufReader<impl Read>, texts: &[String]) -> Option<Request> {
    let value = |name| {
        let mut pairs = texts.chunks_exact(2).filter(|pair| pair[0] == name);
        Some(pairs.next()?[1].clone())
    };
    if !value("REQUEST_URI")?.contains("/deaf") {
        take(from, value("CONTENT_LENGTH")?.parse().unwrap_or(0))?;
    }
    Some(Request {
        uri: value("REQUEST_URI")?,
        ..Request::default()
    })
}

/// `get KEY`
fn read_memcached(from: &mut BufReader<impl Read>) -> Option<Request> {
    let mut line = String::new();
    from.read_line(&mut line).ok()?;
    Some(Request {
        uri: line.trim_end().strip_prefix("get ")?.to_owned(),
        is_kept: true,
        ..Request::default()
    })
}
