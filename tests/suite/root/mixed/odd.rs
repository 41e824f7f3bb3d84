// SPDX-License-Identifier: MIT OR Apache-2.0
//! Clients that do random things: bodies in parts, pipelined requests, upstreams that fail, clients that leave.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ngx_bpf_record::values::End;
use rustls::version::TLS13;

use crate::suite::common::client::Client;
use crate::suite::common::delay;
use crate::suite::common::record::Record;
use crate::suite::common::tls::Tls;

/// The uris, and how their requests end whose client stays.
const URIS: [(&str, End); 10] = [
    ("/file", End::Ok),
    ("/large", End::Ok),
    ("/missing", End::Rejected),
    ("/new/body-3000", End::Ok),
    ("/new/status-404", End::Ok),
    ("/new/close", End::UpstreamFailed),
    ("/new/half-1000/wait-5/close", End::UpstreamFailed),
    ("/kept/wait-3/body-10000", End::Ok),
    ("/tls/body-20000", End::Ok),
    ("/refused", End::UpstreamFailed),
];

/// What marks the requests whose client leaves.
const LEAVES: &str = "?leaves";

/// Numbers that look random, the same for each seed (xorshift64).
struct Random(u64);

impl Random {
    /// Returns a number below a limit.
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit as u64).unwrap()
    }

    fn pause(&mut self) {
        delay(Duration::from_millis(self.below(8) as u64));
    }
}

/// Sends random requests until `is_over`, each on a connection of its own, with and without TLS.
pub fn send(port: u16, tls_port: u16, seed: u64, is_over: &AtomicBool) {
    let mut random = Random(seed);
    while !is_over.load(Ordering::Relaxed) {
        let mut client = match random.below(2) {
            0 => Client::connect(port),
            _ => Tls::begin(tls_port, &TLS13, &["http/1.1"])
                .finish()
                .into_client(),
        };
        let (uri, _) = URIS[random.below(URIS.len())];
        let end = "HTTP/1.1\r\nHost: odd\r\nConnection: close\r\n";
        match random.below(5) {
            0 => {
                client.try_send(format!("GET {uri}{LEAVES} {end}\r\n"));
                random.pause();
                continue;
            }
            1 => {
                let first = "GET /kept/wait-2 HTTP/1.1\r\nHost: odd\r\n\r\n";
                client.try_send(format!("{first}GET {uri} {end}\r\n"));
            }
            2 => {
                let uri = "/kept/body-100";
                client.try_send(format!("POST {uri} {end}Content-Length: 6\r\n\r\nabc"));
                random.pause();
                client.try_send("def");
            }
            _ => {
                client.try_send(format!("GET {uri} {end}\r\n"));
            }
        }
        client.rest();
    }
}

/// Asserts how the requests of these clients ended. That of a client that leaves may have ended in several
/// ways; over TLS it may not be certain.
pub fn assert_ends(records: &[Record]) {
    let mut found = vec![0; URIS.len()];
    let mut left = 0;
    let odd = records.iter();
    for record in odd.filter(|record| record.http_host.as_deref() == Some("odd")) {
        let uri = record.request_uri.as_deref().unwrap();
        let end = record.ending.end;
        if let Some(uri) = uri.strip_suffix(LEAVES) {
            left += 1;
            let is_certain = end.is_some() || record.scheme.name() == "https";
            assert!(is_certain, "{uri}: {record:#?}");
            continue;
        }
        match URIS.iter().position(|(known, _)| *known == uri) {
            Some(at) => {
                found[at] += 1;
                assert_eq!(end, Some(URIS[at].1), "{record:#?}");
            }
            None => assert_eq!(end, Some(End::Ok), "{record:#?}"),
        }
    }
    assert!(left > 0 && !found.contains(&0), "{left} left, {found:?}");
}
