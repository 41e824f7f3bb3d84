// SPDX-License-Identifier: MIT OR Apache-2.0
//! Interprets the numbers of a request record: the addresses, the request of the client, and the
//! values that are not certain. `times.rs` interprets its times; `request.rs` gives the results
//! their public names.

use std::borrow::Cow;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;

use ngx_bpf_record::limits;
use ngx_bpf_record::values::Alpn;
use ngx_bpf_record::values::CacheStatus;
use ngx_bpf_record::values::Cut;
use ngx_bpf_record::values::Scheme;
use ngx_bpf_record::values::SslProtocol;

use crate::bpf::types;
use crate::bpf::types::request_flag;
use crate::decode::nonzero;
use crate::decode::texts::WireText;
use crate::decode::trace_context::TraceContext;
use crate::decode::wire::AttemptEvent;
use crate::decode::wire::RequestEvent;
use crate::decode::wire::SubrequestEvent;

/// `r->http_version` of HTTP/2.
pub const HTTP_VERSION_20: u32 = 2000;

/// `r->http_version` of HTTP/3.
pub const HTTP_VERSION_30: u32 = 3000;

/// The address family of IPv4.
const AF_INET: u16 = libc::AF_INET as u16;

/// The address family of IPv6.
const AF_INET6: u16 = libc::AF_INET6 as u16;

/// The interpretation of one decoded record. Each method returns one property.
pub struct Facts<'e, 'a>(pub &'e RequestEvent<'a>);

impl<'a> Facts<'_, 'a> {
    /// Returns whether a flag of wire.h is set.
    pub fn has(&self, flag: request_flag) -> bool {
        self.0.record.flags & flag.0 != 0
    }

    /// Returns whether some of this request may have passed before tracing began.
    pub fn is_partial(&self) -> bool {
        /* For HTTP/3 the time of the first read may be unknown although the stream was seen from its start. */
        let is_read =
            self.0.record.request_first_ns != 0 || self.0.record.http_version == HTTP_VERSION_30;
        self.has(request_flag::REQUEST_UNTRACED)
            || self.has(request_flag::REQUEST_ADOPTED)
            || !is_read
    }

    /// Returns `$server_protocol`. That of HTTP/2 is a constant (`ngx_http_v2_create_stream()`).
    pub fn server_protocol(&self) -> Option<Cow<'a, str>> {
        match self.0.record.http_version {
            HTTP_VERSION_20 => Some("HTTP/2.0".into()),
            _ => self.0.texts.protocol.lossy(),
        }
    }

    /// Returns `$request_length`. nginx counts too little when it discards a chunked body that is
    /// followed by another request; the number may then be negative, and is `None` here.
    pub fn request_size(&self) -> Option<i64> {
        Some(self.0.record.request_length).filter(|length| *length >= 0)
    }

    /// Returns the number of internal redirects. `None` when there was none, or when nginx does not count that far.
    pub fn redirects(&self) -> Option<u8> {
        let count = u8::try_from(self.0.record.redirects).ok()?;
        Some(count).filter(|count| (1..=limits::REDIRECTS_MAX).contains(count))
    }

    /// Returns the trace that the request belongs to, as its client states it.
    pub fn trace_context(&self) -> Option<TraceContext<'a>> {
        TraceContext::parse(self.0.texts.traceparent.bytes)
    }

    /// Returns `$scheme`.
    pub fn scheme(&self) -> Scheme {
        let is_tls = self.has(request_flag::REQUEST_TLS);
        if is_tls || self.0.record.http_version == HTTP_VERSION_30 {
            Scheme::Https
        } else {
            Scheme::Http
        }
    }

    /// Returns the protocol that was negotiated in the TLS handshake, if the request itself shows
    /// it: HTTP/2 over TLS and HTTP/3 are always negotiated.
    pub fn alpn(&self) -> Option<Alpn> {
        match self.0.record.http_version {
            HTTP_VERSION_20 if self.has(request_flag::REQUEST_TLS) => Some(Alpn::H2),
            HTTP_VERSION_30 => Some(Alpn::H3),
            _ => None,
        }
    }

    /// Returns the version of TLS, if the request itself shows it: QUIC has only one.
    pub fn ssl_protocol(&self) -> Option<SslProtocol> {
        (self.0.record.http_version == HTTP_VERSION_30).then_some(SslProtocol::Tls13)
    }

    /// Returns nginx's end of the client's connection: from the kernel, or the path of the
    /// listener.
    pub fn server(&self) -> (Option<Cow<'a, str>>, Option<u16>) {
        let Some((addr, port)) = address(&self.0.record.local) else {
            let path = self.0.texts.local_path.lossy();
            return (path.map(|path| format!("unix:{path}").into()), None);
        };
        (Some(addr.to_string().into()), nonzero(port))
    }

    /// Returns the client's address, as realip has set it.
    pub fn remote(&self) -> (Option<Cow<'a, str>>, Option<u16>) {
        let port = nonzero(self.0.record.remote_port);
        if !self.has(request_flag::REQUEST_OF_PEER) {
            return (self.0.texts.remote_addr.lossy(), port);
        }
        let addr = address(&self.0.record.peer).map(|(addr, _)| addr.to_string().into());
        (addr, port)
    }

    /// Returns the client's end of the connection as the kernel knows it, if nginx has replaced the
    /// client's address by another one.
    pub fn peer(&self) -> Option<(IpAddr, Option<u16>)> {
        if self.has(request_flag::REQUEST_OF_PEER) {
            return None;
        }
        let remote = self.0.texts.remote_addr.lossy();
        let remote: Option<IpAddr> = remote.and_then(|remote| remote.parse().ok());
        address(&self.0.record.peer)
            .filter(|(addr, port)| remote != Some(*addr) || *port != self.0.record.remote_port)
            .map(|(addr, port)| (addr, nonzero(port)))
    }

    /// Returns the cache status of the request. nginx counts from 1.
    pub fn cache_status(&self) -> Option<CacheStatus> {
        let index = usize::from(self.0.record.cache_status).checked_sub(1)?;
        CacheStatus::ALL.get(index).copied()
    }

    /// Returns the last attempt that the client waited for, as `Request::last_awaited()` does.
    pub fn last_awaited(&self) -> Option<&AttemptEvent<'a>> {
        let answered_ns = self.answered_ns();
        let attempts = self.0.attempts.iter().rev();
        attempts
            .filter(|attempt| attempt.was_tried())
            .find(|attempt| !attempt.is_after(answered_ns))
    }

    /// Returns the keys whose values were cut in the record.
    pub fn truncated(&self) -> Vec<Cut> {
        let (record, texts) = (&self.0.record, &self.0.texts);
        let texts = [
            (texts.method, Cut::RequestMethod),
            (texts.request_uri, Cut::RequestUri),
            (texts.uri, Cut::Uri),
            (texts.host, Cut::HttpHost),
            (texts.protocol, Cut::ServerProtocol),
            (texts.remote_addr, Cut::RemoteAddr),
            (texts.server_name, Cut::SslServerName),
            (texts.resolved, Cut::UpstreamName),
        ];
        let is_cut = |text: WireText<'_>| text.is_cut && !text.bytes.is_empty();
        let cut = texts.into_iter().filter(|(text, _)| is_cut(*text));
        let mut truncated: Vec<Cut> = cut.map(|(_, cut)| cut).collect();
        let last = self.last_awaited();
        if last.is_some_and(|last| last.record.addr_cut != 0) {
            truncated.push(Cut::UpstreamAddr);
        }
        if record.upstreams_seen as usize > self.0.attempts.len() {
            truncated.push(Cut::Upstreams);
        }
        let is_cut = |sub: &SubrequestEvent<'_>| {
            sub.record.uri_cut != 0 || sub.record.upstreams_seen as usize > sub.attempts.len()
        };
        if usize::from(record.subrequests_seen) > self.0.subrequests.len()
            || self.0.subrequests.iter().any(is_cut)
        {
            truncated.push(Cut::Subrequests);
        }
        truncated
    }
}

/// Returns the address and port of one end of a socket.
pub fn address(end: &types::address) -> Option<(IpAddr, u16)> {
    let [a, b, c, d, ..] = end.bytes;
    let addr = match end.family {
        AF_INET => Ipv4Addr::new(a, b, c, d).into(),
        AF_INET6 => Ipv6Addr::from(end.bytes).into(),
        _ => return None,
    };
    Some((addr, end.port))
}

#[cfg(test)]
pub mod tests {
    use super::Facts;
    use crate::bpf::types;
    use crate::bpf::types::request_flag;
    use crate::decode::examples::text;
    use crate::decode::texts::Texts;
    use crate::decode::wire::RequestEvent;

    /// Returns one request, read at 1,000 ns and answered at 5,000 ns.
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
            texts: Texts::default(),
        }
    }

    /// Check that a length that nginx has counted wrong is not reported.
    #[test]
    fn negative_length() {
        let mut event = event();
        assert_eq!(Facts(&event).request_size(), Some(100));
        event.record.request_length = -1;
        assert_eq!(Facts(&event).request_size(), None);
    }

    /// Check that a number of redirects that nginx does not count to is not reported: its field of four bits has
    /// 12 to 15 where BPF counts below 0.
    #[test]
    fn redirects() {
        let mut event = event();
        for (count, expected) in [
            (0, None),
            (1, Some(1)),
            (11, Some(11)),
            (12, None),
            (11_u32.wrapping_sub(12), None),
            (11_u32.wrapping_sub(15), None),
            (256 + 3, None),
        ] {
            event.record.redirects = count;
            assert_eq!(Facts(&event).redirects(), expected, "{count}");
        }
    }

    /// Check the addresses of both ends: none for an unknown family, and the client's only where
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
        event.texts.remote_addr = text("127.0.0.1");
        assert_eq!(Facts(&event).peer(), None);
        event.record.remote_port = 81;
        assert!(Facts(&event).peer().is_some());
        event.record.flags |= request_flag::REQUEST_OF_PEER.0;
        let (addr, port) = Facts(&event).remote();
        assert_eq!((addr.as_deref(), port), (Some("127.0.0.1"), Some(81)));
        assert_eq!(Facts(&event).peer(), None);
        event.texts.local_path = text("/run/x");
        event.record.local.family = libc::AF_UNIX as u16;
        let (addr, port) = Facts(&event).server();
        assert_eq!((addr.as_deref(), port), (Some("unix:/run/x"), None));
    }
}
