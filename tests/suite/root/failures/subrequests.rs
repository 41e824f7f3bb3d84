// SPDX-License-Identifier: MIT OR Apache-2.0
//! Responses that fail in a subrequest, or while they are written to a file.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::time::Duration;

use crate::suite::common::build::REWRITE;
use crate::suite::common::build::is_built_without;
use crate::suite::common::client::Client;
use crate::suite::common::delay;
use crate::suite::common::listener::listen;
use crate::suite::common::listener::read_head;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::upstream::Upstream;
use crate::suite::root::failures::log::compare;
use crate::suite::root::failures::log::said;
use crate::suite::root::failures::plan::Plan;
use crate::suite::root::requests::traced;

/// Starts a server that answers the first slice of a file, and half of every other one. Returns its
/// port.
fn serve_slices() -> u16 {
    listen(|mut stream| {
        let head = String::from_utf8(read_head(&mut stream).unwrap()).unwrap();
        let (from, size) = match head.contains("Range: bytes=0-") {
            true => (0, 4096),
            false => (4096, 2048),
        };
        let head = format!(
            "HTTP/1.1 206 Partial Content\r\nContent-Length: 4096\r\nETag: \"1\"\r\n\
             Content-Range: bytes {from}-{}/8192\r\n\r\n",
            from + 4095
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(&vec![b'x'; size]).unwrap();
        delay(Duration::from_millis(30));
    })
}

/// A server with subrequests, and with responses that are written to files.
const SERVER: &str = "
    root {prefix}/html;
    location /page.html { ssi on; }
    location /part/ { proxy_pass http://127.0.0.1:{upstream}; }
    location /mirror/ { mirror /copy; rewrite ^ /static break; }
    location /auth/ { auth_request /copy; rewrite ^ /static break; }
    location /copy { internal; proxy_pass http://127.0.0.1:{upstream}$request_uri; }
    location /sliced {
        slice 4k; proxy_cache cache; proxy_cache_key $uri$slice_range;
        proxy_cache_valid 206 1h; proxy_set_header Range $slice_range;
        proxy_pass http://127.0.0.1:{slices};
    }
    location /cached/ {
        proxy_cache cache; proxy_cache_valid any 1h; proxy_cache_key $request_uri;
        proxy_pass http://127.0.0.1:{upstream};
    }
    location /stored/ {
        proxy_store {prefix}/stored-$connection; proxy_pass http://127.0.0.1:{upstream};
    }
    location /slow/ { limit_rate 200k; proxy_pass http://127.0.0.1:{upstream}; }
";

/// How its upstream fails after the header, and one response that is whole.
const SCRIPTS: [&str; 9] = [
    "half-1000/wait-30/close",
    "half-1000/wait-30/reset",
    "half-1000/hang",
    "half-200000/wait-30/close",
    "half-200000/hang",
    "chunk/wait-30/close",
    "chunk/hang",
    "chunk/wait-30/broken-chunk/wait-1000",
    "body-1000",
];

/// Plans the server, and the requests for every script.
fn plan() -> Plan {
    let mut plan = Plan::new(&["proxy"]);
    plan.http += "proxy_http_version 1.1;
        proxy_cache_path {prefix}/cache keys_zone=cache:1m;
        proxy_buffers 2 4k; proxy_buffer_size 4k; proxy_busy_buffers_size 4k;";
    plan.server += &SERVER.replace("{slices}", &serve_slices().to_string());
    plan.get("/sliced");
    for script in SCRIPTS {
        for page in [
            format!("one={script}&two=body-10"),
            format!("one=body-10&two={script}"),
            format!("one={script}&two=half-2000/wait-300/close"),
        ] {
            plan.get(format!("/page.html?{page}"));
        }
        for kind in ["mirror", "auth", "cached", "stored", "slow"] {
            plan.get(format!("/{kind}/{script}"));
        }
    }
    plan
}

/// Sends four requests whose client leaves, while nginx goes on.
fn leave(nginx: &Nginx) {
    for kind in ["cached", "stored"] {
        for script in ["half-1000/wait-200/close", "half-1000/hang"] {
            let mut client = Client::connect(nginx.port);
            client.send(format!(
                "GET /{kind}/left/{script} HTTP/1.1\r\nHost: t\r\n\r\n"
            ));
            client.some();
        }
    }
}

/// Check responses that fail after their header and belong to a subrequest (of SSI, mirror, slice
/// and auth_request), or are written to a file: for the cache, for proxy_store, or because the
/// client is slow.
#[test]
fn subrequests_and_files() {
    let modules = [
        "http_auth_request_module",
        "http_slice_module",
        "http-cache",
    ];
    if modules.into_iter().chain([REWRITE]).any(is_built_without) {
        return;
    }
    let upstream = Upstream::start();
    let plan = plan();
    let nginx = Nginx::with(&plan.configuration(), upstream.port);
    nginx.file(
        "page.html",
        b"<!--#include virtual=\"/part/${arg_one}\" --> and <!--#include virtual=\"/part/${arg_two}\" -->",
    );
    nginx.file("static", b"static");
    let count = plan.requests.len() + 4;
    let mut logged = BTreeMap::new();
    let records = traced(nginx, |nginx| {
        plan.send(nginx.port, 20);
        leave(nginx);
        nginx.wait_logged(count);
        logged = said(nginx);
    });
    assert_eq!(records.len(), count);
    let names = compare(&records, &logged);
    assert_eq!(
        Vec::from_iter(names),
        ["closed", "invalid_body", "reset", "timeout"]
    );
}
