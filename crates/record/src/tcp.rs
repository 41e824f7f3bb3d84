// SPDX-License-Identifier: MIT OR Apache-2.0
//! The TCP connections of a request, as the kernel counts.

use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;

/// The TCP connections that a request used.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[schemars(deny_unknown_fields)]
pub struct Tcp {
    /// The client's connection, when nginx ended the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend(
        "x-source" = "the kernel's socket of `c->fd`",
        "x-absent" = "a unix socket; MPTCP; HTTP/3"
    ))]
    pub client: Option<TcpConnection>,
    /// The connection of the last upstream that the client waited for, when bytes last passed on it for this
    /// request, or nginx closed it. nginx may then have kept it for other requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend(
        "x-source" = "tracepoints `sock_send_length`, `sock_recv_length` and `inet_sock_set_state`",
        "x-absent" = "the request had no upstream; nothing passed on the connection, and nginx did not close it \
                      either (it was refused); a unix socket; MPTCP; a `post_action` had an upstream; `partial`"
    ))]
    pub upstream: Option<TcpConnection>,
}

impl Tcp {
    /// Returns whether nothing is known of either.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What the kernel counts of one TCP connection over its whole life, which may have begun before the request.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[schemars(deny_unknown_fields)]
pub struct TcpConnection {
    /// The smoothed round-trip time, as `rtt` of `ss -i`: from nginx's packets to the other side's
    /// acknowledgements, mostly of the last ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = u32::MAX >> 3), extend(
        "x-unit" = "µs",
        "x-source" = "`tp->srtt_us >> 3`",
        "x-absent" = "the kernel has measured none: the connection was never established, or TCP Fast Open or a \
                      SYN cookie has opened it and nothing was acknowledged since"
    ))]
    pub rtt_us: Option<u32>,
    /// How many segments the kernel has sent again since the connection began, the SYN included.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1), extend(
        "x-source" = "`tp->total_retrans`",
        "x-absent" = "it has sent none again"
    ))]
    pub retransmits: Option<u32>,
    /// The congestion window: how many packets may be on their way at the same time.
    #[schemars(range(min = 1), extend("x-unit" = "packets", "x-source" = "`tp->snd_cwnd`"))]
    pub cwnd: u32,
    /// How long the other side's receive window, which was zero or too small, has kept the kernel from sending
    /// what nginx had given it, since the connection began. It is measured in ticks of the kernel's timer (CONFIG_HZ:
    /// 4 ms at 250).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1), extend(
        "x-unit" = "ns",
        "x-source" = "`tp->chrono_stat` of `TCP_CHRONO_RWND_LIMITED`, and what is under way; `rwnd_limited` of \
                      `ss -i`",
        "x-absent" = "it was less than a tick"
    ))]
    pub rwnd_limited_ns: Option<u64>,
}
