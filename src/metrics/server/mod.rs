// SPDX-License-Identifier: MIT OR Apache-2.0
//! The HTTP server of the metrics: `GET /metrics`, and a line at `/` that names this path. One
//! thread serves a few connections at once, each for a bounded time. A connection that has not sent
//! its request is closed when a later one needs its place.

use std::io;
use std::io::Read as _;
use std::net::Shutdown;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::rc::Rc;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::event::Timespec;
use rustix::event::poll;

use super::exposition::Format;
use super::exposition::Registry;
use super::host::Hosts;
use crate::host::privileges;
use client::Client;
use client::ClientState;
use client::Progress;
use client::TIME;
use client::read;
use http::HEADER_BYTES;
use http::HttpRequest;
use http::Response;

mod client;
mod http;

/// The most connections at once. Each may hold a body with all metrics.
const CLIENTS_MAX: usize = 16;

/// The longest time between two looks at all connections.
const TURN: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 200_000_000,
};

/// The pause when no connection can be accepted, for want of a descriptor.
const PAUSE: Duration = Duration::from_millis(100);

/// The longest time for which an answer is used again that no client reads any more; counters are updated as often. One that
/// is still being read is used again for at most `TIME`, so that slow clients do not hold a body each.
const FRESH: Duration = Duration::from_millis(100);

/// Starts a thread that serves metrics. It ends with the process.
pub fn start(address: SocketAddr, registry: Registry) -> io::Result<()> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let hosts = Hosts::bound_to(address.ip());
    thread::Builder::new()
        .name("metrics".to_owned())
        .spawn(move || {
            privileges::drop_all();
            Server::new(listener, hosts, registry).serve_forever();
        })?;
    Ok(())
}

/// The state of the thread.
struct Server {
    /// The listening socket.
    listener: TcpListener,
    /// The names that a request may have in `Host`.
    hosts: Hosts,
    registry: Registry,
    /// The connections, the oldest first.
    clients: Vec<Client>,
    /// The last body of each format that was asked for, and the time at which it was made.
    bodies: Vec<(Format, Instant, Rc<[u8]>)>,
}

impl Server {
    /// Creates a server without connections.
    fn new(listener: TcpListener, hosts: Hosts, registry: Registry) -> Self {
        Self {
            listener,
            hosts,
            registry,
            clients: Vec::new(),
            bodies: Vec::new(),
        }
    }

    /// Serves connections for ever.
    fn serve_forever(mut self) {
        loop {
            let is_full = self.clients.len() == CLIENTS_MAX && self.evictable().is_none();
            let mut fds: Vec<_> = self.clients.iter().map(Client::poll_fd).collect();
            if !is_full {
                fds.push(PollFd::new(&self.listener, PollFlags::IN));
            }
            /* All connections are tried, ready or not: they are few, and none of them blocks. */
            let _ = poll(&mut fds, Some(&TURN));
            drop(fds);
            if !is_full {
                self.accept();
            }
            let now = Instant::now();
            for mut client in std::mem::take(&mut self.clients) {
                if client.deadline > now && self.serve(&mut client).is_ok_and(|goes_on| goes_on) {
                    self.clients.push(client);
                }
            }
        }
    }

    /// Accepts one new connection. If there is no place for it, the oldest connection that has not
    /// sent its request is closed.
    fn accept(&mut self) {
        match self.listener.accept() {
            Ok((stream, _)) => {
                if self.clients.len() == CLIENTS_MAX
                    && let Some(oldest) = self.evictable()
                {
                    self.clients.remove(oldest);
                }
                if stream.set_nonblocking(true).is_ok() {
                    self.clients.push(Client::new(stream));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => thread::sleep(PAUSE),
        }
    }

    /// Returns the oldest connection that waits for no answer: its request has not come yet, or its
    /// answer was sent whole.
    fn evictable(&self) -> Option<usize> {
        let mut clients = self.clients.iter();
        clients.position(|client| !matches!(client.state, ClientState::Writing(_)))
    }

    /// Serves a connection as far as possible without blocking. Returns false when the connection
    /// is finished.
    fn serve(&mut self, client: &mut Client) -> io::Result<bool> {
        loop {
            match &mut client.state {
                ClientState::Reading(header) => {
                    let request = match read(&mut client.stream, header)? {
                        Progress::Blocked => return Ok(true),
                        Progress::Closed => return Ok(false),
                        Progress::Done => std::mem::take(header),
                    };
                    client.state = ClientState::Writing(self.answer(&request).into());
                    client.deadline = Instant::now() + TIME;
                }
                ClientState::Writing(answer) => match answer.write(&mut client.stream)? {
                    Progress::Blocked => return Ok(true),
                    Progress::Closed => return Ok(false),
                    Progress::Done => {
                        client.stream.shutdown(Shutdown::Write)?;
                        client.state = ClientState::Closing;
                    }
                },
                /* The answer might be lost if the connection was closed while bytes are unread. */
                ClientState::Closing => {
                    return match client.stream.read(&mut [0; 4096]) {
                        Ok(len) => Ok(len > 0),
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(true),
                        Err(error) => Err(error),
                    };
                }
            }
        }
    }

    /// Returns the answer to a header.
    fn answer(&mut self, header: &[u8]) -> Response {
        let Some(request) = HttpRequest::parse(header) else {
            return match header.len() {
                ..=HEADER_BYTES => Response::plain("400 Bad Request", "this is not HTTP\n"),
                _ => Response::plain("431 Request Header Fields Too Large", "too much\n"),
            };
        };
        let mut response = if !request.hosts.iter().all(|host| self.hosts.has(host)) {
            Response::plain(
                "421 Misdirected Request",
                "this name is not served: ask by address, or by the name of this machine\n",
            )
        } else if !["GET", "HEAD"].contains(&request.method) {
            Response::plain("405 Method Not Allowed", "GET or HEAD\n")
        } else {
            match request.path {
                "/metrics" => self.metrics(Format::accepted(&request.accept)),
                "/" => Response::plain("200 OK", "ngx-bpf: the metrics are at /metrics\n"),
                _ => Response::plain("404 Not Found", "the metrics are at /metrics\n"),
            }
        };
        response.is_head = request.method == "HEAD";
        response
    }

    /// Returns all metrics, or the last answer if that is fresh or still being read.
    fn metrics(&mut self, format: Format) -> Response {
        self.bodies.retain(|(_, at, body)| {
            let age = at.elapsed();
            age < FRESH || (age < TIME && Rc::strong_count(body) > 1)
        });
        let mut bodies = self.bodies.iter();
        let fresh = bodies.find(|(of, _, _)| *of == format);
        let body = match fresh {
            Some((_, _, body)) => Rc::clone(body),
            None => {
                let body = Rc::from(self.registry.encode(format));
                self.bodies.push((format, Instant::now(), Rc::clone(&body)));
                body
            }
        };
        Response {
            status: "200 OK",
            content_type: format.content_type(),
            body,
            is_head: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::collections::VecDeque;
    use std::net::TcpListener;
    use std::rc::Rc;

    use super::CLIENTS_MAX;
    use super::FRESH;
    use super::Hosts;
    use super::Registry;
    use super::Server;
    use super::TIME;
    use crate::metrics::exposition::Counter;

    /// Check that clients that do not read their answers hold two bodies at most, and that an answer which no client reads
    /// any more is not used again.
    #[test]
    fn held_bodies() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let hosts = Hosts::bound_to(listener.local_addr().unwrap().ip());
        let (mut registry, counter) = (Registry::default(), Counter::default());
        registry.register_one("c", "A counter", &counter);
        let mut server = Server::new(listener, hosts, registry);
        let mut held = VecDeque::new();
        /* Each client comes `FRESH` after the one before it, and is closed `TIME` later. */
        let steps = usize::try_from(TIME.as_millis() / FRESH.as_millis()).unwrap();
        let (mut bodies, mut most) = (BTreeSet::new(), 0);
        for _ in 0..10 * steps {
            counter.inc();
            let response = server.answer(b"GET /metrics HTTP/1.1\r\n\r\n");
            bodies.insert(response.body.to_vec());
            held.push_back(response.body);
            if held.len() > steps.min(CLIENTS_MAX) {
                held.pop_front();
            }
            for (_, at, _) in &mut server.bodies {
                *at -= FRESH;
            }
            let distinct: BTreeSet<_> = held.iter().map(Rc::as_ptr).collect();
            most = most.max(distinct.len());
        }
        assert!(most <= 2, "{most}");
        assert!(bodies.len() >= 9, "{}", bodies.len());
        let last = held.back().unwrap().to_vec();
        drop(held);
        let response = server.answer(b"GET /metrics HTTP/1.1\r\n\r\n");
        assert_ne!(response.body.to_vec(), last);
    }
}
