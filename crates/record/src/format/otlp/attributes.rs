// SPDX-License-Identifier: MIT OR Apache-2.0
//! Attributes in the JSON of OTLP: a list of names, each with a value that names its type.

use crate::format::conventions::Value;
use crate::format::json::write_number;
use crate::format::json::write_string;

/// A list of attributes that is being written. `close()` ends it.
pub(super) struct Attributes<'o> {
    out: &'o mut Vec<u8>,
    is_empty: bool,
}

impl<'o> Attributes<'o> {
    /// Begins the member `attributes` of an object.
    pub fn open(out: &'o mut Vec<u8>) -> Self {
        out.extend_from_slice(b"\"attributes\":[");
        Self {
            out,
            is_empty: true,
        }
    }

    /// Adds an attribute whose value is plain JSON, or an array of plain JSON.
    pub fn add_json(&mut self, prefix: &str, name: &str, value: &[u8]) {
        self.name(prefix, name);
        write_any(self.out, value);
        self.out.push(b'}');
    }

    /// Adds an attribute.
    pub fn add(&mut self, name: &str, value: Value<'_>) {
        self.name("", name);
        match value {
            Value::Text(text) => {
                self.out.extend_from_slice(b"{\"stringValue\":");
                write_string(self.out, text);
                self.out.push(b'}');
            }
            Value::Number(number) => {
                self.out.extend_from_slice(b"{\"intValue\":\"");
                write_number(self.out, greatest(number));
                self.out.extend_from_slice(b"\"}");
            }
        }
        self.out.push(b'}');
    }

    /// Begins an attribute. No name has to be escaped: they are our own, or those of variables and headers, which
    /// have no such characters.
    fn name(&mut self, prefix: &str, name: &str) {
        let begin = if self.is_empty {
            "{\"key\":\""
        } else {
            ",{\"key\":\""
        };
        self.is_empty = false;
        for part in [begin, prefix, name, "\",\"value\":"] {
            self.out.extend_from_slice(part.as_bytes());
        }
    }

    /// Ends the list.
    pub fn close(self) {
        self.out.push(b']');
    }
}

/// Returns a number as far as a signed one of 64 bits has room for it.
fn greatest(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Appends an `AnyValue` of plain JSON, or of an array of plain JSON.
fn write_any(out: &mut Vec<u8>, value: &[u8]) {
    let (begin, end): (&[u8], &[u8]) = match value.first() {
        Some(b'"') => (b"{\"stringValue\":", b"}"),
        Some(b't' | b'f') => (b"{\"boolValue\":", b"}"),
        Some(b'[') => return write_array(out, value),
        _ => (b"{\"intValue\":\"", b"\"}"),
    };
    out.extend_from_slice(begin);
    /* Numbers of 20 digits, and some of 19, are greater than a signed one may be. */
    let is_long_number = value.len() >= 19 && begin.ends_with(b"\"");
    let text = is_long_number.then(|| std::str::from_utf8(value).ok());
    match text.flatten().and_then(|text| text.parse::<u64>().ok()) {
        Some(number) => write_number(out, greatest(number)),
        None => out.extend_from_slice(value),
    }
    out.extend_from_slice(end);
}

/// Appends an array of plain JSON.
fn write_array(out: &mut Vec<u8>, value: &[u8]) {
    out.extend_from_slice(b"{\"arrayValue\":{\"values\":[");
    for (n, item) in items(value).enumerate() {
        if n > 0 {
            out.push(b',');
        }
        write_any(out, item);
    }
    out.extend_from_slice(b"]}}");
}

/// Returns the items of an array of plain JSON.
fn items(array: &[u8]) -> impl Iterator<Item = &[u8]> {
    let inner = array
        .strip_prefix(b"[")
        .and_then(|array| array.strip_suffix(b"]"));
    let (mut is_text, mut is_escaped) = (false, false);
    let items = inner.unwrap_or_default().split(move |byte| {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => is_text = !is_text,
            _ => return *byte == b',' && !is_text,
        }
        false
    });
    items.filter(|item| !item.is_empty())
}

#[cfg(test)]
mod tests {
    use serde_json::Value as Json;
    use serde_json::json;

    use super::Attributes;
    use super::Value;

    /// Returns the value of an attribute whose JSON is this.
    fn any(value: &Json) -> Json {
        let mut out = b"{".to_vec();
        let mut attributes = Attributes::open(&mut out);
        attributes.add_json("nginx.", "a", value.to_string().as_bytes());
        attributes.add("b", Value::Text("\u{202e}\""));
        attributes.add("c", Value::Number(u64::MAX));
        attributes.close();
        out.push(b'}');
        let found: Json = serde_json::from_slice(&out).unwrap();
        let list = &found["attributes"];
        assert_eq!(list[0]["key"], "nginx.a");
        assert_eq!(
            list[1],
            json!({"key": "b", "value": {"stringValue": "\u{202e}\""}})
        );
        let greatest = json!({"intValue": i64::MAX.to_string()});
        assert_eq!(list[2]["value"], greatest);
        list[0]["value"].clone()
    }

    /// Check the form of each type, and numbers that are too great.
    #[test]
    fn types() {
        for (value, expected) in [
            (json!("x"), json!({"stringValue": "x"})),
            (json!(true), json!({"boolValue": true})),
            (json!(0), json!({"intValue": "0"})),
            (json!(-1), json!({"intValue": "-1"})),
            (json!(i64::MAX), json!({"intValue": i64::MAX.to_string()})),
            (json!(u64::MAX), json!({"intValue": i64::MAX.to_string()})),
            (
                json!(["a\",", "b\\", ",", "", 7]),
                json!({"arrayValue": {"values": [
                    {"stringValue": "a\","}, {"stringValue": "b\\"}, {"stringValue": ","},
                    {"stringValue": ""}, {"intValue": "7"},
                ]}}),
            ),
        ] {
            assert_eq!(any(&value), expected);
        }
    }
}
