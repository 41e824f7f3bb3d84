// SPDX-License-Identifier: MIT OR Apache-2.0
//! The ten times of a request.

use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;

/// The times of a request, in nanoseconds since its `phases_origin`. A time that is not known is `None`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[schemars(deny_unknown_fields, extend("minProperties" = 1))]
pub struct Phases {
    /// nginx has read the first byte of the request. A pipelined request came with the one before it;
    /// over TLS, a request that came with the end of the handshake begins where the handshake ended. Empty
    /// lines before a request line belong to the request, as for `$request_time`; a PROXY protocol header
    /// does not. HTTP/2: the first byte of its HEADERS frame; several reads that nginx does in one go
    /// count as the last of them. HTTP/3: the datagram after which nginx opened the stream, or the one
    /// with the stream's first byte; with `ssl_ocsp` nginx opens the first streams once it knows that the
    /// client's certificate is good, and a datagram that came meanwhile counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend(
        "x-unit" = "ns",
        "x-source" = "the return of the read (tracepoint `sock_recv_length`)",
        "x-absent" = "the read was not seen; HTTP/3: more than 128 younger streams of the worker \
                      were without a whole header or body"
    ))]
    pub downstream_request_first_byte_time: Option<u64>,
    /// nginx starts to process the request: it has read the last byte of the header, and the request
    /// before it on this connection has ended (HTTP/1). HTTP/3: the datagram that completed the header,
    /// whatever stream it brought bytes of.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend(
        "x-unit" = "ns",
        "x-source" = "the return of the read, or the end of the request before",
        "x-absent" = "the header was never complete; HTTP/2 and HTTP/3: nginx answered with 400, 408, \
                      414, 431 or 494 itself; HTTP/3: the time of the first byte is absent"
    ))]
    pub downstream_request_last_byte_time: Option<u64>,
    /// nginx has read the last byte of the request's body. When the body came with the header it is the
    /// same read, so that this is never before `downstream_request_last_byte_time`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend(
        "x-unit" = "ns",
        "x-source" = "the last read before which nginx still expected bytes (`r->request_body->rest`, \
                      `r->headers_in.content_length_n`)",
        "x-absent" = "there is no body (what goes through a tunnel is not one); it never came \
                      whole, or may not have (HTTP/2 and HTTP/3: nginx itself answered with 400, \
                      or the client left, 499, and no upstream was sent all of it); nginx \
                      discards it (`return`, a static file) and it came with the header. HTTP/2: \
                      nginx connects to the upstream later than it had the body (it resolves a \
                      name first, `auth_request`), and frames of other streams came meanwhile, or \
                      in the read that ended the body; it has no `content-length` and is proxied \
                      without buffering; more than eight bodies come at once on a connection; \
                      nginx discards it. HTTP/3: it has no `content-length`, and nginx began to \
                      read it after another datagram had come; nginx discards it"
    ))]
    pub downstream_request_body_last_byte_time: Option<u64>,
    /// nginx starts to connect to the upstream. On a kept connection, and on a unix socket, where
    /// connecting takes no time, it is the first write.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend(
        "x-unit" = "ns",
        "x-source" = "the change of the socket's state to SYN_SENT (tracepoint `inet_sock_set_state`)",
        "x-absent" = "the request had no upstream, or the connect was not seen"
    ))]
    pub upstream_connect_time: Option<u64>,
    /// The upstream's socket has taken the first bytes of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend(
        "x-unit" = "ns",
        "x-source" = "tracepoint `sock_send_length`",
        "x-absent" = "nothing was sent; a tunnel for CONNECT"
    ))]
    pub upstream_request_first_byte_time: Option<u64>,
    /// The upstream's socket has taken the last bytes of the request, its body included. What goes
    /// through a tunnel (status 101, CONNECT) does not belong to the request, and neither do frames of HTTP/2
    /// that follow its body (SETTINGS, PING, WINDOW_UPDATE).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend(
        "x-unit" = "ns",
        "x-source" = "tracepoint `sock_send_length`",
        "x-absent" = "the upstream's response had begun before; the request did not go out whole"
    ))]
    pub upstream_request_last_byte_time: Option<u64>,
    /// nginx has read the first bytes of the upstream's response. HTTP/2 (`grpc`): the read that
    /// completed its header; what the server sends before it (SETTINGS) does not count.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend(
        "x-unit" = "ns",
        "x-source" = "tracepoint `sock_recv_length`",
        "x-absent" = "nothing was received; a tunnel for CONNECT"
    ))]
    pub upstream_response_first_byte_time: Option<u64>,
    /// nginx has read the last bytes of the upstream's response. Where the connection became a tunnel
    /// (status 101), those of its header.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend(
        "x-unit" = "ns",
        "x-source" = "tracepoint `sock_recv_length`",
        "x-absent" = "nothing was received, or it is not certain which read brought them"
    ))]
    pub upstream_response_last_byte_time: Option<u64>,
    /// The client's socket has taken the first bytes of the response. An interim response (100, 103) is
    /// not the response. HTTP/2 over TLS: nginx holds the header back until there is more to send.
    /// HTTP/3: the first datagram with bytes of the response, or with a 103 (nginx since 1.29.0) that
    /// congestion had held back until the response began.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend(
        "x-unit" = "ns",
        "x-source" = "tracepoint `sock_send_length`",
        "x-absent" = "nothing was sent; HTTP/3 in nginx before 1.25.4"
    ))]
    pub downstream_response_first_byte_time: Option<u64>,
    /// The client's socket has taken the last bytes of the response; of a tunnel, the first bytes. The
    /// kernel has them then, and does not say when the client has. HTTP/3: the first datagram with the
    /// end of the stream; where that was never sent (a reset, a connection that ended), the last datagram
    /// with bytes of the response.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend(
        "x-unit" = "ns",
        "x-source" = "tracepoint `sock_send_length`",
        "x-absent" = "nothing was sent; HTTP/2: the bytes were still in OpenSSL's buffer when nginx \
                      ended the stream; HTTP/3: nginx before 1.25.4, tracing ended before, or more than \
                      1024 responses wait for their ends"
    ))]
    pub downstream_response_last_byte_time: Option<u64>,
}

impl Phases {
    /// Returns whether no time is known.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
