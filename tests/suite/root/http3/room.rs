// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is kept for HTTP/3 is bounded. One client, or a socket of something else, takes no more than
//! its share.

use std::fmt::Write as _;

use super::start;
use crate::suite::common::build::REWRITE;
use crate::suite::common::build::is_built_without;
use crate::suite::common::client::Client;
use crate::suite::common::dns;
use crate::suite::common::http3;
use crate::suite::common::http3::Http3;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::record::assert_equal;
use crate::suite::common::tls;
use crate::suite::common::tool::Tool;
use crate::suite::common::upstream::Upstream;

/// `HELD_OF_CONNECTION_MAX` in bpf/config.bpf.h.
const HELD_MAX: u64 = 64;

/// Check a client that takes no response to its end: no more than its share of records is held, and
/// the records of all its requests are written when it leaves. Another client's are complete.
#[test]
fn held() {
    if http3::is_missing() {
        return;
    }
    let (nginx, _upstream) = start();
    let tool = Tool::trace(nginx.pid());
    let mut narrow = Http3::connect_narrow(nginx.port);
    for n in 0..HELD_MAX + 8 {
        narrow.get(4 * n, "/file-40k");
        narrow.receive_some(4 * n);
    }
    nginx.wait_logged(HELD_MAX as usize + 8);
    tool.wait_map("held_requests", HELD_MAX as usize);
    let mut other = Http3::connect(nginx.port);
    other.get(0, "/file-40k");
    other.receive([0]);
    other.close();
    tool.wait_map("held_requests", HELD_MAX as usize);
    narrow.close();
    let mut logged = nginx.quit();
    let ended = tool.wait();
    ended.assert_clean();
    let mut records = ended.records();
    assert_eq!(records.len() as u64, HELD_MAX + 8 + 1);
    records.sort_by_key(|record| (record.connection, record.connection_requests));
    logged.sort_by_key(|logged| (logged.connection, logged.connection_requests));
    assert_equal(&records, &logged);
    let last = records.last().unwrap();
    assert!(
        last.phases.downstream_response_last_byte_time.is_some(),
        "{last:#?}"
    );
    let ends = records.iter().filter(|record| record.duration_ns.is_some());
    assert_eq!(
        ends.count() as u64,
        HELD_MAX + 1,
        "the end of the others was not seen"
    );
}

/// Check that the times of HTTP/3 are there after a worker has read from many other sockets for
/// datagrams: those of resolvers.
#[test]
fn resolvers() {
    const RESOLVERS: usize = 6;
    if http3::is_missing() || is_built_without(REWRITE) {
        return;
    }
    let upstream = Upstream::start();
    let mut locations = String::new();
    for n in 0..RESOLVERS {
        let resolver = dns::start();
        write!(
            locations,
            "location /{n} {{ resolver 127.0.0.1:{resolver} ipv6=off valid=1s;
                              set $name name{n}.test; proxy_pass http://$name:{{upstream}}/; }}"
        )
        .unwrap();
    }
    let http = format!(
        "{} server {{ listen 127.0.0.1:{{port}}; listen 127.0.0.1:{{port}} quic; {locations}
                      location / {{ return 200 'hello\\n'; }} }}",
        tls::DIRECTIVES
    );
    let nginx = Nginx::prepared(&http, upstream.port, tls::certificate);
    let tool = Tool::trace(nginx.pid());
    let mut client = Client::connect(nginx.port);
    for n in 0..RESOLVERS {
        assert_eq!(client.get(&format!("/{n}")).status, 200);
    }
    let mut http = Http3::connect(nginx.port);
    for n in 0..RESOLVERS as u64 {
        http.get(8 * n, "/");
        http.get(8 * n + 4, &format!("/{n}"));
        http.receive([8 * n, 8 * n + 4]);
    }
    http.close();
    drop(client);
    nginx.quit();
    let ended = tool.wait();
    ended.assert_clean();
    let mut records = ended.records();
    records.retain(|record| record.server_protocol.as_deref() == Some("HTTP/3.0"));
    assert_eq!(records.len(), 2 * RESOLVERS);
    for record in records {
        let first = record.phases.downstream_request_first_byte_time;
        assert!(
            first.is_some() && record.duration_ns.is_some(),
            "{record:#?}"
        );
    }
}
