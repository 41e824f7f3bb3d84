// SPDX-License-Identifier: MIT OR Apache-2.0
//! The spans of attempts at upstreams.

use std::io;

use super::attributes::Attributes;
use super::span;
use super::span::Kind;
use super::tree::Clock;
use super::tree::Interval;
use super::tree::Tree;
use crate::attempt::Attempt;
use crate::format::conventions::Value;
use crate::format::conventions::add_address;
use crate::format::conventions::add_method;
use crate::format::flat::flatten_some;
use crate::host::host_and_port;
use crate::host::without_brackets;
use crate::request::Request;
use crate::subrequest::Subrequest;
use crate::values::Cut;
use crate::values::Failure;

/// The lowest status that is an error for a client.
const CLIENT_ERROR: u32 = 400;

/// The attempts of a request or of a subrequest, in order.
pub(super) struct Series<'r, 'a> {
    attempts: &'r [Attempt<'a>],
    /// The method. `None` when it is not known.
    method: Option<&'r str>,
    /// When the client had the first byte of the response, in nanoseconds since 1970.
    answered: Option<u64>,
    /// How long the first bytes of the last response that the client waited for lay in the socket.
    read_wait: Option<u64>,
    /// Whether there were more attempts than the record has.
    is_cut: bool,
}

impl<'r, 'a> Series<'r, 'a> {
    /// Returns those of a request.
    pub fn new(request: &'r Request<'a>, answered: Option<u64>) -> Self {
        let method = request.request_method.as_deref();
        /* A cache makes GET of HEAD (`proxy_cache_convert_head`), and `error_page` of any other method. */
        let is_converted = method == Some("HEAD") && request.upstream_cache_status.is_some();
        let is_changed = is_converted || request.place.redirects.is_some();
        Self {
            attempts: &request.upstreams,
            method: method.filter(|_| !is_changed),
            answered,
            read_wait: request.waits.upstream_read_wait_ns,
            is_cut: request.truncated.contains(&Cut::Upstreams),
        }
    }

    /// Returns those of a subrequest. Its method is not known.
    pub fn of_subrequest(request: &'r Request<'a>, subrequest: &'r Subrequest<'a>) -> Self {
        Self {
            attempts: &subrequest.upstreams,
            method: None,
            answered: None,
            read_wait: None,
            is_cut: request.truncated.contains(&Cut::Subrequests),
        }
    }

    /// Returns when an attempt was on. It ends with its response, or else with what followed it: the next attempt,
    /// the response to the client, or the end of the request. One whose connect was not seen took no time, right
    /// before that.
    fn interval(&self, n: usize, clock: Clock, outer: Interval) -> Interval {
        let attempt = &self.attempts[n];
        let mut later = self.attempts[n + 1..].iter();
        let next = later
            .find_map(|next| next.upstream_connect_time)
            .map(|time| clock.at(time));
        let answered = self.answered.filter(|_| !attempt.post_action);
        let over = next.or(answered).unwrap_or(outer.to);
        let response = attempt.upstream_response_last_byte_time;
        let response = response.or(attempt.upstream_response_first_byte_time);
        let connect = attempt.upstream_connect_time.map(|time| clock.at(time));
        let interval = Interval {
            from: connect.unwrap_or(over),
            to: response.map_or(over, |time| clock.at(time)),
        };
        interval.within(outer)
    }

    /// Returns when the last of them ended.
    pub fn end(&self, clock: Clock, outer: Interval) -> u64 {
        let ends = (0..self.attempts.len()).map(|n| self.interval(n, clock, outer).to);
        ends.max().unwrap_or(outer.to)
    }

    /// Appends the spans of all of them.
    pub fn add(&self, tree: &mut Tree<'_>, parent: u64, outer: Interval) -> io::Result<()> {
        for (n, attempt) in self.attempts.iter().enumerate() {
            let interval = self.interval(n, tree.clock, outer);
            let id = tree.ids.span();
            self.add_client(tree, n, (id, parent), interval)?;
            add_connect(tree, attempt, id, interval)?;
            let last = self
                .attempts
                .iter()
                .rposition(|attempt| !attempt.post_action);
            let first_byte = attempt.upstream_response_first_byte_time;
            if let (Some(ns), Some(first_byte)) = (self.read_wait, first_byte)
                && last == Some(n)
            {
                let to = tree.clock.at(first_byte);
                let waited = Interval {
                    from: to.saturating_sub(ns),
                    to,
                };
                tree.add_part(id, "read_wait", waited, interval)?;
            }
        }
        Ok(())
    }

    /// Appends the client's span of an attempt.
    fn add_client(
        &self,
        tree: &mut Tree<'_>,
        n: usize,
        ids: (u64, u64),
        interval: Interval,
    ) -> io::Result<()> {
        let attempt = &self.attempts[n];
        let method = self.method.filter(|method| tree.known_methods.has(method));
        let name = method.unwrap_or("HTTP");
        tree.open(ids, format_args!("{name}"), Kind::Client, interval)?;
        tree.out.push(b',');
        let known_methods = tree.known_methods;
        let mut attributes = Attributes::open(tree.out);
        let mut result = Ok(());
        let mut add = |name: &'static str, value: Value<'_>| {
            if result.is_ok() {
                result = attributes.add(name, value);
            }
        };
        if let Some(method) = self.method {
            add_method(method, known_methods, &mut add);
        }
        add_peer(attempt, &mut add);
        if let Some(count) = self.resend_count(n) {
            add("http.request.resend_count", Value::Number(count));
        }
        let status = attempt.status.filter(|_| has_own_status(attempt));
        if let Some(status) = status {
            add("http.response.status_code", Value::Number(status.into()));
        }
        let error = status.filter(|status| *status >= CLIENT_ERROR);
        let has_failed = match (attempt.failure, error) {
            (Some(failure), _) => {
                add("error.type", Value::Text(failure.name()));
                true
            }
            (None, Some(status)) => {
                add("error.type", Value::Text(&status.to_string()));
                true
            }
            (None, None) => false,
        };
        result?;
        flatten_some(attempt, |_| true, &mut |path, value| {
            attributes.add_json("nginx.", path, value);
        })?;
        attributes.close();
        span::close(tree.out, has_failed)
    }

    /// Returns how many attempts came before this one. `None` for the first one, and when that is not known.
    fn resend_count(&self, n: usize) -> Option<u64> {
        let is_last = n + 1 == self.attempts.len();
        let is_known = !(self.is_cut && is_last);
        let is_same = |other: &&Attempt<'_>| other.post_action == self.attempts[n].post_action;
        let before = self.attempts[..n].iter().filter(is_same).count() as u64;
        (before > 0 && is_known).then_some(before)
    }
}

/// Returns whether the status is the upstream's. nginx itself sets 502 or 504 where no header came.
fn has_own_status(attempt: &Attempt<'_>) -> bool {
    let is_nginx =
        matches!(attempt.status, Some(502 | 504)) && attempt.response_header_ns.is_none();
    let of_status = |failure: Failure| failure.name().starts_with("http_");
    !is_nginx || attempt.failure.is_none_or(of_status)
}

/// Adds the server of an attempt, and the address to which there was a connection. The name of a group of which no
/// server was alive is no address.
fn add_peer(attempt: &Attempt<'_>, add: &mut dyn FnMut(&'static str, Value<'_>)) {
    let addr = attempt.addr.as_deref();
    let Some(addr) = addr.filter(|_| attempt.failure != Some(Failure::NoLiveUpstreams)) else {
        return;
    };
    let is_connected = attempt.upstream_request_first_byte_time.is_some();
    if let Some(path) = addr.strip_prefix("unix:") {
        add("server.address", Value::Text(path));
        if is_connected {
            add("network.peer.address", Value::Text(path));
        }
        return;
    }
    add_address(addr, add);
    if is_connected {
        let (name, port) = host_and_port(addr);
        add("network.peer.address", Value::Text(without_brackets(name)));
        if let Some(port) = port.and_then(|port| port.parse::<u16>().ok()) {
            add("network.peer.port", Value::Number(port.into()));
        }
    }
}

/// Appends the spans of the connect and of the TLS handshake, in an attempt on a new connection. The handshake is over
/// when nginx sends the request.
fn add_connect(
    tree: &mut Tree<'_>,
    attempt: &Attempt<'_>,
    parent: u64,
    outer: Interval,
) -> io::Result<()> {
    let sent = attempt.upstream_request_first_byte_time;
    let (Some(sent), Some(false)) = (sent, attempt.reused) else {
        return Ok(());
    };
    let sent = tree.clock.at(sent);
    let tls = attempt.upstream_tls_ns.unwrap_or_default();
    let connected = sent.saturating_sub(tls).max(outer.from);
    let connect = Interval {
        from: outer.from,
        to: connected,
    };
    tree.add_part(parent, "connect", connect, outer)?;
    let handshake = Interval {
        from: connected,
        to: sent,
    };
    tree.add_part(parent, "tls_handshake", handshake, outer)
}
