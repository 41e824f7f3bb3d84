// SPDX-License-Identifier: MIT OR Apache-2.0
//! A batch of log records: one of each record.

use std::fmt;
use std::io;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use serde::Serialize;

use super::attributes::Attributes;
use super::groups::Groups;
use super::groups::Lists;
use super::ids::write_hex;
use super::keys::is_log_attribute;
use super::resource::Identity;
use super::tree::SpanContext;
use super::tree::context_of_client;
use crate::blocked::Blocked;
use crate::clock::unix_ns;
use crate::connection::Connection;
use crate::container::Container;
use crate::format::conventions;
use crate::format::conventions::KnownMethods;
use crate::format::flat::flatten_some;
use crate::format::json::write_number;
use crate::format::json::write_string;
use crate::format::names::Names;
use crate::lost::Lost;
use crate::request::Request;

/// The lists of an `ExportLogsServiceRequest`.
const LISTS: Lists = Lists(["resourceLogs", "scopeLogs", "logRecords"]);

/// How severe what a record says is: `SeverityNumber` and its name.
#[derive(Clone, Copy)]
enum Severity {
    Info = 9,
    Warn = 13,
    Error = 17,
}

impl Severity {
    fn name(self) -> &'static str {
        match self {
            Self::Info => "INFO",
            Self::Warn => "WARN",
            Self::Error => "ERROR",
        }
    }
}

/// What a log record has besides its attributes.
struct Head<'h> {
    time: Option<&'h str>,
    severity: Severity,
    event: &'static str,
    body: fmt::Arguments<'h>,
}

/// Log records, collected to be one body.
pub struct Logs {
    names: Names,
    known_methods: KnownMethods,
    groups: Groups,
    /// The number of bytes in the batch.
    bytes: usize,
}

impl Logs {
    /// Creates an empty batch. `known_methods` is the value of `conventions::KNOWN_METHODS_VARIABLE`, if it is set.
    pub fn new(identity: Identity, known_methods: Option<String>) -> Self {
        Self {
            names: Names::new(),
            known_methods: KnownMethods::new(known_methods),
            groups: Groups::new(identity),
            bytes: 0,
        }
    }

    /// Returns the number of bytes in the batch.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds a request, with its span if it has one. Fails when it can't be encoded; then nothing is added.
    pub fn request(&mut self, request: &Request<'_>, span: Option<SpanContext>) -> io::Result<()> {
        let method = request.request_method.as_deref().unwrap_or("-");
        let uri = request.request_uri.as_deref().unwrap_or("-");
        let status = request.status.unwrap_or_default();
        let is_error = status >= conventions::SERVER_ERROR;
        let head = Head {
            time: request.time.as_deref(),
            severity: if is_error {
                Severity::Error
            } else {
                Severity::Info
            },
            event: "nginx.request",
            body: format_args!("{method} {uri} {status:03}"),
        };
        let (names, known_methods) = (&self.names, &self.known_methods);
        let server_name = request.place.server_name.as_deref();
        let out = self.groups.of(server_name, request.pid, &request.container);
        let added = write(out, &head, names, request, |attributes| {
            conventions::derived(request, known_methods, &mut |name, value| {
                attributes.add(name, value);
            });
        });
        let added =
            added.inspect(|_| write_context(out, span.or_else(|| context_of_client(request))));
        self.bytes += end(out, added)?;
        Ok(())
    }

    /// Adds a connection, likewise.
    pub fn connection(&mut self, connection: &Connection<'_>) -> io::Result<()> {
        let end = connection.end.map_or("end not known", |end| end.name());
        let head = Head {
            time: connection.time.as_deref(),
            severity: Severity::Info,
            event: "nginx.connection",
            body: format_args!("connection without a request: {}, {end}", connection.stage),
        };
        self.other(connection, (connection.pid, &connection.container), &head)
    }

    /// Adds a worker that was blocked, likewise.
    pub fn blocked(&mut self, blocked: &Blocked<'_>) -> io::Result<()> {
        let head = Head {
            time: blocked.time.as_deref(),
            severity: Severity::Warn,
            event: "nginx.blocked",
            body: format_args!(
                "worker {} blocked for {} ns",
                blocked.pid, blocked.duration_ns
            ),
        };
        self.other(blocked, (blocked.pid, &blocked.container), &head)
    }

    /// Adds a loss, likewise. It belongs to no worker.
    pub fn lost(&mut self, lost: &Lost) -> io::Result<()> {
        let head = Head {
            time: Some(&lost.time),
            severity: Severity::Warn,
            event: "nginx.lost",
            body: format_args!("{} requests lost: {}", lost.count, lost.cause),
        };
        self.other(lost, (0, &Container::default()), &head)
    }

    /// Adds a record of a worker that is no request. The pid 0 stands for none.
    fn other(
        &mut self,
        record: &impl Serialize,
        (pid, container): (u32, &Container<'_>),
        head: &Head<'_>,
    ) -> io::Result<()> {
        let out = self.groups.of(None, pid, container);
        let added = write(out, head, &self.names, record, |_| {});
        self.bytes += end(out, added)?;
        Ok(())
    }

    /// Appends the batch as one line with its end, and begins a new one. Of an empty batch there is no line.
    pub fn write_line(&mut self, line: &mut Vec<u8>) {
        self.bytes = 0;
        self.groups.write_line(&LISTS, line);
    }
}

/// Appends a log record without its end, and with the attributes that `add` adds. Returns where it begins. Fails when
/// it can't be encoded; then nothing is appended.
fn write(
    out: &mut Vec<u8>,
    head: &Head<'_>,
    names: &Names,
    record: &impl Serialize,
    add: impl FnOnce(&mut Attributes<'_>),
) -> io::Result<usize> {
    let start = out.len();
    if start > 0 {
        out.push(b',');
    }
    out.push(b'{');
    if let Some(time) = head.time.and_then(unix_ns) {
        write_time(out, "timeUnixNano", time);
    }
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let now = u64::try_from(now.as_nanos()).unwrap_or_default();
    write_time(out, "observedTimeUnixNano", now);
    out.extend_from_slice(b"\"severityNumber\":");
    write_number(out, head.severity as u32);
    out.extend_from_slice(b",\"severityText\":");
    write_string(out, head.severity.name());
    out.extend_from_slice(b",\"eventName\":");
    write_string(out, head.event);
    out.extend_from_slice(b",\"body\":{\"stringValue\":");
    write_string(out, &head.body.to_string());
    out.extend_from_slice(b"},");
    let mut attributes = Attributes::open(out);
    let flattened = flatten_some(record, is_log_attribute, &mut |path, value| {
        if let Some((prefix, name)) = names.of(path) {
            attributes.add_json(prefix, name, value);
        }
    });
    if let Err(error) = flattened {
        out.truncate(start);
        return Err(error);
    }
    add(&mut attributes);
    attributes.close();
    Ok(start)
}

/// Appends a member whose value is a moment, and a comma.
fn write_time(out: &mut Vec<u8>, name: &str, time: u64) {
    for part in ["\"", name, "\":\""] {
        out.extend_from_slice(part.as_bytes());
    }
    write_number(out, time);
    out.extend_from_slice(b"\",");
}

/// Appends the trace that a request belongs to.
fn write_context(out: &mut Vec<u8>, context: Option<SpanContext>) {
    let Some(context) = context else {
        return;
    };
    out.extend_from_slice(b",\"traceId\":\"");
    /* The halves of the id. */
    write_hex(out, (context.trace >> 64) as u64);
    write_hex(out, context.trace as u64);
    if let Some(span) = context.span {
        out.extend_from_slice(b"\",\"spanId\":\"");
        write_hex(out, span);
    }
    out.extend_from_slice(format!("\",\"flags\":{}", context.flags).as_bytes());
}

/// Ends a log record. Returns the number of its bytes.
fn end(out: &mut Vec<u8>, start: io::Result<usize>) -> io::Result<usize> {
    let start = start?;
    out.push(b'}');
    Ok(out.len() - start)
}
