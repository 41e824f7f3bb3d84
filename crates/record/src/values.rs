// SPDX-License-Identifier: MIT OR Apache-2.0
//! The values of keys that have a fixed set of them. Each set is one list: the name of a value stands
//! beside its variant, and the documentation of the variant is the documentation of the value.

use std::fmt;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;

/// Makes an enum of names: serde, the schema, `ALL` and `name()` follow from its one list.
macro_rules! names {
    (
        $(#[$attribute:meta])*
        pub enum $type:ident {
            $($(#[$documentation:meta])* $variant:ident = $name:literal,)+
        }
    ) => {
        $(#[$attribute])*
        #[derive(
            Clone, Copy, Debug, Deserialize, Eq, Hash, JsonSchema, Ord, PartialEq, PartialOrd, Serialize,
        )]
        pub enum $type {
            $($(#[$documentation])* #[serde(rename = $name)] $variant,)+
        }

        impl $type {
            /// Every value, in the order in which they are documented.
            pub const ALL: [Self; [$($name),+].len()] = [$(Self::$variant),+];

            /// The value as it stands in a record.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}

mod state;

pub use state::State;

names! {
    /// `$scheme`
    #[derive(Default)]
    pub enum Scheme {
        /// The client's bytes are not encrypted.
        #[default]
        Http = "http",
        /// The client's bytes come over TLS or QUIC.
        Https = "https",
    }
}

names! {
    /// What a blocked worker did, or waited for.
    pub enum BlockPart {
        /// It ran on a CPU.
        OnCpu = "on_cpu",
        /// It was in a sleep that nothing can interrupt, mostly for a disk.
        Io = "io",
        /// It could run, and waited for a CPU.
        Runqueue = "runqueue",
        /// It slept otherwise, or was stopped.
        Sleep = "sleep",
    }
}

names! {
    /// What the times of a request count from.
    pub enum Origin {
        /// The moment at which the connection was accepted.
        Accept = "accept",
        /// The read of the request's first byte, where the accept was not seen.
        RequestFirstByte = "request_first_byte",
    }
}

names! {
    /// `$upstream_cache_status` (`ngx_http_cache_status[]`), in nginx's own order.
    pub enum CacheStatus {
        /// The response was not in the cache.
        Miss = "MISS",
        /// `proxy_cache_bypass` asked not to use the cache.
        Bypass = "BYPASS",
        /// The response in the cache had expired.
        Expired = "EXPIRED",
        /// The response had expired and was used, since the upstream failed.
        Stale = "STALE",
        /// The response had expired and was used, while another request updates it.
        Updating = "UPDATING",
        /// The upstream said that the expired response is still valid.
        Revalidated = "REVALIDATED",
        /// The response came from the cache.
        Hit = "HIT",
    }
}

names! {
    /// The version of TLS, where the request itself shows it.
    pub enum SslProtocol {
        /// HTTP/3 has no other.
        Tls13 = "TLSv1.3",
    }
}

names! {
    /// The protocol that was negotiated in the TLS handshake, where the request itself shows it.
    pub enum Alpn {
        /// HTTP/2 over TLS.
        H2 = "h2",
        /// HTTP/3.
        H3 = "h3",
    }
}

names! {
    /// How the layout of nginx's structs was found, where no source states it.
    pub enum LayoutSource {
        /// The code of the binary agrees with one known layout in all members, and with no other.
        Inferred = "inferred",
    }
}

names! {
    /// Keys whose values can be cut.
    pub enum Cut {
        /// The end of the text is missing.
        RequestMethod = "request_method",
        /// The end of the text is missing.
        RequestUri = "request_uri",
        /// The end of the text is missing.
        Uri = "uri",
        /// The end of the text is missing.
        HttpHost = "http_host",
        /// The end of the text is missing.
        Location = "location",
        /// The end of the text is missing.
        ServerName = "server_name",
        /// The end of the text is missing.
        UpstreamName = "upstream_name",
        /// It is left out.
        Config = "config",
        /// It is left out.
        Tcp = "tcp",
        /// The end of a value is missing, or all of it is left out.
        Variables = "variables",
        /// The end of a value is missing, or all of it is left out.
        Headers = "headers",
        /// The end of the text is missing.
        ServerProtocol = "server_protocol",
        /// The end of the text is missing.
        RemoteAddr = "remote_addr",
        /// The end of the text is missing.
        SslServerName = "ssl_server_name",
        /// The end of the address is missing, here and in the attempt.
        UpstreamAddr = "upstream_addr",
        /// There were more attempts than the record has.
        Upstreams = "upstreams",
        /// There were more subrequests, or one of them is cut.
        Subrequests = "subrequests",
    }
}

names! {
    /// How far a connection had come that ended without a request.
    #[derive(Default)]
    pub enum Stage {
        /// nginx had accepted it, and read nothing.
        #[default]
        Accepted = "accepted",
        /// nginx was reading the PROXY protocol header, and it is not one.
        ProxyProtocol = "proxy_protocol",
        /// The TLS handshake had begun, and was not over.
        TlsHandshake = "tls_handshake",
        /// The PROXY protocol header or the TLS handshake was complete, and no request followed.
        BeforeRequest = "before_request",
        /// It had had requests, and waited for the next one.
        Keepalive = "keepalive",
    }
}

names! {
    /// Why a connection ended without a request.
    pub enum ConnectionEnd {
        /// The client closed it.
        ClientClosed = "client_closed",
        /// The client reset it, or the kernel gave it up.
        ClientReset = "client_reset",
        /// A time limit of nginx expired: `client_header_timeout`, or after requests `keepalive_timeout`.
        Timeout = "timeout",
        /// The TLS handshake failed, since one of the sides refused what the other one said; or what came later was
        /// not TLS.
        TlsError = "tls_error",
        /// nginx refused what the client sent, which was no PROXY protocol header.
        Rejected = "rejected",
        /// nginx closed it, because its worker shuts down (as after a reload), or has no other connection left
        /// (`worker_connections`).
        Reclaimed = "reclaimed",
    }
}

names! {
    /// Why requests were lost. BPF counts the first four, user space the others, and those records that it
    /// can't decode.
    pub enum Cause {
        /// The reader of the output was too slow, and the ring buffer was full.
        RingFull = "ring_full",
        /// nginx had more than 262,144 connections at once (32,768 before Linux 6.1), or more requests ended
        /// at the same moment than there was room for.
        InflightFull = "inflight_full",
        /// nginx's memory could not be read, or a record could not be decoded.
        BadRead = "bad_read",
        /// The worker was killed, crashed or was shut down (TERM, INT) with more requests in flight than
        /// there was room to report: 4,096 for each tenth of a second.
        WorkerExit = "worker_exit",
        /// The output took no more: a full disk, a limit of the file's size, or a reader that had stopped
        /// reading before the end.
        WriteFailed = "write_failed",
        /// The receiver of `--otlp` did not take them: it was down or slow for too long, or refused them. Another
        /// output has them, if there is one.
        Otlp = "otlp",
    }
}

names! {
    /// How a request ended.
    pub enum End {
        /// The client's connection has taken the whole response: the upstream's, with whatever status, or
        /// nginx's own with a status below 400. A tunnel (status 101): one of its sides closed it.
        Ok = "ok",
        /// The client closed its connection before it had the whole response (499), or before nginx had its
        /// whole request.
        ClientClosed = "client_closed",
        /// The client reset its connection, or the kernel gave it up. HTTP/2, HTTP/3: or the client
        /// cancelled the stream.
        ClientReset = "client_reset",
        /// A time limit of nginx expired: on the client's side (408, `send_timeout`), or while nginx waited
        /// for an upstream (504, or in the middle of the response).
        Timeout = "timeout",
        /// An upstream failed in another way: there was no response (502), or it was cut short.
        UpstreamFailed = "upstream_failed",
        /// `limit_req` or `limit_conn` refused the request, with whatever status.
        Limited = "limited",
        /// nginx itself refused the request: it answered with a 4xx of its own, or it closed the connection
        /// without an answer (444).
        Rejected = "rejected",
        /// nginx itself failed: it answered with a 5xx of its own, or it could not complete the response.
        Error = "error",
        /// The worker was killed, crashed or was shut down at once (TERM, INT) while the request was in
        /// flight; or nginx closed the connection when `worker_shutdown_timeout` had expired.
        WorkerExit = "worker_exit",
    }
}

names! {
    /// Which time limit of nginx expired.
    pub enum Timeout {
        /// The header of the request did not come within `client_header_timeout`.
        Header = "header",
        /// The body of the request did not come, or stopped coming, within `client_body_timeout`.
        Body = "body",
        /// The client took nothing of the response for `send_timeout`.
        Send = "send",
        /// The connection to the upstream, with its TLS handshake, was not established within
        /// `proxy_connect_timeout`.
        Connect = "connect",
        /// The upstream took nothing of the request for `proxy_send_timeout`.
        UpstreamSend = "upstream_send",
        /// The upstream sent nothing for `proxy_read_timeout`.
        UpstreamRead = "upstream_read",
        /// No name server resolved the name of the upstream within `resolver_timeout`.
        Resolve = "resolve",
    }
}

names! {
    /// The part of a request's time in which it was cut short.
    pub enum Part {
        /// nginx was reading the header.
        ClientRequest = "client_request",
        /// nginx was reading the body.
        ClientBody = "client_body",
        /// nginx had the request, and had not begun to connect to an upstream: it may have been resolving
        /// its name. After an internal redirect this is the upstream of the last location.
        BeforeUpstream = "before_upstream",
        /// nginx was connecting to an upstream, or in the TLS handshake with it.
        UpstreamConnect = "upstream_connect",
        /// nginx was sending the request to the upstream.
        UpstreamRequest = "upstream_request",
        /// The upstream had the request, and nginx had no byte of the response.
        UpstreamWait = "upstream_wait",
        /// nginx was reading the upstream's response.
        UpstreamResponse = "upstream_response",
        /// nginx had the request, needed no upstream, and had sent nothing.
        BeforeResponse = "before_response",
        /// The client had a part of the response.
        ClientResponse = "client_response",
    }
}

names! {
    /// Who ended a request early, or closed a tunnel.
    pub enum Side {
        /// The client closed or reset its connection or stream.
        Client = "client",
        /// nginx gave the request up, or closed its connection without an answer.
        Nginx = "nginx",
        /// The upstream closed or reset its connection.
        Upstream = "upstream",
    }
}

names! {
    /// Why an attempt at an upstream failed.
    pub enum Failure {
        /// The connect failed: the connection was refused, or the address is unreachable.
        ConnectError = "connect_error",
        /// The connection was not established within `proxy_connect_timeout`.
        ConnectTimeout = "connect_timeout",
        /// The TLS handshake failed, nginx refused the upstream's certificate, or what came later was not
        /// TLS.
        TlsError = "tls_error",
        /// The TLS handshake took longer than nginx waits.
        TlsTimeout = "tls_timeout",
        /// Every server of the upstream was down, or marked as failed.
        NoLiveUpstreams = "no_live_upstreams",
        /// The upstream did not take the whole request within `proxy_send_timeout`.
        SendTimeout = "send_timeout",
        /// The request was sent, and the response, or more of it, did not come within
        /// `proxy_read_timeout`; or nothing passed through a tunnel for that long.
        Timeout = "timeout",
        /// The upstream closed the connection before the header, or the body that it had promised, was
        /// complete. FastCGI: it ended the response that early.
        Closed = "closed",
        /// The connection was reset. HTTP/2: or the stream was (RST_STREAM), or the upstream refused it
        /// (GOAWAY).
        Reset = "reset",
        /// What came was not a header.
        InvalidHeader = "invalid_header",
        /// What followed the header could not be read: a broken chunk, a broken frame or record.
        InvalidBody = "invalid_body",
        /// None of the above was seen, or it is not certain which of them it was.
        Error = "error",
        /// The client left while nginx waited (499).
        ClientClosed = "client_closed",
        /// The response's status is in `proxy_next_upstream`, and nginx went on to the next server.
        Http403 = "http_403",
        /// The same, with status 404.
        Http404 = "http_404",
        /// The same, with status 429.
        Http429 = "http_429",
        /// The same, with status 500.
        Http500 = "http_500",
        /// The same, with status 502.
        Http502 = "http_502",
        /// The same, with status 503.
        Http503 = "http_503",
        /// The same, with status 504.
        Http504 = "http_504",
    }
}

impl Failure {
    /// Returns whether the upstream answered, with a status for which nginx tries another server.
    pub fn is_of_status(self) -> bool {
        self.name().starts_with("http_")
    }
}

#[cfg(test)]
mod tests {
    use super::Failure;

    /// Check that a value is written and read by its name.
    #[test]
    fn by_name() {
        for value in Failure::ALL {
            let json = serde_json::to_string(&value).unwrap();
            assert_eq!(json, format!("\"{value}\""));
            assert_eq!(serde_json::from_str::<Failure>(&json).unwrap(), value);
        }
    }
}
