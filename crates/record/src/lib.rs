// SPDX-License-Identifier: MIT OR Apache-2.0
//! The public records of ngx-bpf: one [`Request`] for each HTTP request that nginx has ended, one
//! [`Connection`] for each connection that ended without a request, one [`Blocked`] for each time that a
//! worker was blocked, one [`Inflight`] for each request that has not ended, and one [`Lost`] for requests
//! that could not be delivered. Each key is one documented field; serde reads and writes it, and the JSON
//! Schemas and the tables of docs/fields.md and docs/otel.md are generated from it (`make docs`).
//!
//! This crate knows neither BPF nor the process that is traced. It builds on any operating system.

#![deny(missing_docs)]

use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;

pub use attempt::Attempt;
pub use blocked::Blocked;
pub use connection::Connection;
pub use container::Container;
pub use ending::Ending;
pub use format::Format;
pub use inflight::Inflight;
pub use lost::Lost;
pub use phases::Phases;
pub use place::Config;
pub use place::Place;
pub use redact::Redaction;
pub use request::Request;
pub use shares::Shares;
pub use spans::SPANS;
pub use subrequest::Subrequest;
pub use tcp::Tcp;
pub use tcp::TcpConnection;
pub use tls::Tls;
pub use trace::Trace;
pub use tried::Tried;
pub use truncate::MAX_LINE_MIN;
pub use truncate::append_blocked;
pub use truncate::append_line;
pub use waits::Waits;

mod attempt;
mod blocked;
pub mod clock;
mod connection;
mod container;
mod ending;
pub mod filter;
mod flat;
pub mod format;
pub mod host;
mod inflight;
pub mod limits;
mod lost;
mod phases;
mod place;
#[cfg(test)]
mod random;
pub mod read;
pub mod redact;
mod request;
pub mod schema;
mod shares;
mod spans;
pub mod statistics;
mod subrequest;
mod tcp;

pub mod timeline;
mod tls;
mod trace;
mod tried;
mod truncate;
pub mod values;
mod waits;

/// One line of the output. `type` is its first key: `request`, `connection`, `lost` or `blocked`.
///
/// Keys that this version does not know are ignored when a line is read, since keys are added within a
/// major version. The JSON Schema names all keys, and refuses others.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Record<'a> {
    /// A request that nginx has ended.
    Request(Box<Request<'a>>),
    /// A connection that ended without a request.
    Connection(Box<Connection<'a>>),
    /// Requests that could not be delivered.
    Lost(Lost),
    /// A worker that did not come back to its event loop.
    Blocked(Box<Blocked<'a>>),
}
