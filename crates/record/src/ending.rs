// SPDX-License-Identifier: MIT OR Apache-2.0
//! The keys of a request that say how it ended.

use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;

use crate::values;

/// How a request ended, as far as that is certain.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
pub struct Ending {
    /// How the request ended, as nginx saw it (below).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend(
        "x-source" = "`r->write_event_handler`, `status`, the `failure` of the last attempt, and of a \
                      request that was cut short what `c` and its events show; the end of the worker",
        "x-absent" = "it is not certain (below)"
    ))]
    pub end: Option<values::End>,
    /// Which time limit of nginx expired (below).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend(
        "x-source" = "the timers of `c->read` and `c->write`, the `failure` of the last attempt, or \
                      `ngx_resolver_timeout_handler()`",
        "x-absent" = "`end` is not `timeout`; it is not certain which of them it was"
    ))]
    pub timeout: Option<values::Timeout>,
    /// Who ended the request before its response was complete, or closed the tunnel (below).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend(
        "x-source" = "`end`, the `failure` of the last attempt, and of a tunnel the ends that nginx has \
                      read on both sides",
        "x-absent" = "neither side did; both sides of a tunnel were closed at once; it is not certain"
    ))]
    pub closed_by: Option<values::Side>,
    /// How far a request had come that was cut short or that an upstream failed (below).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend(
        "x-source" = "what nginx's memory and the sockets show of the request's parts",
        "x-absent" = "`end` is absent, `ok` or `rejected`; nginx answered with an error of its own; \
                      `tunnel`; the request was in progress when tracing began; it is not certain"
    ))]
    pub last_phase: Option<values::Part>,
    /// `true`: the connection became a tunnel with this response (status 101, or CONNECT that was answered
    /// with 2xx). Then all times of the response are those of its first byte, and `elapsed_ns` is the whole
    /// life of the tunnel.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    #[schemars(extend(
        "const" = true,
        "x-source" = "`status` and `request_method`; `u->upgrade` where there is an upstream",
        "x-absent" = "it did not"
    ))]
    pub tunnel: bool,
    /// How long the tunnel lived: from the first byte of that response to the end of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend(
        "x-unit" = "ns",
        "x-source" = "`ngx_http_free_request()` is entered",
        "x-absent" = "there was no tunnel; the response's first byte was not seen"
    ))]
    pub tunnel_ns: Option<u64>,
}
