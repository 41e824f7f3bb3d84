// SPDX-License-Identifier: MIT OR Apache-2.0
//! Many locations of one nginx, and the requests for them.

use crate::suite::common::client::Client;

/// A configuration in the making, and the requests that belong to it. `{port}` and `{prefix}` are
/// replaced later.
pub struct Plan {
    /// The content of `http` before the server.
    pub http: String,
    /// The content of the server.
    pub server: String,
    /// The uri and the body of each request.
    pub requests: Vec<(String, Vec<u8>)>,
}

impl Plan {
    /// Makes a plan without locations, with an error log and the time limits of these modules.
    pub fn new(modules: &[&str]) -> Self {
        let times = modules.iter().map(|module| times(module));
        Self {
            http: "error_log {prefix}/error.log;\n".to_owned() + &times.collect::<String>(),
            server: String::new(),
            requests: Vec::new(),
        }
    }

    /// Adds an upstream group.
    pub fn upstream(&mut self, name: &str, content: &str) {
        self.http += &format!("upstream {name} {{ {content} }}\n");
    }

    /// Adds a location.
    pub fn location(&mut self, place: &str, content: &str) {
        self.server += &format!("location {place} {{ {content} }}\n");
    }

    /// Adds a request without a body.
    pub fn get(&mut self, uri: impl Into<String>) {
        self.requests.push((uri.into(), Vec::new()));
    }

    /// Adds a request with a body of this size.
    pub fn post(&mut self, uri: impl Into<String>, size: usize) {
        self.requests.push((uri.into(), vec![b'x'; size]));
    }

    /// Returns the content of `http`.
    pub fn configuration(&self) -> String {
        let Self { http, server, .. } = self;
        format!("{http} server {{ listen 127.0.0.1:{{port}}; {server} }}")
    }

    /// Sends all requests, at most `at_once` at a time, each on a connection of its own, and reads
    /// the responses.
    pub fn send(&self, port: u16, at_once: usize) {
        for some in self.requests.chunks(at_once) {
            send_all(port, some);
        }
    }
}

/// Returns the directives with the time limits for upstreams of a module.
fn times(module: &str) -> String {
    format!(
        "{module}_connect_timeout 400ms; {module}_read_timeout 400ms; {module}_send_timeout 400ms; {module}_next_upstream off;\n"
    )
}

/// Sends each request on a connection of its own, all at once, and reads the responses.
fn send_all(port: u16, requests: &[(String, Vec<u8>)]) {
    std::thread::scope(|scope| {
        for (uri, body) in requests {
            scope.spawn(move || {
                let mut client = Client::connect(port);
                if uri.contains("/kept") {
                    client.get(&format!("{}/warm", &uri[..uri.find("/n-").unwrap()]));
                }
                let method = if body.is_empty() { "GET" } else { "POST" };
                client.send(format!(
                    "{method} {uri} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\
                     Content-Length: {}\r\n\r\n",
                    body.len()
                ));
                client.send(body);
                client.rest();
            });
        }
    });
}
