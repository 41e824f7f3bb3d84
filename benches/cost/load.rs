// SPDX-License-Identifier: MIT OR Apache-2.0
//! What nginx has to do while it is measured.

use std::io::Read as _;
use std::io::Write as _;
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;
use std::time::Instant;

use rustix::process::Resource;
use rustix::process::Rlimit;
use rustix::process::getrlimit;
use rustix::process::setrlimit;

use crate::common::http3::Http3;
use crate::common::load::wrk_with;

/// The connections of a load, unless its row says another number.
pub const CONNECTIONS: u32 = 16;

/// Streams of a connection at the same time.
const STREAMS: u64 = 10;

/// The longest answer to a request on a connection that is idle afterwards.
const ANSWER: usize = 512;

/// A load.
pub enum Load {
    /// Requests one after the other on some connections: HTTP/1, with TLS if the url says so.
    Http1 { url: String, connections: u32 },
    /// The same by a client that takes gzip.
    Gzip { url: String },
    /// Connections of HTTP/2, each with some streams at the same time.
    Http2 { url: String },
    /// One connection of HTTP/3 with some streams at the same time.
    Http3 { port: u16 },
    /// HTTP/1 beside connections that have sent one request each, and no more.
    Crowd { port: u16, idle: usize },
}

/// What a client has made ready before it is measured.
pub enum Ready {
    Nothing,
    Idle(Vec<TcpStream>),
    Http3(Http3),
}

impl Load {
    /// Returns requests of HTTP/1 on a port of 127.0.0.1.
    pub fn http1(port: u16, uri: &str) -> Self {
        Self::connections(port, uri, CONNECTIONS)
    }

    /// The same on a number of connections.
    pub fn connections(port: u16, uri: &str, connections: u32) -> Self {
        Self::Http1 {
            url: format!("http://127.0.0.1:{port}{uri}"),
            connections,
        }
    }

    /// Connects what is to be there before the load.
    pub fn ready(&self) -> Ready {
        match self {
            Self::Crowd { port, idle } => {
                Ready::Idle((0..*idle).map(|_| answered(*port)).collect())
            }
            Self::Http3 { port } => Ready::Http3(Http3::connect(*port)),
            _ => Ready::Nothing,
        }
    }

    /// Sends requests for a number of seconds. Returns how many were answered.
    pub fn send(&self, ready: &mut Ready, seconds: u32) -> u64 {
        match self {
            Self::Http1 { url, connections } => wrk_with(url, *connections, seconds, &[]),
            Self::Gzip { url } => {
                let header = "Accept-Encoding: gzip";
                wrk_with(url, CONNECTIONS, seconds, &["-H", header])
            }
            Self::Crowd { port, .. } => {
                Self::connections(*port, "/static", CONNECTIONS).send(ready, seconds)
            }
            Self::Http2 { url } => h2load(url, seconds),
            Self::Http3 { .. } => {
                let Ready::Http3(client) = ready else {
                    unreachable!("ready() has connected it")
                };
                http3(client, seconds)
            }
        }
    }

    /// Ends what was connected, and waits until nginx has handled that.
    pub fn end(&self, ready: Ready) {
        drop(ready);
        if let Self::Crowd { port, .. } = self {
            answered(*port);
        }
    }
}

/// Connects, and gets one answer.
fn answered(port: u16) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let request = b"GET /static HTTP/1.1\r\nHost: test\r\n\r\n";
    stream.write_all(request).unwrap();
    let mut answer = [0; ANSWER];
    let read = stream.read(&mut answer).unwrap();
    assert!(answer[..read].starts_with(b"HTTP/1.1 200"));
    stream
}

/// Sends requests of HTTP/2. Returns how many were answered.
fn h2load(url: &str, seconds: u32) -> u64 {
    let output = Command::new("h2load")
        .args(["-t", "1", "-D", &seconds.to_string()])
        .args(["-c", &CONNECTIONS.to_string()])
        .args(["-m", &STREAMS.to_string(), url])
        .output()
        .expect("h2load is installed by make test");
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find(|line| line.starts_with("requests: "));
    line.and_then(|line| {
        line.split(", ")
            .find_map(|part| part.strip_suffix(" succeeded"))
    })
    .and_then(|count| count.parse().ok())
    .filter(|count| *count > 0)
    .unwrap_or_else(|| panic!("{text}"))
}

/// Sends requests of HTTP/3. Returns how many were answered.
fn http3(client: &mut Http3, seconds: u32) -> u64 {
    let end = Instant::now() + Duration::from_secs(seconds.into());
    let mut next = 0;
    while Instant::now() < end {
        let streams = (next..next + STREAMS).map(|n| 4 * n);
        for stream in streams.clone() {
            client.get(stream, "/");
        }
        client.receive(streams);
        next += STREAMS;
    }
    next
}

/// Lets this process, and what it starts, have this number of descriptors. Returns whether it may.
pub fn raise_descriptors(count: u64) -> bool {
    let now = getrlimit(Resource::Nofile);
    if now.current.is_none_or(|current| current >= count) {
        return true;
    }
    let maximum = now.maximum.map(|maximum| maximum.max(count));
    let wanted = Rlimit {
        current: Some(count),
        maximum,
    };
    setrlimit(Resource::Nofile, wanted).is_ok()
}
