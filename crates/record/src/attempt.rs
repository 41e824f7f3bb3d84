// SPDX-License-Identifier: MIT OR Apache-2.0
//! One attempt at an upstream.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;

use crate::limits::ADDR_MAX;
use crate::request::Request;
use crate::values::Failure;

/// One attempt at an upstream, as nginx keeps them in `r->upstream_states`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[schemars(deny_unknown_fields)]
pub struct Attempt<'a> {
    /// The address of the server, as in `$upstream_addr`: `address:port`, or `unix:` and the path. The
    /// name of the upstream when no server of it was alive.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = ADDR_MAX), extend(
        "x-source" = "`u->state->peer`",
        "x-absent" = "nginx had not chosen a server; the worker was shut down at once, and its C library had given that memory \
                      back (musl)"
    ))]
    pub addr: Option<Cow<'a, str>>,
    /// The status, as in `$upstream_status`. It is 502 or 504 from nginx itself when no response came.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 999), extend(
        "x-source" = "`u->state->status`",
        "x-absent" = "the request ended before there was one"
    ))]
    pub status: Option<u32>,
    /// Whether the attempt was made on a kept connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend(
        "x-source" = "`c->requests` of the upstream's connection since nginx 1.15.3, else what was seen \
                      of its socket",
        "x-absent" = "nothing was sent; a unix socket of an nginx before 1.15.3 that was first seen now"
    ))]
    pub reused: Option<bool>,
    /// How many requests had been sent on the upstream's connection when this one was, itself included: 1 on a
    /// new connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1), extend(
        "x-source" = "`c->requests` of the upstream's connection",
        "x-absent" = "nothing was sent; nginx is older than 1.15.3, and the connection was kept"
    ))]
    pub connection_requests: Option<u64>,
    /// How long the kept connection had been idle: from the last bytes that passed on it for the request
    /// before to the first ones of this attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend(
        "x-unit" = "ns",
        "x-source" = "tracepoints `sock_send_length` and `sock_recv_length`",
        "x-absent" = "the connection is new, or tracing began after the request before it; nothing was sent"
    ))]
    pub reused_idle_ns: Option<u64>,
    /// How long a name server took to resolve the name before this attempt: as in the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1), extend(
        "x-unit" = "ns",
        "x-source" = "as in the request",
        "x-absent" = "it is not the first attempt; the request has no `resolve_ns`; a subrequest"
    ))]
    pub resolve_ns: Option<u64>,
    /// As in `phases`, of this attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend(
        "x-unit" = "ns",
        "x-source" = "as in `phases`",
        "x-absent" = "no connect was seen: a unix socket on which nothing listens, or an address without \
                      a route"
    ))]
    pub upstream_connect_time: Option<u64>,
    /// As in `phases`, of this attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend(
        "x-unit" = "ns",
        "x-source" = "as in `phases`",
        "x-absent" = "nothing was sent; nginx refused the upstream's certificate"
    ))]
    pub upstream_request_first_byte_time: Option<u64>,
    /// As in `phases`, of this attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend(
        "x-unit" = "ns",
        "x-source" = "as in `phases`",
        "x-absent" = "nothing was sent; nginx refused the upstream's certificate; the response had begun \
                      before; the request did not go out whole, or it is not known whether it did: a unix \
                      socket on which nothing came, and another attempt followed"
    ))]
    pub upstream_request_last_byte_time: Option<u64>,
    /// As in `phases`, of this attempt. Over TLS it is the response's, and not that of session tickets
    /// (nginx since 1.11.4).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend(
        "x-unit" = "ns",
        "x-source" = "as in `phases`",
        "x-absent" = "nothing was received"
    ))]
    pub upstream_response_first_byte_time: Option<u64>,
    /// As in `phases`, of this attempt. Over TLS it is the response's, and not that of the alert that
    /// ends the connection, unless both are read within 100 µs.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend(
        "x-unit" = "ns",
        "x-source" = "as in `phases`",
        "x-absent" = "nothing was received; over TLS: nginx before 1.11.4, or the last read may have brought \
                      only the alert that ends the connection (it was of at most 128 bytes, more than \
                      100 µs after the one before it, and no read between the two came back empty)"
    ))]
    pub upstream_response_last_byte_time: Option<u64>,
    /// How long the upstream took for its response's header: from `upstream_connect_time` to the read that
    /// completed it. `$upstream_header_time` is the same in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend(
        "x-unit" = "ns",
        "x-source" = "the last read before `u->state->header_time` was set",
        "x-absent" = "no whole header came"
    ))]
    pub response_header_ns: Option<u64>,
    /// The time that the TLS handshake with the upstream took: from its first bytes sent to its last
    /// sent or read. It lies between `upstream_connect_time` and `upstream_request_first_byte_time`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend(
        "x-unit" = "ns",
        "x-source" = "tracepoints `sock_send_length` and `sock_recv_length`",
        "x-absent" = "the connection is not encrypted, or a kept one; the handshake did not end, or \
                      nothing was sent after it"
    ))]
    pub upstream_tls_ns: Option<u64>,
    /// The bytes sent to the upstream, as in `$upstream_bytes_sent`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0), extend(
        "x-unit" = "bytes",
        "x-source" = "`u->state->bytes_sent`",
        "x-absent" = "nginx is older than 1.15.8"
    ))]
    pub bytes_sent: Option<i64>,
    /// The bytes received from the upstream, as in `$upstream_bytes_received`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0), extend(
        "x-unit" = "bytes",
        "x-source" = "`u->state->bytes_received`",
        "x-absent" = "nginx is older than 1.11.4"
    ))]
    pub bytes_received: Option<i64>,
    /// Why the attempt failed, before the response's header or after it (below).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend(
        "x-source" = "`u->state->status`, what passed on the socket, and nginx's memory when it closed \
                      the connection",
        "x-absent" = "the attempt did not fail, or the reason is not certain"
    ))]
    pub failure: Option<Failure>,
    /// `true`: nginx began the attempt when the client had its whole response, as `post_action` asks. The
    /// request's `phases` and `upstream_addr` are those of the attempts before it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    #[schemars(extend(
        "const" = true,
        "x-source" = "the connect, compared with the last byte of the response",
        "x-absent" = "the client waited for it; nothing was sent to the client, so that the two can't be \
                      distinguished"
    ))]
    pub post_action: bool,
}

impl<'a> Request<'a> {
    /// Returns all attempts: those of the request, and then those of its subrequests.
    pub fn all_attempts(&self) -> impl Iterator<Item = &Attempt<'a>> {
        let subrequests = self.subrequests.iter().flat_map(|sub| &sub.upstreams);
        self.upstreams.iter().chain(subrequests)
    }

    /// Returns the last attempt that the client waited for: `post_action` comes after its response.
    pub fn last_awaited(&self) -> Option<&Attempt<'a>> {
        let mut attempts = self.upstreams.iter().rev();
        attempts.find(|attempt| !attempt.post_action)
    }
}
