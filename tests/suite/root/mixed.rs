// SPDX-License-Identifier: MIT OR Apache-2.0
//! Everything at once: every client protocol, several kinds of upstreams, four workers, two
//! reloads.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;

use ngx_bpf_record::values::Alpn;

use crate::suite::common::build::is_built_without;
use crate::suite::common::load::h2load;
use crate::suite::common::load::protocols;
use crate::suite::common::load::repeat;
use crate::suite::common::nginx::Config;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::protocol::Protocol;
use crate::suite::common::record::assert_equal;
use crate::suite::common::tls;
use crate::suite::common::tool::Tool;
use crate::suite::common::upstream::Upstream;

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
        for part in 1..=3 {
            nginx.wait_logged(REQUESTS * part / 3);
            if part < 3 {
                nginx.signal("HUP");
            }
        }
        is_over.store(true, Ordering::Relaxed);
    });
}

/// Check that each of ten thousand requests has one record that equals nginx's log, with its phases
/// in order.
#[test]
fn everything_at_once() {
    if ["http_auth_request_module", "http-cache"]
        .into_iter()
        .any(is_built_without)
    {
        return;
    }
    let upstream = Upstream::start();
    let fastcgi = Upstream::speaking(Protocol::Fastcgi);
    let backend = [tls::DIRECTIVES, BACKEND].concat();
    let back = Nginx::prepared(&backend, upstream.port, tls::certificate);
    let (http, port) = tls::with_port(HTTP);
    let http = http
        .replace("{backend}", &back.port.to_string())
        .replace("{fastcgi}", &fastcgi.port.to_string());
    let config = Config {
        http: &http,
        upstream: upstream.port,
        workers: 4,
        ..Config::default()
    };
    let nginx = Nginx::prepared_with(&config, tls::certificate);
    nginx.file("file", b"hello");
    nginx.file("large", &vec![b'x'; 200_000]);
    let tool = Tool::trace(nginx.pid());
    send_all(&nginx, port);
    let logged = nginx.quit();
    let ended = tool.wait();
    ended.assert_clean();
    assert!(logged.len() >= REQUESTS);
    let records = ended.records();
    assert_eq!(records.len(), logged.len());
    assert_equal(&records, &logged);
    let of = |what: &str| {
        records
            .iter()
            .filter(|r| r.uri.as_deref() == Some(what))
            .count()
    };
    for uri in URIS {
        assert!(of(uri) > REQUESTS / 20, "{uri}");
    }
    let with_tls = records.iter().filter(|r| r.tls.alpn == Some(Alpn::H2));
    assert!(with_tls.count() > REQUESTS / 10);
    drop(back);
}
