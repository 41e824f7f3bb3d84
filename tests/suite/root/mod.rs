// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tests that trace.

/// Bad input: one line, the right exit code, nginx untouched.
mod bad_input;
/// What `ngx-bpf check` finds.
mod check;
/// How tracing ends, and what is then said.
mod end;
/// Requests that mean harm.
mod hostile;
/// HTTP/2, stream by stream.
mod http2;
/// What is lost is counted.
mod loss;
/// nginx in a container.
mod namespaces;
/// Which processes are traced.
mod processes;
/// TLS and HTTP/2, as far as they are told of.
mod protocols;
/// Every kind of request, against nginx's access log.
mod requests;
/// Where nginx's functions are found, and which of them are used.
mod symbols;
/// Phases, against delays that the tests make.
mod times;
/// TLS of clients and of upstreams.
mod tls;
/// Builds that nobody has looked at.
mod unknown_build;
/// nginx replaced while it runs.
mod upgrade;
/// Upstreams: attempts, retries, failures.
mod upstreams;
