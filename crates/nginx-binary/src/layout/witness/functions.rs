// SPDX-License-Identifier: MIT OR Apache-2.0
//! The witnesses: functions of nginx that access a certain member of its structs in every release.

/// The way in which a witness is found in a binary.
#[derive(Clone, Copy, Debug)]
pub enum Witness {
    /// The handler of one of nginx's variables (src/http/ngx_http_variables.c, ngx_http_upstream.c).
    Handler(&'static str),
    /// The same of a variable whose handler reads the member only where a module is built in: the symbol that shows
    /// that it is, and the variable. Without the symbol the member is not read.
    HandlerOfModule(&'static str, &'static str),
    /// Not a function: the entry of a variable holds `offsetof(ngx_http_request_t, …)` itself.
    Data(&'static str),
    /// A function that every build exports, and the struct that its first argument points to.
    Exported(&'static str, &'static str),
    /// A function of a module: the symbol that shows that the module is built in, the function, and
    /// the struct that its first argument points to. Without the symbol the member is not read.
    OfModule(&'static str, &'static str, &'static str),
    /// Two functions of a module, of which a fork compiles the access out of one.
    EitherOfModule(&'static str, [&'static str; 2], &'static str),
    /// The content handler that a directive sets, of the first of these modules that is built in.
    Content(Directives),
    /// The callbacks that this handler sets in a request's upstream, which create the request and read the
    /// response.
    Callbacks(Directives),
}

/// Modules, each with a directive that sets a content handler.
pub type Directives = &'static [(&'static str, &'static str)];

use Witness::Callbacks;
use Witness::Content;
use Witness::Data;
use Witness::EitherOfModule;
use Witness::Exported;
use Witness::Handler;
use Witness::HandlerOfModule;
use Witness::OfModule;

impl Witness {
    /// Returns whether every build that has the witness has the member.
    pub fn comes_with_member(&self) -> bool {
        matches!(self, Handler(name) if COME_WITH_MEMBER.contains(name))
    }

    /// Returns the symbol without which the member is not read. `None` when it always is.
    pub fn module(&self) -> Option<&'static str> {
        match self {
            OfModule(symbol, ..) | HandlerOfModule(symbol, _) | EitherOfModule(symbol, ..) => {
                Some(symbol)
            }
            _ => None,
        }
    }
}

/// The struct of a request.
pub const REQUEST: &str = "ngx_http_request_s";
/// The struct of a connection, of a client or to an upstream.
pub const CONNECTION: &str = "ngx_connection_s";
/// The struct of the received headers, embedded in a request.
pub const HEADERS_IN: &str = "ngx_http_headers_in_t";
/// The struct of the sent headers, embedded in a request.
pub const HEADERS_OUT: &str = "ngx_http_headers_out_t";
/// The struct of a request's upstream.
pub const UPSTREAM: &str = "ngx_http_upstream_s";
/// The struct of one attempt at an upstream.
pub const STATE: &str = "ngx_http_upstream_state_t";

/// The argument of a directive's function. Its members are not known.
pub const DIRECTIVE: &str = "ngx_conf_s";

/// The struct of an HTTP/2 stream.
pub const STREAM: &str = "ngx_http_v2_stream_s";
/// The struct of an HTTP/2 connection.
pub const H2C: &str = "ngx_http_v2_connection_s";

/// A function that only builds with TLS for http have.
pub const SSL_SERVERNAME: &str = "ngx_http_ssl_servername";
/// A function that only builds with TLS have, be it for http, stream or mail. Without it no connection has TLS.
pub const SSL_RECV: &str = "ngx_ssl_recv";
/// The function in which Tengine redirects to HTTPS, and not where nginx does (`T_NGX_HTTP_SSL_VCE`).
const TENGINE_HTTPS: &str = "ngx_http_core_find_config_phase";
/// A function that only builds with HTTP/2 have.
pub const SEND_OUTPUT_QUEUE: &str = "ngx_http_v2_send_output_queue";

/// A function that only builds with QUIC have.
pub const QUIC_OUTPUT: &str = "ngx_quic_output";

/// The modules whose upstreams have a pipe, each with the directive that sets its content handler.
pub const PIPES: Directives = &[
    ("ngx_http_proxy_module", "proxy_pass"),
    ("ngx_http_fastcgi_module", "fastcgi_pass"),
    ("ngx_http_uwsgi_module", "uwsgi_pass"),
    ("ngx_http_scgi_module", "scgi_pass"),
];

/// Functions whose addresses those handlers compute as well, and that are not callbacks of one module.
pub const SHARED_CALLBACKS: [&str; 2] =
    ["ngx_http_upstream_init", "ngx_event_pipe_copy_input_filter"];

/// A member, or a member of an embedded struct: structs with members, whose offsets add up.
pub type MemberPath = &'static [(&'static str, &'static str)];

/// Variables that nginx got in the same release as the member that their handler reads.
pub const COME_WITH_MEMBER: [&str; 3] = [
    "upstream_bytes_received",
    "upstream_bytes_sent",
    "upstream_cache_status",
];

/// Embedded structs of which no release accesses the first member in all compilers' code: their addresses
/// are passed on.
pub const EMBEDDED: &[(&str, &str)] = &[(UPSTREAM, "buffer")];

/// Members that their witness does not access, each with the bytes from it to the member that the witness
/// accesses: in all releases and forks `u->upstream` follows `u->conf`.
pub const BESIDE: &[((&str, &str), i64)] = &[((UPSTREAM, "upstream"), -8)];

/// Bitfields: an access of the size of a pointer at their offset is to another member.
pub const BITS: &[(&str, &str)] = &[(UPSTREAM, "store"), (CONNECTION, "buffered")];

/// Every member whose offset differs between releases, and its witness.
pub const WITNESSES: &[(Witness, MemberPath)] = &[
    (
        Data("http_host"),
        &[(REQUEST, "headers_in"), (HEADERS_IN, "host")],
    ),
    (Data("server_protocol"), &[(REQUEST, "http_protocol")]),
    (Data("request_uri"), &[(REQUEST, "unparsed_uri")]),
    (Data("uri"), &[(REQUEST, "uri")]),
    (Handler("status"), &[(REQUEST, "err_status")]),
    (
        Handler("status"),
        &[(REQUEST, "headers_out"), (HEADERS_OUT, "status")],
    ),
    (Handler("status"), &[(REQUEST, "http_version")]),
    (Handler("status"), &[(REQUEST, "pool")]),
    (Handler("request_length"), &[(REQUEST, "request_length")]),
    (Handler("request_method"), &[(REQUEST, "main")]),
    (Handler("request_method"), &[(REQUEST, "method_name")]),
    (
        Handler("content_length"),
        &[(REQUEST, "headers_in"), (HEADERS_IN, "content_length_n")],
    ),
    (Handler("connection"), &[(REQUEST, "connection")]),
    (Handler("connection"), &[(CONNECTION, "number")]),
    (Handler("connection_requests"), &[(CONNECTION, "requests")]),
    (
        Exported("ngx_http_create_request", CONNECTION),
        &[(CONNECTION, "requests")],
    ),
    (Handler("bytes_sent"), &[(CONNECTION, "sent")]),
    (Handler("remote_addr"), &[(CONNECTION, "addr_text")]),
    (Handler("remote_port"), &[(CONNECTION, "sockaddr")]),
    (
        HandlerOfModule(SSL_SERVERNAME, "https"),
        &[(CONNECTION, "ssl")],
    ),
    (
        OfModule(SSL_RECV, SSL_RECV, CONNECTION),
        &[(CONNECTION, "ssl")],
    ),
    (Handler("upstream_status"), &[(REQUEST, "upstream_states")]),
    (Handler("upstream_status"), &[(STATE, "status")]),
    (Handler("upstream_header_time"), &[(STATE, "header_time")]),
    (
        Handler("upstream_bytes_received"),
        &[(STATE, "bytes_received")],
    ),
    (Handler("upstream_bytes_sent"), &[(STATE, "bytes_sent")]),
    (Handler("upstream_addr"), &[(STATE, "peer")]),
    (
        Exported("ngx_http_upstream_create", REQUEST),
        &[(REQUEST, "upstream")],
    ),
    (
        Handler("upstream_cache_status"),
        &[(UPSTREAM, "cache_status")],
    ),
    (Content(PIPES), &[(UPSTREAM, "pipe")]),
    (Content(PIPES), &[(UPSTREAM, "store")]),
    (Content(PIPES), &[(UPSTREAM, "upstream")]),
    (Callbacks(PIPES), &[(UPSTREAM, "request_bufs")]),
    (Callbacks(PIPES), &[(UPSTREAM, "buffer")]),
    (Callbacks(PIPES), &[(UPSTREAM, "length")]),
    (
        Exported("ngx_http_write_filter", REQUEST),
        &[(CONNECTION, "buffered")],
    ),
    (
        Exported("ngx_http_discard_request_body", REQUEST),
        &[(REQUEST, "header_in")],
    ),
    (
        Exported("ngx_http_discard_request_body", REQUEST),
        &[(REQUEST, "request_body")],
    ),
    (
        Exported("ngx_connection_local_sockaddr", CONNECTION),
        &[(CONNECTION, "local_sockaddr")],
    ),
    (
        Exported("ngx_http_init_connection", CONNECTION),
        &[(CONNECTION, "log")],
    ),
    (
        Exported("ngx_http_init_connection", CONNECTION),
        &[("ngx_log_s", "data")],
    ),
    (
        EitherOfModule(
            SSL_SERVERNAME,
            ["ngx_http_process_request", TENGINE_HTTPS],
            REQUEST,
        ),
        &[(REQUEST, "http_connection")],
    ),
    (
        OfModule(SEND_OUTPUT_QUEUE, "ngx_http_subrequest", REQUEST),
        &[(REQUEST, "stream")],
    ),
    (
        OfModule(SEND_OUTPUT_QUEUE, SEND_OUTPUT_QUEUE, H2C),
        &[(H2C, "last_out")],
    ),
    (
        OfModule(SEND_OUTPUT_QUEUE, "ngx_http_v2_close_stream", STREAM),
        &[(H2C, "state"), ("ngx_http_v2_state_t", "stream")],
    ),
    (
        OfModule(QUIC_OUTPUT, QUIC_OUTPUT, CONNECTION),
        &[(CONNECTION, "udp")],
    ),
    (
        OfModule(QUIC_OUTPUT, "ngx_quic_open_stream", CONNECTION),
        &[(CONNECTION, "quic")],
    ),
];

/// The members that point to a struct, each with that struct.
pub const POINTERS: &[((&str, &str), &str)] = &[
    ((REQUEST, "connection"), CONNECTION),
    ((REQUEST, "main"), REQUEST),
    ((REQUEST, "upstream"), UPSTREAM),
    ((REQUEST, "upstream_states"), "ngx_array_t"),
    (("ngx_array_t", "elts"), STATE),
    ((CONNECTION, "log"), "ngx_log_s"),
    ((STREAM, "connection"), H2C),
];
