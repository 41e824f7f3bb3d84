// SPDX-License-Identifier: MIT OR Apache-2.0
//! One subrequest that had an upstream.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;

use crate::attempt::Attempt;
use crate::limits::SUBREQUEST_UPSTREAMS_MAX;
use crate::limits::SUBREQUEST_URI_MAX;

/// One subrequest that had an upstream: of `auth_request`, `mirror`, SSI, `slice`, or the update of a
/// cache in the background.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[schemars(deny_unknown_fields)]
pub struct Subrequest<'a> {
    /// `$uri` in the subrequest.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = SUBREQUEST_URI_MAX), extend(
        "x-cut" = true,
        "x-source" = "`r->uri`"
    ))]
    pub uri: Option<Cow<'a, str>>,
    /// `$status` in the subrequest.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 999), extend(
        "x-source" = "`r->err_status`, else `r->headers_out.status`",
        "x-absent" = "the subrequest ended before there was one"
    ))]
    pub status: Option<u32>,
    /// The time from the begin of its first connect to the read of the last byte of its last response.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend(
        "x-unit" = "ns",
        "x-source" = "the times of its attempts",
        "x-absent" = "no response came, or it was not seen"
    ))]
    pub duration_ns: Option<u64>,
    /// The attempts of the subrequest, as in `upstreams` of the request: of more than four the first three
    /// and the last.
    #[schemars(length(min = 1, max = SUBREQUEST_UPSTREAMS_MAX), extend(
        "x-source" = "`r->upstream_states`"
    ))]
    pub upstreams: Vec<Attempt<'a>>,
}
