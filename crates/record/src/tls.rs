// SPDX-License-Identifier: MIT OR Apache-2.0
//! The keys of a request that describe the encryption of its connection.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;

use crate::limits;
use crate::values;

/// The encryption of the connection that a request came on.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
pub struct Tls<'a> {
    /// The time that the TLS handshake took: from its first bytes read to its last read or sent. TLS 1.3:
    /// the session tickets included; 0-RTT: as far as the handshake was when the request began.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend(
        "x-unit" = "ns",
        "x-source" = "the reads and writes before the first request",
        "x-absent" = "the connection is not encrypted; it had a request before this one; tracing began \
                      after the handshake; HTTP/3"
    ))]
    pub tls_handshake_ns: Option<u64>,
    /// The name that the client asked for in the handshake (SNI), in lower case.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = limits::HOST_MAX), extend(
        "x-cut" = true,
        "x-source" = "`hc->ssl_servername`",
        "x-absent" = "the client sent none; nginx did not choose the server by it: there is one server \
                      only on that address, or none of that name; the connection is not encrypted"
    ))]
    pub ssl_server_name: Option<Cow<'a, str>>,
    /// `$ssl_protocol`, where the request itself shows it: `TLSv1.3` of HTTP/3, which has no other.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend(
        "x-source" = "`r->http_version`",
        "x-absent" = "HTTP/1 and HTTP/2: nginx's memory does not show it; the connection is not \
                      encrypted"
    ))]
    pub ssl_protocol: Option<values::SslProtocol>,
    /// The protocol that was negotiated in the handshake, where the request itself shows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend(
        "x-source" = "`r->http_version`",
        "x-absent" = "HTTP/1: nginx's memory does not show it; the connection is not encrypted"
    ))]
    pub alpn: Option<values::Alpn>,
}
