// SPDX-License-Identifier: MIT OR Apache-2.0
//! The keys of a request that say what it waited for.

use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;

/// What a request waited for.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
pub struct Waits {
    /// How long the request waited for the one before it on its connection: its first byte came with that
    /// one (pipelined), and nginx begins a request when it has ended the one before, with its `mirror`
    /// subrequests. `elapsed_ns` contains it, `$request_time` does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1), extend(
        "x-unit" = "ns",
        "x-source" = "the end of the request before",
        "x-absent" = "the request did not wait; HTTP/2, HTTP/3"
    ))]
    pub queue_ns: Option<u64>,
    /// How long nginx waited for the rest of the request's body: from the end of the header to the read of
    /// the body's last byte.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1), extend(
        "x-unit" = "ns",
        "x-source" = "the two times of `phases`",
        "x-absent" = "there is no body, or it came with the header; one of the two times is absent"
    ))]
    pub body_read_ns: Option<u64>,
}
