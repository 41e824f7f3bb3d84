// SPDX-License-Identifier: MIT OR Apache-2.0
//! Why attempts failed: what nginx says in its error log of each, by every module for upstreams, is
//! what is reported.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::io::Read as _;
use std::io::Write as _;
use std::net::Shutdown;
use std::net::TcpListener;
use std::net::TcpStream;
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::time::Duration;

use crate::suite::common::PATIENCE;
use crate::suite::common::build::REWRITE;
use crate::suite::common::build::is_before;
use crate::suite::common::build::is_built_without;
use crate::suite::common::client::Client;
use crate::suite::common::client::Stream;
use crate::suite::common::delay;
use crate::suite::common::http2::Frames;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::protocol::Protocol;
use crate::suite::common::record::Attempt;
use crate::suite::common::record::Record;
use crate::suite::common::tls;
use crate::suite::common::tls::Served;
use crate::suite::common::upstream::Upstream;
use crate::suite::common::upstream::reset;
use crate::suite::root::modules::params;
use crate::suite::root::requests::traced;

/// What nginx says, what it did meanwhile, and what that is called. The first that fits counts.
const SAID: [(&str, &str, Option<&str>); 30] = [
    (
        "upstream timed out",
        "connecting to upstream",
        Some("connect_timeout"),
    ),
    (
        "upstream timed out",
        "SSL handshaking to upstream",
        Some("tls_timeout"),
    ),
    (
        "upstream timed out",
        "sending request to upstream",
        Some("send_timeout"),
    ),
    ("upstream timed out", "", Some("timeout")),
    ("connect() failed", "", Some("connect_error")),
    ("connect() to ", "", Some("connect_error")),
    ("SSL_do_handshake() failed", "", Some("tls_error")),
    (
        "peer closed connection in SSL handshake",
        "",
        Some("tls_error"),
    ),
    ("upstream SSL certificate", "", Some("tls_error")),
    ("SSL_read() failed", "", Some("tls_error")),
    (
        "recv() failed (104",
        "SSL handshaking to upstream",
        Some("tls_error"),
    ),
    ("recv() failed (104", "", Some("reset")),
    ("readv() failed (104", "", Some("reset")),
    ("writev() failed (", "", Some("reset")),
    ("send() failed (", "", Some("reset")),
    ("upstream rejected request", "", Some("reset")),
    ("upstream sent goaway", "", Some("reset")),
    ("prematurely closed", "", Some("closed")),
    ("upstream sent no valid HTTP/1.0 header", "", None),
    (
        "upstream sent invalid chunked response",
        "",
        Some("invalid_body"),
    ),
    (
        "upstream sent unsupported FastCGI",
        "reading upstream",
        Some("invalid_body"),
    ),
    (
        "upstream sent settings frame",
        "reading upstream",
        Some("invalid_body"),
    ),
    (
        "upstream sent unsupported FastCGI",
        "",
        Some("invalid_header"),
    ),
    ("upstream sent settings frame", "", Some("invalid_header")),
    (
        "upstream sent unexpected http2 frame",
        "",
        Some("invalid_header"),
    ),
    ("upstream sent invalid header", "", Some("invalid_header")),
    (
        "upstream sent unexpected FastCGI",
        "",
        Some("invalid_header"),
    ),
    ("upstream sent too big header", "", Some("invalid_header")),
    ("memcached sent invalid", "", Some("invalid_header")),
    ("no live upstreams", "", Some("no_live_upstreams")),
];

/// What the error log says of each request, by its uri, which a subrequest's uri follows: a name, or none
/// where nginx goes on.
fn said(nginx: &Nginx) -> BTreeMap<String, Vec<Option<&'static str>>> {
    let log = fs::read_to_string(nginx.prefix().join("error.log")).unwrap();
    let mut said: BTreeMap<String, Vec<Option<&str>>> = BTreeMap::new();
    for line in log.lines().filter(|line| line.contains(", upstream: \"")) {
        let (_, request) = line.split_once("request: \"").unwrap();
        let mut uri = request.split(' ').nth(1).unwrap().to_owned();
        if let Some((_, subrequest)) = line.split_once("subrequest: \"") {
            uri += subrequest.split('"').next().unwrap();
        }
        let name = SAID
            .iter()
            .find(|(what, when, _)| line.contains(what) && line.contains(&format!("while {when}")));
        let (.., name) = name.unwrap_or_else(|| panic!("not in the table: {line}"));
        said.entry(uri).or_default().push(*name);
    }
    said
}

/// Sends each of these requests on a connection of its own, all at once, and reads to the end.
fn send_all(port: u16, requests: &[(String, Vec<u8>)]) {
    std::thread::scope(|scope| {
        for (uri, body) in requests {
            scope.spawn(move || {
                let mut client = Client::connect(port);
                if uri.contains("/kept") {
                    client.get(&format!("{}/warm", &uri[..uri.find("/n-").unwrap()]));
                }
                let method = if body.is_empty() { "GET" } else { "POST" };
                client.send(format!(
                    "{method} {uri} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\
                     Content-Length: {}\r\n\r\n",
                    body.len()
                ));
                client.send(body);
                client.rest();
            });
        }
    });
}

/// What nginx's words over TLS do not say: it takes a reset for the end, since OpenSSL reports no
/// reset, and once session tickets have come it says that it was reading a response while it
/// was still sending.
fn untold_by_tls(uri: &str) -> Option<&'static str> {
    let mut is_tls = ["/https/", "/uwsgis/", "/grpcs/"].into_iter();
    if !is_tls.any(|name| uri.starts_with(name)) {
        return None;
    }
    let names = [
        ("/reset", "reset"),
        ("/deaf", "send_timeout"),
        ("/half-broken", "invalid_body"),
    ];
    let name = names.iter().find(|(end, _)| uri.ends_with(end));
    name.map(|(_, name)| *name)
}

/// Servers of the upstream whose attempts all fail before a request is sent.
const SERVERS: usize = 3;

/// Responses over HTTP/2 in nginx's buffers: which frame was the last can't be found in them.
const BUFFERED: [&str; 3] = [
    "/h2/half-broken",
    "/h2/half-long-broken",
    "/h2/half-long-rst",
];

/// Compares what is reported of each request with what nginx logged. Returns the names that occurred.
fn compare(
    records: &[Record],
    said: &BTreeMap<String, Vec<Option<&'static str>>>,
) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for record in records {
        let uri = record.request_uri.clone().unwrap();
        let of_subrequests = record.subrequests.iter().map(|subrequest| {
            let uri = uri.clone() + subrequest.uri.as_deref().unwrap();
            (uri, &subrequest.upstreams)
        });
        for (uri, attempts) in [(uri.clone(), &record.upstreams)]
            .into_iter()
            .chain(of_subrequests)
        {
            let told: Vec<_> = attempts
                .iter()
                .filter_map(|attempt| attempt.failure.as_deref())
                .collect();
            let said = said.get(&uri).into_iter().flatten();
            let mut expected: Vec<_> = said.filter_map(|name| *name).collect();
            if let Some(name) = untold_by_tls(&uri) {
                expected = vec![name];
            }
            if BUFFERED.contains(&&*uri) {
                expected = vec!["error"];
            }
            /*
             * An event of the attempt before can be taken for one of this connection, which has its
             * ngx_connection_t and, after two attempts, its instance bit. nginx then says that it
             * was sending, or in a handshake, though nothing was connected and nothing went out.
             */
            if attempts.len() == SERVERS
                && attempts.iter().all(|attempt| attempt.bytes_sent == 0)
                && let Some(name @ &mut ("send_timeout" | "tls_timeout")) = expected.last_mut()
            {
                *name = "connect_timeout";
            }
            assert_eq!(told, expected, "{uri}: {record:#?}");
            names.extend(told.into_iter().map(str::to_owned));
            attempts.iter().for_each(assert_sent);
        }
    }
    names
}

/// Checks that an attempt has the times of a request only where nginx has sent one.
fn assert_sent(attempt: &Attempt) {
    if attempt.bytes_sent == 0 {
        assert_eq!(
            attempt.upstream_request_first_byte_time, None,
            "{attempt:#?}"
        );
    }
    let is_stuck = attempt.failure.as_deref() == Some("send_timeout");
    if attempt.bytes_sent == 0 || is_stuck {
        assert_eq!(
            attempt.upstream_request_last_byte_time, None,
            "{attempt:#?}"
        );
    }
}

/// Locations of one module: each with its own connections, with kept ones, and without buffers.
fn locations(name: &str, module: &str, scheme: &str, upstream: &str, kept: &str) -> String {
    let params = match module {
        "memcached" => "set $memcached_key $request_uri;".to_owned(),
        "grpc" | "proxy" => String::new(),
        _ => params(module),
    };
    let unbuffered = match module {
        "memcached" | "grpc" => String::new(),
        _ => format!(
            "location /{name}/unbuffered/ {{ {params} {module}_buffering off; {module}_pass {scheme}{upstream}; }}"
        ),
    };
    let with_kept = match module {
        "proxy" => "proxy_http_version 1.1; proxy_set_header Connection '';",
        "fastcgi" => "fastcgi_keep_conn on;",
        _ => "",
    };
    format!(
        "location /{name}/ {{ {params} {module}_pass {scheme}{upstream}; }}
         {unbuffered}
         location /{name}/kept/ {{ {params} {with_kept} {module}_pass {scheme}{kept}; }}"
    )
}

/// How long nginx waits for an upstream, whatever the module.
fn times(module: &str) -> String {
    format!(
        "{module}_connect_timeout 400ms; {module}_read_timeout 400ms; {module}_send_timeout 400ms; {module}_next_upstream off;\n"
    )
}

/// Check every kind of failure that an upstream's own words and silence can bring about, by every module
/// but grpc, over TLS where the module has it, on new connections and kept ones, with buffers and
/// without.
#[test]
fn modules() {
    let kinds = [
        ("http", "proxy", "http://", Protocol::Http, false),
        ("https", "proxy", "https://", Protocol::Http, true),
        ("fastcgi", "fastcgi", "", Protocol::Fastcgi, false),
        ("uwsgi", "uwsgi", "", Protocol::Uwsgi, false),
        ("uwsgis", "uwsgi", "suwsgi://", Protocol::Uwsgi, true),
        ("scgi", "scgi", "", Protocol::Scgi, false),
        ("memcached", "memcached", "", Protocol::Memcached, false),
    ];
    let mut http =
        "error_log {prefix}/error.log; client_max_body_size 64m; client_body_buffer_size 64m;\n"
            .to_owned();
    for module in ["proxy", "fastcgi", "uwsgi", "scgi", "memcached"] {
        http += &times(module);
    }
    let mut server = String::new();
    for (name, module, scheme, protocol, is_tls) in kinds {
        let upstream = if is_tls {
            Upstream::speaking_tls(protocol)
        } else {
            Upstream::speaking(protocol)
        };
        let address = format!("127.0.0.1:{}", upstream.port);
        http += &format!("upstream {name} {{ server {address}; keepalive 4; }}\n");
        server += &locations(name, module, scheme, &address, name);
    }
    server += "location /unix/ { proxy_pass http://unix:{prefix}/up.sock:; }
               location /unix/unbuffered/ { proxy_pass http://unix:{prefix}/up.sock:; proxy_buffering off; }";
    let http = format!("{http} server {{ listen 127.0.0.1:{{port}}; {server} }}");
    let nginx = Nginx::prepared(&http, 9, |folder| {
        Upstream::start_unix(&folder.join("up.sock"))
    });
    let scripts = [
        "close",
        "reset",
        "hang",
        "junk",
        "nonsense",
        "half-1000/wait-30/close",
        "half-1000/wait-30/reset",
        "half-1000/hang",
        "half-1000",
        "endless/half-1000/wait-30/close",
        "endless/half-1000/wait-30/reset",
        "endless/half-1000/hang",
        "half-100000/wait-30/close",
        "half-100000/hang",
        "chunk/wait-30/close",
        "chunk/wait-30/reset",
        "chunk/hang",
        "chunk/wait-30/broken-chunk/wait-1000",
        "body-1000",
        "endless/body-1000",
    ];
    let names = kinds.map(|(name, ..)| name);
    let mut requests = Vec::new();
    for name in names.iter().chain(&["unix"]) {
        for kind in ["", "/unbuffered", "/kept"] {
            let has_unbuffered = !matches!(*name, "memcached");
            if (kind == "/unbuffered" && !has_unbuffered) || (kind == "/kept" && *name == "unix") {
                continue;
            }
            for script in scripts {
                let is_http = matches!(*name, "http" | "https" | "unix");
                if script.contains("chunk") && (!is_http || kind.is_empty()) {
                    /* nginx speaks HTTP/1.0 there. */
                    continue;
                }
                let uri = format!("/{name}{kind}/n-{}/{script}", requests.len());
                requests.push((uri, Vec::new()));
            }
            if *name != "memcached" {
                let uri = format!("/{name}{kind}/n-{}/deaf", requests.len());
                requests.push((uri, vec![b'x'; 24 << 20]));
            }
        }
    }
    let mut told = BTreeMap::new();
    let records = traced(nginx, |nginx| {
        for some in requests.chunks(20) {
            send_all(nginx.port, some);
        }
        told = said(nginx);
    });
    let names = compare(&records, &told);
    for name in [
        "closed",
        "reset",
        "timeout",
        "send_timeout",
        "invalid_header",
        "invalid_body",
    ] {
        assert!(names.contains(name), "{name}: {names:?}");
    }
}

/// What a server of gRPC answers with, and how its connection ends then.
type Script = (&'static str, Frames, &'static str);

/// Serves connections in this way, after so many requests that are answered well. Its port.
fn serve(frames: Frames, ending: &'static str, is_tls: bool, answered: usize) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let config = tls::server_config();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let served = Served::new(stream.try_clone().unwrap(), Arc::clone(&config));
            let other: Box<dyn Stream> = if is_tls {
                Box::new(served.clone())
            } else {
                Box::new(stream.try_clone().unwrap())
            };
            let _ = frames.serve(other, answered);
            match ending {
                "hang" => delay(PATIENCE),
                /* What nginx sends still, it may send: else the connection would be reset. */
                "close" => {
                    if is_tls {
                        served.close();
                    }
                    let _ = stream.shutdown(Shutdown::Write);
                    delay(PATIENCE);
                }
                "reset" => reset(&stream),
                _ => {}
            }
        }
    });
    port
}

/// Check the same of gRPC, and of proxy where it speaks HTTP/2: streams can be reset, and connections end
/// with a frame.
#[test]
fn grpc() {
    let scripts: [Script; 13] = [
        ("close", Frames(&[]), "close"),
        ("reset", Frames(&[]), "reset"),
        ("hang", Frames(&[]), "hang"),
        ("rst", Frames(&[Frames::RESET]), "hang"),
        ("goaway", Frames(&[Frames::GOAWAY]), "hang"),
        ("broken", Frames(&[Frames::BROKEN]), "hang"),
        ("data", Frames(&[Frames::PIECE]), "hang"),
        (
            "half-close",
            Frames(&[Frames::HALF, Frames::PIECE]),
            "close",
        ),
        ("half-hang", Frames(&[Frames::HALF, Frames::PIECE]), "hang"),
        (
            "half-rst",
            Frames(&[Frames::HALF, Frames::PIECE, Frames::RESET]),
            "hang",
        ),
        (
            "half-broken",
            Frames(&[Frames::HALF, Frames::PIECE, Frames::BROKEN]),
            "hang",
        ),
        (
            "half-long-rst",
            Frames(&[Frames::HALF, Frames::LONG, Frames::RESET]),
            "hang",
        ),
        (
            "half-long-broken",
            Frames(&[Frames::HALF, Frames::LONG, Frames::BROKEN]),
            "hang",
        ),
    ];
    let (mut upstreams, mut server) = (String::new(), String::new());
    let mut requests = Vec::new();
    let scripts_of_proxy = scripts
        .iter()
        .map(|(name, frames, ending)| (*name, Frames(frames.0), *ending));
    let scripts_of_proxy: Vec<Script> = scripts_of_proxy.collect();
    for (name, frames, ending) in scripts {
        for (scheme, is_tls) in [("grpc", false), ("grpcs", true)] {
            let port = serve(Frames(frames.0), ending, is_tls, 0);
            server += &format!(
                "location /{scheme}/{name} {{ grpc_pass {scheme}://127.0.0.1:{port}; }}\n"
            );
            requests.push((format!("/{scheme}/{name}"), Vec::new()));
            let port = serve(Frames(frames.0), ending, is_tls, 1);
            upstreams +=
                &format!("upstream {scheme}-{name} {{ server 127.0.0.1:{port}; keepalive 1; }}\n");
            server += &format!(
                "location /{scheme}/kept/{name}/ {{ grpc_pass {scheme}://{scheme}-{name}; }}\n"
            );
            requests.push((format!("/{scheme}/kept/{name}/n-1/{ending}"), Vec::new()));
        }
    }
    if !is_before((1, 29, 4), "proxy_http_version 2") {
        for (name, frames, ending) in scripts_of_proxy {
            for (kind, buffering) in [("h2", "on"), ("h2-unbuffered", "off")] {
                let port = serve(Frames(frames.0), ending, false, 0);
                server += &format!(
                    "location /{kind}/{name} {{ proxy_http_version 2; proxy_buffering {buffering}; proxy_pass http://127.0.0.1:{port}; }}\n"
                );
                requests.push((format!("/{kind}/{name}"), Vec::new()));
            }
        }
    }
    /* A server that lets no one send more than a window. */
    let port = serve(Frames(&[]), "hang", false, 0);
    server += &format!("location /window {{ grpc_pass grpc://127.0.0.1:{port}; }}\n");
    requests.push(("/window".to_owned(), vec![b'x'; 1 << 20]));
    let http = format!(
        "error_log {{prefix}}/error.log; client_body_buffer_size 2m; client_max_body_size 2m; {} {upstreams}
         server {{ listen 127.0.0.1:{{port}}; {server} }}",
        [times("grpc"), times("proxy")].concat()
    );
    let mut told = BTreeMap::new();
    let records = traced(Nginx::with(&http, 9), |nginx| {
        /* Few at once: each handshake keeps nginx from reading what else has come. */
        for some in requests.chunks(8) {
            send_all(nginx.port, some);
        }
        told = said(nginx);
    });
    let names = compare(&records, &told);
    for name in [
        "closed",
        "reset",
        "timeout",
        "send_timeout",
        "invalid_header",
        "invalid_body",
    ] {
        assert!(names.contains(name), "{name}: {names:?}");
    }
    for record in &records {
        let is_second = record.uri.as_deref().unwrap().contains("/n-1");
        let attempt = &record.upstreams[0];
        assert!(!is_second || attempt.reused == Some(true), "{record:#?}");
    }
}

/// Ends each connection when the first bytes have come. Its port.
fn serve_no_handshake(end: fn(&TcpStream)) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 4096]);
            end(&stream);
        }
    });
    port
}

/// Check handshakes that do not end, and certificates that nginx refuses: no time of a request that was
/// not sent, none of a handshake that did not end, and what nginx says.
#[test]
fn handshakes() {
    let [good, revoked] = [(); 2].map(|()| crate::suite::common::free_port());
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_port = silent.local_addr().unwrap().port();
    let plain = Upstream::start().port;
    let closes = serve_no_handshake(|stream| stream.shutdown(Shutdown::Both).unwrap());
    let resets = serve_no_handshake(reset);
    let mut server = String::new();
    let mut requests = Vec::new();
    for (module, scheme) in [
        ("proxy", "https://"),
        ("grpc", "grpcs://"),
        ("uwsgi", "suwsgi://"),
    ] {
        for version in ["TLSv1.2", "TLSv1.3"] {
            let ca = format!("{module}_ssl_verify on; {module}_ssl_trusted_certificate {{prefix}}");
            for (name, port, directives) in [
                (
                    "ca",
                    good,
                    format!("{ca}/other/cert.pem; {module}_ssl_name test;"),
                ),
                (
                    "name",
                    good,
                    format!("{ca}/cert.pem; {module}_ssl_name elsewhere;"),
                ),
                (
                    "revoked",
                    revoked,
                    format!(
                        "{ca}/cert.pem; {module}_ssl_crl {{prefix}}/crl.pem; {module}_ssl_name revoked;"
                    ),
                ),
                ("silent", silent_port, String::new()),
                ("plain", plain, String::new()),
                ("closes", closes, String::new()),
                ("resets", resets, String::new()),
            ] {
                let place = format!("/{module}/{version}/{name}/");
                server += &format!(
                    "location {place} {{ {directives} {module}_ssl_protocols {version};
                     {module}_ssl_session_reuse off; {module}_pass {scheme}127.0.0.1:{port}; }}\n"
                );
                for n in 0..2 {
                    requests.push((format!("{place}{n}"), Vec::new()));
                }
            }
        }
    }
    let times = ["proxy", "grpc", "uwsgi"].map(times).concat();
    let http = format!(
        "error_log {{prefix}}/error.log; {times} {}
         server {{ listen 127.0.0.1:{good} ssl http2; return 200; }}
         server {{ listen 127.0.0.1:{revoked} ssl http2; return 200;
                   ssl_certificate {{prefix}}/revoked.pem; ssl_certificate_key {{prefix}}/revoked.key; }}
         server {{ listen 127.0.0.1:{{port}}; {server} }}",
        tls::DIRECTIVES
    );
    let nginx = Nginx::prepared(&http, 9, |folder| {
        tls::certificate(folder);
        tls::revoked(folder);
        fs::create_dir(folder.join("other")).unwrap();
        tls::certificate(&folder.join("other"));
    });
    let mut told = BTreeMap::new();
    let records = traced(nginx, |nginx| {
        send_all(nginx.port, &requests);
        told = said(nginx);
        let log = fs::read_to_string(nginx.prefix().join("error.log")).unwrap();
        assert_eq!(log.matches("certificate revoked").count(), 12, "{log}");
    });
    assert_eq!(records.len(), requests.len(), "{records:#?}");
    let names = compare(&records, &told);
    assert_eq!(Vec::from_iter(names), ["tls_error", "tls_timeout"]);
    for record in &records {
        let attempt = &record.upstreams[0];
        let is_over = record.uri.as_deref().unwrap().split('/').nth(3);
        let is_over = matches!(is_over, Some("ca" | "name" | "revoked"));
        assert!(is_over || attempt.upstream_tls_ns.is_none(), "{record:#?}");
        assert_eq!(attempt.reused, None, "{record:#?}");
        assert_eq!(attempt.upstream_request_last_byte_time, None, "{record:#?}");
    }
}

/// Check sessions of TLS that are resumed. OpenSSL remembers whether the certificate was good: where it was,
/// the request is served like any other on a new connection, and where no one had asked, a location
/// that asks refuses it.
#[test]
fn resumed_sessions() {
    let good = crate::suite::common::free_port();
    let (mut upstreams, mut server) = (String::new(), String::new());
    let mut uris = Vec::new();
    for (module, scheme) in [
        ("proxy", "https://"),
        ("grpc", "grpcs://"),
        ("uwsgi", "suwsgi://"),
    ] {
        let verify = format!(
            "{module}_ssl_verify on; {module}_ssl_trusted_certificate {{prefix}}/cert.pem;
             {module}_ssl_name test;"
        );
        for version in ["TLSv1.2", "TLSv1.3"] {
            for (name, first) in [("verified", &verify[..]), ("unverified", "")] {
                let upstream = format!("{module}-{version}-{name}");
                upstreams += &format!("upstream {upstream} {{ server 127.0.0.1:{good}; }}\n");
                for (n, directives) in [first, &verify].into_iter().enumerate() {
                    let uri = format!("/{module}/{version}/{name}/{n}");
                    server += &format!(
                        "location {uri} {{ {directives} {module}_ssl_protocols {version};
                         {module}_pass {scheme}{upstream}; }}\n"
                    );
                    uris.push(uri);
                }
            }
        }
    }
    let times = ["proxy", "grpc", "uwsgi"].map(times).concat();
    let http = format!(
        "error_log {{prefix}}/error.log; {times} {upstreams} {}
         server {{ listen 127.0.0.1:{good} ssl http2;
                   location / {{ return 200 $ssl_session_reused; }} }}
         server {{ listen 127.0.0.1:{{port}}; {server} }}",
        tls::DIRECTIVES
    );
    let mut told = BTreeMap::new();
    let mut records = traced(Nginx::prepared(&http, 9, tls::certificate), |nginx| {
        for uri in &uris {
            let response = Client::connect(nginx.port).get(uri);
            let is_resumed = uri.starts_with("/proxy/") && uri.ends_with("/verified/1");
            assert!(!is_resumed || response.body == b"r", "{uri}");
        }
        told = said(nginx);
    });
    records.retain(|record| record.server_port != Some(good));
    assert_eq!(records.len(), uris.len());
    let names = compare(&records, &told);
    assert_eq!(Vec::from_iter(names), ["tls_error"]);
    for record in &records {
        let attempt = &record.upstreams[0];
        let is_refused = record.uri.as_deref().unwrap().ends_with("/unverified/1");
        assert_eq!(attempt.failure.is_some(), is_refused, "{record:#?}");
        assert_eq!(attempt.reused, (!is_refused).then_some(false));
        assert!(attempt.upstream_tls_ns.is_some_and(|ns| ns > 0));
        let last = attempt.upstream_request_last_byte_time;
        assert_eq!(last.is_none(), is_refused, "{record:#?}");
    }
}

/// Check connects that no one answers, that are refused, at once or later, and that are not made since no
/// server is up, by every module, and by both where a second server is asked.
#[test]
fn connects() {
    let full = TcpListener::bind("127.0.0.1:0").unwrap();
    let full_port = full.local_addr().unwrap().port();
    // SAFETY: the descriptor is a socket that listens. From here on one connection may wait.
    assert_eq!(unsafe { libc::listen(full.as_raw_fd(), 0) }, 0);
    let waiting = TcpStream::connect(("127.0.0.1", full_port)).unwrap();
    let servers = [
        ("full", format!("server 127.0.0.1:{full_port};")),
        ("refused", "server 127.0.0.1:9;".to_owned()),
        ("absent", "server unix:{prefix}/none.sock;".to_owned()),
        ("down", "server 127.0.0.1:9 down;".to_owned()),
        (
            "both",
            format!(
                "server 127.0.0.1:9 max_fails=0; server 127.0.0.1:{full_port} max_fails=0;
                 server unix:{{prefix}}/none.sock max_fails=0;"
            ),
        ),
    ];
    let mut http = "error_log {prefix}/error.log;\n".to_owned();
    for module in ["proxy", "fastcgi", "uwsgi", "scgi", "memcached", "grpc"] {
        http += &times(module);
    }
    for (name, servers) in &servers {
        http += &format!("upstream {name} {{ {servers} }}\n");
    }
    let mut server = String::new();
    let mut requests = Vec::new();
    for (module, scheme) in [
        ("proxy", "http://"),
        ("proxy", "https://"),
        ("fastcgi", ""),
        ("uwsgi", ""),
        ("uwsgi", "suwsgi://"),
        ("scgi", ""),
        ("memcached", ""),
        ("grpc", "grpc://"),
        ("grpc", "grpcs://"),
    ] {
        let directive = match module {
            "memcached" => "set $memcached_key $request_uri;",
            _ => "",
        };
        for (name, _) in &servers {
            let next = match *name {
                "both" => format!("{module}_next_upstream error timeout;"),
                _ => String::new(),
            };
            let uri = format!("/{name}/{}", requests.len());
            server +=
                &format!("location {uri} {{ {directive} {next} {module}_pass {scheme}{name}; }}\n");
            requests.push((uri, Vec::new()));
        }
    }
    let http = format!("{http} server {{ listen 127.0.0.1:{{port}}; {server} }}");
    let mut told = BTreeMap::new();
    let records = traced(Nginx::with(&http, 9), |nginx| {
        send_all(nginx.port, &requests);
        told = said(nginx);
    });
    drop(waiting);
    assert_eq!(records.len(), requests.len());
    let names = compare(&records, &told);
    assert_eq!(
        Vec::from_iter(names),
        ["connect_error", "connect_timeout", "no_live_upstreams"]
    );
    for record in &records {
        let is_both = record.uri.as_deref().unwrap().starts_with("/both");
        assert_eq!(record.upstreams.len(), if is_both { SERVERS } else { 1 });
        for attempt in &record.upstreams {
            assert_eq!(attempt.upstream_tls_ns, None, "{record:#?}");
            assert_eq!(attempt.upstream_response_first_byte_time, None);
        }
    }
}

/// Answers the first slice of a file, and half of any other. Its port.
fn serve_slices() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                head.push(byte[0]);
            }
            let head = String::from_utf8(head).unwrap();
            let (from, size) = match head.contains("Range: bytes=0-") {
                true => (0, 4096),
                false => (4096, 2048),
            };
            let head = format!(
                "HTTP/1.1 206 Partial Content\r\nContent-Length: 4096\r\nETag: \"1\"\r\n\
                 Content-Range: bytes {from}-{}/8192\r\n\r\n",
                from + 4095
            );
            stream.write_all(head.as_bytes()).unwrap();
            stream.write_all(&vec![b'x'; size]).unwrap();
            delay(Duration::from_millis(30));
        }
    });
    port
}

/// Check responses that fail after their header where they are a subrequest's (of SSI, mirror, slice and
/// auth_request), or are written to a file: for the cache, for proxy_store, or since the client is
/// slow.
#[test]
fn subrequests_and_files() {
    let modules = [
        "http_auth_request_module",
        "http_slice_module",
        "http-cache",
    ];
    if modules.into_iter().chain([REWRITE]).any(is_built_without) {
        return;
    }
    let slices = serve_slices();
    let http = format!(
        "error_log {{prefix}}/error.log; {} proxy_http_version 1.1;
         proxy_cache_path {{prefix}}/cache keys_zone=cache:1m;
         proxy_buffers 2 4k; proxy_buffer_size 4k; proxy_busy_buffers_size 4k;
         server {{
            listen 127.0.0.1:{{port}};
            root {{prefix}}/html;
            location /page.html {{ ssi on; }}
            location /part/ {{ proxy_pass http://127.0.0.1:{{upstream}}; }}
            location /mirror/ {{ mirror /copy; rewrite ^ /static break; }}
            location /auth/ {{ auth_request /copy; rewrite ^ /static break; }}
            location /copy {{ internal; proxy_pass http://127.0.0.1:{{upstream}}$request_uri; }}
            location /sliced {{
                slice 4k; proxy_cache cache; proxy_cache_key $uri$slice_range;
                proxy_cache_valid 206 1h; proxy_set_header Range $slice_range;
                proxy_pass http://127.0.0.1:{slices};
            }}
            location /cached/ {{
                proxy_cache cache; proxy_cache_valid any 1h; proxy_cache_key $request_uri;
                proxy_pass http://127.0.0.1:{{upstream}};
            }}
            location /stored/ {{
                proxy_store {{prefix}}/stored-$connection; proxy_pass http://127.0.0.1:{{upstream}};
            }}
            location /slow/ {{ limit_rate 200k; proxy_pass http://127.0.0.1:{{upstream}}; }}
         }}",
        times("proxy")
    );
    let upstream = Upstream::start();
    let nginx = Nginx::with(&http, upstream.port);
    nginx.file(
        "page.html",
        b"<!--#include virtual=\"/part/${arg_one}\" --> and <!--#include virtual=\"/part/${arg_two}\" -->",
    );
    nginx.file("static", b"static");
    let scripts = [
        "half-1000/wait-30/close",
        "half-1000/wait-30/reset",
        "half-1000/hang",
        "half-200000/wait-30/close",
        "half-200000/hang",
        "chunk/wait-30/close",
        "chunk/hang",
        "chunk/wait-30/broken-chunk/wait-1000",
        "body-1000",
    ];
    let mut requests = vec![("/sliced".to_owned(), Vec::new())];
    for script in scripts {
        for page in [
            format!("one={script}&two=body-10"),
            format!("one=body-10&two={script}"),
            format!("one={script}&two=half-2000/wait-300/close"),
        ] {
            requests.push((format!("/page.html?{page}"), Vec::new()));
        }
        for kind in ["mirror", "auth", "cached", "stored", "slow"] {
            requests.push((format!("/{kind}/{script}"), Vec::new()));
        }
    }
    let mut told = BTreeMap::new();
    let records = traced(nginx, |nginx| {
        for some in requests.chunks(20) {
            send_all(nginx.port, some);
        }
        for kind in ["cached", "stored"] {
            /* The client leaves, and nginx goes on. */
            for script in ["half-1000/wait-200/close", "half-1000/hang"] {
                let mut client = Client::connect(nginx.port);
                client.send(format!(
                    "GET /{kind}/left/{script} HTTP/1.1\r\nHost: t\r\n\r\n"
                ));
                client.some();
            }
        }
        nginx.wait_logged(requests.len() + 4);
        told = said(nginx);
        /* docs/fields.md says why: the disk may have been full, or the other response was broken. */
        told.retain(|uri, _| {
            let is_not_certain = [
                "/cached/",
                "/stored/",
                "/page.html?one=chunk/wait-30/broken-chunk/wait-1000&two=half",
            ]
            .into_iter()
            .any(|place| uri.starts_with(place));
            !(is_not_certain && uri.ends_with("/broken-chunk/wait-1000"))
        });
    });
    assert_eq!(records.len(), requests.len() + 4);
    let names = compare(&records, &told);
    assert_eq!(
        Vec::from_iter(names),
        ["closed", "invalid_body", "reset", "timeout"]
    );
}
