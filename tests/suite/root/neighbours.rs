// SPDX-License-Identifier: MIT OR Apache-2.0
//! stream and mail on the same workers: they have no records, and do not disturb http.

use std::path::Path;

use crate::suite::common::build::DEBIAN;
use crate::suite::common::build::binary;
use crate::suite::common::client::Client;
use crate::suite::common::nginx::Config;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::ports::free_port;
use crate::suite::common::record::Record;
use crate::suite::common::upstream::Upstream;
use crate::suite::root::requests::traced;

/// The folder of Debian's loadable modules.
const MODULES: &str = "/usr/lib/nginx/modules";

/// Returns directives that load the modules. When they do not fit this nginx, prints SKIP and
/// returns `None`.
fn modules() -> Option<String> {
    if binary() != Path::new(DEBIAN) {
        println!("SKIP: the modules for stream and mail fit Debian's own nginx only");
        return None;
    }
    let modules = ["stream", "mail"];
    Some(
        modules
            .map(|name| format!("load_module {MODULES}/ngx_{name}_module.so;"))
            .concat(),
    )
}

/// Check http among connections of stream (to a server, with ssl_preread, from stream to this http
/// server) and of mail: each request of http has one whole record, and there is no other record.
#[test]
fn stream_and_mail() {
    let Some(modules) = modules() else {
        return;
    };
    let upstream = Upstream::start();
    let [raw, preread, to_http, mail] = [(); 4].map(|()| free_port());
    let main = format!(
        "{modules}
         stream {{
            server {{ listen 127.0.0.1:{raw}; proxy_pass 127.0.0.1:{}; }}
            server {{ listen 127.0.0.1:{preread}; ssl_preread on; proxy_pass 127.0.0.1:{}; }}
            server {{ listen 127.0.0.1:{to_http}; proxy_pass 127.0.0.1:{{port}}; }}
         }}
         mail {{
            auth_http 127.0.0.1:9/;
            server {{ listen 127.0.0.1:{mail}; protocol smtp; server_name test; }}
         }}",
        upstream.port, upstream.port
    );
    let nginx = Nginx::start(&Config {
        http: "server { listen 127.0.0.1:{port};
                location / { return 200; }
                location /proxied/ { proxy_pass http://127.0.0.1:{upstream}; } }",
        main: &main,
        upstream: upstream.port,
        ..Config::default()
    });
    let records = traced(nginx, |nginx| {
        let mut http = Client::connect(nginx.port);
        for _ in 0..5 {
            let mut mail = Client::connect(mail);
            assert_eq!(mail.some()[..4], *b"220 ");
            for port in [raw, preread, to_http] {
                let mut stream = Client::connect(port);
                assert_eq!(http.get("/proxied/").status, 200);
                assert_eq!(stream.get("/wait-5").status, 200);
            }
            mail.send("QUIT\r\n");
            assert_eq!(mail.rest()[..4], *b"221 ");
            assert_eq!(http.get("/").status, 200);
        }
    });
    assert_eq!(records.len(), 5 * 5);
    records.iter().for_each(Record::assert_complete);
}

/// Check that connects of stream while nginx waits for a response do not count for the request's
/// attempt: on a new connection, and on a kept one, which has no connect.
#[test]
fn connects_of_stream() {
    let Some(modules) = modules() else {
        return;
    };
    let upstream = Upstream::start();
    let raw = free_port();
    let nginx = Nginx::start(&Config {
        http: "upstream kept { server 127.0.0.1:{upstream}; keepalive 1; }
               server { listen 127.0.0.1:{port};
                location / { proxy_pass http://127.0.0.1:{upstream}; }
                location /kept/ { proxy_http_version 1.1; proxy_set_header Connection '';
                                  proxy_pass http://kept; } }",
        main: &format!(
            "{modules} stream {{ server {{ listen 127.0.0.1:{raw}; proxy_pass 127.0.0.1:{}; }} }}",
            upstream.port
        ),
        upstream: upstream.port,
        ..Config::default()
    });
    let records = traced(nginx, |nginx| {
        let mut http = Client::connect(nginx.port);
        assert_eq!(http.get("/kept/").status, 200);
        for uri in ["/wait-300", "/kept/wait-300"] {
            http.send(format!("GET {uri} HTTP/1.1\r\nHost: t\r\n\r\n"));
            for _ in 0..5 {
                assert_eq!(Client::connect(raw).get("/wait-20").status, 200);
            }
            assert_eq!(http.receive().status, 200);
        }
    });
    let [_, new, kept] = &records[..] else {
        panic!("{records:#?}");
    };
    records.iter().for_each(Record::assert_complete);
    let [new, kept] = [new, kept].map(|record| &record.upstreams[0]);
    assert_eq!((new.reused, kept.reused), (Some(false), Some(true)));
    assert!(new.upstream_connect_time <= new.upstream_request_first_byte_time);
    assert!(kept.upstream_connect_time <= kept.upstream_request_first_byte_time);
    assert_eq!([new.upstream_tls_ns, kept.upstream_tls_ns], [None; 2]);
}
