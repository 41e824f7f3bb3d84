// SPDX-License-Identifier: MIT OR Apache-2.0
//! The whole life of a request: from its first byte to the moment at which nginx ends it.

use std::time::Duration;

use rustls::version::TLS13;

use crate::suite::common::client::Client;
use crate::suite::common::delay;
use crate::suite::common::http2;
use crate::suite::common::http2::Http2;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::record::assert_equal;
use crate::suite::common::tls;
use crate::suite::common::tls::Tls;
use crate::suite::common::tool::Tool;
use crate::suite::common::upstream::Upstream;
use crate::suite::root::times::slack;

/// A server whose clients are slow in every way, in plain and with TLS.
const HTTP: &str = "
    client_header_timeout 300ms;
    server {
        listen 127.0.0.1:{port};
        listen 127.0.0.1:{tls} ssl http2;
        root {prefix}/html;
        location / { }
        location /return { return 200 'hello\\n'; }
        location /bye { return 444; }
        location /slow { proxy_pass http://127.0.0.1:{upstream}/wait-3000; }
    }";

/// How long each of the slow clients takes, in milliseconds.
const SLOW: u64 = 300;

/// Waits as long as slow clients do.
fn pause() {
    delay(Duration::from_millis(SLOW));
}

/// Half a header and silence, an upstream that is left before it answers, and a response that is not
/// read: each takes as long as `pause()`. `client` connects.
fn slow_http1(client: impl Fn() -> Client) {
    let mut silent = client();
    silent.send("GET /return HTTP/1.1\r\nHost: t\r\n");
    silent.rest();
    for uri in ["/slow", "/large"] {
        let mut gone = client();
        gone.send(format!("GET {uri} HTTP/1.1\r\nHost: t\r\n\r\n"));
        pause();
    }
}

/// A stream that is reset before its upstream answers, and one without a window for its response.
fn slow_http2(port: u16) {
    let stream = Tls::begin(port, &TLS13, &["h2"]).finish().into_stream();
    let mut http = Http2::start(stream, 100);
    http.send(&[http2::get(1, "/slow"), http2::get(3, "/large")].concat());
    http.receive_some();
    pause();
    http.send(&[http2::reset(1), http2::reset(3)].concat());
    http.send(&http2::get(5, "/return"));
    http.receive([5]);
}

/// Check that what took long passes `--min-duration`, however it ended: an answer that never came
/// (499, 408), a response that nobody read, over HTTP/1, TLS and HTTP/2. What was quick is filtered.
#[test]
fn min_duration() {
    let upstream = Upstream::start();
    let port = crate::suite::common::free_port();
    let http = [tls::DIRECTIVES, HTTP].concat();
    let http = http.replace("{tls}", &port.to_string());
    let nginx = Nginx::prepared(&http, upstream.port, tls::certificate);
    nginx.file("large", &vec![b'x'; 32 << 20]);
    let pid = nginx.pid().to_string();
    let least = format!("{}ms", SLOW * 4 / 5);
    let tool = Tool::start(&["--json", "--min-duration", &least, "-p", &pid], 1);
    slow_http1(|| Client::connect(nginx.port));
    slow_http1(|| {
        Tls::begin(port, &TLS13, &["http/1.1"])
            .finish()
            .into_client()
    });
    slow_http2(port);
    let mut client = Client::connect(nginx.port);
    for uri in ["/return", "/nothing"] {
        client.get(uri);
    }
    client.send("GET /bye HTTP/1.1\r\nHost: t\r\n\r\n");
    client.rest();
    let logged = nginx.quit();
    let ended = tool.wait();
    ended.assert_clean();
    let (slow, quick): (Vec<_>, Vec<_>) = logged
        .into_iter()
        .partition(|l| l.status == "408" || ["/slow", "/large"].contains(&&*l.uri));
    let records = ended.records();
    assert_equal(&records, &slow);
    assert_eq!((slow.len(), quick.len()), (8, 4));
    assert_eq!(ended.summary().filtered, 4);
    for record in &records {
        let elapsed = record.elapsed_ns.unwrap();
        let range = SLOW * 800_000..(SLOW + slack()) * 1_000_000;
        assert!(range.contains(&elapsed), "{record:#?}");
        assert!(record.duration_ns < Some(elapsed), "{record:#?}");
    }
}
