// SPDX-License-Identifier: MIT OR Apache-2.0
//! `redirects`: the number of internal redirects. The configuration says how many there are.

use std::fmt::Write as _;
use std::net::TcpStream;

use crate::suite::common::PATIENCE;
use crate::suite::common::build::REWRITE;
use crate::suite::common::build::is_built_without;
use crate::suite::common::client::Client;
use crate::suite::common::http2;
use crate::suite::common::http2::Http2;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::record::Record;
use crate::suite::common::tool::check;
use crate::suite::common::upstream::Upstream;
use crate::suite::root::requests::traced;

/// A server with every cause.
pub const HTTP: &str = "
    server {
        listen 127.0.0.1:{port};
        root {prefix}/html;
        location / { }
        location /try/ { try_files /nothing /index.html; }
        location /found/ { try_files /index.html =404; }
        location /refused/ { try_files /nothing =404; }
        location /named/ { try_files /nothing @rescue; }
        location @rescue { try_files /index.html =404; }
        location /page/ { error_page 404 /index.html; try_files /nothing =404; }
        location /rescued/ { error_page 404 = @rescue; try_files /nothing =404; }
        location /elsewhere/ { error_page 404 http://127.0.0.1/; try_files /nothing =404; }
        location /accel/ { proxy_pass http://127.0.0.1:{upstream}; }
        location /twice/ { error_page 502 = /try/; proxy_pass http://127.0.0.1:9; }
        location /after/ { try_files /index.html =404; post_action /found/; }
        location /loop/ { try_files /nothing /loop/; }
        location = /ssi.html { ssi on; }
        location /mirrored/ { mirror /try/; try_files /index.html =404; }
        {chain}
    }";

/// The same of the rewrite module.
const REWRITES: &str = "
    server {
        listen 127.0.0.1:{port};
        root {prefix}/html;
        rewrite ^/server/ /found/ last;
        error_page 410 /found/;
        if ($uri = /gone/) { return 410; }
        location /found/ { return 200; }
        location /last/ { rewrite ^ /found/ last; }
        location /twice/ { rewrite ^ /last/ last; }
        location /plain/ { rewrite ^ /found/; }
        location /break/ { rewrite ^ /index.html break; }
        location /moved/ { rewrite ^ /found/ redirect; }
        location /page/ { error_page 403 /last/; return 403; }
        location /loop/ { rewrite ^ /loop/ last; }
    }";

/// The line of nginx's error log about a request that is redirected more often than it allows.
const CYCLE: &str = "rewrite or internal redirection cycle";

/// Returns whether the number of redirects is known for this nginx: its release was examined.
pub fn are_known(nginx: &Nginx) -> bool {
    check(nginx.pid(), &[])["nginx"][0]["layout"] != "inferred"
}

/// Asks for each uri while nginx is traced, and compares the redirects, if they are known, and the status.
fn assert_redirects(nginx: Nginx, expected: &[(&str, Option<u8>, u32)]) {
    let are_known = are_known(&nginx);
    let records = traced(nginx, |nginx| {
        for (uri, _, status) in expected {
            assert_eq!(
                Client::connect(nginx.port).get(uri).status,
                *status,
                "{uri}"
            );
        }
        nginx.wait_for_log(CYCLE);
    });
    assert_eq!(records.len(), expected.len());
    for (record, (uri, redirects, _)) in records.iter().zip(expected) {
        assert_eq!(record.request_uri.as_deref(), Some(*uri));
        let expected = redirects.filter(|_| are_known);
        assert_eq!(record.place.redirects, expected, "{record:#?}");
    }
}

/// Check each cause, chains of redirects up to the most that nginx allows, the one that it refuses, and that neither
/// those of subrequests count nor what is no redirect.
#[test]
fn causes() {
    let upstream = Upstream::start();
    let mut chain = String::from("location = /chain0 { try_files /index.html =404; }");
    for n in 1..12 {
        let _ = writeln!(
            chain,
            "location = /chain{n} {{ try_files /nothing /chain{}; }}",
            n - 1
        );
    }
    let nginx = Nginx::with(&HTTP.replace("{chain}", &chain), upstream.port);
    nginx.file("index.html", b"index\n");
    nginx.file(
        "ssi.html",
        b"<!--#include virtual=\"/try/\" --> <!--#include virtual=\"/twice/\" -->",
    );
    assert_redirects(
        nginx,
        &[
            ("/index.html", None, 200),
            ("/", Some(1), 200),
            ("/try/", Some(1), 200),
            ("/found/", None, 200),
            ("/refused/", None, 404),
            ("/named/", Some(1), 200),
            ("/page/", Some(1), 404),
            ("/rescued/", Some(1), 200),
            ("/elsewhere/", None, 302),
            ("/accel/", None, 200),
            ("/accel/accel-index.html", Some(1), 200),
            ("/accel/accel-try-", Some(2), 200),
            ("/twice/", Some(2), 200),
            ("/after/", Some(1), 200),
            ("/ssi.html", None, 200),
            ("/mirrored/", None, 200),
            ("/chain1", Some(1), 200),
            ("/chain9", Some(9), 200),
            ("/chain10", Some(10), 200),
            ("/chain11", Some(11), 500),
            ("/loop/", Some(11), 500),
        ],
    );
}

/// Check what `rewrite` redirects: not what it changes before a location is chosen, for which an error page is a
/// redirect all the same.
#[test]
fn rewrites() {
    if is_built_without(REWRITE) {
        return;
    }
    let nginx = Nginx::with(REWRITES, 9);
    nginx.file("index.html", b"index\n");
    assert_redirects(
        nginx,
        &[
            ("/found/", None, 200),
            ("/server/", None, 200),
            ("/gone/", Some(1), 410),
            ("/last/", Some(1), 200),
            ("/twice/", Some(2), 200),
            ("/plain/", Some(1), 200),
            ("/break/", None, 200),
            ("/moved/", None, 302),
            ("/page/", Some(2), 403),
            ("/loop/", Some(11), 500),
        ],
    );
}

/// Check that each stream of HTTP/2 has its own number.
#[test]
fn http2_streams() {
    let http = HTTP
        .replace("{port};", "{port} http2;")
        .replace("{chain}", "");
    let nginx = Nginx::with(&http, 9);
    nginx.file("index.html", b"index\n");
    let are_known = are_known(&nginx);
    let records = traced(nginx, |nginx| {
        let stream = TcpStream::connect(("127.0.0.1", nginx.port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut client = Http2::start(Box::new(stream), 1 << 20);
        let streams = http2::streams(2).zip(STREAMS);
        let frames = streams.map(|(stream, (uri, _))| http2::get(stream, uri));
        client.send(&frames.collect::<Vec<_>>().concat());
        client.receive(http2::streams(2).take(STREAMS.len()));
    });
    assert_streams(&records, are_known);
}

/// The uris that streams ask for, in their order, and their redirects.
pub const STREAMS: [(&str, Option<u8>); 5] = [
    ("/found/", None),
    ("/try/", Some(1)),
    ("/twice/", Some(2)),
    ("/loop/", Some(11)),
    ("/index.html", None),
];

/// Asserts that the records of `STREAMS` have their redirects, if these are known.
pub fn assert_streams(records: &[Record], are_known: bool) {
    assert_eq!(records.len(), STREAMS.len());
    for record in records {
        let mut expected = STREAMS.into_iter();
        let uri = record.request_uri.as_deref();
        let (_, redirects) = expected.find(|(known, _)| uri == Some(*known)).unwrap();
        let expected = redirects.filter(|_| are_known);
        assert_eq!(record.place.redirects, expected, "{record:#?}");
    }
}
