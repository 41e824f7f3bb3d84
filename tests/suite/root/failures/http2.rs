// SPDX-License-Identifier: MIT OR Apache-2.0
//! Upstreams that speak HTTP/2: gRPC, and proxy where it supports it.

use std::net::Shutdown;
use std::net::TcpListener;
use std::sync::Arc;

use crate::suite::common::PATIENCE;
use crate::suite::common::build::is_before;
use crate::suite::common::client::Stream;
use crate::suite::common::client::reset;
use crate::suite::common::delay;
use crate::suite::common::http2::Frames;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::tls;
use crate::suite::common::tls::Served;
use crate::suite::root::failures::assert_all_kinds;
use crate::suite::root::failures::log::compared;
use crate::suite::root::failures::send_all;
use crate::suite::root::failures::times;

/// The name of a script, the frames of a gRPC server, and how its connection ends then.
type Script = (&'static str, Frames, &'static str);

/// Starts a server that answers `answered` requests correctly and then ends its connections in this
/// way. Returns its port.
fn serve(frames: Frames, ending: &'static str, is_tls: bool, answered: usize) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let config = tls::server_config();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
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
        }
    });
    port
}

/// Check failures of gRPC, and of proxy where it speaks HTTP/2: streams can be reset, and
/// connections end with a frame.
#[test]
fn grpc() {
    let scripts: [Script; 13] = [
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
    let (mut upstreams, mut server) = (String::new(), String::new());
    let mut requests = Vec::new();
    let scripts_of_proxy = scripts
        .iter()
        .map(|(name, frames, ending)| (*name, Frames(frames.0), *ending));
    let scripts_of_proxy: Vec<Script> = scripts_of_proxy.collect();
    for (name, frames, ending) in scripts {
        for (scheme, is_tls) in [("grpc", false), ("grpcs", true)] {
            let port = serve(Frames(frames.0), ending, is_tls, 0);
            server += &format!(
                "location /{scheme}/{name} {{ grpc_pass {scheme}://127.0.0.1:{port}; }}\n"
            );
            requests.push((format!("/{scheme}/{name}"), Vec::new()));
            let port = serve(Frames(frames.0), ending, is_tls, 1);
            upstreams +=
                &format!("upstream {scheme}-{name} {{ server 127.0.0.1:{port}; keepalive 1; }}\n");
            server += &format!(
                "location /{scheme}/kept/{name}/ {{ grpc_pass {scheme}://{scheme}-{name}; }}\n"
            );
            requests.push((format!("/{scheme}/kept/{name}/n-1/{ending}"), Vec::new()));
        }
    }
    if !is_before((1, 29, 4), "proxy_http_version 2") {
        for (name, frames, ending) in scripts_of_proxy {
            for (kind, buffering) in [("h2", "on"), ("h2-unbuffered", "off")] {
                let port = serve(Frames(frames.0), ending, false, 0);
                server += &format!(
                    "location /{kind}/{name} {{ proxy_http_version 2; proxy_buffering {buffering}; proxy_pass http://127.0.0.1:{port}; }}\n"
                );
                requests.push((format!("/{kind}/{name}"), Vec::new()));
            }
        }
    }
    /* A server whose window never opens again. */
    let port = serve(Frames(&[]), "hang", false, 0);
    server += &format!("location /window {{ grpc_pass grpc://127.0.0.1:{port}; }}\n");
    requests.push(("/window".to_owned(), vec![b'x'; 1 << 20]));
    let http = format!(
        "error_log {{prefix}}/error.log; client_body_buffer_size 2m; client_max_body_size 2m; {} {upstreams}
         server {{ listen 127.0.0.1:{{port}}; {server} }}",
        [times("grpc"), times("proxy")].concat()
    );
    let (records, names) = compared(Nginx::with(&http, 9), |nginx| {
        /* Few connections at once, because each handshake keeps nginx from reading other bytes. */
        for some in requests.chunks(8) {
            send_all(nginx.port, some);
        }
    });
    assert_all_kinds(&names);
    for record in &records {
        let is_second = record.uri.as_deref().unwrap().contains("/n-1");
        let attempt = &record.upstreams[0];
        assert!(!is_second || attempt.reused == Some(true), "{record:#?}");
    }
}
