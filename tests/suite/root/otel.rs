// SPDX-License-Identifier: MIT OR Apache-2.0
//! `--format otel`: each record conforms to its schema, and equals nginx's access log.

use serde_json::Value;

use crate::suite::common::client::Client;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::tool::Tool;
use crate::suite::common::upstream::Upstream;

/// Check the records of proxied requests, common and unusual ones.
#[test]
fn requests() {
    let upstream = Upstream::start();
    let nginx = Nginx::with(
        "server { listen 127.0.0.1:{port}; location / { proxy_pass http://127.0.0.1:{upstream}; } }",
        upstream.port,
    );
    let pid = nginx.pid().to_string();
    let tool = Tool::start(&["--pid", &pid, "--format", "otel"], 1);
    let mut client = Client::connect(nginx.port);
    client.get("/status-503?a=b");
    client.send("BREW / HTTP/1.1\r\nHost: [::1]:81\r\n\r\n");
    client.receive();
    let logged = nginx.quit();
    let ended = tool.wait();
    ended.assert_clean();
    let schema = include_str!("../../../docs/schema/otel.json");
    let schema = jsonschema::validator_for(&serde_json::from_str(schema).unwrap()).unwrap();
    let lines: Vec<Value> = ended
        .stdout
        .iter()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    assert_eq!((lines.len(), logged.len()), (2, 2));
    for (line, logged) in lines.iter().zip(&logged) {
        if let Some(error) = schema.iter_errors(line).next() {
            panic!("{error}: {line}");
        }
        let method = line.get("http.request.method_original");
        let method = method.unwrap_or(&line["http.request.method"]);
        assert_eq!(*method, *logged.request_method);
        assert_eq!(line["client.address"], *logged.remote_addr);
        assert_eq!(line["client.port"].to_string(), logged.remote_port);
        assert_eq!(line["http.response.status_code"].to_string(), logged.status);
        assert_eq!(line["nginx.upstreams.0.addr"], *logged.upstream_addr);
        assert!(line["nginx.phases.upstream_connect_time"].is_u64());
    }
    assert_eq!(lines[0]["url.query"], "a=b");
    assert_eq!(lines[0]["error.type"], "503");
    assert_eq!(lines[0]["server.address"], "test");
    assert_eq!(lines[1]["http.request.method"], "_OTHER");
    assert_eq!(lines[1]["server.address"], "::1");
    assert_eq!(lines[1]["server.port"], 81);
}
