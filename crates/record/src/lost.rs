// SPDX-License-Identifier: MIT OR Apache-2.0
//! The record of a loss.

use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;

use crate::values::Cause;

/// Requests that nginx has ended and of which there is no record, for one cause.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[schemars(deny_unknown_fields)]
pub struct Lost {
    /// When ngx-bpf noticed the loss.
    #[schemars(extend(
        "pattern" = crate::schema::TIME_PATTERN,
        "x-unit" = "RFC 3339, UTC, nine decimals",
        "x-otel" = "time"
    ))]
    pub time: String,
    /// The number of requests that were lost since the last such record.
    #[schemars(range(min = 1), extend("x-unit" = "requests"))]
    pub count: u64,
    /// Why they were lost (below).
    pub cause: Cause,
}
