// SPDX-License-Identifier: MIT OR Apache-2.0
//! The `traceparent` header of W3C Trace Context, which names the trace that a request belongs to.

/// The length of a header of version 00: version, trace id, parent id and flags, with separators.
const LEN: usize = 55;

/// The position of the trace id.
const TRACE_ID: std::ops::Range<usize> = 3..35;
/// The position of the parent id.
const PARENT_ID: std::ops::Range<usize> = 36..52;

/// The position of the flags.
const FLAGS: std::ops::Range<usize> = 53..55;

/// The trace and the span that a client states.
#[derive(Debug, PartialEq, Eq)]
pub struct TraceContext<'a> {
    /// The trace id: 32 hexadecimal digits.
    pub trace_id: &'a str,
    /// The id of the span that made the request: 16 hexadecimal digits.
    pub parent_span_id: &'a str,
    /// The flags: two hexadecimal digits.
    pub flags: &'a str,
}

impl<'a> TraceContext<'a> {
    /// Parses the value of a header. `None` when the specification calls it invalid. The values of
    /// later versions may be longer.
    pub fn parse(value: &'a [u8]) -> Option<Self> {
        let begin = value.get(..LEN)?;
        let is_right = begin.iter().enumerate().all(|(at, byte)| match at {
            2 | 35 | 52 => *byte == b'-',
            _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
        });
        if !is_right {
            return None;
        }
        /* Each byte is a character from here on. */
        let text = std::str::from_utf8(begin).ok()?;
        let is_end = match &text[..2] {
            "00" => value.len() == LEN,
            "ff" => false,
            _ => value.get(LEN).is_none_or(|byte| *byte == b'-'),
        };
        let id = |range| Some(&text[range]).filter(|id: &&str| id.bytes().any(|byte| byte != b'0'));
        let (trace_id, parent_id) = (id(TRACE_ID)?, id(PARENT_ID)?);
        is_end.then_some(Self {
            trace_id,
            parent_span_id: parent_id,
            flags: &text[FLAGS],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::TraceContext;

    /// The example of the specification.
    const EXAMPLE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    /// Check values that are valid.
    #[test]
    fn valid() {
        let later = EXAMPLE.replacen("00-", "cc-", 1);
        for value in [EXAMPLE.to_owned(), later.clone(), later + "-what-comes"] {
            let context = TraceContext::parse(value.as_bytes()).unwrap();
            assert_eq!(context.trace_id, "4bf92f3577b34da6a3ce929d0e0e4736");
            assert_eq!(context.parent_span_id, "00f067aa0ba902b7");
            assert_eq!(context.flags, "01");
        }
    }

    /// Check values that are invalid by the specification.
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
            &format!("\u{20ac}{}", &EXAMPLE[3..]),
            &EXAMPLE.replacen("00-4b", "0\u{20ac}", 1),
            &EXAMPLE.replace("36-", "\u{20ac}"),
            &EXAMPLE.replace("-01", "\u{20ac}"),
        ] {
            assert_eq!(TraceContext::parse(value.as_bytes()), None, "{value}");
        }
    }
}
