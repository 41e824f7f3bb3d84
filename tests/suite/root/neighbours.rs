// SPDX-License-Identifier: MIT OR Apache-2.0
//! stream and mail on the same workers: nothing is told of them, and http is not disturbed.

use std::path::Path;

use crate::suite::common::build::binary;
use crate::suite::common::client::Client;
use crate::suite::common::free_port;
use crate::suite::common::nginx::Config;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::record::Record;
use crate::suite::common::upstream::Upstream;
use crate::suite::root::requests::traced;

/// Where Debian has modules that are loaded.
const MODULES: &str = "/usr/lib/nginx/modules";

/// Check http between connections of stream (to a server, with ssl_preread, from stream to this very
/// http) and of mail: one record for each request of http, whole, and no other.
#[test]
fn stream_and_mail() {
    let modules = ["stream", "mail"].map(|name| format!("{MODULES}/ngx_{name}_module.so"));
    if binary() != Path::new("/usr/sbin/nginx") {
        println!("SKIP: the modules for stream and mail are those of Debian's own nginx");
        return;
    }
    let upstream = Upstream::start();
    let [raw, preread, to_http, mail] = [(); 4].map(|()| free_port());
    let main = format!(
        "load_module {}; load_module {};
         stream {{
            server {{ listen 127.0.0.1:{raw}; proxy_pass 127.0.0.1:{}; }}
            server {{ listen 127.0.0.1:{preread}; ssl_preread on; proxy_pass 127.0.0.1:{}; }}
            server {{ listen 127.0.0.1:{to_http}; proxy_pass 127.0.0.1:{{port}}; }}
         }}
         mail {{
            auth_http 127.0.0.1:9/;
            server {{ listen 127.0.0.1:{mail}; protocol smtp; server_name test; }}
         }}",
        modules[0], modules[1], upstream.port, upstream.port
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
