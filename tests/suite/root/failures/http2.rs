// SPDX-License-Identifier: MIT OR Apache-2.0
//! Upstreams that speak HTTP/2: gRPC, and proxy where it supports it.

use std::net::Shutdown;
use std::sync::Arc;

use crate::suite::common::PATIENCE;
use crate::suite::common::build::is_before;
use crate::suite::common::client::Stream;
use crate::suite::common::client::reset;
use crate::suite::common::delay;
use crate::suite::common::http2::Frames;
use crate::suite::common::listener::listen;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::tls;
use crate::suite::common::tls::Served;
use crate::suite::root::failures::assert_all_kinds;
use crate::suite::root::failures::log::compared;
use crate::suite::root::failures::plan::Plan;

/// The name of a script, the frames of a gRPC server, and how its connection ends then.
type Script = (&'static str, Frames, &'static str);

/// Starts a server that answers `answered` requests correctly and then ends its connections in this
/// way. Returns its port.
fn serve(frames: Frames, ending: &'static str, is_tls: bool, answered: usize) -> u16 {
    let config = tls::server_config();
    listen(move |stream| {
        let served = Served::new(stream.try_clone().unwrap(), Arc::clone(&config));
        let other: Box<dyn Stream> = if is_tls {
            Box::new(served.clone())
        } else {
            Box::new(stream.try_clone().unwrap())
        };
        let _ = frames.serve(other, answered);
        match ending {
            "hang" => delay(PATIENCE),
            /* nginx may still send its remaining bytes; otherwise the connection would be reset. */
            "close" => {
                if is_tls {
                    served.close();
                }
                let _ = stream.shutdown(Shutdown::Write);
                delay(PATIENCE);
            }
            "reset" => reset(&stream),
            _ => {}
        }
    })
}

/// The scripts.
const SCRIPTS: [Script; 13] = [
    ("close", Frames(&[]), "close"),
    ("reset", Frames(&[]), "reset"),
    ("hang", Frames(&[]), "hang"),
    ("rst", Frames(&[Frames::RESET]), "hang"),
    ("goaway", Frames(&[Frames::GOAWAY]), "hang"),
    ("broken", Frames(&[Frames::BROKEN]), "hang"),
    ("data", Frames(&[Frames::PIECE]), "hang"),
    (
        "half-close",
        Frames(&[Frames::HALF, Frames::PIECE]),
        "close",
    ),
    ("half-hang", Frames(&[Frames::HALF, Frames::PIECE]), "hang"),
    (
        "half-rst",
        Frames(&[Frames::HALF, Frames::PIECE, Frames::RESET]),
        "hang",
    ),
    (
        "half-broken",
        Frames(&[Frames::HALF, Frames::PIECE, Frames::BROKEN]),
        "hang",
    ),
    (
        "half-long-rst",
        Frames(&[Frames::HALF, Frames::LONG, Frames::RESET]),
        "hang",
    ),
    (
        "half-long-broken",
        Frames(&[Frames::HALF, Frames::LONG, Frames::BROKEN]),
        "hang",
    ),
];

/// Adds the locations of gRPC for a script, and their requests: without and with TLS, on a new
/// connection and on a kept one.
fn add_grpc(plan: &mut Plan, (name, frames, ending): Script) {
    for (scheme, is_tls) in [("grpc", false), ("grpcs", true)] {
        let port = serve(frames, ending, is_tls, 0);
        let content = format!("grpc_pass {scheme}://127.0.0.1:{port};");
        plan.location(&format!("/{scheme}/{name}"), &content);
        plan.get(format!("/{scheme}/{name}"));
        let port = serve(frames, ending, is_tls, 1);
        let upstream = format!("{scheme}-{name}");
        plan.upstream(&upstream, &format!("server 127.0.0.1:{port}; keepalive 1;"));
        let content = format!("grpc_pass {scheme}://{upstream};");
        plan.location(&format!("/{scheme}/kept/{name}/"), &content);
        plan.get(format!("/{scheme}/kept/{name}/n-1/{ending}"));
    }
}

/// Adds the locations of proxy for a script, and their requests: with buffering and without.
fn add_proxy(plan: &mut Plan, (name, frames, ending): Script) {
    for (kind, buffering) in [("h2", "on"), ("h2-unbuffered", "off")] {
        let port = serve(frames, ending, false, 0);
        let content = format!(
            "proxy_http_version 2; proxy_buffering {buffering}; proxy_pass http://127.0.0.1:{port};"
        );
        plan.location(&format!("/{kind}/{name}"), &content);
        plan.get(format!("/{kind}/{name}"));
    }
}

/// Check failures of gRPC, and of proxy where it speaks HTTP/2: streams can be reset, and
/// connections end with a frame.
#[test]
fn grpc() {
    let mut plan = Plan::new(&["grpc", "proxy"]);
    plan.http += "client_body_buffer_size 2m; client_max_body_size 2m;\n";
    for script in SCRIPTS {
        add_grpc(&mut plan, script);
    }
    if !is_before((1, 29, 4), "proxy_http_version 2") {
        for script in SCRIPTS {
            add_proxy(&mut plan, script);
        }
    }
    /* A server whose window never opens again. */
    let port = serve(Frames(&[]), "hang", false, 0);
    plan.location("/window", &format!("grpc_pass grpc://127.0.0.1:{port};"));
    plan.post("/window", 1 << 20);
    /* Few connections at once, because each handshake keeps nginx from reading other bytes. */
    let nginx = Nginx::with(&plan.configuration(), 9);
    let (records, names) = compared(nginx, |nginx| plan.send(nginx.port, 8));
    assert_all_kinds(&names);
    for record in &records {
        let is_second = record.uri.as_deref().unwrap().contains("/n-1");
        let attempt = &record.upstreams[0];
        assert!(!is_second || attempt.reused == Some(true), "{record:#?}");
    }
}
