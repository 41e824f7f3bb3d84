// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is asked of the server of metrics, and what it answers: as much of HTTP/1 as that takes.

use std::rc::Rc;

/// Bytes of a request's header.
pub const HEADER_BYTES: usize = 8 << 10;

/// What is written by hand.
const PLAIN: &str = "text/plain; charset=utf-8";

/// Where the empty line begins. People type lines that end with LF alone.
pub fn end_of_header(header: &[u8]) -> Option<usize> {
    let crlf = memchr::memmem::find(header, b"\r\n\r\n");
    crlf.or_else(|| memchr::memmem::find(header, b"\n\n"))
}

/// What is asked for.
pub struct HttpRequest<'a> {
    /// The method.
    pub method: &'a str,
    /// Without its query.
    pub path: &'a str,
    /// Every `Host`.
    pub hosts: Vec<&'a str>,
}

impl<'a> HttpRequest<'a> {
    /// `None` when it is too long, or no header.
    pub fn parse(header: &'a [u8]) -> Option<Self> {
        let end = end_of_header(header).filter(|end| *end <= HEADER_BYTES)?;
        let mut lines = std::str::from_utf8(&header[..end]).ok()?.lines();
        let mut words = lines.next()?.split(' ');
        let (method, target) = (words.next()?, words.next()?);
        words
            .next()
            .filter(|version| version.starts_with("HTTP/1."))?;
        let path = target.split_once('?').map_or(target, |(path, _)| path);
        let hosts = lines.filter_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("host").then_some(value.trim())
        });
        let hosts = hosts.collect();
        Some(Self {
            method,
            path,
            hosts,
        })
    }
}

/// What is answered.
pub struct Response {
    /// Its number and what that means.
    pub status: &'static str,
    /// Of the body.
    pub content_type: &'static str,
    /// The body.
    pub body: Rc<[u8]>,
    /// Whether the body stays here.
    pub is_head: bool,
}

impl Response {
    /// A line of text.
    pub fn plain(status: &'static str, body: &str) -> Self {
        Self {
            status,
            content_type: PLAIN,
            body: body.as_bytes().into(),
            is_head: false,
        }
    }
}

/// What is being sent: the body may be shared with others.
pub struct Answer {
    /// Header and body.
    pub parts: [Rc<[u8]>; 2],
    /// So many bytes are out.
    pub sent: usize,
}

impl From<Response> for Answer {
    fn from(response: Response) -> Self {
        let header = format!(
            "HTTP/1.1 {}\r\nContent-Type: {}\r\nContent-Length: {}\r\n{}\
             X-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n",
            response.status,
            response.content_type,
            response.body.len(),
            if response.status.starts_with("405") {
                "Allow: GET, HEAD\r\n"
            } else {
                ""
            },
        );
        let body = if response.is_head {
            Rc::from([])
        } else {
            response.body
        };
        Self {
            parts: [header.into_bytes().into(), body],
            sent: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::HEADER_BYTES;
    use super::HttpRequest;

    /// Check requests with either end of lines, and what is none.
    #[test]
    fn requests() {
        for text in [
            "GET /metrics?a HTTP/1.1\r\nhOST:  a:1 \r\nX: y\r\n\r\n",
            "GET /metrics HTTP/1.0\nHost: a:1\n\n",
        ] {
            let request = HttpRequest::parse(text.as_bytes()).unwrap();
            assert_eq!((request.method, request.path), ("GET", "/metrics"));
            assert_eq!(request.hosts, ["a:1"]);
        }
        for text in [
            "",
            "\r\n\r\n",
            "GET\r\n\r\n",
            "GET /\r\n\r\n",
            "GET / HTTP/2\r\n\r\n",
        ] {
            assert!(HttpRequest::parse(text.as_bytes()).is_none(), "{text:?}");
        }
        let long = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(HEADER_BYTES));
        assert!(HttpRequest::parse(long.as_bytes()).is_none());
    }
}
