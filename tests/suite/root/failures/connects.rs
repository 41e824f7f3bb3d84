// SPDX-License-Identifier: MIT OR Apache-2.0
//! Connects that fail, or are not made.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::net::TcpStream;
use std::os::fd::AsRawFd as _;

use crate::suite::common::nginx::Nginx;
use crate::suite::root::failures::has_memcached;
use crate::suite::root::failures::log::SERVERS;
use crate::suite::root::failures::log::compared;
use crate::suite::root::failures::plan::Plan;

/// The modules for upstreams, each with its scheme.
const MODULES: [(&str, &str); 9] = [
    ("proxy", "http://"),
    ("proxy", "https://"),
    ("fastcgi", ""),
    ("uwsgi", ""),
    ("uwsgi", "suwsgi://"),
    ("scgi", ""),
    ("memcached", ""),
    ("grpc", "grpc://"),
    ("grpc", "grpcs://"),
];

/// Returns upstream groups that can't be connected to. The server at `full_port` does not answer.
fn groups(full_port: u16) -> [(&'static str, String); 5] {
    [
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
    ]
}

/// Check connects that are not answered, that are refused, at once or later, and that are not made
/// because no server is up; for every module, with one server and with several.
#[test]
fn connects() {
    let full = TcpListener::bind("127.0.0.1:0").unwrap();
    let full_port = full.local_addr().unwrap().port();
    // SAFETY: the descriptor is a listening socket. From here on one connection may wait.
    assert_eq!(unsafe { libc::listen(full.as_raw_fd(), 0) }, 0);
    let waiting = TcpStream::connect(("127.0.0.1", full_port)).unwrap();
    let groups = groups(full_port);
    let mut modules = MODULES.to_vec();
    modules.retain(|(module, _)| *module != "memcached" || has_memcached());
    let names: BTreeSet<&str> = modules.iter().map(|(module, _)| *module).collect();
    let mut plan = Plan::new(&Vec::from_iter(names));
    for (name, servers) in &groups {
        plan.upstream(name, servers);
    }
    for (module, scheme) in modules {
        let directive = match module {
            "memcached" => "set $memcached_key $request_uri;",
            _ => "",
        };
        for (name, _) in &groups {
            let next = match *name {
                "both" => format!("{module}_next_upstream error timeout;"),
                _ => String::new(),
            };
            let uri = format!("/{name}/{}", plan.requests.len());
            let content = format!("{directive} {next} {module}_pass {scheme}{name};");
            plan.location(&uri, &content);
            plan.get(uri);
        }
    }
    let nginx = Nginx::with(&plan.configuration(), 9);
    let (records, names) = compared(nginx, |nginx| plan.send(nginx.port, plan.requests.len()));
    drop(waiting);
    assert_eq!(records.len(), plan.requests.len());
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
