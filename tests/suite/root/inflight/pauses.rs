// SPDX-License-Identifier: MIT OR Apache-2.0
//! Requests that `limit_req` delays, and those that wait for the subrequest of `auth_request`.

use ngx_bpf_record::values::State;
use rustls::version::TLS13;

use super::wait_states;
use crate::suite::common::build::LIMIT_REQ;
use crate::suite::common::build::REWRITE;
use crate::suite::common::build::is_built_without;
use crate::suite::common::client::Client;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::tls;
use crate::suite::common::tls::Tls;
use crate::suite::common::upstream::Upstream;

/// A server that delays each request but the first one by a minute, or by a tenth of a second, and one that asks an
/// upstream that never answers, or itself.
const HTTP: &str = "
    limit_req_zone $server_addr zone=slow:64k rate=1r/m;
    limit_req_zone $server_addr zone=fast:64k rate=10r/s;
    server {
        listen 127.0.0.1:{port};
        listen 127.0.0.1:{tls} ssl http2;
        root {prefix}/html;
        location /slow { limit_req zone=slow burst=9; }
        location /fast { limit_req zone=fast burst=9; proxy_pass http://127.0.0.1:{upstream}/hang; }
        location /asks { auth_request /auth; }
        location /auth { internal; proxy_pass http://127.0.0.1:{upstream}/hang; }
        location /asks-slowly { auth_request /delayed; }
        location /delayed { internal; limit_req zone=slow burst=9; }
        location /allowed {
            auth_request /allows; proxy_pass http://127.0.0.1:{upstream}/hang;
        }
        location /refused { auth_request /refuses; error_page 403 /hang; }
        location /hang { proxy_pass http://127.0.0.1:{upstream}; }
        location /allows { internal; return 204; }
        location /refuses { internal; return 403; }
    }";

/// Check each state, over HTTP/1 and over TLS, and that a request is in no such state when the wait is over, also when
/// its error page waits for something else.
#[test]
fn pauses() {
    let modules = ["http_auth_request_module", LIMIT_REQ, REWRITE];
    if modules.into_iter().any(is_built_without) {
        return;
    }
    let upstream = Upstream::start();
    let (http, port) = tls::with_port(HTTP);
    let nginx = Nginx::prepared(&http, upstream.port, tls::certificate);
    nginx.file("slow", b"slow");
    let mut first = Client::connect(nginx.port);
    assert_eq!(first.get("/slow").status, 200);
    first.send("GET /fast HTTP/1.1\r\nHost: t\r\n\r\n");
    let mut clients = Vec::new();
    let mut expected = vec![(Some("/fast"), Some(State::Waiting))];
    for (uri, state) in [
        ("/slow", State::LimitReqDelay),
        ("/fast", State::Waiting),
        ("/asks", State::Auth),
        ("/asks-slowly", State::Auth),
        ("/allowed", State::Waiting),
        ("/refused", State::Waiting),
    ] {
        let tls = Tls::begin(port, &TLS13, &["http/1.1"]).finish();
        for mut client in [Client::connect(nginx.port), tls.into_client()] {
            client.send(format!("GET {uri} HTTP/1.1\r\nHost: t\r\n\r\n"));
            clients.push(client);
            expected.push((Some(uri), Some(state)));
        }
    }
    let addr = format!("127.0.0.1:{}", upstream.port);
    for request in wait_states(&nginx, &expected) {
        let uri = request.request_uri.as_deref().unwrap();
        let is_local = matches!(uri, "/slow" | "/asks-slowly");
        let upstream = request.upstream_addr.as_deref();
        assert_eq!(upstream, (!is_local).then_some(&*addr), "{request:#?}");
        assert_eq!(request.response_size, 0, "{request:#?}");
    }
    drop((first, clients));
    wait_states(&nginx, &[]);
}
