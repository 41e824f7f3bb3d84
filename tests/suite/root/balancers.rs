// SPDX-License-Identifier: MIT OR Apache-2.0
//! Load balancing: attempts are as nginx logs them, each with its own times.

use ngx_bpf_record::values::Failure;

use crate::suite::common::build::REWRITE;
use crate::suite::common::build::is_built_without;
use crate::suite::common::client::Client;
use crate::suite::common::dns;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::record::Record;
use crate::suite::common::upstream::Upstream;
use crate::suite::root::requests::traced;

/// Returns an upstream group with a server that refuses, two that work, and a backup for when both
/// fail.
fn group(balancer: &str, servers: [u16; 3]) -> String {
    let [a, b, c] = servers;
    let backup = match balancer.split([' ', ';']).next() {
        Some("ip_hash" | "hash" | "random") => "",
        _ => "backup",
    };
    format!(
        "upstream group {{
            {balancer}
            server 127.0.0.1:9 max_fails=0; server 127.0.0.1:{a}; server 127.0.0.1:{b};
            server 127.0.0.1:{c} {backup};
            keepalive 4;
        }}
        proxy_next_upstream error timeout http_503;
        server {{
            listen 127.0.0.1:{{port}};
            proxy_http_version 1.1;
            proxy_set_header Connection '';
            location / {{ proxy_pass http://group; }}
        }}"
    )
}

/// Check every load balancing method, with servers of which one refuses: the attempts and their
/// results are right, and they follow one another.
#[test]
fn all() {
    for balancer in [
        "",
        "least_conn;",
        "ip_hash;",
        "hash $request_uri;",
        "hash $request_uri consistent;",
        "random;",
        "random two least_conn;",
    ] {
        let upstreams = [(); 3].map(|()| Upstream::start());
        let ports = upstreams.each_ref().map(|upstream| upstream.port);
        let nginx = Nginx::with(&group(balancer, ports), 9);
        let records = traced(nginx, |nginx| {
            let mut client = Client::connect(nginx.port);
            for n in 0..12 {
                assert_eq!(client.get(&format!("/{n}")).status, 200);
            }
            /* All of them fail. The last attempt ends with the server's answer, or without one. */
            let status = client.get("/status-503").status;
            assert!(matches!(status, 502 | 503), "{balancer}: {status}");
        });
        assert_eq!(records.len(), 13, "{balancer}");
        for record in &records {
            record.assert_complete();
            assert_in_turn(record);
        }
        let last = records.last().unwrap();
        let failed = |record: &Record, failure| {
            let mut attempts = record.upstreams.iter();
            attempts.any(|attempt| attempt.failure == Some(failure))
        };
        assert!(failed(last, Failure::Http503), "{balancer}: {last:#?}");
        let attempts = records.iter().flat_map(|record| &record.upstreams);
        for attempt in attempts {
            let refused = attempt.addr.as_deref() == Some("127.0.0.1:9");
            assert_eq!(
                refused,
                attempt.failure == Some(Failure::ConnectError),
                "{balancer}: {attempt:#?}"
            );
        }
        let reused = records.iter().flat_map(|record| &record.upstreams);
        assert!(reused.clone().any(|attempt| attempt.reused == Some(true)));
    }
}

/// Asserts that each attempt begins after the one before it has ended.
fn assert_in_turn(record: &Record) {
    for pair in record.upstreams.windows(2) {
        let before = pair[0]
            .upstream_response_last_byte_time
            .or(pair[0].upstream_connect_time);
        assert!(before <= pair[1].upstream_connect_time, "{record:#?}");
    }
}

/// Check `proxy_pass` with variables: addresses, and names that a name server resolves. The sockets
/// of the name server are no upstream of a request.
#[test]
fn resolver() {
    if is_built_without(REWRITE) {
        return;
    }
    let upstream = Upstream::start();
    let http = format!(
        "resolver 127.0.0.1:{};
         server {{
            listen 127.0.0.1:{{port}};
            location /name/ {{ set $name some.test; proxy_pass http://$name:{{upstream}}; }}
            location /address/ {{ set $name 127.0.0.1; proxy_pass http://$name:{{upstream}}; }}
         }}",
        dns::start()
    );
    let records = traced(Nginx::with(&http, upstream.port), |nginx| {
        let mut client = Client::connect(nginx.port);
        for uri in ["/name/", "/address/", "/name/wait-1"] {
            assert_eq!(client.get(uri).status, 200);
        }
    });
    for record in &records {
        record.assert_complete();
        assert_eq!(record.upstreams.len(), 1, "{record:#?}");
        assert_eq!(record.upstreams[0].reused, Some(false));
    }
}
