// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the tests share.

/// Which nginx is tested, and how it was built.
pub mod build;
/// Files that the project's scripts keep.
pub mod cached;
/// A client that sends given bytes.
pub mod client;
/// A name server that knows one address.
pub mod dns;
/// A client that speaks HTTP/2.
pub mod http2;
/// A client that speaks HTTP/3.
pub mod http3;
/// A program that looks like nginx.
pub mod imitation;
/// Load generators.
pub mod load;
/// nginx, started for one test.
pub mod nginx;
/// nginx with some of its bytes changed.
pub mod patched;
/// Programs that a test writes, runs and ends.
pub mod program;
/// The protocols of upstreams other than HTTP.
pub mod protocol;
/// Records, and the access log with which they are compared.
pub mod record;
/// Recorded lines.
pub mod recorded;
/// A real server from a Debian package.
pub mod server;
/// The service, without systemd.
pub mod service;
/// A client that speaks TLS.
pub mod tls;
/// The tool under test.
pub mod tool;
/// An upstream that does what the uri says.
pub mod upstream;
/// Namespaces for one test.
pub mod yard;

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

/// Waits for a time that is an input of a test. It must not be used to wait for an event.
pub fn delay(time: Duration) {
    let end = Instant::now() + time;
    while let Some(left) = end.checked_duration_since(Instant::now()) {
        std::thread::park_timeout(left);
    }
}

/// Returns a port of 127.0.0.1 and [::1] without a listener, another one each time. It is below the
/// ports that the kernel gives to clients (32768 and up), of which one may be in use by the time
/// nginx binds it.
pub fn free_port() -> u16 {
    use std::net::TcpListener;
    use std::sync::atomic::AtomicU32;
    use std::sync::atomic::Ordering;

    const FIRST: u32 = 10_000;
    const COUNT: u32 = 22_000;
    /* Suites that run at the same time start at different ports. */
    const STEP: u32 = 977;
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    loop {
        let number = std::process::id()
            .wrapping_mul(STEP)
            .wrapping_add(TAKEN.fetch_add(1, Ordering::Relaxed));
        let port = u16::try_from(FIRST + number % COUNT).unwrap();
        let is_free = |host| TcpListener::bind((host, port)).is_ok();
        if is_free("127.0.0.1") && is_free("::1") {
            return port;
        }
    }
}
