// SPDX-License-Identifier: MIT OR Apache-2.0
//! One JSON object a line. serde_json writes DEL, C1 and bidi controls as they are, which is valid and
//! not safe: here they are escaped.

use std::io;
use std::io::Write;

use serde::Serialize;
use serde_json::Serializer;
use serde_json::ser::Formatter;

use super::Format;
use super::escape::is_unsafe;
use crate::lost::Lost;
use crate::request::Request;
use crate::values::Cut;

/// Writes JSON lines.
pub struct Json;

/// A record and its type, without a copy of it: see `Record`.
#[derive(Serialize)]
struct Tagged<'a, T> {
    r#type: &'static str,
    #[serde(flatten)]
    record: &'a T,
}

impl Format for Json {
    fn request(&mut self, line: &mut Vec<u8>, request: &Request<'_>) -> io::Result<()> {
        write_record(line, "request", request)
    }

    fn lost(&mut self, line: &mut Vec<u8>, lost: &Lost) -> io::Result<()> {
        write_record(line, "lost", lost)
    }

    fn writes(&self, _: Cut) -> bool {
        true
    }

    fn width(&self, c: char) -> usize {
        width(c)
    }
}

/// Bytes of a character in a string: serde_json's short escapes, its `\uXXXX`, and ours.
pub(super) fn width(c: char) -> usize {
    match c {
        '"' | '\\' | '\u{8}' | '\t' | '\n' | '\u{c}' | '\r' => 2,
        c if is_unsafe(c) => 6,
        c => c.len_utf8(),
    }
}

/// Appends one record.
fn write_record<T: Serialize>(
    line: &mut Vec<u8>,
    r#type: &'static str,
    record: &T,
) -> io::Result<()> {
    write_line(line, &Tagged { r#type, record })
}

/// Appends an object as JSON, and a line end. Fails when it can't be encoded; then nothing is appended.
pub fn write_line(line: &mut Vec<u8>, object: &impl Serialize) -> io::Result<()> {
    let start = line.len();
    let result = write_value(line, object);
    match result {
        Ok(()) => line.push(b'\n'),
        Err(_) => line.truncate(start),
    }
    result
}

/// Appends any value as JSON.
pub(super) fn write_value(text: &mut Vec<u8>, value: &(impl Serialize + ?Sized)) -> io::Result<()> {
    let mut serializer = Serializer::with_formatter(text, Safe);
    value.serialize(&mut serializer).map_err(io::Error::from)
}

/// As serde_json's own, but for what strings hold.
struct Safe;

impl Formatter for Safe {
    fn write_string_fragment<W: Write + ?Sized>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        /* All keys and most values: looked at by bytes, many at once. */
        if fragment.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            return writer.write_all(fragment.as_bytes());
        }
        let mut written = 0;
        for (at, c) in fragment.char_indices().filter(|(_, c)| is_unsafe(*c)) {
            writer.write_all(&fragment.as_bytes()[written..at])?;
            write!(writer, "\\u{:04x}", u32::from(c))?;
            written = at + c.len_utf8();
        }
        writer.write_all(&fragment.as_bytes()[written..])
    }
}

#[cfg(test)]
mod tests {
    use super::Format as _;
    use super::Json;
    use super::width;
    use crate::format::escape::is_unsafe;
    use crate::request::Request;

    /// The JSON line of a request.
    fn line(request: &Request<'_>) -> String {
        let mut line = Vec::new();
        Json.request(&mut line, request).unwrap();
        String::from_utf8(line).unwrap()
    }

    /// Check that no character that is not safe is left raw, that none of them is changed, and that each
    /// is as wide as it is said to be.
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

    /// Check that absent values are absent keys.
    #[test]
    fn absent() {
        let expected = "{\"type\":\"request\",\"pid\":0,\"connection\":0,\
            \"connection_requests\":0,\"scheme\":\"http\",\"response_size\":0}\n";
        assert_eq!(line(&Request::default()), expected);
    }
}
