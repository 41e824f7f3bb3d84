// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every socket source leads to the same records.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use rustls::version::TLS13;
use serde_json::Value;

use crate::suite::common::client::Client;
use crate::suite::common::delay;
use crate::suite::common::http2;
use crate::suite::common::http2::Http2;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::record::Record;
use crate::suite::common::record::WAITS;
use crate::suite::common::record::assert_equal;
use crate::suite::common::tls;
use crate::suite::common::tls::Tls;
use crate::suite::common::tool::PROGRAM;
use crate::suite::common::tool::Tool;
use crate::suite::common::upstream::Upstream;
use crate::suite::root::times::assert_between;
use crate::suite::root::times::post_slowly;

/// A server for every way of moving bytes: TCP over IPv4 and IPv6, unix sockets, TLS, with sendfile
/// and without.
const HTTP: &str = "
    upstream kept { server 127.0.0.1:{upstream}; keepalive 8; }
    sendfile on;
    sendfile_max_chunk 256k;
    server {
        listen 127.0.0.1:{port};
        listen [::1]:{port};
        listen unix:{prefix}/client.sock;
        root {prefix}/html;
        proxy_http_version 1.1;
        proxy_set_header Connection '';
        proxy_buffering off;
        location / { }
        location /return { return 200 'hello\\n'; }
        location /proxy/ { proxy_pass http://127.0.0.1:{upstream}; }
        location /kept/ { proxy_pass http://kept; }
        location /path/ { proxy_pass http://unix:{prefix}/upstream.sock:/path/; }
    }
    server {
        listen 127.0.0.1:{tls} ssl http2;
        root {prefix}/html;
    }";

/// A size that exceeds the buffers of both ends.
const LARGE: usize = 16 << 20;

/// The sources, and the feature that `ngx-bpf check` reports for each.
const SOURCES: [(&str, &str); 3] = [
    ("tracepoint", "tracepoints of all bytes on sockets"),
    ("fexit", "fexit"),
    ("syscall", "tracepoint of system calls"),
];

/// Returns the sources that this kernel supports.
pub fn sources() -> Vec<&'static str> {
    let output = Command::new(PROGRAM).args(["check", "--json"]).output();
    let report: Value = serde_json::from_slice(&output.unwrap().stdout).unwrap();
    let features = report["kernel"]["features"].as_array().unwrap();
    let is_found = |name| {
        let mut features = features.iter();
        features.any(|feature| feature["name"] == name && feature["found"] == true)
    };
    let mut sources = SOURCES.to_vec();
    sources.retain(|(_, feature)| is_found(*feature));
    sources.iter().map(|(source, _)| *source).collect()
}

/// Removes from a record what depends on the clock and on the machine: of the times only their order remains.
fn shape(record: &mut Value) {
    let Value::Object(members) = record else {
        if let Value::Array(elements) = record {
            elements.iter_mut().for_each(shape);
        }
        return;
    };
    members.retain(|key, _| !WAITS.contains(&key.as_str()));
    let is_phase = |key: &str| key.ends_with("_byte_time") || key == "upstream_connect_time";
    let times = members.iter().filter(|(key, _)| is_phase(key));
    let mut times: Vec<u64> = times.map(|(_, time)| time.as_u64().unwrap()).collect();
    times.sort_unstable();
    times.dedup();
    for (key, value) in members.iter_mut() {
        if is_phase(key) {
            let time = value.as_u64().unwrap();
            *value = times.binary_search(&time).unwrap().into();
        } else if key.ends_with("_ns") || key == "time" || key == "downstream_accept_time" {
            *value = Value::Null;
        } else {
            shape(value);
        }
    }
}

/// Sends requests of every kind, one after the other.
fn requests(nginx: &Nginx, tls: u16) {
    let mut client = Client::connect(nginx.port);
    post_slowly(&mut client, "/proxy/wait-60/head/wait-30/body-10");
    let path = nginx.prefix().join("client.sock");
    for mut client in [Client::connect(nginx.port), Client::to_path(&path)] {
        client.send("GET /large HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
        let first = client.some();
        delay(Duration::from_millis(80));
        assert!(first.len() + client.rest().len() > LARGE);
    }
    let address: SocketAddr = format!("[::1]:{}", nginx.port).parse().unwrap();
    let mut clients = [
        Client::connect(nginx.port),
        Client::to(address),
        Client::to_path(&path),
    ];
    for client in &mut clients {
        for uri in [
            "/file",
            "/return",
            "/kept/wait-5",
            "/path/body-100000",
            "/proxy/",
        ] {
            assert_eq!(client.get(uri).status, 200);
        }
        client.send("GET /kept/wait-5 HTTP/1.1\r\nHost: t\r\n\r\n".repeat(3));
        for _ in 0..3 {
            assert_eq!(client.receive().status, 200);
        }
    }
    let tls = Tls::begin(tls, &TLS13, &["h2"]);
    let mut http = Http2::start(tls.finish().into_stream(), 1 << 30);
    http.send(&[http2::get(1, "/file"), http2::get(3, "/file")].concat());
    http.receive([1, 3]);
}

/// Asserts that the phases have the delays of `requests()`.
fn assert_delays(records: &[Record]) {
    let p = &records[0].phases;
    let header = p.downstream_request_last_byte_time;
    assert_between(p, p.downstream_request_first_byte_time, header, 20);
    assert_between(p, header, p.upstream_connect_time, 50);
    let request = p.upstream_request_last_byte_time;
    assert_between(p, request, p.upstream_response_first_byte_time, 60);
    let response = p.upstream_response_first_byte_time;
    assert_between(p, response, p.upstream_response_last_byte_time, 30);
    let response = p.downstream_response_first_byte_time;
    assert_between(p, response, p.downstream_response_last_byte_time, 30);
    for record in &records[1..3] {
        let p = &record.phases;
        let first = p.downstream_response_first_byte_time.unwrap();
        let sent = p.downstream_response_last_byte_time.unwrap() - first;
        assert!(sent >= 40_000_000, "{record:#?}");
    }
}

/// Check that every source reports the same about the same requests: values, phases and their
/// order; and that the delays are in the right phases.
#[test]
fn same_records() {
    let upstream = Upstream::start();
    let (http, tls) = tls::with_port(HTTP);
    let nginx = Nginx::prepared(&http, upstream.port, tls::certificate);
    Upstream::start_unix(&nginx.prefix().join("upstream.sock"));
    nginx.file("file", &[b'x'; 100_000]);
    nginx.file("large", &vec![b'x'; LARGE]);
    let sources = sources();
    println!("sources: {}", sources.join(", "));
    if sources.len() < 2 {
        println!("SKIP this kernel: it has one socket source only");
    }
    let pid = nginx.pid().to_string();
    let tools: Vec<_> = sources
        .iter()
        .map(|source| Tool::start(&["--pid", &pid, "--json", "--sockets", source], 1))
        .collect();
    requests(&nginx, tls);
    let logged = nginx.quit();
    let mut shapes = Vec::new();
    for tool in tools {
        let ended = tool.wait();
        ended.assert_clean();
        let records = ended.records();
        assert_equal(&records, &logged);
        records.iter().for_each(Record::assert_complete);
        assert_delays(&records);
        let mut lines: Vec<Value> = ended
            .stdout
            .iter()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        lines.iter_mut().for_each(shape);
        shapes.push(lines);
    }
    assert!(!shapes.is_empty(), "there is no socket source");
    for others in &shapes[1..] {
        for (one, other) in shapes[0].iter().zip(others) {
            assert_eq!(one, other);
        }
    }
}
