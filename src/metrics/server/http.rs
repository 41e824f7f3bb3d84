// SPDX-License-Identifier: MIT OR Apache-2.0
//! HTTP/1 as far as the server of the metrics needs it: requests and responses.

use std::rc::Rc;

/// The most bytes of a request's header.
pub const HEADER_BYTES: usize = 8 << 10;

/// The content type of short answers.
const PLAIN: &str = "text/plain; charset=utf-8";

/// Returns the position of the empty line that ends the header. Lines may end with LF alone, as
/// people type them.
pub fn end_of_header(header: &[u8]) -> Option<usize> {
    let crlf = memchr::memmem::find(header, b"\r\n\r\n");
    crlf.or_else(|| memchr::memmem::find(header, b"\n\n"))
}

/// A parsed request.
pub struct HttpRequest<'a> {
    pub method: &'a str,
    /// The path, without a query.
    pub path: &'a str,
    /// The values of all `Host` headers.
    pub hosts: Vec<&'a str>,
    /// The values of all `Accept` headers.
    pub accept: Vec<&'a str>,
}

impl<'a> HttpRequest<'a> {
    /// Parses a header. `None` when it is too long, or not one of HTTP/1.
    pub fn parse(header: &'a [u8]) -> Option<Self> {
        let end = end_of_header(header).filter(|end| *end <= HEADER_BYTES)?;
        let mut lines = std::str::from_utf8(&header[..end]).ok()?.lines();
        let mut words = lines.next()?.split(' ');
        let (method, target) = (words.next()?, words.next()?);
        words
            .next()
            .filter(|version| version.starts_with("HTTP/1."))?;
        let path = target.split_once('?').map_or(target, |(path, _)| path);
        let (mut hosts, mut accept) = (Vec::new(), Vec::new());
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            match name.to_ascii_lowercase().as_str() {
                "host" => hosts.push(value.trim()),
                "accept" => accept.push(value.trim()),
                _ => {}
            }
        }
        Some(Self {
            method,
            path,
            hosts,
            accept,
        })
    }
}

/// A response.
pub struct Response {
    /// The status code and its reason.
    pub status: &'static str,
    /// The content type of the body.
    pub content_type: &'static str,
    pub body: Rc<[u8]>,
    /// True for an answer to HEAD: only the header is sent.
    pub is_head: bool,
}

impl Response {
    /// Creates a response with one line of text.
    pub fn plain(status: &'static str, body: &str) -> Self {
        Self {
            status,
            content_type: PLAIN,
            body: body.as_bytes().into(),
            is_head: false,
        }
    }
}

/// A response that is being sent. Several responses may share a body.
pub struct Answer {
    /// The header and the body.
    pub parts: [Rc<[u8]>; 2],
    /// The number of bytes that were sent.
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

    /// Check requests with either end of lines, and texts that are not requests.
    #[test]
    fn requests() {
        for text in [
            "GET /metrics?a HTTP/1.1\r\nhOST:  a:1 \r\nX: y\r\naccept: b\r\nAccept:c\r\n\r\n",
            "GET /metrics HTTP/1.0\nAccept: b\nHost: a:1\nAccept: c\n\n",
        ] {
            let request = HttpRequest::parse(text.as_bytes()).unwrap();
            assert_eq!((request.method, request.path), ("GET", "/metrics"));
            assert_eq!(request.hosts, ["a:1"]);
            assert_eq!(request.accept, ["b", "c"]);
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
