// SPDX-License-Identifier: MIT OR Apache-2.0
//! The record of a connection that ended without a request.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;

use crate::container::Container;
use crate::limits;
use crate::schema::TIME_PATTERN;
use crate::values;

/// A client's connection that ended without a request, or while it waited for its next one.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[schemars(deny_unknown_fields)]
pub struct Connection<'a> {
    /// When nginx closed the connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend(
        "pattern" = TIME_PATTERN,
        "x-unit" = "RFC 3339, UTC, nine decimals",
        "x-source" = "CLOCK_MONOTONIC of tracepoint `inet_sock_set_state`, or of `tcp_destroy_sock` where the \
                      kernel had closed the connection before, plus the distance of the wall clock",
        "x-absent" = "it is out of range",
        "x-otel" = "time"
    ))]
    pub time: Option<String>,
    /// As in a request.
    #[schemars(extend("x-source" = "the kernel"))]
    pub pid: u32,
    /// `$connection`, as in a request.
    #[schemars(extend("x-source" = "`c->number`"))]
    pub connection: u64,
    /// How many requests the connection had had.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1), extend("x-source" = "`c->requests`", "x-absent" = "none"))]
    pub connection_requests: Option<u64>,
    /// The address of the socket's other end: that of the proxy in front, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = limits::PEER_ADDR_MAX), extend(
        "x-source" = "the kernel's socket",
        "x-absent" = "the kernel no longer knows it",
        "x-otel" = "network.peer.address"
    ))]
    pub peer_addr: Option<Cow<'a, str>>,
    /// The port of the socket's other end.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1), extend(
        "x-source" = "the kernel's socket",
        "x-absent" = "the kernel no longer knows it",
        "x-otel" = "network.peer.port"
    ))]
    pub peer_port: Option<u16>,
    /// `$server_addr`
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = limits::SERVER_ADDR_MAX), extend(
        "x-source" = "the kernel's socket",
        "x-absent" = "the kernel no longer knows it",
        "x-otel" = "network.local.address"
    ))]
    pub server_addr: Option<Cow<'a, str>>,
    /// `$server_port`
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1), extend(
        "x-source" = "the kernel's socket",
        "x-absent" = "the kernel no longer knows it",
        "x-otel" = "network.local.port"
    ))]
    pub server_port: Option<u16>,
    /// How far the connection had come (below).
    #[schemars(extend("x-source" = "the reads and sends on its socket, and `c->idle`"))]
    pub stage: values::Stage,
    /// Why it ended (below).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend(
        "x-source" = "the bits of `c`, `c->read` and `c->write`, and the kernel's socket",
        "x-absent" = "it is not certain"
    ))]
    pub end: Option<values::ConnectionEnd>,
    /// When the connection was accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend(
        "x-unit" = "ns, CLOCK_MONOTONIC",
        "x-source" = "`ngx_http_init_connection()` is entered",
        "x-absent" = "it was not seen"
    ))]
    pub downstream_accept_time: Option<u64>,
    /// As in a request.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend(
        "x-unit" = "ns",
        "x-source" = "as in a request",
        "x-absent" = "`pass` of the stream module handed the connection over"
    ))]
    pub accept_queue_ns: Option<u64>,
    /// How long nginx had the connection: from the accept to the close.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend(
        "x-unit" = "ns",
        "x-source" = "the two times",
        "x-absent" = "one of them was not seen"
    ))]
    pub connection_ns: Option<u64>,
    /// How long it had waited for its next request: from the end of the last one to the close.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend(
        "x-unit" = "ns",
        "x-source" = "`ngx_http_free_request()` is entered, and the close",
        "x-absent" = "`stage` is not `keepalive`"
    ))]
    pub idle_ns: Option<u64>,
    /// The time that the TLS handshake took, as in a request.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend(
        "x-unit" = "ns",
        "x-source" = "as in a request",
        "x-absent" = "the connection is not encrypted, or its handshake was not over; `pass` of the stream module handed \
                      it over"
    ))]
    pub tls_handshake_ns: Option<u64>,
    /// The container that nginx runs in. Its keys are those of a request.
    #[serde(flatten)]
    pub container: Container<'a>,
    /// How many records of this type were lost before this one, and after the last one that says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1), extend(
        "x-unit" = "records",
        "x-source" = "ngx-bpf",
        "x-absent" = "none"
    ))]
    pub connections_lost: Option<u64>,
}
