// SPDX-License-Identifier: MIT OR Apache-2.0
//! Connections that become tunnels: one record, when the tunnel ends.

use std::io::Read as _;
use std::io::Write as _;
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use ngx_bpf_record::values::End;
use ngx_bpf_record::values::Failure;
use ngx_bpf_record::values::Side;
use ngx_bpf_record::values::Timeout;

use crate::suite::common::build::binary;
use crate::suite::common::build::is_older_than;
use crate::suite::common::build::kept;
use crate::suite::common::client::Client;
use crate::suite::common::client::reset;
use crate::suite::common::delay;
use crate::suite::common::listener::listen;
use crate::suite::common::listener::read_head;
use crate::suite::common::nginx::Config;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::record::Record;
use crate::suite::common::record::assert_delay;
use crate::suite::root::requests::traced;

/// The upstream's answer to an upgrade.
pub const SWITCHING: &str =
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";

/// A server that passes on upgrades, with TLS and without.
pub const WITH_TLS: &str = "
    server {
        listen 127.0.0.1:{port};
        listen 127.0.0.1:{tls} ssl;
        location / {
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade;
            proxy_pass http://127.0.0.1:{upstream};
        }
    }";

/// Starts an upstream that switches protocols, and sends back what it reads. Returns its port.
pub fn echo() -> u16 {
    listen(|mut stream| {
        thread::spawn(move || {
            read_head(&mut stream).unwrap();
            stream.write_all(SWITCHING.as_bytes()).unwrap();
            let _ = std::io::copy(&mut stream.try_clone().unwrap(), &mut stream);
        });
    })
}

/// Opens a tunnel by a request for this uri, and sends `text` through it and back.
pub fn open(mut client: Client, uri: &str, text: &str) -> Client {
    client.send(REQUEST.replacen('/', uri, 1));
    let mut heard = Vec::new();
    while !heard.ends_with(b"\r\n\r\n") {
        heard.extend(client.some());
    }
    assert!(heard.starts_with(b"HTTP/1.1 101 "), "{heard:?}");
    client.send(text);
    heard.clear();
    while heard.len() < text.len() {
        heard.extend(client.some());
    }
    client
}

/// A server that passes on upgrades.
const SERVER: &str = "server { listen 127.0.0.1:{port}; location / {
    proxy_http_version 1.1;
    proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade;
    proxy_pass http://127.0.0.1:{upstream}; } }";

/// A request that asks for an upgrade.
pub const REQUEST: &str =
    "GET / HTTP/1.1\r\nHost: t\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";

/// Waits 40 ms, switches protocols, waits 40 ms, sends five bytes, reads four, waits 40 ms, sends
/// the last five.
fn serve(mut stream: TcpStream) -> std::io::Result<()> {
    read_head(&mut stream)?;
    let pause = || delay(Duration::from_millis(40));
    pause();
    stream.write_all(SWITCHING.as_bytes())?;
    pause();
    stream.write_all(b"first")?;
    stream.read_exact(&mut [0; 4])?;
    pause();
    stream.write_all(b"final")
}

/// Check a WebSocket: its sizes include the tunnel's bytes, its response begins with the 101, its
/// request has an end, and bytes of the tunnel belong to neither.
#[test]
fn websocket() {
    let port = listen(|stream| drop(serve(stream)));
    let nginx = Nginx::with(SERVER, port);
    let records = traced(nginx, |nginx| {
        let mut client = Client::connect(nginx.port);
        client.send(REQUEST);
        /* The header of a 101, and the first five bytes after it. */
        let mut heard = Vec::new();
        while !heard.ends_with(b"first") {
            heard.extend(client.some());
        }
        client.send("four");
        assert_eq!(client.rest(), b"final");
    });
    assert_eq!(records.len(), 1);
    let record = &records[0];
    record.assert_complete();
    assert_eq!(record.status, Some(101));
    assert_eq!(record.request_size, i64::try_from(REQUEST.len()).ok());
    let p = &record.phases;
    let (first, last) = (
        p.downstream_response_first_byte_time,
        p.downstream_response_last_byte_time,
    );
    let sent = p.upstream_request_last_byte_time;
    assert_delay(sent, p.upstream_response_first_byte_time, 40);
    assert!(p.upstream_response_first_byte_time <= first, "{record:#?}");
    assert_eq!(first, last);
    assert!(record.ending.tunnel, "{record:#?}");
    assert_delay(Some(0), record.ending.tunnel_ns, 80);
    assert_delay(record.ending.tunnel_ns, record.elapsed_ns, 40);
    assert_delay(record.duration_ns, record.elapsed_ns, 80);
    assert_eq!(p.downstream_request_body_last_byte_time, None);
    /* Bytes of the tunnel do not belong to the response. */
    assert_eq!(
        p.upstream_response_first_byte_time,
        p.upstream_response_last_byte_time
    );
    let attempt = &record.upstreams[0];
    assert_eq!((attempt.status, &attempt.failure), (Some(101), &None));
    assert_eq!(record.ending.end, Some(End::Ok), "{record:#?}");
    assert_eq!(record.ending.closed_by, Some(Side::Upstream), "{record:#?}");
}

/// Check tunnels whose client closes them, and resets them.
#[test]
fn ended_by_client() {
    let port = listen(|mut stream| {
        thread::spawn(move || {
            read_head(&mut stream).unwrap();
            stream.write_all(SWITCHING.as_bytes()).unwrap();
            let _ = stream.read(&mut [0]);
        });
    });
    let nginx = Nginx::with(SERVER, port);
    let records = traced(nginx, |nginx| {
        for is_reset in [false, true] {
            let mut socket = TcpStream::connect(("127.0.0.1", nginx.port)).unwrap();
            socket.write_all(REQUEST.as_bytes()).unwrap();
            read_head(&mut socket).unwrap();
            if is_reset {
                reset(&socket);
            }
        }
        nginx.wait_logged(2);
    });
    let mut ends: Vec<_> = records
        .iter()
        .map(|record| (record.ending.end, record.ending.closed_by))
        .collect();
    ends.sort();
    assert_eq!(
        ends,
        [End::Ok, End::ClientReset].map(|end| (Some(end), Some(Side::Client)))
    );
}

/// Switches protocols, and then does what the uri says: resets the connection, sends without reading, or
/// does nothing.
fn serve_failing(mut stream: TcpStream) {
    let request = read_head(&mut stream).unwrap();
    stream.write_all(SWITCHING.as_bytes()).unwrap();
    if request.starts_with(b"GET /reset") {
        delay(Duration::from_millis(40));
        reset(&stream);
    } else if request.starts_with(b"GET /deaf") {
        /* It sends until nginx closes the connection. */
        while stream.write_all(b"x").is_ok() {
            delay(Duration::from_millis(20));
        }
    } else {
        let _ = stream.read(&mut [0]);
    }
}

/// Check tunnels that fail: nginx closes an idle one, an upstream resets one, and another upstream
/// sends without reading. The status does not show it.
#[test]
fn failed() {
    let port = listen(serve_failing);
    let nginx = Nginx::with(
        "server { listen 127.0.0.1:{port};
            proxy_http_version 1.1; proxy_read_timeout 200ms;
            proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade;
            location / { proxy_pass http://127.0.0.1:{upstream}; }
            location /deaf { proxy_read_timeout 60s; proxy_send_timeout 200ms;
                proxy_pass http://127.0.0.1:{upstream}; } }",
        port,
    );
    let records = traced(nginx, |nginx| {
        for uri in ["/idle", "/reset", "/deaf"] {
            let mut client = Client::connect(nginx.port);
            client.send(format!(
                "GET {uri} HTTP/1.1\r\nHost: t\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
            ));
            if uri == "/deaf" {
                client.try_send(vec![b'x'; 24 << 20]);
            }
            client.rest();
        }
    });
    let failures: Vec<_> = records
        .iter()
        .map(|record| (record.status, record.upstreams[0].failure))
        .collect();
    assert_eq!(
        failures,
        [Failure::Timeout, Failure::Reset, Failure::SendTimeout]
            .map(|failure| (Some(101), Some(failure)))
    );
    let ends: Vec<_> = records
        .iter()
        .map(|record| {
            (
                record.ending.end,
                record.ending.timeout,
                record.ending.closed_by,
            )
        })
        .collect();
    assert_eq!(
        ends,
        [
            (
                Some(End::Timeout),
                Some(Timeout::UpstreamRead),
                Some(Side::Nginx)
            ),
            (Some(End::UpstreamFailed), None, Some(Side::Upstream)),
            (
                Some(End::Timeout),
                Some(Timeout::UpstreamSend),
                Some(Side::Nginx)
            ),
        ]
    );
}

/// Says something at once, waits for an answer, waits 40 ms and says the last word, unless the client
/// only comes and goes.
fn speak_first(mut stream: TcpStream) -> std::io::Result<()> {
    stream.write_all(b"hello")?;
    stream.read_exact(&mut [0; 4])?;
    delay(Duration::from_millis(40));
    stream.write_all(b"final")
}

/// Asserts that a record has a tunnel, and no time of HTTP at the upstream.
fn assert_no_http_upstream(record: &Record) {
    assert!(record.ending.tunnel, "{record:#?}");
    let p = &record.phases;
    let (first, last) = (
        p.downstream_response_first_byte_time,
        p.downstream_response_last_byte_time,
    );
    assert!(first.is_some() && first == last, "{record:#?}");
    assert!(p.upstream_connect_time.is_some() && p.upstream_connect_time <= first);
    assert_eq!(p.downstream_request_body_last_byte_time, None);
    for time in [
        p.upstream_request_first_byte_time,
        p.upstream_request_last_byte_time,
        p.upstream_response_first_byte_time,
        p.upstream_response_last_byte_time,
    ] {
        assert_eq!(time, None, "{record:#?}");
    }
    let attempt = &record.upstreams[0];
    /* nginx reads no status from the upstream. */
    assert_eq!((attempt.status, &attempt.failure), (None, &None));
}

/// Check CONNECT through nginx: no byte on the upstream's connection belongs to a request or a response,
/// whoever speaks first. Where this nginx has no `tunnel_pass`, a build that stands in for it is traced.
#[test]
fn connect_through() {
    let stand_in = is_older_than((1, 31, 0));
    let binary = match stand_in {
        true => kept("source-tunnel/objs/nginx.stripped"),
        false => Some(binary()),
    };
    let Some(binary) = binary else {
        return;
    };
    let (pass, target) = match stand_in {
        true => ("proxy_pass http://127.0.0.1", "/"),
        false => ("tunnel_pass 127.0.0.1", "example.org:443"),
    };
    let http =
        format!("server {{ listen 127.0.0.1:{{port}}; location / {{ {pass}:{{upstream}}; }} }}");
    let nginx = Nginx::start(&Config {
        http: &http,
        upstream: listen(|stream| drop(speak_first(stream))),
        binary,
        ..Config::default()
    });
    let request = format!("CONNECT {target} HTTP/1.1\r\nHost: t\r\n\r\n");
    let records = traced(nginx, |nginx| {
        for early in [false, true] {
            let mut client = Client::connect(nginx.port);
            /* A client may speak before the tunnel is there. */
            client.send(format!("{request}{}", if early { "four" } else { "" }));
            let mut heard = Vec::new();
            if !early {
                while !heard.ends_with(b"hello") {
                    heard.extend(client.some());
                }
                delay(Duration::from_millis(40));
                client.send("four");
            }
            heard.extend(client.rest());
            assert!(heard.starts_with(b"HTTP/1.1 200 "), "{heard:?}");
            assert!(heard.ends_with(b"\r\n\r\nhellofinal"), "{heard:?}");
        }
    });
    assert_eq!(records.len(), 2);
    for (record, ms) in records.iter().zip([80, 40]) {
        assert_eq!(record.status, Some(200));
        assert_eq!(record.request_method.as_deref(), Some("CONNECT"));
        assert_eq!(record.request_size, i64::try_from(request.len()).ok());
        assert_delay(Some(0), record.ending.tunnel_ns, ms);
        assert_delay(record.duration_ns, record.elapsed_ns, ms);
        assert_no_http_upstream(record);
    }
}

/// Check CONNECT where nginx refuses it in every form: it has an ordinary record.
#[test]
fn connect() {
    let nginx = Nginx::with("server { listen 127.0.0.1:{port}; }", 9);
    let targets = ["127.0.0.1:80", "example.org:443", "/"];
    let records = traced(nginx, |nginx| {
        for target in targets {
            let mut client = Client::connect(nginx.port);
            client.send(format!("CONNECT {target} HTTP/1.1\r\nHost: t\r\n\r\n"));
            let status = client.receive().status;
            assert!(matches!(status, 400 | 405), "{target}: {status}");
        }
    });
    assert_eq!(records.len(), targets.len());
    for record in &records {
        let p = &record.phases;
        assert!(p.downstream_request_first_byte_time.is_some());
        assert!(p.downstream_response_last_byte_time.is_some());
        assert!(
            !record.ending.tunnel && record.ending.tunnel_ns.is_none(),
            "{record:#?}"
        );
    }
}
