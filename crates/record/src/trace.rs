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
