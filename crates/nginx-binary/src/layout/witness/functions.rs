// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which function of nginx touches which member of its structs, in every release.

/// Where a function that is a witness is from.
#[derive(Clone, Copy, Debug)]
pub enum Witness {
    /// The handler of one of nginx's variables (src/http/ngx_http_variables.c, ngx_http_upstream.c).
    Handler(&'static str),
    /// No function: what stands beside a variable is `offsetof(ngx_http_request_t, …)` itself.
    Data(&'static str),
    /// A function that every build exports, and what its first argument points to.
    Exported(&'static str, &'static str),
    /// The same where a certain symbol tells that a module is built in; without it the member is not
    /// read, and no one is asked.
    OfModule(&'static str, &'static str, &'static str),
    /// The content handler that a directive of a module sets: of the first of these modules that is
    /// built in.
    Content(Directives),
    /// The functions that this handler gives to a request's upstream, to make its request and to read
    /// its response.
    Callbacks(Directives),
}

/// Modules, each with a directive that sets a content handler.
pub type Directives = &'static [(&'static str, &'static str)];

use Witness::Callbacks;
use Witness::Content;
use Witness::Data;
use Witness::Exported;
use Witness::Handler;
use Witness::OfModule;

impl Witness {
    /// Whether a build that has the witness has the member, too.
    pub fn comes_with_member(&self) -> bool {
        matches!(self, Handler(name) if COME_WITH_MEMBER.contains(name))
    }

    /// The symbol without which no one is asked.
    pub fn module(&self) -> Option<&'static str> {
        match self {
            OfModule(symbol, ..) => Some(symbol),
            _ => None,
        }
    }
}

/// A request.
pub const REQUEST: &str = "ngx_http_request_s";
/// A connection, of a client or to an upstream.
pub const CONNECTION: &str = "ngx_connection_s";
/// Within a request.
pub const HEADERS_IN: &str = "ngx_http_headers_in_t";
/// Within a request.
pub const HEADERS_OUT: &str = "ngx_http_headers_out_t";
/// A request's work with its upstream.
pub const UPSTREAM: &str = "ngx_http_upstream_s";
/// What nginx keeps of an attempt at an upstream.
pub const STATE: &str = "ngx_http_upstream_state_t";

/// What the function of a directive is called with; nothing of it is known.
pub const DIRECTIVE: &str = "ngx_conf_s";

/// A stream of HTTP/2.
pub const STREAM: &str = "ngx_http_v2_stream_s";
/// A connection of HTTP/2.
pub const H2C: &str = "ngx_http_v2_connection_s";

/// What only builds with TLS for http have.
pub const SSL_SERVERNAME: &str = "ngx_http_ssl_servername";
/// What only builds with HTTP/2 have.
pub const SEND_OUTPUT_QUEUE: &str = "ngx_http_v2_send_output_queue";

/// What only builds with QUIC have.
pub const QUIC_OUTPUT: &str = "ngx_quic_output";

/// The modules whose upstreams have a pipe.
pub const PIPES: Directives = &[
    ("ngx_http_proxy_module", "proxy_pass"),
    ("ngx_http_fastcgi_module", "fastcgi_pass"),
    ("ngx_http_uwsgi_module", "uwsgi_pass"),
    ("ngx_http_scgi_module", "scgi_pass"),
];

/// What those handlers hand on that is no callback of theirs.
pub const SHARED_CALLBACKS: [&str; 2] =
    ["ngx_http_upstream_init", "ngx_event_pipe_copy_input_filter"];

/// A member, or a member of an embedded struct: the offsets add up.
pub type Place = &'static [(&'static str, &'static str)];

/// Variables that came into nginx with the member that their handler reads.
pub const COME_WITH_MEMBER: [&str; 3] = [
    "upstream_bytes_received",
    "upstream_bytes_sent",
    "upstream_cache_status",
];

/// Members that begin at a byte of some bits: what has the size of a pointer there is another member.
pub const BITS: &[(&str, &str)] = &[(UPSTREAM, "store"), (CONNECTION, "buffered")];

/// Every member that is not at the same place in all releases, and who touches it.
pub const WITNESSES: &[(Witness, Place)] = &[
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
    (Handler("https"), &[(CONNECTION, "ssl")]),
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
        OfModule(SSL_SERVERNAME, "ngx_http_process_request", REQUEST),
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

/// Which struct a member points to.
pub const POINTERS: &[((&str, &str), &str)] = &[
    ((REQUEST, "connection"), CONNECTION),
    ((REQUEST, "main"), REQUEST),
    ((REQUEST, "upstream"), UPSTREAM),
    ((REQUEST, "upstream_states"), "ngx_array_t"),
    (("ngx_array_t", "elts"), STATE),
    ((CONNECTION, "log"), "ngx_log_s"),
    ((STREAM, "connection"), H2C),
];
