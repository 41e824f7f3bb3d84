// SPDX-License-Identifier: MIT OR Apache-2.0
//! The nginx under load, and the rows of the tool on it.

use std::fs;

use tempfile::TempDir;

use crate::common::build::binary;
use crate::common::build::kept;
use crate::common::nginx::Config;
use crate::common::nginx::Nginx;
use crate::common::ports::free_port;
use crate::common::tls;
use crate::load::Load;
use crate::load::raise_descriptors;
use crate::row::Row;
use crate::run::Run;
use crate::tracing::SYSTEM_CALLS;
use crate::tracing::metrics;

/// The server under load. A log of its own would be measured, too.
pub const HTTP: &str = r#"
    access_log off; keepalive_requests 100000000;
    log_format times escape=json '{"time":"$time_iso8601","addr":"$remote_addr","method":"$request_method","uri":"$request_uri","status":$status,"size":$bytes_sent,"request_time":$request_time,"upstream_addr":"$upstream_addr","upstream_connect_time":"$upstream_connect_time","upstream_header_time":"$upstream_header_time","upstream_response_time":"$upstream_response_time"}';
    upstream kept { server 127.0.0.1:{upstream}; keepalive 64; keepalive_requests 100000000; }
    proxy_http_version 1.1;
    proxy_set_header Connection '';
    server {
        listen 127.0.0.1:{port};
        location /static { return 200 'hello\n'; }
        location /proxied { proxy_pass http://kept; }
        location /logged/static { access_log {prefix}/times.log times; return 200 'hello\n'; }
        location /logged/proxied { access_log {prefix}/times.log times; proxy_pass http://kept; }
        location /page { root {prefix}/html; default_type text/plain; gzip on; gzip_types text/plain; }
        location / { root {prefix}/html; sendfile on; }
    }"#;

/// The servers of TLS.
const TLS: &str = "
    server { listen 127.0.0.1:{tls} ssl; location / { return 200 'hello\\n'; } }
    server { listen 127.0.0.1:{http2} ssl http2; location / { return 200 'hello\\n'; } }";

/// The server of HTTP/3, and a build that has it.
const QUIC: &str = "
    access_log off; keepalive_requests 100000000;
    server { listen 127.0.0.1:{http3} quic; location / { return 200 'hello\\n'; } }";
const WITH_QUIC: &str = "source-clang/objs/nginx.stripped";

/// The server of many connections that wait.
const CROWD: &str = "
    access_log off; keepalive_requests 100000000; keepalive_timeout 1h;
    server { listen 127.0.0.1:{port} backlog=4096; location / { return 200 'hello\\n'; } }";

/// The connections that wait, what their nginx may have, and the descriptors that this takes.
const IDLE: usize = 10_000;
const CONNECTIONS: usize = 12_000;
const DESCRIPTORS: u64 = 12_000;

/// The configuration of the upstream.
const UPSTREAM: &str = "
    access_log off; keepalive_requests 100000000;
    server { listen 127.0.0.1:{port}; location / { return 200 'hello\\n'; } }";

/// Options of the tool, and whether their row is one of the most important ones.
const OPTIONS: [(&str, &[&str], bool); 7] = [
    ("", &[], true),
    (", by system calls", &SYSTEM_CALLS, false),
    (", --sample 100", &["--sample", "100"], true),
    (", --status 5xx", &["--status", "5xx"], false),
    (", --tcp", &["--tcp"], false),
    (", --connections", &["--connections"], false),
    (", --blocked", &["--blocked"], false),
];

/// nginx and its upstream.
pub struct Site {
    pub nginx: Nginx,
    pub upstream: Nginx,
    tls: u16,
    http2: u16,
    /// The upstream runs a file of its own, because probes on the traced file would be hit in it, too.
    _folder: TempDir,
}

impl Site {
    pub fn start() -> Self {
        let folder = TempDir::new().unwrap();
        let copy = folder.path().join("nginx");
        fs::copy(binary(), &copy).unwrap();
        let upstream = Nginx::start(&Config {
            http: UPSTREAM,
            binary: copy,
            ..Config::default()
        });
        let http2 = free_port();
        let (http, tls) = tls::with_port(&[HTTP, TLS].concat());
        let http = http.replace("{http2}", &http2.to_string());
        let nginx = Nginx::prepared(&http, upstream.port, tls::certificate);
        nginx.file("1m.bin", &vec![b'x'; 1 << 20]);
        nginx.file("page", words().as_bytes());
        Self {
            nginx,
            upstream,
            tls,
            http2,
            _folder: folder,
        }
    }

    /// Measures the tool with several options on requests for a uri.
    pub fn options(&self, run: &mut Run, other: &Nginx, name: &str, uri: &str) {
        let load = || Load::http1(self.nginx.port, uri);
        for (option, args, is_quick) in OPTIONS {
            let row = Row::tool(&format!("{name}{option}"), &self.nginx, load(), args);
            run.measure(&if is_quick { row.quick() } else { row });
        }
        run.measure(&Row::started(
            &format!("{name}, --metrics, -o /dev/null"),
            &self.nginx,
            load(),
            |program| metrics(program, &self.nginx),
        ));
        /* What it costs before a program can see that the process is not traced. */
        let row = format!("{name}, another nginx is traced");
        let start = |program: &str| crate::tracing::of_build(program, other, &[]);
        run.measure(&Row::started(&row, &self.nginx, load(), start));
        let row = Row::tool(&format!("{name}, pinned"), &self.nginx, load(), &[]);
        run.measure(&row.pinned(self.upstream.workers()));
    }

    /// Measures the tool on other protocols, sizes and numbers of connections.
    pub fn loads(&self, run: &mut Run) {
        let (nginx, port) = (&self.nginx, self.nginx.port);
        let http1 = |url| Load::Http1 {
            url,
            connections: crate::load::CONNECTIONS,
        };
        let at = |scheme, port: u16, uri| format!("{scheme}://127.0.0.1:{port}{uri}");
        for (name, load, args) in [
            ("TLS", http1(at("https", self.tls, "/")), &[][..]),
            (
                "HTTP/2 over TLS, 10 streams each",
                Load::Http2 {
                    url: at("https", self.http2, "/"),
                },
                &[],
            ),
            ("1 MB file", Load::http1(port, "/1m.bin"), &[]),
            (
                "1 MB file, by system calls",
                Load::http1(port, "/1m.bin"),
                &SYSTEM_CALLS,
            ),
            (
                "gzip, 32 KiB of text",
                Load::Gzip {
                    url: at("http", port, "/page"),
                },
                &[],
            ),
            (
                "100 connections",
                Load::connections(port, "/static", 100),
                &[],
            ),
        ] {
            run.measure(&Row::tool(name, nginx, load, args));
        }
    }
}

/// Returns 32 KiB that compress as text does.
fn words() -> String {
    let mut text = String::new();
    let mut state = 1_u32;
    while text.len() < 32 << 10 {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        text += [
            "the ",
            "time of ",
            "each ",
            "request, ",
            "nginx ",
            "waits\n",
        ][(state >> 16) as usize % 6];
        if state >> 28 == 0 {
            text += &format!("{state:x} ");
        }
    }
    text
}

/// Measures the tool on HTTP/3, if there are a build and a client that have it.
pub fn http3(run: &mut Run) {
    let name = "HTTP/3, 10 streams of a slow client";
    if !run.wants(name, false) {
        return;
    }
    let (Some(binary), Some(_)) = (kept(WITH_QUIC), kept("aioquic/bin/python")) else {
        return run.skip(name, "make test-nginx has not made the build or the client");
    };
    let port = free_port();
    let (http, _) = tls::with_port(&QUIC.replace("{http3}", &port.to_string()));
    let config = Config {
        http: &http,
        binary,
        ..Config::default()
    };
    let nginx = Nginx::prepared_with(&config, tls::certificate);
    run.measure(&Row::tool(name, &nginx, Load::Http3 { port }, &[]));
}

/// Measures the tool beside many connections that wait.
pub fn crowd(run: &mut Run) {
    let name = "10,000 idle connections beside 16";
    if !run.wants(name, false) {
        return;
    }
    if !raise_descriptors(DESCRIPTORS) {
        return run.skip(name, "this process may not have 12,000 descriptors");
    }
    let nginx = Nginx::start(&Config {
        http: CROWD,
        connections: CONNECTIONS,
        main: &format!("worker_rlimit_nofile {DESCRIPTORS};"),
        ..Config::default()
    });
    let load = Load::Crowd {
        port: nginx.port,
        idle: IDLE,
    };
    run.measure(&Row::tool(name, &nginx, load, &[]));
}
