// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tests that trace.

/// Who the client is.
mod addresses;
/// Bad input: one line, the right exit code, nginx untouched.
mod bad_input;
/// Whatever chooses the server.
mod balancers;
/// The body of a request, and what waits before one.
mod bodies;
/// What a cache had.
mod cache;
/// Certificates that nginx looks up within the handshake.
mod certificates;
/// What `ngx-bpf check` finds.
mod check;
/// The whole life of a request.
mod elapsed;
/// How tracing ends, and what is then said.
mod end;
/// Why attempts failed, against nginx's error log.
mod failures;
/// Which requests are told of.
mod filters;
/// Requests that mean harm.
mod hostile;
/// HTTP/2, stream by stream.
mod http2;
/// HTTP/3, stream by stream.
mod http3;
/// What happens to a request inside nginx.
mod locations;
/// What is lost is counted.
mod loss;
/// Metrics.
mod metrics;
/// Everything at once.
mod mixed;
/// Every module for upstreams.
mod modules;
/// nginx in a container.
mod namespaces;
/// stream and mail.
mod neighbours;
/// OpenTelemetry's names.
mod otel;
/// Outputs that are full, unread, or another user's.
mod output;
/// What the service may do, and what it says without a part of that.
mod privileges;
/// Which processes are traced.
mod processes;
/// TLS and HTTP/2, as far as they are told of.
mod protocols;
/// Every kind of request, against nginx's access log.
mod requests;
/// Secrets in query strings.
mod secrets;
/// What tells of the bytes on sockets.
mod sockets;
/// What other users of the machine can do to it.
mod strangers;
/// Subrequests and their upstreams.
mod subrequests;
/// Where nginx's functions are found, and which of them are used.
mod symbols;
/// Phases, against delays that the tests make.
mod times;
/// TLS of clients and of upstreams.
mod tls;
mod tls_upstreams;
/// Requests that belong to a trace.
mod trace_context;
/// Connections that stop to be HTTP.
mod tunnels;
/// What is under way when tracing begins.
mod under_way;
/// Builds that no one has looked at.
mod unknown_build;
/// nginx replaced while it runs.
mod upgrade;
/// Upstreams: attempts, retries, failures.
mod upstreams;
/// An outside witness.
mod witness;
/// Workers that end with requests in flight.
mod worker_exit;
