// SPDX-License-Identifier: MIT OR Apache-2.0
//! The record of a request. The names and the order of its members are the public keys.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;

use crate::attempt::Attempt;
use crate::container::Container;
use crate::ending::Ending;
use crate::limits;
use crate::phases::Phases;
use crate::place::Place;
use crate::schema::TIME_PATTERN;
use crate::subrequest::Subrequest;
use crate::tcp::Tcp;
use crate::tls::Tls;
use crate::trace::Trace;
use crate::values;
use crate::waits::Waits;

/// One request that nginx has ended. A value that does not exist, or that could not be read, is `None`,
/// and a key that is not there.
///
/// The attributes of a field say for the schema and the tables of docs/: `x-unit`, `x-source` where nginx
/// or the kernel has the value, `x-absent` when the key is not there, `x-otel` the name that OpenTelemetry
/// has for it (an object of names and their schemas where the value becomes several), `x-otel-note`, and
/// `x-cut` that `--max-line` shortens the text.
#[derive(Clone, Debug, Default, JsonSchema, PartialEq, Eq, Serialize)]
#[schemars(deny_unknown_fields)]
pub struct Request<'a> {
    /// When nginx read the first byte of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend(
        "pattern" = TIME_PATTERN,
        "x-unit" = "RFC 3339, UTC, nine decimals",
        "x-source" = "CLOCK_MONOTONIC of the read, plus the distance of the wall clock, which is read \
                      ten times a second",
        "x-absent" = "the read was not seen",
        "x-otel" = "time",
        "x-otel-note" = "for the `Timestamp` of an OpenTelemetry log record; it is not an attribute"
    ))]
    pub time: Option<String>,
    /// The pid of the worker, as the `/proc` of ngx-bpf counts: on the host it is the host's pid, also of
    /// an nginx in a container, whose `$pid` is another.
    #[schemars(extend("x-source" = "the kernel"))]
    pub pid: u32,
    /// `$connection`
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1), extend(
        "x-source" = "`c->number`",
        "x-absent" = "the worker ended before the request did, and nginx's memory had gone"
    ))]
    pub connection: Option<u64>,
    /// `$connection_requests`
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1), extend("x-source" = "`c->requests`", "x-absent" = "`connection` is absent"))]
    pub connection_requests: Option<u64>,
    /// `$remote_addr`: IPv4, IPv6 or `unix:`, as realip has set it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = limits::ADDR_MAX), extend(
        "x-source" = "`c->addr_text`",
        "x-absent" = "`connection` is absent",
        "x-otel" = "client.address"
    ))]
    pub remote_addr: Option<Cow<'a, str>>,
    /// `$remote_port`
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1), extend(
        "x-source" = "`c->sockaddr`",
        "x-absent" = "the client came through a unix socket; `connection` is absent",
        "x-otel" = "client.port"
    ))]
    pub remote_port: Option<u16>,
    /// The address of the socket's other end: that of the proxy in front, where `remote_addr` is what
    /// realip or the PROXY protocol says.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = limits::PEER_ADDR_MAX), extend(
        "x-source" = "the kernel's socket",
        "x-absent" = "this address and its port are `remote_addr` and `remote_port`; a unix socket; \
                      HTTP/3",
        "x-otel" = "network.peer.address",
        "x-otel-note" = "where it is not the client's"
    ))]
    pub peer_addr: Option<Cow<'a, str>>,
    /// The port of the socket's other end.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1), extend(
        "x-source" = "the kernel's socket",
        "x-absent" = "`peer_addr` is absent; the kernel no longer knows the port",
        "x-otel" = "network.peer.port",
        "x-otel-note" = "where it is not the client's"
    ))]
    pub peer_port: Option<u16>,
    /// `$server_addr`, or `unix:` and the path of the listener.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = limits::SERVER_ADDR_MAX), extend(
        "x-source" = "the kernel's socket; a path and HTTP/3: `c->local_sockaddr`",
        "x-absent" = "nothing was seen on the connection",
        "x-otel" = "network.local.address"
    ))]
    pub server_addr: Option<Cow<'a, str>>,
    /// `$server_port`. After `pass` of the stream module it is the port of the server there, and so is `server_addr`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1), extend(
        "x-source" = "the kernel's socket; HTTP/3: `c->local_sockaddr`",
        "x-absent" = "a unix socket; nothing was seen on the connection; the client had reset the \
                      connection before nginx first read it, and the kernel has forgotten the port",
        "x-otel" = "network.local.port"
    ))]
    pub server_port: Option<u16>,
    /// `$scheme`
    #[schemars(extend(
        "x-source" = "`c->ssl` of the connection, and `r->http_version`",
        "x-otel" = "url.scheme"
    ))]
    pub scheme: values::Scheme,
    /// `$server_protocol`, as the client wrote it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = limits::PROTOCOL_MAX), extend(
        "x-source" = "`r->http_protocol`, or `r->http_version` of HTTP/2",
        "x-absent" = "the request line was broken, or HTTP/0.9",
        "x-otel" = json!({
            "network.protocol.name": { "type": "string" },
            "network.protocol.version": { "type": "string" },
        }),
        "x-otel-note" = "`http`; `1.0`, `1.1`, `2`, `3`"
    ))]
    pub server_protocol: Option<Cow<'a, str>>,
    /// `$request_method`
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = limits::METHOD_MAX), extend(
        "x-cut" = true,
        "x-source" = "`r->method_name`",
        "x-absent" = "the request line was broken",
        "x-otel" = json!({
            "http.request.method": { "type": "string" },
            "http.request.method_original": { "type": "string" },
        }),
        "x-otel-note" = "the methods of RFC 9110, PATCH and QUERY, or those that \
                         `OTEL_INSTRUMENTATION_HTTP_KNOWN_METHODS` lists; of any other method the first \
                         is `_OTHER`, and only then the second is there"
    ))]
    pub request_method: Option<Cow<'a, str>>,
    /// `$request_uri`: as the client sent it, with arguments.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = limits::URI_MAX), extend(
        "x-cut" = true,
        "x-source" = "`r->unparsed_uri`",
        "x-absent" = "the request line was broken",
        "x-otel" = json!({
            "url.path": { "type": "string" },
            "url.query": { "type": "string" },
        }),
        "x-otel-note" = "split at the first question mark"
    ))]
    pub request_uri: Option<Cow<'a, str>>,
    /// `$uri`: decoded, without arguments, after internal redirects.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = limits::URI_MAX), extend(
        "x-cut" = true,
        "x-source" = "`r->uri`",
        "x-absent" = "the request line was broken"
    ))]
    pub uri: Option<Cow<'a, str>>,
    /// `$http_host`
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = limits::HOST_MAX), extend(
        "x-cut" = true,
        "x-source" = "`r->headers_in.host`",
        "x-absent" = "the request has no Host header",
        "x-otel" = json!({
            "server.address": { "type": "string" },
            "server.port": { "type": "integer", "minimum": 0, "maximum": u16::MAX },
        }),
        "x-otel-note" = "the name without the brackets of IPv6; a port only where the client sent one; \
                         neither of a Host that was cut"
    ))]
    pub http_host: Option<Cow<'a, str>>,
    /// Where in the configuration the request was handled. Its keys are keys of the request.
    #[serde(flatten)]
    pub place: Place<'a>,
    /// The keys whose values are cut. Lengths in this table are what is kept at most; `--max-line` leaves
    /// less. `upstream_addr` stands for its address (128 bytes), `upstreams` is here when there were more
    /// attempts than the record has, and `subrequests` when there were more of them, or a part of one is
    /// cut.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1), extend(
        "uniqueItems" = true,
        "x-source" = "the lengths that nginx and the record have",
        "x-absent" = "nothing was cut"
    ))]
    pub truncated: Vec<values::Cut>,
    /// `$status`, with what `ngx_http_free_request()` sets at the end (444, 499). It is 9 (nginx writes
    /// 009) when an upstream does not speak HTTP, and nginx passes on what it said.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 999), extend(
        "x-source" = "`r->err_status`, else `r->headers_out.status`",
        "x-absent" = "no status was ever set",
        "x-otel" = json!({
            "http.response.status_code": { "type": "integer", "minimum": 0, "maximum": 999 },
            "error.type": {
                "type": "string",
                "pattern": "^([5-9][0-9][0-9]|[a-z]+(_[a-z0-9]+)*)$",
            },
        }),
        "x-otel-note" = "`error.type` is a string: a status of 500 and above; else the `failure` that cut \
                         the response short"
    ))]
    pub status: Option<u32>,
    /// `$request_length`: the request line, the header, and what nginx read of the body, but not a body
    /// that it discards.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0), extend(
        "x-unit" = "bytes",
        "x-source" = "`r->request_length`",
        "x-absent" = "`$request_length` itself is negative: when nginx discards a chunked body it \
                      subtracts the bytes of the next request, which it had not added"
    ))]
    pub request_size: Option<i64>,
    /// `$bytes_sent`, which includes interim responses.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0), extend(
        "x-unit" = "bytes",
        "x-source" = "`c->sent`",
        "x-absent" = "`connection` is absent"
    ))]
    pub response_size: Option<i64>,
    /// `$upstream_cache_status`
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend(
        "x-source" = "`u->cache_status`",
        "x-absent" = "the request did not ask a cache; nginx was built without one"
    ))]
    pub upstream_cache_status: Option<values::CacheStatus>,
    /// The address of the last upstream that was tried and that the client waited for: `address:port`, or
    /// `unix:` and the path.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = limits::ADDR_MAX), extend(
        "x-source" = "`u->state->peer`",
        "x-absent" = "the request had no upstream; otherwise as for `addr` in `upstreams`"
    ))]
    pub upstream_addr: Option<Cow<'a, str>>,
    /// When the connection was accepted. HTTP/3: when its first datagram was read.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend(
        "x-unit" = "ns, CLOCK_MONOTONIC",
        "x-source" = "`ngx_http_init_connection()` is entered",
        "x-absent" = "the connection was accepted before tracing began"
    ))]
    pub downstream_accept_time: Option<u64>,
    /// The times of the request (below).
    #[serde(default, skip_serializing_if = "Phases::is_empty")]
    #[schemars(extend(
        "x-source" = "the reads and writes of the sockets",
        "x-absent" = "none of them is known"
    ))]
    pub phases: Phases,
    /// What `phases` count from: `request_first_byte` where the accept was not seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend(
        "x-source" = "whether the accept was seen",
        "x-absent" = "`phases` is absent"
    ))]
    pub phases_origin: Option<values::Origin>,
    /// The time from the read of the request's first byte to the moment at which the kernel had the
    /// response's last byte; of a tunnel, its first byte.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend(
        "x-unit" = "ns",
        "x-source" = "the two times of `phases`",
        "x-absent" = "nothing was sent; one of the two was not seen"
    ))]
    pub duration_ns: Option<u64>,
    /// The time from the read of the request's first byte to the end of the request. `$request_time` is
    /// the same in milliseconds; of a request that waited for another one on its connection it begins
    /// when that one ends. A request that nginx never answered has it (499, 408, 444), and so has one
    /// whose client stopped reading. It ends with the worker where that was killed. `--min-duration` goes by it. HTTP/3: nginx ends a request when it has
    /// taken the whole response into its buffers, which is before the last byte is sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend(
        "x-unit" = "ns",
        "x-source" = "`ngx_http_free_request()` is entered; else the exit of the worker",
        "x-absent" = "the first byte was not seen"
    ))]
    pub elapsed_ns: Option<u64>,
    /// What the request waited for. Its keys are keys of the request.
    #[serde(flatten)]
    pub waits: Waits,
    /// The TCP connections of the client and of the last upstream (below), with `--tcp`.
    #[serde(default, skip_serializing_if = "Tcp::is_empty")]
    #[schemars(extend(
        "x-source" = "the kernel's sockets",
        "x-absent" = "`--tcp` was not given; neither connection is TCP"
    ))]
    pub tcp: Tcp,
    /// How the request ended. Its keys are keys of the request.
    #[serde(flatten)]
    pub ending: Ending,
    /// The encryption of the connection. Its keys are keys of the request.
    #[serde(flatten)]
    pub tls: Tls<'a>,
    /// The trace that the request belongs to. Its keys are keys of the request.
    #[serde(flatten)]
    pub trace: Trace<'a>,
    /// Every attempt at an upstream, in order (below): of more than eight the first seven and the last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = limits::UPSTREAMS_MAX), extend(
        "x-source" = "`r->upstream_states`",
        "x-absent" = "the request had no upstream"
    ))]
    pub upstreams: Vec<Attempt<'a>>,
    /// The subrequests that had an upstream (below), in the order of their first connects: eight at most.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = limits::SUBREQUESTS_MAX), extend(
        "x-source" = "the ends of their requests",
        "x-absent" = "none had an upstream"
    ))]
    pub subrequests: Vec<Subrequest<'a>>,
    /// The container that nginx runs in. Its keys are keys of the request.
    #[serde(flatten)]
    pub container: Container<'a>,
    /// `inferred`: no source states where this build of nginx has its members; its code agrees with one
    /// known layout in all of them, and with no other (docs/design.md).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend(
        "x-source" = "the search for the layout",
        "x-absent" = "the layout is stated: by the table, debug information, `--layout` or an installed file"
    ))]
    pub layout: Option<values::LayoutSource>,
    /// `true`: tracing began inside this request, so that its times are absent.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    #[schemars(extend(
        "const" = true,
        "x-source" = "whether the accept or the first read was seen",
        "x-absent" = "it did not"
    ))]
    pub partial: bool,
    /// Whether there is a body, and it is not known when it was complete. This is not a key: it is false
    /// of a record that was read.
    #[serde(skip)]
    pub is_body_unknown: bool,
}
