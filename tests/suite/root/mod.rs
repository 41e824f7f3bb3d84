// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tests that trace.

/// A hostile client of HTTP/2, beside another one.
mod abuse;
/// The client's address.
mod addresses;
/// Findings, each provoked.
mod advise;
/// What options ask for.
mod asked;
/// Bad input: one line, the right exit code, nginx untouched.
mod bad_input;
/// Load balancing.
mod balancers;
/// Workers that do not come back to their event loop.
mod blocked;
/// The body of a request, and the queue.
mod bodies;
/// What tracing may cost, by counts.
mod budget;
/// `proxy_cache`.
mod cache;
/// Certificates that nginx looks up within the handshake.
mod certificates;
/// `ngx-bpf check`.
mod check;
/// `--connections`.
mod connections;
/// The container and the pod of nginx.
mod containers;
/// `elapsed_ns`, the life of a request.
mod elapsed;
/// The end of tracing.
mod end;
/// How requests end, compared with nginx's logs.
mod endings;
/// `failure` of attempts, compared with nginx's error log.
mod failures;
/// The rights that the tool keeps.
mod fence;
/// Filters.
mod filters;
/// Builds that stand in for forks.
mod forks;
/// Requests with hostile bytes.
mod hostile;
/// Many nginx on one host, which come and go.
mod hosts;
/// HTTP/2, stream by stream.
mod http2;
/// HTTP/3, stream by stream.
mod http3;
/// `ngx-bpf inflight`, and SIGUSR2.
mod inflight;
/// Files of layouts: what they are checked for, and what messages say to do.
mod layouts;
/// The queues of listening sockets.
mod listeners;
/// Locations: buffers, files, redirects and error pages.
mod locations;
/// Loss.
mod loss;
/// The tool's own memory.
mod memory;
/// `--metrics`.
mod metrics;
/// Everything at once.
mod mixed;
/// Every module for upstreams.
mod modules;
/// nginx in a container.
mod namespaces;
/// stream and mail on the same workers.
mod neighbours;
/// `--format otel`.
mod otel;
/// `--format otlp`.
mod otlp;
/// Outputs that are full, unread, or belong to another user.
mod output;
/// Cases of nginx's own test suite.
mod outside;
/// Where in the configuration requests were handled.
mod places;
/// The capabilities of the service.
mod privileges;
/// Which processes are traced.
mod processes;
/// TLS and HTTP/2, with clients that people use.
mod protocols;
/// Internal redirects.
mod redirects;
/// Every kind of request, compared with nginx's access log.
mod requests;
/// An nginx that is started again and again.
mod restarts;
/// The memory that is used while a request ends.
mod scratches;
/// Secrets in query strings.
mod secrets;
/// Socket sources.
mod sockets;
/// What one part of the tool does not hold up.
mod stalls;
/// nginx's own counters.
mod stats;
/// What other users of the machine can do to it.
mod strangers;
/// Subrequests and their upstreams.
mod subrequests;
/// Symbols of nginx's functions, and functions that are not used.
mod symbols;
/// `--tcp`.
mod tcp;
/// Phases, compared with delays that the tests make.
mod times;
/// TLS of clients and of upstreams.
mod tls;
mod tls_upstreams;
/// The `traceparent` header.
mod trace_context;
/// Connections that become tunnels.
mod tunnels;
/// Requests in progress when tracing begins.
mod under_way;
/// Builds that the table does not have.
mod unknown_build;
/// nginx replaced while it runs.
mod upgrade;
/// Upstreams: attempts, retries, failures.
mod upstreams;
/// The commands that show records.
mod views;
/// What a request waited for.
mod waits;
/// strace as an outside witness.
mod witness;
/// Workers that end with requests in flight.
mod worker_exit;
