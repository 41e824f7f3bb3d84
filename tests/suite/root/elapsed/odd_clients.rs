// SPDX-License-Identifier: MIT OR Apache-2.0
//! Clients of every protocol, all at once: fast, slow and incomplete.

use std::io::Read as _;
use std::io::Write as _;
use std::net::TcpStream;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use rustls::version::TLS13;

use crate::suite::common::client::Client;
use crate::suite::common::client::reset;
use crate::suite::common::delay;
use crate::suite::common::http2;
use crate::suite::common::http2::Http2;
use crate::suite::common::load::h2load;
use crate::suite::common::load::protocols;
use crate::suite::common::load::repeat;
use crate::suite::common::tls::Tls;

/// The uris of a load generator's requests.
const URIS: [&str; 5] = [
    "/file",
    "/return",
    "/proxied/",
    "/proxied/wait-3",
    "/mirrored",
];

/// The least number of connections of each thread of odd clients, which have every kind four times.
const CONNECTIONS: usize = 48;

/// Sends requests to two ports, without and with TLS, in every way until there are enough.
pub fn send_until(plain: u16, tls: u16, is_enough: impl Fn() -> bool + Sync) {
    let protocols = protocols(plain, tls, "5");
    let is_over = AtomicBool::new(false);
    let odd = |part: usize| {
        for n in 0.. {
            let client = match n % 5 {
                0 => Tls::begin(tls, &TLS13, &["http/1.1"])
                    .finish()
                    .into_client(),
                _ => Client::connect(plain),
            };
            odd_http1(n + 2 * part, client);
            if part == 0 {
                odd_http2(tls);
                reset_http1(plain);
            }
            if n >= CONNECTIONS && is_enough() {
                break;
            }
        }
        is_over.store(true, Ordering::Relaxed);
    };
    thread::scope(|scope| {
        repeat(scope, &protocols, &is_over, |args, base| {
            let status = h2load(args, base, &URIS, 300, 3).wait().unwrap();
            assert!(status.success());
        });
        for part in 0..6 {
            let odd = &odd;
            scope.spawn(move || odd(part));
        }
    });
}

/// Waits for some milliseconds.
fn pause(ms: u64) {
    delay(Duration::from_millis(ms));
}

/// Returns a request of HTTP/1 without a body.
fn get(uri: &str) -> String {
    format!("GET {uri} HTTP/1.1\r\nHost: t\r\n\r\n")
}

/// Returns a request with half of its body.
fn post(uri: &str) -> String {
    format!("POST {uri} HTTP/1.1\r\nHost: t\r\nContent-Length: 6\r\n\r\nabc")
}

/// The request that is the last one on its connection.
const LAST: &str = "GET /return HTTP/1.0\r\n\r\n";

/// Sends requests of HTTP/1 in one of many ways: fast, slow, or incomplete.
fn odd_http1(n: usize, client: Client) {
    match n % 12 {
        way @ 0..5 => incomplete_http1(way, client),
        way => complete_http1(way, client),
    }
}

/// Leaves before the answer, or stalls.
fn incomplete_http1(way: usize, mut client: Client) {
    match way {
        /* It leaves before the answer, and within a header. */
        0 => {
            client.send(get("/proxied/wait-30"));
            pause(10);
        }
        1 => {
            client.send("GET /return HTTP/1.1\r\nHo");
            pause(5);
        }
        /* It stalls within a header, within a body, and before it reads. */
        2 => {
            client.send("GET /return HTTP/1.1\r\nHo");
            client.rest();
        }
        3 => {
            client.send(post("/proxied/"));
            client.rest();
        }
        _ => {
            client.send(get("/large"));
            pause(300);
        }
    }
}

/// Sends whole requests, slowly or at once, and reads the answers.
fn complete_http1(way: usize, mut client: Client) {
    match way {
        /* It is slow and complete, unless the machine is slower than nginx's time limits. */
        5 | 6 => {
            let request = post(["/proxied/", "/unbuffered/"][way % 2]);
            client.send(&request[..30]);
            pause(7);
            client.try_send(&request[30..]);
            pause(7);
            client.try_send("def");
            client.try_send(LAST);
            client.rest();
        }
        /* It sends a body that nginx does not read, and one that comes after the answer. */
        7 => {
            client.send(post("/return"));
            client.receive();
            pause(10);
            client.try_send("def");
            client.try_send(LAST);
            client.rest();
        }
        /* It pipelines requests. */
        8 => {
            let uris = [
                "/proxied/wait-5",
                "/return",
                "/mirrored",
                "/file",
                "/return",
            ];
            client.send(uris.map(get).concat());
            uris.iter().for_each(|_| drop(client.receive()));
        }
        9 => {
            client.send([get("/after"), get("/return")].concat());
            client.receive();
            client.receive();
        }
        /* It gets no answer, or uses an old protocol. */
        10 => {
            client.send(get("/bye"));
            client.rest();
        }
        _ => {
            client.send("GET /file\r\n");
            client.rest();
        }
    }
}

/// Opens streams that are reset before and within their responses, among others.
fn odd_http2(port: u16) {
    let stream = Tls::begin(port, &TLS13, &["h2"]).finish().into_stream();
    let mut http = Http2::start(stream, 1000);
    let slow = [http2::get(1, "/proxied/wait-30"), http2::get(3, "/large")].concat();
    http.send(&slow);
    http.send(&[http2::post(5, "/proxied/"), http2::get(7, "/return")].concat());
    http.receive([7]);
    pause(10);
    http.send(&[http2::reset(1), http2::reset(3), http2::body(5, b"abc")].concat());
    http.receive([5]);
}

/// Resets its connection within a response.
fn reset_http1(port: u16) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.write_all(get("/large").as_bytes()).unwrap();
    stream.read_exact(&mut [0; 1000]).unwrap();
    reset(&stream);
}
