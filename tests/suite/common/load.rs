// SPDX-License-Identifier: MIT OR Apache-2.0
//! Load generators.

use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread::Scope;

use super::program::kill;

/// Sends requests one after the other on several connections until it is dropped. It opens a new
/// connection when nginx closes one.
pub struct Load(Child);

impl Load {
    /// Starts the load on a port of 127.0.0.1.
    pub fn start(port: u16, uri: &str) -> Self {
        let child = Command::new("wrk")
            .args(["-t1", "-c16", "-d10m"])
            .arg(format!("http://127.0.0.1:{port}{uri}"))
            .stdout(Stdio::null())
            .spawn();
        Self(child.expect("wrk is installed by make test"))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        kill("INT", self.0.id());
        let _ = self.0.wait();
    }
}

/// Loads a port of 127.0.0.1 for a number of seconds. Returns how many requests were answered.
pub fn wrk(port: u16, uri: &str, connections: u32, seconds: u32) -> u64 {
    let url = format!("http://127.0.0.1:{port}{uri}");
    wrk_with(&url, connections, seconds, &[])
}

/// Does the same with any url, and more arguments of wrk. Panics when an answer is an error.
pub fn wrk_with(url: &str, connections: u32, seconds: u32, args: &[&str]) -> u64 {
    let output = Command::new("wrk")
        .args(["-t1", &format!("-c{connections}"), &format!("-d{seconds}s")])
        .args(args)
        .arg(url)
        .output()
        .expect("wrk is installed by make test");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(!text.contains("Non-2xx"), "{url}: {text}");
    text.lines()
        .find_map(|line| line.split_once(" requests in "))
        .and_then(|(count, _)| count.trim().parse().ok())
        .unwrap_or_else(|| panic!("{text}"))
}

/// Returns the arguments of h2load, and the beginning of the uris, for HTTP/1, for HTTP/1 over TLS
/// and for HTTP/2 with this number of streams.
pub fn protocols(plain: u16, tls: u16, streams: &'static str) -> [(Vec<&'static str>, String); 3] {
    [
        (vec!["--h1"], format!("http://127.0.0.1:{plain}")),
        (vec!["--h1"], format!("https://127.0.0.1:{tls}")),
        (vec!["-m", streams], format!("https://127.0.0.1:{tls}")),
    ]
}

/// Calls a function again and again for each of these protocols, in threads of a scope, until
/// `is_over`. `protocols()` returns the protocols; the function gets both values of one.
pub fn repeat<'s>(
    scope: &'s Scope<'s, '_>,
    protocols: &'s [(Vec<&'static str>, String)],
    is_over: &'s AtomicBool,
    send: impl Fn(&[&str], &str) + Clone + Send + 's,
) {
    for (args, base) in protocols {
        let send = send.clone();
        scope.spawn(move || {
            while !is_over.load(Ordering::Relaxed) {
                send(args, base);
            }
        });
    }
}

/// Sends `count` requests on a number of connections, to each of these uris in turn.
pub fn h2load(args: &[&str], base: &str, uris: &[&str], count: usize, connections: u32) -> Child {
    let uris = uris.iter().map(|uri| format!("{base}{uri}"));
    Command::new("h2load")
        .args(["-n", &count.to_string(), "-t", "1"])
        .args(["-c", &connections.to_string()])
        .args(args)
        .args(uris)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("h2load is installed by make test")
}
