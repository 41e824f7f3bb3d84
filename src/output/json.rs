// SPDX-License-Identifier: MIT OR Apache-2.0
//! One JSON object a line. serde_json leaves DEL, C1 and bidi controls as they are, which is valid
//! and not safe: here they are escaped.

use std::io;
use std::io::Write;

use anyhow::Context as _;
use anyhow::Result;
use serde::Serialize;
use serde_json::Serializer;
use serde_json::ser::Formatter;

use super::Sink;
use super::escape::is_unsafe;
use crate::record::lost::Lost;
use crate::record::request::Request;

/// Writes JSON lines.
pub struct Json;

/// A record and what it is.
#[derive(Serialize)]
struct Record<'a, T> {
    /// The first key of every record.
    r#type: &'static str,
    /// All others.
    #[serde(flatten)]
    record: &'a T,
}

impl Sink for Json {
    fn request(&mut self, line: &mut Vec<u8>, request: &Request<'_>) -> Result<()> {
        write_line(line, "request", request)
    }

    fn lost(&mut self, line: &mut Vec<u8>, lost: &Lost) -> Result<()> {
        write_line(line, "lost", lost)
    }

    fn writes(&self, _: &str) -> bool {
        true
    }

    fn width(&self, c: char) -> usize {
        width(c)
    }
}

/// Bytes of a character in a string: serde_json's short escapes, its `\uXXXX`, and ours.
pub fn width(c: char) -> usize {
    match c {
        '"' | '\\' | '\u{8}' | '\t' | '\n' | '\u{c}' | '\r' => 2,
        c if is_unsafe(c) => 6,
        c => c.len_utf8(),
    }
}

/// Appends one record.
fn write_line<T: Serialize>(line: &mut Vec<u8>, r#type: &'static str, record: &T) -> Result<()> {
    write_object(line, &Record { r#type, record })
}

/// Appends an object and the line's end; nothing of it when it can't be encoded.
pub fn write_object(line: &mut Vec<u8>, object: &impl Serialize) -> Result<()> {
    let start = line.len();
    let result = object.serialize(&mut Serializer::with_formatter(&mut *line, Safe));
    if result.is_err() {
        line.truncate(start);
    }
    result.context("failed to encode a record")?;
    line.push(b'\n');
    Ok(())
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
    use super::Json;
    use super::Sink as _;
    use crate::output::escape::is_unsafe;
    use crate::record::request::Request;

    /// Check that no character that is not safe is left raw, and that none of them is changed.
    #[test]
    fn escapes() {
        let hostile: String = (0..0x2100)
            .chain(0xfef0..0xffff)
            .filter_map(char::from_u32)
            .collect();
        let request = Request {
            uri: Some(hostile.as_str().into()),
            ..Default::default()
        };
        let mut line = Vec::new();
        Json.request(&mut line, &request).unwrap();
        let text = String::from_utf8(line).unwrap();
        let object = text.strip_suffix('\n').unwrap();
        assert!(!object.chars().any(is_unsafe));
        let parsed: serde_json::Value = serde_json::from_str(object).unwrap();
        assert_eq!(parsed["uri"], hostile);
    }

    /// Check that absent values are absent keys.
    #[test]
    fn absent() {
        let mut line = Vec::new();
        Json.request(&mut line, &Request::default()).unwrap();
        let expected = "{\"type\":\"request\",\"pid\":0,\"connection\":0,\
            \"connection_requests\":0,\"scheme\":\"\",\"response_size\":0}\n";
        assert_eq!(String::from_utf8(line).unwrap(), expected);
    }
}
