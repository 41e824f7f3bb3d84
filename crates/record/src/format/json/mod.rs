// SPDX-License-Identifier: MIT OR Apache-2.0
//! One JSON object a line. serde_json does not escape DEL, C1 and bidi controls, which is valid
//! JSON but not safe on a terminal: they are escaped here.

use std::io;

use serde::Serialize;

use self::serializer::Line;
pub(super) use self::string::write_string;
use super::Format;
use super::escape::is_unsafe;
use crate::blocked::Blocked;
use crate::connection::Connection;
use crate::lost::Lost;
use crate::request::Request;

mod serializer;
mod string;

/// Writes JSON lines.
pub struct Json;

impl Format for Json {
    fn request(&mut self, line: &mut Vec<u8>, request: &Request<'_>) -> io::Result<()> {
        write_record(line, "request", request)
    }

    fn connection(&mut self, line: &mut Vec<u8>, connection: &Connection<'_>) -> io::Result<()> {
        write_record(line, "connection", connection)
    }

    fn lost(&mut self, line: &mut Vec<u8>, lost: &Lost) -> io::Result<()> {
        write_record(line, "lost", lost)
    }

    fn blocked(&mut self, line: &mut Vec<u8>, blocked: &Blocked<'_>) -> io::Result<()> {
        write_record(line, "blocked", blocked)
    }

    fn width(&self, c: char) -> usize {
        width(c)
    }
}

/// Returns the number of bytes of a character in a JSON string: with serde_json's short escapes,
/// its `\uXXXX`, and our own escapes.
pub(super) fn width(c: char) -> usize {
    match c {
        '"' | '\\' | '\u{8}' | '\t' | '\n' | '\u{c}' | '\r' => 2,
        c if is_unsafe(c) => 6,
        c => c.len_utf8(),
    }
}

/// Appends one record with its type as the first key: see `Record`.
fn write_record(line: &mut Vec<u8>, r#type: &str, record: &impl Serialize) -> io::Result<()> {
    let start = line.len();
    line.extend_from_slice(b"{\"type\":\"");
    line.extend_from_slice(r#type.as_bytes());
    line.push(b'"');
    let brace = line.len();
    let result = write_line(line, record);
    match result {
        Ok(()) => line[brace] = b',',
        Err(_) => line.truncate(start),
    }
    result
}

/// Appends an object as JSON, and a line end. Fails when the object can't be encoded; then nothing
/// is appended.
pub fn write_line(line: &mut Vec<u8>, object: &impl Serialize) -> io::Result<()> {
    let start = line.len();
    let result = write_value(line, object);
    match result {
        Ok(()) => line.push(b'\n'),
        Err(_) => line.truncate(start),
    }
    result
}

/// Appends a number.
pub(super) fn write_number(text: &mut Vec<u8>, number: impl itoa::Integer) {
    let mut digits = itoa::Buffer::new();
    text.extend_from_slice(digits.format(number).as_bytes());
}

/// Appends a value as JSON.
pub(super) fn write_value(text: &mut Vec<u8>, value: &(impl Serialize + ?Sized)) -> io::Result<()> {
    value.serialize(&mut Line(text)).map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use super::Format as _;
    use super::Json;
    use super::width;
    use crate::format::escape::is_unsafe;
    use crate::request::Request;

    /// Returns the JSON line of a request.
    fn line(request: &Request<'_>) -> String {
        let mut line = Vec::new();
        Json.request(&mut line, request).unwrap();
        String::from_utf8(line).unwrap()
    }

    /// Check that every unsafe character is escaped, that none is changed, and that `width()` is
    /// right for each.
    #[test]
    fn escapes() {
        let hostile: String = (0..0x2100)
            .chain(0xfef0..0xffff)
            .filter_map(char::from_u32)
            .collect();
        let request = |uri: &str| Request {
            uri: Some(uri.to_owned().into()),
            ..Default::default()
        };
        let text = line(&request(&hostile));
        let object = text.strip_suffix('\n').unwrap();
        assert!(!object.chars().any(is_unsafe));
        let parsed: serde_json::Value = serde_json::from_str(object).unwrap();
        assert_eq!(parsed["uri"], hostile);
        let widths: usize = hostile.chars().map(width).sum();
        assert_eq!(text.len() - line(&request("")).len(), widths);
    }

    /// Check that absent values have no key.
    #[test]
    fn absent() {
        let expected = "{\"type\":\"request\",\"pid\":0,\"scheme\":\"http\"}\n";
        assert_eq!(line(&Request::default()), expected);
    }
}
