// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every module for upstreams but proxy: real servers for the truth, one of the tests' own for delays.

use std::process::Command;

use crate::suite::common::client::Client;
use crate::suite::common::nginx::MEMCACHED;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::nginx::REWRITE;
use crate::suite::common::nginx::is_built_without;
use crate::suite::common::protocol::Protocol;
use crate::suite::common::record::Record;
use crate::suite::common::record::assert_delay;
use crate::suite::common::server::Server;
use crate::suite::common::upstream::Upstream;
use crate::suite::root::requests::traced;

/// The programs of real servers.
const UPSTREAMS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/upstreams");

/// Variables that FastCGI, uwsgi and SCGI servers ask for.
fn params(module: &str) -> String {
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

/// A server that passes everything on, by this module, with these directives.
fn http(module: &str, directives: &str, server: &str) -> String {
    let params = match module {
        "memcached" => "set $memcached_key $request_uri;".to_owned(),
        "grpc" => String::new(),
        _ => params(module),
    };
    format!(
        "upstream kept {{ server {server}; keepalive 4; }}
         server {{
            listen 127.0.0.1:{{port}};
            {directives}
            location / {{ {params} {module}_pass kept; }}
         }}"
    )
}

/// What the tests' own server answers in its time: the phases are where the delays are.
fn delayed(protocol: Protocol, module: &str, directives: &str) -> Vec<Record> {
    let upstream = Upstream::speaking(protocol);
    let server = format!("127.0.0.1:{}", upstream.port);
    let nginx = Nginx::with(&http(module, directives, &server), upstream.port);
    let records = traced(nginx, |nginx| {
        let mut client = Client::connect(nginx.port);
        for uri in ["/wait-60/head/wait-60/body-10", "/", "/body-300000"] {
            assert_eq!(client.get(uri).status, 200);
        }
        assert_eq!(client.get("/status-404").status, 404);
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

/// On which requests the connection was a kept one.
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

/// Requests to a real server that answers after 60 ms, and listens at `{prefix}/server.sock`.
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

/// Check uWSGI in both protocols that it speaks.
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

/// Check memcached itself: what it has, and what it has not.
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

/// Check gRPC: what the server sends before its response (SETTINGS, PING) is no response, what nginx
/// sends after its request (that it has seen them) is no request, on new connections and kept ones.
#[test]
fn grpc() {
    let mut command = Command::new("/usr/bin/python3");
    let server = Server::start(command.arg(format!("{UPSTREAMS}/grpc_server.py")));
    let address = format!("127.0.0.1:{}", server.line());
    let nginx = Nginx::with(&http("grpc", "client_body_buffer_size 256k;", &address), 9);
    let calls = [
        ("Wait", 3_usize),
        ("Wait", 3),
        ("Wait", 200_000),
        ("Fail", 3),
        ("Stream", 1_000),
    ];
    let records = traced(nginx, |nginx| {
        let mut client = Client::connect(nginx.port);
        for (method, size) in calls {
            client.send(format!(
                "POST /test/{method} HTTP/1.1\r\nHost: t\r\nTE: trailers\r\n\
                 Content-Type: application/grpc\r\nContent-Length: {}\r\n\r\n\0",
                size + 5
            ));
            client.send(u32::try_from(size).unwrap().to_be_bytes());
            client.send(vec![b'x'; size]);
            assert_eq!(client.receive().status, 200);
        }
    });
    drop(server);
    let kept = reused(&records);
    assert_eq!(kept[..2], [Some(false), Some(true)]);
    for (record, (method, _)) in records.iter().zip(calls) {
        record.assert_complete();
        assert_eq!(record.upstreams[0].failure, None);
        let p = &record.phases;
        let first = p.upstream_response_first_byte_time;
        assert!(p.upstream_request_last_byte_time <= first, "{record:#?}");
        let ms = match method {
            "Wait" => 200,
            "Stream" => 20,
            _ => 0,
        };
        assert_delay(p.upstream_request_last_byte_time, first, ms);
        if method == "Stream" {
            assert_delay(first, p.upstream_response_last_byte_time, 40);
        }
    }
}
