// SPDX-License-Identifier: MIT OR Apache-2.0
//! A worker that does not come back to its event loop for a while: here it is stopped.

use std::io::Write as _;
use std::net::TcpStream;
use std::sync::mpsc::channel;

use rustls::version::TLS13;

use super::DELAY;
use super::DELAY_MS;
use super::assert_about;
use crate::suite::common::build::is_before;
use crate::suite::common::build::is_built_with;
use crate::suite::common::build::is_built_without;
use crate::suite::common::client::Client;
use crate::suite::common::delay;
use crate::suite::common::http2;
use crate::suite::common::http2::Http2;
use crate::suite::common::listener::listen;
use crate::suite::common::listener::read_head;
use crate::suite::common::nginx::Config;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::ports::free_port;
use crate::suite::common::program::kill;
use crate::suite::common::program::stop;
use crate::suite::common::record::Record;
use crate::suite::common::tls;
use crate::suite::common::tls::Tls;
use crate::suite::common::tool::Tool;
use crate::suite::root::requests::traced;

/// Every protocol over TCP, and a proxy.
const HTTP: &str = "
    server {
        listen 127.0.0.1:{port};
        listen 127.0.0.1:{tls} ssl http2;
        location / { return 200 'hello\\n'; }
        location /proxy { proxy_pass http://127.0.0.1:{upstream}; }
    }";

/// Returns the records of requests to this nginx.
fn records(upstream: u16, requests: impl FnOnce(&Nginx, u16)) -> Vec<Record> {
    let (http, tls) = tls::with_port(HTTP);
    let nginx = Nginx::prepared(&http, upstream, tls::certificate);
    traced(nginx, |nginx| requests(nginx, tls))
}

/// Stops the worker for a while, in which `meanwhile` happens.
fn stopped<T>(nginx: &Nginx, meanwhile: impl FnOnce() -> T) -> T {
    let worker = nginx.workers()[0];
    stop(worker);
    let happened = meanwhile();
    delay(DELAY);
    kill("CONT", worker);
    happened
}

/// The stream module in front of a server, with what it waits for before it hands a connection over.
const PASSING: &str = "
    stream {
        ssl_certificate {prefix}/cert.pem;
        ssl_certificate_key {prefix}/key.pem;
        server { listen 127.0.0.1:{tls} ssl; pass 127.0.0.1:{port}; }
        server { listen 127.0.0.1:{preread}; ssl_preread on; pass 127.0.0.1:{port}; }
    }";

/// Check connections that the stream module has accepted, and has handed over late: what it waited for is
/// not the time in the queue.
#[test]
fn passed_connections() {
    if is_before((1, 25, 5), "the directive pass")
        || is_built_without("--with-stream_ssl_preread_module")
        || is_built_without("--with-stream_ssl_module")
    {
        return;
    }
    if is_built_with("--with-stream=dynamic") {
        println!("SKIP: this nginx has the stream module in a file that may not be there");
        return;
    }
    let [tls, preread] = [free_port(), free_port()];
    let main = PASSING.replace("{tls}", &tls.to_string());
    let config = Config {
        main: &main.replace("{preread}", &preread.to_string()),
        http: "server { listen 127.0.0.1:{port}; location / { return 200 'hello\n'; } }",
        ..Config::default()
    };
    let nginx = Nginx::prepared_with(&config, tls::certificate);
    let tool = Tool::trace(nginx.pid());
    Client::connect(nginx.port).get("/");
    let stream = TcpStream::connect(("127.0.0.1", tls)).unwrap();
    delay(DELAY);
    let session = Tls::over(stream, &TLS13, &[]).finish();
    session.into_client().get("/");
    let mut client = Client::connect(preread);
    delay(DELAY);
    client.get("/");
    drop(client);
    nginx.quit();
    let ended = tool.wait();
    ended.assert_clean();
    /* `server_port` is not compared: it is that of the stream module's server. */
    let records = ended.records();
    let found: Vec<_> = records
        .iter()
        .map(|record| record.waits.accept_queue_ns.is_some())
        .collect();
    assert_eq!(found, [true, false, false], "{records:#?}");
}

/// Check connections that are not accepted at once: only their first requests have the time.
#[test]
fn accept_queue() {
    let records = records(9, |nginx, tls| {
        let mut client = stopped(nginx, || Client::connect(nginx.port));
        client.get("/");
        client.get("/");
        let stream = stopped(nginx, || TcpStream::connect(("127.0.0.1", tls)));
        let session = Tls::over(stream.unwrap(), &TLS13, &[]).finish();
        session.into_client().get("/");
        let stream = stopped(nginx, || TcpStream::connect(("127.0.0.1", tls)));
        let session = Tls::over(stream.unwrap(), &TLS13, &["h2"]).finish();
        let mut client = Http2::start(session.into_stream(), 65_535);
        for stream in [1, 3] {
            client.send(&http2::get(stream, "/"));
            client.receive([stream]);
        }
    });
    for (n, record) in records.iter().enumerate() {
        if record.connection_requests == Some(1) {
            assert_about(record.waits.accept_queue_ns, DELAY_MS);
        } else {
            assert_eq!(record.waits.accept_queue_ns, None, "{n}");
        }
        assert_eq!(record.waits.read_wait_ns, None, "{record:#?}");
    }
    let first = records
        .iter()
        .filter(|record| record.connection_requests == Some(1));
    assert_eq!(first.count(), 3, "{records:#?}");
}

/// Check requests that are not read at once: on a new connection and on a kept one, over each protocol.
#[test]
fn read_wait() {
    let records = records(9, |nginx, tls| {
        let request = "GET /late HTTP/1.1\r\nHost: test\r\n\r\n";
        /* What comes before nginx has ended the request before is not waited for. */
        let mut client = Client::connect(nginx.port);
        for before in [1, 3] {
            client.get("/");
            nginx.wait_logged(before);
            stopped(nginx, || client.send(request));
            client.receive();
        }
        let mut client = Tls::begin(tls, &TLS13, &[]).finish().into_client();
        client.get("/");
        nginx.wait_logged(5);
        stopped(nginx, || client.send(request));
        client.receive();
        let session = Tls::begin(tls, &TLS13, &["h2"]).finish();
        let mut client = Http2::start(session.into_stream(), 65_535);
        client.send(&http2::get(1, "/"));
        client.receive([1]);
        nginx.wait_logged(7);
        stopped(nginx, || client.send(&http2::get(3, "/late")));
        client.receive([3]);
    });
    for record in &records {
        if record.request_uri.as_deref() == Some("/late") {
            assert!(record.waits.read_wait_ns.is_some(), "{record:#?}");
            assert_about(record.waits.read_wait_ns, DELAY_MS);
        } else {
            /* A slow machine adds a little. */
            let is_short = |ns| ns < DELAY_MS * 500_000;
            assert!(
                record.waits.read_wait_ns.is_none_or(is_short),
                "{record:#?}"
            );
        }
    }
    assert_eq!(records.len(), 8);
}

/// Check a response that is not read at once.
#[test]
fn upstream_read_wait() {
    let (asked, is_asked) = channel();
    let (answer, may_answer) = channel::<()>();
    let upstream = listen(move |mut stream| {
        read_head(&mut stream).unwrap();
        asked.send(()).unwrap();
        may_answer.recv().unwrap();
        stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nhello").unwrap();
    });
    let records = records(upstream, |nginx, _| {
        let mut client = Client::connect(nginx.port);
        client.send("GET /proxy HTTP/1.1\r\nHost: test\r\n\r\n");
        is_asked.recv().unwrap();
        stopped(nginx, || answer.send(()).unwrap());
        client.receive();
    });
    let waits = &records[0].waits;
    assert_about(waits.upstream_read_wait_ns, DELAY_MS);
    assert_eq!(waits.read_wait_ns, None);
}
