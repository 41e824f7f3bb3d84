// SPDX-License-Identifier: MIT OR Apache-2.0
//! The spans of one request: a server's span, and those within it.

use std::fmt;
use std::io;

use super::attempts::Series;
use super::attributes::Attributes;
use super::ids::Ids;
use super::keys::is_attribute;
use super::span;
use super::span::HAS_IS_REMOTE;
use super::span::IS_REMOTE;
use super::span::Kind;
use super::span::Span;
use super::waits;
use crate::clock::unix_ns;
use crate::format::conventions;
use crate::format::conventions::KnownMethods;
use crate::format::conventions::Value;
use crate::format::flat::flatten;
use crate::format::flat::flatten_some;
use crate::format::names::Names;
use crate::request::Request;
use crate::subrequest::Subrequest;
use crate::trace::Trace;

/// The flags of a trace that is sampled.
const SAMPLED: u32 = Trace::SAMPLED as u32;

/// The trace that a request belongs to, and its parent there.
struct Parent {
    trace: u128,
    span: u64,
    flags: u32,
}

impl Parent {
    /// Returns what the client states. `None` when it states none.
    fn of(trace: &Trace<'_>) -> Option<Self> {
        let flags = match trace.trace_flags {
            Some(_) => trace.flags()?,
            /* Records of before there was `trace_flags` do not have it. */
            None => Trace::SAMPLED,
        };
        Some(Self {
            trace: trace.id()?,
            span: trace.parent_id()?,
            flags: flags.into(),
        })
    }
}

/// A span, or without one a trace, that a request belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanContext {
    pub(super) trace: u128,
    pub(super) span: Option<u64>,
    /// The flags of the trace.
    pub(super) flags: u32,
}

/// Returns the trace that the client of a request states.
pub(super) fn context_of_client(request: &Request<'_>) -> Option<SpanContext> {
    let parent = Parent::of(&request.trace)?;
    Some(SpanContext {
        trace: parent.trace,
        span: None,
        flags: parent.flags,
    })
}

/// Returns whether the client does not say that its trace is not sampled.
fn is_sampled(parent: Option<&Parent>) -> bool {
    parent.is_none_or(|parent| parent.flags & SAMPLED != 0)
}

/// Returns whether a request becomes spans: it is known when it began, and the client does not say that its trace is
/// not sampled.
pub fn has_spans(request: &Request<'_>) -> bool {
    let has_begun = request.time.as_deref().and_then(unix_ns).is_some()
        && request.phases.downstream_request_first_byte_time.is_some();
    has_begun && is_sampled(Parent::of(&request.trace).as_ref())
}

/// The part of time in which a span lies, in nanoseconds since 1970.
#[derive(Clone, Copy)]
pub(super) struct Interval {
    pub from: u64,
    pub to: u64,
}

impl Interval {
    /// Returns the part of this interval that another one takes, which has no length where they do not meet.
    pub fn within(self, outer: Self) -> Self {
        let from = self.from.clamp(outer.from, outer.to);
        Self {
            from,
            to: self.to.clamp(from, outer.to),
        }
    }
}

/// The clock of a request's times.
#[derive(Clone, Copy)]
pub(super) struct Clock {
    /// When its first byte was read, in nanoseconds since 1970, and in those of `phases`.
    unix: u64,
    first: u64,
}

impl Clock {
    /// Returns the clock of a request. `None` when it is not known when it began.
    fn of(request: &Request<'_>) -> Option<Self> {
        Some(Self {
            unix: unix_ns(request.time.as_deref()?)?,
            first: request.phases.downstream_request_first_byte_time?,
        })
    }

    /// Returns the moment of a time of `phases`.
    pub fn at(self, time: u64) -> u64 {
        self.unix.saturating_add(time.saturating_sub(self.first))
    }

    /// Returns when the request was on: to its end or to the last byte of its response, of which HTTP/3 sends the
    /// last bytes later. A tunnel is not a part of the request.
    fn life(self, request: &Request<'_>) -> Interval {
        let is_tunnel = request.ending.tunnel && request.duration_ns.is_some();
        let elapsed = request.elapsed_ns.filter(|_| !is_tunnel);
        let length = elapsed.max(request.duration_ns).unwrap_or_default();
        Interval {
            from: self.unix,
            to: self.unix.saturating_add(length),
        }
    }
}

/// Writes the spans of one request.
pub(super) struct Tree<'t> {
    pub out: &'t mut Vec<u8>,
    pub names: &'t Names,
    pub known_methods: &'t KnownMethods,
    pub ids: Ids,
    pub clock: Clock,
    trace: u128,
    /// The flags of spans whose parent is in this process.
    flags: u32,
}

impl<'t> Tree<'t> {
    /// Appends the spans of a request. Returns the server's one; `None` when it has none: see `has_spans()`. Fails
    /// when it can't be encoded.
    pub fn write(
        out: &'t mut Vec<u8>,
        names: &'t Names,
        known_methods: &'t KnownMethods,
        request: &Request<'_>,
    ) -> io::Result<Option<SpanContext>> {
        let parent = Parent::of(&request.trace);
        if !is_sampled(parent.as_ref()) {
            return Ok(None);
        }
        let Some(clock) = Clock::of(request) else {
            return Ok(None);
        };
        let mut ids = Ids::of(request);
        let flags = parent.as_ref().map_or(SAMPLED, |parent| parent.flags);
        let mut tree = Self {
            trace: parent
                .as_ref()
                .map_or_else(|| ids.trace(), |parent| parent.trace),
            out,
            names,
            known_methods,
            ids,
            clock,
            flags: flags | HAS_IS_REMOTE,
        };
        let span = tree.add_all(request, parent.map(|parent| parent.span))?;
        Ok(Some(SpanContext {
            trace: tree.trace,
            span: Some(span),
            flags,
        }))
    }

    /// Appends the server's span, and those within it. Returns its id.
    fn add_all(&mut self, request: &Request<'_>, parent: Option<u64>) -> io::Result<u64> {
        let life = self.clock.life(request);
        let id = self.ids.span();
        self.add_server(request, (id, parent), life)?;
        waits::add(self, request, id, life);
        Series::new(request).add(self, id, life)?;
        for subrequest in &request.subrequests {
            self.add_subrequest(request, subrequest, (id, life))?;
        }
        Ok(id)
    }

    /// Appends the server's span.
    fn add_server(
        &mut self,
        request: &Request<'_>,
        (id, parent): (u64, Option<u64>),
        life: Interval,
    ) -> io::Result<()> {
        let method = request.request_method.as_deref().unwrap_or_default();
        let method = if self.known_methods.has(method) {
            method
        } else {
            "HTTP"
        };
        let span = |name| Span {
            trace: self.trace,
            id,
            parent,
            flags: self.flags | parent.map_or(0, |_| IS_REMOTE),
            name,
            kind: Kind::Server,
            from: life.from,
            to: life.to,
        };
        match request.place.location.as_deref() {
            Some(route) => span(format_args!("{method} {route}")).open(self.out),
            None => span(format_args!("{method}")).open(self.out),
        }
        self.out.push(b',');
        let names = self.names;
        let mut attributes = Attributes::open(self.out);
        flatten_some(request, is_attribute, &mut |path, value| {
            if let Some((prefix, name)) = names.of(path) {
                attributes.add_json(prefix, name, value);
            }
        })?;
        let mut has_failed = false;
        conventions::derived(request, self.known_methods, &mut |name, value| {
            has_failed |= name == "error.type";
            attributes.add(name, value);
        });
        /* A subrequest without any time has no span. */
        for (n, subrequest) in request.subrequests.iter().enumerate() {
            if begin(subrequest).is_none() {
                let prefix = format!("nginx.subrequests.{n}.");
                flatten(subrequest, &mut |path, value| {
                    attributes.add_json(&prefix, path, value);
                })?;
            }
        }
        attributes.close();
        self.add_retries(request, life);
        span::close(self.out, has_failed);
        Ok(())
    }

    /// Appends an event for each attempt at an upstream that followed another one.
    fn add_retries(&mut self, request: &Request<'_>, life: Interval) {
        let mut begin = ",\"events\":[";
        for pair in request.upstreams.windows(2) {
            let [before, attempt] = pair else { continue };
            let Some(time) = attempt
                .upstream_connect_time
                .filter(|_| !attempt.post_action)
            else {
                continue;
            };
            let time = self.clock.at(time).clamp(life.from, life.to);
            let event =
                format!("{begin}{{\"timeUnixNano\":\"{time}\",\"name\":\"nginx.upstream.retry\",");
            self.out.extend_from_slice(event.as_bytes());
            let mut attributes = Attributes::open(self.out);
            if let Some(failure) = before.failure {
                attributes.add("error.type", Value::Text(failure.name()));
            }
            if let Some(addr) = before.addr.as_deref() {
                attributes.add("nginx.addr", Value::Text(addr));
            }
            attributes.close();
            self.out.push(b'}');
            begin = ",";
        }
        if begin == "," {
            self.out.push(b']');
        }
    }

    /// Appends the span of a subrequest, from its first connect to its last byte, with its attempts.
    fn add_subrequest(
        &mut self,
        request: &Request<'_>,
        subrequest: &Subrequest<'_>,
        (parent, life): (u64, Interval),
    ) -> io::Result<()> {
        let Some(from) = begin(subrequest) else {
            return Ok(());
        };
        let series = Series::of_subrequest(request, subrequest);
        let from = self.clock.at(from);
        let interval = Interval {
            from,
            to: series.end(self.clock, life),
        };
        let (interval, id) = (interval.within(life), self.ids.span());
        let name = format_args!("subrequest");
        self.open((id, parent), name, Kind::Internal, interval);
        self.out.push(b',');
        let mut attributes = Attributes::open(self.out);
        flatten_some(subrequest, |key| key != "upstreams", &mut |path, value| {
            attributes.add_json("nginx.", path, value);
        })?;
        attributes.close();
        span::close(self.out, false);
        series.add(self, id, interval)
    }

    /// Appends a span within this process as far as its attributes.
    pub fn open(
        &mut self,
        (id, parent): (u64, u64),
        name: fmt::Arguments<'_>,
        kind: Kind,
        interval: Interval,
    ) {
        let span = Span {
            trace: self.trace,
            id,
            parent: Some(parent),
            flags: self.flags,
            name,
            kind,
            from: interval.from,
            to: interval.to,
        };
        span.open(self.out);
    }

    /// Appends a span of nginx itself, without attributes, as far as it lies within another one. One without length is
    /// left out.
    pub fn add_part(&mut self, parent: u64, name: &str, interval: Interval, outer: Interval) {
        let interval = interval.within(outer);
        if interval.from == interval.to {
            return;
        }
        let id = self.ids.span();
        self.open(
            (id, parent),
            format_args!("{name}"),
            Kind::Internal,
            interval,
        );
        span::close(self.out, false);
    }
}

/// Returns when the first attempt of a subrequest began of which that is known.
fn begin(subrequest: &Subrequest<'_>) -> Option<u64> {
    let mut attempts = subrequest.upstreams.iter();
    attempts.find_map(|attempt| attempt.upstream_connect_time)
}
