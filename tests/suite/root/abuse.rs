// SPDX-License-Identifier: MIT OR Apache-2.0
//! One hostile client of HTTP/2 takes no room of another one: while it resets streams, keeps
//! thousands of them open and takes no responses, the records of the other client have all keys
//! that they had before, and no request is lost.

use std::collections::BTreeSet;
use std::net::TcpStream;

use serde_json::Value;

use crate::suite::common::PATIENCE;
use crate::suite::common::client::Client;
use crate::suite::common::http2;
use crate::suite::common::http2::Http2;
use crate::suite::common::http2::STREAMS;
use crate::suite::common::http2::streams;
use crate::suite::common::nginx::Config;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::record::Record;
use crate::suite::common::record::WAITS;
use crate::suite::common::record::assert_equal;
use crate::suite::common::tool::Tool;
use crate::suite::common::upstream::Upstream;

/// A server of HTTP/2, and one of HTTP/1 on a unix socket. nginx passes on bodies as they come, and has
/// patience on a slow machine.
const HTTP: &str = "
    send_timeout 1h;
    keepalive_timeout 1h;
    server {
        listen 127.0.0.1:{port} http2;
        listen unix:{prefix}/plain;
        root {prefix}/html;
        proxy_request_buffering off;
        proxy_http_version 1.1;
        location / { proxy_pass http://127.0.0.1:{upstream}; }
        location /buffered { proxy_pass http://127.0.0.1:{upstream}; proxy_request_buffering on; }
        location /return { return 200 'hello\\n'; }
        location /file { }
    }";

/// Connections of the hostile client.
const CONNECTIONS: usize = 20;

/// Requests of the other client in each turn.
const TURN: usize = 4;

/// A connection, with this window for each stream.
fn connect(nginx: &Nginx, window: u32) -> Http2 {
    let stream = TcpStream::connect(("127.0.0.1", nginx.port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    Http2::start(Box::new(stream), window)
}

/// The client whose records must not suffer: a connection of each protocol.
struct Other {
    http2: Http2,
    http1: Client,
    stream: u32,
}

impl Other {
    fn connect(nginx: &Nginx) -> Self {
        Self {
            http2: connect(nginx, 1 << 20),
            http1: Client::to_path(&nginx.prefix().join("plain")),
            stream: 1,
        }
    }

    /// Sends the same requests each time: one whose body comes in two reads, and one without.
    fn turn(&mut self) {
        let [first, second] = [self.stream, self.stream + 2];
        self.stream += 4;
        self.http2.send(&http2::post(first, "/other"));
        self.http2.send(&http2::piece(first, b"hel"));
        self.http2.ping();
        self.http2.send(&http2::body(first, b"lo"));
        self.http2.receive([first]);
        self.http2.send(&http2::get(second, "/return/other"));
        self.http2.receive([second]);
        for uri in ["/other", "/return/other"] {
            assert_eq!(self.http1.get(uri).status, 200);
        }
    }
}

/// Returns all keys of a record, also of what is inside it, but not those of `WAITS`.
fn keys(value: &Value) -> BTreeSet<String> {
    match value {
        Value::Object(members) => members
            .iter()
            .filter(|(key, _)| !WAITS.contains(&key.as_str()))
            .flat_map(|(key, value)| {
                let inner = keys(value)
                    .into_iter()
                    .map(move |rest| format!("{key}.{rest}"));
                inner.chain([key.clone()])
            })
            .collect(),
        Value::Array(values) => values.iter().flat_map(keys).collect(),
        _ => BTreeSet::new(),
    }
}

/// Lets the other client work before the abuse and after each step of it. `step` gets the number of
/// the step, and a connection. Returns the records of the hostile client.
fn abuse(window: u32, steps: u32, step: impl Fn(u32, &mut Http2)) -> Vec<Record> {
    let upstream = Upstream::start();
    let nginx = Nginx::start(&Config {
        /* Each stream that is held has a file open. */
        main: "worker_rlimit_nofile 4096;",
        http: HTTP,
        upstream: upstream.port,
        ..Config::default()
    });
    nginx.file("file", &vec![b'x'; 1 << 20]);
    let tool = Tool::trace(nginx.pid());
    let mut other = Other::connect(&nginx);
    other.turn();
    other.turn();
    let mut hostile: Vec<_> = (0..CONNECTIONS).map(|_| connect(&nginx, window)).collect();
    for n in 0..steps {
        for http in &mut hostile {
            step(n, http);
            http.ping();
        }
        other.turn();
    }
    drop(hostile);
    other.turn();
    drop(other);
    let logged = nginx.quit();
    let ended = tool.wait();
    ended.assert_clean();
    let records = ended.records();
    assert_equal(&records, &logged);
    let others = of_other(&ended.stdout);
    assert_same_keys(&others, steps as usize + 3, TURN);
    let is_hostile = |record: &Record| !record.uri.as_deref().unwrap().ends_with("/other");
    records.into_iter().filter(is_hostile).collect()
}

/// Returns the records of the client that does no harm: the uris of its requests end with `/other`.
/// Requests that never had a uri are of the hostile one.
pub fn of_other(lines: &[String]) -> Vec<Value> {
    let values = lines.iter().map(|line| serde_json::from_str(line).unwrap());
    let is_other = |value: &Value| {
        let uri = value["uri"].as_str();
        uri.is_some_and(|uri| uri.ends_with("/other"))
    };
    values.filter(is_other).collect()
}

/// Asserts that a client that sends the same `turn` requests each time has, in all its `turns`, the keys
/// of those from before the abuse.
pub fn assert_same_keys(records: &[Value], turns: usize, turn: usize) {
    assert_eq!(records.len(), turns * turn);
    /* The first requests of connections have keys of their own. */
    let before = &records[turn..2 * turn];
    for (n, record) in records.iter().enumerate().skip(2 * turn) {
        assert_eq!(keys(record), keys(&before[n % turn]), "{record:#}");
    }
}

/// Check streams that are reset as soon as they are opened, before their response can be sent.
#[test]
fn resets() {
    const STEPS: u32 = 5;
    let records = abuse(0, STEPS, |n, http| {
        let pairs = streams(n).flat_map(|id| [http2::get(id, "/return"), http2::reset(id)]);
        http.send(&pairs.collect::<Vec<_>>().concat());
    });
    assert_eq!(records.len(), CONNECTIONS * (STEPS * STREAMS) as usize);
}

/// Check streams whose bodies never end.
#[test]
fn open_bodies() {
    let records = abuse(1 << 20, 2, |n, http| {
        for id in streams(0) {
            if n == 0 {
                http.send(&http2::post(id, "/buffered/open"));
            }
            http.send(&http2::piece(id, b"x"));
        }
    });
    assert_eq!(records.len(), CONNECTIONS * STREAMS as usize);
}

/// Check responses that wait for a window, which is then opened byte by byte.
#[test]
fn held() {
    let records = abuse(0, 4, |n, http| {
        for id in streams(0) {
            http.send(&match n {
                0 => http2::get(id, "/file"),
                _ => http2::window_update(id, 1),
            });
        }
    });
    assert_eq!(records.len(), CONNECTIONS * STREAMS as usize);
    let begun = records.iter().filter(|record| {
        let p = &record.phases;
        p.downstream_response_first_byte_time.is_some()
    });
    assert_eq!(begun.count(), records.len());
}
