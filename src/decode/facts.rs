// SPDX-License-Identifier: MIT OR Apache-2.0
//! Interprets the numbers of a request record: who the client is, what it asked for, and what is not
//! certain. `times.rs` does the same for its times; `request.rs` gives the answers their public names.

use std::borrow::Cow;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;

use ngx_bpf_record::values::Alpn;
use ngx_bpf_record::values::CacheStatus;
use ngx_bpf_record::values::Cut;
use ngx_bpf_record::values::Scheme;
use ngx_bpf_record::values::SslProtocol;

use crate::bpf::types;
use crate::bpf::types::request_flag;
use crate::decode::nonzero;
use crate::decode::trace_context::TraceContext;
use crate::decode::wire::RequestEvent;
use crate::decode::wire::SubrequestEvent;

/// `r->http_version` of HTTP/2.
pub const HTTP_VERSION_20: u32 = 2000;

/// `r->http_version` of HTTP/3.
pub const HTTP_VERSION_30: u32 = 3000;

/// A socket of IPv4.
const AF_INET: u16 = libc::AF_INET as u16;

/// A socket of IPv6.
const AF_INET6: u16 = libc::AF_INET6 as u16;

/// Interprets one decoded record; each method answers one question.
pub struct Facts<'e, 'a>(pub &'e RequestEvent<'a>);

impl<'a> Facts<'_, 'a> {
    /// Returns whether a flag of wire.h is set.
    pub fn has(&self, flag: request_flag) -> bool {
        self.0.record.flags & flag.0 != 0
    }

    /// Returns whether some of this request may have passed before tracing began.
    pub fn is_partial(&self) -> bool {
        /* Of HTTP/3 the read of a stream that was seen from its begin is not always certain. */
        let is_read =
            self.0.record.request_first_ns != 0 || self.0.record.http_version == HTTP_VERSION_30;
        self.has(request_flag::REQUEST_UNTRACED)
            || self.has(request_flag::REQUEST_ADOPTED)
            || !is_read
    }

    /// `$request_length`. nginx itself counts too little where it discards a chunked body after
    /// which another request has come, and then it may be negative.
    pub fn request_size(&self) -> Option<i64> {
        Some(self.0.record.request_length).filter(|length| *length >= 0)
    }

    /// The trace that the request belongs to, as its client says.
    pub fn trace_context(&self) -> Option<TraceContext<'a>> {
        TraceContext::parse(self.0.texts.traceparent.bytes)
    }

    /// `$scheme`
    pub fn scheme(&self) -> Scheme {
        let is_tls = self.has(request_flag::REQUEST_TLS);
        if is_tls || self.0.record.http_version == HTTP_VERSION_30 {
            Scheme::Https
        } else {
            Scheme::Http
        }
    }

    /// The protocol that was negotiated in the TLS handshake, where the request itself shows it: HTTP/2
    /// and HTTP/3 come no other way.
    pub fn alpn(&self) -> Option<Alpn> {
        match self.0.record.http_version {
            HTTP_VERSION_20 if self.has(request_flag::REQUEST_TLS) => Some(Alpn::H2),
            HTTP_VERSION_30 => Some(Alpn::H3),
            _ => None,
        }
    }

    /// The version of TLS, where the request itself shows it: QUIC has one only.
    pub fn ssl_protocol(&self) -> Option<SslProtocol> {
        (self.0.record.http_version == HTTP_VERSION_30).then_some(SslProtocol::Tls13)
    }

    /// nginx's end of the client's connection: from the kernel, or the path of the listener.
    pub fn server(&self) -> (Option<Cow<'a, str>>, Option<u16>) {
        let Some((addr, port)) = address(&self.0.record.local) else {
            let path = self.0.texts.local_path.lossy();
            return (path.map(|path| format!("unix:{path}").into()), None);
        };
        (Some(addr.to_string().into()), nonzero(port))
    }

    /// The other end of it, from the kernel, where nginx has taken the client for somebody else.
    pub fn peer(&self) -> Option<(IpAddr, Option<u16>)> {
        let remote = self.0.texts.remote_addr.lossy();
        let remote: Option<IpAddr> = remote.and_then(|remote| remote.parse().ok());
        address(&self.0.record.peer)
            .filter(|(addr, port)| remote != Some(*addr) || *port != self.0.record.remote_port)
            .map(|(addr, port)| (addr, nonzero(port)))
    }

    /// What the cache had for this request. nginx counts from 1.
    pub fn cache_status(&self) -> Option<CacheStatus> {
        let index = usize::from(self.0.record.cache_status).checked_sub(1)?;
        CacheStatus::ALL.get(index).copied()
    }

    /// The keys of which the record has less than there was.
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
        ];
        let cut = texts.into_iter().filter(|(text, _)| text.is_cut);
        let mut truncated: Vec<Cut> = cut.map(|(_, cut)| cut).collect();
        let last = self.0.attempts.last();
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

#[cfg(test)]
pub mod tests {
    use super::Facts;
    use crate::bpf::types;
    use crate::decode::wire::RequestEvent;
    use crate::decode::wire::Text;
    use crate::decode::wire::Texts;

    /// A text that is all there.
    pub fn text(text: &str) -> Text<'_> {
        Text {
            bytes: text.as_bytes(),
            is_cut: false,
        }
    }

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
            texts: Texts::default(),
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
        event.texts.remote_addr = text("127.0.0.1");
        assert_eq!(Facts(&event).peer(), None);
        event.record.remote_port = 81;
        assert!(Facts(&event).peer().is_some());
        event.texts.local_path = text("/run/x");
        event.record.local.family = libc::AF_UNIX as u16;
        let (addr, port) = Facts(&event).server();
        assert_eq!((addr.as_deref(), port), (Some("unix:/run/x"), None));
    }
}
