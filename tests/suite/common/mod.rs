// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the tests share.

/// Which nginx is tested, and how it was built.
pub mod build;
/// Files that the project's scripts keep.
pub mod cached;
/// A cgroup for one test.
pub mod cgroup;
/// ClickHouse's engine.
pub mod clickhouse;
/// A client that sends given bytes.
pub mod client;
/// A receiver of OTLP.
pub mod collector;
/// A disk that does not answer.
pub mod disk;
/// A name server that knows one address.
pub mod dns;
/// A client that speaks HTTP/2.
pub mod http2;
/// A client that speaks HTTP/3.
pub mod http3;
/// A program that looks like nginx.
pub mod imitation;
/// What holds for every record.
pub mod invariants;
/// The frame of a server that a test writes itself.
pub mod listener;
/// Load generators.
pub mod load;
/// nginx, started for one test.
pub mod nginx;
/// nginx with some of its bytes changed.
pub mod patched;
/// Ports on which an nginx of a test may listen.
pub mod ports;
/// Programs that a test writes, runs and ends.
pub mod program;
/// The protocols of upstreams other than HTTP.
pub mod protocol;
/// Records, and the access log with which they are compared.
pub mod record;
/// Recorded lines.
pub mod recorded;
/// A real server from a Debian package.
pub mod screen;
pub mod server;
/// The service, without systemd.
pub mod service;
/// The project's own sources.
pub mod sources;
/// Spans, as they are decoded.
pub mod spans;
/// TCP sockets, as the kernel describes them.
pub mod tcp;
/// A client that speaks TLS.
pub mod tls;
/// The tool under test.
pub mod tool;
/// An upstream that does what the uri says.
pub mod upstream;
/// Records of a busy site.
pub mod varied;
/// Namespaces for one test.
pub mod yard;

use std::fmt::Debug;
use std::io::BufRead as _;
use std::io::BufReader;
use std::io::Read;
use std::sync::mpsc::Receiver;
use std::sync::mpsc::channel;
use std::time::Duration;
use std::time::Instant;

/// The longest time for which a test waits for anything.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Returns the lines of a stream as they arrive. The receiver ends with the stream.
pub fn lines(stream: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut reader = BufReader::new(stream);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            if sender.send(text).is_err() {
                return;
            }
            line.clear();
        }
    });
    receiver
}

/// Repeats an attempt until it has a value, and returns that. Panics with what the last one lacked when that takes
/// longer than `PATIENCE`.
pub fn wait_for<T>(mut attempt: impl FnMut() -> Result<T, String>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        match attempt() {
            Ok(value) => return value,
            Err(lacking) => assert!(Instant::now() < end, "{lacking}"),
        }
        std::thread::yield_now();
    }
}

/// Waits until something is so. Panics with `lacking` in the same way.
pub fn wait_until(lacking: &str, mut is_so: impl FnMut() -> bool) {
    wait_for(|| is_so().then_some(()).ok_or_else(|| lacking.to_owned()));
}

/// Waits until a value is right, and returns it. Panics with the value in the same way.
pub fn wait_right<T: Debug>(mut read: impl FnMut() -> T, is_right: impl Fn(&T) -> bool) -> T {
    wait_for(|| {
        let value = read();
        if is_right(&value) {
            return Ok(value);
        }
        Err(format!("{value:#?}"))
    })
}

/// Waits for a time that is an input of a test. It must not be used to wait for an event.
pub fn delay(time: Duration) {
    let end = Instant::now() + time;
    while let Some(left) = end.checked_duration_since(Instant::now()) {
        std::thread::park_timeout(left);
    }
}
