// SPDX-License-Identifier: MIT OR Apache-2.0
//! One line for each record, for people. That of a request has the accept time, client `=>` upstream, the
//! uri that the client asked for (`request_uri`), the status, sizes and phases.

use std::fmt;
use std::io;
use std::io::Write as _;

use super::Format;
use super::escape::Escaped;
use super::escape::is_unsafe;
use super::flat::flatten;
use crate::blocked::Blocked;
use crate::connection::Connection;
use crate::lost::Lost;
use crate::request::Request;
use crate::values::Cut;

/// Writes lines for people.
pub struct Text;

impl Format for Text {
    fn request(&mut self, line: &mut Vec<u8>, request: &Request<'_>) -> io::Result<()> {
        if let Some(time) = request.downstream_accept_time {
            write!(line, "{time},")?;
        }
        let client = Address(request.remote_addr.as_deref(), request.remote_port);
        write!(line, "{client}=>")?;
        match request.upstream_addr.as_deref() {
            Some(upstream) => write!(line, "{}", Escaped(upstream))?,
            None => {
                let server = Address(request.server_addr.as_deref(), request.server_port);
                write!(line, "{server}")?;
            }
        }
        if let Some(uri) = &request.request_uri {
            write!(line, ", {}", Escaped(uri))?;
        }
        if let Some(status) = request.status {
            write!(line, ", {status}")?;
        }
        if let Some(size) = request.request_size {
            write!(line, ", request_size={size}")?;
        }
        if let Some(size) = request.response_size {
            write!(line, ", response_size={size}")?;
        }
        flatten(&request.phases, &mut |name, time| {
            line.extend_from_slice(b", ");
            line.extend_from_slice(name.as_bytes());
            line.push(b'=');
            line.extend_from_slice(time);
        })?;
        line.push(b'\n');
        Ok(())
    }

    fn connection(&mut self, line: &mut Vec<u8>, connection: &Connection<'_>) -> io::Result<()> {
        let client = Address(connection.peer_addr.as_deref(), connection.peer_port);
        let server = Address(connection.server_addr.as_deref(), connection.server_port);
        write!(line, "connection {client}=>{server}, {}", connection.stage)?;
        if let Some(end) = connection.end {
            write!(line, ", {end}")?;
        }
        for (name, value) in [
            ("connection_requests", connection.connection_requests),
            ("connection_ns", connection.connection_ns),
            ("idle_ns", connection.idle_ns),
        ] {
            if let Some(value) = value {
                write!(line, ", {name}={value}")?;
            }
        }
        line.push(b'\n');
        Ok(())
    }

    fn lost(&mut self, line: &mut Vec<u8>, lost: &Lost) -> io::Result<()> {
        writeln!(line, "lost {} requests: {}", lost.count, lost.cause)
    }

    fn blocked(&mut self, line: &mut Vec<u8>, blocked: &Blocked<'_>) -> io::Result<()> {
        write!(line, "blocked pid {}", blocked.pid)?;
        flatten(blocked, &mut |name, value| {
            if name.ends_with("_ns") || name.ends_with("_requests") {
                line.extend_from_slice(b", ");
                line.extend_from_slice(name.as_bytes());
                line.push(b'=');
                line.extend_from_slice(value);
            }
        })?;
        line.push(b'\n');
        Ok(())
    }

    fn writes(&self, cut: Cut) -> bool {
        cut == Cut::RequestUri
    }

    fn width(&self, c: char) -> usize {
        width(c)
    }
}

/// Returns the number of bytes of a character as `Escaped` displays it.
fn width(c: char) -> usize {
    match c {
        '\\' => 2,
        c if c.is_ascii() && is_unsafe(c) => r"\x1b".len(),
        c if is_unsafe(c) => r"\u{}".len() + (u32::from(c).ilog2() / 4 + 1) as usize,
        c => c.len_utf8(),
    }
}

/// Displays `address:port`, with brackets around IPv6, as far as they are known.
struct Address<'a>(Option<&'a str>, Option<u16>);

impl fmt::Display for Address<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(Some(addr), port) = self else {
            return Ok(());
        };
        match port {
            Some(port) if addr.contains(':') => write!(f, "[{}]:{port}", Escaped(addr)),
            Some(port) => write!(f, "{}:{port}", Escaped(addr)),
            None => write!(f, "{}", Escaped(addr)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Escaped;
    use super::Format as _;
    use super::Text;
    use super::width;
    use crate::phases::Phases;
    use crate::request::Request;

    /// Returns the line of a request.
    fn line(request: &Request<'_>) -> String {
        let mut line = Vec::new();
        Text.request(&mut line, request).unwrap();
        String::from_utf8(line).unwrap()
    }

    /// Check the line of a proxied request.
    #[test]
    fn proxied() {
        let request = Request {
            downstream_accept_time: Some(4_751_821_449_717_830),
            remote_addr: Some("10.0.209.200".into()),
            remote_port: Some(57281),
            upstream_addr: Some("10.0.229.81:80".into()),
            request_uri: Some("/1kb.html".into()),
            uri: Some("/index.php".into()),
            status: Some(404),
            request_size: Some(83),
            response_size: Some(375),
            phases: Phases {
                downstream_request_first_byte_time: Some(6_567_704),
                downstream_response_last_byte_time: Some(8_064_774),
                ..Default::default()
            },
            ..Default::default()
        };
        assert_eq!(
            line(&request),
            "4751821449717830,10.0.209.200:57281=>10.0.229.81:80, /1kb.html, 404, \
             request_size=83, response_size=375, downstream_request_first_byte_time=6567704, \
             downstream_response_last_byte_time=8064774\n"
        );
    }

    /// Check that the text of a request is escaped, and that absent values are left out.
    #[test]
    fn hostile() {
        let request = Request {
            remote_addr: Some("::1".into()),
            remote_port: Some(1),
            server_addr: Some("unix:/run/x".into()),
            request_uri: Some("/\x1b[31m\r\n\u{9b}\u{202e}\\".into()),
            ..Default::default()
        };
        assert_eq!(
            line(&request),
            "[::1]:1=>unix:/run/x, /\\x1b[31m\\x0d\\x0a\\u{9b}\\u{202e}\\\\\n"
        );
    }
    /// Check that `width()` is right for each character.
    #[test]
    fn widths() {
        for c in '\0'..=char::MAX {
            let escaped = Escaped(c.encode_utf8(&mut [0; 4])).to_string();
            assert_eq!(width(c), escaped.len(), "{escaped}");
        }
    }
}
