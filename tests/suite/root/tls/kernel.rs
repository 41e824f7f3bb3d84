// SPDX-License-Identifier: MIT OR Apache-2.0
//! TLS in the kernel, and bytes that are not TLS.

use std::path::Path;

use super::Chain;
use super::VERSIONS;
use crate::suite::common::build::is_before;
use crate::suite::common::client::Client;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::tls;
use crate::suite::common::tls::Tls;
use crate::suite::root::requests::traced;

/// Check that bytes that are not TLS do no harm on a port that expects it.
#[test]
fn no_tls() {
    let records = Chain::start().traced(|nginx| {
        let mut client = Client::connect(nginx.port);
        client.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n");
        assert_eq!(client.receive().status, 400);
    });
    assert_eq!(records[0].status, Some(400));
    assert_eq!(records[0].tls.tls_handshake_ns, None);
}

/// Check a file that the kernel's own TLS sends, where the kernel has it: the record is the same.
#[test]
fn kernel_tls() {
    if is_before((1, 19, 4), "ssl_conf_command") {
        return;
    }
    if !Path::new("/proc/net/tls_stat").exists() {
        println!("SKIP this kernel: it has no TLS (module tls), so OpenSSL encrypts");
    }
    let http = [
        tls::DIRECTIVES,
        "server {
            listen 127.0.0.1:{port} ssl; root {prefix}/html;
            sendfile on; ssl_conf_command Options KTLS;
        }",
    ];
    let nginx = Nginx::prepared(&http.concat(), 9, tls::certificate);
    nginx.file("large.bin", &vec![b'x'; 300_000]);
    let records = traced(nginx, |nginx| {
        for version in VERSIONS {
            let mut client = Tls::begin(nginx.port, version, &[]).finish().into_client();
            for _ in 0..2 {
                assert_eq!(client.get("/large.bin").body.len(), 300_000);
            }
        }
    });
    assert_eq!(records.len(), 4);
    for record in records {
        record.assert_complete();
    }
}
