// SPDX-License-Identifier: MIT OR Apache-2.0
//! The keys of a request that say what it waited for.

use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;

use crate::shares::Shares;

/// What a request waited for, and what nginx could not keep in its buffers meanwhile.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
pub struct Waits {
    /// For whom it waited (below): the sum is `duration_ns`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend(
        "x-source" = "`duration_ns`, `phases`, `upstreams`, and the keys that follow",
        "x-absent" = "`duration_ns` is absent; nginx read a body, and it is not known until when"
    ))]
    pub time_ns: Option<Shares>,
    /// How long the connection waited to be accepted: the kernel had it, and nginx had not come to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend(
        "x-unit" = "ns",
        "x-source" = "`tcp_sock` of the kernel (`rcvq_space.time`, which it sets when the connection is \
                      established, of TCP Fast Open with its first segment), and `ngx_http_init_connection()`",
        "x-absent" = "it is not the first request of its connection; the connection was accepted before \
                      tracing began; `pass` of the stream module handed it over; a unix socket; MPTCP; HTTP/3"
    ))]
    pub accept_queue_ns: Option<u64>,
    /// How long bytes of the request's header lay in the socket until nginx read them, because the worker was
    /// busy with something else, or stopped. It is measured in ticks of the kernel's timer (CONFIG_HZ: 4 ms
    /// at 250), and may be one tick too long or too short. `duration_ns` begins with the read of the first
    /// bytes, after their wait; where the header came in parts, the waits of the later ones lie within it.
    /// HTTP/2: the first bytes of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1), extend(
        "x-unit" = "ns",
        "x-source" = "the time at which the kernel received the last bytes (`icsk_ack.lrcvtime`)",
        "x-absent" = "it was less than three ticks; `partial`; a unix socket; MPTCP; HTTP/3"
    ))]
    pub read_wait_ns: Option<u64>,
    /// The same of the first bytes of the last upstream's response. It is a part of the time from
    /// `upstream_request_last_byte_time` to `upstream_response_first_byte_time`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1), extend(
        "x-unit" = "ns",
        "x-source" = "as for `read_wait_ns`",
        "x-absent" = "as for `read_wait_ns`; the request had no upstream"
    ))]
    pub upstream_read_wait_ns: Option<u64>,
    /// How long the request waited for the one before it on its connection: its first byte came with that
    /// one (pipelined), and nginx begins a request when it has ended the one before, with its `mirror`
    /// subrequests. `elapsed_ns` contains it, `$request_time` does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1), extend(
        "x-unit" = "ns",
        "x-source" = "the end of the request before",
        "x-absent" = "the request did not wait; HTTP/2, HTTP/3"
    ))]
    pub queue_ns: Option<u64>,
    /// How long nginx waited for the rest of the request's body: from the end of the header to the read of
    /// the body's last byte.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1), extend(
        "x-unit" = "ns",
        "x-source" = "the two times of `phases`",
        "x-absent" = "there is no body, or it came with the header; one of the two times is absent"
    ))]
    pub body_read_ns: Option<u64>,
    /// How long `limit_req` delayed the request: from the end of its header to the moment at which nginx went on
    /// with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1), extend(
        "x-unit" = "ns",
        "x-source" = "the times of `phases`, and `ngx_http_limit_req_delay()`, which runs when the delay is over",
        "x-absent" = "it was not delayed; the delay came to no end; an attempt at an upstream came before it \
                      (`error_page`); `wait_ns` has it; `partial`; the build's code does not show the function"
    ))]
    pub limit_req_delay_ns: Option<u64>,
    /// How long the request waited for the subrequest of `auth_request`: from the end of its header, or of the
    /// delay by `limit_req`, to the end of the subrequest. It contains all that the subrequest waited for; its
    /// attempts at upstreams are in `subrequests`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1), extend(
        "x-unit" = "ns",
        "x-source" = "the times of `phases`, and `ngx_http_auth_request_done()`, which runs when the subrequest ends",
        "x-absent" = "there is no `auth_request`; the subrequest did not end; otherwise as for `limit_req_delay_ns`"
    ))]
    pub auth_ns: Option<u64>,
    /// How long the request waited for a name server to resolve the name of its upstream: from the end of its body,
    /// or of the wait before it, to the first connect, or to the end of `resolver_timeout`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1), extend(
        "x-unit" = "ns",
        "x-source" = "the connect that follows a datagram of the name server; `u->resolved`; \
                      `ngx_resolver_timeout_handler()`",
        "x-absent" = "the name was known, or is an address; there is no such name; the name server answered over TCP; \
                      HTTP/2 and HTTP/3: the request has a body; otherwise as for `limit_req_delay_ns`"
    ))]
    pub resolve_ns: Option<u64>,
    /// How long the request waited while another one filled the entry of the cache (`proxy_cache_lock`): from
    /// the end of its body, or of the wait before it, to the last time that nginx looked whether the entry was
    /// there. nginx looks every 500 ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1), extend(
        "x-unit" = "ns",
        "x-source" = "the times of `phases`, and `ngx_http_file_cache_lock_wait_handler()`",
        "x-absent" = "the entry was not locked; the request ended before nginx looked; a subrequest (`slice`); HTTP/2 \
                      and HTTP/3: the request has a body; otherwise as for `limit_req_delay_ns`"
    ))]
    pub cache_lock_ns: Option<u64>,
    /// The sum of the four keys before, which are absent then: a module that is not nginx's own handles a phase of
    /// requests (lua, njs), and may have made the request wait as well before one of these waits ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1), extend(
        "x-unit" = "ns",
        "x-source" = "as for these keys; the list of modules in the binary, and the handlers of phases",
        "x-absent" = "no such module is there; the request waited for none of them"
    ))]
    pub wait_ns: Option<u64>,
    /// How long the client's socket took nothing although nginx had more of the response for it: each time
    /// from the send that it did not take whole to the next one of which it took bytes, or to the end of
    /// the request. The client reads slowly, or the network is slow. Where `limit_rate` delays nginx while the
    /// socket is full, that time does not count.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1), extend(
        "x-unit" = "ns",
        "x-source" = "sends that fail with EAGAIN, and those after which the kernel has marked the socket as \
                      full (SOCK_NOSPACE) while nginx waits (`c->buffered`)",
        "x-absent" = "it took everything, or was full only while `limit_rate` delayed nginx; `partial` or `tunnel`; \
                      HTTP/2, HTTP/3"
    ))]
    pub client_stall_ns: Option<u64>,
    /// How long the upstreams' sockets took nothing although nginx had more of the request for them, of all
    /// `upstreams` together.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1), extend(
        "x-unit" = "ns",
        "x-source" = "as for `client_stall_ns`; nginx waits while the timer of `c->write` is set",
        "x-absent" = "they took everything; `partial`; a unix socket"
    ))]
    pub upstream_stall_ns: Option<u64>,
    /// Bytes of the request's body that nginx wrote to a temporary file, since `client_body_buffer_size` is
    /// less, or `client_body_in_file_only` asks for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1), extend(
        "x-unit" = "bytes",
        "x-source" = "the buffer in the file of `r->request_body->temp_file`; of a body that is not whole, the \
                      size of the file",
        "x-absent" = "nginx wrote none; the request has no body"
    ))]
    pub request_temp_file_bytes: Option<u64>,
    /// Bytes of the last upstream's response that nginx wrote to a temporary file, since the client took them
    /// more slowly than they came, and `proxy_buffers` had no room.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1), extend(
        "x-unit" = "bytes",
        "x-source" = "the size of the file of `u->pipe->temp_file`",
        "x-absent" = "nginx wrote none; the response went to the cache, or was stored; the upstream sent fewer \
                      than 4096 bytes; a subrequest"
    ))]
    pub response_temp_file_bytes: Option<u64>,
}
