// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the numbers of an event say of its request: which bytes are whose, when each came, and what
//! is not certain. `request.rs` gives the answers their public names.

use std::borrow::Cow;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;

use crate::bpf::types;
use crate::bpf::types::request_flag;
use crate::decode::event::RequestEvent;
use crate::decode::event::SubrequestEvent;
use crate::decode::trace_context::TraceContext;
use crate::record::phases::Phase;
use crate::record::phases::Phases;

/// `r->http_version` of HTTP/0.9.
const HTTP_VERSION_9: u32 = 9;

/// `r->http_version` of HTTP/2.
const HTTP_VERSION_20: u32 = 2000;

/// `r->http_version` of HTTP/3.
const HTTP_VERSION_30: u32 = 3000;

/// Statuses that nginx itself gives a request whose header it can't read.
const HEADER_ERRORS: [u32; 5] = [400, 408, 414, 431, 494];

/// What nginx answers to a request that it can't read.
const BAD_REQUEST: u32 = 400;

/// The status with which a connection becomes a tunnel.
const SWITCHING_PROTOCOLS: u32 = 101;

/// A socket of IPv4.
const AF_INET: u16 = libc::AF_INET as u16;

/// A socket of IPv6.
const AF_INET6: u16 = libc::AF_INET6 as u16;

/// `ngx_http_cache_status[]`, from 1 on.
const CACHE_STATUS: [&str; 7] = [
    "MISS",
    "BYPASS",
    "EXPIRED",
    "STALE",
    "UPDATING",
    "REVALIDATED",
    "HIT",
];

/// What an event's numbers say, each question by itself.
pub struct Facts<'e, 'a>(pub &'e RequestEvent<'a>);

impl<'a> Facts<'_, 'a> {
    /// Whether a flag of wire.h is set.
    pub fn has(&self, flag: request_flag) -> bool {
        self.0.record.flags & flag.0 != 0
    }

    /// Whether some of this request may have passed before tracing began.
    pub fn is_partial(&self) -> bool {
        /* Of HTTP/3 the read of a stream that was seen from its begin is not always certain. */
        let is_read =
            self.0.record.request_first_ns != 0 || self.0.record.http_version == HTTP_VERSION_30;
        self.has(request_flag::REQUEST_UNTRACED)
            || self.has(request_flag::REQUEST_ADOPTED)
            || !is_read
    }

    /// When the request's first byte was read.
    pub fn first_byte_ns(&self) -> Option<u64> {
        nonzero(self.0.record.request_first_ns).filter(|_| !self.is_partial())
    }

    /// Whether nginx has seen the whole header. A request that has an upstream or a body had one.
    fn is_header_complete(&self) -> bool {
        let record = &self.0.record;
        let is_processed = self.has(request_flag::REQUEST_UPSTREAM) || record.content_length_n >= 0;
        is_processed
            || match record.http_version {
                HTTP_VERSION_9 => true,
                HTTP_VERSION_20.. => record.status != 0 && !HEADER_ERRORS.contains(&record.status),
                _ => self.has(request_flag::REQUEST_HEADER_COMPLETE),
            }
    }

    /// When the header was complete and nginx could start on it: a pipelined request waits for
    /// the end of the one before.
    fn header_ns(&self) -> Option<u64> {
        let record = &self.0.record;
        let read = nonzero(record.header_ns).or(self.first_byte_ns())?;
        let is_known = self.is_header_complete() && record.request_length != 0;
        (is_known && !self.is_partial()).then_some(read.max(record.previous_ended_ns))
    }

    /// When its body was complete, and the header before it.
    fn body_ns(&self) -> Option<u64> {
        if self.may_be_short() {
            return None;
        }
        Some(nonzero(self.0.record.body_ns)?.max(self.header_ns()?))
    }

    /// Whether the body may have ended before the length that its header says. nginx then takes what
    /// came for all of it, and answers with 400 (ngx_http_v2_filter_request_body()).
    fn may_be_short(&self) -> bool {
        let record = &self.0.record;
        let last = self.0.attempts.last();
        record.http_version >= HTTP_VERSION_20
            && record.status == BAD_REQUEST
            && last.is_none_or(|last| last.record.status != BAD_REQUEST)
    }

    /// Whether there is a body that nginx has read, or began to read, and it is not known when it was
    /// complete.
    pub fn is_body_unknown(&self) -> bool {
        self.has(request_flag::REQUEST_BODY) && self.body_ns().is_none()
    }

    /// How long the request was there, and nginx had the one before it on the connection.
    pub fn queue_ns(&self) -> Option<u64> {
        let previous = self.0.record.previous_ended_ns;
        nonzero(previous.checked_sub(self.first_byte_ns()?)?)
    }

    /// Whether the connection is no longer HTTP's once the response has begun.
    pub fn is_tunnel(&self) -> bool {
        let method = self.0.text(self.0.record.texts.method);
        let status = self.0.record.status;
        status == SWITCHING_PROTOCOLS || (method == b"CONNECT" && (200..300).contains(&status))
    }

    /// How long the tunnel lived.
    pub fn tunnel_ns(&self) -> Option<u64> {
        let begun = nonzero(self.0.record.response_first_ns)?;
        let lived = self.0.record.ended_ns.checked_sub(begun)?;
        (self.is_tunnel() && !self.is_partial()).then_some(lived)
    }

    /// When the last byte of the response was sent: that of a tunnel ends where the tunnel begins.
    pub fn response_last_ns(&self) -> Option<u64> {
        let record = &self.0.record;
        nonzero(if self.is_tunnel() {
            record.response_first_ns
        } else {
            record.response_last_ns
        })
    }

    /// `$request_length`. nginx itself counts too little where it discards a chunked body after
    /// which another request has come, and then it may be negative.
    pub fn request_size(&self) -> Option<i64> {
        Some(self.0.record.request_length).filter(|length| *length >= 0)
    }

    /// How long nginx had the request: from its first byte to its end.
    pub fn elapsed_ns(&self) -> Option<u64> {
        self.0.record.ended_ns.checked_sub(self.first_byte_ns()?)
    }

    /// How long the TLS handshake took; told of the first request behind it.
    pub fn tls_handshake_ns(&self) -> Option<u64> {
        let record = &self.0.record;
        let first = nonzero(record.handshake_first_ns)?;
        let took = record.handshake_last_ns.checked_sub(first);
        took.filter(|_| record.connection_requests == 1)
    }

    /// Which trace the request belongs to, as its client says.
    pub fn trace_context(&self) -> Option<TraceContext> {
        TraceContext::parse(self.0.text(self.0.record.texts.traceparent))
    }

    /// How the client's bytes come: as `$scheme`.
    pub fn scheme(&self) -> &'static str {
        let is_tls = self.has(request_flag::REQUEST_TLS);
        if is_tls || self.0.record.http_version == HTTP_VERSION_30 {
            "https"
        } else {
            "http"
        }
    }

    /// The protocol that was negotiated with the TLS handshake, where the request itself tells it:
    /// HTTP/2 and HTTP/3 come no other way.
    pub fn alpn(&self) -> Option<&'static str> {
        match self.0.record.http_version {
            HTTP_VERSION_20 if self.has(request_flag::REQUEST_TLS) => Some("h2"),
            HTTP_VERSION_30 => Some("h3"),
            _ => None,
        }
    }

    /// The version of TLS, where the request itself tells it: QUIC has one only.
    pub fn ssl_protocol(&self) -> Option<&'static str> {
        (self.0.record.http_version == HTTP_VERSION_30).then_some("TLSv1.3")
    }

    /// The client's side of the phases.
    pub fn downstream(&self, origin: u64) -> Phases {
        let mut phases = Phases::default();
        if self.is_partial() {
            return phases;
        }
        let record = &self.0.record;
        let since = |ns: Option<u64>| ns?.checked_sub(origin);
        let first = self.first_byte_ns();
        phases.set(Phase::DownstreamRequestFirstByte, since(first));
        phases.set(Phase::DownstreamRequestLastByte, since(self.header_ns()));
        phases.set(Phase::DownstreamRequestBodyLastByte, since(self.body_ns()));
        let response_first = nonzero(record.response_first_ns);
        phases.set(Phase::DownstreamResponseFirstByte, since(response_first));
        let response_last = self.response_last_ns();
        phases.set(Phase::DownstreamResponseLastByte, since(response_last));
        phases
    }

    /// One of `record.texts`; what is not UTF-8 becomes U+FFFD.
    pub fn text(&self, text: types::text) -> Option<Cow<'a, str>> {
        lossy(self.0.text(text))
    }

    /// nginx's end of the client's connection: from the kernel, or the path of the listener.
    pub fn server(&self) -> (Option<Cow<'a, str>>, Option<u16>) {
        let Some((addr, port)) = address(&self.0.record.local) else {
            let path = self.text(self.0.record.texts.local_path);
            return (path.map(|path| format!("unix:{path}").into()), None);
        };
        (Some(addr.to_string().into()), nonzero(port))
    }

    /// The other end of it, from the kernel, where nginx has taken the client for somebody else.
    pub fn peer(&self) -> Option<(IpAddr, Option<u16>)> {
        let remote = self.text(self.0.record.texts.remote_addr);
        let remote: Option<IpAddr> = remote.and_then(|remote| remote.parse().ok());
        address(&self.0.record.peer)
            .filter(|(addr, port)| remote != Some(*addr) || *port != self.0.record.remote_port)
            .map(|(addr, port)| (addr, nonzero(port)))
    }

    /// What the cache had for this request, by nginx's name.
    pub fn cache_status(&self) -> Option<&'static str> {
        let index = usize::from(self.0.record.cache_status).checked_sub(1)?;
        CACHE_STATUS.get(index).copied()
    }

    /// The keys whose texts are longer than what was kept, and `upstreams` when there were more.
    pub fn truncated(&self) -> Vec<&'static str> {
        let record = &self.0.record;
        let texts = [
            (record.texts.method, "request_method"),
            (record.texts.request_uri, "request_uri"),
            (record.texts.uri, "uri"),
            (record.texts.host, "http_host"),
            (record.texts.protocol, "server_protocol"),
            (record.texts.remote_addr, "remote_addr"),
            (record.texts.server_name, "ssl_server_name"),
        ];
        let mut names: Vec<_> = texts
            .into_iter()
            .filter(|(text, _)| text.is_cut())
            .map(|(_, name)| name)
            .collect();
        let last = self.0.attempts.last();
        if last.is_some_and(|last| last.record.addr_cut != 0) {
            names.push("upstream_addr");
        }
        if record.upstreams_seen as usize > self.0.attempts.len() {
            names.push("upstreams");
        }
        let is_cut = |sub: &SubrequestEvent<'_>| {
            sub.record.uri_cut != 0 || sub.record.upstreams_seen as usize > sub.attempts.len()
        };
        if usize::from(record.subrequests_seen) > self.0.subrequests.len()
            || self.0.subrequests.iter().any(is_cut)
        {
            names.push("subrequests");
        }
        names
    }
}

/// What a socket has at one end.
fn address(end: &types::address) -> Option<(IpAddr, u16)> {
    let [a, b, c, d, ..] = end.bytes;
    let addr = match end.family {
        AF_INET => Ipv4Addr::new(a, b, c, d).into(),
        AF_INET6 => Ipv6Addr::from(end.bytes).into(),
        _ => return None,
    };
    Some((addr, end.port))
}

/// Text of nginx's; `None` when there is none.
pub fn lossy(bytes: &[u8]) -> Option<Cow<'_, str>> {
    Some(String::from_utf8_lossy(bytes)).filter(|text| !text.is_empty())
}

/// What was seen: a moment, a status, a port. 0 is none of them.
pub fn nonzero<T: Default + PartialEq>(number: T) -> Option<T> {
    Some(number).filter(|number| *number != T::default())
}

#[cfg(test)]
pub mod tests {
    use super::Facts;
    use crate::bpf::types;
    use crate::decode::event::RequestEvent;
    use crate::record::phases::Phase;

    /// One request, read at 1,000 and answered at 5,000.
    pub fn event() -> RequestEvent<'static> {
        RequestEvent {
            record: types::request_record {
                response_first_ns: 4_000,
                response_last_ns: 5_000,
                ended_ns: 6_000,
                request_first_ns: 1_000,
                request_length: 100,
                content_length_n: -1,
                http_version: 1001,
                flags: types::request_flag::REQUEST_HEADER_COMPLETE.0,
                ..Default::default()
            },
            attempts: Vec::new(),
            subrequests: Vec::new(),
            texts: &[],
        }
    }

    /// A time of an event.
    fn time(event: &RequestEvent<'_>, phase: Phase) -> Option<u64> {
        Facts(event).downstream(0).get(phase)
    }

    /// Check that a header whose end came with a later read is timed by that read, and that one
    /// that nginx never saw complete is not timed.
    #[test]
    fn header_end() {
        let mut event = event();
        let header_end = |event: &_| time(event, Phase::DownstreamRequestLastByte);
        event.record.header_ns = 2_000;
        assert_eq!(header_end(&event), Some(2_000));
        event.record.flags = 0;
        assert_eq!(header_end(&event), None);
        event.record.http_version = 2000;
        event.record.status = 200;
        assert_eq!(header_end(&event), Some(2_000));
        event.record.status = 400;
        assert_eq!(header_end(&event), None);
    }

    /// Check that a pipelined request begins when the one before it has ended.
    #[test]
    fn pipelined() {
        let mut event = event();
        event.record.previous_ended_ns = 3_000;
        let first = time(&event, Phase::DownstreamRequestFirstByte);
        let last = time(&event, Phase::DownstreamRequestLastByte);
        assert_eq!((first, last), (Some(1_000), Some(3_000)));
    }

    /// Check that the end of a body is reported after the header's, and only when it is known.
    #[test]
    fn body_end() {
        let mut event = event();
        let body_end = |event: &_| time(event, Phase::DownstreamRequestBodyLastByte);
        assert_eq!(body_end(&event), None);
        event.record.flags |= types::request_flag::REQUEST_BODY.0;
        assert!(Facts(&event).is_body_unknown());
        event.record.body_ns = 3_000;
        assert_eq!(body_end(&event), Some(3_000));
        assert!(!Facts(&event).is_body_unknown());
        event.record.previous_ended_ns = 3_500;
        assert_eq!(body_end(&event), Some(3_500));
        event.record.status = 400;
        assert_eq!(body_end(&event), Some(3_500));
        event.record.http_version = 2000;
        assert_eq!(body_end(&event), None);
    }

    /// Check that the time in the queue is what the request before it took, and only where it waited.
    #[test]
    fn queue() {
        let mut event = event();
        for (previous, queue) in [(0, None), (900, None), (1_000, None), (3_000, Some(2_000))] {
            event.record.previous_ended_ns = previous;
            assert_eq!(Facts(&event).queue_ns(), queue);
        }
    }

    /// Check which requests become tunnels, and that what is sent through them is no response.
    #[test]
    fn tunnels() {
        for (method, status, is_tunnel) in [
            ("GET", 101, true),
            ("GET", 200, false),
            ("CONNECT", 200, true),
            ("CONNECT", 204, true),
            ("CONNECT", 405, false),
            ("CONNECT", 502, false),
        ] {
            let mut event = event();
            event.record.status = status;
            event.texts = method.as_bytes();
            event.record.texts.method.len = u16::try_from(method.len()).unwrap();
            let facts = Facts(&event);
            assert_eq!(facts.is_tunnel(), is_tunnel, "{method} {status}");
            assert_eq!(facts.tunnel_ns(), is_tunnel.then_some(2_000));
            let last = if is_tunnel { 4_000 } else { 5_000 };
            assert_eq!(facts.response_last_ns(), Some(last));
            assert_eq!(facts.elapsed_ns(), Some(5_000));
            event.record.flags |= types::request_flag::REQUEST_ADOPTED.0;
            assert_eq!(Facts(&event).tunnel_ns(), None);
        }
    }

    /// Check that a length that nginx itself has counted wrong is not reported.
    #[test]
    fn negative_length() {
        let mut event = event();
        assert_eq!(Facts(&event).request_size(), Some(100));
        event.record.request_length = -1;
        assert_eq!(Facts(&event).request_size(), None);
    }

    /// Check that the handshake is told of the first request behind it only.
    #[test]
    fn handshake() {
        let mut event = event();
        event.record.handshake_first_ns = 600;
        event.record.handshake_last_ns = 900;
        event.record.connection_requests = 1;
        assert_eq!(Facts(&event).tls_handshake_ns(), Some(300));
        event.record.connection_requests = 2;
        assert_eq!(Facts(&event).tls_handshake_ns(), None);
    }

    /// Check the addresses of both ends: of a family that is known, and the client's only where
    /// nginx has another one.
    #[test]
    fn ends() {
        let mut event = event();
        assert_eq!(Facts(&event).server(), (None, None));
        event.record.local = types::address {
            family: libc::AF_INET as u16,
            port: 80,
            ..Default::default()
        };
        event.record.local.bytes[..4].copy_from_slice(&[127, 0, 0, 1]);
        let (addr, port) = Facts(&event).server();
        assert_eq!((addr.as_deref(), port), (Some("127.0.0.1"), Some(80)));
        event.record.local.port = 0;
        assert_eq!(Facts(&event).server().1, None);
        event.record.local.port = 80;
        event.record.peer = event.record.local;
        event.record.remote_port = 80;
        event.texts = b"127.0.0.1/run/x";
        event.record.texts.remote_addr = types::text { at: 0, len: 9 };
        assert_eq!(Facts(&event).peer(), None);
        event.record.remote_port = 81;
        assert!(Facts(&event).peer().is_some());
        event.record.texts.local_path = types::text { at: 9, len: 6 };
        event.record.local.family = libc::AF_UNIX as u16;
        let (addr, port) = Facts(&event).server();
        assert_eq!((addr.as_deref(), port), (Some("unix:/run/x"), None));
    }
}
