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
use crate::format::conventions::add_method;
use crate::format::conventions::add_server;
use crate::format::conventions::server;
use crate::format::flat::flatten_some;
use crate::request::Request;
use crate::subrequest::Subrequest;
use crate::tried::Tried;
use crate::values::Cut;

/// The attempts of a request or of a subrequest, in order.
pub(super) struct Series<'r, 'a> {
    tried: Vec<Tried<'r, 'a>>,
    /// When the client had the first byte of the response, on the clock of `phases`.
    answered: Option<u64>,
    /// How long the first bytes of the last response that the client waited for lay in the socket.
    read_wait: Option<u64>,
    /// Whether there were more attempts than the record has.
    is_cut: bool,
}

impl<'r, 'a> Series<'r, 'a> {
    /// Returns those of a request.
    pub fn new(request: &'r Request<'a>) -> Self {
        Self {
            tried: Tried::all(request, &request.upstreams, true).collect(),
            answered: request.phases.downstream_response_first_byte_time,
            read_wait: request.waits.upstream_read_wait_ns,
            is_cut: request.truncated.contains(&Cut::Upstreams),
        }
    }

    /// Returns those of a subrequest.
    pub fn of_subrequest(request: &'r Request<'a>, subrequest: &'r Subrequest<'a>) -> Self {
        Self {
            tried: Tried::all(request, &subrequest.upstreams, false).collect(),
            answered: None,
            read_wait: None,
            is_cut: request.truncated.contains(&Cut::Subrequests),
        }
    }

    /// Returns when an attempt was on. One whose end is not known ends with what came of its response, or else with what
    /// followed it: the next attempt, the response to the client, or the end of the request. One whose connect was not
    /// seen took no time, right before that.
    fn interval(&self, n: usize, clock: Clock, outer: Interval) -> Interval {
        let attempt = self.tried[n].attempt;
        let mut later = self.tried[n + 1..].iter();
        let next = later.find_map(|next| next.attempt.upstream_connect_time);
        let answered = self.answered.filter(|_| !attempt.post_action);
        let over = next.or(answered).map(|time| clock.at(time));
        let over = over.unwrap_or(outer.to);
        let response = attempt.upstream_response_last_byte_time;
        let response = response.or(attempt.upstream_response_first_byte_time);
        let end = self.tried[n].end().or(response);
        let connect = attempt.upstream_connect_time.map(|time| clock.at(time));
        let interval = Interval {
            from: connect.unwrap_or(over),
            to: end.map_or(over, |time| clock.at(time)),
        };
        interval.within(outer)
    }

    /// Returns when the last of them ended.
    pub fn end(&self, clock: Clock, outer: Interval) -> u64 {
        let ends = (0..self.tried.len()).map(|n| self.interval(n, clock, outer).to);
        ends.max().unwrap_or(outer.to)
    }

    /// Appends the spans of all of them.
    pub fn add(&self, tree: &mut Tree<'_>, parent: u64, outer: Interval) -> io::Result<()> {
        for (n, tried) in self.tried.iter().enumerate() {
            let interval = self.interval(n, tree.clock, outer);
            let id = tree.ids.span();
            self.add_client(tree, n, (id, parent), interval)?;
            add_connect(tree, tried.attempt, id, interval);
            let first_byte = tried.attempt.upstream_response_first_byte_time;
            if let (Some(ns), Some(first_byte)) = (self.read_wait, first_byte)
                && tried.is_answer()
            {
                let to = tree.clock.at(first_byte);
                let waited = Interval {
                    from: to.saturating_sub(ns),
                    to,
                };
                tree.add_part(id, "read_wait", waited, interval);
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
        let tried = &self.tried[n];
        let known = tried
            .method()
            .filter(|method| tree.known_methods.has(method));
        let name = known.unwrap_or("HTTP");
        tree.open(ids, format_args!("{name}"), Kind::Client, interval);
        tree.out.push(b',');
        let known_methods = tree.known_methods;
        let mut attributes = Attributes::open(tree.out);
        let mut add = |name: &'static str, value: Value<'_>| attributes.add(name, value);
        if let Some(method) = tried.method() {
            add_method(method, known_methods, &mut add);
        }
        add_peer(tried, &mut add);
        if let Some(count) = self.resend_count(n) {
            add("http.request.resend_count", Value::Number(count));
        }
        if let Some(status) = tried.own_status() {
            add("http.response.status_code", Value::Number(status.into()));
        }
        let error = tried.error_type();
        if let Some(error) = &error {
            add("error.type", Value::Text(error));
        }
        flatten_some(tried.attempt, |_| true, &mut |path, value| {
            attributes.add_json("nginx.", path, value);
        })?;
        attributes.close();
        span::close(tree.out, error.is_some());
        Ok(())
    }

    /// Returns how many attempts came before this one. `None` for the first one, and when that is not known.
    fn resend_count(&self, n: usize) -> Option<u64> {
        let is_last = n + 1 == self.tried.len();
        let is_known = !(self.is_cut && is_last);
        let is_after = self.tried[n].attempt.post_action;
        let before = self.tried[..n].iter();
        let before = before.filter(|other| other.attempt.post_action == is_after);
        let before = before.count() as u64;
        (before > 0 && is_known).then_some(before)
    }
}

/// Adds the server of an attempt, and the address to which there was a connection.
fn add_peer(tried: &Tried<'_, '_>, add: &mut dyn FnMut(&'static str, Value<'_>)) {
    let Some(addr) = tried.addr() else {
        return;
    };
    let (name, port) = server(addr);
    add_server((name, port), add);
    if tried.attempt.upstream_request_first_byte_time.is_none() {
        return;
    }
    add("network.peer.address", Value::Text(name));
    if let Some(port) = port {
        add("network.peer.port", Value::Number(port.into()));
    }
}

/// Appends the spans of the connect and of the TLS handshake, in an attempt on a new connection. The handshake is over
/// when nginx sends the request.
fn add_connect(tree: &mut Tree<'_>, attempt: &Attempt<'_>, parent: u64, outer: Interval) {
    let sent = attempt.upstream_request_first_byte_time;
    let (Some(sent), Some(false)) = (sent, attempt.reused) else {
        return;
    };
    let sent = tree.clock.at(sent);
    let tls = attempt.upstream_tls_ns.unwrap_or_default();
    let connected = sent.saturating_sub(tls).max(outer.from);
    let connect = Interval {
        from: outer.from,
        to: connected,
    };
    tree.add_part(parent, "connect", connect, outer);
    let handshake = Interval {
        from: connected,
        to: sent,
    };
    tree.add_part(parent, "tls_handshake", handshake, outer);
}
