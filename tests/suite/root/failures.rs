// SPDX-License-Identifier: MIT OR Apache-2.0
//! `failure` of attempts: the reported reason is the one in nginx's error log, for every module for
//! upstreams.

use std::collections::BTreeSet;

use crate::suite::common::build::MEMCACHED;
use crate::suite::common::build::REWRITE;
use crate::suite::common::build::is_built_with;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::protocol::Protocol;
use crate::suite::common::upstream::Upstream;
use crate::suite::root::modules::params;
use log::compared;
use plan::Plan;

/// Connects that fail.
mod connects;
/// TLS handshakes that fail.
mod handshakes;
/// Upstreams that speak HTTP/2.
mod http2;
/// nginx's error log as the reference.
mod log;
/// Many locations of one nginx, and the requests for them.
mod plan;
/// Subrequests and temporary files.
mod subrequests;

/// The name of the locations of a kind of upstream, the module, the scheme, the protocol, and whether
/// it is spoken over TLS.
type Kind = (&'static str, &'static str, &'static str, Protocol, bool);

/// The kinds of upstreams that speak no HTTP/2.
const KINDS: [Kind; 7] = [
    ("http", "proxy", "http://", Protocol::Http, false),
    ("https", "proxy", "https://", Protocol::Http, true),
    ("fastcgi", "fastcgi", "", Protocol::Fastcgi, false),
    ("uwsgi", "uwsgi", "", Protocol::Uwsgi, false),
    ("uwsgis", "uwsgi", "suwsgi://", Protocol::Uwsgi, true),
    ("scgi", "scgi", "", Protocol::Scgi, false),
    ("memcached", "memcached", "", Protocol::Memcached, false),
];

/// What an upstream does in place of a response, or within one (`common::upstream`).
const SCRIPTS: [&str; 20] = [
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

/// Starts an upstream of a kind, and adds its locations: with new connections, with kept ones, and
/// without buffering.
fn add_locations(plan: &mut Plan, (name, module, scheme, protocol, is_tls): Kind) {
    let upstream = if is_tls {
        Upstream::speaking_tls(protocol)
    } else {
        Upstream::speaking(protocol)
    };
    let address = format!("127.0.0.1:{}", upstream.port);
    plan.upstream(name, &format!("server {address}; keepalive 4;"));
    let params = match module {
        "memcached" => "set $memcached_key $request_uri;".to_owned(),
        "proxy" => String::new(),
        _ => params(module),
    };
    let pass = format!("{params} {module}_pass {scheme}");
    plan.location(&format!("/{name}/"), &format!("{pass}{address};"));
    if module != "memcached" {
        let content = format!("{module}_buffering off; {pass}{address};");
        plan.location(&format!("/{name}/unbuffered/"), &content);
    }
    let with_kept = match module {
        "proxy" => "proxy_http_version 1.1; proxy_set_header Connection '';",
        "fastcgi" => "fastcgi_keep_conn on;",
        _ => "",
    };
    let content = format!("{with_kept} {pass}{name};");
    plan.location(&format!("/{name}/kept/"), &content);
}

/// Adds the requests for the locations of a kind of upstream: one for each script, and one whose body
/// is not read.
fn add_requests(plan: &mut Plan, name: &str) {
    for kind in ["", "/unbuffered", "/kept"] {
        let is_absent = matches!(
            (name, kind),
            ("memcached", "/unbuffered") | ("unix", "/kept")
        );
        if is_absent {
            continue;
        }
        for script in SCRIPTS {
            let is_http = matches!(name, "http" | "https" | "unix");
            if script.contains("chunk") && (!is_http || kind.is_empty()) {
                /* nginx speaks HTTP/1.0 in these locations. */
                continue;
            }
            plan.get(format!("/{name}{kind}/n-{}/{script}", plan.requests.len()));
        }
        if name != "memcached" {
            let uri = format!("/{name}{kind}/n-{}/deaf", plan.requests.len());
            plan.post(uri, 24 << 20);
        }
    }
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
    let mut kinds = KINDS.to_vec();
    kinds.retain(|(_, module, ..)| *module != "memcached" || has_memcached());
    let modules: BTreeSet<&str> = kinds.iter().map(|(_, module, ..)| *module).collect();
    let mut plan = Plan::new(&Vec::from_iter(modules));
    plan.http += "client_max_body_size 64m; client_body_buffer_size 64m;\n";
    for kind in &kinds {
        add_locations(&mut plan, *kind);
    }
    let pass = "proxy_pass http://unix:{prefix}/up.sock:;";
    plan.location("/unix/", pass);
    plan.location("/unix/unbuffered/", &format!("{pass} proxy_buffering off;"));
    for name in kinds.iter().map(|(name, ..)| *name).chain(["unix"]) {
        add_requests(&mut plan, name);
    }
    let nginx = Nginx::prepared(&plan.configuration(), 9, |folder| {
        Upstream::start_unix(&folder.join("up.sock"))
    });
    let (_, names) = compared(nginx, |nginx| plan.send(nginx.port, 20));
    assert_all_kinds(&names);
}
