// SPDX-License-Identifier: MIT OR Apache-2.0
//! Requests that `limit_req` and `limit_conn` refuse, with nginx's error log as the truth.

use super::Connect;
use super::Row;
use super::assert_ends;
use super::send;
use super::streams;
use super::with_nginx;
use crate::suite::common::build::LIMIT_CONN;
use crate::suite::common::build::LIMIT_REQ;
use crate::suite::common::build::REWRITE;
use crate::suite::common::build::is_built_without;
use crate::suite::common::client::Client;
use crate::suite::common::http3;
use crate::suite::common::nginx::Nginx;

/// A server that serves one request a minute in each location, and one that serves one connection.
const HTTP: &str = "
    error_log {prefix}/error.log info;
    limit_req_zone $server_port zone=one:64k rate=1r/m;
    limit_conn_zone $server_port zone=single:64k;
    server {
        listen 127.0.0.1:{port};
        listen 127.0.0.1:{tls} ssl http2; {quic}
        root {prefix}/html;
        location /file { limit_req zone=one; }
        location /429 { limit_req zone=one; limit_req_status 429; }
        location /500 { limit_req zone=one; limit_req_status 500; }
        location /paged { limit_req zone=one; error_page 503 /page; }
        location /busy { limit_req zone=one; error_page 503 =200 /page; }
        location /page { return 200 'page'; }
        location /returned { limit_req zone=one; return 503; }
        location /none { limit_conn single 1; }
        proxy_buffering off;
        location /crowded/ { limit_conn single 1; proxy_pass http://127.0.0.1:{upstream}/; }
        location /crowded/429/ {
            limit_conn single 1; limit_conn_status 429; proxy_pass http://127.0.0.1:{upstream}/;
        }
    }";

/// Requests, of which the first one uses up the limit.
const ROWS: &str = "
    whole      /file                            200 ok
    whole      /file                            503 limited                                        limiting requests
    whole      /429                             429 limited                                        limiting requests
    whole      /500                             500 -                                              limiting requests
    whole      /paged                           503 -                                              limiting requests
    whole      /busy                            200 ok                                             limiting requests
    whole      /returned                        503 -
    whole      /none                            404 rejected
";

/// Returns whether this nginx lacks one of the modules of the server, and then prints SKIP.
fn is_not_built() -> bool {
    let modules = [LIMIT_REQ, LIMIT_CONN, REWRITE];
    modules.into_iter().any(is_built_without)
}

/// Sends the requests of all rows by `send`, and checks their ends.
fn check(send: impl Fn(&Nginx, &Row, u16, usize)) {
    if is_not_built() {
        return;
    }
    let rows = Row::all(ROWS);
    let (records, said) = with_nginx(HTTP, |nginx, port| {
        for (row, count) in rows.iter().zip(1..) {
            send(nginx, row, port, count);
            nginx.wait_logged(count);
        }
    });
    assert_ends(&rows, &records, &said);
}

/// Check requests of HTTP/1.
#[test]
fn http1() {
    check(|nginx, row, port, count| send(nginx, row, Connect::Plain, port, count));
}

/// Check streams of HTTP/2.
#[test]
fn http2() {
    check(streams::send_http2);
}

/// Check streams of HTTP/3.
#[test]
fn http3() {
    if !http3::is_missing() {
        check(|nginx, row, _, count| streams::send_http3(nginx, row, count));
    }
}

/// Check limit_conn: while a request is served, others are refused.
#[test]
fn limit_conn() {
    if is_not_built() {
        return;
    }
    let rows = Row::all(
        "whole /crowded/                503 limited  limiting connections
         whole /crowded/429/            429 limited  limiting connections
         whole /crowded/head/wait-2000  200 ok
         whole /crowded/                200 ok",
    );
    let (records, said) = with_nginx(HTTP, |nginx, _| {
        let mut served = Client::connect(nginx.port);
        served.send("GET /crowded/head/wait-2000 HTTP/1.0\r\n\r\n");
        served.some();
        for uri in ["/crowded/", "/crowded/429/"] {
            Client::connect(nginx.port).get(uri);
        }
        served.rest();
        nginx.wait_logged(3);
        Client::connect(nginx.port).get("/crowded/");
    });
    assert_ends(&rows, &records, &said);
}
