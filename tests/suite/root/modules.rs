// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every module for upstreams except proxy: real servers, and a server of the tests for delays.

use std::process::Command;

use crate::suite::common::build::MEMCACHED;
use crate::suite::common::build::REWRITE;
use crate::suite::common::build::is_built_without;
use crate::suite::common::client::Client;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::protocol::Protocol;
use crate::suite::common::record::Record;
use crate::suite::common::record::assert_delay;
use crate::suite::common::server::Server;
use crate::suite::common::upstream::Upstream;
use crate::suite::root::requests::traced;

mod grpc;
mod loaded;

/// The programs for real servers.
const UPSTREAMS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/upstreams");

/// Returns the variables that FastCGI, uwsgi and SCGI servers need.
pub fn params(module: &str) -> String {
    [
        ("REQUEST_METHOD", "$request_method"),
        ("REQUEST_URI", "$request_uri"),
        ("PATH_INFO", "$uri"),
        ("QUERY_STRING", "$query_string"),
        ("CONTENT_LENGTH", "$content_length"),
        ("SERVER_NAME", "test"),
        ("SERVER_PORT", "$server_port"),
        ("SERVER_PROTOCOL", "$server_protocol"),
        ("SCRIPT_FILENAME", "{upstreams}/app.cgi"),
    ]
    .map(|(name, value)| format!("{module}_param {name} {value};"))
    .join("\n")
    .replace("{upstreams}", UPSTREAMS)
}

/// Returns a server that passes everything on by this module, with these directives. `uwsgis` and
/// `grpcs` are the modules with TLS.
fn http(module: &str, directives: &str, server: &str) -> String {
    let (module, scheme) = match module {
        "uwsgis" => ("uwsgi", "suwsgi://"),
        "grpcs" => ("grpc", "grpcs://"),
        "proxy" => ("proxy", "http://"),
        _ => (module, ""),
    };
    let params = match module {
        "memcached" => "set $memcached_key $request_uri;".to_owned(),
        "grpc" | "proxy" => String::new(),
        _ => params(module),
    };
    format!(
        "upstream kept {{ server {server}; keepalive 4; }}
         server {{
            listen 127.0.0.1:{{port}};
            {directives}
            location / {{ {params} {module}_pass {scheme}kept; }}
         }}"
    )
}

/// What the tests' own server is asked for. The last response has the status 404.
const URIS: [&str; 4] = [
    "/wait-60/head/wait-60/body-10",
    "/",
    "/body-300000",
    "/status-404",
];

/// The same with TLS. nginx has read everything before the alert that ends the connection, and reads no short part
/// of a response soon after another one: such a part may be an alert, so that the end of the response is not known.
const URIS_WITH_TLS: [&str; 4] = [
    "/wait-60/head/wait-60/body-10/wait-200",
    "/body-300/wait-200",
    "/body-300000/wait-200",
    "/status-404/body-300/wait-200",
];

/// Returns the records of requests to the tests' own server, which answers with delays.
fn delayed(protocol: Protocol, module: &str, directives: &str) -> Vec<Record> {
    delayed_by(&Upstream::speaking(protocol), module, directives, &URIS)
}

/// Does the same with this server, and asserts that the phases have the delays.
fn delayed_by(
    upstream: &Upstream,
    module: &str,
    directives: &str,
    uris: &[&str; 4],
) -> Vec<Record> {
    let server = format!("127.0.0.1:{}", upstream.port);
    let nginx = Nginx::with(&http(module, directives, &server), upstream.port);
    let records = traced(nginx, |nginx| {
        let mut client = Client::connect(nginx.port);
        for (uri, status) in uris.iter().zip([200, 200, 200, 404]) {
            assert_eq!(client.get(uri).status, status);
        }
    });
    assert_eq!(records.len(), 4);
    for record in &records {
        record.assert_complete();
        let p = &record.phases;
        assert!(p.upstream_request_last_byte_time.is_some(), "{record:#?}");
        assert!(p.upstream_response_last_byte_time.is_some(), "{record:#?}");
        assert_eq!(record.upstreams[0].failure, None, "{record:#?}");
    }
    let p = &records[0].phases;
    let (first, last) = (
        p.upstream_response_first_byte_time,
        p.upstream_response_last_byte_time,
    );
    assert_delay(p.upstream_request_last_byte_time, first, 60);
    assert_delay(first, last, 60);
    records
}

/// Returns which requests used a kept connection.
fn reused(records: &[Record]) -> Vec<Option<bool>> {
    let attempts = records.iter().map(|record| &record.upstreams[0]);
    attempts.map(|attempt| attempt.reused).collect()
}

/// Check FastCGI with a connection for each request, and with kept ones.
#[test]
fn fastcgi() {
    let records = delayed(Protocol::Fastcgi, "fastcgi", "");
    assert_eq!(reused(&records), [Some(false); 4]);
    let records = delayed(Protocol::Fastcgi, "fastcgi", "fastcgi_keep_conn on;");
    let kept = [Some(false), Some(true), Some(true), Some(true)];
    assert_eq!(reused(&records), kept);
}

/// Check uwsgi.
#[test]
fn uwsgi() {
    delayed(Protocol::Uwsgi, "uwsgi", "");
}

/// Check uwsgi over TLS: the handshake comes before the request, and does not belong to it.
#[test]
fn uwsgi_with_tls() {
    let upstream = Upstream::speaking_tls(Protocol::Uwsgi);
    let records = delayed_by(&upstream, "uwsgis", "", &URIS_WITH_TLS);
    records.iter().for_each(assert_handshake);
}

/// Asserts that a new connection to the upstream had its handshake before the request.
fn assert_handshake(record: &Record) {
    let attempt = &record.upstreams[0];
    assert_eq!(attempt.reused, Some(false));
    let handshake = attempt.upstream_tls_ns.unwrap();
    let connected = attempt.upstream_connect_time.unwrap() + handshake;
    assert!(handshake > 0, "{record:#?}");
    assert!(
        Some(connected) <= attempt.upstream_request_first_byte_time,
        "{record:#?}"
    );
}

/// Check SCGI.
#[test]
fn scgi() {
    delayed(Protocol::Scgi, "scgi", "");
}

/// Check memcached, whose connections are kept.
#[test]
fn memcached() {
    if is_built_without(REWRITE) || is_built_without(MEMCACHED) {
        return;
    }
    let records = delayed(Protocol::Memcached, "memcached", "");
    assert_eq!(reused(&records)[1], Some(true));
}

/// Sends requests to a real server that answers after 60 ms and listens at `{prefix}/server.sock`.
fn real(module: &str, directives: &str, start: impl FnOnce(&Nginx) -> Server) -> Vec<Record> {
    let server = "unix:{prefix}/server.sock";
    let nginx = Nginx::with(&http(module, directives, server), 9);
    let server = start(&nginx);
    let records = traced(nginx, |nginx| {
        let mut client = Client::connect(nginx.port);
        assert_eq!(client.get("/").body, b"hello\n");
        client.send("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\n\r\nabc");
        assert_eq!(client.receive().body, b"hello\n");
    });
    drop(server);
    for record in &records {
        record.assert_complete();
        let p = &record.phases;
        let first = p.upstream_response_first_byte_time;
        assert_delay(p.upstream_request_last_byte_time, first, 60);
    }
    records
}

/// Check fcgiwrap, whose connections are kept when nginx asks for it.
#[test]
fn fcgiwrap() {
    for directives in ["", "fastcgi_keep_conn on;"] {
        let records = real("fastcgi", directives, |nginx| {
            let path = nginx.prefix().join("server.sock");
            let socket = format!("unix:{}", path.display());
            Server::at(&path, Command::new("fcgiwrap").args(["-s", &socket]))
        });
        let is_kept = !directives.is_empty();
        assert_eq!(reused(&records), [Some(false), Some(is_kept)]);
    }
}

/// Check uWSGI with both of its protocols.
#[test]
fn uwsgi_server() {
    for (module, option) in [("uwsgi", "--uwsgi-socket"), ("scgi", "--scgi-socket")] {
        real(module, "", |nginx| {
            let path = nginx.prefix().join("server.sock");
            let mut command = Command::new("uwsgi");
            command.args(["--plugins", "python3", "--wsgi-file"]);
            command.arg(format!("{UPSTREAMS}/app.py"));
            Server::at(&path, command.arg(option).arg(&path))
        });
    }
}

/// Check memcached itself, with a key that it has and one that it does not have.
#[test]
fn memcached_server() {
    if is_built_without(REWRITE) || is_built_without(MEMCACHED) {
        return;
    }
    let server = "unix:{prefix}/server.sock";
    let nginx = Nginx::with(&http("memcached", "", server), 9);
    let path = nginx.prefix().join("server.sock");
    let mut command = Command::new("memcached");
    command.args(["-u", "root", "-a", "777", "-s"]).arg(&path);
    let server = Server::at(&path, &mut command);
    let mut client = Client::to_path(&path);
    client.send("set /there 0 0 5\r\nhello\r\nquit\r\n");
    assert_eq!(client.rest(), b"STORED\r\n");
    let records = traced(nginx, |nginx| {
        let mut client = Client::connect(nginx.port);
        assert_eq!(client.get("/there").body, b"hello");
        assert_eq!(client.get("/nowhere").status, 404);
    });
    drop(server);
    records.iter().for_each(Record::assert_complete);
    assert_eq!(reused(&records)[1], Some(true));
}
