// SPDX-License-Identifier: MIT OR Apache-2.0
//! One span in the JSON of OTLP.

use std::fmt;

use super::ids::write_hex;
use crate::format::json::write_number;
use crate::format::json::write_string;

/// `SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK`: it is known whether the parent is in another process.
pub(super) const HAS_IS_REMOTE: u32 = 0x100;

/// `SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK`: the parent is in another process.
pub(super) const IS_REMOTE: u32 = 0x200;

/// `SpanKind`
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Internal = 1,
    Server = 2,
    Client = 3,
}

/// What a span has besides its attributes, events and status.
pub(super) struct Span<'s> {
    pub trace: u128,
    pub id: u64,
    pub parent: Option<u64>,
    /// The flags of the trace, and the two above.
    pub flags: u32,
    pub name: fmt::Arguments<'s>,
    pub kind: Kind,
    /// When it began and ended, in nanoseconds since 1970.
    pub from: u64,
    pub to: u64,
}

impl Span<'_> {
    /// Appends the span as far as its attributes, with a comma before it unless it is the first one. `close()` ends
    /// it.
    pub fn open(&self, out: &mut Vec<u8>) {
        if !out.is_empty() {
            out.push(b',');
        }
        out.extend_from_slice(b"{\"traceId\":\"");
        /* The halves of the id. */
        write_hex(out, (self.trace >> 64) as u64);
        write_hex(out, self.trace as u64);
        out.extend_from_slice(b"\",\"spanId\":\"");
        write_hex(out, self.id);
        if let Some(parent) = self.parent {
            out.extend_from_slice(b"\",\"parentSpanId\":\"");
            write_hex(out, parent);
        }
        out.extend_from_slice(b"\",\"flags\":");
        write_number(out, self.flags);
        out.extend_from_slice(b",\"name\":");
        write_string(out, &self.name.to_string());
        out.extend_from_slice(b",\"kind\":");
        write_number(out, self.kind as u32);
        out.extend_from_slice(b",\"startTimeUnixNano\":\"");
        write_number(out, self.from);
        out.extend_from_slice(b"\",\"endTimeUnixNano\":\"");
        write_number(out, self.to);
        out.push(b'"');
    }
}

/// Ends a span. One that has failed has the status `ERROR`, and any other one none.
pub(super) fn close(out: &mut Vec<u8>, has_failed: bool) {
    if has_failed {
        out.extend_from_slice(b",\"status\":{\"code\":2}");
    }
    out.push(b'}');
}
