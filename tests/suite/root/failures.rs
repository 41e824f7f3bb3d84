// SPDX-License-Identifier: MIT OR Apache-2.0
//! `failure` of attempts: the reported reason is the one in nginx's error log, for every module for
//! upstreams.

use std::collections::BTreeSet;

use crate::suite::common::build::MEMCACHED;
use crate::suite::common::build::REWRITE;
use crate::suite::common::build::is_built_with;
use crate::suite::common::client::Client;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::protocol::Protocol;
use crate::suite::common::upstream::Upstream;
use crate::suite::root::modules::params;
use log::compared;

/// Connects that fail.
mod connects;
/// TLS handshakes that fail.
mod handshakes;
/// Upstreams that speak HTTP/2.
mod http2;
/// nginx's error log as the reference.
mod log;
/// Subrequests and temporary files.
mod subrequests;

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

/// Returns the locations of one module: with new connections, with kept ones, and without
/// buffering.
fn locations(name: &str, module: &str, scheme: &str, upstream: &str, kept: &str) -> String {
    let params = match module {
        "memcached" => "set $memcached_key $request_uri;".to_owned(),
        "grpc" | "proxy" => String::new(),
        _ => params(module),
    };
    let unbuffered = match module {
        "memcached" | "grpc" => String::new(),
        _ => format!(
            "location /{name}/unbuffered/ {{ {params} {module}_buffering off; {module}_pass {scheme}{upstream}; }}"
        ),
    };
    let with_kept = match module {
        "proxy" => "proxy_http_version 1.1; proxy_set_header Connection '';",
        "fastcgi" => "fastcgi_keep_conn on;",
        _ => "",
    };
    format!(
        "location /{name}/ {{ {params} {module}_pass {scheme}{upstream}; }}
         {unbuffered}
         location /{name}/kept/ {{ {params} {with_kept} {module}_pass {scheme}{kept}; }}"
    )
}

/// Returns the directives with the time limits for upstreams of a module.
fn times(module: &str) -> String {
    format!(
        "{module}_connect_timeout 400ms; {module}_read_timeout 400ms; {module}_send_timeout 400ms; {module}_next_upstream off;\n"
    )
}

/// Asserts that every failure occurred that an upstream can cause by its bytes or by its silence.
fn assert_all_kinds(names: &BTreeSet<String>) {
    for name in [
        "closed",
        "reset",
        "timeout",
        "send_timeout",
        "invalid_header",
        "invalid_body",
    ] {
        assert!(names.contains(name), "{name}: {names:?}");
    }
}

/// Returns whether memcached can be an upstream: the key is set by another module.
fn has_memcached() -> bool {
    is_built_with(MEMCACHED) && is_built_with(REWRITE)
}

/// Check every kind of failure that an upstream can cause by its bytes and by its silence, for
/// every module except grpc, over TLS where the module supports it, on new connections and kept
/// ones, with buffering and without.
#[test]
fn modules() {
    let kinds = [
        ("http", "proxy", "http://", Protocol::Http, false),
        ("https", "proxy", "https://", Protocol::Http, true),
        ("fastcgi", "fastcgi", "", Protocol::Fastcgi, false),
        ("uwsgi", "uwsgi", "", Protocol::Uwsgi, false),
        ("uwsgis", "uwsgi", "suwsgi://", Protocol::Uwsgi, true),
        ("scgi", "scgi", "", Protocol::Scgi, false),
        ("memcached", "memcached", "", Protocol::Memcached, false),
    ];
    let mut kinds = kinds.to_vec();
    kinds.retain(|(_, module, ..)| *module != "memcached" || has_memcached());
    let mut http =
        "error_log {prefix}/error.log; client_max_body_size 64m; client_body_buffer_size 64m;\n"
            .to_owned();
    for module in kinds
        .iter()
        .map(|(_, module, ..)| *module)
        .collect::<BTreeSet<_>>()
    {
        http += &times(module);
    }
    let mut server = String::new();
    for (name, module, scheme, protocol, is_tls) in kinds.iter().copied() {
        let upstream = if is_tls {
            Upstream::speaking_tls(protocol)
        } else {
            Upstream::speaking(protocol)
        };
        let address = format!("127.0.0.1:{}", upstream.port);
        http += &format!("upstream {name} {{ server {address}; keepalive 4; }}\n");
        server += &locations(name, module, scheme, &address, name);
    }
    server += "location /unix/ { proxy_pass http://unix:{prefix}/up.sock:; }
               location /unix/unbuffered/ { proxy_pass http://unix:{prefix}/up.sock:; proxy_buffering off; }";
    let http = format!("{http} server {{ listen 127.0.0.1:{{port}}; {server} }}");
    let nginx = Nginx::prepared(&http, 9, |folder| {
        Upstream::start_unix(&folder.join("up.sock"))
    });
    let scripts = [
        "close",
        "reset",
        "hang",
        "junk",
        "nonsense",
        "half-1000/wait-30/close",
        "half-1000/wait-30/reset",
        "half-1000/hang",
        "half-1000",
        "endless/half-1000/wait-30/close",
        "endless/half-1000/wait-30/reset",
        "endless/half-1000/hang",
        "half-100000/wait-30/close",
        "half-100000/hang",
        "chunk/wait-30/close",
        "chunk/wait-30/reset",
        "chunk/hang",
        "chunk/wait-30/broken-chunk/wait-1000",
        "body-1000",
        "endless/body-1000",
    ];
    let names: Vec<&str> = kinds.iter().map(|(name, ..)| *name).collect();
    let mut requests = Vec::new();
    for name in names.iter().chain(&["unix"]) {
        for kind in ["", "/unbuffered", "/kept"] {
            let has_unbuffered = !matches!(*name, "memcached");
            if (kind == "/unbuffered" && !has_unbuffered) || (kind == "/kept" && *name == "unix") {
                continue;
            }
            for script in scripts {
                let is_http = matches!(*name, "http" | "https" | "unix");
                if script.contains("chunk") && (!is_http || kind.is_empty()) {
                    /* nginx speaks HTTP/1.0 in these locations. */
                    continue;
                }
                let uri = format!("/{name}{kind}/n-{}/{script}", requests.len());
                requests.push((uri, Vec::new()));
            }
            if *name != "memcached" {
                let uri = format!("/{name}{kind}/n-{}/deaf", requests.len());
                requests.push((uri, vec![b'x'; 24 << 20]));
            }
        }
    }
    let (_, names) = compared(nginx, |nginx| {
        for some in requests.chunks(20) {
            send_all(nginx.port, some);
        }
    });
    assert_all_kinds(&names);
}
