// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the numbers of an event say of its request: which bytes are whose, when each came, and what
//! is not certain. `request.rs` gives the answers their public names.

use std::borrow::Cow;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;

use crate::event::RequestEvent;
use crate::phases::Phase;
use crate::phases::Phases;
use crate::skel::types;
use crate::skel::types::request_flag;
use crate::skel::types::request_text;

/// `r->http_version` of HTTP/0.9.
const HTTP_VERSION_9: u32 = 9;

/// `r->http_version` of HTTP/2.
const HTTP_VERSION_20: u32 = 2000;

/// So many of the reads that a record tells of are the first ones; the others are the latest.
const READS_FIRST: usize = types::limit::READS_MAX.0 as usize / 2;

/// A socket of IPv4.
const AF_INET: u16 = libc::AF_INET as u16;

/// A socket of IPv6.
const AF_INET6: u16 = libc::AF_INET6 as u16;

/// What an event's numbers say, each question by itself.
pub struct Facts<'e, 'a>(pub &'e RequestEvent<'a>);

impl<'a> Facts<'_, 'a> {
    /// Whether a flag of wire.h is set.
    pub fn has(&self, flag: request_flag) -> bool {
        self.0.record.flags & flag.0 != 0
    }

    /// Whether the socket's bytes are this request's, one after the other, in plain.
    fn is_plain_http1(&self) -> bool {
        !self.has(request_flag::REQUEST_TLS) && self.0.record.http_version < HTTP_VERSION_20
    }

    /// Whether some of this request may have passed before tracing began. On a connection that
    /// was there before, a request whose bytes were all seen has as many as nginx counted.
    pub fn is_partial(&self) -> bool {
        let record = &self.0.record;
        if record.http_version >= HTTP_VERSION_20 {
            return false;
        }
        let consumed = record.received.checked_sub(record.unread);
        let seen = self.is_plain_http1() && consumed == u64::try_from(record.request_length).ok();
        self.has(request_flag::REQUEST_UNTRACED)
            || (self.has(request_flag::REQUEST_ADOPTED) && !seen)
    }

    /// Whether the times of the client's socket are this request's.
    fn has_downstream_times(&self) -> bool {
        self.is_plain_http1() && !self.is_partial()
    }

    /// When the request's first byte was read: what was read since it begins there.
    pub fn first_byte_ns(&self) -> Option<u64> {
        if !self.has_downstream_times() {
            return None;
        }
        let record = &self.0.record;
        let proxied = self.has(request_flag::REQUEST_PROXY_PROTOCOL);
        if proxied && record.connection_requests == 1 {
            /* A PROXY protocol header came before it: the request is what ends the header. */
            let (index, end) = self.header_end()?;
            let length = u64::try_from(record.request_length).ok()?;
            let first = self.read_of(end.checked_sub(length)?)?;
            return Some(first).filter(|first| *first <= self.0.reads[index].at_ns);
        }
        Some(self.0.reads.first()?.at_ns)
    }

    /// When the header was complete and nginx could start on it: a pipelined request waits for
    /// the end of the one before.
    fn header_ns(&self) -> Option<u64> {
        let record = &self.0.record;
        let complete = record.header_read_ns != 0
            || self.has(request_flag::REQUEST_UPSTREAM)
            || self.has(request_flag::REQUEST_HEADER_COMPLETE)
            || record.content_length_n >= 0
            || record.http_version == HTTP_VERSION_9;
        if !self.has_downstream_times() || !complete || record.request_length == 0 {
            return None;
        }
        let read = match nonzero(record.header_read_ns) {
            Some(read) => read,
            None if record.content_length_n < 0 => {
                let (index, _) = self.header_end()?;
                self.0.reads[index].at_ns
            }
            None => {
                /* A body that nginx discards is not in $request_length. */
                let length = u64::try_from(record.request_length).ok()?;
                self.read_of(record.start.checked_add(length)?.checked_sub(1)?)?
            }
        };
        Some(read.max(record.previous_ended_ns))
    }

    /// Of a request without a body: the read that brought the header's end, and the position
    /// behind it. nginx reads nothing more before it answers.
    fn header_end(&self) -> Option<(usize, u64)> {
        let record = &self.0.record;
        if record.header_read_ns != 0 || record.content_length_n >= 0 {
            return None;
        }
        let answered = nonzero(record.response_first_ns).unwrap_or(u64::MAX);
        let reads = &self.0.reads;
        let index = reads.iter().rposition(|read| read.at_ns <= answered)?;
        let is_last = index + 1 == reads.len();
        let end = if is_last {
            record.received.checked_sub(record.unread)?
        } else {
            reads[index].end
        };
        Some((index, end)).filter(|_| is_last || !self.is_before_gap(index))
    }

    /// When the byte at this position was read. `None` when it is among reads that were not kept.
    fn read_of(&self, position: u64) -> Option<u64> {
        let reads = &self.0.reads;
        let index = reads.iter().position(|read| read.end > position)?;
        let is_behind_gap = index > 0 && self.is_before_gap(index - 1);
        Some(reads[index].at_ns).filter(|_| !is_behind_gap)
    }

    /// Whether reads that were not kept follow this one.
    fn is_before_gap(&self, index: usize) -> bool {
        let has_gap = self.0.record.reads_seen as usize > self.0.reads.len();
        has_gap && index + 1 == READS_FIRST
    }

    /// The client's side of the phases.
    pub fn downstream(&self, origin: u64) -> Phases {
        let mut phases = Phases::default();
        if !self.has_downstream_times() {
            return phases;
        }
        let record = &self.0.record;
        let since = |ns: Option<u64>| ns?.checked_sub(origin);
        let first = self.first_byte_ns();
        phases.set(Phase::DownstreamRequestFirstByte, since(first));
        phases.set(Phase::DownstreamRequestLastByte, since(self.header_ns()));
        let response_first = nonzero(record.response_first_ns);
        phases.set(Phase::DownstreamResponseFirstByte, since(response_first));
        let response_last = nonzero(record.response_last_ns);
        phases.set(Phase::DownstreamResponseLastByte, since(response_last));
        phases
    }

    /// One of the texts; what is not UTF-8 becomes U+FFFD.
    pub fn text(&self, text: request_text) -> Option<Cow<'a, str>> {
        lossy(self.0.texts[text.0 as usize])
    }

    /// nginx's end of the client's connection: from the kernel, or the path of the listener.
    pub fn server(&self) -> (Option<Cow<'a, str>>, Option<u16>) {
        let local = &self.0.record.local;
        let [a, b, c, d, ..] = local.bytes;
        let addr = match local.family {
            AF_INET => Ipv4Addr::new(a, b, c, d).to_string(),
            AF_INET6 => Ipv6Addr::from(local.bytes).to_string(),
            _ => {
                let path = self.text(request_text::TEXT_LOCAL_PATH);
                return (path.map(|path| format!("unix:{path}").into()), None);
            }
        };
        (Some(addr.into()), Some(local.port))
    }

    /// The keys whose texts are longer than what was kept, and `upstreams` when there were more.
    pub fn truncated(&self) -> Vec<&'static str> {
        let record = &self.0.record;
        let texts = [
            (request_text::TEXT_METHOD, "request_method"),
            (request_text::TEXT_REQUEST_URI, "request_uri"),
            (request_text::TEXT_URI, "uri"),
            (request_text::TEXT_HOST, "http_host"),
            (request_text::TEXT_PROTOCOL, "server_protocol"),
            (request_text::TEXT_REMOTE_ADDR, "remote_addr"),
        ];
        let mut names: Vec<_> = texts
            .into_iter()
            .filter(|(text, _)| record.text_cut & (1 << text.0) != 0)
            .map(|(_, name)| name)
            .collect();
        if self
            .0
            .attempts
            .last()
            .is_some_and(|last| last.record.addr_cut != 0)
        {
            names.push("upstream_addr");
        }
        if record.upstreams_seen as usize > self.0.attempts.len() {
            names.push("upstreams");
        }
        names
    }
}

/// Text of nginx's; `None` when there is none.
pub fn lossy(bytes: &[u8]) -> Option<Cow<'_, str>> {
    Some(String::from_utf8_lossy(bytes)).filter(|text| !text.is_empty())
}

/// A moment that was seen.
pub fn nonzero(ns: u64) -> Option<u64> {
    Some(ns).filter(|ns| *ns != 0)
}
