// SPDX-License-Identifier: MIT OR Apache-2.0
//! Everything at once: every client protocol, several kinds of upstreams, four workers, two
//! reloads, and clients that do random things.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;

use ngx_bpf_record::values::Alpn;
use ngx_bpf_record::values::End;

use crate::suite::common::build::is_built_without;
use crate::suite::common::http3;
use crate::suite::common::http3::Http3;
use crate::suite::common::invariants::assert_invariants;
use crate::suite::common::load::h2load;
use crate::suite::common::load::protocols;
use crate::suite::common::load::repeat;
use crate::suite::common::nginx::Config;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::protocol::Protocol;
use crate::suite::common::record::Logged;
use crate::suite::common::record::Record;
use crate::suite::common::record::assert_equal;
use crate::suite::common::tls;
use crate::suite::common::tool::Tool;
use crate::suite::common::upstream::Upstream;

/// Clients that do random things.
mod odd;

/// The least number of requests.
const REQUESTS: usize = 10_000;

/// The uris of a client's requests, in order.
const URIS: [&str; 9] = [
    "/file",
    "/large",
    "/new/",
    "/kept/body-5000",
    "/tls/",
    "/fastcgi/",
    "/cached/",
    "/auth/",
    "/missing",
];

/// The server, without and with TLS.
const HTTP: &str = "
    keepalive_requests 40;
    proxy_cache_path {prefix}/cache keys_zone=cache:1m;
    upstream kept { server 127.0.0.1:{upstream}; keepalive 8; }
    upstream tls { server 127.0.0.1:{backend}; keepalive 4; }
    server {
        listen 127.0.0.1:{port};
        listen 127.0.0.1:{tls} ssl http2;
        root {prefix}/html;
        proxy_http_version 1.1;
        proxy_set_header Connection '';
        location / { }
        location /new/ { proxy_pass http://127.0.0.1:{upstream}; proxy_set_header Connection close; }
        location /kept/ { proxy_pass http://kept; proxy_buffering off; }
        location /tls/ { proxy_pass https://tls; }
        location /fastcgi/ { fastcgi_pass 127.0.0.1:{fastcgi}; fastcgi_param REQUEST_URI $request_uri; }
        location /cached/ { proxy_cache cache; proxy_cache_valid 200 1s; proxy_pass http://kept; }
        location /auth/ { auth_request /check; proxy_pass http://kept; }
        location /check { internal; proxy_pass http://kept; }
        location /refused { proxy_pass http://127.0.0.1:9; }
        {quic}
    }";

/// The server that speaks TLS to the one above.
const BACKEND: &str = "
    server { listen 127.0.0.1:{port} ssl; location / { proxy_pass http://127.0.0.1:{upstream}; } }";

/// Sends all requests by every protocol, and reloads nginx twice meanwhile.
fn send_all(nginx: &Nginx, tls_port: u16) {
    let protocols = protocols(nginx.port, tls_port, "10");
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        repeat(scope, &protocols, &is_over, |args, base| {
            let _ = h2load(args, base, &URIS, 500, 6).wait();
        });
        for seed in [1, 2] {
            let (is_over, port) = (&is_over, nginx.port);
            scope.spawn(move || odd::send(port, tls_port, seed, is_over));
        }
        for part in 1..=3 {
            nginx.wait_logged(REQUESTS * part / 3);
            if part < 3 {
                nginx.signal("HUP");
            }
        }
        is_over.store(true, Ordering::Relaxed);
    });
}

/// The upstream servers of the nginx that is traced.
struct Upstreams {
    plain: Upstream,
    fastcgi: Upstream,
    tls: Nginx,
}

impl Upstreams {
    fn start() -> Self {
        let plain = Upstream::start();
        let tls = [tls::DIRECTIVES, BACKEND].concat();
        Self {
            fastcgi: Upstream::speaking(Protocol::Fastcgi),
            tls: Nginx::prepared(&tls, plain.port, tls::certificate),
            plain,
        }
    }

    /// Starts nginx in front of them. Returns its port for TLS, too. `quic`: more of its server.
    fn front(&self, workers: usize, quic: &str) -> (Nginx, u16) {
        let (http, port) = tls::with_port(HTTP);
        let http = http
            .replace("{backend}", &self.tls.port.to_string())
            .replace("{fastcgi}", &self.fastcgi.port.to_string())
            .replace("{quic}", quic);
        let config = Config {
            http: &http,
            upstream: self.plain.port,
            workers,
            ..Config::default()
        };
        let nginx = Nginx::prepared_with(&config, tls::certificate);
        nginx.file("file", b"hello");
        nginx.file("large", &vec![b'x'; 200_000]);
        (nginx, port)
    }
}

/// Returns whether this nginx lacks a module that the server needs, and then prints SKIP.
fn is_not_built() -> bool {
    let modules = ["http_auth_request_module", "http-cache"];
    modules.into_iter().any(is_built_without)
}

/// Asserts what holds for each record, and how the requests for `URIS` ended. `odd` clients ask for some of
/// them, too.
fn assert_all(records: &[Record], least: usize) {
    records.iter().for_each(assert_invariants);
    for uri in URIS {
        let of = records.iter().filter(|r| r.uri.as_deref() == Some(uri));
        let of: Vec<_> = of
            .filter(|r| r.http_host.as_deref() != Some("odd"))
            .collect();
        assert!(of.len() >= least, "{uri}");
        let end = match uri {
            "/missing" => End::Rejected,
            _ => End::Ok,
        };
        for record in of {
            assert_eq!(record.ending.end, Some(end), "{record:#?}");
        }
    }
}

/// Check that each of ten thousand requests, some of them random, has one record that equals nginx's log, with
/// its phases in order, its waits within its time, and its end.
#[test]
fn everything_at_once() {
    if is_not_built() {
        return;
    }
    let upstreams = Upstreams::start();
    let (nginx, port) = upstreams.front(4, "");
    let tool = Tool::trace(nginx.pid());
    send_all(&nginx, port);
    let logged = nginx.quit();
    let ended = tool.wait();
    ended.assert_clean();
    assert!(logged.len() >= REQUESTS);
    let records = ended.records();
    assert_eq!(records.len(), logged.len());
    assert_equal(&records, &logged);
    assert_all(&records, REQUESTS / 20);
    odd::assert_ends(&records);
    let with_tls = records.iter().filter(|r| r.tls.alpn == Some(Alpn::H2));
    assert!(with_tls.count() > REQUESTS / 10);
    drop(upstreams);
}

/// Check the same over HTTP/3, where many streams of two connections go on at once. One worker reads all
/// datagrams. nginx logs a request before its last byte is sent, so that the order of the records differs.
#[test]
fn over_http3() {
    const ROUNDS: usize = 30;
    if http3::is_missing() || is_not_built() {
        return;
    }
    let upstreams = Upstreams::start();
    let (nginx, _) = upstreams.front(1, "listen 127.0.0.1:{port} quic; keepalive_requests 1000;");
    let tool = Tool::trace(nginx.pid());
    let mut clients = [0, 1].map(|_| Http3::connect(nginx.port));
    let mut stream = 0;
    for _ in 0..ROUNDS {
        let streams: Vec<u64> = (0..).map(|n| stream + 4 * n).take(URIS.len()).collect();
        for http in &mut clients {
            for (stream, uri) in streams.iter().zip(URIS) {
                http.get(*stream, uri);
            }
        }
        for http in &mut clients {
            http.receive(streams.iter().copied());
        }
        stream += 4 * URIS.len() as u64;
    }
    clients.into_iter().for_each(Http3::close);
    let mut logged = nginx.quit();
    let ended = tool.wait();
    ended.assert_clean();
    let mut records = ended.records();
    assert_eq!(records.len(), 2 * ROUNDS * URIS.len());
    logged.sort_by_key(Logged::key);
    records.sort_by_key(Record::key);
    assert_equal(&records, &logged);
    assert_all(&records, 2 * ROUNDS);
    drop(upstreams);
}
