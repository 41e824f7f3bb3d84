// SPDX-License-Identifier: MIT OR Apache-2.0
//! Requests in progress when tracing begins.

use ngx_bpf_record::Phases;
use ngx_bpf_record::values::Origin;

use crate::suite::common::client::Client;
use crate::suite::common::nginx::Config;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::record::Record;
use crate::suite::common::record::assert_equal;
use crate::suite::common::tool::Tool;
use crate::suite::common::upstream::Upstream;

/// Ends both. Returns the four records, and asserts that they equal the access log after the
/// request that only showed how far nginx had come.
fn end(nginx: Nginx, tool: Tool) -> Vec<Record> {
    let logged = nginx.quit();
    let ended = tool.wait();
    ended.assert_clean();
    let records = ended.records();
    assert_equal(&records, &logged[1..]);
    assert_eq!(records.len(), 4);
    records
}

/// Check a connection that was accepted before tracing began: its phases count from the first byte
/// of each request, and from the next request on nothing else is missing.
#[test]
fn accepted_before() {
    let nginx = Nginx::start(&Config::default());
    let mut client = Client::connect(nginx.port);
    let port = nginx.port;
    client.get("/");
    let tool = Tool::trace(nginx.pid());
    client.get("/");
    client.get("/");
    drop(client);
    drop(nginx.quit());
    let records = tool.wait().records();
    assert_eq!(records.len(), 2);
    for record in records {
        record.assert_complete();
        assert_eq!(record.phases_origin, Some(Origin::RequestFirstByte));
        assert_eq!(record.server_port, Some(port));
    }
}

/// Check that pipelined requests that had been read when tracing began are partial, too, because
/// the time of their arrival is unknown.
#[test]
fn pipelined_under_way() {
    let upstream = Upstream::start();
    let nginx = Nginx::with(
        "server { listen 127.0.0.1:{port}; location / { return 200 x; }
         location /wait { proxy_pass http://127.0.0.1:{upstream}/wait-8000; } }",
        upstream.port,
    );
    let mut client = Client::connect(nginx.port);
    let request = |uri: &str| format!("GET {uri} HTTP/1.1\r\nHost: t\r\n\r\n");
    client.send(format!(
        "{}{}GET /half HT",
        request("/wait"),
        request("/whole")
    ));
    assert_eq!(Client::connect(nginx.port).get("/").status, 200);
    let tool = Tool::trace(nginx.pid());
    for _ in 0..2 {
        assert_eq!(client.receive().status, 200);
    }
    client.send("TP/1.1\r\nHost: t\r\n\r\n");
    assert_eq!(client.receive().status, 200);
    assert_eq!(client.get("/next").status, 200);
    drop(client);
    let records = end(nginx, tool);
    for record in &records[..3] {
        assert!(record.partial && record.time.is_none(), "{record:#?}");
        assert_eq!(record.phases, Phases::default());
    }
    records[3].assert_complete();
}

/// Check that a request in progress when tracing begins is `partial` and has no phases, and that
/// the next one on its connection is whole.
#[test]
fn under_way() {
    let nginx = Nginx::with(
        "server { listen 127.0.0.1:{port}; client_max_body_size 0; lingering_time 120s;
         lingering_timeout 120s; location / { return 200 x; } }",
        9,
    );
    let mut header = Client::connect(nginx.port);
    header.send("GET /header HTTP/1.1\r\nHo");
    let mut body = Client::connect(nginx.port);
    body.send("POST /body HTTP/1.1\r\nHost: t\r\nContent-Length: 4\r\n\r\nab");
    body.receive();
    /* nginx accepted the connections one after the other, so it has read what the first one sent. */
    assert_eq!(Client::connect(nginx.port).get("/").status, 200);
    let tool = Tool::trace(nginx.pid());
    header.send("st: t\r\n\r\n");
    header.receive();
    header.get("/next");
    body.send("cd");
    body.get("/next");
    drop((header, body));
    for record in end(nginx, tool) {
        let uri = record.uri.as_deref();
        assert_eq!(record.partial, uri != Some("/next"), "{record:#?}");
        if record.partial {
            assert_eq!(record.phases, Phases::default());
            assert_eq!(record.duration_ns, None);
        } else {
            record.assert_complete();
        }
    }
}
