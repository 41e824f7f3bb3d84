// SPDX-License-Identifier: MIT OR Apache-2.0
//! How requests end: every end that a client, an upstream and nginx itself can cause, compared with
//! nginx's logs.

use std::collections::BTreeMap;
use std::fs;

use ngx_bpf_record::Ending;
use ngx_bpf_record::values::End;
use ngx_bpf_record::values::Part;
use ngx_bpf_record::values::Side;
use ngx_bpf_record::values::Timeout;

use crate::suite::common::build::HTTP3 as HTTP3_MODULE;
use crate::suite::common::build::REWRITE;
use crate::suite::common::build::is_built_with;
use crate::suite::common::build::is_built_without;
use crate::suite::common::dns;
use crate::suite::common::http3;
use crate::suite::common::listener::FullListener;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::record::Record;
use crate::suite::common::tls;
use crate::suite::common::upstream::Upstream;
use crate::suite::root::requests::traced;
use clients::Connect;
use clients::send;

/// What clients of HTTP/1 do.
mod clients;
/// Requests that limits refuse.
mod limits;
/// What clients of HTTP/2 and HTTP/3 do.
mod streams;

/// A server on which everything can go wrong.
const HTTP: &str = "
    error_log {prefix}/error.log info;
    client_header_timeout 300ms; client_body_timeout 300ms; send_timeout 300ms;
    lingering_timeout 300ms; keepalive_timeout 2s;
    proxy_connect_timeout 300ms; proxy_send_timeout 300ms;
    resolver 127.0.0.1:{dns} ipv6=off; resolver_timeout 200ms;
    server {
        listen 127.0.0.1:{port};
        listen 127.0.0.1:{tls} ssl http2; {quic}
        root {prefix}/html;
        client_max_body_size 64m; client_body_buffer_size 64m;
        location / { }
        location /denied { deny all; }
        location /small { client_max_body_size 1; }
        location /return { return 200 'hello\\n'; }
        location /moved { return 301 /return; }
        location /500 { return 500; }
        location /bye { return 444; }
        location /gone { return 499; }
        location /late { return 408; }
        location /proxied/ { proxy_pass http://127.0.0.1:{upstream}; }
        location /proxied/deaf { client_body_timeout 60s; proxy_pass http://127.0.0.1:{upstream}; }
        location /whole/ { proxy_ignore_client_abort on; proxy_pass http://127.0.0.1:{upstream}; }
        location /direct/ {
            proxy_buffering off; proxy_request_buffering off; proxy_pass http://127.0.0.1:{upstream};
        }
        location /hasty/ { proxy_read_timeout 300ms; proxy_pass http://127.0.0.1:{upstream}; }
        location /hasty/direct/ {
            proxy_buffering off; proxy_read_timeout 300ms; proxy_pass http://127.0.0.1:{upstream};
        }
        location /mended/ {
            proxy_intercept_errors on; error_page 404 =200 /file; error_page 500 /file;
            proxy_pass http://127.0.0.1:{upstream};
            location /mended/direct/ {
                proxy_buffering off; proxy_pass http://127.0.0.1:{upstream};
            }
        }
        location @502 { return 502; }
        location @504 { return 504; }
        location /paged/ {
            proxy_intercept_errors on; error_page 404 = @502; error_page 410 = @504; error_page 502 = @504;
            proxy_read_timeout 300ms; error_page 504 = @502; proxy_pass http://127.0.0.1:{upstream};
        }
        location /inner/ { internal; root {prefix}/html; }
        location /refused { proxy_pass http://127.0.0.1:9; }
        location /page { error_page 502 /file; proxy_pass http://127.0.0.1:9; }
        location /mended { error_page 502 =200 /file; proxy_pass http://127.0.0.1:9; }
        location /full { proxy_pass http://127.0.0.1:{full}; }
        location /silent/ { set $name silent.test; proxy_pass http://$name; }
        location /nowhere/ { set $name none.test; proxy_pass http://$name; }
        location /twice/ { error_page 502 = /silent/; proxy_pass http://127.0.0.1:9; }
        location /late/nowhere/ { error_page 502 = /nowhere/; set $name silent.test; proxy_pass http://$name; }
        location /late/mended/ { error_page 502 = /file; set $name silent.test; proxy_pass http://$name; }
    }";

/// A request.
pub struct Row {
    /// What its client does: a name in `clients.rs`.
    pub way: &'static str,
    pub uri: &'static str,
    /// 0: none.
    status: u32,
    /// The values of `end`, `timeout`, `closed_by` and `last_phase`, with slashes between them; `-`: `end` is absent.
    end: &'static str,
    /// What nginx's error log says of its connection. Empty: nothing of what it says of other ends.
    said: &'static str,
}

impl Row {
    /// Reads a line of a table: these columns.
    fn read(line: &'static str) -> Self {
        let mut rest = line;
        let mut column = || {
            let (word, after) = rest.trim_start().split_once(' ').unwrap_or((rest, ""));
            rest = after;
            word
        };
        Self {
            way: column(),
            uri: column(),
            status: column().parse().unwrap(),
            end: column(),
            said: rest.trim(),
        }
    }

    /// Reads a table, without its empty lines.
    fn all(table: &'static str) -> Vec<Self> {
        let lines = table.lines().map(str::trim);
        lines
            .filter(|line| !line.is_empty())
            .map(Self::read)
            .collect()
    }
}

/// Requests of HTTP/1: what nginx answers itself, what upstreams answer, how these fail, clients that
/// leave, clients that are too slow, and a file that nginx can't read to its end.
const HTTP1: &str = "
    whole      /file                            200 ok
    whole      /return                          200 ok
    whole      /moved                           301 ok
    whole      /none                            404 rejected
    whole      /denied                          403 rejected
    whole      /500                             500 error
    cut        /bye                             444 rejected/nginx
    cut        /gone                            499 rejected/nginx
    cut        /late                            408 rejected/nginx
    post-100   /small                           413 rejected                                       too large body
    post-100   /file                            405 rejected
    post-100   /proxied/                        200 ok
    broken     /file                            400 rejected                                       client sent invalid

    whole      /proxied/                        200 ok
    whole      /proxied/status-404              404 ok
    whole      /proxied/status-502              502 ok
    whole      /proxied/accel-inner-file        200 ok
    whole      /proxied/accel-inner-none        404 rejected
    whole      /mended/status-404               200 ok
    whole      /mended/status-500               500 ok
    whole      /mended/direct/status-404/body-100000 200 ok
    whole      /mended/direct/status-500/body-100000 500 ok
    whole      /paged/status-404                502 -
    whole      /paged/status-410                504 -
    whole      /paged/status-502                504 -
    whole      /paged/close                     504 upstream_failed/upstream/upstream_wait         upstream prematurely closed
    whole      /paged/hang                      502 timeout/upstream_read/nginx/upstream_wait      while reading response header
    whole      /proxied/endless/body-1000       200 ok

    whole      /refused                         502 upstream_failed/upstream_connect               (111:
    whole      /page                            502 upstream_failed/upstream_connect               (111:
    whole      /mended                          200 ok                                             (111:
    whole      /silent/                         502 timeout/resolve/nginx/before_upstream          could not be resolved (110:
    whole      /nowhere/                        502 upstream_failed/before_upstream                could not be resolved (3:
    whole      /twice/                          502 timeout/resolve/nginx/before_upstream          could not be resolved (110:
    whole      /late/nowhere/                   502 upstream_failed/before_upstream                could not be resolved (3:
    whole      /late/mended/                    200 ok                                             could not be resolved (110:
    whole      /proxied/close                   502 upstream_failed/upstream/upstream_wait         upstream prematurely closed
    whole      /proxied/reset                   502 upstream_failed/upstream/upstream_wait         (104:
    whole      /proxied/junk                    502 upstream_failed/nginx/upstream_response        invalid header
    whole      /full                            504 timeout/connect/nginx/upstream_connect         while connecting to upstream
    whole      /hasty/hang                      504 timeout/upstream_read/nginx/upstream_wait      while reading response header
    post-25165824 /proxied/deaf                    504 timeout/upstream_send/nginx/upstream_request   while sending request
    cut        /proxied/half-1000/wait-30/close 200 upstream_failed/upstream/upstream_response     upstream prematurely closed
    cut        /proxied/half-1000/wait-30/reset 200 upstream_failed/upstream/upstream_response     (104:
    cut        /hasty/half-1000/hang            200 timeout/upstream_read/nginx/upstream_response  while reading upstream
    cut        /direct/half-1000/wait-30/close  200 upstream_failed/upstream/upstream_response     upstream prematurely closed
    cut        /hasty/direct/half-1000/hang     200 timeout/upstream_read/nginx/upstream_response  while reading upstream

    gone       /proxied/hang                    499 client_closed/client/upstream_wait             client prematurely closed
    gone-half  /direct/half-1000/hang           200 client_closed/client/client_response           client prematurely closed
    gone       /whole/wait-200                  200 ok
    gone-body  /proxied/                        400 client_closed/client/client_body               client prematurely closed
    gone-body  /direct/                         400 client_closed/client/client_body               client prematurely closed
    reset      /proxied/hang                    499 client_reset/client/upstream_wait              (104:
    reset-half /proxied/half-200000/hang        200 client_reset/client/client_response            (104:
    reset-half /large                           200 client_reset/client/client_response            (104:
    reset-body /proxied/                        400 client_reset/client/client_body                (104:
    reset-body /direct/                         400 client_reset/client/client_body                (104:

    deaf       /large                           200 timeout/send/nginx/client_response             client timed out
    deaf       /proxied/body-33554432           200 timeout/send/nginx/client_response             client timed out
    deaf       /direct/body-33554432            200 timeout/send/nginx/client_response             client timed out
    slow-body  /proxied/                        408 timeout/body/nginx/client_body
    slow-body  /direct/                         408 timeout/body/nginx/client_body
    slow-body  /file                            405 rejected
    slow-head  /file                            408 timeout/header/nginx/client_request            client timed out

    shrinking  /shrinking                       200 error/nginx/client_response                    pread() read only
";

/// Requests of HTTP/2. In the middle of a response it is not certain who has reset a stream.
const HTTP2: &str = "
    whole      /file                            200 ok
    whole      /none                            404 rejected
    whole      /500                             500 error
    whole      /bye                             444 rejected/nginx
    post       /proxied/                        200 ok
    whole      /proxied/status-404              404 ok
    whole      /proxied/close                   502 upstream_failed/upstream/upstream_wait         upstream prematurely closed
    whole      /silent/                         502 timeout/resolve/nginx/before_upstream          could not be resolved (110:
    whole      /hasty/hang                      504 timeout/upstream_read/nginx/upstream_wait      while reading response header
    whole      /hasty/half-1000/hang            200 timeout/upstream_read/nginx/upstream_response  while reading upstream
    gone       /proxied/hang                    499 client_closed/client/upstream_wait             client prematurely closed
    gone-half  /direct/half-1000/hang           200 client_closed/client/client_response           client prematurely closed
    gone-body  /proxied/                        499 client_closed/client                           client prematurely closed
    gone-body  /direct/                         400 client_closed/client/client_body               client prematurely closed
    reset      /proxied/hang                    499 client_reset/client/upstream_wait              client canceled stream 1
    reset-half /direct/half-1000/hang           200 -                                              client canceled stream 1
    break      /proxied/hang                    499 client_reset/client/upstream_wait              prematurely closed
    deaf       /large                           200 timeout/send/nginx/client_response             client timed out
    slow-body  /proxied/                        408 timeout/body/nginx/client_body                 client timed out
    slow-body  /direct/                         408 timeout/body/nginx/client_body
";

/// Requests of HTTP/3. nginx's memory does not show who ended the connection.
const HTTP3: &str = "
    whole      /file                            200 ok
    whole      /none                            404 rejected
    whole      /500                             500 error
    whole      /proxied/status-404              404 ok
    whole      /proxied/close                   502 upstream_failed/upstream/upstream_wait         upstream prematurely closed
    whole      /silent/                         502 timeout/resolve/nginx/before_upstream          could not be resolved (110:
    whole      /hasty/hang                      504 timeout/upstream_read/nginx/upstream_wait      while reading response header
    whole      /hasty/half-1000/hang            200 timeout/upstream_read/nginx/upstream_response  while reading upstream
    gone       /proxied/wait-3000               000 -
    reset      /proxied/wait-3000               499 client_reset/client/upstream_wait
    slow-body  /proxied/                        408 timeout/body/nginx/client_body
    slow-head  /file                            408 timeout/header/nginx/client_request            client timed out
";

/// What nginx's error log says of ends that are not those of a request without such a line.
const SAID: [&str; 5] = ["(104: ", "(110: ", "(32: ", "client ", "upstream "];

/// Returns the lines of nginx's error log about each connection.
fn said(nginx: &Nginx) -> BTreeMap<u64, String> {
    let log = fs::read_to_string(nginx.prefix().join("error.log")).unwrap();
    let mut said: BTreeMap<u64, String> = BTreeMap::new();
    for line in log.lines() {
        let number = line.split_once(" *").and_then(|(_, rest)| {
            let (number, _) = rest.split_once(' ')?;
            number.parse().ok()
        });
        /* What follows the end of the request; and 1.18 writes a body of unknown length to a file. */
        let others = [
            "keepalive connection",
            "while keepalive",
            "buffered to a temporary file",
        ];
        let is_other = others.into_iter().any(|other| line.contains(other));
        if let Some(number) = number.filter(|_| !is_other) {
            *said.entry(number).or_default() += &format!("{line}\n");
        }
    }
    said
}

/// Starts nginx, with a server at `{full}` that answers no connect. Calls `run` with it and with the
/// port for TLS, and returns the records and the error log by connection.
fn with_nginx(http: &str, run: impl FnOnce(&Nginx, u16)) -> (Vec<Record>, BTreeMap<u64, String>) {
    let upstream = Upstream::start();
    let full = FullListener::start();
    let has_http3 = is_built_with(HTTP3_MODULE);
    let quic = if has_http3 {
        "listen 127.0.0.1:{port} quic;"
    } else {
        ""
    };
    let http = http.replace("{full}", &full.port.to_string());
    let http = http.replace("{dns}", &dns::start().to_string());
    let (http, port) = tls::with_port(&http.replace("{quic}", quic));
    let nginx = Nginx::prepared(&http, upstream.port, tls::certificate);
    nginx.file("file", b"hello");
    fs::create_dir(nginx.prefix().join("html/inner")).unwrap();
    nginx.file("inner/file", b"hello");
    nginx.file("large", &vec![b'x'; 32 << 20]);
    nginx.file("shrinking", &vec![b'x'; 16 << 20]);
    let mut logged = BTreeMap::new();
    let records = traced(nginx, |nginx| {
        run(nginx, port);
        logged = said(nginx);
    });
    (records, logged)
}

/// Returns how a request ended, in the form of a row.
fn shown(ending: &Ending) -> String {
    let parts = [
        ending.end.map(End::name),
        ending.timeout.map(Timeout::name),
        ending.closed_by.map(Side::name),
        ending.last_phase.map(Part::name),
    ];
    let parts: Vec<_> = parts.into_iter().flatten().collect();
    if parts.is_empty() {
        return "-".to_owned();
    }
    parts.join("/")
}

/// Asserts that each record ended as its row says, and that nginx's log agrees.
fn assert_ends(rows: &[Row], records: &[Record], said: &BTreeMap<u64, String>) {
    assert_eq!(records.len(), rows.len());
    for (row, record) in rows.iter().zip(records) {
        let said = said.get(&record.key().1).map_or("", |said| said);
        let context = format!("{} {}\n{record:#?}\n{said}", row.way, row.uri);
        assert_eq!(record.status.unwrap_or(0), row.status, "{context}");
        assert_eq!(shown(&record.ending), row.end, "{context}");
        /* Over TLS nginx takes a reset within a read for the end (docs/fields.md). */
        let is_read = record.scheme.name() == "https" && row.way == "reset-body";
        let text = if is_read {
            "prematurely closed"
        } else {
            row.said
        };
        assert!(said.contains(text), "{context}");
        if row.said.is_empty() {
            let is_said = SAID.into_iter().any(|other| said.contains(other));
            assert!(!is_said, "{context}");
        }
    }
}

/// Sends the requests of all rows by `send`, several for each row, and checks their ends. `send` gets
/// the port for TLS, and the number of requests by which the row is over.
fn check(table: &'static str, requests: usize, send: impl Fn(&Nginx, &Row, u16, usize)) {
    if is_built_without(REWRITE) {
        return;
    }
    let rows = Row::all(table);
    let (mut records, said) = with_nginx(HTTP, |nginx, port| {
        let mut count = 0;
        for row in &rows {
            count += requests;
            send(nginx, row, port, count);
            nginx.wait_logged(count);
        }
    });
    records.retain(|record| record.uri.as_deref() != Some("/return/first"));
    assert_ends(&rows, &records, &said);
}

/// Check every end of a request of HTTP/1.
#[test]
fn http1() {
    check(HTTP1, 1, |nginx, row, port, count| {
        send(nginx, row, Connect::Plain, port, count);
    });
}

/// Check the same over TLS.
#[test]
fn tls() {
    check(HTTP1, 2, |nginx, row, port, count| {
        send(nginx, row, Connect::Tls, port, count);
    });
}

/// Check the ends of streams of HTTP/2.
#[test]
fn http2() {
    check(HTTP2, 1, streams::send_http2);
}

/// Check the ends of streams of HTTP/3.
#[test]
fn http3() {
    if http3::is_missing() {
        return;
    }
    check(HTTP3, 1, |nginx, row, _, count| {
        streams::send_http3(nginx, row, count)
    });
}
