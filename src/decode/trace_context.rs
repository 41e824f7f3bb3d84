// SPDX-License-Identifier: MIT OR Apache-2.0
//! The `traceparent` header of W3C Trace Context: which trace a request belongs to.

/// Its version and its two ids, with what separates them, and the flags.
const LEN: usize = 55;

/// Where the trace's id stands.
const TRACE_ID: std::ops::Range<usize> = 3..35;
/// Where the span's does.
const PARENT_ID: std::ops::Range<usize> = 36..52;

/// What is joined by.
#[derive(Debug, PartialEq, Eq)]
pub struct TraceContext<'a> {
    /// 32 hexadecimal digits.
    pub trace_id: &'a str,
    /// 16, of the span that made the request.
    pub parent_span_id: &'a str,
}

impl<'a> TraceContext<'a> {
    /// From a header's value; `None` when the specification calls it invalid. Later versions may be
    /// longer.
    pub fn parse(value: &'a [u8]) -> Option<Self> {
        let text = std::str::from_utf8(value.get(..LEN)?).ok()?;
        let is_right = text.bytes().enumerate().all(|(at, byte)| match at {
            2 | 35 | 52 => byte == b'-',
            _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
        });
        let is_end = match &text[..2] {
            "00" => value.len() == LEN,
            "ff" => false,
            _ => value.get(LEN).is_none_or(|byte| *byte == b'-'),
        };
        let id = |range| Some(&text[range]).filter(|id: &&str| id.bytes().any(|byte| byte != b'0'));
        let (trace_id, parent_id) = (id(TRACE_ID)?, id(PARENT_ID)?);
        (is_right && is_end).then_some(Self {
            trace_id,
            parent_span_id: parent_id,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::TraceContext;

    /// The specification's own example.
    const EXAMPLE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    /// Check what is a traceparent.
    #[test]
    fn valid() {
        let later = EXAMPLE.replacen("00-", "cc-", 1);
        for value in [EXAMPLE.to_owned(), later.clone(), later + "-what-comes"] {
            let context = TraceContext::parse(value.as_bytes()).unwrap();
            assert_eq!(context.trace_id, "4bf92f3577b34da6a3ce929d0e0e4736");
            assert_eq!(context.parent_span_id, "00f067aa0ba902b7");
        }
    }

    /// Check what is none, by the specification.
    #[test]
    fn invalid() {
        for value in [
            "",
            &EXAMPLE[..54],
            &format!("{EXAMPLE}-"),
            &EXAMPLE.replacen("00-", "ff-", 1),
            &EXAMPLE.replacen("00-", "cc-", 1).replace("-01", "-01."),
            &EXAMPLE.replace("4bf", "4BF"),
            &EXAMPLE.replace("4bf", "4gf"),
            &EXAMPLE.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            &EXAMPLE.replace("00f067aa0ba902b7", &"0".repeat(16)),
            &EXAMPLE.replace("-00f", "_00f"),
            &"\u{fc}".repeat(28),
        ] {
            assert_eq!(TraceContext::parse(value.as_bytes()), None, "{value}");
        }
    }
}
