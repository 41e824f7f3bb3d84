// SPDX-License-Identifier: MIT OR Apache-2.0
//! What nginx does with a request.

use std::borrow::Cow;

use nginx_binary::pauses::PausePlaces;
use ngx_bpf_record::limits;
use ngx_bpf_record::values::State;

use super::pause::Pause;
use super::pause::pause;
use super::reader::CONNECTION;
use super::reader::REQUEST;
use super::reader::StructReader;

/// `c->buffered`: `ngx_http_write_filter()` has bytes that the client does not take.
const WRITE_BUFFERED: u32 = 0x10;

/// The same of a connection with TLS: the last bytes, which nginx has in a buffer of its own (`ngx_ssl_send_chain()`).
const SSL_BUFFERED: u32 = 0x01;

/// The same of a stream of HTTP/2: frames of it wait to be sent.
const V2_BUFFERED: u32 = 0x02;

/// The bit `delayed` of an event: `limit_rate` makes nginx wait.
const EVENT_DELAYED: u32 = 0x1000;

/// nginx's value for a time that is not known yet: `NGX_MSEC_UNSET`.
const MSEC_UNSET: u64 = u64::MAX;

/// Where the bits `buffering`, `keepalive` and `upgrade` are in the word that begins with `u->store`: after the
/// bits of the cache, where nginx has one.
const STORE_BITS: u32 = 7;
const STORE_BITS_NO_CACHE: u32 = 4;

const UPSTREAM: &str = "ngx_http_upstream_s";
const STATE: &str = "ngx_http_upstream_state_t";

/// A request, and the connections to upstreams that work for it or for its subrequests.
#[derive(Default)]
pub struct Found {
    /// The addresses of requests, and of the `ngx_connection_t` that have them.
    pub upstreams: Vec<(u64, u64)>,
}

/// A state, and the address of the upstream that it is about.
type StateOfUpstream = (State, Option<Cow<'static, str>>);

impl Found {
    /// Returns the state of the request `r`, whose connection or stream is `c`. `None` when it is not certain.
    pub fn state(
        &self,
        reader: StructReader<'_>,
        pauses: &PausePlaces,
        r: u64,
        c: u64,
    ) -> Option<StateOfUpstream> {
        let handler = reader.word(r, (REQUEST, "write_event_handler"))?;
        if handler == 0 {
            return Some((State::ReadingHeader, None));
        }
        match pause(reader, pauses, r, handler) {
            Some(Pause::LimitReq) => return Some((State::LimitReqDelay, None)),
            Some(Pause::Auth) => return Some((State::Auth, self.addr_of_subrequest(reader, r))),
            None => {}
        }
        let of_main = self.upstreams.iter().find(|(request, _)| *request == r);
        let upstream = of_main.or(self.upstreams.first());
        let upstream = upstream.and_then(|(request, _)| of_upstream(reader, *request));
        if matches!(upstream, Some((State::Tunnel, _))) {
            return upstream;
        }
        if is_sending(reader, r, c)? {
            return Some((State::Sending, None));
        }
        upstream.or_else(|| is_reading_body(reader, r).then_some((State::ReadingBody, None)))
    }

    /// Returns the address of the upstream that works for a subrequest of `r`. `None` when there is none, or more
    /// than one.
    fn addr_of_subrequest(&self, reader: StructReader<'_>, r: u64) -> Option<Cow<'static, str>> {
        let mut upstreams = self.upstreams.iter();
        let (subrequest, _) = upstreams.next().filter(|(request, _)| *request != r)?;
        let only = upstreams.next().is_none();
        let (_, addr) = of_upstream(reader, *subrequest).filter(|_| only)?;
        addr
    }
}

/// Returns whether the client, and not `limit_rate`, keeps nginx from sending. `None` when that could not be read.
fn is_sending(reader: StructReader<'_>, r: u64, c: u64) -> Option<bool> {
    let stream = reader.pointer(r, (REQUEST, "stream"));
    let of_connection = if stream.is_some() {
        V2_BUFFERED
    } else {
        SSL_BUFFERED
    };
    let has_bytes =
        reader.half(c, (CONNECTION, "buffered"))? & (WRITE_BUFFERED | of_connection) != 0;
    let event = reader.pointer(c, (CONNECTION, "write"))?;
    let is_delayed = reader.half(event, ("ngx_event_s", "write"))? & EVENT_DELAYED != 0;
    Some(has_bytes && !is_delayed)
}

/// Returns whether nginx has not read the whole body.
fn is_reading_body(reader: StructReader<'_>, r: u64) -> bool {
    let body = reader.pointer(r, (REQUEST, "request_body"));
    let rest = body.and_then(|body| reader.word(body, ("ngx_http_request_body_t", "rest")));
    rest.is_some_and(|rest| rest.cast_signed() > 0)
}

/// Returns how far the last attempt of a request has come that has a connection to an upstream.
fn of_upstream(reader: StructReader<'_>, r: u64) -> Option<StateOfUpstream> {
    let u = reader.pointer(r, (REQUEST, "upstream"))?;
    let store = reader.half(u, (UPSTREAM, "store"))?;
    let has_cache = reader.layout.offset(UPSTREAM, "cache_status").is_some();
    let bits = UpstreamBits::of(store, has_cache);
    let states = reader.pointer(r, (REQUEST, "upstream_states"))?;
    let count = reader
        .word(states, ("ngx_array_t", "nelts"))?
        .checked_sub(1)?;
    let size = reader.word(states, ("ngx_array_t", "size"))?;
    let first = reader.pointer(states, ("ngx_array_t", "elts"))?;
    let last = first.checked_add(count.checked_mul(size)?)?;
    let has_header = reader.word(last, (STATE, "header_time"))? != MSEC_UNSET;
    let peer = reader.pointer(last, (STATE, "peer"));
    let addr = peer.and_then(|peer| reader.text(peer, limits::ADDR_MAX));
    let state = match () {
        () if bits.is_upgraded => State::Tunnel,
        () if has_header => State::Receiving,
        () if bits.is_body_sent => State::Waiting,
        () if bits.is_request_sent => State::SendingRequest,
        () => State::Connecting,
    };
    Some((state, addr))
}

/// Bits of the word that begins with `u->store`, by the rule of `upstream_bits()` in bpf/outcome.bpf.h.
#[derive(Debug, PartialEq, Eq)]
struct UpstreamBits {
    is_upgraded: bool,
    is_request_sent: bool,
    is_body_sent: bool,
}

impl UpstreamBits {
    /// Since 1.19.1 the bit `error` comes before `request_sent`. `request_sent` is set when anything was sent, and
    /// `error` is not set before the header was sent to the client: so the values show which of the two the first
    /// bit is.
    fn of(store: u32, has_cache: bool) -> Self {
        let bits = store
            >> if has_cache {
                STORE_BITS
            } else {
                STORE_BITS_NO_CACHE
            };
        let rest = bits >> 3;
        let sent = if rest & 1 == 0 || rest & 16 != 0 {
            rest >> 1
        } else {
            rest
        };
        Self {
            is_upgraded: bits & 4 != 0,
            is_request_sent: sent & 1 != 0,
            is_body_sent: sent & 2 != 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::STORE_BITS;
    use super::STORE_BITS_NO_CACHE;
    use super::UpstreamBits;

    /// Check that BPF looks for the bits at the same places.
    #[test]
    fn same_places_as_in_bpf() {
        let header = include_str!("../../../nginx_headers/nginx.h");
        for (name, place) in [
            ("NGX_HTTP_UPSTREAM_BUFFERING_BIT", STORE_BITS),
            (
                "NGX_HTTP_UPSTREAM_BUFFERING_BIT_NO_CACHE",
                STORE_BITS_NO_CACHE,
            ),
        ] {
            let definition = ["#define", name, &place.to_string()];
            let mut lines = header.lines();
            assert!(
                lines.any(|line| line.split_whitespace().eq(definition)),
                "{name}"
            );
        }
    }

    /// Check the bits of both orders, with and without a cache.
    #[test]
    fn upstream_bits() {
        for (rest, is_request_sent, is_body_sent) in [
            (0b00000, false, false),
            (0b00010, true, false), /* since 1.19.1: error, request_sent, request_body_sent, … */
            (0b00110, true, true),
            (0b11111, true, true),
            (0b00001, true, false), /* before: request_sent, request_body_sent, … */
            (0b00011, true, true),
        ] {
            for (has_cache, at) in [(true, 7), (false, 4)] {
                for is_upgraded in [false, true] {
                    let bits = rest << 3 | u32::from(is_upgraded) << 2 | 3;
                    let expected = UpstreamBits {
                        is_upgraded,
                        is_request_sent,
                        is_body_sent,
                    };
                    assert_eq!(
                        UpstreamBits::of(bits << at, has_cache),
                        expected,
                        "{rest:b}"
                    );
                }
            }
        }
    }
}
