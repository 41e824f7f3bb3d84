// SPDX-License-Identifier: MIT OR Apache-2.0
//! Connects that fail, or are not made.

use std::net::TcpListener;
use std::net::TcpStream;
use std::os::fd::AsRawFd as _;

use crate::suite::common::nginx::Nginx;
use crate::suite::root::failures::has_memcached;
use crate::suite::root::failures::log::SERVERS;
use crate::suite::root::failures::log::compared;
use crate::suite::root::failures::send_all;
use crate::suite::root::failures::times;

/// Check connects that are not answered, that are refused, at once or later, and that are not made
/// because no server is up; for every module, with one server and with several.
#[test]
fn connects() {
    let full = TcpListener::bind("127.0.0.1:0").unwrap();
    let full_port = full.local_addr().unwrap().port();
    // SAFETY: the descriptor is a listening socket. From here on one connection may wait.
    assert_eq!(unsafe { libc::listen(full.as_raw_fd(), 0) }, 0);
    let waiting = TcpStream::connect(("127.0.0.1", full_port)).unwrap();
    let servers = [
        ("full", format!("server 127.0.0.1:{full_port};")),
        ("refused", "server 127.0.0.1:9;".to_owned()),
        ("absent", "server unix:{prefix}/none.sock;".to_owned()),
        ("down", "server 127.0.0.1:9 down;".to_owned()),
        (
            "both",
            format!(
                "server 127.0.0.1:9 max_fails=0; server 127.0.0.1:{full_port} max_fails=0;
                 server unix:{{prefix}}/none.sock max_fails=0;"
            ),
        ),
    ];
    let mut http = "error_log {prefix}/error.log;\n".to_owned();
    for module in ["proxy", "fastcgi", "uwsgi", "scgi", "memcached", "grpc"] {
        if module != "memcached" || has_memcached() {
            http += &times(module);
        }
    }
    for (name, servers) in &servers {
        http += &format!("upstream {name} {{ {servers} }}\n");
    }
    let mut server = String::new();
    let mut requests = Vec::new();
    for (module, scheme) in [
        ("proxy", "http://"),
        ("proxy", "https://"),
        ("fastcgi", ""),
        ("uwsgi", ""),
        ("uwsgi", "suwsgi://"),
        ("scgi", ""),
        ("memcached", ""),
        ("grpc", "grpc://"),
        ("grpc", "grpcs://"),
    ] {
        if module == "memcached" && !has_memcached() {
            continue;
        }
        let directive = match module {
            "memcached" => "set $memcached_key $request_uri;",
            _ => "",
        };
        for (name, _) in &servers {
            let next = match *name {
                "both" => format!("{module}_next_upstream error timeout;"),
                _ => String::new(),
            };
            let uri = format!("/{name}/{}", requests.len());
            server +=
                &format!("location {uri} {{ {directive} {next} {module}_pass {scheme}{name}; }}\n");
            requests.push((uri, Vec::new()));
        }
    }
    let http = format!("{http} server {{ listen 127.0.0.1:{{port}}; {server} }}");
    let (records, names) = compared(Nginx::with(&http, 9), |nginx| {
        send_all(nginx.port, &requests);
    });
    drop(waiting);
    assert_eq!(records.len(), requests.len());
    assert_eq!(
        Vec::from_iter(names),
        ["connect_error", "connect_timeout", "no_live_upstreams"]
    );
    for record in &records {
        let is_both = record.uri.as_deref().unwrap().starts_with("/both");
        assert_eq!(record.upstreams.len(), if is_both { SERVERS } else { 1 });
        for attempt in &record.upstreams {
            assert_eq!(attempt.upstream_tls_ns, None, "{record:#?}");
            assert_eq!(attempt.upstream_response_first_byte_time, None);
        }
    }
}
