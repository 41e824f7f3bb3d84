// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is collected of a listener: how its connections were accepted, by which worker, and their TLS handshakes.

use std::collections::BTreeMap;
use std::collections::HashSet;

use ngx_bpf_record::Connection;
use ngx_bpf_record::Container;
use ngx_bpf_record::Request;
use ngx_bpf_record::statistics::Rows;
use ngx_bpf_record::statistics::Times;
use ngx_bpf_record::values::Scheme;

/// The most listeners.
const LISTENERS_MAX: usize = 64;

/// The most workers of a listener.
const WORKERS_MAX: usize = 256;

/// The most clients whose handshakes are known. Others are never taken for clients that come again.
const CLIENTS_MAX: usize = 4096;

/// The longest address of a client, in bytes. A client with a longer one is never known.
const CLIENT_BYTES_MAX: usize = 128;

/// From how long on a wait to be accepted is long.
pub const LONG_NS: u64 = 10_000_000;

/// All listeners.
#[derive(Clone, Debug)]
pub struct Listeners {
    /// By container and address.
    pub rows: Rows<Listener>,
    /// The clients that had a handshake.
    clients: HashSet<String>,
}

impl Default for Listeners {
    fn default() -> Self {
        Self {
            rows: Rows::new(LISTENERS_MAX),
            clients: HashSet::new(),
        }
    }
}

/// A listener.
#[derive(Clone, Debug, Default)]
pub struct Listener {
    /// Its address and port, or its path.
    pub name: String,
    /// How long connections waited to be accepted.
    pub accept: Times,
    /// The number of long waits.
    pub long: u64,
    /// The sum of those.
    pub long_ns: u128,
    /// Its TLS.
    pub tls: Tls,
    /// Its workers.
    pub workers: BTreeMap<u32, Share>,
}

/// The TLS of a listener, without HTTP/3.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    /// The number of requests.
    pub requests: u64,
    /// How long handshakes took.
    pub handshakes: Times,
    /// How long those took whose client had had one before.
    pub again: Times,
    /// How long the requests took.
    pub elapsed_ns: u128,
}

/// What one worker had of a listener.
#[derive(Clone, Debug, Default)]
pub struct Share {
    /// Requests.
    pub requests: u64,
    /// Connections.
    pub connections: u64,
    /// How long requests and connections waited for the worker.
    pub waited_ns: u128,
    /// How many of them waited.
    pub waited: u64,
    /// The begin of its first request and of its last one.
    pub seen: Option<(u64, u64)>,
}

impl Listeners {
    /// Returns the number of clients that are known.
    #[cfg(test)]
    pub fn clients(&self) -> usize {
        self.clients.len()
    }

    /// Adds a request, which began at this moment.
    pub fn request(&mut self, request: &Request<'_>, begin: Option<u64>) {
        let addr = request.server_addr.as_deref();
        let Some(listener) = listener(
            &mut self.rows,
            addr,
            request.server_port,
            &request.container,
        ) else {
            return;
        };
        let waits = &request.waits;
        listener.add_accept(waits.accept_queue_ns);
        if let Some(share) = listener.share(request.pid) {
            share.requests += 1;
            share.connections += u64::from(request.connection_requests == Some(1));
            let accept = waits.accept_queue_ns.filter(|ns| *ns >= LONG_NS);
            let waited = [accept, waits.read_wait_ns, waits.upstream_read_wait_ns];
            let waited: u128 = waited.into_iter().flatten().map(u128::from).sum();
            share.waited_ns += waited;
            share.waited += u64::from(waited > 0);
            if let Some(begin) = begin {
                let (first, last) = share.seen.unwrap_or((begin, begin));
                share.seen = Some((first.min(begin), last.max(begin)));
            }
        }
        if request.scheme == Scheme::Https && request.server_protocol.as_deref() != Some("HTTP/3.0")
        {
            let client = request
                .peer_addr
                .as_deref()
                .or(request.remote_addr.as_deref());
            listener.tls.requests += 1;
            listener.tls.elapsed_ns += u128::from(request.elapsed_ns.unwrap_or_default());
            if let Some(ns) = request.tls.tls_handshake_ns {
                listener.tls.handshakes.add(ns);
                if is_known(&mut self.clients, client, &listener.name) {
                    listener.tls.again.add(ns);
                }
            }
        }
    }

    /// Adds a connection that ended without a request.
    pub fn connection(&mut self, connection: &Connection<'_>) {
        let addr = connection.server_addr.as_deref();
        let of = listener(
            &mut self.rows,
            addr,
            connection.server_port,
            &connection.container,
        );
        let Some(listener) = of.filter(|_| connection.connection_requests.is_none()) else {
            return;
        };
        listener.add_accept(connection.accept_queue_ns);
        if let Some(share) = listener.share(connection.pid) {
            share.connections += 1;
        }
    }
}

impl Listener {
    /// Adds a wait to be accepted.
    fn add_accept(&mut self, ns: Option<u64>) {
        let Some(ns) = ns else {
            return;
        };
        self.accept.add(ns);
        if ns >= LONG_NS {
            self.long += 1;
            self.long_ns += u128::from(ns);
        }
    }

    /// Returns what a worker has of it. `None` when there are too many workers.
    fn share(&mut self, pid: u32) -> Option<&mut Share> {
        if self.workers.len() >= WORKERS_MAX && !self.workers.contains_key(&pid) {
            return None;
        }
        Some(self.workers.entry(pid).or_default())
    }
}

/// Returns the listener of an address. The same address in two containers is two of them.
fn listener<'l>(
    rows: &'l mut Rows<Listener>,
    addr: Option<&str>,
    port: Option<u16>,
    container: &Container<'_>,
) -> Option<&'l mut Listener> {
    let addr = addr?;
    let name = match port {
        Some(port) if addr.contains(':') => format!("[{addr}]:{port}"),
        Some(port) => format!("{addr}:{port}"),
        None => addr.to_owned(),
    };
    let container = container.container_id.as_deref().unwrap_or_default();
    let row = rows.row(&format!("{container}\t{name}"));
    row.name = name;
    Some(row)
}

/// Returns whether a client had a handshake with a listener before. From now on it is known, if there is room.
fn is_known(clients: &mut HashSet<String>, client: Option<&str>, listener: &str) -> bool {
    let Some(client) = client.filter(|client| client.len() <= CLIENT_BYTES_MAX) else {
        return false;
    };
    let name = format!("{listener} {client}");
    let is_known = clients.contains(&name);
    if !is_known && clients.len() < CLIENTS_MAX {
        clients.insert(name);
    }
    is_known
}
