// SPDX-License-Identifier: MIT OR Apache-2.0
//! The keys of a request that name its trace.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;

/// The trace that a request belongs to (W3C Trace Context).
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
pub struct Trace<'a> {
    /// The trace that the client says it belongs to (W3C Trace Context).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), extend(
        "pattern" = "^[0-9a-f]{32}$",
        "x-unit" = "32 hexadecimal digits",
        "x-source" = "the request's `traceparent` header (`r->headers_in.headers`)",
        "x-absent" = "there is no such header, or more than one, or one that the specification calls \
                      invalid",
        "x-otel" = "trace_id",
        "x-otel-note" = "for the `TraceId` of a log record; the client's span is `nginx.parent_span_id`"
    ))]
    pub trace_id: Option<Cow<'a, str>>,
    /// The client's span in that trace.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), extend(
        "pattern" = "^[0-9a-f]{16}$",
        "x-unit" = "16 hexadecimal digits",
        "x-source" = "the request's `traceparent` header (`r->headers_in.headers`)",
        "x-absent" = "`trace_id` is absent"
    ))]
    pub parent_span_id: Option<Cow<'a, str>>,
    /// The flags of that trace, as the client states them: the lowest bit says that it is sampled.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2), extend(
        "pattern" = "^[0-9a-f]{2}$",
        "x-unit" = "two hexadecimal digits",
        "x-source" = "the request's `traceparent` header (`r->headers_in.headers`)",
        "x-absent" = "`trace_id` is absent",
        "x-otel" = "trace_flags",
        "x-otel-note" = "for the `TraceFlags` of a log record"
    ))]
    pub trace_flags: Option<Cow<'a, str>>,
}

impl Trace<'_> {
    /// The lowest bit of the flags: the trace is sampled.
    pub const SAMPLED: u8 = 1;

    /// Returns the id of the trace. `None` when there is none, or when the text is none.
    pub fn id(&self) -> Option<u128> {
        parse_hex(self.trace_id.as_deref()?, 32).filter(|id| *id != 0)
    }

    /// Returns the id of the client's span, likewise.
    pub fn parent_id(&self) -> Option<u64> {
        let id = parse_hex(self.parent_span_id.as_deref()?, 16)?;
        u64::try_from(id).ok().filter(|id| *id != 0)
    }

    /// Returns the flags of the trace, likewise. They may be 0.
    pub fn flags(&self) -> Option<u8> {
        let flags = parse_hex(self.trace_flags.as_deref()?, 2)?;
        u8::try_from(flags).ok()
    }
}

/// Returns the number that a text of exactly this many hexadecimal digits in lower case writes.
fn parse_hex(text: &str, digits: usize) -> Option<u128> {
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let is_right = text.len() == digits && text.bytes().all(is_digit);
    let number = u128::from_str_radix(text, 16).ok();
    number.filter(|_| is_right)
}

#[cfg(test)]
mod tests {
    use super::Trace;

    /// Returns a trace with these texts.
    fn trace(id: &'static str, parent: &'static str, flags: &'static str) -> Trace<'static> {
        Trace {
            trace_id: Some(id.into()),
            parent_span_id: Some(parent.into()),
            trace_flags: Some(flags.into()),
        }
    }

    /// Check that texts of the right length, in lower case, are numbers, and that 0 is no id.
    #[test]
    fn numbers() {
        let right = trace("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", "03");
        assert_eq!(right.id(), Some(0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736));
        assert_eq!(right.parent_id(), Some(0x00f0_67aa_0ba9_02b7));
        assert_eq!(right.flags(), Some(3));
        let zero = trace("00000000000000000000000000000000", "0000000000000000", "00");
        assert_eq!(
            (zero.id(), zero.parent_id(), zero.flags()),
            (None, None, Some(0))
        );
        for wrong in [
            trace("", "", ""),
            trace("4BF92F3577B34DA6A3CE929D0E0E4736", "00F067AA0BA902B7", "0A"),
            trace("+bf92f3577b34da6a3ce929d0e0e4736", "+0f067aa0ba902b7", "+1"),
            trace("bf92f3577b34da6a3ce929d0e0e4736", "0f067aa0ba902b7", "1"),
            Trace::default(),
        ] {
            assert_eq!(
                (wrong.id(), wrong.parent_id(), wrong.flags()),
                (None, None, None)
            );
        }
    }
}
